//! The functions: those of Go, and those that Docker adds.

use std::cmp::Ordering;

use crate::{TemplateError, error, error_of, printf::printf, value::Value};

/// The functions that all templates have.
const FUNCTIONS: [&str; 26] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "printf", "println",
    "html", "js", "urlquery", "json", "join", "split", "title", "upper", "lower", "pad", "truncate",
];

/// The functions that only the data of secrets and configs has; [`crate::spec::Sources`] answers them.
pub(crate) const PAYLOAD_FUNCTIONS: [&str; 3] = ["secret", "config", "env"];

/// The functions that a template may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// The functions of `--format` and of specs.
    Common,
    /// The functions of the data of secrets and configs.
    Payload,
}

impl Language {
    /// Whether a function is one of them.
    pub(crate) fn has(self, name: &str) -> bool {
        self.parts().iter().any(|part| part.contains(&name))
    }

    /// All of them, for people.
    pub(crate) fn names(self) -> String {
        self.parts().concat().join(", ")
    }

    fn parts(self) -> [&'static [&'static str]; 2] {
        [&FUNCTIONS, if self == Self::Payload { &PAYLOAD_FUNCTIONS } else { &[] }]
    }
}

/// The functions that look at values without walking over all of them.
pub(crate) const LOOKS_ONLY: [&str; 5] = ["and", "or", "not", "len", "index"];

/// What changes how a text looks: titles of columns stay as they are.
pub(crate) const CHANGES_TEXT: [&str; 8] = ["json", "join", "split", "title", "upper", "lower", "pad", "truncate"];

/// Blanks on one side of a text, and characters that a number is filled up to: people need a line.
pub(crate) const WIDTH_MAX: usize = 4096;

/// Calls a function. The call gives up before a text has many more than `bytes_max` bytes.
pub(crate) fn apply(function: &str, arguments: &[Value], bytes_max: usize) -> Result<Value, TemplateError> {
    use Value::{Bool, List, Map, Null, Number, Text};
    match (function, arguments) {
        ("and", [.., last]) => Ok(arguments.iter().find(|value| !value.is_true()).unwrap_or(last).clone()),
        ("or", [.., last]) => Ok(arguments.iter().find(|value| value.is_true()).unwrap_or(last).clone()),
        ("not", [value]) => Ok(Bool(!value.is_true())),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            others.iter().try_fold(false, |found, other| Ok(found || equal(function, first, other)?)).map(Bool)
        }
        ("ne", [one, other]) => equal(function, one, other).map(|equal| Bool(!equal)),
        ("lt" | "le" | "gt" | "ge", [one, other]) => match one.order(other) {
            Some(order) => Ok(Bool(match function {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })),
            None => error(format!("{function} cannot compare {} with {}", one.kind(), other.kind())),
        },
        ("len", [Text(text)]) => Ok(Value::integer(text.len())),
        ("len", [List(items)]) => Ok(Value::integer(items.len())),
        ("len", [Map(fields)]) => Ok(Value::integer(fields.len())),
        ("len", [Null]) => Ok(Value::integer(0)),
        ("index", [first, keys @ ..]) => keys.iter().try_fold(first.clone(), |value, key| index(&value, key)),
        ("slice", [value, ends @ ..]) if ends.len() <= 2 => slice(value, ends),
        ("print", values) => print(values, bytes_max).map(Value::text),
        ("println", values) => Ok(Value::text(joined(values, " ", bytes_max)? + "\n")),
        ("printf", [Text(format), values @ ..]) => printf(format, values, bytes_max).map(Value::text),
        ("html" | "js" | "urlquery", values) => {
            let text = print(values, bytes_max)?;
            Ok(Value::text(text.chars().map(|c| escaped(function, c)).collect::<String>()))
        }
        ("json", [value]) => Ok(Value::text(value.json())),
        ("join", [List(items), Text(between)]) => joined(items, between, bytes_max).map(Value::text),
        // In the specs of services the separator comes first, and the texts follow.
        ("join", [Text(between), items @ ..]) if !items.iter().any(|item| matches!(item, List(_) | Map(_))) => {
            joined(items, between, bytes_max).map(Value::text)
        }
        ("split", [Text(text), Text(between)]) if between.is_empty() => {
            Ok(List(text.chars().map(|c| Value::text(c.to_string())).collect()))
        }
        ("split", [Text(text), Text(between)]) => Ok(List(text.split(&**between).map(Value::text).collect())),
        ("title", [Text(text)]) => Ok(Value::text(title(text))),
        ("upper", [Text(text)]) => Ok(Value::text(text.to_uppercase())),
        ("lower", [Text(text)]) => Ok(Value::text(text.to_lowercase())),
        ("pad", [Text(text), before @ Number(_), after @ Number(_)]) => {
            let (before, after) = (width(before)?, width(after)?);
            // An empty text stays one.
            let (before, after) = if text.is_empty() { (0, 0) } else { (before, after) };
            Ok(Value::text(format!("{}{text}{}", " ".repeat(before), " ".repeat(after))))
        }
        ("truncate", [Text(text), length @ Number(_)]) => {
            let length = width(length)?;
            Ok(Value::text(text.chars().take(length).collect::<String>()))
        }
        ("title" | "upper" | "lower" | "pad" | "truncate" | "split", [value, ..]) if !matches!(value, Text(_)) => {
            error(format!("{function} needs a text, and this is {}", value.kind()))
        }
        _ => {
            let kinds: Vec<&str> = arguments.iter().map(Value::kind).collect();
            let given = if kinds.is_empty() { "no value".to_owned() } else { kinds.join(", ") };
            error(format!("{function} does not take {given}"))
        }
    }
}

