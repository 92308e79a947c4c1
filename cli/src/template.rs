//! Go's templates, as `--format` takes them.

use serde_json::Value;
use swarm_template::{Limits, Missing};
use thiserror::Error;

/// A template that cannot be read, or does not fit the value that it is applied to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("--format: {0}")]
pub(crate) struct TemplateError(String);

impl From<swarm_template::TemplateError> for TemplateError {
    fn from(error: swarm_template::TemplateError) -> Self {
        Self(error.to_string())
    }
}

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template(swarm_template::Template);

impl Template {
    /// Reads a template. `\t` and `\n` written as two characters mean tab and newline, since shells pass them so.
    ///
    /// # Errors
    /// Says where the text stops being a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self(swarm_template::Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))?))
    }

    /// Applies the template.
    ///
    /// # Errors
    /// A field that does not exist, or a function that does not fit its arguments.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        Ok(self.0.render(value, Missing::Asked, Limits::OWN)?)
    }

    /// Applies the template to the titles of columns.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_header(&self, titles: &Value) -> Result<String, TemplateError> {
        Ok(self.0.render_header(titles)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shells_pass_tabs_and_newlines_as_two_characters() {
        let template = Template::parse(r"{{.ID}}\t{{with .Update}}{{.State}}{{else}}-{{end}}\n").unwrap();
        assert_eq!(template.render(&json!({"ID": "abc"})).as_deref(), Ok("abc\t-\n"));
        assert_eq!(template.render_header(&json!({"ID": "ID"})).as_deref(), Ok("ID\t-\n"));
        let error = Template::parse("{{.ID").unwrap_err().to_string();
        assert!(error.starts_with("--format: ") && error.contains("'}}' is missing"), "{error}");
    }
}
