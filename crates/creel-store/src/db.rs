//! The database: one writer thread, one immutable view. The schema is drawn in `schema`.
//!
//! A write is a function from (transaction, view) to a result. Writes that arrive while another is being synced
//! are taken together into the next transaction, each in its own savepoint, so that one failure hurts no other;
//! after the one fsync the new view is published, and only then are the callers answered.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, params};

use crate::error::{Error, Result};
use crate::failpoint;
use crate::files;
use crate::paths::Paths;
use crate::recover;
use crate::schema::MIGRATIONS;
use crate::store::OpenReport;
use crate::view::View;

/// Why a whole transaction could not be committed.
#[derive(Debug, Clone)]
struct CommitFailure {
    why: String,
    no_space: bool,
}

type Finish = Box<dyn FnOnce(std::result::Result<(), CommitFailure>) + Send>;
/// Runs one write; tells whether it is to be kept, and how to answer its caller.
type Job = Box<dyn FnOnce(&Connection, &mut View) -> (bool, Finish) + Send>;

/// Most writes that share one transaction.
const BATCH: usize = 256;
/// After this many commits the write-ahead log is copied into the database even under load. The log is then
/// written again from its start, and a sync that does not make a file longer is the cheapest.
const CHECKPOINT_COMMITS: u32 = 250;
/// A pause this long is used to copy the write-ahead log into the database.
const IDLE: Duration = Duration::from_millis(400);

/// The handle of the database.
pub(crate) struct Db {
    path: PathBuf,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    view: Arc<RwLock<Arc<View>>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Runs statements and turns SQLite's error into ours.
pub(crate) fn sql<T>(
    connection: &Connection,
    what: &'static str,
    run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    run(connection).map_err(|why| error(Path::new(connection.path().unwrap_or_default()), what, &why))
}

pub(crate) fn error(path: &Path, what: &'static str, why: &rusqlite::Error) -> Error {
    Error::Database { what, path: path.to_owned(), why: why.to_string(), no_space: is_no_space(path, why) }
}

fn is_no_space(path: &Path, why: &rusqlite::Error) -> bool {
    match why.sqlite_error() {
        Some(error) if error.code == ErrorCode::DiskFull => true,
        // It takes the end of a quota for a failure of the disk.
        Some(error) if error.code == ErrorCode::SystemIoFailure => {
            files::is_full(path.parent().unwrap_or(path))
        }
        _ => false,
    }
}

/// Whether SQLite says that the file itself is damaged.
pub(crate) fn is_damaged(why: &rusqlite::Error) -> bool {
    matches!(why.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Puts something unreadable aside, with the reason.
pub(crate) fn quarantine(
    connection: &Connection,
    source: &str,
    key: &str,
    name: Option<&str>,
    data: &[u8],
    reason: &str,
) -> Result<()> {
    sql(connection, "quarantine a row", |c| {
        c.execute(
            "INSERT INTO quarantine (at, source, key, name, data, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![jiff::Timestamp::now().to_string(), source, key, name, data, reason],
        )
    })
    .map(|_| ())
}

/// Opens the file and brings its schema up to date.
pub(crate) fn connect(path: &Path) -> std::result::Result<Connection, ConnectError> {
    let connection = Connection::open(path)?;
    // Only this process may open the file, so locks and a shared index for others would be idle work.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known || found < 0 {
        return Err(ConnectError::TooNew { found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration}; PRAGMA user_version = {}; COMMIT;",
            index + 1
        ))?;
    }
    Ok(connection)
}

/// Why the database could not be opened.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Sqlite(rusqlite::Error),
    TooNew { found: i64, known: i64 },
}

impl From<rusqlite::Error> for ConnectError {
    fn from(why: rusqlite::Error) -> Self {
        ConnectError::Sqlite(why)
    }
}

impl Db {
    /// Opens the database, rebuilding it if it is damaged, reads all rows and sweeps what none of them names.
    pub(crate) fn open(paths: &Paths, report: &mut OpenReport) -> Result<Self> {
        let path = paths.db();
        let (connection, view) = recover::open(paths, report)?;
        recover::sweep(paths, &connection, &view, report)?;
        let view = Arc::new(RwLock::new(Arc::new(view)));
        let (jobs, receiver) = channel();
        let published = view.clone();
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_all(&connection, &receiver, &published))
            .map_err(|why| Error::io("start the writer of", &path, why))?;
        Ok(Self { path, jobs: Some(jobs), writer: Some(writer), view })
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a write and waits until it is durable. An error of `run` undoes what it did, in both.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection, &mut View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = sync_channel::<Result<T>>(1);
        let path = self.path.clone();
        let job: Job = Box::new(move |connection, view| {
            let result = run(connection, view);
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                let result = match (result, committed) {
                    (Ok(_), Err(CommitFailure { why, no_space })) => {
                        Err(Error::Database { what: "commit", path, why, no_space })
                    }
                    (result, _) => result,
                };
                let _ = answer.send(result);
            });
            (keep, finish)
        });
        self.jobs.as_ref().ok_or(Error::Closed)?.send(job).map_err(|_| Error::Closed)?;
        answered.recv().map_err(|_| Error::Closed)?
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(connection: &Connection, jobs: &Receiver<Job>, published: &RwLock<Arc<View>>) {
    let mut commits = 0;
    loop {
        let first = if commits > 0 {
            match jobs.recv_timeout(IDLE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    checkpoint(connection);
                    commits = 0;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match jobs.recv() {
                Ok(job) => job,
                Err(_) => break,
            }
        };
        let batch = std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1));
        if write_batch(connection, batch, published) {
            commits += 1;
        }
        if commits >= CHECKPOINT_COMMITS {
            checkpoint(connection);
            commits = 0;
        }
    }
}

fn checkpoint(connection: &Connection) {
    if let Err(why) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!("cannot copy the write-ahead log into the database: {why}");
    }
}

/// Runs writes in one transaction and publishes their view; tells whether anything was written.
fn write_batch(
    connection: &Connection,
    batch: impl Iterator<Item = Job>,
    published: &RwLock<Arc<View>>,
) -> bool {
    let path = PathBuf::from(connection.path().unwrap_or_default());
    let failure =
        |why: &rusqlite::Error| CommitFailure { why: why.to_string(), no_space: is_no_space(&path, why) };
    let mut view = View::clone(&published.read().unwrap_or_else(PoisonError::into_inner));
    let mut answers = Vec::new();
    let mut outcome = connection.execute_batch("BEGIN IMMEDIATE").map_err(|why| failure(&why));
    let mut kept = 0;
    for job in batch {
        let before = view.clone();
        if outcome.is_ok() {
            outcome = connection.execute_batch("SAVEPOINT job").map_err(|why| failure(&why));
        }
        let (keep, answer) = job(connection, &mut view);
        answers.push(answer);
        kept += u32::from(keep);
        if outcome.is_ok() {
            let end = if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
            outcome = connection.execute_batch(end).map_err(|why| failure(&why));
        }
        if !keep {
            view = before;
        }
    }
    failpoint("db-before-commit");
    outcome = outcome.and_then(|()| connection.execute_batch("COMMIT").map_err(|why| failure(&why)));
    if outcome.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    if outcome.is_ok() && kept > 0 {
        *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
    failpoint("db-after-commit");
    for answer in answers {
        answer(outcome.clone());
    }
    kept > 0
}
