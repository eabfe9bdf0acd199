//! `-v` and `--tmpfs`.

/// A path without `.`, `..`, double and trailing slashes, as Go's `filepath.Clean` gives it.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => drop(parts.pop()),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// What a `-v` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// A bind or a named volume, as the API takes it: `source:destination[:options]`.
    Bind(String),
    /// An anonymous volume at this path.
    Anonymous(String),
}

/// Reads the value of `-v`. A relative source (`./x`, `../x`, `~` is the shell's business) is made absolute.
///
/// # Errors
/// For an empty part or too many of them, in Docker's words.
pub fn parse(text: &str) -> Result<Volume, String> {
    let wrong = |why: &str| format!("invalid spec: {text}: {why}");
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(wrong("empty section between colons"));
    }
    match parts.as_slice() {
        [path] => Ok(Volume::Anonymous((*path).to_owned())),
        [_, _, ..] => {
            let source = parts[0];
            let source = if source.starts_with('.') {
                std::path::absolute(source)
                    .map(|path| clean(&path.to_string_lossy()))
                    .unwrap_or(source.to_owned())
            } else {
                source.to_owned()
            };
            Ok(Volume::Bind(format!("{source}:{}", parts[1..].join(":"))))
        }
        [] => Err(wrong("it is empty")),
    }
}

/// The path and the options of a `--tmpfs`.
pub fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn volumes() {
        assert_eq!(parse("/a:/b:ro,z"), Ok(Volume::Bind("/a:/b:ro,z".to_owned())));
        assert_eq!(parse("name:/b"), Ok(Volume::Bind("name:/b".to_owned())));
        assert_eq!(parse("/data"), Ok(Volume::Anonymous("/data".to_owned())));
        let here = std::env::current_dir().unwrap();
        assert_eq!(parse("./x/../y:/b"), Ok(Volume::Bind(format!("{}/y:/b", here.display()))));
        for wrong in ["", ":/b", "/a:", "/a::ro"] {
            parse(wrong).unwrap_err();
        }
        assert_eq!(tmpfs("/run:size=64m,mode=755"), ("/run".to_owned(), "size=64m,mode=755".to_owned()));
        assert_eq!(tmpfs("/run"), ("/run".to_owned(), String::new()));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, want) in [
            ("", "."),
            ("/", "/"),
            ("/a//b/./c/..", "/a/b"),
            ("/..", "/"),
            ("../a", "../a"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("./", "."),
            ("../../a/", "../../a"),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn cleaning_twice_changes_nothing(path in "[a./]{0,12}") {
            prop_assert_eq!(clean(&clean(&path)), clean(&path));
        }
    }
}
