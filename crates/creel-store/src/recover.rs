//! Opening after anything: reading the rows, putting bad ones aside, sweeping what a killed process left.

use std::collections::HashSet;
use std::path::Path;

use creel_types::image::ImageConfig;
use creel_types::{ContainerId, Digest, Reference};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::db::{self, ConnectError, sql};
use crate::driver::{LayerForm, RootForm};
use crate::error::{Error, Result};
use crate::images::{CONFIG_LIMIT, ImageRow};
use crate::layers::{self, LayerId, LayerRecord};
use crate::paths::Paths;
use crate::records::{self, Record};
use crate::snapshots::{self, Snapshot};
use crate::store::OpenReport;
use crate::view::{Content, View};
use crate::{aside, files, gc, rebuild};

/// Opens the database and reads all rows; a damaged one is rebuilt and moved aside, and so is one that is missing where
/// there is content: an empty one names nothing, and what is not named is swept.
pub(crate) fn open(paths: &Paths, report: &mut OpenReport) -> Result<(Connection, View)> {
    rebuild::finish(paths, report)?;
    let path = paths.db();
    let empty = std::fs::metadata(&path).map_or(true, |meta| meta.len() == 0);
    let damage = if empty && has_content(paths)? {
        "it is missing".to_owned()
    } else {
        match attempt(paths, report)? {
            Ok(opened) => return Ok(opened),
            Err(damage) => damage,
        }
    };
    report.quarantined.clear();
    rebuild::rebuild(paths, report, &damage)?;
    attempt(paths, report)?.map_err(|why| Error::Database { what: "rebuild", path, why, no_space: false })
}

/// Opens the database as it is; the inner error says how it is damaged.
#[allow(clippy::type_complexity)]
fn attempt(
    paths: &Paths,
    report: &mut OpenReport,
) -> Result<std::result::Result<(Connection, View), String>> {
    let path = paths.db();
    match db::connect(&path).and_then(|c| check(&c).map(|()| c).map_err(ConnectError::Sqlite)) {
        Ok(connection) => match load(&connection, paths, report) {
            Ok(view) => Ok(Ok((connection, view))),
            Err(Error::Database { why, .. }) if check(&connection).is_err() => Ok(Err(why)),
            Err(why) => Err(why),
        },
        Err(ConnectError::TooNew { found, known }) => Err(Error::TooNew { path, found, known }),
        Err(ConnectError::Sqlite(why)) if db::is_damaged(&why) => Ok(Err(why.to_string())),
        Err(ConnectError::Sqlite(why)) => Err(db::error(&path, "open", &why)),
    }
}

/// Whether anything lies here that rows would name.
fn has_content(paths: &Paths) -> Result<bool> {
    for directory in [paths.blobs(), paths.layers(), paths.containers()] {
        let error = |why| Error::io("read the directory", &directory, why);
        if std::fs::read_dir(&directory).map_err(error)?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// SQLite's own look at the structure of the file.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let answer: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if answer == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("the database is damaged: {answer}")),
    ))
}

/// Why a row is put aside.
type Bad = String;

fn text(value: &Value) -> Result<&str, Bad> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("a text was expected, not {:?}", other.data_type())),
    }
}

fn bytes(value: &Value) -> Result<&[u8], Bad> {
    match value {
        Value::Text(text) => Ok(text.as_bytes()),
        Value::Blob(bytes) => Ok(bytes),
        other => Err(format!("a document was expected, not {:?}", other.data_type())),
    }
}

fn digest(value: &Value) -> Result<Digest, Bad> {
    text(value)?.parse().map_err(|why| format!("{why}"))
}

/// Reads one table row by row. A row that `read` refuses goes to the quarantine.
fn table(
    connection: &Connection,
    report: &mut OpenReport,
    name: &'static str,
    columns: &str,
    keys: &[&str],
    mut read: impl FnMut(&[Value]) -> Result<(), Bad>,
) -> Result<()> {
    let count = columns.split(',').count();
    let mut bad: Vec<(Vec<Value>, Bad)> = Vec::new();
    sql(connection, "read a table", |c| {
        let mut statement = c.prepare(&format!("SELECT {columns} FROM {name}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut values = Vec::with_capacity(count);
            for column in 0..count {
                // a text that is not UTF-8 must not fail the table
                values.push(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                        Ok(text) => Value::Text(text.to_owned()),
                        Err(_) => Value::Blob(bytes.to_vec()),
                    },
                    other => other.into(),
                });
            }
            if let Err(why) = read(&values) {
                bad.push((values, why));
            }
        }
        Ok(())
    })?;
    for (values, why) in bad {
        let key: Vec<_> = values[..keys.len()].iter().map(show).collect();
        let key = key.join("/");
        report.quarantined.push(format!("{name} {key}: {why}"));
        match put_aside(connection, name, keys, &key, &values, &why) {
            Err(why) if why.is_no_space() => report.quarantined.push(why.to_string()),
            other => other?,
        }
    }
    Ok(())
}

