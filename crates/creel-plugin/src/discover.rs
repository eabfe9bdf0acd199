//! Finding plugins: sockets, `.spec` and `.json` files in known directories.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// Longest `.spec` or `.json` file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// The directories in which plugins are looked for.
#[derive(Debug, Clone)]
pub struct Plugins {
    directories: Vec<PathBuf>,
}

impl Default for Plugins {
    /// Docker's own three: `/run/docker/plugins`, `/etc/docker/plugins`, `/usr/lib/docker/plugins`.
    fn default() -> Self {
        let all = ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"];
        Self::new(all.map(PathBuf::from).to_vec())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Document {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<serde_json::Value>,
}

/// Reads an address: `unix:///path` or `tcp://host:port`.
///
/// # Errors
/// In words, for any other.
pub fn address(text: &str) -> Result<Address, String> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Ok(Address::Unix(path.into())),
            false => Err(format!("the address {text:?} is not unix:// and an absolute path")),
        };
    }
    let rest = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"));
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(host)
            if host.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
            }) =>
        {
            Ok(Address::Tcp(host.to_owned()))
        }
        _ => Err(format!("the address {text:?} is neither unix:///PATH nor tcp://HOST:PORT")),
    }
}

impl Plugins {
    /// Those in these directories; the first that has a name decides.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// The names of all plugins, whatever they do.
    pub fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for directory in &self.directories {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
                let known =
                    matches!(path.extension().and_then(|e| e.to_str()), Some("sock" | "spec" | "json"));
                if known || path.is_dir() && self.find(stem).is_ok() {
                    names.insert(stem.to_owned());
                }
            }
        }
        names.into_iter().collect()
    }

    /// Where the plugin of this name listens.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Address`] for a file that says nothing that can be used.
    pub fn find(&self, name: &str) -> Result<Address, Error> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(Error::NotFound(name.to_owned()));
        }
        for directory in &self.directories {
            for base in [directory.clone(), directory.join(name)] {
                if let Some(found) = at(&base, name) {
                    return found.map_err(|why| Error::Address { name: name.to_owned(), why });
                }
            }
        }
        Err(Error::NotFound(name.to_owned()))
    }
}

fn at(base: &Path, name: &str) -> Option<Result<Address, String>> {
    let socket = base.join(format!("{name}.sock"));
    if socket.exists() {
        return Some(Ok(Address::Unix(socket)));
    }
    let read = |path: &Path| -> Option<Result<String, String>> {
        let meta = std::fs::metadata(path).ok()?;
        if !meta.is_file() || meta.len() > LONGEST {
            return Some(Err(format!("{} is not a file of at most {LONGEST} bytes", path.display())));
        }
        Some(std::fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display())))
    };
    if let Some(text) = read(&base.join(format!("{name}.spec"))) {
        return Some(text.and_then(|text| address(&text)));
    }
    let text = read(&base.join(format!("{name}.json")))?;
    Some(text.and_then(|text| {
        let document: Document = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        match document.tls {
            Some(tls) if !tls.is_null() => {
                Err("plugins over TLS are not in this version of creel".to_owned())
            }
            _ => address(&document.addr),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses() {
        assert_eq!(address("unix:///run/x.sock\n"), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!(address("tcp://localhost:80/"), Ok(Address::Tcp("localhost:80".into())));
        for wrong in ["", "unix://x", "tcp://x", "tcp://:80", "ftp://x:1", "tcp://x/y:80", "/run/x"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sockets_come_before_files_and_nothing_leads_out_of_the_directories() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = Plugins::new(vec![dir.path().join("none"), dir.path().to_owned()]);
        std::fs::write(dir.path().join("a.spec"), "tcp://h:1").unwrap();
        std::fs::write(dir.path().join("b.json"), r#"{"Name":"b","Addr":"unix:///b"}"#).unwrap();
        std::fs::write(dir.path().join("t.json"), r#"{"Addr":"tcp://h:1","TLSConfig":{}}"#).unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        std::fs::write(dir.path().join("c/c.sock"), "").unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert_eq!(plugins.find("a").unwrap(), Address::Tcp("h:1".into()));
        assert_eq!(plugins.find("b").unwrap(), Address::Unix("/b".into()));
        assert_eq!(plugins.find("c").unwrap(), Address::Unix(dir.path().join("c/c.sock")));
        std::fs::write(dir.path().join("a.sock"), "").unwrap();
        assert_eq!(plugins.find("a").unwrap(), Address::Unix(dir.path().join("a.sock")));
        assert_eq!(plugins.names(), ["a", "b", "c", "t"]);
        assert!(plugins.find("t").unwrap_err().to_string().contains("TLS"));
        for wrong in ["", "../a", ".", "..", "a/b", "none"] {
            assert!(matches!(plugins.find(wrong), Err(Error::NotFound(_))), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = address(&text);
        }
    }
}
