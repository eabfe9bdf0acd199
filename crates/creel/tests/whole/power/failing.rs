//! A disk that cannot write some of what it is given: whoever syncs first is told, and nobody else who came later. The
//! store syncs early while it unpacks; the sync that counts must be told all the same.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use creel_store::{ApplyOptions, Store};
use creel_types::Digest;

use super::disk::{self, BLOCK, Disk, FILE_SYSTEMS};
use super::work::noise;
use crate::support::path;

const MARK: &[u8] = b"this block cannot be written";

/// An archive whose end comes late.
struct Late<'a> {
    archive: &'a [u8],
    at: usize,
    root: &'a Path,
}

impl Read for Late<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.archive[self.at..];
        let most = if rest.len() > 1000 { rest.len() - 1000 } else { rest.len() };
        if rest.len() == 1000 {
            std::thread::sleep(Duration::from_millis(1200));
            // the early sync was told of what could not be written: nobody who comes now is
            rustix::fs::syncfs(fs::File::open(self.root).unwrap()).unwrap();
        }
        let count = most.min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// In a mount namespace of its own.
pub(crate) fn check(dir: &Path) {
    let disk = Disk::mount(&FILE_SYSTEMS[0], dir);
    let root = dir.join("root");
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), [MARK, &vec![0; BLOCK - MARK.len()]].concat().repeat(30)).unwrap();
    fs::write(tree.join("b"), noise(3, 200_000)).unwrap();
    let script = "cd \"$0\" && tar -cf ../layer.tar a b && gzip -k ../layer.tar && sha256sum ../layer.tar";
    let output = Command::new("sh").args(["-c", script, path(&tree)]).output().unwrap();
    let hex = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned();
    let diff_id = Digest::from_hex(&hex).unwrap();
    let archive = fs::read(dir.join("layer.tar.gz")).unwrap();
    let store = Store::open(&root).unwrap();
    let apply = || {
        let late = Late { archive: &archive, at: 0, root: &root };
        store.apply_layer(late, &diff_id, &[], &ApplyOptions::default())
    };
    let count = |directory: &str| fs::read_dir(root.join(directory)).unwrap().count();
    disk.refuse(Some(MARK));
    let error = apply().unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
    assert_eq!((store.view().layers().count(), count("layers"), count("tmp")), (0, 0, 0));
    disk.refuse(None);
    apply().unwrap();
    assert_eq!((store.view().layers().count(), count("layers"), count("tmp")), (1, 1, 0));
    drop(store);
    disk::unmount(&root);
}
