//! Rebuilding a damaged database: it is moved aside, every row that can still be read is carried over, and what
//! lies whole on the disk is taken up again.
//!
//! What cannot come back by this: tags, records and snapshots whose rows are unreadable. The directories of such
//! containers are left in place for people, with a row in `quarantine`.

use std::path::{Path, PathBuf};

use creel_types::image::{ImageConfig, Manifest};
use creel_types::{ContainerId, Digest};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use crate::db::{self, ConnectError, sql};
use crate::error::{Error, Result};
use crate::files;
use crate::images::{CONFIG_LIMIT, ImageRow, LayerRef};
use crate::layers::{LayerId, LayerRecord};
use crate::paths::Paths;
use crate::recover;
use crate::schema::TABLES;
use crate::store::OpenReport;
use crate::view::View;

/// Builds a new database out of the damaged one and the disk.
pub(crate) fn rebuild(paths: &Paths, report: &mut OpenReport, damage: &str) -> Result<(Connection, View)> {
    let aside = move_aside(paths)?;
    tracing::error!(
        "{} is damaged ({damage}); it was moved to {} and is being rebuilt from what can be read",
        paths.db().display(),
        aside.display()
    );
    let connection = db::connect(&paths.db()).map_err(|why| match why {
        ConnectError::Sqlite(why) => db::error(&paths.db(), "create", &why),
        ConnectError::TooNew { found, known } => Error::TooNew { path: paths.db(), found, known },
    })?;
    sql(&connection, "begin to rebuild", |c| c.execute_batch("BEGIN IMMEDIATE"))?;
    let carried = carry_over(&aside, &connection);
    tracing::warn!("{carried} rows were carried over from {}", aside.display());
    adopt_blobs(paths, &connection)?;
    adopt_layers(paths, &connection)?;
    sql(&connection, "end rebuilding", |c| c.execute_batch("COMMIT"))?;
    let view = recover::load(&connection, paths, report)?;
    adopt_images(paths, &connection, &view)?;
    spare_containers(paths, &connection, &view)?;
    let view = recover::load(&connection, paths, report)?;
    report.rebuilt_from = Some(aside);
    Ok((connection, view))
}

fn move_aside(paths: &Paths) -> Result<PathBuf> {
    let from = paths.db();
    let stamp = jiff::Timestamp::now().as_millisecond();
    let to = paths.root().join(format!("creel.db.damaged-{stamp}"));
    let with = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(with(&from, suffix), with(&to, suffix)) {
            Ok(()) => {}
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(Error::io("move the damaged database", &from, why)),
        }
    }
    files::sync_dir(paths.root())?;
    Ok(to)
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
