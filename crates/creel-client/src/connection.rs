//! Connections, requests and their answers.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use creel_wire::system::ErrorResponse;

use crate::body::{self, Body, ByteBody, cause};
use crate::{Endpoint, Error, Query};

/// Speaks to one daemon. Cheap to make: nothing is connected before the first request.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    idle: Mutex<Vec<SendRequest<Body>>>,
    opened: Mutex<Option<StdUnixStream>>,
}

/// A connection that left HTTP behind: raw bytes both ways from here on.
#[derive(Debug)]
pub struct Hijacked {
    /// The connection. Shutting down its write half tells the daemon that input has ended.
    pub stream: UnixStream,
    /// Bytes that arrived together with the answer's headers; they come before those of the stream.
    pub early: Bytes,
    /// Whether output comes in frames with stdout and stderr apart; `None` if the daemon does not say.
    pub multiplexed: Option<bool>,
}

impl Hijacked {
    /// The connection for blocking use, and the early bytes.
    ///
    /// # Errors
    /// The kernel's, when the socket cannot be made blocking.
    pub fn into_blocking(self) -> std::io::Result<(StdUnixStream, Bytes)> {
        let stream = self.stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok((stream, self.early))
    }
}

impl Client {
    /// A client of the daemon at this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, idle: Mutex::new(Vec::new()), opened: Mutex::new(None) }
    }

    /// The same, whose first connection is this one, already open.
    pub fn with_connection(self, stream: StdUnixStream) -> Self {
        Self { opened: Mutex::new(Some(stream)), ..self }
    }

    /// Where the daemon listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens a connection now, for the next request to use.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers.
    pub async fn connect(&self) -> Result<(), Error> {
        let sender = self.open().await?;
        self.keep(sender);
        Ok(())
    }

    async fn open(&self) -> Result<SendRequest<Body>, Error> {
        let socket = self.endpoint.socket();
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = match opened {
            Some(stream) => stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)),
            None => UnixStream::connect(socket).await,
        }
        .map_err(|e| Error::Connect(socket.to_owned(), e))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::Transport("speaking HTTP to the daemon".to_owned(), cause(&e)))?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    fn keep(&self, sender: SendRequest<Body>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }

    async fn sender(&self) -> Result<SendRequest<Body>, Error> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = idle else { return self.open().await };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
    }

    /// Sends a request and waits for the answer's headers; an error status becomes [`Error::Status`].
    async fn send(&self, request: Outgoing<'_>) -> Result<(Response<Incoming>, SendRequest<Body>), Error> {
        let mut sender = self.sender().await?;
        let uri = format!("/v{}{}{}", creel_wire::API_VERSION, request.path, request.query.as_str());
        let doing = format!("{} {}", request.method, request.path);
        let mut message = Request::builder()
            .method(request.method)
            .uri(uri)
            .header(header::HOST, "creel")
            .header(header::USER_AGENT, concat!("creel-client/", env!("CARGO_PKG_VERSION")));
        for (name, value) in request.headers {
            message = message.header(*name, *value);
        }
        let message = message.body(request.body).map_err(|e| Error::Transport(doing.clone(), cause(&e)))?;
        let response = sender.send_request(message).await.map_err(|e| Error::Transport(doing, cause(&e)))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            self.keep(sender);
            return Err(failure(status, parts.headers.get("server"), &bytes));
        }
        Ok((response, sender))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&self, request: Outgoing<'_>) -> Result<Reply, Error> {
        let doing = format!("{} {}", request.method, request.path);
        let (response, sender) = self.send(request).await?;
        let (parts, body) = response.into_parts();
        let bytes = body
            .collect()
            .await
            .map_err(|e| Error::Transport(format!("reading the answer to {doing}"), cause(&e)))?
            .to_bytes();
        self.keep(sender);
        Ok(Reply { doing, headers: parts.headers, status: parts.status, bytes })
    }

    /// Sends a request and hands the answer's body out as it comes.
    pub(crate) async fn stream(&self, request: Outgoing<'_>) -> Result<ByteBody, Error> {
        let (response, _) = self.send(request).await?;
        let (parts, body) = response.into_parts();
        Ok(ByteBody::new(parts.headers, body))
    }

    /// Sends a request that turns its connection into a raw stream.
    pub(crate) async fn hijack(&self, mut request: Outgoing<'_>) -> Result<Hijacked, Error> {
        let doing = format!("{} {}", request.method, request.path);
        let mut headers = vec![("connection", "Upgrade"), ("upgrade", "tcp")];
        headers.extend_from_slice(request.headers);
        request.headers = &headers;
        let (response, _sender) = self.send(request).await?;
        let wrong = |why: String| Error::Transport(doing.clone(), why);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(wrong(format!(
                "the daemon did not switch protocols but answered {}",
                response.status()
            )));
        }
        let multiplexed = match response.headers().get(header::CONTENT_TYPE).map(|v| v.as_bytes()) {
            Some(b"application/vnd.docker.multiplexed-stream") => Some(true),
            Some(b"application/vnd.docker.raw-stream") => Some(false),
            _ => None,
        };
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| wrong(cause(&e)))?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| wrong("the connection is not the one that was opened".to_owned()))?;
        Ok(Hijacked { stream: parts.io.into_inner(), early: parts.read_buf, multiplexed })
    }
}

/// A request to be sent.
pub(crate) struct Outgoing<'a> {
    method: Method,
    path: &'a str,
    query: Query,
    headers: &'a [(&'static str, &'a str)],
    body: Body,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, query: Query::new(), headers: &[], body: body::empty() }
    }

    pub(crate) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &'a str) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn query(self, query: Query) -> Self {
        Self { query, ..self }
    }

    pub(crate) fn headers(self, headers: &'a [(&'static str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    /// A body that is not JSON.
    pub(crate) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// A JSON body.
    pub(crate) fn json(self, document: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_vec(document)
            .map_err(|e| Error::Transport(format!("writing the body of {}", self.path), e.to_string()))?;
        Ok(Self { body: body::full(text), headers: &[("content-type", "application/json")], ..self })
    }
}

/// An answer that was read to its end.
pub(crate) struct Reply {
    doing: String,
    pub(crate) headers: HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.bytes).map_err(|e| Error::Decode(self.doing.clone(), e.to_string()))
    }
}

fn failure(status: StatusCode, server: Option<&HeaderValue>, body: &[u8]) -> Error {
    let message = match serde_json::from_slice::<ErrorResponse>(body) {
        Ok(ErrorResponse { message }) if !message.is_empty() => message,
        _ => {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            if text.is_empty() {
                let who = server.and_then(|v| v.to_str().ok()).unwrap_or("the daemon");
                format!("{who} answered {status} and no reason")
            } else {
                text.chars().take(4096).collect()
            }
        }
    };
    // Docker's daemon ends a few messages with a line break; one is enough.
    Error::Status { status: status.as_u16(), message: message.trim_end().to_owned() }
}
