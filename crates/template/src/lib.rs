//! Go's text templates, as `--format`, service specs, and the data of secrets and configs use them: parse, check, render.
//!
//! All of the language is here but method calls, complex numbers and `call`: fields, variables, pipes, parentheses, `if`,
//! `with`, `range`, `break`, `continue`, `define`, `template`, `block`, comments, trimming, Go's own functions, and those
//! that Docker adds (`json`, `join`, `split`, `title`, `upper`, `lower`, `pad`, `truncate`; in the data of secrets and
//! configs also `secret`, `config`, `env`). Values are those of JSON.
//!
//! Users write templates that managers and agents run, so everything has a limit: how deep a template is nested, how many
//! steps it takes, and how long its text and each value in it get.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
pub mod spec;
mod value;

use serde_json::Value as Json;
use thiserror::Error;

use eval::Run;
use functions::Language;
use parse::Tree;

/// Levels of parentheses, of blocks, and of templates that call each other; people need three.
const DEPTH_MAX: usize = 32;

/// A template that cannot be read, or does not fit the value that it is applied to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct TemplateError {
    text: String,
    /// The same text without anything of the template or of its values.
    bare: String,
    /// The line of the template, 0 if it is not known yet.
    line: usize,
}

impl TemplateError {
    /// With a line, if it has none.
    fn at(self, line: usize) -> Self {
        Self { line: if self.line == 0 { line } else { self.line }, ..self }
    }

    /// For a template that may be a secret, or works on one: the text has the line and the kind of mistake, and nothing else.
    fn hiding(self) -> Self {
        let text = format!("line {}: {}", self.line, self.bare);
        Self { bare: text.clone(), text, line: self.line }
    }
}

/// What a template may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps. Each piece that is looked at is one. A function takes one more for each 64 bytes that it reads or makes. A
    /// million steps take less than a second, and 64 MB.
    pub steps_max: usize,
    /// Bytes of the text that comes out, and of each text on the way.
    pub bytes_max: usize,
}

impl Limits {
    /// For what users wrote and managers and agents run: well below a second, and 64 KiB.
    pub const SPEC: Self = Self { steps_max: 100_000, bytes_max: 64 * 1024 };
    /// For the data of secrets and configs: as many bytes as the largest of them may have.
    pub const PAYLOAD: Self = Self { steps_max: 1_000_000, bytes_max: (1000 << 10) - 1 };
    /// For what somebody runs on a machine of his own: a list of a million tasks fits.
    pub const OWN: Self = Self { steps_max: 1_000_000_000, bytes_max: 1 << 30 };
}

/// What a field that does not exist is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An error, everywhere: a template in a spec.
    Refused,
    /// An error where it is printed; nothing where `if`, `with` or `range` ask for it. JSON leaves out what is empty.
    Asked,
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template(Tree);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says where the text stops being a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(text, Language::Common).map(Self)
    }

    /// Applies the template.
    ///
    /// # Errors
    /// A field that does not exist, a function that does not fit its arguments, or a limit that is reached.
    pub fn render(&self, value: &Json, missing: Missing, limits: Limits) -> Result<String, TemplateError> {
        Run::new(&self.0, missing, limits).render(value)
    }

    /// Applies the template to the titles of columns: each field gives its title, functions that change a text do nothing,
    /// no condition holds, and nothing is repeated.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_header(&self, titles: &Json) -> Result<String, TemplateError> {
        Run::new(&self.0, Missing::Asked, Limits::OWN).with_titles().render(titles)
    }
}

/// A mistake whose text shows nothing of the template or of its values.
fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    let text = text.into();
    Err(TemplateError { bare: text.clone(), text, line: 0 })
}

/// A mistake whose text shows some of the template or of its values. `bare` shows nothing of them.
fn error_of<T>(bare: impl Into<String>, text: String) -> Result<T, TemplateError> {
    Err(TemplateError { text, bare: bare.into(), line: 0 })
}

#[cfg(test)]
mod tests;
