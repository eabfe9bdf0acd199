//! `/images` and `/commit`: images and how they come and go.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use creel_engine::{Auth, CommitOptions, ImportOptions};
use creel_types::Reference;
use creel_wire::container::Config;
use creel_wire::exec::IdResponse;
use http::{HeaderMap, Method, StatusCode, Uri};

use crate::body;
use crate::error::ApiError;
use crate::params::{Params, reference};
use crate::router::State;

type Result<T = Response> = std::result::Result<T, ApiError>;

/// Credentials that a client sends along in `X-Registry-Auth`; none if there is no such header.
fn auth(headers: &HeaderMap) -> Result<Option<Auth>> {
    let Some(value) = headers.get("X-Registry-Auth") else { return Ok(None) };
    let wrong = |why: String| ApiError::invalid(format!("the header X-Registry-Auth does not parse: {why}"));
    Auth::from_header(value.to_str().map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))
}

pub(crate) async fn list(engine: State, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    Ok(Json(engine.images(params.flag("all"), params.flag("shared-size"), params.filters()?).await?)
        .into_response())
}

/// `POST /images/create`: a pull with `fromImage`, an import with `fromSrc`.
pub(crate) async fn create(engine: State, uri: Uri, headers: HeaderMap, body: Body) -> Result {
    let params = Params::of(&uri)?;
    let platform = params.platform()?;
    if let Some(source) = params.get("fromSrc") {
        if source != "-" {
            return Err(ApiError::invalid(
                "fromSrc takes only `-`: the daemon fetches no URL; download it and send the file",
            ));
        }
        let reference = params.get("repo").map(|name| reference(name, params.get("tag"))).transpose()?;
        let options = ImportOptions {
            reference: reference.map(Reference::with_default_tag),
            changes: params.all("changes"),
            message: params.get("message").map(str::to_owned),
            platform,
        };
        return Ok(body::lines(engine.import(body::source(body), options).await?));
    }
    let reference = reference(params.required("fromImage")?, params.get("tag"))?.with_default_tag();
    Ok(body::lines(engine.pull(reference, platform, auth(&headers)?).await?))
}

pub(crate) async fn load(engine: State, uri: Uri, body: Body) -> Result {
    let quiet = Params::of(&uri)?.flag("quiet");
    Ok(body::lines(engine.load(body::source(body), quiet).await?))
}

pub(crate) async fn save(engine: State, uri: Uri) -> Result {
    let names = Params::of(&uri)?.all("names");
    if names.is_empty() {
        return Err(ApiError::invalid("the query parameter `names` is missing"));
    }
    Ok(body::stream("application/x-tar", engine.save(names).await?))
}

pub(crate) async fn prune(engine: State, uri: Uri) -> Result {
    Ok(Json(engine.image_prune(Params::of(&uri)?.filters()?).await?).into_response())
}

/// `POST /creel/images/verify`: creel's own, see `creel_wire::verify`. `names` may come several times.
pub(crate) async fn verify(engine: State, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    Ok(body::lines(engine.image_verify(&params.all("names"), params.flag("only-look"))?))
}

pub(crate) async fn commit(engine: State, uri: Uri, body: Body) -> Result {
    let params = Params::of(&uri)?;
    let config: Option<Config> = body::json(body).await?;
    let reference = params.get("repo").map(|name| reference(name, params.get("tag"))).transpose()?;
    let options = CommitOptions {
        reference: reference.map(Reference::with_default_tag),
        author: params.get("author").map(str::to_owned),
        message: params.get("comment").map(str::to_owned),
        pause: params.flag_or("pause", true),
        changes: params.all("changes"),
        config,
    };
    let id = engine.commit(params.required("container")?, options).await?;
    Ok((StatusCode::CREATED, Json(IdResponse { id })).into_response())
}

/// Everything that is asked of one image, whose name stands before the last part of the path.
pub(crate) async fn by_name(
    engine: State,
    method: Method,
    Path(rest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result {
    let params = Params::of(&uri)?;
    if method == Method::DELETE {
        let removed = engine.image_remove(&rest, params.flag("force"), !params.flag("noprune")).await?;
        return Ok(Json(removed).into_response());
    }
    let no_route = || ApiError::no_route(&method, uri.path());
    let (name, what) = rest.rsplit_once('/').ok_or_else(no_route)?;
    match (method.as_str(), what) {
        ("GET", "json") => Ok(Json(engine.image_inspect(name).await?).into_response()),
        ("GET", "history") => Ok(Json(engine.image_history(name).await?).into_response()),
        ("GET", "get") => Ok(body::stream("application/x-tar", engine.save(vec![name.to_owned()]).await?)),
        ("POST", "tag") => {
            let target = reference(params.required("repo")?, params.get("tag"))?.with_default_tag();
            engine.tag(name, target).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        ("POST", "push") => {
            let reference = reference(name, params.get("tag"))?.with_default_tag();
            Ok(body::lines(engine.push(reference, auth(&headers)?).await?))
        }
        _ => Err(no_route()),
    }
}
