//! Serves the API on a unix socket: accepts, strips the version from paths, dates the answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use creel_engine::Engine;
use creel_wire::{API_VERSION, MIN_API_VERSION};
use http::{HeaderValue, Request, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tower_service::Service;

use crate::error::ApiError;

/// How long a client may take to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until `stop` becomes true. Connections under way end by themselves: their containers do not mind.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let router = crate::router(engine);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of descriptors, most likely: give those in use time to close.
                    tracing::error!("accepting a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let router = router.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut router = router.clone();
                async move { Ok::<_, Infallible>(answer(&mut router, request.map(Body::new)).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(e) = connection.await {
                tracing::debug!("a connection ended: {e}");
            }
        });
    }
}

async fn answer(router: &mut axum::Router, mut request: Request<Body>) -> Response {
    let mut response = match strip_version(request.uri()) {
        Ok(uri) => {
            if let Some(uri) = uri {
                *request.uri_mut() = uri;
            }
            match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(API_VERSION));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers
        .insert("Server", HeaderValue::from_static(concat!("creel/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

/// `/v1.45/info` → `/info`; `None` when there is no version in front. Versions out of range are refused as
/// Docker refuses them.
fn strip_version(uri: &Uri) -> Result<Option<Uri>, ApiError> {
    let path = uri.path();
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|p| p.split_once('/')) else {
        return Ok(None);
    };
    let Some(asked) = parse_version(version) else { return Ok(None) };
    if asked > parse_version(API_VERSION).unwrap_or_default() {
        return Err(ApiError::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    if asked < parse_version(MIN_API_VERSION).unwrap_or_default() {
        return Err(ApiError::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, \
             please upgrade your client to a newer version"
        )));
    }
    let text = match uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    text.parse().map(Some).map_err(|e| ApiError::invalid(format!("the path does not parse: {e}")))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(path: &str) -> String {
        match strip_version(&path.parse().unwrap()) {
            Ok(Some(uri)) => uri.to_string(),
            Ok(None) => "as it is".to_owned(),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn versions_in_range_are_taken_off() {
        assert_eq!(stripped("/v1.45/info?a=b"), "/info?a=b");
        assert_eq!(
            stripped("/v1.51/images/localhost:5000/v1.2/x/json"),
            "/images/localhost:5000/v1.2/x/json"
        );
        assert_eq!(stripped("/info"), "as it is");
        assert_eq!(stripped("/volumes/x"), "as it is");
        assert_eq!(stripped("/v1.99/info"), "refused");
        assert_eq!(stripped("/v1.9/info"), "refused");
    }
}
