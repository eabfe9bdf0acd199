//! Between the async world's channels and the blocking world's readers and writers; progress to messages.

use std::io::{self, Read, Write};

use bytes::Bytes;
use creel_distribution::{Progress, ProgressEvent};
use creel_wire::image::{ErrorDetail, ProgressDetail, ProgressMessage};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::options::ByteSource;

/// How many messages may wait for a slow client.
pub(crate) const MESSAGES: usize = 256;

/// Reads a [`ByteSource`] on a thread that may block.
pub(crate) struct SourceReader {
    source: ByteSource,
    piece: Bytes,
}

impl SourceReader {
    pub(crate) fn new(source: ByteSource) -> Self {
        Self { source, piece: Bytes::new() }
    }
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.source.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

/// Writes into a byte stream from a thread that may block.
pub(crate) struct StreamWriter(pub(crate) mpsc::Sender<Result<Bytes>>);

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands progress on as Docker's messages. What tells how far a transfer is may be dropped when the client is slow;
/// everything else waits for room where that is possible.
#[derive(Debug, Clone)]
pub(crate) struct Messages(pub(crate) mpsc::Sender<ProgressMessage>);

impl Progress for Messages {
    fn event(&self, event: ProgressEvent) {
        let message = convert(event);
        if let Err(mpsc::error::TrySendError::Full(message)) = self.0.try_send(message)
            && message.progress_detail.is_none()
        {
            let sender = self.0.clone();
            // Who reports is on an async thread or on a blocking one; neither may be held up here.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = sender.send(message).await;
                });
            }
        }
    }
}

fn convert(event: ProgressEvent) -> ProgressMessage {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let detail = ProgressDetail { current: event.current.map(number), total: event.total.map(number) };
    if let Some(aux) = event.aux {
        let aux = serde_json::to_value(aux).ok();
        return ProgressMessage {
            aux,
            progress_detail: Some(ProgressDetail::default()),
            ..ProgressMessage::default()
        };
    }
    ProgressMessage {
        progress_detail: (event.id.is_some() || detail != ProgressDetail::default()).then_some(detail),
        status: Some(event.status),
        id: event.id,
        ..ProgressMessage::default()
    }
}

/// A line of its own.
pub(crate) fn status(text: impl Into<String>) -> ProgressMessage {
    ProgressMessage { status: Some(text.into()), ..ProgressMessage::default() }
}

/// Plain output.
pub(crate) fn output(text: impl Into<String>) -> ProgressMessage {
    ProgressMessage { stream: Some(text.into()), ..ProgressMessage::default() }
}

/// The last message of what failed.
pub(crate) fn failure(error: &Error) -> ProgressMessage {
    let message = error.to_string();
    ProgressMessage {
        error: Some(message.clone()),
        error_detail: Some(ErrorDetail { code: None, message }),
        ..ProgressMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_dockers_messages() {
        let json = |event| serde_json::to_string(&convert(event)).unwrap();
        assert_eq!(json(ProgressEvent::line("Digest: x")), r#"{"status":"Digest: x"}"#);
        assert_eq!(
            json(ProgressEvent::amount("abc", "Downloading", 1, Some(2))),
            r#"{"status":"Downloading","id":"abc","progressDetail":{"current":1,"total":2}}"#
        );
        assert_eq!(
            json(ProgressEvent::of("abc", "Pull complete")),
            r#"{"status":"Pull complete","id":"abc","progressDetail":{}}"#
        );
    }

    #[test]
    fn sources_and_streams_carry_all_bytes() {
        let (sender, receiver) = mpsc::channel(4);
        sender.blocking_send(Ok(Bytes::from_static(b"abc"))).unwrap();
        sender.blocking_send(Ok(Bytes::new())).unwrap();
        sender.blocking_send(Ok(Bytes::from_static(b"def"))).unwrap();
        drop(sender);
        let mut text = String::new();
        SourceReader::new(receiver).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdef");
    }
}