fn put_aside(
    connection: &Connection,
    name: &'static str,
    keys: &[&str],
    key: &str,
    values: &[Value],
    why: &str,
) -> Result<()> {
    let data = values.last().map(show).unwrap_or_default();
    let other = values.get(keys.len()).filter(|_| values.len() > keys.len() + 1).map(show);
    db::quarantine(connection, name, key, other.as_deref(), data.as_bytes(), why)?;
    let places: Vec<_> = keys.iter().map(|key| format!("{key} IS ?")).collect();
    sql(connection, "delete a quarantined row", |c| {
        let statement = format!("DELETE FROM {name} WHERE {}", places.join(" AND "));
        c.execute(&statement, params_from_iter(&values[..keys.len()]))
    })
    .map(|_| ())
}

fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Null => String::new(),
    }
}

/// Reads all tables into a view, in the order in which they depend on each other.
pub(crate) fn load(connection: &Connection, paths: &Paths, report: &mut OpenReport) -> Result<View> {
    let mut view = View::default();
    sql(connection, "begin to read", |c| c.execute_batch("BEGIN IMMEDIATE"))?;
    let read = load_tables(connection, paths, report, &mut view);
    let end = if read.is_ok() { "COMMIT" } else { "ROLLBACK" };
    // a full disk ends the transaction by itself
    let ended = match connection.is_autocommit() {
        true => Ok(()),
        false => sql(connection, "end reading", |c| c.execute_batch(end)),
    };
    match read.and(ended) {
        // what could not be put aside now is put aside the next time; it is not in the view in any case
        Err(why) if why.is_no_space() => {
            report.quarantined.push(why.to_string());
            Ok(view)
        }
        other => other.map(|()| view),
    }
}

fn load_tables(c: &Connection, paths: &Paths, report: &mut OpenReport, view: &mut View) -> Result<()> {
    table(c, report, "blobs", "digest, size", &["digest"], |row| {
        let digest = digest(&row[0])?;
        let Value::Integer(size) = row[1] else { return Err("its size is not a number".to_owned()) };
        let path = paths.blob(&digest);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == size as u64 => {}
            Ok(meta) => {
                let why = format!("{} has {} bytes instead of {size}", path.display(), meta.len());
                // for people; without a row it would be swept
                return Err(match aside::put(paths, &Content::Blob(digest)) {
                    Ok(_) => why,
                    Err(error) => format!("{why}; {error}"),
                });
            }
            Err(why) => return Err(format!("{}: {why}", path.display())),
        }
        view.insert_blob(digest, size as u64);
        Ok(())
    })?;
    table(c, report, "layers", "id, json", &["id"], |row| {
        let id = LayerId::new(digest(&row[0])?);
        let record: LayerRecord = serde_json::from_slice(bytes(&row[1])?).map_err(|why| why.to_string())?;
        if record.id != id {
            return Err(format!("it says that it is {}", record.id));
        }
        layers::is_there(paths, &record)?;
        view.insert_layer(record);
        Ok(())
    })?;
    table(c, report, "images", "id, json", &["id"], |row| {
        let id = digest(&row[0])?;
        let image: ImageRow = serde_json::from_slice(bytes(&row[1])?).map_err(|why| why.to_string())?;
        let config = read_config(paths, view, &id)?;
        let record = image.into_record(id, &config, view).map_err(|why| why.to_string())?;
        view.insert_image(record);
        Ok(())
    })?;
    table(c, report, "refs", "reference, image", &["reference"], |row| {
        let reference: Reference = text(&row[0])?.parse().map_err(|why| format!("{why}"))?;
        let image = digest(&row[1])?;
        if view.image(&image).is_none() {
            return Err(format!("its image {image} is not there"));
        }
        view.set_reference(crate::images::normalize(&reference), image);
        Ok(())
    })?;
    table(c, report, "snapshots", "id, image, layers", &["id"], |row| {
        let id: ContainerId = text(&row[0])?.parse().map_err(|why| format!("{why}"))?;
        let image = digest(&row[1])?;
        let layers = text(&row[2])?
            .split_whitespace()
            .map(|layer| layer.parse().map(LayerId::new).map_err(|why| format!("{why}")))
            .collect::<Result<Vec<_>, Bad>>()?;
        let whole = layers.iter().all(|layer| view.layer(layer).is_some());
        // a copy was whole before its row was written
        let form = if paths.copy(&id).is_dir() { RootForm::Copy } else { RootForm::Overlay };
        let snapshot = Snapshot { id, image, layers, form };
        if !whole {
            // it is made when the image has been pulled again, see `Store::whole_snapshot`
            view.insert_snapshot(snapshot);
            return Ok(());
        }
        // after a power cut the row can be younger than the directories
        let temp = |what: &str| paths.tmp().join(format!("{what}-{}", snapshot.id));
        let made = snapshots::make_init(paths, view, &snapshot, || temp("init"))
            .and_then(|()| snapshots::make_directories(paths, view, &snapshot, || temp("copy")));
        let mounted = |layer: &LayerId| view.layer(layer).is_some_and(|l| l.form == LayerForm::Erofs);
        match made {
            // a kernel that mounts no such layer: the container cannot be started here, and is not lost
            Err(why) if snapshot.layers.iter().any(mounted) => {
                tracing::warn!(container = snapshot.id.short(), "it cannot be used: {why}");
            }
            made => made.map_err(|why| why.to_string())?,
        }
        view.insert_snapshot(snapshot);
        Ok(())
    })?;
    table(c, report, "records", "kind, id, name, json", &["kind", "id"], |row| {
        let (kind, id) = (text(&row[0])?, text(&row[1])?);
        let json = bytes(&row[3])?;
        records::check_json(kind, id, json).map_err(|why| why.to_string())?;
        let name = match &row[2] {
            Value::Null => None,
            name => Some(text(name)?.to_owned()),
        };
        view.insert_record(Record { kind: kind.to_owned(), id: id.to_owned(), name, json: json.into() });
        Ok(())
    })
}

