//! From text to a tree.

use serde_json::Value;

use super::TemplateError;

/// Levels of parentheses and blocks; people need three.
const DEPTH_MAX: usize = 32;

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Text as it stands.
    Text(String),
    /// A value to print.
    Print(Pipe),
    /// `if`.
    If { condition: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    /// `range`.
    Range { list: Pipe, each: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`: each gets the result of the one before as its last argument.
pub(super) type Pipe = Vec<Call>;

/// A function with its arguments, or one plain operand.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Name of the function; none for a plain operand.
    pub(super) function: Option<String>,
    /// Its arguments.
    pub(super) operands: Vec<Operand>,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// `.A.B`; empty for `.`.
    Path(Vec<String>),
    /// A text, a number, `true`, `false`.
    Literal(Value),
    /// `( … )`, with the fields that follow it.
    Group(Pipe, Vec<String>),
}

/// Names of all functions.
pub(super) const FUNCTIONS: [&str; 9] = ["json", "upper", "lower", "len", "index", "join", "eq", "ne", "not"];

fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

/// A piece of text or the inside of `{{ … }}`.
enum Piece {
    Text(String),
    Action(String),
}

fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_start = false;
    while let Some(open) = rest.find("{{") {
        let (before, tail) = (&rest[..open], &rest[open + 2..]);
        let Some(close) = end_of_action(tail)? else {
            return error(format!("'}}}}' is missing after '{{{{{tail}'"));
        };
        let mut action = &tail[..close];
        let mut before = if trim_start { before.trim_start() } else { before };
        if let Some(inner) = action.strip_prefix("- ") {
            (before, action) = (before.trim_end(), inner);
        }
        trim_start = action.ends_with(" -");
        if trim_start {
            action = &action[..action.len() - 2];
        }
        pieces.push(Piece::Text(before.to_owned()));
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(action.to_owned()));
        }
        rest = &tail[close + 2..];
    }
    pieces.push(Piece::Text(if trim_start { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Where the `}}` of an action is; quoted texts may contain one.
fn end_of_action(text: &str) -> Result<Option<usize>, TemplateError> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'}' if bytes.get(i + 1) == Some(&b'}') => return Ok(Some(i)),
            quote @ (b'"' | b'`') => {
                i += 1;
                while bytes.get(i).is_some_and(|b| *b != quote) {
                    i += if bytes[i] == b'\\' && quote == b'"' { 2 } else { 1 };
                }
                if i >= bytes.len() {
                    return error(format!("a quote is not closed in '{text}'"));
                }
            }
            _ => {}
        }
        i += 1;
    }
    Ok(None)
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = split(text)?.into_iter();
    let (nodes, stop) = block(&mut pieces, 0)?;
    match stop {
        Stop::Eof => Ok(nodes),
        Stop::End => error("'{{end}}' without 'if' or 'range'"),
        Stop::Else(_) => error("'{{else}}' without 'if' or 'range'"),
    }
}

/// What a block stopped at.
enum Stop {
    /// The end of the text.
    Eof,
    /// `{{end}}`.
    End,
    /// With what follows `else`.
    Else(String),
}

