//! What an image is made of: nodes and their names.

use std::collections::BTreeMap;

use crate::fs::Xattrs;
use crate::tar::Timestamp;

/// A node's place in [`Tree::nodes`].
pub(super) type Id = u32;

/// A layer's files, in memory: names and attributes, and where in the archive the contents are.
#[derive(Debug)]
pub struct Tree {
    /// The root is the first.
    pub(super) nodes: Vec<Node>,
}

/// A file, whatever names it has.
#[derive(Debug)]
pub(super) struct Node {
    /// Permission bits, `0o7777` at most.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    /// Sorted by name, each name once. Boxed because few files have any.
    pub(super) xattrs: Option<Box<Xattrs>>,
    /// How many names it has, directories not counted.
    pub(super) links: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Directory {
        parent: Id,
        names: BTreeMap<Box<[u8]>, Id>,
        /// It hides what lower layers have in it.
        opaque: bool,
    },
    File {
        size: u64,
        /// Where its content begins in the archive, in blocks of 512 bytes.
        block: u32,
    },
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    /// Hides a name of lower layers.
    Whiteout,
}

impl Node {
    /// One that is root's and has no time.
    pub(super) fn plain(mode: u16, what: What) -> Self {
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        Self { mode, uid: 0, gid: 0, mtime, xattrs: None, links: 1, what }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.what, What::Directory { .. })
    }
}

impl Tree {
    /// A root and nothing in it.
    pub(super) fn new() -> Self {
        let what = What::Directory { parent: 0, names: BTreeMap::new(), opaque: false };
        Self { nodes: vec![Node::plain(0o755, what)] }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// What a directory has under a name; nothing if it is none.
    pub(super) fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        match &self.node(dir).what {
            What::Directory { names, .. } => names.get(name).copied(),
            _ => None,
        }
    }

    /// Gives a node a name, in place of what had it.
    pub(super) fn name(&mut self, dir: Id, name: &[u8], id: Id) {
        let before = match &mut self.node_mut(dir).what {
            What::Directory { names, .. } => names.insert(name.into(), id),
            _ => None,
        };
        if let Some(before) = before {
            let node = self.node_mut(before);
            node.links = node.links.saturating_sub(1);
        }
    }

    /// Adds a node; `None` if there are too many.
    pub(super) fn add(&mut self, node: Node) -> Option<Id> {
        let id = Id::try_from(self.nodes.len()).ok()?;
        self.nodes.push(node);
        Some(id)
    }
}
