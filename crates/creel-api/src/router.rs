//! Every route with the function that answers it.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use creel_engine::Engine;
use http::{Method, Uri};

use crate::error::ApiError;
use crate::{containers, execs, files, images, system, volumes};

/// What every handler is given.
pub(crate) type State = axum::extract::State<Arc<Engine>>;

/// The routes of the Docker Engine API, without the version in front.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/df", get(system::disk_usage))
        .route("/auth", post(system::auth))
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/attach", post(containers::attach))
        .route("/containers/{id}/logs", get(containers::logs))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/stats", get(containers::stats))
        .route("/containers/{id}/changes", get(files::changes))
        .route("/containers/{id}/export", get(files::export))
        .route("/containers/{id}/archive", get(files::get).head(files::stat).put(files::put))
        .route("/containers/{id}/exec", post(execs::create))
        .route("/exec/{id}/start", post(execs::start))
        .route("/exec/{id}/resize", post(execs::resize))
        .route("/exec/{id}/json", get(execs::inspect))
        .route("/commit", post(images::commit))
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route("/images/load", post(images::load))
        .route("/images/get", get(images::save))
        .route("/images/prune", post(images::prune))
        .route("/creel/images/verify", post(images::verify))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
        // An image's name may hold slashes, so what is asked of it stands at the end of the path.
        .route("/images/{*rest}", any(images::by_name))
        .fallback(no_route)
        .with_state(engine)
}

async fn no_route(method: Method, uri: Uri) -> Response {
    ApiError::no_route(&method, uri.path()).into_response()
}
