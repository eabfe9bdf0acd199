//! Bodies that stream: up, down, and as lines of JSON.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::Error;

/// The body of a request.
pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// Longest line of JSON that is read: a document without an end must not take all memory.
const LINE_LIMIT: usize = 64 << 20;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is sent piece by piece as the receiver gives it; an error ends the request.
pub type Upload = mpsc::Receiver<std::io::Result<Bytes>>;

pub(crate) fn upload(mut pieces: Upload) -> Body {
    let frames = futures_util::stream::poll_fn(move |cx| {
        pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// A body of the daemon's, piece by piece.
#[derive(Debug)]
pub struct ByteBody {
    body: Incoming,
    headers: HeaderMap,
}

impl ByteBody {
    pub(crate) fn new(headers: HeaderMap, body: Incoming) -> Self {
        Self { body, headers }
    }

    /// A header's text, if it is there and ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection breaks off before the body's end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => {}
                },
                Err(e) => {
                    return Some(Err(Error::Transport("reading from the daemon".to_owned(), cause(&e))));
                }
            }
        }
    }
}

/// A body of the daemon's as JSON documents, one a line.
#[derive(Debug)]
pub struct Lines<T> {
    body: ByteBody,
    buffer: BytesMut,
    searched: usize,
    what: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(body: ByteBody, what: &'static str) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, what, kind: PhantomData }
    }

    /// The next document; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection breaks off, [`Error::Decode`] when a line is no such document.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        self.next_raw().await.map(|line| {
            serde_json::from_slice(&line?).map_err(|e| Error::Decode(self.what.to_owned(), e.to_string()))
        })
    }

    /// The next line that is not blank, as it came, without its end.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection breaks off, [`Error::Decode`] when a line has no end.
    pub async fn next_raw(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(Ok(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_LIMIT {
                return Some(Err(Error::Decode(self.what.to_owned(), "a line is too long".to_owned())));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    let rest = self.buffer.split();
                    self.searched = 0;
                    if rest.iter().all(u8::is_ascii_whitespace) {
                        return None;
                    }
                    return Some(Ok(rest.freeze()));
                }
            }
        }
    }
}

/// An error with all its causes in one line.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = e.source();
    }
    text
}
