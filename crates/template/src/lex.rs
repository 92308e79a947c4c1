//! From text to words.

use serde_json::{Number, Value as Json};

use crate::{TemplateError, error, error_of};

/// Characters of a template that a message shows.
const SHOWN_LEN: usize = 40;

/// A text, or an action: what is between `{{` and `}}`, with the line on which it begins.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    Action(Vec<Word>, usize),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    /// `.A.B`; empty for `.`.
    Fields(Vec<String>),
    /// `$name.A.B`; the name is empty for `$`.
    Variable(String, Vec<String>),
    /// A name: of a function, or one of the words of the language.
    Name(String),
    /// A text, a number, `true`, `false`, `nil`.
    Literal(Json),
    Open,
    /// With the fields that follow it.
    Close(Vec<String>),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Splits a template.
pub(crate) fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut trims) = (text, false);
    let (mut line, mut counted) = (1, 0);
    while let Some((mut before, mut after)) = rest.split_once("{{") {
        let begin = text.len() - after.len();
        line += text[counted..begin].matches('\n').count();
        counted = begin;
        if trims {
            before = before.trim_start();
        }
        if let Some(inner) = after.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace)) {
            (before, after) = (before.trim_end(), inner);
        }
        push_text(&mut pieces, before);
        let comment = after.trim_start().strip_prefix("/*");
        let (words, tail) = match comment {
            Some(comment) => {
                let after_comment = match comment.split_once("*/") {
                    None => error("a comment is not closed with */"),
                    Some((_, tail)) => end(tail).map_or_else(|| error("a comment is alone in its '{{ }}'"), Ok),
                };
                (None, after_comment.map_err(|error| error.at(line))?)
            }
            None => {
                let (words, tail) = words(after).map_err(|error| error.at(line))?;
                (Some(words), tail)
            }
        };
        pieces.extend(words.map(|words| Piece::Action(words, line)));
        (rest, trims) = tail;
    }
    push_text(&mut pieces, if trims { rest.trim_start() } else { rest });
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// What follows the end of an action, and whether the end trims it; none if this is not the end.
fn end(text: &str) -> Option<(&str, bool)> {
    let inner = text.trim_start();
    if let Some(tail) = inner.strip_prefix("}}") {
        return Some((tail, false));
    }
    let tail = inner.strip_prefix("-}}")?;
    (inner.len() < text.len()).then_some((tail, true))
}

/// The words up to the end of an action, and what follows.
fn words(text: &str) -> Result<(Vec<Word>, (&str, bool)), TemplateError> {
    let (mut rest, mut words) = (text, Vec::new());
    loop {
        if let Some(end) = end(rest) {
            return Ok((words, end));
        }
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return error_of("'}}' is missing", format!("'}}}}' is missing after '{{{{{}'", beginning(text)));
        };
        let word;
        (word, rest) = match first {
            '(' => (Word::Open, &rest[1..]),
            ')' => {
                let (fields, tail) = fields(&rest[1..])?;
                (Word::Close(fields), tail)
            }
            '|' => (Word::Pipe, &rest[1..]),
            ',' => (Word::Comma, &rest[1..]),
            '=' => (Word::Assign, &rest[1..]),
            ':' => match rest.strip_prefix(":=") {
                Some(tail) => (Word::Declare, tail),
                None => {
                    let problem = "':' is not understood";
                    return error_of(problem, format!("{problem} in '{{{{{}'", beginning(text)));
                }
            },
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (fields, tail) = fields(rest)?;
                let tail = if fields.is_empty() { &rest[1..] } else { tail };
                (Word::Fields(fields), tail)
            }
            '$' => {
                let (name, tail) = name(&rest[1..]);
                let (fields, tail) = fields(tail)?;
                (Word::Variable(name.to_owned(), fields), tail)
            }
            '"' | '`' | '\'' => quoted(first, rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let (name, tail) = name(rest);
                let word = match name {
                    "true" | "false" => Word::Literal((name == "true").into()),
                    "nil" => Word::Literal(Json::Null),
                    name => Word::Name(name.to_owned()),
                };
                (word, tail)
            }
            _ => number(rest)?,
        };
        words.push(word);
    }
}

/// As much of a text as a message shows.
fn beginning(text: &str) -> String {
    text.chars().take(SHOWN_LEN).collect()
}

fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// `.A.B`, or nothing.
fn fields(text: &str) -> Result<(Vec<String>, &str), TemplateError> {
    let (mut fields, mut rest) = (Vec::new(), text);
    while let Some(after) = rest.strip_prefix('.') {
        let (field, tail) = name(after);
        if field.is_empty() {
            if fields.is_empty() && !after.starts_with('.') {
                break;
            }
            let hint = "write for example .Spec.Name";
            return error_of(
                format!("a field has no name; {hint}"),
                format!("'{}' is not a field; {hint}", excerpt(text)),
            );
        }
        fields.push(field.to_owned());
        rest = tail;
    }
    Ok((fields, rest))
}

/// The first word of a text.
fn excerpt(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || "{}()|".contains(c)).next().unwrap_or(text)
}

fn number(text: &str) -> Result<(Word, &str), TemplateError> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let (word, tail) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    let plain = word.replace('_', "");
    let (sign, digits) = plain.strip_prefix('-').map_or((1, plain.as_str()), |digits| (-1, digits));
    let radix = |prefix: &str, radix| {
        let digits = digits.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok()?.checked_mul(sign)
    };
    let integer = plain.parse::<i64>().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8));
    let integer = integer.or_else(|| radix("0b", 2));
    let float =
        || plain.parse().ok().filter(|_| plain.contains(|c: char| c.is_ascii_digit())).and_then(Number::from_f64);
    match integer.map(Number::from).or_else(float) {
        Some(number) => Ok((Word::Literal(Json::Number(number)), tail)),
        None => {
            let word = if word.is_empty() { excerpt(text) } else { word };
            error_of("a word is not understood", format!("'{word}' is not understood"))
        }
    }
}

fn quoted(quote: char, text: &str) -> Result<(Word, &str), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let tail = &text[at + 1..];
            if quote != '\'' {
                return Ok((Word::Literal(value.into()), tail));
            }
            let mut chars = value.chars();
            return match (chars.next(), chars.next()) {
                (Some(c), None) => Ok((Word::Literal(u32::from(c).into()), tail)),
                _ => {
                    let problem = "in single quotes is not one character; put texts in double quotes";
                    error_of(format!("a text {problem}"), format!("'{value}' {problem}"))
                }
            };
        }
        if c != '\\' || quote == '`' {
            value.push(c);
            continue;
        }
        let escaped = chars.next().map_or('\0', |(_, c)| c);
        let mut code = |digits: usize| {
            let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32)
        };
        let found = match escaped {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'v' => Some('\u{b}'),
            '\\' | '"' | '\'' => Some(escaped),
            'x' => code(2),
            'u' => code(4),
            'U' => code(8),
            _ => None,
        };
        match found {
            Some(c) => value.push(c),
            None => {
                let problem = "in a quoted text is not understood";
                return error_of(format!("a backslash {problem}"), format!("'\\{escaped}' {problem}"));
            }
        }
    }
    error_of("a quote is not closed", format!("a quote is not closed in '{{{{{}'", beginning(text)))
}
