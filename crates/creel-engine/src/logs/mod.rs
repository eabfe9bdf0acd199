//! Reading a container's log: json-file, rotated files included, from the end or the beginning, followed or not.

mod files;
mod follow;
mod line;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::containers::Container;
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::options::{LogOptions, LogStream};

use files::Reader;
use follow::Changes;

/// Pieces that wait for a slow client.
const QUEUED: usize = 4;

/// Opens a container's log.
pub(crate) async fn read(
    core: &Arc<Core>,
    container: &Arc<Container>,
    options: LogOptions,
) -> Result<LogStream> {
    let record = container.record();
    let tty = record.config.tty;
    let Some(path) = core.log_path(&record) else {
        return Err(Error::unsupported(format!(
            "configured logging driver does not support reading: container {} has the log driver \"{}\"",
            record.name, record.host_config.log_config.kind
        )));
    };
    let (sender, bytes) = mpsc::channel(QUEUED);
    let watch = container.watch();
    let follow = options.follow && watch.borrow().running.is_some();
    let dir = core.dir(&record.id);
    // Before the first line is read, so that nothing written meanwhile goes unnoticed.
    let changes = if follow { Some(Changes::of(&dir)) } else { None };
    let filter = line::Filter { options, framed: !tty };
    let reader = blocking(move || Reader::open(&path, filter)).await?;
    tokio::spawn(pump(reader, changes, watch, sender));
    Ok(LogStream { tty, bytes })
}

async fn pump(
    mut reader: Reader,
    mut changes: Option<Changes>,
    mut watch: tokio::sync::watch::Receiver<crate::containers::container::Life>,
    sender: mpsc::Sender<Result<Bytes>>,
) {
    loop {
        // Asked before reading: what was logged before the end is in the file by then.
        let ended = watch.borrow_and_update().running.is_none();
        loop {
            let batch = blocking(move || {
                let batch = reader.next_batch(ended);
                Ok((reader, batch))
            });
            let bytes = match batch.await {
                Ok((back, Ok(bytes))) => {
                    reader = back;
                    bytes
                }
                Ok((_, Err(e))) | Err(e) => {
                    let _ = sender.send(Err(e)).await;
                    return;
                }
            };
            match bytes {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => {
                    if sender.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                }
                None => break,
            }
        }
        let Some(changes) = &mut changes else { return };
        if ended || reader.is_past_until() {
            return;
        }
        tokio::select! {
            () = changes.next() => {}
            changed = watch.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}
