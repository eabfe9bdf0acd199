//! From text to a tree of nodes.

use super::lex::{Kind, Token, tokens};
use super::value::Value;
use super::{TemplateError, functions};

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// Commands joined by `|`, whose value may be given to variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or a value with arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) words: Vec<Operand>,
}

/// One word of a command, with the fields asked of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
    /// Where it begins in the source.
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Group(Pipeline),
}

impl Operand {
    /// As messages show it.
    pub(super) fn text(&self) -> String {
        let mut text = match &self.base {
            Base::Dot if self.fields.is_empty() => ".".to_owned(),
            Base::Dot => String::new(),
            Base::Variable(name) => format!("${name}"),
            Base::Function(name) => name.clone(),
            Base::Literal(value @ Value::Text(_)) => value.to_json(),
            Base::Literal(value) => value.to_string(),
            Base::Group(_) => "(…)".to_owned(),
        };
        for field in &self.fields {
            text.push('.');
            text.push_str(field);
        }
        text
    }
}

enum Piece {
    Text(String),
    Action { inside: String, at: usize },
}

/// Cuts a source at its actions, applying trimming dashes.
fn pieces(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut list = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while let Some(begin) = source[at..].find("{{").map(|n| at + n) {
        let mut text = &source[at..begin];
        if trim {
            text = text.trim_start();
        }
        let mut inside_at = begin + 2;
        let blank = |t: &str| t.starts_with([' ', '\t', '\n', '\r']);
        if source[inside_at..].starts_with('-') && blank(&source[inside_at + 1..]) {
            text = text.trim_end();
            inside_at += 1;
        }
        if !text.is_empty() {
            list.push(Piece::Text(text.to_owned()));
        }
        let unclosed = || TemplateError::at(source, begin, "unclosed action");
        let comment = source[inside_at..].trim_start().starts_with("/*");
        let end = if comment {
            let close = source[inside_at..]
                .find("*/")
                .map(|n| inside_at + n + 2)
                .ok_or_else(|| TemplateError::at(source, begin, "unclosed comment"))?;
            close + source[close..].find("}}").ok_or_else(unclosed)?
        } else {
            action_end(source, inside_at).ok_or_else(unclosed)?
        };
        let mut inside = &source[inside_at..end];
        trim = false;
        if let Some(before) = inside.strip_suffix('-').filter(|t| t.ends_with([' ', '\t', '\n', '\r'])) {
            inside = before;
            trim = true;
        }
        if !comment {
            list.push(Piece::Action { inside: inside.to_owned(), at: inside_at });
        }
        at = end + 2;
    }
    let text = if trim { source[at..].trim_start() } else { &source[at..] };
    if !text.is_empty() {
        list.push(Piece::Text(text.to_owned()));
    }
    Ok(list)
}

/// Where the `}}` of an action is, quotes passed over.
fn action_end(source: &str, from: usize) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (n, c) in source[from..].char_indices() {
        match quote {
            Some('"' | '\'') if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if source[from + n..].starts_with("}}") => return Some(from + n),
            None => {}
        }
    }
    None
}

/// Deepest nesting that is parsed, so that no text overflows the stack.
const DEPTH: usize = 100;

struct Parser<'a> {
    source: &'a str,
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
    loops: usize,
}

/// What ended a list of nodes.
enum Stop {
    Source,
    End,
    Else { tokens: Vec<Token>, at: usize },
}

pub(super) fn parse(source: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { source, pieces: pieces(source)?.into_iter(), depth: 0, loops: 0 };
    match parser.nodes()? {
        (nodes, Stop::Source) => Ok(nodes),
        (_, Stop::End) => Err(TemplateError::at(source, source.len(), "unexpected {{end}}")),
        (_, Stop::Else { at, .. }) => Err(TemplateError::at(source, at, "unexpected {{else}}")),
    }
}

