//! The HTTP clients with which one registry, and whoever it redirects to, is spoken to: whose certificates are
//! trusted, which one is shown, who is not verified at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, Identity};
use url::{Host, Url};

use crate::client::chain;
use crate::config::RegistryConfig;
use crate::endpoint::{Plain, base_urls, is_loopback, same_origin, without_secrets};
use crate::error::{Error, Result};

/// How long nothing at all may come before a connection counts as dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a registry that may be insecure is waited for before plain HTTP is tried.
const PROBE: Duration = Duration::from_secs(5);
/// No certificate file is larger than this, in bytes.
const LARGEST_FILE: u64 = 4 << 20;

/// What lies in a registry's directories of certificates.
#[derive(Clone, Default)]
struct Certs {
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

/// The ways to one registry.
pub(crate) struct Transport {
    base: Url,
    own: reqwest::Client,
    plain: Plain,
    config: RegistryConfig,
    /// The authorities that are trusted for the registry; its token server and its storage may have them too.
    roots: Vec<Certificate>,
    others: Mutex<HashMap<String, reqwest::Client>>,
}

impl Transport {
    /// Finds out how a registry is reached. One that must not be insecure is reached over verified TLS and nothing
    /// else. One that may be (it is listed, or on this machine) is asked in TLS first, and in plain HTTP if it does
    /// not speak TLS. Certificates that lie there for a registry on this machine say that it speaks TLS.
    pub(crate) async fn to(registry: &str, config: &RegistryConfig) -> Result<Self> {
        Self::by(registry, config, async |loose, https| {
            let speaks = speaks_tls(loose, https).await;
            plain_ones().retain(|known| known != https);
            if !speaks {
                plain_ones().push(https.clone());
            }
            speaks
        })
        .await
    }

    /// The way to a registry that may be insecure, and that did not speak TLS when it was last asked: without asking.
    /// `None` if that is not known, or may no longer be. It can be wrong, as registries learn.
    pub(crate) async fn plain_as_before(registry: &str, config: &RegistryConfig) -> Result<Option<Self>> {
        let (https, http) = base_urls(registry, &Plain::new(&config.insecure))?;
        if http.is_none() || !plain_ones().contains(&https) {
            return Ok(None);
        }
        let transport = Self::by(registry, config, async |_, _| false).await?;
        Ok(Some(transport).filter(|transport| transport.base.scheme() == "http"))
    }

    /// The way to a registry; of one that may be insecure, `speaks_tls` says whether it speaks TLS.
    async fn by(
        registry: &str,
        config: &RegistryConfig,
        speaks_tls: impl AsyncFnOnce(&reqwest::Client, &Url) -> bool,
    ) -> Result<Self> {
        let plain = Plain::new(&config.insecure);
        let (https, http) = base_urls(registry, &plain)?;
        let certs = read_certs(config.certs_of(registry))?;
        let listed = plain.lists(&https);
        let (base, own) = match http {
            Some(http) if listed || certs.is_none() => {
                let loose = match &certs {
                    Some(certs) => build(loose(builder(), &https), Some(certs))?,
                    None => shared(&https, true)?,
                };
                if speaks_tls(&loose, &https).await {
                    (https, loose)
                } else {
                    (http.clone(), shared(&http, true)?)
                }
            }
            _ => {
                let own = match &certs {
                    Some(certs) => build(near(builder(), &https), Some(certs))?,
                    None => shared(&https, false)?,
                };
                (https, own)
            }
        };
        let roots = certs.map(|certs| certs.roots).unwrap_or_default();
        Ok(Self { base, own, plain, config: config.clone(), roots, others: Mutex::default() })
    }

    /// The way to an address that the user gave with its scheme: a mirror's.
    pub(crate) fn to_url(url: &Url, config: &RegistryConfig) -> Result<Self> {
        let base = url.join("v2/").map_err(|error| Error::Reference(format!("the mirror {url}: {error}")))?;
        let mut plain = config.insecure.clone();
        if base.scheme() == "http" {
            plain.extend(host_port(&base));
        }
        let plain = Plain::new(&plain);
        let certs = read_certs(config.certs_of(&host_port(&base).unwrap_or_default()))?;
        let own = match &certs {
            Some(certs) if plain.lists(&base) => build(loose(builder(), &base), Some(certs))?,
            Some(certs) => build(near(builder(), &base), Some(certs))?,
            None => shared(&base, plain.allows(&base))?,
        };
        let roots = certs.map(|certs| certs.roots).unwrap_or_default();
        Ok(Self { base, own, plain, config: config.clone(), roots, others: Mutex::default() })
    }

