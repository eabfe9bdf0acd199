//! Where a registry is: names to addresses, and who may be spoken to without TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::error::{Error, Result};

/// Docker Hub's name in references and the host that really answers.
const HUB: (&str, &str) = (HUB_NAME, "registry-1.docker.io");
/// Docker Hub's name in references.
pub(crate) const HUB_NAME: &str = "docker.io";

/// The registries that may be reached over plain HTTP besides the loopback ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain(Vec<String>);

impl Plain {
    /// From names as a user lists them: `host`, `host:port`, or a network of addresses, `10.0.0.0/8`.
    pub(crate) fn new(insecure: &[String]) -> Self {
        Self(insecure.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether this URL's host may be reached over plain HTTP.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        url.host().is_some_and(|host| is_loopback(&host)) || self.lists(url)
    }

    /// Whether the user listed this URL's host.
    pub(crate) fn lists(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let name = host.to_string().to_ascii_lowercase();
        let with_port = url.port_or_known_default().map(|port| format!("{name}:{port}"));
        let address = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)),
            Host::Domain(_) => None,
        };
        self.0.iter().any(|listed| {
            *listed == name
                || Some(listed) == with_port.as_ref()
                || address.is_some_and(|address| network_holds(listed, address))
        })
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

/// Whether a network such as `10.0.0.0/8` or `fd00::/8` holds an address; text that is no network holds none.
fn network_holds(network: &str, address: IpAddr) -> bool {
    let Some((start, length)) = network.split_once('/') else { return false };
    let Ok(length) = length.parse::<u32>() else { return false };
    match (start.parse::<IpAddr>(), address) {
        (Ok(IpAddr::V4(start)), IpAddr::V4(address)) if length <= Ipv4Addr::BITS => {
            let differing = start.to_bits() ^ address.to_bits();
            differing.checked_shr(Ipv4Addr::BITS - length).unwrap_or(0) == 0
        }
        (Ok(IpAddr::V6(start)), IpAddr::V6(address)) if length <= Ipv6Addr::BITS => {
            let differing = start.to_bits() ^ address.to_bits();
            differing.checked_shr(Ipv6Addr::BITS - length).unwrap_or(0) == 0
        }
        _ => false,
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

/// The two addresses that a registry's API may have: `https://host/v2/` and, if that may be, `http://host/v2/`.
pub(crate) fn base_urls(registry: &str, plain: &Plain) -> Result<(Url, Option<Url>)> {
    let host = if registry == HUB.0 { HUB.1 } else { registry };
    let wrong =
        |reason: String| Error::Reference(format!("`{registry}` is not the name of a registry: {reason}"));
    if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._:[]".contains(c)) {
        return Err(wrong("it is a host, with a port if need be".to_owned()));
    }
    let parse = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| wrong(error.to_string()))
    };
    let http = parse("http")?;
    Ok((parse("https")?, plain.allows(&http).then_some(http)))
}

/// The name of a registry as references have it, from what people log in to: Docker Hub's address of old, a host
/// with or without `https://` and a path.
pub(crate) fn registry_of(address: &str) -> &str {
    let address = address.trim();
    let host =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => HUB.0,
        host => host,
    }
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
        let url = |registry| match base_urls(registry, &plain) {
            Ok((https, http)) => http.unwrap_or(https).to_string(),
            Err(error) => error.to_string(),
        };
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
        assert!(url("user@host").contains("not the name of a registry"));
        assert!(url("").contains("not the name of a registry"));
    }

    #[test]
    fn networks_are_listed_too() {
        let plain = Plain::new(&["10.0.0.0/8".to_owned(), "FD00::/8".to_owned(), "192.0.2.0/33".to_owned()]);
        let lists = |host: &str| plain.lists(&Url::parse(&format!("https://{host}/")).unwrap());
        assert!(lists("10.255.1.2:5000") && lists("[fd12::1]") && lists("[::ffff:10.1.1.1]"));
        assert!(!lists("11.0.0.1") && !lists("[fe80::1]") && !lists("192.0.2.1") && !lists("10.example"));
        assert!(Plain::new(&["0.0.0.0/0".to_owned()]).lists(&Url::parse("https://203.0.113.1").unwrap()));
    }

    #[test]
    fn what_people_log_in_to_names_a_registry() {
        for hub in ["", "https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
            assert_eq!(registry_of(hub), "docker.io");
        }
        assert_eq!(registry_of("https://quay.io/v2/"), "quay.io");
        assert_eq!(registry_of("localhost:5000"), "localhost:5000");
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
