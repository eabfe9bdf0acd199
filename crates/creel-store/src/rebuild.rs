//! Rebuilding a damaged database: every row that can still be read is carried over into a new one, what lies whole on
//! the disk is taken up again, and the damaged one is moved aside.
//!
//! What cannot come back by this: tags, records and snapshots whose rows are unreadable. The directories of such
//! containers are left in place for people, with a row in `quarantine`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use creel_types::image::{ImageConfig, Manifest};
use creel_types::{ContainerId, Digest};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use crate::db::{self, ConnectError, sql};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::files;
use crate::images::{CONFIG_LIMIT, ImageRow, LayerRef};
use crate::layers::{LayerId, LayerRecord};
use crate::paths::Paths;
use crate::recover;
use crate::schema::TABLES;
use crate::store::OpenReport;
use crate::view::View;

/// Puts a new database, built out of the damaged one and the disk, in its place; the damaged one is moved aside.
///
/// Until the new one is whole the damaged one stays where it is, so that a kill, a power cut or a full disk in the middle
/// costs nothing: what no row names is swept, and a new database without its rows names nothing.
pub(crate) fn rebuild(paths: &Paths, report: &mut OpenReport, damage: &str) -> Result<()> {
    tracing::error!(
        "{} is damaged ({damage}); it is being rebuilt from what can be read",
        paths.db().display()
    );
    remove(&paths.db_unfinished())?;
    if let Err(why) = build(paths) {
        let _ = remove(&paths.db_unfinished());
        return Err(why);
    }
    failpoint("rebuild-before-rename");
    rename(&paths.db_unfinished(), &paths.db_rebuilt())?;
    files::sync_dir(paths.root())?;
    failpoint("rebuild-renamed");
    finish(paths, report)
}

/// Puts a database that was rebuilt in its place, if there is one: an earlier process may have been killed before that.
pub(crate) fn finish(paths: &Paths, report: &mut OpenReport) -> Result<()> {
    let Ok(meta) = std::fs::metadata(paths.db_rebuilt()) else { return Ok(()) };
    // the same name whenever this is done again
    let stamp = i128::from(meta.mtime()) * 1000 + i128::from(meta.mtime_nsec() / 1_000_000);
    let aside = paths.root().join(format!("creel.db.damaged-{stamp}"));
    for suffix in ["-wal", "-shm", "-journal", ""] {
        match std::fs::rename(with(&paths.db(), suffix), with(&aside, suffix)) {
            Ok(()) => {}
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(Error::io("move the damaged database", &paths.db(), why)),
        }
        failpoint("rebuild-moving-aside");
    }
    files::sync_dir(paths.root())?;
    rename(&paths.db_rebuilt(), &paths.db())?;
    files::sync_dir(paths.root())?;
    tracing::warn!("{} was rebuilt; what it was lies in {}", paths.db().display(), aside.display());
    report.rebuilt_from = Some(aside);
    Ok(())
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|why| Error::io("rename the rebuilt database to", to, why))
}

/// Deletes a database with all that SQLite keeps beside it.
fn remove(path: &Path) -> Result<()> {
    ["-wal", "-shm", "-journal", ""].iter().try_for_each(|suffix| files::remove_tree(&with(path, suffix)))
}

/// Builds the new database, whole and durable, under its temporary name.
fn build(paths: &Paths) -> Result<()> {
    let path = paths.db_unfinished();
    let connection = db::connect(&path).map_err(|why| match why {
        ConnectError::Sqlite(why) => db::error(&path, "create", &why),
        ConnectError::TooNew { found, known } => Error::TooNew { path: path.clone(), found, known },
    })?;
    sql(&connection, "begin to rebuild", |c| c.execute_batch("BEGIN IMMEDIATE"))?;
    let carried = carry_over(&paths.db(), &connection);
    tracing::warn!("{carried} rows were carried over from {}", paths.db().display());
    adopt_blobs(paths, &connection)?;
    adopt_layers(paths, &connection)?;
    sql(&connection, "end rebuilding", |c| c.execute_batch("COMMIT"))?;
    // What is bad in it is found again when it is opened in its place.
    let view = recover::load(&connection, paths, &mut OpenReport::default())?;
    adopt_images(paths, &connection, &view)?;
    spare_containers(paths, &connection, &view)?;
    // everything into the one file: a log under the temporary name would be lost
    let busy = sql(&connection, "copy the log into", |c| {
        c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    })?;
    drop(connection);
    if busy != 0 {
        return Err(Error::io("copy the log into", &path, rustix::io::Errno::BUSY));
    }
    let file = std::fs::File::open(&path).and_then(|file| file.sync_all());
    file.map_err(|why| Error::io("sync", &path, why))
}

/// Copies every row that can be read, from both ends of each table; returns how many.
fn carry_over(from: &Path, to: &Connection) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(from, flags) else { return 0 };
    let mut carried = 0;
    for (name, columns) in TABLES {
        for order in ["ASC", "DESC"] {
            carried += copy_table(&old, to, name, columns, order).unwrap_or_else(|(count, why)| {
                tracing::warn!("{}: table {name}: {why}", from.display());
                count
            });
        }
    }
    carried
}

