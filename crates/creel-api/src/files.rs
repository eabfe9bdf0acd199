//! `/containers/{id}/archive`, `export`, `changes`: a container's files.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use creel_engine::PutOptions;
use creel_wire::container::PathStat;
use http::{HeaderValue, StatusCode, Uri};

use crate::body;
use crate::error::ApiError;
use crate::params::Params;
use crate::router::State;

type Result<T = Response> = std::result::Result<T, ApiError>;

fn with_stat(mut response: Response, stat: &PathStat) -> Result {
    let json = serde_json::to_vec(stat).map_err(|e| ApiError::invalid(format!("the path's state: {e}")))?;
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    let value =
        HeaderValue::from_str(&text).map_err(|e| ApiError::invalid(format!("the path's state: {e}")))?;
    response.headers_mut().insert("X-Docker-Container-Path-Stat", value);
    Ok(response)
}

pub(crate) async fn stat(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let stat = engine.path_stat(&id, Params::of(&uri)?.required("path")?).await?;
    with_stat(StatusCode::OK.into_response(), &stat)
}

pub(crate) async fn get(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let (stat, bytes) = engine.archive_get(&id, Params::of(&uri)?.required("path")?).await?;
    with_stat(body::stream("application/x-tar", bytes), &stat)
}

pub(crate) async fn put(engine: State, Path(id): Path<String>, uri: Uri, body: Body) -> Result {
    let params = Params::of(&uri)?;
    let options = PutOptions {
        no_overwrite_dir_non_dir: params.flag("noOverwriteDirNonDir"),
        copy_uid_gid: params.flag("copyUIDGID"),
    };
    engine.archive_put(&id, params.required("path")?, options, body::source(body)).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn changes(engine: State, Path(id): Path<String>) -> Result {
    Ok(Json(engine.changes(&id).await?).into_response())
}

pub(crate) async fn export(engine: State, Path(id): Path<String>) -> Result {
    Ok(body::stream("application/x-tar", engine.export(&id).await?))
}
