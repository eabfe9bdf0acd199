//! Dockerfile words: splitting at blanks, quotes, escapes and variables (Dockerfile reference, "Environment
//! replacement").

/// Splits at blanks that are neither quoted nor escaped; quotes and escapes stay in the words.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None | Some('"'), '\\') => {
                word.push('\\');
                word.extend(characters.next());
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away and puts the values of `$name`, `${name}`, `${name:-word}` and `${name:+word}`
/// in. A name that is unknown is empty. The error says what is wrong.
pub(crate) fn expand(text: &str, env: &[String]) -> Result<String, String> {
    expand_at(text, env, 0)
}

/// How deep `${a:-${b:-…}}` may go: the text may be a stranger's, and each level takes stack.
const DEEPEST: u32 = 32;

fn expand_at(text: &str, env: &[String], depth: u32) -> Result<String, String> {
    if depth > DEEPEST {
        return Err(format!("variables are nested deeper than {DEEPEST} levels"));
    }
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut in_double = false;
    while let Some(&character) = characters.get(at) {
        at += 1;
        match character {
            '\'' if !in_double => match characters[at..].iter().position(|c| *c == '\'') {
                Some(length) => {
                    out.extend(&characters[at..at + length]);
                    at += length + 1;
                }
                None => return Err("a single quote is not closed".to_owned()),
            },
            '"' => in_double = !in_double,
            '\\' => match characters.get(at) {
                Some(&next) => {
                    if in_double && !matches!(next, '"' | '\\' | '$') {
                        out.push('\\');
                    }
                    out.push(next);
                    at += 1;
                }
                None => out.push('\\'),
            },
            '$' => at = variable(&characters, at, env, depth, &mut out)?,
            other => out.push(other),
        }
    }
    if in_double {
        return Err("a double quote is not closed".to_owned());
    }
    Ok(out)
}

fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// Expands the variable whose `$` lies before `at`; returns where the text goes on.
fn variable(
    characters: &[char],
    at: usize,
    env: &[String],
    depth: u32,
    out: &mut String,
) -> Result<usize, String> {
    let name_length =
        |from: &[char]| from.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').count();
    if characters.get(at) != Some(&'{') {
        let length = name_length(&characters[at..]);
        if length == 0 {
            out.push('$');
            return Ok(at);
        }
        let name: String = characters[at..at + length].iter().collect();
        out.push_str(value(env, &name).unwrap_or_default());
        return Ok(at + length);
    }
    let mut open = 1;
    let inner = at + 1;
    let Some(length) = characters[inner..].iter().position(|c| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        open == 0
    }) else {
        return Err("`${` has no `}`".to_owned());
    };
    let body = &characters[inner..inner + length];
    let name_end = name_length(body);
    let name: String = body[..name_end].iter().collect();
    let rest: String = body[name_end..].iter().collect();
    if name.is_empty() {
        return Err(format!("`${{{rest}}}` names no variable"));
    }
    let known = value(env, &name);
    let filled = known.filter(|v| !v.is_empty());
    match rest.as_str() {
        "" => out.push_str(known.unwrap_or_default()),
        _ => match (rest.strip_prefix(":-"), rest.strip_prefix(":+")) {
            (Some(word), _) => match filled {
                Some(value) => out.push_str(value),
                None => out.push_str(&expand_at(word, env, depth + 1)?),
            },
            (_, Some(word)) if filled.is_some() => out.push_str(&expand_at(word, env, depth + 1)?),
            (_, Some(_)) => {}
            _ => return Err(format!("`${{{name}{rest}}}` is not supported: `:-` and `:+` are")),
        },
    }
    Ok(inner + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_keep_their_quotes_until_they_are_expanded() {
        assert_eq!(split_words("a  b\\ c \"d 'e\" 'f \\' g"), ["a", "b\\ c", "\"d 'e\"", "'f \\'", "g"]);
        let env = ["A=1".to_owned(), "E=".to_owned()];
        let expand = |text: &str| expand(text, &env).unwrap_or_else(|e| format!("error: {e}"));
        assert_eq!(expand("$A.${A}.${E:-d$A}.${A:+y}.${N:+n}.$N."), "1.1.d1.y...");
        assert_eq!(expand(r#""\"\$A\n" '$A\' \$A $ $$"#), r#""$A\n $A\ $A $ $$"#);
        assert_eq!(expand(&"${N:-".repeat(9999)), "error: `${` has no `}`");
        let deep = format!("{}{}", "${N:-".repeat(9999), "}".repeat(9999));
        assert_eq!(expand(&deep), "error: variables are nested deeper than 32 levels");
        assert_eq!(expand("${A"), "error: `${` has no `}`");
        assert_eq!(expand("${A%x}"), "error: `${A%x}` is not supported: `:-` and `:+` are");
        assert_eq!(expand("'a"), "error: a single quote is not closed");
        assert_eq!(expand("\"a"), "error: a double quote is not closed");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a$\\{\\}:+\"'\\\\ -]{0,40}") {
            let _ = expand(&text, &["a=b".to_owned()]);
            prop_assert!(split_words(&text).iter().all(|word| !word.is_empty()));
        }
    }
}
