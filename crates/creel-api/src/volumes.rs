//! `/volumes`.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use creel_wire::volume::VolumeCreate;
use http::{StatusCode, Uri};

use crate::body;
use crate::error::ApiError;
use crate::params::Params;
use crate::router::State;

type Result<T = Response> = std::result::Result<T, ApiError>;

pub(crate) async fn create(engine: State, body: Body) -> Result {
    let request: VolumeCreate = body::json(body).await?;
    Ok((StatusCode::CREATED, Json(engine.volume_create(request).await?)).into_response())
}

pub(crate) async fn list(engine: State, uri: Uri) -> Result {
    Ok(Json(engine.volumes(Params::of(&uri)?.filters()?).await?).into_response())
}

pub(crate) async fn inspect(engine: State, Path(name): Path<String>) -> Result {
    Ok(Json(engine.volume_inspect(&name).await?).into_response())
}

pub(crate) async fn remove(engine: State, Path(name): Path<String>, uri: Uri) -> Result {
    engine.volume_remove(&name, Params::of(&uri)?.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn prune(engine: State, uri: Uri) -> Result {
    Ok(Json(engine.volume_prune(Params::of(&uri)?.filters()?).await?).into_response())
}
