//! From words to a tree.

use std::{collections::BTreeMap, vec::IntoIter};

use serde_json::Value as Json;

use crate::{
    DEPTH_MAX, TemplateError, error, error_of,
    functions::Language,
    lex::{self, Piece, Word},
};

/// A template, and those that it defines.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) defined: BTreeMap<String, Vec<Node>>,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Text as it stands.
    Text(String),
    /// A value to print, or to give to a variable.
    Action(Pipe),
    If(Branch),
    With(Branch),
    /// `range`; the variables are those of the pipe.
    Range(Branch),
    Break,
    Continue,
    /// Another template, with the value that it is applied to, and the line.
    Call(String, Option<Pipe>, usize),
}

/// What depends on a value.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) pipe: Pipe,
    pub(crate) then: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

/// Commands joined by `|`: each gets the result of the one before as its last argument.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    /// The line on which its action begins.
    pub(crate) line: usize,
    /// Variables that get the result.
    pub(crate) variables: Vec<String>,
    /// Whether they are new.
    pub(crate) declares: bool,
    pub(crate) calls: Vec<Call>,
}

/// A function with its arguments, or one plain operand.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Name of the function; none for a plain operand.
    pub(crate) function: Option<String>,
    pub(crate) operands: Vec<Operand>,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// `.A.B`; empty for `.`.
    Fields(Vec<String>),
    /// `$name.A.B`.
    Variable(String, Vec<String>),
    Literal(Json),
    /// A function without arguments.
    Function(String),
    /// `( … )`, with the fields that follow it.
    Group(Pipe, Vec<String>),
}

pub(crate) fn parse(text: &str, language: Language) -> Result<Tree, TemplateError> {
    let pieces = lex::split(text)?.into_iter();
    let mut parser = Parser { pieces, language, line: 1, defined: BTreeMap::new(), depth: 0, loops: 0 };
    let whole = parser.block().and_then(|(nodes, stop)| match stop {
        Stop::Eof => Ok(nodes),
        Stop::End => error("'{{end}}' without 'if', 'with', 'range', 'define' or 'block'"),
        Stop::Else(_) => error("'{{else}}' without 'if', 'with' or 'range'"),
    });
    match whole {
        Ok(nodes) => Ok(Tree { nodes, defined: parser.defined }),
        Err(error) => Err(error.at(parser.line)),
    }
}

/// What a block stopped at.
enum Stop {
    /// The end of the text.
    Eof,
    /// `{{end}}`.
    End,
    /// With what follows `else`.
    Else(Words),
}

/// What is left of an action.
struct Words {
    words: IntoIter<Word>,
    language: Language,
    line: usize,
}

impl Words {
    fn peek(&self) -> Option<&Word> {
        self.words.as_slice().first()
    }

    fn next(&mut self) -> Option<Word> {
        self.words.next()
    }

    fn next_if(&mut self, fits: impl Fn(&Word) -> bool) -> Option<Word> {
        self.peek().is_some_and(fits).then(|| self.next()).flatten()
    }
}

struct Parser {
    pieces: IntoIter<Piece>,
    language: Language,
    /// The line of the action that is read.
    line: usize,
    defined: BTreeMap<String, Vec<Node>>,
    depth: usize,
    /// Levels of `range`.
    loops: usize,
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        if self.depth > DEPTH_MAX {
            return error(format!("blocks are nested more than {DEPTH_MAX} deep"));
        }
        self.depth += 1;
        let block = self.nodes();
        self.depth -= 1;
        block
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (words, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words, line) => (words.into_iter(), line),
            };
            self.line = line;
            let mut words = Words { words, language: self.language, line };
            let keyword = match words.peek() {
                Some(Word::Name(name)) if !self.language.has(name) => name.clone(),
                _ => String::new(),
            };
            if !keyword.is_empty() {
                words.next();
            }
            match keyword.as_str() {
                "" => nodes.push(Node::Action(whole(words)?)),
                "end" => return finish(words, "end").map(|()| (nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(words))),
                "if" => nodes.push(Node::If(self.branch(words, "if")?)),
                "with" => nodes.push(Node::With(self.branch(words, "with")?)),
                "range" => {
                    self.loops += 1;
                    let range = self.branch(words, "range");
                    self.loops -= 1;
                    nodes.push(Node::Range(range?));
                }
                "break" | "continue" if self.loops == 0 => {
                    return error(format!("'{{{{{keyword}}}}}' outside of 'range'"));
                }
                "break" => nodes.push(finish(words, "break").map(|()| Node::Break)?),
                "continue" => nodes.push(finish(words, "continue").map(|()| Node::Continue)?),
                "define" => {
                    let name = template_name(&mut words, "define")?;
                    finish(words, "define")?;
                    self.define(name)?;
                }
                "block" => {
                    let (name, line) = (template_name(&mut words, "block")?, self.line);
                    let pipe = whole(words)?;
                    self.define(name.clone())?;
                    nodes.push(Node::Call(name, Some(pipe), line));
                }
                "template" => {
                    let name = template_name(&mut words, "template")?;
                    let pipe = words.peek().is_some().then(|| whole(words)).transpose()?;
                    nodes.push(Node::Call(name, pipe, self.line));
                }
                name => return unknown(name, self.language),
            }
        }
        Ok((nodes, Stop::Eof))
    }

    fn define(&mut self, name: String) -> Result<(), TemplateError> {
        let (loops, line) = (std::mem::take(&mut self.loops), self.line);
        let block = self.block()?;
        self.loops = loops;
        match block {
            (nodes, Stop::End) => {
                self.defined.insert(name, nodes);
                Ok(())
            }
            (_, Stop::Eof) => end_is_missing(line),
            (_, Stop::Else(_)) => error("'{{else}}' without 'if', 'with' or 'range'"),
        }
    }

    fn branch(&mut self, words: Words, kind: &str) -> Result<Branch, TemplateError> {
        let (pipe, line) = (whole(words)?, self.line);
        if pipe.variables.len() > if kind == "range" { 2 } else { 1 } {
            return error(format!("too many variables in '{kind}'"));
        }
        let (then, stop) = self.block()?;
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::Eof => return end_is_missing(line),
            Stop::Else(mut words) => match words.next() {
                None => match self.block()? {
                    (nodes, Stop::End) => nodes,
                    (_, Stop::Eof) => return end_is_missing(line),
                    (_, Stop::Else(_)) => return error("a second '{{else}}' where '{{end}}' was expected"),
                },
                Some(Word::Name(name)) if name == kind && kind != "range" => {
                    self.depth += 1;
                    let branch = self.branch(words, kind);
                    self.depth -= 1;
                    vec![if kind == "if" { Node::If(branch?) } else { Node::With(branch?) }]
                }
                Some(_) => return error(format!("what follows 'else' of '{kind}' is not understood")),
            },
        };
        Ok(Branch { pipe, then, otherwise })
    }
}

