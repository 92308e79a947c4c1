//! Rules about files: size, nothing unfinished, nothing switched off, documents that point at what exists.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines of a file, tests included; more than one purpose hides in a longer one.
const LINES_MAX: usize = 600;

/// What no Rust file may contain, and what to do instead. Written in two halves, so that this file does not break its
/// own rules.
const FORBIDDEN: [([&str; 2], &str); 6] = [
    (["#[ig", "nore"], "a test that does not run protects nothing: mend or delete it"),
    (["to", "do!("], "what is not there yet is absent, and the error says so"),
    (["unimple", "mented!("], "what is not there yet is absent, and the error says so"),
    (["#[be", "nch]"], "benchmarks are programs, never timed tests"),
    (["thread::sl", "eep"], "wait for the condition, with a deadline"),
    (["#![allow(uns", "afe_code"], "unsafe code is not needed here"),
];

/// Documents whose paths have to exist.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// Returns what is broken.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut broken = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let read = || fs::read_to_string(&file).with_context(|| format!("cannot read {name}"));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => broken.extend(check_source(&name, &read()?)),
            Some("toml") if file.ends_with("Cargo.toml") => broken.extend(check_manifest(&name, &read()?)),
            _ => {}
        }
    }
    for name in DOCUMENTS {
        let text = fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        broken.extend(check_document(name, &text, |path| root.join(path).exists()));
    }
    Ok(broken)
}

/// All files, without what is built and without hidden folders.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name();
        let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
        if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn check_source(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        broken.push(format!("{name}: {lines} lines, more than {LINES_MAX}: cut it where its purposes part"));
    }
    for (number, line) in text.lines().enumerate() {
        for (halves, reason) in FORBIDDEN {
            let needle = halves.concat();
            if line.contains(&needle) {
                broken.push(format!("{name}:{}: `{needle}`: {reason}", number + 1));
            }
        }
        // bollard is the business of one module and of its tests, not of the whole crate.
        let uses_bollard = line.contains(concat!("boll", "ard::"));
        if uses_bollard
            && !name.starts_with("agent/src/docker")
            && !name.starts_with("agent/tests/")
            && !line.trim_start().starts_with("//")
        {
            broken.push(format!("{name}:{}: bollard stays inside agent/src/docker", number + 1));
        }
    }
    broken
}

fn check_manifest(name: &str, text: &str) -> Option<String> {
    let package = text.lines().any(|line| line.trim() == "[package]");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lints = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    (package && !lints).then(|| format!("{name}: without `[lints] workspace = true` the workspace's lints do not hold"))
}

/// Every `path/in/backticks` of a document has to exist. Only what has a slash and plain characters counts as a path.
fn check_document(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    const FOLDERS: [&str; 10] =
        ["crates/", "manager/", "agent/", "node/", "cli/", "xtask/", "examples/", "deploy/", "docs/", ".ci/"];
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Every second piece stands between backticks.
        for path in line.split('`').skip(1).step_by(2) {
            if FOLDERS.iter().any(|folder| path.starts_with(folder))
                && !path.contains(['*', '{', ' ', '…'])
                && !exists(path)
            {
                broken.push(format!("{name}:{}: `{path}` does not exist", number + 1));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_no_source_may_contain() {
        for (halves, _) in FORBIDDEN {
            let text = format!("fn good() {{}}\n    {}\n", halves.concat());
            let broken = check_source("a.rs", &text);
            assert!(broken.len() == 1 && broken[0].starts_with("a.rs:2: "), "{broken:?}");
        }
        assert_eq!(check_source("a.rs", "fn good() {}\n"), [""; 0]);
    }

    #[test]
    fn a_file_may_have_600_lines() {
        assert_eq!(check_source("a.rs", &"\n".repeat(LINES_MAX)), [""; 0]);
        assert!(check_source("a.rs", &"\n".repeat(LINES_MAX + 1))[0].contains("601 lines"));
    }

    #[test]
    fn bollard_stays_in_its_module() {
        let line = concat!("use boll", "ard::Docker;");
        assert_eq!(check_source("agent/src/docker/engine.rs", line), [""; 0]);
        assert_eq!(check_source("agent/src/session.rs", line).len(), 1);
    }

    #[test]
    fn a_package_takes_the_workspace_lints() {
        assert_eq!(check_manifest("Cargo.toml", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), None);
        assert_eq!(check_manifest("Cargo.toml", "[workspace]\nmembers = []\n"), None);
        assert!(check_manifest("Cargo.toml", "[package]\nname = \"a\"\n").is_some());
    }

    #[test]
    fn documents_point_at_what_exists() {
        let text = "See `crates/core/src/apply.rs` and `crates/gone.rs`, or `cargo xtask`, `crates/*`.";
        let broken = check_document("A.md", text, |path| path == "crates/core/src/apply.rs");
        assert_eq!(broken, ["A.md:1: `crates/gone.rs` does not exist"]);
    }
}
