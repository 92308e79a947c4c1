//! Values of a template. Copies cost nothing.

use std::{cmp::Ordering, collections::BTreeMap, rc::Rc};

use serde_json::{Number, Value as Json};

/// Bytes that a value in a list weighs beside its text: about what it takes in memory.
const VALUE_WEIGHT: usize = 64;

/// A value of JSON.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Rc<str>),
    List(Rc<[Value]>),
    Map(Rc<BTreeMap<String, Value>>),
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Number(number.clone()),
            Json::String(text) => Self::Text(text.as_str().into()),
            Json::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Json::Object(fields) => {
                Self::Map(Rc::new(fields.iter().map(|(key, value)| (key.clone(), value.into())).collect()))
            }
        }
    }
}

impl Value {
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    pub(crate) fn integer(number: usize) -> Self {
        Self::Number(number.into())
    }

    /// Go's truth: what is not empty and not zero.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => number.as_f64() != Some(0.0),
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(fields) => !fields.is_empty(),
        }
    }

    /// Bytes of its texts, and some for each value in it: about what it costs to walk over it.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => VALUE_WEIGHT,
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(|item| VALUE_WEIGHT + item.weight()).sum(),
            Self::Map(fields) => fields.iter().map(|(key, value)| VALUE_WEIGHT + key.len() + value.weight()).sum(),
        }
    }

    /// What it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }

    /// As Go prints it; `nil` is what nothing is called.
    pub(crate) fn show(&self, nil: &str) -> String {
        match self {
            Self::Null => nil.to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => show_number(number),
            Self::Text(text) => text.to_string(),
            Self::List(items) => {
                format!("[{}]", items.iter().map(|item| item.show("<nil>")).collect::<Vec<_>>().join(" "))
            }
            Self::Map(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(key, value)| format!("{key}:{}", value.show("<nil>"))).collect();
                format!("map[{}]", fields.join(" "))
            }
        }
    }

    /// As JSON on one line, as Go writes it.
    pub(crate) fn json(&self) -> String {
        Json::from(self).to_string()
    }

    /// How two values of one kind are ordered; none if they are not.
    pub(crate) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => match (one.as_i64(), other.as_i64()) {
                (Some(one), Some(other)) => Some(one.cmp(&other)),
                _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
            },
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::List(one), Self::List(other)) => one == other,
            (Self::Map(one), Self::Map(other)) => one == other,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.clone()),
            Value::Text(text) => Self::String(text.to_string()),
            Value::List(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Map(fields) => Self::Object(fields.iter().map(|(key, value)| (key.clone(), value.into())).collect()),
        }
    }
}

/// A fraction of a million or more, or of less than 1/10,000, has an exponent, as `%v` shows it. Whole numbers have none.
fn show_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            if float != 0.0 && !(1e-4..1e6).contains(&float.abs()) {
                let text = format!("{float:e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let (sign, exponent) = match exponent.strip_prefix('-') {
                    Some(exponent) => ('-', exponent),
                    None => ('+', exponent),
                };
                return format!("{digits}e{sign}{exponent:0>2}");
            }
            float.to_string()
        }
        _ => number.to_string(),
    }
}