/// The error has the line of the action that is not closed: nobody knows where its end should be.
fn end_is_missing<T>(line: usize) -> Result<T, TemplateError> {
    error("'{{end}}' is missing").map_err(|error| error.at(line))
}

fn unknown<T>(name: &str, language: Language) -> Result<T, TemplateError> {
    let known = language.names();
    error_of(format!("unknown function; there are {known}"), format!("unknown function '{name}'; there are {known}"))
}

fn finish(mut words: Words, keyword: &str) -> Result<(), TemplateError> {
    match words.next() {
        None => Ok(()),
        Some(_) => error(format!("nothing can follow '{keyword}' in its '{{{{ }}}}'")),
    }
}

fn template_name(words: &mut Words, keyword: &str) -> Result<String, TemplateError> {
    match words.next() {
        Some(Word::Literal(Json::String(name))) => Ok(name),
        _ => error(format!("'{keyword}' needs the name of a template in quotes")),
    }
}

/// A pipe that is all of an action.
fn whole(mut words: Words) -> Result<Pipe, TemplateError> {
    let pipe = pipe(&mut words, 0)?;
    match words.next() {
        None => Ok(pipe),
        Some(Word::Close(_)) => error("')' without '('"),
        Some(_) => error("',', '=' or ':=' where a value was expected"),
    }
}

fn pipe(words: &mut Words, depth: usize) -> Result<Pipe, TemplateError> {
    if depth > DEPTH_MAX {
        return error(format!("parentheses are nested more than {DEPTH_MAX} deep"));
    }
    let (line, (variables, declares)) = (words.line, variables(words)?);
    let mut calls = Vec::new();
    loop {
        let call = call(words, depth)?;
        match (&call.function, call.operands.len()) {
            (None, 0) => return error("an action is empty: '{{}}'"),
            (None, n) if n > 1 => return error("two values beside each other; use a function or '|' between them"),
            (None, _) if !calls.is_empty() => return error("after '|' a function is needed"),
            _ => calls.push(call),
        }
        if words.next_if(|word| *word == Word::Pipe).is_none() {
            return Ok(Pipe { line, variables, declares, calls });
        }
    }
}

/// `$a :=`, `$a, $b :=` or `$a =`.
fn variables(words: &mut Words) -> Result<(Vec<String>, bool), TemplateError> {
    let mut ahead = words.words.as_slice().iter();
    let mut names = Vec::new();
    while let Some(Word::Variable(name, fields)) = ahead.next() {
        if !fields.is_empty() {
            break;
        }
        names.push(name.clone());
        match ahead.next() {
            Some(Word::Comma) => {}
            Some(word @ (Word::Declare | Word::Assign)) => {
                let declares = *word == Word::Declare;
                if names.iter().any(String::is_empty) {
                    return error("'$' is the whole value, and cannot be set");
                }
                // Each name has a word behind it.
                words.words.nth(2 * names.len() - 1);
                return Ok((names, declares));
            }
            _ => break,
        }
    }
    Ok((Vec::new(), false))
}

fn call(words: &mut Words, depth: usize) -> Result<Call, TemplateError> {
    let mut call = Call { function: None, operands: Vec::new() };
    loop {
        let is_first = call.function.is_none() && call.operands.is_empty();
        let is_operand = |word: &Word| {
            matches!(word, Word::Fields(_) | Word::Variable(..) | Word::Literal(_) | Word::Name(_) | Word::Open)
        };
        match words.next_if(is_operand) {
            None => return Ok(call),
            Some(Word::Name(name)) if !words.language.has(&name) => return unknown(&name, words.language),
            Some(Word::Name(name)) if is_first => call.function = Some(name),
            Some(Word::Name(name)) => call.operands.push(Operand::Function(name)),
            Some(Word::Fields(fields)) => call.operands.push(Operand::Fields(fields)),
            Some(Word::Variable(name, fields)) => call.operands.push(Operand::Variable(name, fields)),
            Some(Word::Literal(value)) => call.operands.push(Operand::Literal(value)),
            Some(_) => {
                let group = pipe(words, depth + 1)?;
                match words.next() {
                    Some(Word::Close(fields)) => call.operands.push(Operand::Group(group, fields)),
                    _ => return error("')' is missing"),
                }
            }
        }
    }
}