/// Reads an image's configuration from its blob and verifies it.
pub(crate) fn read_config(paths: &Paths, view: &View, id: &Digest) -> Result<Vec<u8>, Bad> {
    match view.blob_size(id) {
        None => return Err(format!("its configuration, blob {id}, is not there")),
        Some(size) if size > CONFIG_LIMIT => return Err(format!("its configuration has {size} bytes")),
        Some(_) => {}
    }
    let path = paths.blob(id);
    let config = std::fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let actual = crate::layers::sha256(&config);
    if actual != *id {
        return Err(format!("{} has the digest {actual}", path.display()));
    }
    serde_json::from_slice::<ImageConfig>(&config)
        .map(|_| config)
        .map_err(|why| format!("its configuration: {why}"))
}

/// Empties `tmp/` and deletes content that no row names: what a killed process had renamed and not yet written
/// a row for, or had deleted the row of. A container's directory whose row is in quarantine stays, for people.
pub(crate) fn sweep(
    paths: &Paths,
    connection: &Connection,
    view: &View,
    report: &mut OpenReport,
) -> Result<()> {
    let spared: HashSet<String> = sql(connection, "read the quarantine", |c| {
        c.prepare("SELECT key FROM quarantine WHERE source = 'snapshots'")?
            .query_map([], |row| row.get(0))?
            .collect()
    })?;
    crate::partial::adopt(paths, &mut report.quarantined);
    sweep_dir(&paths.tmp(), report, |_| true)?;
    crate::partial::sweep_old(paths, &mut report.quarantined);
    sweep_dir(&paths.blobs(), report, |name| {
        Digest::from_hex(name).is_ok_and(|digest| view.blob_size(&digest).is_none())
    })?;
    sweep_dir(&paths.layers(), report, |name| {
        Digest::from_hex(name).is_ok_and(|digest| view.layer(&LayerId::new(digest)).is_none())
    })?;
    let inits = gc::inits_in_use(paths, view);
    sweep_dir(&paths.inits(), report, |name| !inits.contains(&paths.inits().join(name)))?;
    sweep_dir(&paths.containers(), report, |name| {
        !spared.contains(name) && name.parse::<ContainerId>().is_ok_and(|id| view.snapshot(&id).is_none())
    })
}

fn sweep_dir(directory: &Path, report: &mut OpenReport, doomed: impl Fn(&str) -> bool) -> Result<()> {
    let error = |why| Error::io("read the directory", directory, why);
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let entry = entry.map_err(error)?;
        if doomed(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            match files::remove_tree(&path) {
                Ok(()) => report.swept.push(path.to_string_lossy().into_owned()),
                // one immovable file must not keep the engine from starting
                Err(why) => report.quarantined.push(why.to_string()),
            }
        }
    }
    Ok(())
}