impl Parser<'_> {
    fn fail<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T, TemplateError> {
        Err(TemplateError::at(self.source, at, message))
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (inside, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { inside, at } => (inside, at),
            };
            let list = tokens(self.source, at, &inside)?;
            let word = match list.first().map(|t| &t.kind) {
                Some(Kind::Word(word)) => word.clone(),
                None => return self.fail(at, "missing value for command"),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => return Ok((nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else { tokens: list[1..].to_vec(), at })),
                "if" | "with" | "range" => nodes.push(self.control(&word, &list[1..], at)?),
                "break" | "continue" if self.loops == 0 => {
                    return self.fail(at, format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => {
                    return self.fail(at, format!("{{{{{word}}}}} is not supported in a format"));
                }
                _ => nodes.push(Node::Action(self.pipeline(&list, at, &word)?)),
            }
        }
        Ok((nodes, Stop::Source))
    }

    fn control(&mut self, word: &str, list: &[Token], at: usize) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.fail(at, "nested too deeply");
        }
        let head = self.pipeline(list, at, word)?;
        let looping = usize::from(word == "range");
        self.loops += looping;
        let (then, end) = self.nodes()?;
        self.loops -= looping;
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Source => return self.fail(self.source.len(), "unexpected EOF"),
            Stop::Else { tokens, at } => match tokens.first().map(|t| &t.kind) {
                None => match self.nodes()? {
                    (nodes, Stop::End) => nodes,
                    (_, Stop::Else { at, .. }) => return self.fail(at, "expected end; found {{else}}"),
                    (_, Stop::Source) => return self.fail(self.source.len(), "unexpected EOF"),
                },
                // `else if` shares its `end` with the `if` it belongs to.
                Some(Kind::Word(next)) if next == "if" || next == "with" => {
                    let next = next.clone();
                    vec![self.control(&next, &tokens[1..], at)?]
                }
                _ => return self.fail(at, "unexpected word in {{else}}"),
            },
        };
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { value: head, then, otherwise },
            _ => Node::Range { over: head, body: then, otherwise },
        })
    }

    fn pipeline(&mut self, list: &[Token], at: usize, context: &str) -> Result<Pipeline, TemplateError> {
        let mut rest = list;
        let mut variables = Vec::new();
        let mut declares = false;
        let names: Vec<&Kind> = list.iter().map(|t| &t.kind).take(4).collect();
        let skip = match names.as_slice() {
            [Kind::Variable(a), Kind::Declare | Kind::Assign, ..] => {
                variables.push(a.clone());
                2
            }
            [Kind::Variable(a), Kind::Comma, Kind::Variable(b), Kind::Declare] if context == "range" => {
                variables.extend([a.clone(), b.clone()]);
                4
            }
            _ => 0,
        };
        if skip > 0 {
            declares = matches!(list[skip - 1].kind, Kind::Declare);
            rest = &list[skip..];
        }
        let mut commands = Vec::new();
        let mut words = Vec::new();
        while let Some(token) = rest.first() {
            match &token.kind {
                Kind::Pipe => {
                    if words.is_empty() {
                        return self.fail(token.at, "missing value for command");
                    }
                    commands.push(Command { words: std::mem::take(&mut words) });
                    rest = &rest[1..];
                    if rest.is_empty() {
                        return self.fail(token.at, "missing value for command");
                    }
                }
                _ => words.push(self.operand(&mut rest)?),
            }
        }
        if words.is_empty() {
            let what = if context.is_empty() { "command" } else { context };
            return self.fail(at, format!("missing value for {what}"));
        }
        commands.push(Command { words });
        for command in commands.iter().skip(1) {
            if let Some(first) = command.words.first().filter(|w| matches!(w.base, Base::Literal(_))) {
                return self.fail(first.at, format!("non executable command in pipeline stage {}", 2));
            }
        }
        Ok(Pipeline { variables, declares, commands })
    }

    fn operand(&mut self, rest: &mut &[Token]) -> Result<Operand, TemplateError> {
        let Some((token, after)) = rest.split_first() else {
            return self.fail(self.source.len(), "missing value for command");
        };
        *rest = after;
        let mut fields = Vec::new();
        let base = match &token.kind {
            Kind::Dot => Base::Dot,
            Kind::Field { name, .. } => {
                fields.push(name.clone());
                Base::Dot
            }
            Kind::Variable(name) => Base::Variable(name.clone()),
            Kind::Text(text) => Base::Literal(Value::Text(text.clone())),
            Kind::Int(n) => Base::Literal(Value::Int(*n)),
            Kind::Float(n) => Base::Literal(Value::Float(*n)),
            Kind::Word(word) => match word.as_str() {
                "true" => Base::Literal(Value::Bool(true)),
                "false" => Base::Literal(Value::Bool(false)),
                "nil" => Base::Literal(Value::Null),
                name if functions::exists(name) => Base::Function(word.clone()),
                name => return self.fail(token.at, format!("function {name:?} not defined")),
            },
            Kind::Open => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return self.fail(token.at, "nested too deeply");
                }
                let mut open = 1;
                let close = rest.iter().position(|t| {
                    match t.kind {
                        Kind::Open => open += 1,
                        Kind::Close => open -= 1,
                        _ => {}
                    }
                    open == 0
                });
                let Some(close) = close else { return self.fail(token.at, "unclosed left paren") };
                let inside = rest[..close].to_vec();
                *rest = &rest[close + 1..];
                let group = self.pipeline(&inside, token.at, "parenthesized pipeline")?;
                self.depth -= 1;
                Base::Group(group)
            }
            Kind::Close => return self.fail(token.at, "unexpected right paren"),
            Kind::Pipe | Kind::Comma | Kind::Declare | Kind::Assign => {
                return self.fail(token.at, "unexpected punctuation in operand");
            }
        };
        while let Some(Token { kind: Kind::Field { name, glued: true }, .. }) = rest.first() {
            fields.push(name.clone());
            *rest = &rest[1..];
        }
        Ok(Operand { base, fields, at: token.at })
    }
}
