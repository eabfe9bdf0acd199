//! `/containers`.

use bytes::Bytes;
use creel_types::Platform;
use creel_wire::container::{
    Change, ContainerSummary, ContainersPrune, CreateRequest, CreateResponse, PathStat, Top, WaitResponse,
};
use creel_wire::stats::Stats;
use http::Method;

use crate::body::{self, ByteBody, Lines, Upload};
use crate::connection::Outgoing;
use crate::query::segment;
use crate::{Client, Error, Hijacked, Query, Timed, timing};

/// What to attach to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// The output written so far, first.
    pub logs: bool,
    /// Keys that detach, like `ctrl-p,ctrl-q`; the daemon's default if `None`.
    pub detach_keys: Option<String>,
}

/// Which part of a container's log to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Put the time in front of each line.
    pub timestamps: bool,
    /// Put the attributes in front of each line.
    pub details: bool,
    /// Only from this time on: unix seconds with a fraction, or RFC 3339.
    pub since: Option<String>,
    /// Only up to this time.
    pub until: Option<String>,
    /// Only this many lines from the end, or `all`.
    pub tail: Option<String>,
}

/// A registered wait: from its existence on, the container's end cannot be missed.
#[derive(Debug)]
pub struct Waiting(Lines<WaitResponse>);

impl Waiting {
    /// Waits for the end.
    ///
    /// # Errors
    /// When the connection breaks off, as when the daemon ends.
    pub async fn end(mut self) -> Result<WaitResponse, Error> {
        self.0.next().await.unwrap_or_else(|| {
            Err(Error::Transport("waiting for the container".to_owned(), "the daemon hung up".to_owned()))
        })
    }
}

fn path(id: &str, what: &str) -> String {
    format!("/containers/{}{what}", segment(id))
}

impl Client {
    /// Makes a container.
    ///
    /// # Errors
    /// 404 when there is no such image, 409 when the name is in use.
    pub async fn create(
        &self,
        name: Option<&str>,
        platform: Option<&Platform>,
        request: &CreateRequest,
    ) -> Result<Timed<CreateResponse>, Error> {
        let query =
            Query::new().with_some("name", name).with_some("platform", platform.map(ToString::to_string));
        let reply = self.call(Outgoing::post("/containers/create").query(query).json(request)?).await?;
        Ok(Timed { value: reply.json()?, steps: timing::steps(&reply.headers) })
    }

    /// Starts a container; fine when it runs already.
    ///
    /// # Errors
    /// 404 when there is none; 400 when its program is missing or not executable.
    pub async fn start(&self, id: &str, detach_keys: Option<&str>) -> Result<Timed<()>, Error> {
        let query = Query::new().with_some("detachKeys", detach_keys);
        let reply = self.call(Outgoing::post(&path(id, "/start")).query(query)).await?;
        Ok(Timed { value: (), steps: timing::steps(&reply.headers) })
    }

    async fn act(&self, id: &str, what: &str, query: Query) -> Result<(), Error> {
        self.call(Outgoing::post(&path(id, what)).query(query)).await.map(drop)
    }

    /// Stops a container: its stop signal (or this one), and SIGKILL after `timeout` seconds (-1 never).
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn stop(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<(), Error> {
        let query = Query::new().with_some("signal", signal).with_some("t", timeout.map(|t| t.to_string()));
        self.act(id, "/stop", query).await
    }

    /// Stops a container, as [`Client::stop`] does, and starts it.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn restart(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<(), Error> {
        let query = Query::new().with_some("signal", signal).with_some("t", timeout.map(|t| t.to_string()));
        self.act(id, "/restart", query).await
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it does not run.
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<(), Error> {
        self.act(id, "/kill", Query::new().with_some("signal", signal)).await
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it does not run or is frozen.
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        self.act(id, "/pause", Query::new()).await
    }

    /// Thaws a container's processes.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it is not frozen.
    pub async fn unpause(&self, id: &str) -> Result<(), Error> {
        self.act(id, "/unpause", Query::new()).await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// 404 when there is none, 409 when the name is in use.
    pub async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        self.act(id, "/rename", Query::new().with("name", name)).await
    }

    /// Tells a container's terminal its size.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it does not run.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let query = Query::new().with("h", rows.to_string()).with("w", columns.to_string());
        self.act(id, "/resize", query).await
    }

