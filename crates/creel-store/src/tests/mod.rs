//! Tests with a real store in a temporary directory.

mod crash;
mod damage;
mod deletion;
mod parallel;
mod resolve;
mod space;
mod storing;
mod usage;
mod verify;

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use creel_types::image::{Descriptor, ImageConfig, Manifest, RootFs, media_type};
use creel_types::{ContainerId, Digest, Reference};

use crate::layers::sha256;
use crate::*;

/// Kills this process when it comes to the step that the environment names: `CREEL_STORE_KILL_AT=step` or
/// `step:3` for the third time.
pub(crate) fn failpoint(step: &str) {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static SEEN: Mutex<u32> = Mutex::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("CREEL_STORE_KILL_AT").ok()?;
        Some(match text.split_once(':') {
            Some((step, times)) => (step.to_owned(), times.parse().unwrap()),
            None => (text, 1),
        })
    });
    if let Some((wanted, times)) = wanted
        && wanted == step
    {
        let mut seen = SEEN.lock().unwrap();
        *seen += 1;
        if *seen == *times {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::park();
        }
    }
}

/// Whether a test that needs root can run; where it must (`CREEL_TEST_ROOT`), it fails instead of skipping.
pub(crate) fn is_root(why: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("CREEL_TEST_ROOT").is_none(),
            "CREEL_TEST_ROOT is set: root is needed {why}"
        );
        println!("skipped: needs root {why}");
    }
    root
}

pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("creel-store-").tempdir_in("/var/tmp").unwrap()
}

/// A ustar archive of regular files, and of directories of mode 0711 for names that end in a slash.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        // owned by whoever runs the tests, so that they need not be root to unpack it
        let owner = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
        header[108..116].copy_from_slice(format!("{:07o}\0", owner[0]).as_bytes());
        header[116..124].copy_from_slice(format!("{:07o}\0", owner[1]).as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        if name.ends_with('/') {
            header[100..108].copy_from_slice(b"0000711\0");
            header[156] = b'5';
        }
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: sha256(content),
        size: content.len() as u64,
        platform: None,
        annotations: Default::default(),
    }
}

/// Content that does not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// What a pull does with the store, one step after the other.
pub(crate) fn pull(
    store: &Arc<Store>,
    layers: &[Vec<u8>],
    references: &[Reference],
) -> Result<Arc<ImageRecord>> {
    let _lease = store.lease();
    let mut refs: Vec<LayerRef> = Vec::new();
    for tar in layers {
        let diff_id = sha256(tar);
        let archive = gzip(tar);
        let blob = descriptor(media_type::OCI_LAYER_GZIP, &archive);
        let below: Vec<LayerId> = refs.iter().map(|layer| layer.layer).collect();
        let options = ApplyOptions { keep_blob: Some(blob.clone()), ..Default::default() };
        let layer = store.apply_layer(&archive[..], &diff_id, &below, &options)?;
        refs.push(LayerRef { diff_id, layer, blob: Some(blob) });
    }
    let config = serde_json::to_vec(&ImageConfig {
        os: "linux".into(),
        architecture: "amd64".into(),
        rootfs: RootFs { diff_ids: refs.iter().map(|layer| layer.diff_id).collect(), ..Default::default() },
        ..Default::default()
    })
    .unwrap();
    let config_digest = store.put_blob(&config)?;
    let manifest = serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.into()),
        config: descriptor(media_type::OCI_CONFIG, &config),
        layers: refs.iter().filter_map(|layer| layer.blob.clone()).collect(),
        annotations: Default::default(),
    })
    .unwrap();
    store.put_blob(&manifest)?;
    store.put_image(NewImage {
        config: config_digest,
        manifest: Some(descriptor(media_type::OCI_MANIFEST, &manifest)),
        layers: refs,
        parent: None,
        references: references.to_vec(),
    })
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(crate) fn container(number: u64) -> ContainerId {
    ContainerId::from_random(*sha256(&number.to_le_bytes()).as_bytes())
}

/// All files below a directory with their contents.
pub(crate) fn tree(directory: &Path) -> HashMap<String, Vec<u8>> {
    fn walk(at: &Path, prefix: &str, found: &mut HashMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = HashMap::new();
    walk(directory, "", &mut found);
    found
}

/// [`tree`] of a layer, in whatever form it is kept.
pub(crate) fn layer_tree(store: &Store, layer: &LayerId) -> HashMap<String, Vec<u8>> {
    let dir = creel_layer::open_layer(&store.layer_dir(layer)).unwrap();
    tree(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())))
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Holds the rows against the disk, both ways: what is named is whole, what is not named is not there.
pub(crate) fn assert_whole(store: &Arc<Store>) {
    let report = store.verify(&VerifyOptions::default(), &mut |_| true).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let view = store.view();
    let paths = store.paths();
    let mut blobs: Vec<_> = view.blobs().map(|(digest, _)| digest.hex()).collect();
    blobs.sort();
    assert_eq!(names(&paths.blobs()), blobs);
    let mut layers: Vec<_> = view.layers().map(|layer| layer.id.hex()).collect();
    layers.sort();
    assert_eq!(names(&paths.layers()), layers);
    let mut containers: Vec<_> = view.snapshots().map(|snapshot| snapshot.id.to_string()).collect();
    containers.sort();
    assert_eq!(names(&paths.containers()), containers);
    assert_eq!(names(&paths.tmp()), Vec::<String>::new());
    for image in view.images() {
        for layer in &image.layers {
            assert!(view.layer(&layer.layer).is_some(), "{} lacks a layer", image.id);
            let blob = layer.blob.as_ref().unwrap().digest;
            assert!(view.blob_size(&blob).is_some(), "{} lacks a blob", image.id);
            // the unpacked files are those of the archive
            let mut plain = Vec::new();
            let archive = std::io::BufReader::new(store.open_blob(&blob).unwrap());
            std::io::Read::read_to_end(&mut creel_layer::decompress(archive).unwrap(), &mut plain).unwrap();
            assert_eq!(sha256(&plain), layer.diff_id);
            for (name, content) in layer_tree(store, &layer.layer) {
                let text = [name.as_bytes(), b"\0"].concat();
                assert!(plain.windows(text.len()).any(|w| w == text), "{name} is not in the archive");
                assert!(content.is_empty() || plain.windows(content.len()).any(|w| w == content), "{name}");
            }
        }
        for reference in image.references.iter().chain(&image.repo_digests) {
            assert_eq!(view.reference(reference), Some(image.id));
        }
    }
    for (reference, image) in view.references() {
        assert!(view.image(image).is_some(), "{reference} points to nothing");
    }
    for snapshot in view.snapshots() {
        let overlay = store.snapshot(&snapshot.id).unwrap();
        let work = (overlay.form == RootForm::Overlay).then_some(&overlay.work);
        for directory in overlay.lower.iter().chain([&overlay.upper]).chain(work) {
            let image = creel_sys::erofs::is_image(directory);
            assert!(directory.is_dir() != image && directory.exists(), "{} is missing", directory.display());
        }
        if overlay.form == RootForm::Copy {
            // whole: nothing differs from the layers
            assert_eq!(overlay.changes().unwrap(), vec![]);
        }
    }
}

pub(crate) fn no_digest() -> Digest {
    Digest::from_sha256([0xee; 32])
}
