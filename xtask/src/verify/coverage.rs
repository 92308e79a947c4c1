//! docs/coverage.md: each script and test that it names is there, and each script is named.

use std::{fs, path::Path};

use anyhow::{Context, Result};

const DOCUMENT: &str = "docs/coverage.md";
const SCRIPTS: &str = "crates/core/tests/scenarios";

/// Returns what is broken.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let mut scripts = Vec::new();
    for entry in fs::read_dir(root.join(SCRIPTS)).with_context(|| format!("cannot read {SCRIPTS}"))? {
        scripts.push(entry?.file_name().to_string_lossy().into_owned());
    }
    scripts.sort();
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    Ok(compare(&text, &scripts, read))
}

/// What the document names and is not there, and the scripts that it does not name.
fn compare(text: &str, scripts: &[String], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut broken = Vec::new();
    let mut named = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut file = String::new();
        // Every second piece stands between backticks; `::test` is a test in the file named before it.
        for piece in line.split('`').skip(1).step_by(2) {
            let is_missing = match piece.split_once("::") {
                _ if piece.ends_with(".txt") => {
                    named.push(piece);
                    piece != "name.txt" && !scripts.iter().any(|script| script == piece)
                }
                Some((path, test)) => {
                    if !path.is_empty() {
                        file = path.to_owned();
                    }
                    file.contains('/') && !has_test(&file, test, &read)
                }
                None => false,
            };
            if is_missing {
                broken.push(format!("{DOCUMENT}:{}: `{piece}` does not exist", number + 1));
            }
        }
    }
    let unnamed = scripts.iter().filter(|script| !named.contains(&script.as_str()));
    broken.extend(unnamed.map(|script| format!("{SCRIPTS}/{script}: {DOCUMENT} does not say which rule it shows")));
    broken
}

/// Whether a file, or the file of its tests, has a function of this name.
fn has_test(file: &str, test: &str, read: impl Fn(&str) -> Option<String>) -> bool {
    let beside = file.replace(".rs", "/tests.rs");
    let of_folder = file.rsplit_once('/').map(|(folder, _)| format!("{folder}/tests.rs")).unwrap_or_default();
    let needle = format!("fn {test}(");
    [file, &beside, &of_folder].into_iter().filter_map(read).any(|text| text.contains(&needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_exists_and_what_exists_is_named() {
        let read = |path: &str| (path == "a/b.rs").then(|| "fn works() {}".to_owned());
        let scripts = ["one.txt".to_owned(), "two.txt".to_owned()];
        let text = "| 1 | `one.txt`; `a/b.rs::works`, `::fails` |\n| 2 | `three.txt` |";
        let expected = [
            "docs/coverage.md:1: `::fails` does not exist",
            "docs/coverage.md:2: `three.txt` does not exist",
            "crates/core/tests/scenarios/two.txt: docs/coverage.md does not say which rule it shows",
        ];
        assert_eq!(compare(text, &scripts, read), expected);
    }
}
