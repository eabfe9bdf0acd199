//! Image references: `[registry/]repository[:tag][@digest]`, with Docker's defaults.
//!
//! The grammar is that of distribution's `reference` package: a first component with a dot, a colon or the
//! word `localhost` is a registry; without one the registry is `docker.io`, and there a repository of a single
//! component lives under `library/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The registry of names that give none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that give neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar; the second field tells which part.
    #[error("invalid reference format: `{0}`: {1}")]
    Malformed(String, &'static str),
    /// Docker's own refusal for a frequent mistake.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
}

/// A normalized image reference: registry and repository always known, tag and digest as given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host name, with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, like `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same reference with the tag `latest` if it has neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with this digest and no tag.
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository as people write it: without `docker.io/` and `library/`, unless what is left would then be
    /// another image's name or an image's id.
    pub fn familiar_name(&self) -> String {
        let (registry, repository) = (&self.registry, &self.repository);
        if registry != DEFAULT_REGISTRY || names_registry(repository) {
            return format!("{registry}/{repository}");
        }
        let official = repository.strip_prefix("library/");
        official.filter(|rest| !rest.contains('/') && !is_image_id(rest)).unwrap_or(repository).to_owned()
    }

    /// The whole reference as people write it: `busybox:latest`, `localhost:5000/app@sha256:…`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

/// Whether `text` is a tag: up to 128 of letters, digits, `_`, `.`, `-`, not beginning with `.` or `-`.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && matches!(b, b'.' | b'-')))
}

/// Whether the part before the first `/` is a registry and not the beginning of a repository in the default one.
fn names_registry(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| {
        first.contains(['.', ':', '['])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    })
}

fn is_image_id(text: &str) -> bool {
    Digest::from_hex(text).is_ok()
}

fn is_path_component(text: &str) -> bool {
    // alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`
    let mut rest = text;
    loop {
        let run = rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.bytes().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        let allowed =
            matches!(&rest[..separator], "." | "_" | "__") || rest[..separator].bytes().all(|b| b == b'-');
        if separator == 0 || !allowed {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, rest)) => {
                if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                    return false;
                }
                match rest {
                    "" => return true,
                    _ => ("v6", rest.strip_prefix(':')),
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    let Some(port) = port else { return false };
    let host_ok = host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    host_ok && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let malformed = |why| ReferenceError::Malformed(text.to_owned(), why);
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|_| malformed("what follows `@` is not a digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => {
                if !is_tag(tag) {
                    return Err(malformed("what follows the last `:` is not a tag"));
                }
                (name, Some(tag.to_owned()))
            }
            _ => (name, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if names_registry(name) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_registry(registry) {
            return Err(malformed("the part before the first `/` is not a registry's name"));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !rest.split('/').all(is_path_component) {
            if rest.bytes().any(|b| b.is_ascii_uppercase()) {
                let official = registry == DEFAULT_REGISTRY && !rest.contains('/');
                let library = if official { "library/" } else { "" };
                return Err(ReferenceError::Uppercase(format!("{library}{rest}")));
            }
            return Err(malformed("the repository's name has a character or an order that is not allowed"));
        }
        if registry == DEFAULT_REGISTRY && is_image_id(rest) {
            return Err(malformed("64 hexadecimal digits name an image id, not a repository"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !rest.contains('/') {
            format!("library/{rest}")
        } else {
            rest.to_owned()
        };
        // Of the full name, which is read again wherever a reference is stored.
        if registry.len() + repository.len() > 255 {
            return Err(malformed("the name is longer than 255 characters"));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// The full, unabbreviated form: `docker.io/library/busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.registry, self.repository);
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        match text.parse::<Reference>() {
            Ok(reference) => format!("{reference} = {}", reference.familiar()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn references_are_normalized_as_docker_does() {
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        let all = [
            "busybox",
            "busybox:1.36",
            "user/app",
            "localhost/app",
            "localhost:5000/a/b:tag",
            "127.0.0.1:5000/x",
            "[::1]:5000/x:y",
            "quay.io/a/b__c-d.e",
            "index.docker.io/library/x",
            "Busybox",
            "a..b",
            "a:",
            ":a",
            "/a",
            "a//b",
            "a/b:t/c",
            "../x",
            "a:b:c",
            "a@sha256:1",
            &digest,
            "UPPER/x",
            "",
        ]
        .map(full)
        .join("\n");
        expect![[r#"
            docker.io/library/busybox = busybox
            docker.io/library/busybox:1.36 = busybox:1.36
            docker.io/user/app = user/app
            localhost/app = localhost/app
            localhost:5000/a/b:tag = localhost:5000/a/b:tag
            127.0.0.1:5000/x = 127.0.0.1:5000/x
            [::1]:5000/x:y = [::1]:5000/x:y
            quay.io/a/b__c-d.e = quay.io/a/b__c-d.e
            docker.io/library/x = x
            invalid reference format: repository name (library/Busybox) must be lowercase
            invalid reference format: `a..b`: the repository's name has a character or an order that is not allowed
            invalid reference format: `a:`: what follows the last `:` is not a tag
            invalid reference format: `:a`: the repository's name has a character or an order that is not allowed
            invalid reference format: `/a`: the repository's name has a character or an order that is not allowed
            invalid reference format: `a//b`: the repository's name has a character or an order that is not allowed
            invalid reference format: `a/b:t/c`: the repository's name has a character or an order that is not allowed
            invalid reference format: `../x`: the part before the first `/` is not a registry's name
            invalid reference format: `a:b:c`: the repository's name has a character or an order that is not allowed
            invalid reference format: `a@sha256:1`: what follows `@` is not a digest
            docker.io/library/busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa = busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            UPPER/x = UPPER/x
            invalid reference format: ``: it is empty"#]]
        .assert_eq(&all);
    }

    #[test]
    fn a_shortened_name_is_still_the_same_image() {
        let id = format!("docker.io/library/{}", "a".repeat(64));
        for text in [
            "docker.io/localhost/x",
            "docker.io/a.b/c:t",
            "docker.io/library/a.b",
            "docker.io/library/a/b",
            &id,
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(reference.familiar().parse(), Ok(reference));
        }
    }

    #[test]
    fn a_name_is_as_long_as_its_full_form() {
        let longest = "a".repeat(255 - "docker.iolibrary/".len());
        let reference: Reference = longest.parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(reference.to_string().parse(), Ok(reference));
        assert!(format!("{longest}a").parse::<Reference>().is_err());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(text in "[a-z0-9./:@_-]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<Reference>();
        }
    }
}
