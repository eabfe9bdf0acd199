//! The outer archive, read once from front to end: what is small stays in memory, what is large becomes a blob.
//!
//! Nothing of it ever touches the file system under its own name: links are followed among the names of the
//! archive alone, and pipes and devices are names without content.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use creel_layer::tar::{Kind, Reader};
use creel_store::Store;
use creel_types::Digest;

use crate::error::{Error, Result};
use crate::fetch::sha256;

/// Members up to this size stay in memory, in bytes.
const SMALL: u64 = 64 << 10;
/// As long as all of them together have no more than this, in bytes.
const MEMORY: u64 = 32 << 20;
/// How many members an archive may have.
const MEMBERS: usize = 200_000;
/// How many links may lead from one to the next.
const HOPS: usize = 16;

/// What stands under a name.
#[derive(Debug, Clone)]
enum Member {
    Small(Arc<[u8]>),
    Blob(Digest, u64),
    /// A link to another name of the archive, or nowhere.
    Link(Option<String>),
    /// Something without content, and what it is.
    Other(&'static str),
}

/// Content of the archive.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In memory.
    Small(Arc<[u8]>),
    /// In the store.
    Blob(Digest, u64),
}

impl Content {
    /// Its digest.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Content::Small(bytes) => sha256(bytes),
            Content::Blob(digest, _) => *digest,
        }
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Content::Small(bytes) => bytes.len() as u64,
            Content::Blob(_, size) => *size,
        }
    }

    /// Sees that it is in the store as a blob.
    pub(super) fn store(&self, store: &Arc<Store>) -> Result<()> {
        match self {
            Content::Small(bytes) => {
                store.put_blob(bytes).map(drop).map_err(Error::store("storing a part of the archive"))
            }
            Content::Blob(..) => Ok(()),
        }
    }

    /// All of it, if it has no more than `limit` bytes.
    pub(super) fn read(&self, store: &Store, name: &str, limit: u64) -> Result<Vec<u8>> {
        if self.size() > limit {
            return Err(Error::Archive(format!("`{name}` has {} bytes, more than {limit}", self.size())));
        }
        match self {
            Content::Small(bytes) => Ok(bytes.to_vec()),
            Content::Blob(digest, _) => {
                store.read_blob(digest, limit).map_err(Error::store(format!("reading `{name}`")))
            }
        }
    }
}

/// All members of an archive.
pub(super) struct Outer {
    members: HashMap<String, Member>,
    /// Whether anything went into the store.
    pub(super) stored: bool,
}

impl Outer {
    /// Reads an archive (plain, gzip or zstd) to its end.
    pub(super) fn read(store: &Arc<Store>, tar: impl Read + Send) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| Error::Archive(error.to_string());
        let buffered = BufReader::with_capacity(256 << 10, tar);
        let plain = creel_layer::decompress(buffered).map_err(|error| wrong(&error))?;
        let mut reader = Reader::new(BufReader::with_capacity(256 << 10, plain));
        let mut outer = Self { members: HashMap::new(), stored: false };
        let mut memory = 0;
        while let Some(entry) = reader.next_entry().map_err(|error| wrong(&error))? {
            if outer.members.len() >= MEMBERS {
                return Err(Error::Archive(format!("it has more than {MEMBERS} members")));
            }
            let shown = String::from_utf8_lossy(&entry.name).into_owned();
            // A name that leads out of the archive names nothing that could be asked for.
            let Some(name) = normalize("", &shown) else { continue };
            let member = match &entry.kind {
                Kind::File if entry.sparse.is_some() => Member::Other("a sparse file"),
                Kind::File => {
                    let what = format!("reading `{name}` from the archive");
                    if entry.size <= SMALL && memory + entry.size <= MEMORY {
                        memory += entry.size;
                        let mut bytes = Vec::new();
                        reader.read_to_end(&mut bytes).map_err(|error| Error::io(&what, &error))?;
                        Member::Small(bytes.into())
                    } else {
                        outer.stored = true;
                        let mut writer =
                            store.blob_writer(None, Some(entry.size)).map_err(Error::store(&what))?;
                        io::copy(&mut reader, &mut writer).map_err(|error| Error::io(&what, &error))?;
                        Member::Blob(writer.commit().map_err(Error::store(&what))?, entry.size)
                    }
                }
                Kind::HardLink(target) => Member::Link(normalize("", &String::from_utf8_lossy(target))),
                Kind::Symlink(target) => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = String::from_utf8_lossy(target);
                    Member::Link(if target.starts_with('/') { None } else { normalize(parent, &target) })
                }
                Kind::Directory => continue,
                Kind::Fifo => Member::Other("a named pipe"),
                Kind::CharDevice(..) | Kind::BlockDevice(..) => Member::Other("a device"),
            };
            outer.members.insert(name, member);
        }
        // What follows the end is read too, so that whoever pipes it in is not killed by a broken pipe.
        reader.drain().map_err(|error| wrong(&error))?;
        Ok(outer)
    }

    /// Whether there is a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The content under a name, links followed.
    pub(super) fn get(&self, name: &str) -> Result<Content> {
        let refused = |why: String| Error::Archive(format!("`{name}` {why}"));
        let mut at = normalize("", name).ok_or_else(|| refused("leads out of the archive".to_owned()))?;
        for _ in 0..HOPS {
            match self.members.get(&at) {
                None if at == name => return Err(refused("is not in it".to_owned())),
                None => return Err(refused(format!("is a link to `{at}`, which is not in it"))),
                Some(Member::Small(bytes)) => return Ok(Content::Small(bytes.clone())),
                Some(Member::Blob(digest, size)) => return Ok(Content::Blob(*digest, *size)),
                Some(Member::Link(Some(target))) => at.clone_from(target),
                Some(Member::Link(None)) => return Err(refused("is a link that leads out of it".to_owned())),
                Some(Member::Other(what)) => return Err(refused(format!("is {what}, not a file"))),
            }
        }
        Err(refused("is a link that leads to itself or through too many others".to_owned()))
    }
}

/// A name of the archive in its one form: relative, without `.` and `..`. `None` if it climbs out.
fn normalize(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_form_and_never_climb() {
        let n = |base, name| normalize(base, name);
        assert_eq!(n("", "./a//b/../c"), Some("a/c".to_owned()));
        assert_eq!(n("a/b", "../c"), Some("a/c".to_owned()));
        assert_eq!(n("a", "../../c"), None);
        assert_eq!(n("", ".."), None);
        assert_eq!(n("", "/etc/passwd"), Some("etc/passwd".to_owned()));
        assert_eq!(n("", "./"), None);
    }

    proptest! {
        #[test]
        fn a_normal_name_is_its_own_form(base in "(a(/b)?)?", name in "[ab./]{0,12}") {
            if let Some(form) = normalize(&base, &name) {
                prop_assert!(!form.split('/').any(|part| matches!(part, "" | "." | "..")));
                prop_assert_eq!(normalize("", &form), Some(form));
            }
        }
    }
}