fn copy_table(
    old: &Connection,
    new: &Connection,
    name: &str,
    columns: &str,
    order: &str,
) -> std::result::Result<usize, (usize, rusqlite::Error)> {
    let mut copied = 0;
    let count = columns.split(',').count();
    let first = columns.split(',').next().unwrap_or(columns);
    let marks = vec!["?"; count].join(", ");
    let run = |copied: &mut usize| -> rusqlite::Result<()> {
        if name == "quarantine" && order == "DESC" {
            return Ok(()); // it has no key that would tell a row that was copied
        }
        let by = if name == "quarantine" { String::new() } else { format!("ORDER BY {first} {order}") };
        let mut read = old.prepare(&format!("SELECT {columns} FROM {name} {by}"))?;
        let mut write = new.prepare(&format!("INSERT OR IGNORE INTO {name} ({columns}) VALUES ({marks})"))?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            let values: Vec<Value> =
                (0..count).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
            *copied += write.execute(params_from_iter(values))?;
        }
        Ok(())
    };
    match run(&mut copied) {
        Ok(()) => Ok(copied),
        Err(why) => Err((copied, why)),
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let error = |why| Error::io("read the directory", directory, why);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        names.push(entry.map_err(error)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Takes up blobs whose content is what their name says.
fn adopt_blobs(paths: &Paths, connection: &Connection) -> Result<()> {
    for name in names(&paths.blobs())? {
        let Ok(digest) = Digest::from_hex(&name) else { continue };
        let path = paths.blob(&digest);
        let Ok(file) = std::fs::File::open(&path) else { continue };
        match files::hash_file(file) {
            Ok((actual, size)) if actual == digest => sql(connection, "take up a blob", |c| {
                c.execute(
                    "INSERT OR REPLACE INTO blobs (digest, size) VALUES (?1, ?2)",
                    params![digest.to_string(), size as i64],
                )
            })?,
            _ => continue,
        };
    }
    Ok(())
}

/// Takes up layers by the `layer.json` beside their files: it was synced before the directory got its name.
fn adopt_layers(paths: &Paths, connection: &Connection) -> Result<()> {
    for name in names(&paths.layers())? {
        let Ok(id) = Digest::from_hex(&name).map(LayerId::new) else { continue };
        let Ok(json) = std::fs::read_to_string(paths.layer(&id).join("layer.json")) else { continue };
        if serde_json::from_str::<LayerRecord>(&json).is_ok_and(|record| record.id == id) {
            sql(connection, "take up a layer", |c| {
                c.execute(
                    "INSERT OR IGNORE INTO layers (id, json) VALUES (?1, ?2)",
                    params![id.to_string(), json],
                )
            })?;
        }
    }
    Ok(())
}

/// Makes images again of manifests and configurations whose layers are all there.
fn adopt_images(paths: &Paths, connection: &Connection, view: &View) -> Result<()> {
    let small: Vec<Digest> =
        view.blobs().filter(|(_, size)| *size <= CONFIG_LIMIT).map(|(digest, _)| *digest).collect();
    let documents: Vec<(Digest, Vec<u8>)> = small
        .into_iter()
        .filter_map(|digest| std::fs::read(paths.blob(&digest)).ok().map(|content| (digest, content)))
        .collect();
    for (digest, content) in &documents {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(content) else { continue };
        let blobs = manifest.layers.iter().cloned().map(Some).collect();
        let descriptor = creel_types::image::Descriptor {
            media_type: manifest
                .media_type
                .unwrap_or_else(|| creel_types::image::media_type::OCI_MANIFEST.into()),
            digest: *digest,
            size: content.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        adopt_image(paths, connection, view, manifest.config.digest, blobs, Some(descriptor))?;
    }
    for (digest, content) in &documents {
        if let Ok(config) = serde_json::from_slice::<ImageConfig>(content)
            && !config.os.is_empty()
        {
            let blobs = vec![None; config.rootfs.diff_ids.len()];
            adopt_image(paths, connection, view, *digest, blobs, None)?;
        }
    }
    Ok(())
}

fn adopt_image(
    paths: &Paths,
    connection: &Connection,
    view: &View,
    id: Digest,
    blobs: Vec<Option<creel_types::image::Descriptor>>,
    manifest: Option<creel_types::image::Descriptor>,
) -> Result<()> {
    let Ok(content) = recover::read_config(paths, view, &id) else { return Ok(()) };
    let Ok(config) = serde_json::from_slice::<ImageConfig>(&content) else { return Ok(()) };
    let diff_ids = &config.rootfs.diff_ids;
    if blobs.len() != diff_ids.len() {
        return Ok(());
    }
    let mut layers = Vec::new();
    for (index, (diff_id, blob)) in diff_ids.iter().zip(blobs).enumerate() {
        let Some(layer) = crate::layers::find(view, diff_id, &diff_ids[..index]) else { return Ok(()) };
        let blob = blob.filter(|blob| view.blob_size(&blob.digest).is_some());
        layers.push(LayerRef { diff_id: *diff_id, layer, blob });
    }
    let row = ImageRow { manifest, layers, parent: None, tagged: None };
    let Ok(json) = serde_json::to_string(&row) else { return Ok(()) };
    sql(connection, "take up an image", |c| {
        c.execute("INSERT OR IGNORE INTO images (id, json) VALUES (?1, ?2)", params![id.to_string(), json])
    })
    .map(|_| ())
}

/// Notes the containers' directories that no row names, so that the sweep leaves them alone.
fn spare_containers(paths: &Paths, connection: &Connection, view: &View) -> Result<()> {
    for name in names(&paths.containers())? {
        if name.parse::<ContainerId>().is_ok_and(|id| view.snapshot(&id).is_none()) {
            let reason = "the database was damaged and has no row for this container's directory";
            db::quarantine(connection, "snapshots", &name, None, b"", reason)?;
        }
    }
    Ok(())
}
