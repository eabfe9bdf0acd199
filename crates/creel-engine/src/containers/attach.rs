//! Attach: to a container that runs, or to one that is yet to be started.

use std::sync::Arc;

use bytes::Bytes;
use creel_shim::proto::{Attach, Call, Opening};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::container::{Container, Pending};
use super::detach;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::options::{AttachEnd, AttachOptions, LogOptions};
use crate::{logs, session};

type Stream = (UnixStream, Bytes, Option<i32>);

/// Where an attachment's bytes come from.
#[derive(Debug)]
enum Source {
    /// Only the log was asked for.
    Nothing,
    Now(Stream),
    /// When the container is started.
    Later(oneshot::Receiver<Result<Stream>>),
}

/// A client's place at a container's streams, taken from the moment it was made.
#[derive(Debug)]
pub struct Attachment {
    /// Whether the container has a terminal: then its output is not framed.
    pub tty: bool,
    core: Arc<Core>,
    container: Arc<Container>,
    options: AttachOptions,
    stdin: bool,
    detach: Option<Vec<u8>>,
    source: Source,
}

/// Attaches.
pub(crate) async fn attach(core: &Arc<Core>, id: &str, options: AttachOptions) -> Result<Attachment> {
    let container = core.containers.find(id)?;
    let record = container.record();
    let tty = record.config.tty;
    let detach = detach::parse(options.detach_keys.as_deref())?;
    let stdin = options.stdin && options.stream && record.config.open_stdin;
    let wanted = Attach { exec_id: None, stdin, stdout: options.stdout, stderr: options.stderr };
    let source = if options.stream { source(&container, wanted).await? } else { Source::Nothing };
    core.tell(&container, "attach", &[]);
    Ok(Attachment {
        tty,
        core: core.clone(),
        container,
        options,
        stdin,
        // Without a terminal nobody types: any byte may be data.
        detach: (stdin && tty).then_some(detach),
        source,
    })
}

async fn source(container: &Container, attach: Attach) -> Result<Source> {
    if let Some(running) = container.running() {
        if running.paused {
            return Err(Error::conflict(format!(
                "Container {} is paused. Unpause the container before attach.",
                container.id
            )));
        }
        return Ok(Source::Now(running.link.open(&Opening::Attach(attach)).await?));
    }
    let (stream, later) = oneshot::channel();
    container.push_pending(Pending { attach, stream });
    // It may have been started just now: then its start did not see what was pushed and nobody else would.
    if let Some(running) = container.running() {
        for pending in container.take_pending() {
            let _ = pending.stream.send(running.link.open(&Opening::Attach(pending.attach)).await);
        }
    }
    Ok(Source::Later(later))
}

impl Attachment {
    /// Carries bytes until the output has ended, the client is gone or detaches.
    pub async fn run(self, mut io: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<AttachEnd> {
        let options = &self.options;
        if options.logs && (options.stdout || options.stderr) {
            let what = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
            let mut bytes = logs::read(&self.core, &self.container, what).await?.bytes;
            while let Some(piece) = bytes.recv().await {
                if io.write_all(&piece?).await.is_err() {
                    return Ok(AttachEnd::ClientGone);
                }
            }
        }
        let (stream, first, _) = match self.source {
            Source::Nothing => {
                let _ = io.shutdown().await;
                return Ok(AttachEnd::Ended);
            }
            Source::Now(stream) => stream,
            Source::Later(later) => match later.await {
                Ok(stream) => stream?,
                // Its start failed, or it was removed before it was started.
                Err(_) => {
                    let _ = io.shutdown().await;
                    return Ok(AttachEnd::Ended);
                }
            },
        };
        let end = session::run(io, stream, first, self.stdin, self.detach).await?;
        if end == AttachEnd::Detached {
            self.core.tell(&self.container, "detach", &[]);
        }
        Ok(end)
    }
}

/// Sets the size of a container's terminal.
pub(crate) async fn resize(core: &Core, id: &str, height: u16, width: u16) -> Result<()> {
    let container = core.containers.find(id)?;
    let Some(running) = container.running() else {
        return Err(Error::conflict(format!("Container {} is not running", container.id)));
    };
    running.link.call(Call::Resize { exec_id: None, width, height }).await?;
    core.tell(&container, "resize", &[("height", height.to_string()), ("width", width.to_string())]);
    Ok(())
}
