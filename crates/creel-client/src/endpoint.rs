//! Where a daemon listens.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// Where a daemon listens: a unix socket, the only transport so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    socket: PathBuf,
}

impl Endpoint {
    /// A daemon on this socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::unix(creel_wire::DEFAULT_SOCKET)
    }
}

/// Reads `unix:///path` or a bare absolute path.
impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Endpoint(text.to_owned(), why);
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(("tcp" | "http" | "https", _)) => {
                return Err(wrong(
                    "creel listens on unix sockets only, because whoever reaches the API is root on this machine; \
                     forward the socket through ssh -L instead",
                ));
            }
            Some(("ssh", _)) => {
                return Err(wrong(
                    "ssh:// is not built in; forward the socket: ssh -L /tmp/creel.sock:SOCKET HOST",
                ));
            }
            Some(_) => return Err(wrong("the scheme is not unix://")),
            None if text.starts_with('/') => text,
            None => return Err(wrong("write unix:///path/to/socket")),
        };
        if !path.starts_with('/') {
            return Err(wrong("the socket's path must be absolute: unix:///path/to/socket"));
        }
        // sockaddr_un holds 107 bytes and a NUL (unix(7)).
        if path.len() > 107 {
            return Err(wrong("the socket's path is longer than the 107 bytes the kernel takes"));
        }
        Ok(Self::unix(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let parse = |text: &str| text.parse::<Endpoint>().map(|e| e.socket).map_err(|e| e.to_string());
        assert_eq!(parse("unix:///run/x.sock"), Ok(PathBuf::from("/run/x.sock")));
        assert_eq!(parse("/run/x.sock"), Ok(PathBuf::from("/run/x.sock")));
        assert!(parse("tcp://127.0.0.1:2375").unwrap_err().contains("unix sockets only"));
        for wrong in ["", "x", "unix://x", "npipe:////./x", "ssh://h"] {
            parse(wrong).unwrap_err();
        }
        parse(&format!("unix:///{}", "x".repeat(107))).unwrap_err();
    }
}