    /// The address of the registry's API.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Refuses an address that a registry must not lead to: one in plain HTTP that is not to be trusted with it, and
    /// this machine itself, unless the registry is on it.
    pub(crate) fn check(&self, url: &Url) -> Result<()> {
        self.plain.check(url)?;
        let local = |url: &Url| url.host().is_some_and(|host| is_loopback(&host));
        if local(url) && !local(&self.base) && !self.plain.lists(url) {
            return Err(Error::Protocol {
                action: format!("reaching {}", without_secrets(url)),
                reason: format!("{} must not lead to services of this machine", without_secrets(&self.base)),
            });
        }
        Ok(())
    }

    /// The client for an address: the registry's own for itself. Others are trusted by their own certificates' and
    /// the registry's authorities, and are never shown the registry's client certificate.
    pub(crate) fn client(&self, url: &Url) -> Result<reqwest::Client> {
        if same_origin(&self.base, url) {
            return Ok(self.own.clone());
        }
        let key = url.origin().ascii_serialization();
        if let Some(client) = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(client.clone());
        }
        let mut certs = read_certs(names(url).iter().flat_map(|name| self.config.certs_of(name)))?;
        let own_certs = certs.is_some();
        if !self.roots.is_empty() {
            certs.get_or_insert_default().roots.extend(self.roots.iter().cloned());
        }
        let unverified =
            self.plain.lists(url) || self.plain.allows(url) && !own_certs && self.roots.is_empty();
        let client = match (certs, unverified) {
            (None, _) => shared(url, unverified)?,
            (Some(certs), true) => build(loose(builder(), url), Some(&certs))?,
            (Some(certs), false) => build(near(builder(), url), Some(&certs))?,
        };
        self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(key, client.clone());
        Ok(client)
    }
}

