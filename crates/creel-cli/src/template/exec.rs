//! Executing a tree of nodes.

use super::parse::{Base, Command, Node, Operand, Pipeline};
use super::{TemplateError, Value, functions};

/// What a template can ask of its root beyond fields.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Go's name of the root's type, for messages about missing fields; empty when the root is a plain map.
    pub type_name: &'a str,
    /// Methods of the root: name and arguments to a value.
    pub method: &'a dyn Fn(&str, &[Value]) -> Option<Value>,
}

impl Default for Scope<'_> {
    fn default() -> Self {
        Scope { type_name: "", method: &|_, _| None }
    }
}

enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    source: &'a str,
    root: &'a Value,
    scope: &'a Scope<'a>,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Most bytes a template may produce: a small template with nested loops must not take all memory.
const OUTPUT_LIMIT: usize = 256 << 20;

pub(super) fn execute(
    source: &str,
    nodes: &[Node],
    dot: &Value,
    scope: &Scope<'_>,
) -> Result<String, TemplateError> {
    let variables = vec![(String::new(), dot.clone())];
    let mut run = Run { source, root: dot, scope, variables, out: String::new() };
    run.nodes(nodes, dot)?;
    Ok(run.out)
}

impl Run<'_> {
    fn fail(&self, operand: &Operand, message: impl std::fmt::Display) -> TemplateError {
        TemplateError::executing(self.source, operand.at, &operand.text(), message)
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let depth = self.variables.len();
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                other => {
                    self.variables.truncate(depth);
                    return Ok(other);
                }
            }
            if self.out.len() > OUTPUT_LIMIT {
                return Err(TemplateError::at(self.source, 0, "the output is too long"));
            }
        }
        self.variables.truncate(depth);
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    match value {
                        Value::Null => self.out.push_str("<no value>"),
                        value => self.out.push_str(&value.to_string()),
                    }
                }
            }
            Node::If { condition, then, otherwise } => {
                let depth = self.variables.len();
                let truth = self.pipeline(condition, dot)?.truth();
                let flow = self.nodes(if truth { then } else { otherwise }, dot);
                self.variables.truncate(depth);
                return flow;
            }
            Node::With { value, then, otherwise } => {
                let depth = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow = if value.truth() { self.nodes(then, &value) } else { self.nodes(otherwise, dot) };
                self.variables.truncate(depth);
                return flow;
            }
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let depth = self.variables.len();
        let plain = Pipeline { variables: Vec::new(), ..over.clone() };
        let value = self.pipeline(&plain, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::List(list) => {
                list.iter().enumerate().map(|(n, item)| (Value::Int(n as i64), item.clone())).collect()
            }
            Value::Map(_) => value.sorted().into_iter().map(|(k, v)| (Value::from(k), v.clone())).collect(),
            Value::Int(n) => (0..(*n).clamp(0, 1 << 20)).map(|n| (Value::Int(n), Value::Int(n))).collect(),
            Value::Null => Vec::new(),
            other => {
                let first = &over.commands[0].words[0];
                return Err(self.fail(first, format!("range can't iterate over {other}")));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            match over.variables.as_slice() {
                [one] => self.variables.push((one.clone(), item.clone())),
                [one, two] => {
                    self.variables.push((one.clone(), key));
                    self.variables.push((two.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.nodes(body, &item);
            self.variables.truncate(depth);
            if matches!(flow?, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Null);
        if let Some(name) = pipeline.variables.first() {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some((_, slot)) if !pipeline.declares => *slot = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.words.split_first() else { return Ok(Value::Null) };
        match &first.base {
            Base::Function(name) if first.fields.is_empty() => {
                // `and` and `or` stop at the first argument that decides.
                if matches!(name.as_str(), "and" | "or") {
                    return self.decide(name == "and", rest, dot, last);
                }
                let mut arguments = Vec::with_capacity(rest.len() + 1);
                for word in rest {
                    arguments.push(self.operand(word, dot)?);
                }
                arguments.extend(last);
                functions::call(name, &arguments)
                    .map_err(|why| self.fail(first, format!("error calling {name}: {why}")))
            }
            Base::Dot | Base::Variable(_) if !rest.is_empty() || last.is_some() => {
                let (Some(method), owner) =
                    (first.fields.last(), &first.fields[..first.fields.len().saturating_sub(1)])
                else {
                    return Err(
                        self.fail(first, format!("can't give argument to non-function {}", first.text()))
                    );
                };
                let mut arguments = Vec::new();
                for word in rest {
                    arguments.push(self.operand(word, dot)?);
                }
                arguments.extend(last);
                if owner.is_empty()
                    && let Some(value) = (self.scope.method)(method, &arguments)
                {
                    return Ok(value);
                }
                Err(self.fail(first, format!("{method} is not a method but has arguments")))
            }
            _ if !rest.is_empty() || last.is_some() => {
                Err(self.fail(first, format!("can't give argument to non-function {}", first.text())))
            }
            _ => self.operand(first, dot),
        }
    }

    fn decide(
        &mut self,
        all: bool,
        words: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let mut value = Value::Null;
        for word in words {
            value = self.operand(word, dot)?;
            if value.truth() != all {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Literal(value) => value.clone(),
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Function(name) => functions::call(name, &[])
                .map_err(|why| self.fail(operand, format!("error calling {name}: {why}")))?,
            Base::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| self.fail(operand, format!("undefined variable \"${name}\"")))?,
        };
        for (n, field) in operand.fields.iter().enumerate() {
            let is_root = n == 0 && std::ptr::eq(dot, self.root) && matches!(operand.base, Base::Dot);
            value = match &value {
                Value::Map(_) => match value.get(field) {
                    Some(found) => found.clone(),
                    None if is_root && let Some(value) = (self.scope.method)(field, &[]) => value,
                    None if is_root && !self.scope.type_name.is_empty() => {
                        let kind = self.scope.type_name;
                        return Err(
                            self.fail(operand, format!("can't evaluate field {field} in type {kind}"))
                        );
                    }
                    None => return Err(self.fail(operand, format!("map has no entry for key {field:?}"))),
                },
                Value::Null => {
                    return Err(self.fail(operand, format!("nil data; no entry for key {field:?}")));
                }
                Value::List(_) => {
                    return Err(
                        self.fail(operand, format!("can't evaluate field {field} in type []interface {{}}"))
                    );
                }
                _ => {
                    return Err(
                        self.fail(operand, format!("can't evaluate field {field} in type interface {{}}"))
                    );
                }
            };
        }
        Ok(value)
    }
}
