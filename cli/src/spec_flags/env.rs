//! `--env` and `--env-file`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Largest environment file; a spec takes half a megabyte.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A variable of this process by its name.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of files and flags in their order, `NAME=VALUE`, a name perhaps more than once.
///
/// # Errors
/// A file that cannot be read, or a line without a name.
pub(super) fn variables(files: &[PathBuf], flags: &[String], lookup: Lookup<'_>) -> anyhow::Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in files {
        let text = read(path)?;
        for (number, line) in lines(&text) {
            let found = variable(line, lookup);
            variables.extend(found.with_context(|| format!("--env-file {}, line {number}", path.display()))?);
        }
    }
    for flag in flags {
        variables.extend(variable(flag, lookup)?);
    }
    Ok(variables)
}

/// One variable. A name alone that is not set here gives none, as in Docker.
fn variable(text: &str, lookup: Lookup<'_>) -> anyhow::Result<Option<String>> {
    let name = name(text);
    if name.is_empty() || name.contains(char::is_whitespace) {
        bail!("'{name}' is not the name of a variable; write NAME=VALUE, or NAME to pass it on from here");
    }
    if name.len() < text.len() {
        return Ok(Some(text.to_owned()));
    }
    Ok(lookup(name).map(|value| format!("{name}={value}")))
}

/// The name of a variable, which may have a value.
pub(super) fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let context = || format!("--env-file {}", path.display());
    let size = std::fs::metadata(path).with_context(context)?.len();
    if size > FILE_BYTES_MAX {
        bail!("--env-file {}: {size} bytes are too many, the limit is {FILE_BYTES_MAX}", path.display());
    }
    std::fs::read_to_string(path).with_context(context)
}

/// The lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim_start()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn env(file: &str, flags: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        path.write_all(file.as_bytes()).unwrap();
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        variables(&[path.path().to_owned()], &flags, &|name| (name == "HOME").then(|| "/root".to_owned()))
    }

    #[test]
    fn files_come_first() {
        let file = "\u{feff}# note\n\nA=1\n  B=two words\nHOME\nMISSING\nC=x=y\n";
        assert_eq!(env(file, &["A=2", "D="]).unwrap(), ["A=1", "B=two words", "HOME=/root", "C=x=y", "A=2", "D="]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = format!("{:#}", env("A=1\nB C=2\n", &[]).unwrap_err());
        assert!(error.contains("line 2") && error.contains("'B C'"), "{error}");
        assert!(env("", &["=x"]).is_err());
        let error = variables(&["/no/such".into()], &[], &|_| None).unwrap_err();
        assert!(format!("{error:#}").starts_with("--env-file /no/such: "), "{error:#}");
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "\\PC{0,20}(\n[A-Z#= ]{0,6}){0,4}") {
            let _ = env(&text, &[]);
        }
    }
}
