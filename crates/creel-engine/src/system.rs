//! What this engine and this machine are.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_cgroup::Layout;
use creel_store::Driver;
use creel_wire::system::{Component, DiskUsage, Info, Version, VersionPlatform};
use creel_wire::verify::{CreelUsage, Usage};
use creel_wire::{API_VERSION, MIN_API_VERSION};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::containers::list as containers;
use crate::containers::stats::host_memory;
use crate::core::{Core, blocking};
use crate::error::Result;
use crate::filters::Filters;
use crate::options::ListOptions;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers `version`.
pub(crate) fn version() -> Version {
    let uname = rustix::system::uname();
    let arch = creel_types::Platform::host().architecture;
    let kernel = uname.release().to_string_lossy().into_owned();
    Version {
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details: BTreeMap::from([
                ("ApiVersion".to_owned(), API_VERSION.to_owned()),
                ("MinAPIVersion".to_owned(), MIN_API_VERSION.to_owned()),
                ("Arch".to_owned(), arch.clone()),
                ("Os".to_owned(), "linux".to_owned()),
                ("KernelVersion".to_owned(), kernel.clone()),
            ]),
        }],
        platform: VersionPlatform { name: "creel".to_owned() },
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_owned(),
        min_api_version: MIN_API_VERSION.to_owned(),
        git_commit: String::new(),
        go_version: String::new(),
        os: "linux".to_owned(),
        arch,
        kernel_version: kernel,
        build_time: String::new(),
    }
}

