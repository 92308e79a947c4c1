//! Figures in a document: each benchmark has a section between two marks, and only that is replaced.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use super::{Name, Section, result};

fn marks(name: Name) -> (String, String) {
    (format!("<!-- figures of {} -->", name.text()), format!("<!-- end of {} -->", name.text()))
}

/// Whether the document has a section for each of these.
pub(super) fn check(path: &Path, names: &BTreeSet<Name>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    names.iter().try_for_each(|name| {
        replace(&text, *name, "").map(drop).with_context(|| format!("cannot write figures to {}", path.display()))
    })
}

/// Puts figures into their sections.
pub(super) fn write(path: &Path, machine: &Machine, sections: &[Section], quick: bool) -> Result<()> {
    let mut text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for section in sections {
        let quick = if quick { " --quick" } else { "" };
        let body = format!(
            "`cargo xtask bench {}{quick}` on {machine}; {:.0} % idle before.\n\n{}\n",
            section.name.text(),
            section.idle * 100.0,
            result::table(&section.figures).join("\n")
        );
        text = replace(&text, section.name, &body)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(text: &str, name: Name, body: &str) -> Result<String> {
    let (begin, end) = marks(name);
    let parts = text.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    let Some((head, tail)) = parts else { bail!("it has no section between `{begin}` and `{end}`") };
    Ok(format!("{head}{begin}\n{body}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_is_replaced() {
        let (begin, end) = marks(Name::Writes);
        let text = format!("before\n{begin}\nold\n{end}\nafter\n");
        assert_eq!(replace(&text, Name::Writes, "new\n").unwrap(), format!("before\n{begin}\nnew\n{end}\nafter\n"));
        assert!(replace(&text, Name::Memory, "").unwrap_err().to_string().contains("figures of memory"));
    }
}
