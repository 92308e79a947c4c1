//! From a tree and a value to text.

use serde_json::Value;

use super::{
    TemplateError,
    parse::{Call, FUNCTIONS, Node, Operand, Pipe},
};

fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

pub(super) fn render(nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => print(&evaluate(pipe, dot)?, out),
            Node::If { condition, then, otherwise } => {
                render(if holds(condition, dot)? { then } else { otherwise }, dot, out)?;
            }
            Node::Range { list, each, otherwise } => {
                let list = evaluate(list, dot)?;
                let items: Vec<&Value> = match &list {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(fields) => fields.values().collect(),
                    Value::Null => Vec::new(),
                    other => return error(format!("range needs a list, not {}", text_of(other))),
                };
                if items.is_empty() {
                    render(otherwise, dot, out)?;
                }
                for item in items {
                    render(each, item, out)?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn render_header(nodes: &[Node], titles: &Value, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => {
                if let Some(path) = first_path(pipe) {
                    print(lookup(titles, path, path)?, out);
                }
            }
            // Titles are of no row: nothing holds.
            Node::If { otherwise, .. } => render_header(otherwise, titles, out)?,
            Node::Range { .. } => {}
        }
    }
    Ok(())
}

fn first_path(pipe: &Pipe) -> Option<&[String]> {
    pipe.iter().flat_map(|call| &call.operands).find_map(|operand| match operand {
        Operand::Path(path) if !path.is_empty() => Some(path.as_slice()),
        Operand::Group(pipe, _) => first_path(pipe),
        _ => None,
    })
}

/// Whether a condition holds. A field that does not exist does not hold: that is how one asks for it.
fn holds(condition: &Pipe, dot: &Value) -> Result<bool, TemplateError> {
    if let [Call { function: None, operands }] = condition.as_slice()
        && let [Operand::Path(path)] = operands.as_slice()
    {
        return Ok(lookup(dot, path, path).is_ok_and(truth));
    }
    Ok(truth(&evaluate(condition, dot)?))
}

/// Go's truth: what is not empty and not zero.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn evaluate(pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
    let mut result = None;
    for call in pipe {
        let mut arguments: Vec<Value> = Vec::with_capacity(call.operands.len() + 1);
        for operand in &call.operands {
            arguments.push(match operand {
                Operand::Path(path) => lookup(dot, path, path)?.clone(),
                Operand::Literal(value) => value.clone(),
                Operand::Group(pipe, path) => lookup(&evaluate(pipe, dot)?, path, path)?.clone(),
            });
        }
        arguments.extend(result.take());
        result = Some(match &call.function {
            Some(name) => apply(name, &arguments)?,
            None => arguments.pop().unwrap_or(Value::Null),
        });
    }
    Ok(result.unwrap_or(Value::Null))
}

/// Follows `rest`, the end of `path`.
fn lookup<'v>(value: &'v Value, rest: &[String], path: &[String]) -> Result<&'v Value, TemplateError> {
    let Some((name, tail)) = rest.split_first() else { return Ok(value) };
    let so_far = || format!(".{}", path[..path.len() - tail.len()].join("."));
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(field) => lookup(field, tail, path),
            None => {
                let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                error(format!("unknown field '{}'; the fields there are: {known}", so_far()))
            }
        },
        Value::Array(_) => error(format!("'{}': this is a list; use {{{{range …}}}} or {{{{index … 0}}}}", so_far())),
        other => error(format!("'{}': the value {} has no fields", so_far(), text_of(other))),
    }
}

fn apply(function: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (function, arguments) {
        ("json", [value]) => Ok(Value::String(value.to_string())),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("len", [Value::String(text)]) => Ok(text.len().into()),
        ("len", [Value::Array(items)]) => Ok(items.len().into()),
        ("len", [Value::Object(fields)]) => Ok(fields.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("index", [first, keys @ ..]) => keys.iter().try_fold(first.clone(), |value, key| index(&value, key)),
        ("join", [Value::Array(items), Value::String(between)]) => {
            Ok(items.iter().map(text_of).collect::<Vec<_>>().join(between).into())
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => Ok(others.iter().any(|o| o == first).into()),
        ("ne", [a, b]) => Ok((a != b).into()),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("upper" | "lower", [_]) => error(format!("{function} needs a text")),
        (name, _) => {
            debug_assert!(FUNCTIONS.contains(&name), "the parser knows all functions");
            error(format!("{name} does not take these {} values", arguments.len()))
        }
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(fields), Value::String(name)) => {
            Ok(fields.get(name).cloned().unwrap_or_else(|| Value::String(String::new())))
        }
        (Value::Array(items), Value::Number(n)) => match n.as_u64().and_then(|i| items.get(usize::try_from(i).ok()?)) {
            Some(item) => Ok(item.clone()),
            None => error(format!("index {n} is outside a list of {}", items.len())),
        },
        _ => error(format!("index {} does not fit {}", text_of(key), text_of(value))),
    }
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        other => out.push_str(&text_of(other)),
    }
}

/// A value as Go prints it.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}:{}", text_of(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}
