//! Maps of ids, from the Spec to what the kernel and newuidmap(1) get: what is accepted names no id that is none, is
//! written as it was meant, and translates each id as the kernel would.
#![no_main]

use creel_fuzz::json;
use creel_runtime::{validate, written_map};
use creel_types::spec::{IdMapping, Linux, Namespace, NamespaceKind, Spec};
use libfuzzer_sys::fuzz_target;

fn triples<'a>(words: impl Iterator<Item = &'a str>) -> Vec<[u32; 3]> {
    let numbers: Vec<u32> = words.map(|word| word.parse().expect("a number")).collect();
    let (triples, rest) = numbers.as_chunks();
    assert!(rest.is_empty(), "{numbers:?}");
    triples.to_vec()
}

// Either JSON, or twelve bytes for each mapping.
fn read(data: &[u8]) -> Option<Vec<IdMapping>> {
    if data.first() == Some(&b'[') {
        return json(data);
    }
    let (words, _) = data.as_chunks::<4>();
    let numbers: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let map = |[container_id, host_id, size]: &[u32; 3]| IdMapping {
        container_id: *container_id,
        host_id: *host_id,
        size: *size,
    };
    Some(numbers.as_chunks::<3>().0.iter().map(map).collect())
}

fuzz_target!(|data: &[u8]| {
    let Some(maps) = read(data) else { return };
    let meant: Vec<[u32; 3]> = maps.iter().map(|map| [map.container_id, map.host_id, map.size]).collect();
    let (lines, arguments) = written_map(77, &maps);
    assert_eq!(lines.lines().count(), maps.len());
    assert_eq!(triples(lines.split_ascii_whitespace()), meant);
    assert_eq!(arguments[0], "77");
    assert_eq!(triples(arguments[1..].iter().map(String::as_str)), meant);

    // As the kernel does: the first mapping that holds the id; ids do not run over.
    for id in
        meant.iter().flat_map(|[first, _, size]| [*first, first.wrapping_add(*size), first.wrapping_sub(1)])
    {
        let holds = |[first, _, size]: &&[u32; 3]| {
            u64::from(id) >= u64::from(*first) && u64::from(id) < u64::from(*first) + u64::from(*size)
        };
        let there = meant.iter().find(holds).map(|[first, host, _]| u64::from(*host) + u64::from(id - first));
        let there = there.and_then(|there| u32::try_from(there).ok());
        assert_eq!(IdMapping::host_id(&maps, id), there, "{id} in {meant:?}");
    }

    let namespaces = [NamespaceKind::User, NamespaceKind::Mount].map(|kind| Namespace { kind, path: None });
    let linux = Linux {
        namespaces: namespaces.to_vec(),
        uid_mappings: maps.clone(),
        gid_mappings: maps,
        ..Linux::default()
    };
    let spec = Spec { oci_version: "1.2.0".into(), linux: Some(linux), ..Spec::default() };
    let fits = |first: &u32, size: &u32| u64::from(*first) + u64::from(*size) <= u64::from(u32::MAX);
    let sound =
        meant.iter().all(|[inside, outside, size]| *size > 0 && fits(inside, size) && fits(outside, size));
    assert_eq!(validate(&spec).is_ok(), sound && !meant.is_empty(), "{meant:?}");
});
