//! What a container may ask of systemd: place, annotations and limits. What is accepted names one group below the
//! slices, and nothing else.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use creel_cgroup::Hierarchies;
use creel_cgroup::systemd::{Request, validate};
use creel_fuzz::{hosts, is_plain};
use creel_types::spec::Resources;
use libfuzzer_sys::fuzz_target;

static HOSTS: LazyLock<[Hierarchies; 2]> = LazyLock::new(hosts);

// The place, the id, a property's name, its value and resources with a NUL between them.
fuzz_target!(|text: &str| {
    let mut texts = text.splitn(5, '\0');
    let mut next = || texts.next().unwrap_or("");
    let (place, id, name, value, resources) = (next(), next(), next(), next(), next());
    let annotations = BTreeMap::from([(format!("org.systemd.property.{name}"), value.to_owned())]);
    let none = BTreeMap::new();
    let resources = serde_json::from_str::<Resources>(resources).unwrap_or_default();
    for host in HOSTS.iter() {
        for rootless in [false, true] {
            let annotations = if name.is_empty() { &none } else { &annotations };
            let request =
                Request { cgroups_path: Some(place), id, annotations, resources: &resources, rootless };
            let Ok(path) = validate(host, &request) else { continue };
            assert!(is_plain(Path::new(&path)) && !path.contains(['\n', ' ']), "{path:?}");
            let (slices, unit) = path.rsplit_once('/').expect("an absolute path");
            assert!(unit.ends_with(".scope") || unit.ends_with(".slice"), "{path:?}");
            assert!(slices.split('/').skip(1).all(|slice| slice.ends_with(".slice")), "{path:?}");
        }
    }
});