/// Answers `info`.
pub(crate) fn info(core: &Core) -> Info {
    let uname = rustix::system::uname();
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for container in core.containers.all() {
        match container.running() {
            Some(life) if life.paused => paused += 1,
            Some(_) => running += 1,
            None => stopped += 1,
        }
    }
    let hierarchies = &core.hierarchies;
    let has = |controller: &str| {
        hierarchies.v1_with(controller).is_some() || hierarchies.unified_with(controller).is_some()
    };
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Info {
        id: installation(core),
        containers: running + paused + stopped,
        containers_running: running,
        containers_paused: paused,
        containers_stopped: stopped,
        images: i64::try_from(core.store.list_images().len()).unwrap_or(0),
        driver: core.store.driver().docker_name().to_owned(),
        driver_status: driver_status(core),
        memory_limit: has("memory"),
        swap_limit: has("memory"),
        cpu_cfs_period: has("cpu"),
        cpu_cfs_quota: has("cpu"),
        cpu_shares: has("cpu"),
        cpu_set: has("cpuset"),
        pids_limit: has("pids"),
        ipv4_forwarding: text("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        debug: false,
        system_time: Timestamp::now().to_string(),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if hierarchies.layout() == Layout::V2 { "2" } else { "1" }.to_owned(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        operating_system: os_name(&text("/etc/os-release")),
        os_type: "linux".to_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        ncpu: crate::containers::create::online_cpus().unwrap_or(1),
        mem_total: i64::try_from(host_memory()).unwrap_or(i64::MAX),
        docker_root_dir: core.store.paths().root().display().to_string(),
        name: uname.nodename().to_string_lossy().into_owned(),
        server_version: VERSION.to_owned(),
        runtimes: BTreeMap::from([("creel".to_owned(), serde_json::json!({"path": core.config.executable}))]),
        default_runtime: "creel".to_owned(),
        live_restore_enabled: true,
        init_binary: "creel".to_owned(),
        security_options: vec!["name=seccomp,profile=builtin".to_owned(), "name=cgroupns".to_owned()],
        registry_config: registry_config(&core.config.registries),
        plugins: BTreeMap::from([
            ("Volume".to_owned(), Some(volume_drivers(core))),
            ("Network".to_owned(), Some(vec!["host".to_owned(), "null".to_owned()])),
            ("Log".to_owned(), Some(vec!["json-file".to_owned(), "none".to_owned()])),
            ("Authorization".to_owned(), None),
        ]),
        warnings: Vec::new(),
    }
}

/// Our own driver, and whatever plugins there are: what each of them is, they are not asked here.
fn volume_drivers(core: &Core) -> Vec<String> {
    let mut names = vec!["local".to_owned()];
    names.extend(core.plugins.names());
    names
}

/// What is to be known of the store, as pairs.
fn driver_status(core: &Core) -> Vec<[String; 2]> {
    let mut pairs = Vec::new();
    if core.store.driver() != Driver::Copy {
        pairs.push(["Supports d_type".to_owned(), "true".to_owned()]);
    }
    let partials = core.store.partials();
    if partials.count > 0 {
        let text = format!("{} ({} bytes)", partials.count, partials.bytes);
        pairs.push(["Partial Downloads".to_owned(), text]);
    }
    let quarantined = core.store.quarantined();
    if quarantined > 0 {
        pairs.push(["Quarantined".to_owned(), quarantined.to_string()]);
    }
    pairs
}

/// Docker's document on registries: what is insecure besides the loopback addresses, and who mirrors whom.
fn registry_config(config: &creel_distribution::RegistryConfig) -> Value {
    const HUB: &str = "docker.io";
    let is_network = |name: &&String| name.contains('/');
    let networks: Vec<&str> = ["::1/128", "127.0.0.0/8"]
        .into_iter()
        .chain(config.insecure.iter().filter(is_network).map(String::as_str))
        .collect();
    let mut names: Vec<&str> = vec![HUB];
    names.extend(config.insecure.iter().filter(|name| !is_network(name)).map(String::as_str));
    names.extend(config.mirrors.iter().map(|mirror| mirror.registry()));
    names.sort_unstable();
    names.dedup();
    let mirrors = |name: &str| -> Vec<&str> {
        config.mirrors.iter().filter(|m| m.registry() == name).map(|m| m.address()).collect()
    };
    let indexes: serde_json::Map<String, Value> = names
        .into_iter()
        .map(|name| {
            let secure = !config.insecure.iter().any(|insecure| insecure == name);
            let index =
                json!({"Name": name, "Mirrors": mirrors(name), "Secure": secure, "Official": name == HUB});
            (name.to_owned(), index)
        })
        .collect();
    json!({"InsecureRegistryCIDRs": networks, "IndexConfigs": indexes, "Mirrors": mirrors(HUB)})
}

/// An id that stays with the root directory: from the machine's own id and the path.
fn installation(core: &Core) -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in machine.trim().bytes().chain(core.store.paths().root().display().to_string().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn os_name(release: &str) -> String {
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Answers `system df`.
pub(crate) async fn disk_usage(core: &Arc<Core>) -> Result<DiskUsage> {
    let containers =
        containers::list(core, ListOptions { all: true, size: true, ..ListOptions::default() }).await?;
    let images = crate::images::list::list(core, &Filters::default(), true, true)?;
    let (this, used) = (core.clone(), crate::images::list::containers(core).into_keys().collect());
    let found = blocking(move || Ok(this.store.disk_use(&used))).await?;
    let usage = |of: creel_store::Use| Usage {
        count: of.count,
        active: of.active,
        size: of.bytes,
        reclaimable: of.reclaimable,
    };
    Ok(DiskUsage {
        layers_size: i64::try_from(found.layers.bytes).unwrap_or(i64::MAX),
        images,
        containers,
        volumes: crate::volumes::manage::usage(core).await,
        build_cache: Vec::new(),
        creel: Some(CreelUsage {
            layers_reclaimable: found.layers.reclaimable,
            blobs: usage(found.blobs),
            partials: usage(found.partials),
            quarantine: usage(found.quarantine),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_name_is_found() {
        assert_eq!(os_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_name(""), "Linux");
        let config = creel_distribution::RegistryConfig {
            insecure: vec!["10.0.0.0/8".into(), "plain:5000".into()],
            mirrors: vec!["https://m.example".parse().unwrap(), "quay.io=http://q.example".parse().unwrap()],
            ..Default::default()
        };
        let shown = registry_config(&config);
        assert_eq!(shown["InsecureRegistryCIDRs"], json!(["::1/128", "127.0.0.0/8", "10.0.0.0/8"]));
        assert_eq!(shown["Mirrors"], json!(["https://m.example/"]));
        assert_eq!(shown["IndexConfigs"]["quay.io"]["Mirrors"], json!(["http://q.example/"]));
        assert_eq!(shown["IndexConfigs"]["plain:5000"]["Secure"], json!(false));
        assert_eq!(shown["IndexConfigs"]["docker.io"]["Official"], json!(true));
        assert_eq!(version().api_version, API_VERSION);
    }
}
