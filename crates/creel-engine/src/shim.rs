//! The daemon's end of a shim: spawning one, calling it, hearing its events, opening streams to it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use creel_shim::client::shim_args;
use creel_shim::framing::{self, Lines};
use creel_shim::proto::{
    Answer, Call, Event, ExitRecord, Message, Opening, Outcome, Request, StreamReply, files,
};
use creel_types::{ContainerId, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, Result};

/// How the connection to a shim ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The container ended, and this is how.
    Exited(ExitRecord),
    /// The shim is gone without having said how.
    Lost,
}

/// What a shim tells besides the end of its container.
#[derive(Debug)]
pub(crate) struct Told {
    /// Whose shim it is.
    pub(crate) container: ContainerId,
    /// What it told.
    pub(crate) event: Event,
}

type Waiting = (Call, oneshot::Sender<Result<Answer>>);

/// A control connection to one shim, shared by all who have something to ask of it.
#[derive(Debug)]
pub(crate) struct Link {
    dir: PathBuf,
    calls: mpsc::Sender<Waiting>,
    end: watch::Receiver<Option<End>>,
}

impl Link {
    /// Spawns a shim for the run directory `dir`, in which its two configurations lie.
    pub(crate) fn spawn(
        executable: &Path,
        dir: &Path,
        container: &ContainerId,
        told: mpsc::UnboundedSender<Told>,
    ) -> Result<(Arc<Link>, i32)> {
        let step = "making the socket to a shim";
        let (ours, theirs) = StdStream::pair().map_err(|e| Error::io(step, e))?;
        ours.set_nonblocking(true).map_err(|e| Error::io(step, e))?;
        let ours = UnixStream::from_std(ours).map_err(|e| Error::io(step, e))?;
        let mut child = tokio::process::Command::new(executable)
            .arg0("creel")
            .args(shim_args(dir))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(false)
            .spawn()
            .map_err(|e| Error::io(format_args!("spawning a shim by {}", executable.display()), e))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok((Self::over(ours, dir, container, told), pid))
    }

    /// Finds the shim of the run directory `dir` again and subscribes to its events.
    pub(crate) async fn reconnect(
        dir: &Path,
        container: &ContainerId,
        told: mpsc::UnboundedSender<Told>,
    ) -> Result<(Arc<Link>, creel_shim::proto::Snapshot)> {
        let link = Self::over(connect(dir).await?, dir, container, told);
        match link.call(Call::Subscribe).await? {
            Answer::State(snapshot) => Ok((link, snapshot)),
            other => Err(unexpected(&other)),
        }
    }

