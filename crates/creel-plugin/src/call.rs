//! One question and its answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::discover::Address;

/// The protocol's version, as plugins are told it.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// Longest answer that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// Asks a plugin; in words what stands in the way of an answer.
pub(crate) async fn call(
    address: &Address,
    method: &str,
    question: &Value,
    patience: Duration,
) -> Result<Value, String> {
    let answer = async {
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                ask(stream.map_err(|e| format!("connecting to {}: {e}", path.display()))?, method, question)
                    .await
            }
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await;
                ask(stream.map_err(|e| format!("connecting to {host}: {e}"))?, method, question).await
            }
        }
    };
    let late = |_| format!("nothing came within {} seconds", patience.as_secs());
    tokio::time::timeout(patience, answer).await.map_err(late)?
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    question: &Value,
) -> Result<Value, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("/{method}"))
        .header(header::HOST, "plugin")
        .header(header::ACCEPT, MEDIA_TYPE)
        .header(header::CONTENT_TYPE, MEDIA_TYPE)
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?.to_bytes();
    connection.abort();
    let read: Result<Value, _> = match body.is_empty() {
        true => Ok(Value::Null),
        false => serde_json::from_slice(&body),
    };
    match read {
        // A failure is told in `Err`, whatever the status; without it the status counts.
        Ok(value) if status.is_success() || value["Err"].as_str().is_some_and(|e| !e.is_empty()) => Ok(value),
        Ok(_) => Err(format!("it answered {status}")),
        Err(_) if !status.is_success() => {
            Err(format!("it answered {status}: {}", String::from_utf8_lossy(&body).trim()))
        }
        Err(e) => Err(format!("its answer is not JSON: {e}")),
    }
}