fn block(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Stop), TemplateError> {
    if depth > DEPTH_MAX {
        return error(format!("blocks are nested more than {DEPTH_MAX} deep"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" => return Ok((nodes, Stop::End)),
            "else" => return Ok((nodes, Stop::Else(rest.trim().to_owned()))),
            "if" => nodes.push(conditional(rest, pieces, depth)?),
            "range" => {
                let list = pipe(rest)?;
                let (each, otherwise) = branches(pieces, depth)?;
                nodes.push(Node::Range { list, each, otherwise });
            }
            "with" | "define" | "template" | "block" | "break" | "continue" => {
                return error(format!("'{word}' is not supported; there are fields, if, range and functions"));
            }
            _ => nodes.push(Node::Print(pipe(&action)?)),
        }
    }
    Ok((nodes, Stop::Eof))
}

fn conditional(condition: &str, pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, TemplateError> {
    let condition = pipe(condition)?;
    let (then, otherwise) = branches(pieces, depth)?;
    Ok(Node::If { condition, then, otherwise })
}

fn branches(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
    let (then, stop) = block(pieces, depth + 1)?;
    let otherwise = match stop {
        Stop::End => Vec::new(),
        Stop::Eof => return error("'{{end}}' is missing"),
        Stop::Else(rest) => match rest.strip_prefix("if ") {
            Some(condition) => vec![conditional(condition, pieces, depth + 1)?],
            None if rest.is_empty() => match block(pieces, depth + 1)? {
                (nodes, Stop::End) => nodes,
                (_, Stop::Eof) => return error("'{{end}}' is missing"),
                (_, Stop::Else(_)) => return error("a second '{{else}}' where '{{end}}' was expected"),
            },
            None => return error(format!("'{{{{else {rest}}}}}' is not understood")),
        },
    };
    Ok((then, otherwise))
}

fn pipe(text: &str) -> Result<Pipe, TemplateError> {
    let mut rest = text;
    let parsed = calls(&mut rest, 0)?;
    if rest.is_empty() { Ok(parsed) } else { error(format!("'{rest}' is not understood in '{{{{{text}}}}}'")) }
}

/// Reads commands up to a closing parenthesis or the end.
fn calls(rest: &mut &str, depth: usize) -> Result<Pipe, TemplateError> {
    if depth > DEPTH_MAX {
        return error(format!("parentheses are nested more than {DEPTH_MAX} deep"));
    }
    let mut pipe = Pipe::new();
    loop {
        let mut call = Call { function: None, operands: Vec::new() };
        loop {
            *rest = rest.trim_start();
            match rest.chars().next() {
                None | Some('|' | ')') => break,
                Some(first) => operand(first, rest, depth, &mut call)?,
            }
        }
        match (&call.function, call.operands.len()) {
            (None, 0) => return error("an action is empty: '{{}}'"),
            (None, n) if n > 1 => return error("two values beside each other; use a function or '|' between them"),
            (None, _) if !pipe.is_empty() => return error("after '|' a function is needed"),
            _ => pipe.push(call),
        }
        match rest.strip_prefix('|') {
            Some(tail) => *rest = tail,
            None => return Ok(pipe),
        }
    }
}

fn operand(first: char, rest: &mut &str, depth: usize, call: &mut Call) -> Result<(), TemplateError> {
    let text = *rest;
    let word_end = text.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(text.len());
    match first {
        '.' => {
            *rest = &text[word_end..];
            call.operands.push(Operand::Path(path(&text[..word_end])?));
        }
        '(' => {
            *rest = &text[1..];
            let group = calls(rest, depth + 1)?;
            let Some(tail) = rest.strip_prefix(')') else { return error(format!("')' is missing in '{text}'")) };
            let end = tail.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(tail.len());
            *rest = &tail[end..];
            call.operands.push(Operand::Group(group, path(if end == 0 { "." } else { &tail[..end] })?));
        }
        '"' | '`' => {
            let (value, tail) = quoted(first, text)?;
            *rest = tail;
            call.operands.push(Operand::Literal(Value::String(value)));
        }
        _ => {
            let word = &text[..word_end];
            *rest = &text[word_end..];
            if let Ok(number) = word.parse::<i64>() {
                call.operands.push(Operand::Literal(number.into()));
            } else if let Ok(value) = word.parse::<bool>() {
                call.operands.push(Operand::Literal(value.into()));
            } else if call.function.is_none() && call.operands.is_empty() && FUNCTIONS.contains(&word) {
                call.function = Some(word.to_owned());
            } else if FUNCTIONS.contains(&word) {
                return error(format!("put '{word} …' in parentheses to use its result"));
            } else {
                return error(format!("unknown function '{word}'; there are {}", FUNCTIONS.join(", ")));
            }
        }
    }
    Ok(())
}

fn path(text: &str) -> Result<Vec<String>, TemplateError> {
    if text == "." {
        return Ok(Vec::new());
    }
    match text.strip_prefix('.') {
        Some(names) if names.split('.').all(|n| !n.is_empty()) => Ok(names.split('.').map(str::to_owned).collect()),
        _ => error(format!("'{text}' is not a field; write for example .Spec.Name")),
    }
}

fn quoted(quote: char, text: &str) -> Result<(String, &str), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        if c == quote {
            return Ok((value, &text[i + 1..]));
        }
        match (c, quote) {
            ('\\', '"') => value.extend(chars.next().map(|(_, c)| c)),
            _ => value.push(c),
        }
    }
    error(format!("a quote is not closed in '{text}'"))
}
