//! From a tree and a value to text.

use crate::{
    DEPTH_MAX, Limits, Missing, TemplateError, error, error_of,
    functions::{self, LOOKS_ONLY, PAYLOAD_FUNCTIONS, check_bytes},
    parse::{Branch, Node, Operand, Pipe, Tree},
    spec::Sources,
    value::Value,
};

/// Most variables at one time: the time to find one grows with their number. People need three.
const VARIABLES_MAX: usize = 1000;
/// Bytes that a function walks over or makes in one step.
const STEP_WEIGHT: usize = 64;
/// Steps of a question to a source, which looks through the files of a service.
const READ_STEPS: usize = 64;

/// A template that is applied to a value.
pub(crate) struct Run<'t> {
    tree: &'t Tree,
    missing: Missing,
    limits: Limits,
    /// Whether the value is titles.
    is_header: bool,
    /// Answers the functions of payloads.
    sources: Option<&'t dyn Sources>,
    /// The line of the action that is evaluated.
    line: usize,
    steps: usize,
    out: String,
    variables: Vec<(&'t str, Value)>,
    /// Templates that have called each other.
    depth: usize,
    /// Whether a field that does not exist is nothing just now.
    asks: bool,
}

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t> Run<'t> {
    pub(crate) fn new(tree: &'t Tree, missing: Missing, limits: Limits) -> Self {
        Self {
            tree,
            missing,
            limits,
            is_header: false,
            sources: None,
            line: 1,
            steps: 0,
            out: String::new(),
            variables: Vec::new(),
            depth: 0,
            asks: false,
        }
    }

    /// The value is titles.
    pub(crate) fn with_titles(self) -> Self {
        Self { is_header: true, ..self }
    }

    /// The template may ask for these.
    pub(crate) fn with_sources(self, sources: &'t dyn Sources) -> Self {
        Self { sources: Some(sources), ..self }
    }

    pub(crate) fn render(mut self, value: &serde_json::Value) -> Result<String, TemplateError> {
        let dot = Value::from(value);
        self.variables.push(("", dot.clone()));
        match self.block(&self.tree.nodes, &dot) {
            Ok(_) => Ok(self.out),
            Err(error) => Err(error.at(self.line)),
        }
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.spend(1)
    }

    fn spend(&mut self, steps: usize) -> Result<(), TemplateError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.steps_max {
            return error(format!("it takes more than {} steps", self.limits.steps_max));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        check_bytes(self.out.len().saturating_add(text.len()), self.limits.bytes_max)?;
        self.out.push_str(text);
        Ok(())
    }

    /// Variables of a block end with it.
    fn block(&mut self, nodes: &'t [Node], dot: &Value) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(known);
        flow
    }

    fn nodes(&mut self, nodes: &'t [Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => {
                    self.write(text)?;
                    Flow::On
                }
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.write(&value.show("<no value>"))?;
                    }
                    Flow::On
                }
                Node::If(branch) => self.scoped(|run| {
                    let holds = run.ask(&branch.pipe, dot)?.is_true() && !run.is_header;
                    run.block(if holds { &branch.then } else { &branch.otherwise }, dot)
                })?,
                Node::With(branch) => self.scoped(|run| {
                    let value = run.ask(&branch.pipe, dot)?;
                    if value.is_true() { run.block(&branch.then, &value) } else { run.block(&branch.otherwise, dot) }
                })?,
                Node::Range(branch) => self.scoped(|run| run.range(branch, dot))?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::Call(name, pipe, line) => {
                    self.line = *line;
                    self.call(name, pipe.as_ref(), dot)?;
                    Flow::On
                }
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// What a pipe declares in front of a block belongs to the block.
    fn scoped<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        let known = self.variables.len();
        let result = run(self);
        self.variables.truncate(known);
        result
    }

    fn range(&mut self, branch: &'t Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let asked = std::mem::replace(&mut self.asks, self.missing == Missing::Asked);
        let list = self.calls(&branch.pipe, dot);
        self.asks = asked;
        let list = list?;
        self.spend(match &list {
            Value::List(items) => items.len(),
            Value::Map(fields) => fields.len(),
            _ => 0,
        })?;
        let items: Vec<(Value, Value)> = match list {
            _ if self.is_header => Vec::new(),
            Value::Null => Vec::new(),
            Value::List(items) => (0..).map(Value::integer).zip(items.iter().cloned()).collect(),
            Value::Map(fields) => fields.iter().map(|(key, value)| (Value::text(key), value.clone())).collect(),
            Value::Number(number) => {
                let count = number.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
                self.spend(count)?;
                (0..count).map(|n| (Value::integer(n), Value::integer(n))).collect()
            }
            other => return error(format!("range needs a list, not {}", other.kind())),
        };
        if items.is_empty() && !self.is_header {
            return self.block(&branch.otherwise, dot);
        }
        let known = self.variables.len();
        for (key, item) in items {
            let values = match branch.pipe.variables.len() {
                1 => vec![item.clone()],
                _ => vec![key, item.clone()],
            };
            if branch.pipe.declares {
                for (name, value) in branch.pipe.variables.iter().zip(values) {
                    self.declare(name, value)?;
                }
            } else {
                for (name, value) in branch.pipe.variables.iter().zip(values) {
                    self.assign(name, value)?;
                }
            }
            let flow = self.block(&branch.then, &item);
            self.variables.truncate(known);
            if flow? == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn call(&mut self, name: &'t str, pipe: Option<&'t Pipe>, dot: &Value) -> Result<(), TemplateError> {
        let Some(nodes) = self.tree.defined.get(name) else {
            return error_of("there is no template of this name", format!("there is no template '{name}'"));
        };
        let value = pipe.map_or(Ok(Value::Null), |pipe| self.pipe(pipe, dot))?;
        if self.depth == DEPTH_MAX {
            return error(format!("templates call each other more than {DEPTH_MAX} deep"));
        }
        self.depth += 1;
        // It sees no variables but its own.
        let outer = std::mem::replace(&mut self.variables, vec![("", value.clone())]);
        let done = self.block(nodes, &value);
        self.variables = outer;
        self.depth -= 1;
        done.map(|_| ())
    }

    /// The value of a condition, where a field that does not exist is nothing: that is how one asks for it.
    fn ask(&mut self, pipe: &'t Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let asked = std::mem::replace(&mut self.asks, self.missing == Missing::Asked);
        let value = self.pipe(pipe, dot);
        self.asks = asked;
        value
    }

    fn pipe(&mut self, pipe: &'t Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.calls(pipe, dot)?;
        match pipe.variables.as_slice() {
            [] => {}
            [name] if pipe.declares => self.declare(name, value.clone())?,
            [name] => self.assign(name, value.clone())?,
            _ => return error("two variables are set by 'range' only"),
        }
        Ok(value)
    }

    fn declare(&mut self, name: &'t str, value: Value) -> Result<(), TemplateError> {
        if self.variables.len() >= VARIABLES_MAX {
            return error(format!("there are more than {VARIABLES_MAX} variables"));
        }
        self.variables.push((name, value));
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Value) -> Result<(), TemplateError> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, old)) => {
                *old = value;
                Ok(())
            }
            None => error_of(
                "there is no variable of this name; ':=' makes one",
                format!("there is no variable '${name}'; '${name} := …' makes one"),
            ),
        }
    }

    fn calls(&mut self, pipe: &'t Pipe, dot: &Value) -> Result<Value, TemplateError> {
        self.line = pipe.line;
        let mut result = None;
        for call in &pipe.calls {
            self.step()?;
            let mut arguments = Vec::with_capacity(call.operands.len() + 1);
            for operand in &call.operands {
                let value = self.operand(operand, dot)?;
                // The rest is not looked at, as in Go.
                let decides = match call.function.as_deref() {
                    Some("and") => !value.is_true(),
                    Some("or") => value.is_true(),
                    _ => false,
                };
                arguments.push(value);
                if decides {
                    break;
                }
            }
            let is_literal = matches!(call.operands.as_slice(), [Operand::Literal(_)]);
            arguments.extend(result.take());
            result = match &call.function {
                Some(name) => Some(self.apply(name, &arguments, is_literal)?),
                None => arguments.pop(),
            };
        }
        Ok(result.unwrap_or(Value::Null))
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Value) -> Result<Value, TemplateError> {
        self.step()?;
        match operand {
            Operand::Fields(path) => self.lookup(dot, path),
            Operand::Variable(name, path) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => self.lookup(value, path),
                None => error_of("there is no variable of this name", format!("there is no variable '${name}'")),
            },
            Operand::Literal(value) => Ok(Value::from(value)),
            Operand::Function(name) => self.apply(name, &[], false),
            Operand::Group(pipe, path) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                self.variables.truncate(known);
                self.lookup(&value, path)
            }
        }
    }

    /// `is_literal` says that the template spells the only argument out.
    fn apply(&mut self, function: &str, arguments: &[Value], is_literal: bool) -> Result<Value, TemplateError> {
        if self.is_header
            && functions::CHANGES_TEXT.contains(&function)
            && let Some(title) = arguments.iter().find(|value| matches!(value, Value::Text(_)))
        {
            return Ok(title.clone());
        }
        let limit = self.limits.bytes_max;
        let bytes: usize =
            arguments.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 }).sum();
        check_bytes(bytes, limit)?;
        if LOOKS_ONLY.contains(&function) {
            return functions::apply(function, arguments, limit);
        }
        self.spend(arguments.iter().map(Value::weight).sum::<usize>() / STEP_WEIGHT)?;
        let value = match PAYLOAD_FUNCTIONS.contains(&function) {
            true => self.read(function, arguments, is_literal)?,
            false => functions::apply(function, arguments, limit)?,
        };
        self.spend(value.weight() / STEP_WEIGHT)?;
        if let Value::Text(text) = &value {
            check_bytes(text.len(), limit)?;
        }
        Ok(value)
    }

    /// Asks a source. An error shows the reason of the source only if the template spells the name out: any other name may
    /// come from a secret, and reasons repeat names.
    fn read(&mut self, function: &str, arguments: &[Value], is_literal: bool) -> Result<Value, TemplateError> {
        self.spend(READ_STEPS)?;
        let (Some(sources), [Value::Text(name)]) = (self.sources, arguments) else {
            return error(format!("{function} needs one text, and nothing else"));
        };
        let found = match function {
            "secret" => sources.secret(name),
            "config" => sources.config(name),
            _ => sources.env(name),
        };
        match found {
            Ok(text) => Ok(Value::text(text)),
            Err(why) if is_literal => error(format!("{function}: {why}")),
            Err(_) => {
                error(format!("{function}: the name that it is given is not known here, or its data cannot be read"))
            }
        }
    }

    fn lookup(&self, value: &Value, path: &[String]) -> Result<Value, TemplateError> {
        let mut found = value.clone();
        for (depth, name) in path.iter().enumerate() {
            let so_far = || format!(".{}", path[..=depth].join("."));
            found = match &found {
                Value::Map(fields) => match fields.get(name) {
                    Some(field) => field.clone(),
                    None if self.asks => return Ok(Value::Null),
                    None => {
                        let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                        let hint = format!("the fields there are: {known}");
                        return error_of(
                            format!("unknown field; {hint}"),
                            format!("unknown field '{}'; {hint}", so_far()),
                        );
                    }
                },
                Value::Null if self.asks => return Ok(Value::Null),
                Value::List(_) => {
                    let hint = "this is a list; use {{range …}} or {{index … 0}}";
                    return error_of(hint, format!("'{}': {hint}", so_far()));
                }
                other => {
                    return error_of(
                        format!("{} has no fields", other.kind()),
                        format!("'{}': the value {} has no fields", so_far(), other.show("<nil>")),
                    );
                }
            };
        }
        Ok(found)
    }
}
