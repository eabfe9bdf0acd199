//! Where a registry is: names to addresses, and who may be spoken to without TLS.

use std::net::{IpAddr, Ipv6Addr};

use url::{Host, Url};

use crate::error::{Error, Result};

/// Docker Hub's name in references and the host that really answers.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The registries that may be reached over plain HTTP besides the loopback ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain(Vec<String>);

impl Plain {
    /// From names as a user lists them: `host`, `host:port`.
    pub(crate) fn new(insecure: &[String]) -> Self {
        Self(insecure.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether this URL's host may be reached over plain HTTP.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        if is_loopback(&host) {
            return true;
        }
        let name = host.to_string().to_ascii_lowercase();
        let with_port = url.port_or_known_default().map(|port| format!("{name}:{port}"));
        self.0.iter().any(|listed| *listed == name || Some(listed) == with_port.as_ref())
    }

    /// Refuses an unencrypted address whose host is not to be trusted with it.
    pub(crate) fn check(&self, url: &Url) -> Result<()> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allows(url) => Ok(()),
            "http" => Err(Error::Insecure {
                url: without_secrets(url),
                host: url.host_str().unwrap_or_default().to_owned(),
            }),
            other => Err(Error::Protocol {
                action: format!("reaching {}", without_secrets(url)),
                reason: format!("`{other}` is not a protocol that registries speak"),
            }),
        }
    }
}

/// Whether the host is this machine: 127.0.0.0/8, ::1 (also mapped), `localhost`.
pub(crate) fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => {
            *address == Ipv6Addr::LOCALHOST
                || matches!(address.to_ipv4_mapped().map(IpAddr::V4), Some(v4) if v4.is_loopback())
        }
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// The address of a registry's API, `https://host/v2/`, or `http` where that is allowed.
pub(crate) fn base_url(registry: &str, plain: &Plain) -> Result<Url> {
    let host = if registry == HUB.0 { HUB.1 } else { registry };
    let parse = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| Error::Reference(format!("`{registry}` is not the name of a registry: {error}")))
    };
    let https = parse("https")?;
    let http = parse("http")?;
    Ok(if plain.allows(&http) { http } else { https })
}

/// Whether credentials for one address may be sent to the other: same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// The address without what must not come into messages: user, password, query (signed URLs) and fragment.
pub(crate) fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_and_listed_hosts_are_spoken_to_in_plain() {
        let plain = Plain::new(&["Registry.lan".to_owned(), "10.0.0.1:5000".to_owned()]);
        let url =
            |registry| base_url(registry, &plain).map(|u| u.to_string()).unwrap_or_else(|e| e.to_string());
        assert_eq!(url("docker.io"), "https://registry-1.docker.io/v2/");
        assert_eq!(url("localhost:5000"), "http://localhost:5000/v2/");
        assert_eq!(url("127.8.9.1"), "http://127.8.9.1/v2/");
        assert_eq!(url("[::1]:5000"), "http://[::1]:5000/v2/");
        assert_eq!(url("[::ffff:127.0.0.1]:5000"), "http://[::ffff:7f00:1]:5000/v2/");
        assert_eq!(url("registry.lan:123"), "http://registry.lan:123/v2/");
        assert_eq!(url("10.0.0.1:5000"), "http://10.0.0.1:5000/v2/");
        assert_eq!(url("10.0.0.1:5001"), "https://10.0.0.1:5001/v2/");
        assert_eq!(url("localhost.evil.example"), "https://localhost.evil.example/v2/");
        assert_eq!(url("127.0.0.1.evil.example"), "https://127.0.0.1.evil.example/v2/");
        assert!(url("host:99999").contains("not the name of a registry"));
    }

    #[test]
    fn another_port_is_another_origin() {
        let url = |text| Url::parse(text).unwrap();
        assert!(same_origin(&url("https://a/x"), &url("https://a:443/y")));
        assert!(!same_origin(&url("https://a/x"), &url("https://a:444/x")));
        assert!(!same_origin(&url("https://a/x"), &url("http://a/x")));
        assert!(!same_origin(&url("https://a/x"), &url("https://b/x")));
    }

    #[test]
    fn signed_addresses_are_not_printed() {
        let url = Url::parse("https://user:pass@cdn/blob?signature=secret#x").unwrap();
        assert_eq!(without_secrets(&url), "https://cdn/blob");
    }
}
