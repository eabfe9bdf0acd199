//! `--cap-add`, `--cap-drop` and `--privileged`.

use creel_wire::host::HostConfig;

use crate::error::{Error, Result};

/// A capability's name with `CAP_` in front, in capitals.
fn normal(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// Fails on a name that no kernel knows.
pub(crate) fn check(names: &[String], field: &str) -> Result<()> {
    for name in names {
        let name = normal(name);
        if name != "ALL" && name != "CAP_ALL" && creel_runtime::caps::number(&name).is_none() {
            return Err(Error::invalid(format!("invalid {field}: unknown capability: \"{name}\"")));
        }
    }
    Ok(())
}

/// The capabilities that a container has, sorted by number.
pub(crate) fn of(host: &HostConfig, all: &[String]) -> Result<Vec<String>> {
    if host.privileged {
        return Ok(all.to_vec());
    }
    let read = |list: &Option<Vec<String>>, field| -> Result<Vec<String>> {
        check(list.as_deref().unwrap_or_default(), field)?;
        Ok(list.iter().flatten().map(|name| normal(name)).collect())
    };
    let (add, drop) = (read(&host.cap_add, "CapAdd")?, read(&host.cap_drop, "CapDrop")?);
    let every = |list: &[String]| list.iter().any(|name| name == "ALL" || name == "CAP_ALL");
    let default = || creel_runtime::caps::DOCKER_DEFAULT.iter().map(|name| (*name).to_owned());
    let base: Vec<String> = match (every(&add), every(&drop)) {
        (true, _) => all.to_vec(),
        (false, true) => Vec::new(),
        (false, false) => default().collect(),
    };
    let mut caps: Vec<String> = base.into_iter().filter(|name| !drop.contains(name)).collect();
    for name in add {
        if name != "ALL" && name != "CAP_ALL" && !caps.contains(&name) {
            caps.push(name);
        }
    }
    caps.sort_by_key(|name| creel_runtime::caps::number(name));
    Ok(caps)
}
