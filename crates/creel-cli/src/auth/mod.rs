//! Credentials of registries from Docker's own file, `~/.docker/config.json`.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Takes the file from this directory (`--config`).
pub(crate) fn set_directory(path: &str) {
    let _ = DIRECTORY.set(PathBuf::from(path));
}

fn file() -> Option<PathBuf> {
    let directory = DIRECTORY
        .get()
        .cloned()
        .or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from))
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Credentials for a registry, as the API's header wants them; `None` without any.
pub(crate) fn header(registry: &str) -> Option<String> {
    let text = std::fs::read_to_string(file()?).ok()?;
    of_config(&text, registry)
}

fn of_config(text: &str, registry: &str) -> Option<String> {
    let config: Value = serde_json::from_str(text).ok()?;
    let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let auths = config.get("auths")?.as_object()?;
    let bare = |name: &str| {
        name.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned()
    };
    let entry =
        auths.get(key).or_else(|| auths.iter().find(|(name, _)| bare(name) == registry).map(|(_, v)| v))?;
    let get = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut header = serde_json::Map::new();
    if let Some(token) = get("identitytoken") {
        header.insert("identitytoken".to_owned(), json!(token));
    } else {
        let decoded = String::from_utf8(base64::decode(get("auth")?)?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        header.insert("username".to_owned(), json!(user));
        header.insert("password".to_owned(), json!(password.trim_end_matches('\0')));
    }
    header.insert("serveraddress".to_owned(), json!(key));
    Some(base64::encode_url(Value::Object(header).to_string().as_bytes()))
}

/// Base64 (RFC 4648), the few lines that this file needs.
mod base64 {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    fn value(byte: u8) -> Option<u32> {
        match byte {
            b'+' | b'-' => Some(62),
            b'/' | b'_' => Some(63),
            _ => LETTERS.iter().position(|l| *l == byte).and_then(|n| u32::try_from(n).ok()),
        }
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
            if chunk.len() == 1 {
                return None;
            }
            let mut bits = 0;
            for n in 0..4 {
                bits = bits << 6 | chunk.get(n).map_or(Some(0), |b| value(*b))?;
            }
            out.extend(&bits.to_be_bytes()[1..chunk.len()]);
        }
        Some(out)
    }

    pub(super) fn encode_url(bytes: &[u8]) -> String {
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let mut padded = [0u8; 4];
            padded[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(padded);
            for n in 0..4 {
                let digit = (bits >> (18 - 6 * n) & 63) as usize;
                out.push(match (n > chunk.len(), digit) {
                    (true, _) => '=',
                    (_, 62) => '-',
                    (_, 63) => '_',
                    (_, digit) => char::from(LETTERS[digit]),
                });
            }
        }
        out
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
                prop_assert_eq!(decode(&encode_url(&bytes)), Some(bytes));
            }

            #[test]
            fn no_text_panics(text in "\\PC{0,12}") {
                let _ = decode(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"http://localhost:5000/":{"identitytoken":"t"}}}"#;
        let read = |registry: &str| {
            of_config(config, registry).map(|h| String::from_utf8(base64::decode(&h).unwrap()).unwrap())
        };
        assert_eq!(
            read("docker.io").as_deref(),
            Some(r#"{"password":"p:w","serveraddress":"https://index.docker.io/v1/","username":"u"}"#)
        );
        assert_eq!(
            read("localhost:5000").as_deref(),
            Some(r#"{"identitytoken":"t","serveraddress":"localhost:5000"}"#)
        );
        assert_eq!(read("quay.io"), None);
        assert_eq!(of_config("garbage", "quay.io"), None);
    }
}