    fn over(
        stream: UnixStream,
        dir: &Path,
        container: &ContainerId,
        told: mpsc::UnboundedSender<Told>,
    ) -> Arc<Link> {
        let (calls, inbox) = mpsc::channel(16);
        let (ended, end) = watch::channel(None);
        tokio::spawn(converse(stream, inbox, ended, container.clone(), told));
        Arc::new(Link { dir: dir.to_owned(), calls, end })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let gone = || Error::new(ErrorKind::Unavailable, "the container's shim is gone");
        let (sender, receiver) = oneshot::channel();
        self.calls.send((call, sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Waits for the end of the container or of the shim.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Lost)
    }

    /// Opens a byte stream: attaches, or executes. Gives the socket and the bytes that came with the answer.
    pub(crate) async fn open(&self, opening: &Opening) -> Result<(UnixStream, Bytes, Option<i32>)> {
        let mut stream = connect(&self.dir).await?;
        let broke = |e| Error::io("speaking to the container's shim", e);
        let line = framing::encode(opening).map_err(|e| Error::internal(e.to_string()))?;
        stream.write_all(&line).await.map_err(broke)?;
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        let line = loop {
            if let Some(line) = lines.next_line().map_err(|e| Error::internal(e.to_string()))? {
                break line;
            }
            match stream.read(&mut buffer).await.map_err(broke)? {
                0 => return Err(Error::new(ErrorKind::Unavailable, "the container's shim hung up")),
                n => lines.push(&buffer[..n]),
            }
        };
        match framing::decode(&line).map_err(|e| Error::internal(e.to_string()))? {
            StreamReply::Ok { pid } => Ok((stream, Bytes::from(lines.into_rest()), pid)),
            StreamReply::Error(failure) => Err(Error::new(failure.kind, failure.message)),
        }
    }
}

/// An answer that does not belong to its call.
pub(crate) fn unexpected(answer: &Answer) -> Error {
    Error::internal(format!(
        "the container's shim gave an answer that does not belong to the call: {answer:?}"
    ))
}

async fn connect(dir: &Path) -> Result<UnixStream> {
    let path = dir.join(files::SOCKET);
    let failed =
        |e| Error::new(ErrorKind::Unavailable, format!("connecting to the shim at {}: {e}", path.display()));
    if path.as_os_str().len() < 108 {
        return UnixStream::connect(&path).await.map_err(failed);
    }
    // A longer path does not fit into a socket address (unix(7)): go through a descriptor of the directory.
    let open = std::fs::File::open(dir).map_err(failed)?;
    let short = format!("/proc/self/fd/{}/{}", open.as_raw_fd(), files::SOCKET);
    UnixStream::connect(short).await.map_err(failed)
}

/// Carries calls to the shim and answers back until either side is gone.
async fn converse(
    stream: UnixStream,
    mut inbox: mpsc::Receiver<Waiting>,
    ended: watch::Sender<Option<End>>,
    container: ContainerId,
    told: mpsc::UnboundedSender<Told>,
) {
    let (mut read, mut write) = stream.into_split();
    let mut waiting: HashMap<u64, oneshot::Sender<Result<Answer>>> = HashMap::new();
    let mut lines = Lines::default();
    let mut buffer = vec![0; 4096];
    let mut seq = 0;
    let why = loop {
        tokio::select! {
            call = inbox.recv() => {
                // Whoever holds the link holds the sender: without them nobody listens any more.
                let Some((call, sender)) = call else { return };
                seq += 1;
                let line = match framing::encode(&Request { seq, call }) {
                    Ok(line) => line,
                    Err(e) => {
                        let _ = sender.send(Err(Error::internal(e.to_string())));
                        continue;
                    }
                };
                waiting.insert(seq, sender);
                if let Err(e) = write.write_all(&line).await {
                    tracing::debug!(container = container.short(), "writing to the shim: {e}");
                }
            }
            n = read.read(&mut buffer) => match n {
                Ok(0) => break "the container's shim hung up".to_owned(),
                Err(e) => break format!("the connection to the container's shim broke: {e}"),
                Ok(n) => {
                    lines.push(&buffer[..n]);
                    if let Err(e) = take_messages(&mut lines, &mut waiting, &ended, &container, &told) {
                        break e;
                    }
                }
            },
        }
    };
    for sender in waiting.into_values() {
        let _ = sender.send(Err(Error::new(ErrorKind::Unavailable, why.clone())));
    }
    ended.send_if_modified(|end| {
        let first = end.is_none();
        end.get_or_insert(End::Lost);
        first
    });
}

fn take_messages(
    lines: &mut Lines,
    waiting: &mut HashMap<u64, oneshot::Sender<Result<Answer>>>,
    ended: &watch::Sender<Option<End>>,
    container: &ContainerId,
    told: &mpsc::UnboundedSender<Told>,
) -> std::result::Result<(), String> {
    while let Some(line) = lines.next_line().map_err(|e| e.to_string())? {
        match framing::decode(&line).map_err(|e| e.to_string())? {
            Message::Reply(reply) => {
                // Number 0 answers no call: the shim could not even begin, and says why.
                if let (0, Outcome::Error(failure)) = (reply.seq, &reply.outcome) {
                    for (_, sender) in waiting.drain() {
                        let _ = sender.send(Err(Error::new(failure.kind, failure.message.clone())));
                    }
                    continue;
                }
                let Some(sender) = waiting.remove(&reply.seq) else { continue };
                let _ = sender.send(match reply.outcome {
                    Outcome::Ok(answer) => Ok(answer),
                    Outcome::Error(failure) => Err(Error::new(failure.kind, failure.message)),
                });
            }
            Message::Event(Event::Exit { record }) => {
                ended.send_replace(Some(End::Exited(record)));
            }
            Message::Event(event) => {
                let _ = told.send(Told { container: container.clone(), event });
            }
        }
    }
    Ok(())
}
