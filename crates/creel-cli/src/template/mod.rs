//! Go's text/template, as far as `--format` uses it.
//!
//! Fields, variables, literals, pipelines, parentheses, `if`/`else if`/`else`, `range`, `with`, `break`, `continue`,
//! comments, trimming dashes, and the functions that Docker's client offers. Templates are parsed once and executed
//! over [`Value`]s, which keep the order of JSON objects so that `{{json .}}` prints what the daemon sent.

mod exec;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

pub use exec::Scope;
pub use value::Value;

/// Why a template cannot be parsed or executed, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: :{0}")]
pub struct TemplateError(String);

impl TemplateError {
    fn at(source: &str, offset: usize, message: impl std::fmt::Display) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        Self(format!("{line}: {message}"))
    }

    fn executing(source: &str, offset: usize, node: &str, message: impl std::fmt::Display) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        Self(format!("{line}:{column}: executing \"\" at <{node}>: {message}"))
    }
}

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// For what is no template: actions that do not end, unknown functions, misplaced `end`.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        Ok(Self { source: source.to_owned(), nodes: parse::parse(source)? })
    }

    /// Executes the template over `dot`.
    ///
    /// # Errors
    /// For a missing field, or a function that does not take what it is given.
    pub fn execute(&self, dot: &Value, scope: &Scope<'_>) -> Result<String, TemplateError> {
        exec::execute(&self.source, &self.nodes, dot, scope)
    }
}

#[cfg(test)]
mod tests;
