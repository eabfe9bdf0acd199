//! `/exec`.

use creel_wire::exec::{ExecConfig, ExecInspect, ExecStart, IdResponse};

use crate::connection::Outgoing;
use crate::query::segment;
use crate::{Client, Error, Hijacked, Query};

impl Client {
    /// Prepares a process in a running container and returns its id.
    ///
    /// # Errors
    /// 404 when there is no such container, 409 when it does not run.
    pub async fn exec_create(&self, container: &str, config: &ExecConfig) -> Result<String, Error> {
        let path = format!("/containers/{}/exec", segment(container));
        let created: IdResponse = self.call(Outgoing::post(&path).json(config)?).await?.json()?;
        Ok(created.id)
    }

    /// Starts a prepared process and attaches to it.
    ///
    /// # Errors
    /// 400 when its program is missing or not executable.
    pub async fn exec_start(&self, id: &str, start: &ExecStart) -> Result<Hijacked, Error> {
        let path = format!("/exec/{}/start", segment(id));
        let text = serde_json::to_vec(start)
            .map_err(|e| Error::Transport(format!("writing the body of {path}"), e.to_string()))?;
        self.hijack(
            Outgoing::post(&path)
                .headers(&[("content-type", "application/json")])
                .body(crate::body::full(text)),
        )
        .await
    }

    /// Starts a prepared process without attaching to it.
    ///
    /// # Errors
    /// 400 when its program is missing or not executable.
    pub async fn exec_start_detached(&self, id: &str, tty: bool) -> Result<(), Error> {
        let path = format!("/exec/{}/start", segment(id));
        let start = ExecStart { detach: true, tty, console_size: None };
        self.call(Outgoing::post(&path).json(&start)?).await.map(drop)
    }

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it does not run.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let path = format!("/exec/{}/resize", segment(id));
        let query = Query::new().with("h", rows.to_string()).with("w", columns.to_string());
        self.call(Outgoing::post(&path).query(query)).await.map(drop)
    }

    /// Everything about the process.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspect, Error> {
        self.call(Outgoing::get(&format!("/exec/{}/json", segment(id)))).await?.json()
    }
}
