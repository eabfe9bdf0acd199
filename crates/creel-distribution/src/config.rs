//! What a user sets about registries: who may be insecure, who mirrors whom, where certificates lie.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::endpoint::HUB_NAME;
use crate::trust::PolicyFile;

/// What holds for all transfers of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Registries besides the loopback ones whose certificates are not verified and that may be reached over plain
    /// HTTP: `host`, `host:port`, or a network of addresses such as `10.0.0.0/8`.
    pub insecure: Vec<String>,
    /// Who is asked for images before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// Directories with one `HOST[:PORT]` directory for each registry that has certificates of its own, in Docker's
    /// layout: `*.crt` are authorities that are trusted for it, `*.cert` with its `*.key` is shown to it.
    pub certs: Vec<PathBuf>,
    /// The policy on signatures that images are held against; none without it.
    pub policy: Option<PolicyFile>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let certs = ["/etc/creel/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec();
        Self { insecure: Vec::new(), mirrors: Vec::new(), certs, policy: None }
    }
}

impl RegistryConfig {
    /// The mirrors of a registry, by its name in references.
    pub(crate) fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &Mirror> {
        self.mirrors.iter().filter(move |mirror| mirror.registry == registry)
    }

    /// The directories that may hold certificates for a host, which is `host` or `host:port`.
    pub(crate) fn certs_of(&self, host: &str) -> impl Iterator<Item = PathBuf> {
        // A name out of a redirect is a stranger's: it must not lead anywhere else.
        let safe = !host.is_empty() && !host.contains('/') && !host.starts_with('.');
        self.certs.iter().filter(move |_| safe).map(move |dir: &PathBuf| Path::new(dir).join(host))
    }
}

/// A registry that holds copies of what another one has. It is asked for images first, without credentials; what it
/// lacks, or fails to give, comes from the registry itself. Nothing is pushed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry that is mirrored, as references name it.
    pub(crate) registry: String,
    /// Scheme, host and port of the mirror.
    pub(crate) url: Url,
}

/// Why a mirror cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mirror: {reason}; wanted is https://HOST[:PORT], or REGISTRY=https://HOST[:PORT]")]
pub struct MirrorError {
    text: String,
    reason: String,
}

impl Mirror {
    /// The registry that is mirrored, as references name it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the mirror is: scheme, host and port, with a slash at the end.
    pub fn address(&self) -> &str {
        self.url.as_str()
    }
}

impl FromStr for Mirror {
    type Err = MirrorError;

    /// Reads `https://mirror.example` (for Docker Hub) or `registry.example=https://mirror.example`. Only with `http`
    /// written out is a mirror spoken to without TLS.
    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let wrong = |reason: &str| MirrorError { text: text.to_owned(), reason: reason.to_owned() };
        let (registry, address) = match text.split_once('=') {
            Some((registry, address)) if !registry.contains('/') => (registry, address),
            _ => (HUB_NAME, text),
        };
        let url = Url::parse(address).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme is neither https nor http"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds credentials, which mirrors are not given"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a path, a query or a fragment"));
        }
        if registry.is_empty() {
            return Err(wrong("the registry's name is empty"));
        }
        Ok(Self { registry: registry.to_owned(), url })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read() {
        let read = |text: &str| text.parse::<Mirror>().map(|m| format!("{} {}", m.registry, m.url));
        assert_eq!(read("https://m.example"), Ok("docker.io https://m.example/".to_owned()));
        assert_eq!(read("http://10.0.0.1:5000/"), Ok("docker.io http://10.0.0.1:5000/".to_owned()));
        assert_eq!(read("quay.io=https://m:444"), Ok("quay.io https://m:444/".to_owned()));
        for bad in
            ["m.example", "ftp://m", "https://u:p@m", "https://m/path", "https://m/?a=b", "=https://m", ""]
        {
            assert!(read(bad).unwrap_err().to_string().contains("is not a mirror"), "{bad}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_certificates() {
        let config = RegistryConfig { certs: vec!["/c".into()], ..RegistryConfig::default() };
        let of = |host: &str| config.certs_of(host).collect::<Vec<_>>();
        assert_eq!(of("a.b:5000"), [PathBuf::from("/c/a.b:5000")]);
        for bad in ["..", ".", "", "../x", "a/b", "/etc"] {
            assert_eq!(of(bad), Vec::<PathBuf>::new(), "{bad}");
        }
    }
}