/// Whether two values are equal. Values of two kinds cannot be compared; nothing is unlike every value.
fn equal(function: &str, one: &Value, other: &Value) -> Result<bool, TemplateError> {
    let is_nothing = matches!(one, Value::Null) || matches!(other, Value::Null);
    if !is_nothing && one.kind() != other.kind() {
        return error(format!("{function} cannot compare {} with {}", one.kind(), other.kind()));
    }
    Ok(one == other)
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Map(fields), Value::Text(name)) => Ok(fields.get(&**name).cloned().unwrap_or_else(|| Value::text(""))),
        (Value::Null, Value::Text(_)) => Ok(Value::text("")),
        (Value::List(items), Value::Number(n)) => match position(n).and_then(|at| items.get(at)) {
            Some(item) => Ok(item.clone()),
            None => error_of("index is outside of the list", format!("index {n} is outside a list of {}", items.len())),
        },
        (Value::Text(text), Value::Number(n)) => match position(n).and_then(|at| text.as_bytes().get(at).copied()) {
            Some(byte) => Ok(Value::integer(byte.into())),
            None => {
                error_of("index is outside of the text", format!("index {n} is outside a text of {} bytes", text.len()))
            }
        },
        _ => error_of(
            format!("index of {} does not fit {}", key.kind(), value.kind()),
            format!("index {} does not fit {}", key.show("<nil>"), value.kind()),
        ),
    }
}

fn position(number: &serde_json::Number) -> Option<usize> {
    usize::try_from(number.as_u64()?).ok()
}

fn slice(value: &Value, ends: &[Value]) -> Result<Value, TemplateError> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return error(format!("slice needs a text or a list, and this is {}", other.kind())),
    };
    let end = |at: usize, otherwise| match ends.get(at) {
        None => Some(otherwise),
        Some(Value::Number(number)) => position(number),
        Some(_) => None,
    };
    let (from, to) = (end(0, 0), end(1, length));
    let part = match (value, from.zip(to).filter(|(from, to)| from <= to && *to <= length)) {
        (Value::Text(text), Some((from, to))) => text.get(from..to).map(Value::text),
        (Value::List(items), Some((from, to))) => items.get(from..to).map(|items| Value::List(items.into())),
        _ => None,
    };
    let shown: Vec<String> = ends.iter().map(|end| end.show("<nil>")).collect();
    let problem = || format!("slice {} does not fit a length of {length}", shown.join(" "));
    part.map_or_else(|| error_of("slice does not fit the length", problem()), Ok)
}

/// Refuses a text that has become too long.
pub(crate) fn check_bytes(bytes: usize, bytes_max: usize) -> Result<(), TemplateError> {
    if bytes > bytes_max {
        return error(format!("it makes a text of more than {bytes_max} bytes"));
    }
    Ok(())
}

/// Blanks between two values if neither is a text.
fn print(values: &[Value], bytes_max: usize) -> Result<String, TemplateError> {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            text.push(' ');
        }
        text += &value.show("<nil>");
        check_bytes(text.len(), bytes_max)?;
    }
    Ok(text)
}

fn joined(items: &[Value], between: &str, bytes_max: usize) -> Result<String, TemplateError> {
    let mut text = String::new();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text += between;
        }
        text += &item.show("<nil>");
        check_bytes(text.len(), bytes_max)?;
    }
    Ok(text)
}

/// The first letter of each word is large.
fn title(text: &str) -> String {
    let mut begins = true;
    let letters = text.chars().flat_map(|c| {
        let is_first = std::mem::replace(&mut begins, !(c.is_alphanumeric() || c == '_'));
        if is_first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
    });
    letters.collect()
}

fn width(number: &Value) -> Result<usize, TemplateError> {
    let found = if let Value::Number(number) = number { position(number) } else { None };
    match found.filter(|width| *width <= WIDTH_MAX) {
        Some(width) => Ok(width),
        None => {
            let problem = format!("is not between 0 and {WIDTH_MAX}");
            error_of(format!("a width {problem}"), format!("a width of {} {problem}", number.show("<nil>")))
        }
    }
}

fn escaped(function: &str, c: char) -> String {
    match (function, c) {
        ("html", '<') => "&lt;".into(),
        ("html", '>') => "&gt;".into(),
        ("html", '&') => "&amp;".into(),
        ("html", '"') => "&#34;".into(),
        ("html", '\'') => "&#39;".into(),
        ("html", '\0') => "\u{fffd}".into(),
        ("js", '\\' | '\'' | '"') => format!("\\{c}"),
        ("js", '<' | '>' | '&' | '=' | '\0'..='\u{1f}') => format!("\\u{:04X}", u32::from(c)),
        ("urlquery", ' ') => "+".into(),
        ("urlquery", c) if !c.is_ascii_alphanumeric() && !"-_.~".contains(c) => {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
        }
        _ => c.into(),
    }
}
