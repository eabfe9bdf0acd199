//! The daemon itself.

use bytes::Bytes;
use creel_wire::system::{AuthResponse, DiskUsage, Event};
use serde::Serialize;

use crate::body::Lines;
use crate::connection::Outgoing;
use crate::{Client, Error, Query};

impl Client {
    /// Asks whether the daemon is there.
    ///
    /// # Errors
    /// [`Error::Connect`] when it is not.
    pub async fn ping(&self) -> Result<(), Error> {
        let reply = self.call(Outgoing::get("/_ping")).await?;
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(Error::Transport("GET /_ping".to_owned(), format!("the daemon answered {}", reply.status)))
        }
    }

    /// The daemon's version, as its own JSON text.
    ///
    /// # Errors
    /// The connection's.
    pub async fn version(&self) -> Result<Bytes, Error> {
        Ok(self.call(Outgoing::get("/version")).await?.bytes)
    }

    /// The daemon's view of itself and the host, as its own JSON text.
    ///
    /// # Errors
    /// The connection's.
    pub async fn info(&self) -> Result<Bytes, Error> {
        Ok(self.call(Outgoing::get("/info")).await?.bytes)
    }

    /// Has the daemon try credentials on their registry: Docker's `AuthConfig` object.
    ///
    /// # Errors
    /// 401 if the registry does not accept them.
    pub async fn auth(&self, credentials: &impl Serialize) -> Result<AuthResponse, Error> {
        self.call(Outgoing::post("/auth").json(credentials)?).await?.json()
    }

    /// What takes room on disk.
    ///
    /// # Errors
    /// The connection's.
    pub async fn disk_usage(&self) -> Result<DiskUsage, Error> {
        self.call(Outgoing::get("/system/df")).await?.json()
    }

    /// Events, from `since` (if given) to `until` (else for ever).
    ///
    /// # Errors
    /// 400 for an unknown filter or a bad time.
    pub async fn events(
        &self,
        since: Option<&str>,
        until: Option<&str>,
        filters: Option<&str>,
    ) -> Result<Lines<Event>, Error> {
        let query =
            Query::new().with_some("since", since).with_some("until", until).with_some("filters", filters);
        Ok(Lines::new(self.stream(Outgoing::get("/events").query(query)).await?, "events"))
    }
}
