//! The embedded image: creel's own executable and a few files, made on demand without any network.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use creel_layer::HashingWriter;
use creel_layer::tar::{Entry, Kind, Writer};
use creel_store::{ApplyOptions, ImageRecord, LayerRef, NewImage, Store};
use creel_types::image::{ExecConfig, History, ImageConfig, RootFs};
use creel_types::{Digest, Platform, Reference};
use creel_wire::image::ProgressMessage;
use jiff::Timestamp;
use tokio::sync::mpsc::Sender;

use super::streams::status;
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::merge::DEFAULT_PATH;

/// The image's name.
const NAME: &str = "docker.io/library/hello:latest";
/// The label that says which executable is in it, so that it is made again only after an upgrade.
const FINGERPRINT: &str = "creel.executable";

const PASSWD: &str = "root:x:0:0:root:/root:/creel\nnobody:x:65534:65534:nobody:/:/creel\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const README: &str = "This image was not pulled: the creel binary carries it. Its only program is creel itself,\n\
    which shows from inside what a container is. Try `creel run hello`.\n";

/// Whether the embedded image is meant.
pub(crate) fn is(reference: &Reference) -> bool {
    reference.clone().with_default_tag().to_string() == NAME
}

/// Makes the image, unless it is here already with this very executable.
pub(crate) async fn provide(
    core: &Arc<Core>,
    platform: Option<&Platform>,
    out: &Sender<ProgressMessage>,
) -> Result<()> {
    let host = Platform::host();
    if let Some(wanted) = platform.filter(|wanted| !wanted.accepts(&host)) {
        return Err(Error::not_found(format!(
            "the embedded image hello is for {host} alone, not for {wanted}"
        )));
    }
    let reference: Reference = NAME.parse().map_err(|e| Error::internal(format!("{e}")))?;
    let familiar = reference.familiar();
    let _ = out.send(status("latest: Taking the image that creel carries")).await;
    let (store, executable) = (core.store.clone(), core.config.executable.clone());
    let fresh = blocking(move || make(&store, &executable, reference)).await?;
    let news = if fresh { "Made" } else { "Image is up to date for" };
    let _ = out.send(status(format!("Status: {news} {familiar}"))).await;
    Ok(())
}

fn make(store: &Arc<Store>, executable: &Path, reference: Reference) -> Result<bool> {
    let failed = |e: io::Error| Error::io(format_args!("reading {}", executable.display()), e);
    // By descriptor: the path may name another file after an upgrade.
    let open = || File::open("/proc/self/exe").or_else(|_| File::open(executable));
    let file = open().map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let size = meta.size();
    let fingerprint = format!("{} bytes of {}.{:09}", meta.size(), meta.mtime(), meta.mtime_nsec());
    let has = |image: &ImageRecord| {
        let labels = image.config.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.and_then(|labels| labels.get(FINGERPRINT)) == Some(&fingerprint)
    };
    if store.reference(&reference).and_then(|id| store.image(&id)).is_some_and(|image| has(&image)) {
        return Ok(false);
    }
    let _lease = store.lease();
    let diff_id = digest(file, size)?;
    let layer = match store.find_layer(&diff_id, &[]) {
        Some(layer) => layer,
        None => {
            let (reader, writer) = io::pipe().map_err(|e| Error::io("making a pipe", e))?;
            let file = open().map_err(failed)?;
            std::thread::scope(|scope| {
                let writing = scope.spawn(move || archive(file, size, BufWriter::new(writer)));
                let applied = store.apply_layer(reader, &diff_id, &[], &ApplyOptions::default());
                let written =
                    writing.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread failed")));
                // Who stopped reading says why better than who could not write on.
                let layer = applied?;
                written.map_err(|e| Error::io("writing the embedded image", e))?;
                Ok::<_, Error>(layer)
            })?
        }
    };
    let created = Timestamp::new(meta.mtime(), 0).unwrap_or_default();
    let json = serde_json::to_vec(&config(diff_id, created, fingerprint))
        .map_err(|e| Error::internal(format!("writing an image's configuration: {e}")))?;
    let config = store.put_blob(&json)?;
    store.put_image(NewImage {
        config,
        manifest: None,
        layers: vec![LayerRef { diff_id, layer, blob: None }],
        parent: None,
        references: vec![reference],
    })?;
    Ok(true)
}

fn config(diff_id: Digest, created: Timestamp, fingerprint: String) -> ImageConfig {
    let host = Platform::host();
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    ImageConfig {
        created: Some(created),
        architecture: host.architecture,
        variant: host.variant,
        os: host.os,
        config: Some(ExecConfig {
            env: Some(vec![format!("PATH={DEFAULT_PATH}")]),
            entrypoint: Some(vec!["/creel".to_owned(), "hello-from-inside".to_owned()]),
            working_dir: "/".to_owned(),
            labels: Some(
                [
                    label("org.opencontainers.image.title", "hello"),
                    label("org.opencontainers.image.description", "shows from inside what a container is"),
                    label(FINGERPRINT, &fingerprint),
                ]
                .into(),
            ),
            ..ExecConfig::default()
        }),
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        history: vec![History {
            created: Some(created),
            created_by: Some("creel: its own executable and a few files".to_owned()),
            ..History::default()
        }],
        ..ImageConfig::default()
    }
}

fn digest(file: File, size: u64) -> Result<Digest> {
    let mut hashing = HashingWriter::new(io::sink());
    archive(file, size, &mut hashing).map_err(|e| Error::io("reading creel's own executable", e))?;
    Ok(hashing.finish().1)
}

/// The layer's archive. Its times are all zero: one executable always gives one layer.
fn archive(mut executable: File, size: u64, out: impl Write) -> io::Result<()> {
    let mut writer = Writer::new(out);
    for (name, mode) in [
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
    ] {
        writer.entry(&Entry { mode, ..Entry::new(name, Kind::Directory) })?;
    }
    for (name, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP), ("README", README)] {
        writer.entry(&Entry { size: text.len() as u64, ..Entry::new(name, Kind::File) })?;
        writer.write_all(text.as_bytes())?;
    }
    writer.entry(&Entry { size, mode: 0o755, ..Entry::new("creel", Kind::File) })?;
    let copied = io::copy(&mut io::Read::take(&mut executable, size), &mut writer)?;
    if copied != size {
        return Err(io::Error::other("the executable changed while it was read"));
    }
    writer.finish()?.0.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_executable_gives_one_layer_with_everything_in_it() {
        let file = || {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"program").unwrap();
            io::Seek::rewind(&mut file).unwrap();
            file
        };
        assert_eq!(digest(file(), 7).unwrap(), digest(file(), 7).unwrap());
        let mut tar = Vec::new();
        archive(file(), 7, &mut tar).unwrap();
        let mut reader = creel_layer::tar::Reader::new(&tar[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.name).unwrap());
        }
        assert_eq!(
            names,
            ["dev/", "etc/", "proc/", "root/", "sys/", "tmp/", "etc/passwd", "etc/group", "README", "creel"]
        );
        assert!(archive(file(), 8, io::sink()).is_err());
    }

    #[test]
    fn only_its_own_name_means_it() {
        let is = |text: &str| is(&text.parse().unwrap());
        assert!(is("hello") && is("hello:latest") && is("docker.io/library/hello"));
        assert!(!is("hello:1") && !is("user/hello") && !is("localhost/hello"));
    }
}
