//! Paths and queries of requests.

use std::fmt::{self, Write};

/// A piece of a path, with everything escaped that could mean something else there. A name without a letter is none: it
/// becomes an empty piece, and no path with one is sent.
pub(crate) fn segment(name: &str) -> String {
    if name.trim().is_empty() { String::new() } else { escape(name) }
}

/// Whether a piece of this path is empty, so that it would mean another thing: `/services/` is all of them.
pub(super) fn has_empty_segment(path: &str) -> bool {
    path.split('/').skip(1).any(str::is_empty)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // A lone dot or two would be taken for a folder.
    let dots = matches!(text, "." | "..");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && !dots) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes all that is written");
        }
    }
    escaped
}

/// A query, `?key=value&…`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With one more parameter.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(&escape(key));
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
        self
    }

    /// With one more parameter if there is a value.
    #[must_use]
    pub(crate) fn with_some(self, key: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_something_is_escaped() {
        assert_eq!(segment("web/../x?y#z %é"), "web%2F..%2Fx%3Fy%23z%20%25%C3%A9");
        assert_eq!(segment(".."), "%2E%2E");
        let query = Query::new().with("filters", r#"{"a":{"b":true}}"#).with_some("tail", None::<u8>).with("x", 1);
        assert_eq!(Query::new().with("k", " ").to_string(), "?k=%20");
        assert_eq!(query.to_string(), "?filters=%7B%22a%22%3A%7B%22b%22%3Atrue%7D%7D&x=1");
    }

    #[test]
    fn a_name_without_a_letter_is_none() {
        for name in ["", " ", "\t \u{3000}"] {
            assert!(has_empty_segment(&format!("/services/{}", segment(name))), "{name:?}");
            assert!(has_empty_segment(&format!("/swarmd/tasks/{}/why", segment(name))), "{name:?}");
        }
        assert!(!has_empty_segment("/services") && !has_empty_segment(&format!("/tasks/{}/why", segment("/"))));
    }

    proptest! {
        #[test]
        fn any_text_makes_a_request(text in "\\PC{0,30}") {
            let uri = format!("/services/{}{}", segment(&text), Query::new().with("k", &text));
            prop_assert!(uri.parse::<hyper::Uri>().is_ok_and(|u| u.path().matches('/').count() == 2));
        }
    }
}