    /// Registers a wait: `not-running`, `next-exit` or `removed`.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn wait(&self, id: &str, condition: &str) -> Result<Waiting, Error> {
        let query = Query::new().with("condition", condition);
        let body = self.stream(Outgoing::post(&path(id, "/wait")).query(query)).await?;
        Ok(Waiting(Lines::new(body, "wait")))
    }

    /// Removes a container: `force` kills it first, `volumes` takes its anonymous volumes along.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it runs.
    pub async fn remove(&self, id: &str, force: bool, volumes: bool, link: bool) -> Result<Timed<()>, Error> {
        let query = Query::new().with_flag("v", volumes).with_flag("force", force).with_flag("link", link);
        let reply = self.call(Outgoing::new(Method::DELETE, &path(id, "")).query(query)).await?;
        Ok(Timed { value: (), steps: timing::steps(&reply.headers) })
    }

    /// Lists containers; `filters` is Docker's JSON.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn list(
        &self,
        all: bool,
        limit: Option<i64>,
        size: bool,
        filters: Option<&str>,
    ) -> Result<Vec<ContainerSummary>, Error> {
        let query = Query::new()
            .with_flag("all", all)
            .with_flag("size", size)
            .with_some("limit", limit.map(|n| n.to_string()))
            .with_some("filters", filters);
        self.call(Outgoing::get("/containers/json").query(query)).await?.json()
    }

    /// Everything about a container, as the daemon's own JSON text.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn inspect(&self, id: &str, size: bool) -> Result<Bytes, Error> {
        let query = Query::new().with_flag("size", size);
        Ok(self.call(Outgoing::get(&path(id, "/json")).query(query)).await?.bytes)
    }

    /// Everything about a container, read.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn inspected(&self, id: &str) -> Result<creel_wire::container::ContainerInspect, Error> {
        self.call(Outgoing::get(&path(id, "/json"))).await?.json()
    }

    /// Attaches to a container, running or not yet started.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it cannot be attached to.
    pub async fn attach(&self, id: &str, o: &AttachOptions) -> Result<Hijacked, Error> {
        let query = Query::new()
            .with("stream", "1")
            .with_flag("stdin", o.stdin)
            .with_flag("stdout", o.stdout)
            .with_flag("stderr", o.stderr)
            .with_flag("logs", o.logs)
            .with_some("detachKeys", o.detach_keys.as_deref());
        self.hijack(Outgoing::post(&path(id, "/attach")).query(query)).await
    }

    /// A container's log: frames of stdout and stderr, or raw bytes if it has a terminal.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn logs(&self, id: &str, o: &LogOptions) -> Result<ByteBody, Error> {
        let query = Query::new()
            .with("stdout", "1")
            .with("stderr", "1")
            .with_flag("follow", o.follow)
            .with_flag("timestamps", o.timestamps)
            .with_flag("details", o.details)
            .with_some("since", o.since.as_deref())
            .with_some("until", o.until.as_deref())
            .with_some("tail", o.tail.as_deref());
        self.stream(Outgoing::get(&path(id, "/logs")).query(query)).await
    }

    /// A container's processes, as ps(1) with these arguments lists them.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it does not run.
    pub async fn top(&self, id: &str, ps_args: Option<&str>) -> Result<Top, Error> {
        let query = Query::new().with_some("ps_args", ps_args);
        self.call(Outgoing::get(&path(id, "/top")).query(query)).await?.json()
    }

    /// A container's figures: one reading, or one a second.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn stats(&self, id: &str, stream: bool) -> Result<Lines<Stats>, Error> {
        let query = Query::new().with("stream", if stream { "1" } else { "0" });
        let body = self.stream(Outgoing::get(&path(id, "/stats")).query(query)).await?;
        Ok(Lines::new(body, "stats"))
    }

    /// What changed in a container's files; `None` reads as nothing.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn changes(&self, id: &str) -> Result<Vec<Change>, Error> {
        let list: Option<Vec<Change>> = self.call(Outgoing::get(&path(id, "/changes"))).await?.json()?;
        Ok(list.unwrap_or_default())
    }

    /// A container's whole tree as a tar.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn export(&self, id: &str) -> Result<ByteBody, Error> {
        self.stream(Outgoing::get(&path(id, "/export"))).await
    }

    /// What is at a path in a container; a symbolic link at its end is not followed.
    ///
    /// # Errors
    /// 404 when there is no such container or path.
    pub async fn path_stat(&self, id: &str, inside: &str) -> Result<PathStat, Error> {
        let query = Query::new().with("path", inside);
        let request = path(id, "/archive");
        let reply =
            self.call(Outgoing::new(Method::HEAD, &request).query(query)).await.map_err(|e| match e {
                // A HEAD has no body, so the daemon's reason cannot come; this is what a 404 means here.
                Error::Status { status: 404, .. } => Error::Status {
                    status: 404,
                    message: format!("Could not find the file {inside} in container {id}"),
                },
                other => other,
            })?;
        let header = reply.headers.get("x-docker-container-path-stat").and_then(|value| value.to_str().ok());
        read_stat(header)
    }

    /// A path of a container's as a tar, with what is there.
    ///
    /// # Errors
    /// 404 when there is no such container or path.
    pub async fn archive_get(&self, id: &str, inside: &str) -> Result<(PathStat, ByteBody), Error> {
        let query = Query::new().with("path", inside);
        let body = self.stream(Outgoing::get(&path(id, "/archive")).query(query)).await?;
        let stat = read_stat(body.header("x-docker-container-path-stat"))?;
        Ok((stat, body))
    }

    /// Unpacks a tar in a directory of a container. `keep_owners` sets the archive's owners, and `no_replace` refuses
    /// to put a directory where something else is, and the reverse.
    ///
    /// # Errors
    /// 404 when there is no such container or directory, 400 when the path is no directory.
    pub async fn archive_put(
        &self,
        id: &str,
        inside: &str,
        keep_owners: bool,
        no_replace: bool,
        tar: Upload,
    ) -> Result<(), Error> {
        let query = Query::new()
            .with("path", inside)
            .with("noOverwriteDirNonDir", if no_replace { "true" } else { "false" })
            .with_flag("copyUIDGID", keep_owners);
        let path = path(id, "/archive");
        let request = Outgoing::new(Method::PUT, &path)
            .query(query)
            .headers(&[("content-type", "application/x-tar")])
            .body(body::upload(tar));
        self.call(request).await.map(drop)
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn prune_containers(&self, filters: Option<&str>) -> Result<ContainersPrune, Error> {
        let query = Query::new().with_some("filters", filters);
        self.call(Outgoing::post("/containers/prune").query(query)).await?.json()
    }
}

fn read_stat(header: Option<&str>) -> Result<PathStat, Error> {
    use base64::Engine as _;
    let wrong = |why: String| Error::Decode("stat".to_owned(), why);
    let text = header.ok_or_else(|| wrong("there is no X-Docker-Container-Path-Stat header".to_owned()))?;
    let json =
        base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))
}
