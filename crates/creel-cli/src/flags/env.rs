//! Environment variables, labels and the files that hold them.

use std::path::Path;

/// Why a file of variables cannot be used, in Docker's words.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("open {0}: {1}")]
    Open(String, String),
    /// A line has no name before the `=`.
    #[error("invalid env file ({0}): no variable name on line '{1}'")]
    NoName(String, String),
    /// A name contains white space.
    #[error("invalid env file ({0}): variable '{1}' contains whitespaces")]
    Blank(String, String),
    /// The file is not UTF-8; the second field is the line's number.
    #[error("invalid env file ({0}): line {1} is not valid UTF-8")]
    NotUtf8(String, usize),
}

/// A check for `-e`.
///
/// # Errors
/// For a text without a name.
pub fn check(text: &str) -> Result<(), String> {
    if text.split('=').next().is_some_and(|name| !name.is_empty()) {
        Ok(())
    } else {
        Err(format!("invalid environment variable: {text}"))
    }
}

/// Variables as `-e` gives them: a bare name takes the caller's value, or stays bare so that the image's is removed.
pub fn resolve(texts: &[&str], of_caller: impl Fn(&str) -> Option<String>) -> Vec<String> {
    texts
        .iter()
        .map(|text| match text.contains('=') {
            true => (*text).to_owned(),
            false => of_caller(text).map_or_else(|| (*text).to_owned(), |value| format!("{text}={value}")),
        })
        .collect()
}

/// The variables of a file's text: one a line, `#` starts a comment line, a bare name takes the caller's value or is
/// left out. Blanks before a name are dropped, values stay as they are.
///
/// # Errors
/// [`EnvFileError`] with the file's name.
pub fn parse_file(
    name: &str,
    content: &[u8],
    of_caller: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, EnvFileError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut variables = Vec::new();
    for (number, line) in content.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line =
            std::str::from_utf8(line).map_err(|_| EnvFileError::NotUtf8(name.to_owned(), number + 1))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (variable, value) = match line.split_once('=') {
            Some((variable, value)) => (variable, Some(value)),
            None => (line, None),
        };
        if variable.is_empty() {
            return Err(EnvFileError::NoName(name.to_owned(), line.to_owned()));
        }
        let variable = if value.is_none() { variable.trim_end() } else { variable };
        if variable.contains(char::is_whitespace) {
            return Err(EnvFileError::Blank(name.to_owned(), variable.to_owned()));
        }
        match value {
            Some(value) => variables.push(format!("{variable}={value}")),
            None => {
                if let Some(value) = of_caller(variable) {
                    variables.push(format!("{variable}={value}"));
                }
            }
        }
    }
    Ok(variables)
}

/// Reads a file of variables or labels.
///
/// # Errors
/// [`EnvFileError`].
pub fn read_file(
    path: &str,
    of_caller: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, EnvFileError> {
    let content = std::fs::read(Path::new(path))
        .map_err(|e| EnvFileError::Open(path.to_owned(), crate::os_words(&e)))?;
    parse_file(path, &content, of_caller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caller(name: &str) -> Option<String> {
        (name == "SET").then(|| "yes".to_owned())
    }

    #[test]
    fn variables_of_the_caller_are_taken_over() {
        assert_eq!(resolve(&["A=1", "SET", "UNSET", "B="], caller), ["A=1", "SET=yes", "UNSET", "B="]);
    }

    #[test]
    fn files_are_read() {
        let read = |text: &[u8]| parse_file("f", text, caller).map_err(|e| e.to_string());
        assert_eq!(
            read(b"\xef\xbb\xbfA=1\r\n# no\n\n  B= x y # z\nSET\nUNSET\nC=\n"),
            Ok(vec!["A=1".into(), "B= x y # z".into(), "SET=yes".into(), "C=".into()])
        );
        assert_eq!(read(b"=x"), Err("invalid env file (f): no variable name on line '=x'".into()));
        assert_eq!(read(b"a b=x"), Err("invalid env file (f): variable 'a b' contains whitespaces".into()));
        assert_eq!(read(b"a\n\xff=x"), Err("invalid env file (f): line 2 is not valid UTF-8".into()));
    }

    proptest! {
        #[test]
        fn no_file_panics_and_each_variable_has_a_name(text in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(variables) = parse_file("f", &text, caller) {
                prop_assert!(variables.iter().all(|v| v.find('=').is_some_and(|at| at > 0)));
            }
        }
    }
}
