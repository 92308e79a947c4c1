//! `--env` and `--env-file`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Largest environment file; a spec takes half a megabyte.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A variable of this process by its name.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of the container: the files first, then the flags; of equal names the last one counts.
///
/// # Errors
/// A file that cannot be read, or a line without a name.
pub(super) fn environment(files: &[PathBuf], flags: &[String], lookup: Lookup<'_>) -> anyhow::Result<Vec<String>> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut add = |text: &str| {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, lookup(text)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("'{name}' is not the name of a variable; write NAME=VALUE, or NAME to pass it on from here");
        }
        // A name alone that is not set here is left out, as docker does.
        if let Some(value) = value {
            variables.retain(|(other, _)| other != name);
            variables.push((name.to_owned(), value));
        }
        Ok(())
    };
    for path in files {
        let text = read(path)?;
        for (number, line) in lines(&text) {
            add(line).with_context(|| format!("--env-file {}, line {number}", path.display()))?;
        }
    }
    for flag in flags {
        add(flag).context("--env")?;
    }
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
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
        environment(&[path.path().to_owned()], &flags, &|name| (name == "HOME").then(|| "/root".to_owned()))
    }

    #[test]
    fn files_come_first_and_the_last_one_counts() {
        let file = "\u{feff}# note\n\nA=1\n  B=two words\nHOME\nMISSING\nC=x=y\n";
        assert_eq!(env(file, &["A=2", "D="]).unwrap(), ["B=two words", "HOME=/root", "C=x=y", "A=2", "D="]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = format!("{:#}", env("A=1\nB C=2\n", &[]).unwrap_err());
        assert!(error.contains("line 2") && error.contains("'B C'"), "{error}");
        assert!(env("", &["=x"]).is_err());
        let error = environment(&["/no/such".into()], &[], &|_| None).unwrap_err();
        assert!(format!("{error:#}").starts_with("--env-file /no/such: "), "{error:#}");
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "\\PC{0,20}(\n[A-Z#= ]{0,6}){0,4}") {
            let _ = env(&text, &[]);
        }
    }
}
