//! `/containers`: the life of a container, its output and its figures.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use creel_engine::{AttachOptions, ListOptions, LogOptions, RemoveOptions, WaitCondition};
use creel_wire::container::CreateRequest;
use creel_wire::stats::Stats;
use http::{Request, StatusCode, Uri};
use tokio::sync::mpsc;
use tokio::time::{Duration, MissedTickBehavior};

use crate::error::ApiError;
use crate::params::Params;
use crate::router::State;
use crate::{body, hijack};

type Result<T = Response> = std::result::Result<T, ApiError>;

/// Between two readings of `stats`.
const STATS_PERIOD: Duration = Duration::from_secs(1);

fn done() -> Result {
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn list(engine: State, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let limit: Option<i64> = params.number("limit")?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let options = ListOptions {
        all: params.flag("all") || limit.is_some(),
        limit,
        size: params.flag("size"),
        filters: params.filters()?,
    };
    Ok(Json(engine.list(options).await?).into_response())
}

pub(crate) async fn create(engine: State, uri: Uri, body: Body) -> Result {
    let params = Params::of(&uri)?;
    let request: CreateRequest = body::json(body).await?;
    let begin = std::time::Instant::now();
    let created = engine.create(params.get("name"), request, params.platform()?).await?;
    let response = (StatusCode::CREATED, Json(created)).into_response();
    Ok(body::with_timing(response, &[("daemon.create".to_owned(), begin.elapsed())]))
}

pub(crate) async fn start(engine: State, Path(id): Path<String>) -> Result {
    let timings = engine.start(&id).await?;
    Ok(body::with_timing(StatusCode::NO_CONTENT.into_response(), &timings))
}

pub(crate) async fn stop(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    engine.stop(&id, params.get("signal"), params.number("t")?).await?;
    done()
}

pub(crate) async fn restart(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    engine.restart(&id, params.get("signal"), params.number("t")?).await?;
    done()
}

pub(crate) async fn kill(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    engine.kill(&id, Params::of(&uri)?.get("signal")).await?;
    done()
}

pub(crate) async fn pause(engine: State, Path(id): Path<String>) -> Result {
    engine.pause(&id).await?;
    done()
}

pub(crate) async fn unpause(engine: State, Path(id): Path<String>) -> Result {
    engine.unpause(&id).await?;
    done()
}

pub(crate) async fn rename(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    engine.rename(&id, Params::of(&uri)?.required("name")?).await?;
    done()
}

pub(crate) async fn remove(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let options =
        RemoveOptions { force: params.flag("force"), volumes: params.flag("v"), link: params.flag("link") };
    let begin = std::time::Instant::now();
    engine.remove(&id, options).await?;
    Ok(body::with_timing(StatusCode::NO_CONTENT.into_response(), &[("remove".to_owned(), begin.elapsed())]))
}

pub(crate) async fn prune(engine: State, uri: Uri) -> Result {
    Ok(Json(engine.prune_containers(Params::of(&uri)?.filters()?).await?).into_response())
}

pub(crate) async fn inspect(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    Ok(Json(engine.inspect(&id, Params::of(&uri)?.flag("size")).await?).into_response())
}

pub(crate) async fn wait(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let condition = match params.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::invalid(format!("invalid condition: \"{other}\""))),
    };
    let handle = engine.wait(&id, condition).await?;
    Ok(body::later(handle.wait()))
}

pub(crate) async fn resize(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let (height, width) = size(&Params::of(&uri)?)?;
    engine.resize(&id, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

/// Rows and columns from `h` and `w`.
pub(crate) fn size(params: &Params) -> Result<(u16, u16)> {
    let missing = |name: &str| ApiError::invalid(format!("the query parameter `{name}` is missing"));
    Ok((params.number("h")?.ok_or_else(|| missing("h"))?, params.number("w")?.ok_or_else(|| missing("w"))?))
}

pub(crate) async fn attach(engine: State, Path(id): Path<String>, request: Request<Body>) -> Result {
    let params = Params::of(request.uri())?;
    let options = AttachOptions {
        stdin: params.flag("stdin"),
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        stream: params.flag("stream"),
        logs: params.flag("logs"),
        detach_keys: params.get("detachKeys").map(str::to_owned),
    };
    let attachment = engine.attach(&id, options).await?;
    let tty = attachment.tty;
    Ok(hijack::run(request, tty, move |io| async move {
        if let Err(e) = attachment.run(io).await {
            tracing::debug!("an attached client: {e}");
        }
    }))
}

pub(crate) async fn logs(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let options = LogOptions {
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        since: params.time("since")?,
        until: params.time("until")?,
        timestamps: params.flag("timestamps"),
        // Docker reads whatever is not a number as "all".
        tail: params.get("tail").and_then(|text| text.parse().ok()),
        follow: params.flag("follow"),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let logs = engine.logs(&id, options).await?;
    let content_type = if logs.tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    Ok(body::stream(content_type, logs.bytes))
}

pub(crate) async fn top(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    Ok(Json(engine.top(&id, Params::of(&uri)?.get("ps_args")).await?).into_response())
}

pub(crate) async fn stats(engine: State, Path(id): Path<String>, uri: Uri) -> Result {
    let params = Params::of(&uri)?;
    let stream = params.flag_or("stream", true);
    let one_shot = params.flag("one-shot");
    if stream && one_shot {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
    }
    let first = engine.stats(&id).await?;
    if one_shot {
        return Ok(Json(first).into_response());
    }
    if !stream {
        // One reading needs one before it, or the processor's share could not be told.
        tokio::time::sleep(STATS_PERIOD).await;
        let second = engine.stats(&id).await?;
        return Ok(Json(follow(&first, second)).into_response());
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticker = tokio::time::interval(STATS_PERIOD);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticker.tick().await;
        let mut before = first.clone();
        let mut reading = first;
        loop {
            if sender.send(reading).await.is_err() {
                return;
            }
            ticker.tick().await;
            match engine.stats(&id).await {
                Ok(next) => {
                    reading = follow(&before, next.clone());
                    before = next;
                }
                Err(_) => return,
            }
        }
    });
    Ok(body::lines(receiver))
}

fn follow(before: &Stats, now: Stats) -> Stats {
    Stats { preread: before.read.clone(), precpu_stats: before.cpu_stats.clone(), ..now }
}