/// `host:port` of an address, the port only if it is written out.
fn host_port(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The names that an address's directory of certificates may have.
fn names(url: &Url) -> Vec<String> {
    let host = url.host_str().unwrap_or_default();
    let full = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let mut names: Vec<String> = host_port(url).into_iter().chain(full).collect();
    names.dedup();
    names
}

/// The registries that may be insecure and did not speak TLS when they were last asked, by their addresses in TLS.
fn plain_ones() -> MutexGuard<'static, Vec<Url>> {
    static PLAIN: Mutex<Vec<Url>> = Mutex::new(Vec::new());
    PLAIN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a TLS handshake gets through.
async fn speaks_tls(client: &reqwest::Client, https: &Url) -> bool {
    match client.get(https.clone()).timeout(PROBE).send().await {
        Ok(_) => true,
        Err(error) => !error.is_connect() && !error.is_timeout(),
    }
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("creel/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(SILENCE)
        // Small bodies in both directions wait for nothing.
        .tcp_nodelay(true)
        // Connections are bound to the runtime that opened them; tests have many runtimes, daemons one.
        .pool_idle_timeout(Duration::from_secs(30))
}

/// A registry on this machine is never asked for through a proxy, and needs no resolver.
fn near(builder: ClientBuilder, url: &Url) -> ClientBuilder {
    if !url.host().is_some_and(|host: Host<&str>| is_loopback(&host)) {
        return builder;
    }
    let both = [([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 0).into()];
    builder.no_proxy().resolve_to_addrs("localhost", &both)
}

/// Verifies nobody.
fn loose(builder: ClientBuilder, url: &Url) -> ClientBuilder {
    near(builder, url).tls_built_in_root_certs(false).danger_accept_invalid_certs(true)
}

fn build(mut builder: ClientBuilder, certs: Option<&Certs>) -> Result<reqwest::Client> {
    if let Some(certs) = certs {
        for root in &certs.roots {
            builder = builder.add_root_certificate(root.clone());
        }
        if let Some(identity) = &certs.identity {
            builder = builder.identity(identity.clone());
        }
    }
    builder.build().map_err(|error| Error::Network {
        action: "setting up the HTTP client".to_owned(),
        reason: chain(&error),
    })
}

/// The clients that need no certificates of their own: made once.
fn shared(url: &Url, unverified: bool) -> Result<reqwest::Client> {
    static CLIENTS: [OnceLock<reqwest::Client>; 4] = [const { OnceLock::new() }; 4];
    let local = url.host().is_some_and(|host| is_loopback(&host));
    let cell = &CLIENTS[usize::from(local) << 1 | usize::from(unverified)];
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let client = build(if unverified { loose(builder(), url) } else { near(builder(), url) }, None)?;
    Ok(cell.get_or_init(|| client).clone())
}

fn unusable(path: &Path, reason: impl ToString) -> Error {
    Error::Certificates { path: path.display().to_string(), reason: reason.to_string() }
}

/// Reads what lies in the directories of those that exist; `None` if none does, or nothing is in them.
fn read_certs(directories: impl Iterator<Item = PathBuf>) -> Result<Option<Certs>> {
    let mut certs = Certs::default();
    for directory in directories {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => return Err(unusable(&directory, error)),
        };
        let mut files: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()
            .map_err(|e| unusable(&directory, e))?;
        files.sort();
        for file in &files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let bundle =
                        Certificate::from_pem_bundle(&read(file)?).map_err(|e| unusable(file, chain(&e)))?;
                    if bundle.is_empty() {
                        return Err(unusable(file, "it holds no certificate in PEM form"));
                    }
                    certs.roots.extend(bundle);
                }
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !files.contains(&key) {
                        return Err(unusable(
                            file,
                            format!(
                                "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                                name(&key),
                                name(file)
                            ),
                        ));
                    }
                    let mut pem = read(file)?;
                    pem.push(b'\n');
                    pem.extend(read(&key)?);
                    let identity = Identity::from_pem(&pem).map_err(|e| unusable(file, chain(&e)))?;
                    // One is shown: the first by name.
                    certs.identity.get_or_insert(identity);
                }
                Some("key") => {
                    let cert = file.with_extension("cert");
                    if !files.contains(&cert) {
                        return Err(unusable(
                            file,
                            format!("missing client certificate {} for key {}", name(&cert), name(file)),
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    Ok((!certs.roots.is_empty() || certs.identity.is_some()).then_some(certs))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        use std::io::Read;
        let mut text = Vec::new();
        std::fs::File::open(path)?.take(LARGEST_FILE).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().map_err(|error| unusable(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_pair_and_rubbish_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let of = |files: &[(&str, &str)]| {
            let host = dir.path().join("host");
            let _ = std::fs::remove_dir_all(&host);
            std::fs::create_dir(&host).unwrap();
            for (name, text) in files {
                std::fs::write(host.join(name), text).unwrap();
            }
            match read_certs([host, dir.path().join("missing")].into_iter()) {
                Ok(certs) => certs.is_some().to_string(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(of(&[]), "false");
        assert_eq!(of(&[("notes.txt", "x")]), "false");
        assert!(of(&[("a.cert", "x")]).contains("missing key a.key for client certificate a.cert"));
        assert!(of(&[("a.key", "x")]).contains("missing client certificate a.cert for key a.key"));
        assert!(of(&[("ca.crt", "no pem")]).contains("ca.crt"));
        assert!(of(&[("a.key", "x"), ("a.cert", "x")]).contains("a.cert"));
    }

    #[test]
    fn only_the_registry_itself_leads_to_this_machine() {
        let config = RegistryConfig { insecure: vec!["127.0.0.1:5000".into()], ..RegistryConfig::default() };
        let to = |base: &str| Transport::to_url(&Url::parse(base).unwrap(), &config).unwrap();
        let check = |from: &Transport, url: &str| from.check(&Url::parse(url).unwrap()).is_ok();
        let far = to("https://registry.example");
        assert!(check(&far, "https://cdn.example/x") && check(&far, "http://127.0.0.1:5000/x"));
        assert!(!check(&far, "http://127.0.0.1:2375/x") && !check(&far, "https://[::1]/x"));
        assert!(!check(&far, "http://localhost/x") && !check(&far, "http://cdn.example/x"));
        let near = to("http://localhost:5001");
        assert!(check(&near, "http://127.0.0.1:5002/x") && !check(&near, "http://cdn.example/x"));
    }
}
