//! The schema and its migrations.
//!
//! ```text
//! creel.db            PRAGMA user_version = number of migrations applied
//! ├── blobs           digest ─ size                             a file in blobs/sha256 that is whole
//! ├── layers          id ─ json: LayerRecord                    a directory in layers/ that is whole
//! ├── images          id ─ json: manifest, layers, parent       id = digest of the configuration, a blob
//! ├── refs            reference ─ image                         `repo:tag` and `repo@digest` in full form
//! ├── snapshots       id ─ image, layers                        containers/<id>/{upper,work}
//! ├── records         (kind, id) ─ name, json                   the engine's; (kind, name) is unique
//! └── quarantine      rowid ─ source, key, name, data, reason   rows that could not be read, for people
//! ```
//! What keeps what alive: refs → images → (configuration, manifest and layer blobs; layers); snapshots → layers;
//! leases (in memory, see `lease`) → blobs, layers.

/// The migrations in order; the database's `user_version` counts those that were applied. Never change one that
/// was released: add another.
pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE blobs (digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE layers (id TEXT NOT NULL PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE images (id TEXT NOT NULL PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE refs (reference TEXT NOT NULL PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE snapshots (id TEXT NOT NULL PRIMARY KEY, image TEXT NOT NULL, layers TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE records (kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT, json BLOB NOT NULL,
                          PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE UNIQUE INDEX records_name ON records (kind, name) WHERE name IS NOT NULL;
    CREATE TABLE quarantine (at TEXT NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL, name TEXT,
                             data BLOB NOT NULL, reason TEXT NOT NULL);
"];

/// The tables whose rows are carried over from a damaged database, with their columns.
pub(crate) const TABLES: &[(&str, &str)] = &[
    ("records", "kind, id, name, json"),
    ("blobs", "digest, size"),
    ("layers", "id, json"),
    ("images", "id, json"),
    ("refs", "reference, image"),
    ("snapshots", "id, image, layers"),
    ("quarantine", "at, source, key, name, data, reason"),
];
