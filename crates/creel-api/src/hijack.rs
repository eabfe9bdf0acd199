//! Hijacked connections: attach and exec turn an HTTP exchange into a raw two-way byte stream.
//!
//! Docker's clients ask with `Connection: Upgrade` and `Upgrade: tcp` and are answered 101. A client that does
//! not ask gets the output as the body of a 200; it then has no way to send input.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::ReaderStream;

/// Bytes between the engine and a client that did not ask for an upgrade.
const DUPLEX_BUFFER: usize = 64 << 10;

/// A two-way byte stream: an upgraded connection, or a stand-in for one.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Answers the request and runs `session` on the connection that follows.
pub(crate) fn run<S, F>(mut request: Request<Body>, tty: bool, session: S) -> Response
where
    S: FnOnce(Box<dyn Duplex>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let content_type = HeaderValue::from_static(if tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    });
    let mut response = Response::new(Body::empty());
    if !wants_upgrade(request.headers()) {
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BUFFER);
        tokio::spawn(session(Box::new(theirs)));
        let (read, write) = tokio::io::split(ours);
        let stream = ReaderStream::new(read);
        // The write half must live as long as the body, or the session would see its input end.
        let stream = futures_util::StreamExt::map(stream, move |piece| {
            let _keep = &write;
            piece
        });
        *response.body_mut() = Body::from_stream(stream);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        return response;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => session(Box::new(TokioIo::new(upgraded))).await,
            Err(e) => tracing::debug!("a client left before its connection was upgraded: {e}"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}
