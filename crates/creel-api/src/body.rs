//! Bodies: JSON with a limit, byte streams both ways, lines of JSON.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use creel_engine::{ByteSource, ByteStream};
use http::header;
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::ApiError;

/// Largest JSON body that is read, in bytes: a create with a seccomp profile is some 20 KiB.
const JSON_LIMIT: usize = 4 << 20;

/// Reads a JSON body. An empty one is the document's default when `T` reads from `{}`.
pub(crate) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = Limited::new(body, JSON_LIMIT)
        .collect()
        .await
        .map_err(|e| {
            ApiError::invalid(format!("reading the request's body (limit {JSON_LIMIT} bytes): {e}"))
        })?
        .to_bytes();
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|e| ApiError::invalid(format!("the request's JSON does not fit: {e}")))
}

/// Feeds a request's body to the engine piece by piece; the engine's pace is the sender's. What the engine does not
/// want any more is read all the same: a client that is still sending would else see a broken pipe instead of the
/// reason.
pub(crate) fn source(mut body: Body) -> ByteSource {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(_) => continue,
                },
                Err(e) => Err(std::io::Error::other(format!("the client's upload broke off: {e}"))),
            };
            if piece.is_err() {
                let _ = sender.send(piece).await;
                break;
            }
            let _ = sender.send(piece).await;
        }
    });
    receiver
}

/// Answers with a byte stream of the engine's.
pub(crate) fn stream(content_type: &'static str, mut bytes: ByteStream) -> Response {
    let stream = futures_util::stream::poll_fn(move |cx| bytes.poll_recv(cx));
    respond(content_type, Body::from_stream(stream))
}

/// Answers with one JSON document a line, as they come.
pub(crate) fn lines<T: Serialize + Send + 'static>(mut documents: mpsc::Receiver<T>) -> Response {
    let stream = futures_util::stream::poll_fn(move |cx| {
        documents.poll_recv(cx).map(|document| document.map(|d| Ok::<_, Infallible>(line(&d))))
    });
    respond("application/json", Body::from_stream(stream))
}

/// Answers at once with the headers, and with one JSON document when `document` is known.
pub(crate) fn later<T, F>(document: F) -> Response
where
    T: Serialize,
    F: Future<Output = T> + Send + 'static,
{
    let stream = futures_util::stream::once(async move { Ok::<_, Infallible>(line(&document.await)) });
    respond("application/json", Body::from_stream(stream))
}

fn line<T: Serialize>(document: &T) -> Bytes {
    let mut text =
        serde_json::to_vec(document).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}").into_bytes());
    text.extend_from_slice(b"\r\n");
    text.into()
}

fn respond(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// Adds the standard `Server-Timing` header (W3C): `name;dur=milliseconds`, one entry a step.
pub(crate) fn with_timing(mut response: Response, steps: &[(String, Duration)]) -> Response {
    let text = steps
        .iter()
        .map(|(name, duration)| format!("{};dur={:.3}", token(name), duration.as_secs_f64() * 1e3))
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(value) = http::HeaderValue::from_str(&text) {
        response.headers_mut().insert("Server-Timing", value);
    }
    response
}

fn token(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}
