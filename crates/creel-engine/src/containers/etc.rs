//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: written at every start. The texts are pure.

use std::path::Path;

use creel_wire::host::HostConfig;

use crate::error::{Error, Result};
use crate::record::ContainerRecord;

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Writes the three files into a container's directory.
pub(super) fn write(record: &ContainerRecord, dir: &Path) -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let host = &record.host_config;
    let base = if host.network_mode == "host" { read("/etc/hosts") } else { LOCALHOST.to_owned() };
    let resolver = resolv_conf(&read("/etc/resolv.conf"), host);
    let name = format!("{}\n", record.config.hostname);
    for (file, text) in [("hosts", hosts(base, host)?), ("hostname", name), ("resolv.conf", resolver)] {
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(|e| Error::io(format_args!("writing {}", path.display()), e))?;
    }
    Ok(())
}

fn hosts(mut text: String, host: &HostConfig) -> Result<String> {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in host.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once(':') else { continue };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address == "host-gateway" {
            return Err(Error::unsupported(format!(
                "--add-host {entry}: without a bridge network there is no gateway to the host"
            )));
        }
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

/// The host's resolver with what was asked for in its place.
fn resolv_conf(hosts_own: &str, host: &HostConfig) -> String {
    let given = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (servers, search, options) = (given(&host.dns), given(&host.dns_search), given(&host.dns_options));
    if servers.is_empty() && search.is_empty() && options.is_empty() {
        return hosts_own.to_owned();
    }
    let mut lines = Vec::new();
    for line in hosts_own.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("nameserver") => !servers.is_empty(),
            Some("search" | "domain") => !search.is_empty(),
            Some("options") => !options.is_empty(),
            _ => false,
        };
        if !replaced {
            lines.push(line.to_owned());
        }
    }
    lines.extend(servers.iter().map(|server| format!("nameserver {server}")));
    if !search.is_empty() && search != ["."] {
        lines.push(format!("search {}", search.join(" ")));
    }
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_replaces_what_the_host_has() {
        let host = HostConfig {
            dns: Some(vec!["9.9.9.9".into()]),
            dns_search: Some(vec!["a.b".into()]),
            extra_hosts: Some(vec!["db:10.0.0.1".into(), "six:[::2]".into()]),
            ..HostConfig::default()
        };
        let text = resolv_conf("nameserver 1.1.1.1\nsearch x\noptions ndots:1\n", &host);
        assert_eq!(text, "options ndots:1\nnameserver 9.9.9.9\nsearch a.b\n");
        assert_eq!(hosts("x".into(), &host).unwrap(), "x\n10.0.0.1\tdb\n::2\tsix\n");
        assert_eq!(resolv_conf("as it is", &HostConfig::default()), "as it is");
    }

    #[test]
    fn wrong_hosts_are_refused() {
        let with =
            |entry: &str| HostConfig { extra_hosts: Some(vec![entry.into()]), ..HostConfig::default() };
        assert!(hosts(String::new(), &with("a:b")).is_err());
        assert!(hosts(String::new(), &with("a:host-gateway")).is_err());
    }
}
