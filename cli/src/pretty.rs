//! Pages of `inspect --pretty`: names with values, indented below titles.

use std::fmt::Display;

use swarm_model::Labels;

use crate::units::one_line;

/// Where values begin.
const VALUE_COLUMN: usize = 16;

/// A page that is being written.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// A name with a value.
    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        self.put(0, name, &value.to_string());
    }

    /// A title of what follows.
    pub(crate) fn title(&mut self, name: &str) {
        self.put(0, name, "");
    }

    /// Labels below a title; nothing if there are none.
    pub(crate) fn map(&mut self, name: &str, labels: &Labels) {
        if !labels.is_empty() {
            self.title(name);
        }
        for (key, value) in labels {
            self.line(&format!("{key}={value}"));
        }
    }

    /// A text in a line of its own, below a title.
    pub(crate) fn line(&mut self, text: &str) {
        self.0.push_str(&format!(" {}\n", one_line(text)));
    }

    /// A name with a value, below a title.
    pub(crate) fn indented(&mut self, name: &str, value: impl Display) {
        self.put(1, name, &value.to_string());
    }

    /// As [`Page::indented`], if there is a value.
    pub(crate) fn indented_some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.indented(name, value);
        }
    }

    /// A list in one line, below a title; nothing if it is empty.
    pub(crate) fn indented_list(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            self.indented(name, values.join(" "));
        }
    }

    /// A name with a value, two levels below a title.
    pub(crate) fn deeper(&mut self, name: &str, value: impl Display) {
        self.put(2, name, &value.to_string());
    }

    /// As [`Page::deeper`], if there is a value.
    pub(crate) fn deeper_some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.deeper(name, value);
        }
    }

    /// The whole page.
    pub(crate) fn text(self) -> String {
        self.0
    }

    fn put(&mut self, level: usize, name: &str, value: &str) {
        let name = format!("{}{name}:", " ".repeat(level));
        let value = one_line(value);
        if value.is_empty() {
            self.0.push_str(&name);
        } else if name.len() < VALUE_COLUMN {
            self.0.push_str(&format!("{name:<VALUE_COLUMN$}{value}"));
        } else {
            self.0.push_str(&format!("{name} {value}"));
        }
        self.0.push('\n');
    }
}
