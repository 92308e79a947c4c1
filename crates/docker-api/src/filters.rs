//! The `filters` parameter of lists.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;
use serde_json::Value;
use swarm_model::Labels;

use crate::ApiError;

/// Largest regular expression, compiled: those of people have a few kilobytes.
const EXPRESSION_BYTES_MAX: usize = 256 << 10;

/// What a list is narrowed to: keys that must all match, each with values.
///
/// Go's clients write `{"key":{"value":true}}`, docker-py and bollard `{"key":["value"]}` (docker-api §0.16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads the parameter; absent or empty filters nothing.
    ///
    /// # Errors
    /// 400 when it is not of either form, or has a key that is not in `allowed`.
    pub fn parse(text: Option<&str>, allowed: &[&str]) -> Result<Self, ApiError> {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let bad = |why: String| ApiError::bad_request(format!("invalid filters '{text}': {why}"));
        let object = match serde_json::from_str::<Value>(text).map_err(|e| bad(e.to_string()))? {
            Value::Object(object) => object,
            Value::Null => return Ok(Self::default()),
            _ => return Err(bad("expected a JSON object".into())),
        };
        let mut filters = BTreeMap::new();
        for (key, values) in object {
            if !allowed.contains(&key.as_str()) {
                // Those that begin so are for programs.
                let known: Vec<&str> = allowed.iter().copied().filter(|key| !key.starts_with('_')).collect();
                let known = known.join(", ");
                return Err(ApiError::bad_request(format!("invalid filter '{key}' (possible are {known})")));
            }
            let values: BTreeSet<String> = match values {
                Value::Object(values) => values.into_iter().map(|(value, _)| value).collect(),
                Value::Array(values) => values
                    .into_iter()
                    .map(scalar)
                    .collect::<Option<_>>()
                    .ok_or_else(|| bad(format!("the values of '{key}' must be texts")))?,
                Value::Null => BTreeSet::new(),
                value => scalar(value).into_iter().collect(),
            };
            if !values.is_empty() {
                filters.insert(key, values);
            }
        }
        Ok(Self(filters))
    }

    /// The values of a key; none when the list is not filtered by it.
    pub fn values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.0.get(key)
    }

    /// Whether a text is one of the values of a key, or the list is not filtered by it.
    pub fn has(&self, key: &str, text: &str) -> bool {
        self.values(key).is_none_or(|values| values.contains(text))
    }

    /// Whether a text begins with one of the values of a key, or the list is not filtered by it.
    pub fn has_prefix(&self, key: &str, text: &str) -> bool {
        self.values(key).is_none_or(|values| values.iter().any(|prefix| text.starts_with(prefix.as_str())))
    }

    /// The same without regard to case, as names are compared.
    pub fn has_name_prefix(&self, key: &str, name: &str) -> bool {
        let name = name.to_lowercase();
        self.values(key).is_none_or(|values| values.iter().any(|prefix| name.starts_with(&prefix.to_lowercase())))
    }

    /// Whether a text is one of the values of a key, or one of them, a regular expression, matches a part of it; or the list
    /// is not filtered by it.
    pub fn has_match(&self, key: &str, text: &str) -> bool {
        let matches = |value: &String| {
            let expression = || RegexBuilder::new(value).size_limit(EXPRESSION_BYTES_MAX).build();
            value == text || expression().is_ok_and(|expression| expression.is_match(text))
        };
        self.values(key).is_none_or(|values| values.iter().any(matches))
    }

    /// Whether labels have all of a key's values: `name`, or `name=value`, where an empty value matches any.
    pub fn has_labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).into_iter().flatten().all(|wanted| {
            let (name, value) = wanted.split_once('=').unwrap_or((wanted, ""));
            labels.get(name).is_some_and(|have| value.is_empty() || have == value)
        })
    }

    /// Checks that a key has only such values.
    ///
    /// # Errors
    /// 400 that names the first other value.
    pub fn check_values(&self, key: &str, possible: &[&str]) -> Result<(), ApiError> {
        match self.values(key).into_iter().flatten().find(|v| !possible.contains(&v.as_str())) {
            None => Ok(()),
            Some(value) => Err(ApiError::bad_request(format!(
                "invalid {key} filter: '{value}' (possible are {})",
                possible.join(", ")
            ))),
        }
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWED: &[&str] = &["id", "name", "label", "_up-to-date"];

    fn parse(text: &str) -> Result<Filters, ApiError> {
        Filters::parse(Some(text), ALLOWED)
    }

    #[test]
    fn both_forms_mean_the_same() {
        let go = parse(r#"{"name":{"web":true,"db":true},"_up-to-date":{"true":true}}"#).expect("Go's form");
        let python = parse(r#"{"name":["web","db"],"_up-to-date":[true]}"#).expect("Python's form");
        assert_eq!(go, python);
        assert!(go.has_name_prefix("name", "WEB2") && !go.has_name_prefix("name", "aweb"));
        assert!(go.has("_up-to-date", "true") && go.has("id", "anything"));
        for nothing in ["", " ", "{}", "null", r#"{"name":{}}"#, r#"{"name":null}"#] {
            assert_eq!(parse(nothing), Ok(Filters::default()), "{nothing}");
        }
    }

    #[test]
    fn names_are_matched_by_expressions() {
        for (value, expected) in [
            ("front", true),
            ("ron", true),
            ("^front$", true),
            ("^f.*t$", true),
            ("^ront", false),
            ("FRONT", false),
            ("(", false),
            ("(a{1000}){1000}", false),
        ] {
            let filters = parse(&serde_json::json!({"name": ["x", value]}).to_string()).expect(value);
            assert_eq!(filters.has_match("name", "front"), expected, "{value}");
        }
        assert!(parse(r#"{"name": ["a("]}"#).expect("a text").has_match("name", "a("), "the text itself");
        assert!(Filters::default().has_match("name", "front"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text| parse(text).expect_err("refused").message;
        assert_eq!(message(r#"{"x":["1"]}"#), "invalid filter 'x' (possible are id, name, label)");
        assert!(message(r#"["name"]"#).contains("JSON object"));
        assert!(message(r#"{"name":[["a"]]}"#).contains("'name'"));
        assert!(message("name=web").contains("name=web"));
        let error = parse(r#"{"name":["boss"]}"#).expect("fine so far").check_values("name", &["worker", "manager"]);
        assert_eq!(error.expect_err("refused").message, "invalid name filter: 'boss' (possible are worker, manager)");
    }

    #[test]
    fn labels_must_all_match_and_an_empty_value_matches_any() {
        let labels = Labels::from([("tier".into(), "web".into()), ("empty".into(), String::new())]);
        for (filter, expected) in [
            (r#"{"label":["tier"]}"#, true),
            (r#"{"label":["tier="]}"#, true),
            (r#"{"label":["tier=web","empty"]}"#, true),
            (r#"{"label":["tier=web","other"]}"#, false),
            (r#"{"label":["tier=db"]}"#, false),
        ] {
            assert_eq!(parse(filter).expect(filter).has_labels("label", &labels), expected, "{filter}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            if let Err(error) = parse(&text) {
                prop_assert_eq!(error.status, 400);
            }
        }

        #[test]
        fn any_expression_matches_or_not(value in "\\PC{0,20}", text in "\\PC{0,10}") {
            let filters = parse(&serde_json::json!({"name": [value.clone()]}).to_string()).expect("valid");
            prop_assert!(filters.has_match("name", &value));
            filters.has_match("name", &text);
        }

        #[test]
        fn any_value_is_kept(value in "\\PC{1,20}") {
            let text = serde_json::json!({"name": {value.clone(): true}}).to_string();
            prop_assert!(parse(&text).expect("valid").has("name", &value));
        }
    }
}
