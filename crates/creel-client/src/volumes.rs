//! `/volumes`.

use bytes::Bytes;
use creel_wire::volume::{Volume, VolumeCreate, VolumeList, VolumesPrune};
use http::Method;

use crate::connection::Outgoing;
use crate::query::name;
use crate::{Client, Error, Query};

impl Client {
    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// 400 for a name or an option that cannot be, 404 for an unknown driver, 409 when another driver has that name.
    pub async fn volume_create(&self, request: &VolumeCreate) -> Result<Volume, Error> {
        self.call(Outgoing::post("/volumes/create").json(request)?).await?.json()
    }

    /// Lists volumes; `filters` is Docker's JSON.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn volumes(&self, filters: Option<&str>) -> Result<VolumeList, Error> {
        let query = Query::new().with_some("filters", filters);
        self.call(Outgoing::get("/volumes").query(query)).await?.json()
    }

    /// Everything about a volume, as the daemon's own JSON text.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn volume_inspect(&self, volume: &str) -> Result<Bytes, Error> {
        Ok(self.call(Outgoing::get(&format!("/volumes/{}", name(volume)))).await?.bytes)
    }

    /// Removes a volume with its data; with `force`, none of that name is as good.
    ///
    /// # Errors
    /// 404 when there is none, 409 when a container uses it.
    pub async fn volume_remove(&self, volume: &str, force: bool) -> Result<(), Error> {
        let query = Query::new().with_flag("force", force);
        let path = format!("/volumes/{}", name(volume));
        self.call(Outgoing::new(Method::DELETE, &path).query(query)).await.map(drop)
    }

    /// Removes unused volumes: anonymous ones, or with the filter `all` all of them.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn volume_prune(&self, filters: Option<&str>) -> Result<VolumesPrune, Error> {
        let query = Query::new().with_some("filters", filters);
        self.call(Outgoing::post("/volumes/prune").query(query)).await?.json()
    }
}
