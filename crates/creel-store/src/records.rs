//! Records: the engine's own JSON documents by (kind, id), some with a name that is unique within the kind.

use std::sync::Arc;

use rusqlite::{Connection, params};
use serde::de::IgnoredAny;

use crate::db::sql;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::view::View;

/// One JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What sort of thing it describes: `container`, `volume`, …
    pub kind: String,
    /// Its id, unique within the kind.
    pub id: String,
    /// Its name, unique within the kind, if it has one.
    pub name: Option<String>,
    /// The document, valid JSON.
    pub json: Arc<[u8]>,
}

/// Checks that `json` is one JSON document.
pub(crate) fn check_json(kind: &str, id: &str, json: &[u8]) -> Result<()> {
    serde_json::from_slice::<IgnoredAny>(json)
        .map(|_| ())
        .map_err(|why| Error::Invalid { what: format!("the {kind} record {id}"), why: why.to_string() })
}

/// Writes a record inside a transaction; the view follows last.
pub(crate) fn put(connection: &Connection, view: &mut View, record: Record) -> Result<()> {
    if let Some(name) = &record.name
        && let Some(holder) = view.record_by_name(&record.kind, name)
        && holder.id != record.id
    {
        return Err(Error::NameInUse { kind: record.kind, name: name.clone(), holder: holder.id.clone() });
    }
    sql(connection, "write a record", |c| {
        c.prepare_cached(
            "INSERT INTO records (kind, id, name, json) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (kind, id) DO UPDATE SET name = excluded.name, json = excluded.json",
        )?
        .execute(params![record.kind, record.id, record.name, &record.json[..]])
    })?;
    view.insert_record(record);
    Ok(())
}

/// Deletes a record inside a transaction; tells whether it was there.
pub(crate) fn delete(connection: &Connection, view: &mut View, kind: &str, id: &str) -> Result<bool> {
    if view.record(kind, id).is_none() {
        return Ok(false);
    }
    sql(connection, "delete a record", |c| {
        c.prepare_cached("DELETE FROM records WHERE kind = ?1 AND id = ?2")?.execute(params![kind, id])
    })?;
    view.remove_record(kind, id);
    Ok(true)
}

impl Store {
    /// Writes the record (kind, id), durably, replacing what it held. With a name that another record of the
    /// kind has, it fails with [`Error::NameInUse`], which names the holder; with bytes that are not JSON, with
    /// [`Error::Invalid`]. `name: None` takes an earlier name away.
    pub fn put_record(&self, kind: &str, id: &str, name: Option<&str>, json: &[u8]) -> Result<()> {
        check_json(kind, id, json)?;
        let record = Record {
            kind: kind.to_owned(),
            id: id.to_owned(),
            name: name.map(str::to_owned),
            json: Arc::from(json),
        };
        self.db.write(move |connection, view| put(connection, view, record))
    }

    /// Gives the record (kind, id) another name, durably, and replaces its document if one is given.
    /// Fails with [`Error::NoSuchRecord`] or [`Error::NameInUse`].
    pub fn rename_record(&self, kind: &str, id: &str, name: &str, json: Option<&[u8]>) -> Result<()> {
        if let Some(json) = json {
            check_json(kind, id, json)?;
        }
        let (kind, id, name) = (kind.to_owned(), id.to_owned(), name.to_owned());
        let json: Option<Arc<[u8]>> = json.map(Arc::from);
        self.db.write(move |connection, view| {
            let Some(old) = view.record(&kind, &id) else {
                return Err(Error::NoSuchRecord { kind, id });
            };
            let json = json.unwrap_or_else(|| old.json.clone());
            put(connection, view, Record { kind, id, name: Some(name), json })
        })
    }

    /// Deletes the record (kind, id), durably; tells whether it was there.
    pub fn delete_record(&self, kind: &str, id: &str) -> Result<bool> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.db.write(move |connection, view| delete(connection, view, &kind, &id))
    }

    /// The record (kind, id), from memory.
    pub fn record(&self, kind: &str, id: &str) -> Option<Arc<Record>> {
        self.view().record(kind, id)
    }

    /// The record of this kind that has this name, from memory.
    pub fn record_by_name(&self, kind: &str, name: &str) -> Option<Arc<Record>> {
        self.view().record_by_name(kind, name)
    }

    /// All records of a kind by ascending id, from memory. What was not JSON when the store was opened is not
    /// among them: it lies in the table `quarantine`.
    pub fn records(&self, kind: &str) -> Vec<Arc<Record>> {
        self.view().records(kind)
    }

    /// Moves a record that its owner cannot read into the table `quarantine`, with the reason; its name becomes
    /// free. Tells whether the record was there.
    pub fn quarantine_record(&self, kind: &str, id: &str, reason: &str) -> Result<bool> {
        let (kind, id, reason) = (kind.to_owned(), id.to_owned(), reason.to_owned());
        self.db.write(move |connection, view| {
            let Some(record) = view.record(&kind, &id) else { return Ok(false) };
            crate::db::quarantine(
                connection,
                "records",
                &format!("{kind}/{id}"),
                record.name.as_deref(),
                &record.json,
                &reason,
            )?;
            delete(connection, view, &kind, &id)
        })
    }
}
