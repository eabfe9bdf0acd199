//! Identifiers of containers and execs: 64 lower-case hexadecimal digits, as Docker's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: 64 lower-case hexadecimal digits are wanted")]
pub struct IdError(String);

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes the id out of 32 random bytes (the caller's, so that this crate does no I/O).
            pub fn from_random(bytes: [u8; 32]) -> Self {
                let mut text = String::with_capacity(64);
                for byte in bytes {
                    use fmt::Write;
                    let _ = write!(text, "{byte:02x}");
                }
                Self(text)
            }

            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits: what tables show and what a container's hostname is by default.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() == 64 && is_hex(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError(text.to_owned()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
    };
}

id_type! {
    /// Names one container for its whole life.
    ContainerId
}
id_type! {
    /// Names one exec: an additional process in a running container.
    ExecId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_hex_digits_and_nothing_else() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.as_str().parse::<ContainerId>(), Ok(id.clone()));
        assert_eq!(id.short(), "abababababab");
        for wrong in ["", "ab", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65), "../../etc/passwd"] {
            assert!(wrong.parse::<ContainerId>().is_err(), "{wrong}");
        }
    }
}
