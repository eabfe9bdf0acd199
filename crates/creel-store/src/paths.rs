//! Where everything lies below the root directory. Pure: nothing here touches the disk.
//!
//! ```text
//! <root>/
//! ├── lock                       flock'ed by the one daemon; holds its pid
//! ├── creel.db (-wal)            the rows (see `db`)
//! ├── creel.db.damaged-<time>    what it was before it had to be rebuilt (see `rebuild`), for people
//! ├── blobs/sha256/<hex>         content as it came over the wire, named by its digest
//! ├── partial/<hex>              the beginning of a blob whose download was interrupted
//! ├── layers/<hex>/fs            an unpacked layer (hex of its diffID, or of its chainID when composed)
//! ├── layers/<hex>/layer.erofs   instead of `fs`: an image that points into `layer.tar`, the archive uncompressed
//! ├── layers/<hex>/layer.json    what its row says, so that rows can be rebuilt
//! ├── inits/<hex>                an init layer: mount points over one stack of layers (hex of the stack's digest)
//! ├── containers/<id>/upper      a container's writable layer
//! ├── containers/<id>/work       overlay's work directory
//! ├── containers/<id>/copy       instead of the two: a copy of the layers, `fs`, and `made`, which says since when
//! ├── volumes/<name>/_data       a volume's data; volume.json beside it says what it is
//! ├── quarantine/<time>-<what>   damaged content that was put aside, for people; never read, never deleted
//! └── tmp/                       everything unfinished; emptied at open
//! ```

use std::path::{Path, PathBuf};

use creel_types::{ContainerId, Digest};

use crate::driver::LayerForm;
use crate::layers::{LayerId, sha256};
use crate::view::View;

/// The directories and files of one store.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The paths below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock file.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The database file.
    pub fn db(&self) -> PathBuf {
        self.root.join("creel.db")
    }

    /// A database that is being built anew in place of a damaged one.
    pub(crate) fn db_unfinished(&self) -> PathBuf {
        self.root.join("creel.db.new")
    }

    /// The same when it is whole: from then on it is the database, wherever else one lies.
    pub(crate) fn db_rebuilt(&self) -> PathBuf {
        self.root.join("creel.db.rebuilt")
    }

    /// The directory of all blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// One blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// The directory of all blobs of which a part has come.
    pub fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// What has come of one blob.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.hex())
    }

    /// The directory of all layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// One layer's directory.
    pub fn layer(&self, layer: &LayerId) -> PathBuf {
        self.layers().join(layer.hex())
    }

    /// One layer's files, if it is kept as a directory: a lower directory for overlay.
    pub fn layer_fs(&self, layer: &LayerId) -> PathBuf {
        self.layer(layer).join("fs")
    }

    /// What is to be mounted or opened of a layer that is kept in this form.
    pub(crate) fn layer_as(&self, layer: &LayerId, form: LayerForm) -> PathBuf {
        match form {
            LayerForm::Directory | LayerForm::Plain => self.layer_fs(layer),
            LayerForm::Erofs => self.layer(layer).join("layer.erofs"),
        }
    }

    /// The same by the layer's record; of one that is missing the directory.
    pub(crate) fn layer_lower(&self, layer: &LayerId, view: &View) -> PathBuf {
        self.layer_as(layer, view.layer(layer).map(|record| record.form).unwrap_or_default())
    }

    /// The directory of all containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container's directory.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// Where a container's copy of the layers is, if its root is one.
    pub(crate) fn copy(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("copy")
    }

    /// The directory of all volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// One volume's directory.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// The directory of all init layers.
    pub fn inits(&self) -> PathBuf {
        self.root.join("inits")
    }

    /// The init layer over a stack of layers (the lowest first): it depends on nothing else, so all containers of an
    /// image share one.
    pub fn init(&self, layers: &[LayerId]) -> PathBuf {
        let stack: Vec<String> = layers.iter().map(ToString::to_string).collect();
        self.inits().join(sha256(stack.join(" ").as_bytes()).hex())
    }

    /// The directory of damaged content that was put aside.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The directory for everything unfinished.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
