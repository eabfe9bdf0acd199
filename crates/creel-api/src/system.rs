//! The engine itself: ping, version, information, events, disk usage.

use axum::Json;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use creel_engine::Auth;
use http::{HeaderValue, Uri, header};

use crate::body;
use crate::error::ApiError;
use crate::params::Params;
use crate::router::State;

type Result<T = Response> = std::result::Result<T, ApiError>;

pub(crate) async fn ping() -> Response {
    let mut response = "OK".into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

pub(crate) async fn version(engine: State) -> Response {
    Json(engine.version()).into_response()
}

pub(crate) async fn info(engine: State) -> Response {
    Json(engine.info().await).into_response()
}

pub(crate) async fn disk_usage(engine: State) -> Result {
    Ok(Json(engine.disk_usage().await?).into_response())
}

/// `POST /auth`: tries credentials.
pub(crate) async fn auth(engine: State, body: Bytes) -> Result {
    let wrong = |why: String| ApiError::invalid(format!("the credentials cannot be read: {why}"));
    let auth = Auth::from_json(&body).map_err(|e| wrong(e.to_string()))?;
    let auth = auth.ok_or_else(|| wrong("there are none".to_owned()))?;
    Ok(Json(engine.login(auth).await?).into_response())
}

pub(crate) async fn events(engine: State, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let until = params.time("until")?;
    let mut events = engine.events(params.time("since")?, params.filters()?);
    let Some(until) = until else { return Ok(body::lines(events)) };
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let left = until.as_millisecond() - jiff::Timestamp::now().as_millisecond();
        // Past events are in the channel already: a moment is enough to hand them over.
        let left = std::time::Duration::from_millis(u64::try_from(left).unwrap_or(0).max(50));
        let deadline = tokio::time::sleep(left);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) if event.time <= until.as_second() => {
                        if sender.send(event).await.is_err() { return }
                    }
                    _ => return,
                },
                () = &mut deadline => return,
            }
        }
    });
    Ok(body::lines(receiver))
}
