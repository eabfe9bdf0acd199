//! `/exec`: additional processes in a running container.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use creel_wire::exec::{ExecConfig, ExecStart, IdResponse};
use http::{Request, StatusCode, Uri};

use crate::containers::size;
use crate::error::ApiError;
use crate::params::Params;
use crate::router::State;
use crate::{body, hijack};

type Result<T = Response> = std::result::Result<T, ApiError>;

pub(crate) async fn create(engine: State, Path(container): Path<String>, body: Body) -> Result {
    let config: ExecConfig = body::json(body).await?;
    let id = engine.exec_create(&container, config).await?;
    Ok((StatusCode::CREATED, Json(IdResponse { id })).into_response())
}

pub(crate) async fn start(engine: State, Path(id): Path<String>, request: Request<Body>) -> Result {
    let (parts, request_body) = request.into_parts();
    let options: ExecStart = body::json(request_body).await?;
    let detach = options.detach;
    let session = engine.exec_start(&id, options).await?;
    if detach {
        session.detach().await?;
        return Ok(StatusCode::OK.into_response());
    }
    let tty = session.tty;
    let request = Request::from_parts(parts, Body::empty());
    Ok(hijack::run(request, tty, move |io| async move {
        if let Err(e) = session.run(io).await {
            tracing::debug!("an attached exec: {e}");
        }
    }))
}

pub(crate) async fn resize(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let (height, width) = size(&Params::of(&uri)?)?;
    engine.exec_resize(&id, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn inspect(engine: State, Path(id): Path<String>) -> Result {
    Ok(Json(engine.exec_inspect(&id).await?).into_response())
}
