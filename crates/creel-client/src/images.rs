//! `/images` and `/commit`.

use bytes::Bytes;
use creel_types::Platform;
use creel_wire::container::Config;
use creel_wire::exec::IdResponse;
use creel_wire::image::{HistoryItem, ImageDelete, ImageSummary, ImagesPrune, ProgressMessage};
use http::Method;

use crate::body::{self, ByteBody, Lines, Upload};
use crate::connection::Outgoing;
use crate::query::name;
use crate::{Client, Error, Query};

/// What an import makes of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Repository of the new image.
    pub repository: Option<String>,
    /// Tag of the new image.
    pub tag: Option<String>,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Message of its history.
    pub message: Option<String>,
    /// Platform it is for, as text.
    pub platform: Option<String>,
}

/// What a commit makes of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitOptions {
    /// Repository of the new image.
    pub repository: Option<String>,
    /// Tag of the new image.
    pub tag: Option<String>,
    /// Author.
    pub author: Option<String>,
    /// Message of its history.
    pub message: Option<String>,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Whether the container is frozen meanwhile.
    pub pause: bool,
}

/// Docker's name for no credentials: base64 of `{}`.
const NO_AUTH: &str = "e30=";

impl Client {
    /// Lists images; `filters` is Docker's JSON.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn images(&self, all: bool, filters: Option<&str>) -> Result<Vec<ImageSummary>, Error> {
        let query = Query::new().with_flag("all", all).with_some("filters", filters);
        self.call(Outgoing::get("/images/json").query(query)).await?.json()
    }

    /// Everything about an image, as the daemon's own JSON text.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn image_inspect(&self, image: &str) -> Result<Bytes, Error> {
        Ok(self.call(Outgoing::get(&format!("/images/{}/json", name(image)))).await?.bytes)
    }

    /// How an image was made, the newest step first.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn image_history(&self, image: &str) -> Result<Vec<HistoryItem>, Error> {
        self.call(Outgoing::get(&format!("/images/{}/history", name(image)))).await?.json()
    }

    /// Removes a reference, and with the last one the image.
    ///
    /// # Errors
    /// 404 when there is none, 409 when a container uses it or several references name it.
    pub async fn image_remove(
        &self,
        image: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDelete>, Error> {
        let query = Query::new().with_flag("force", force).with_flag("noprune", no_prune);
        self.call(Outgoing::new(Method::DELETE, &format!("/images/{}", name(image))).query(query))
            .await?
            .json()
    }

    /// Gives an image one more reference.
    ///
    /// # Errors
    /// 404 when there is no such image, 400 for a bad reference.
    pub async fn tag(&self, image: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let query = Query::new().with("repo", repository).with("tag", tag);
        self.call(Outgoing::post(&format!("/images/{}/tag", name(image))).query(query)).await.map(drop)
    }

    /// Pulls an image; `tag` may be a digest. `auth` is base64 of JSON, as Docker's header has it.
    ///
    /// # Errors
    /// 400 for a bad reference; failures later on come as messages.
    pub async fn pull(
        &self,
        repository: &str,
        tag: &str,
        platform: Option<&Platform>,
        auth: Option<&str>,
    ) -> Result<Lines<ProgressMessage>, Error> {
        let query = Query::new()
            .with("fromImage", repository)
            .with("tag", tag)
            .with_some("platform", platform.map(ToString::to_string));
        let headers = [("x-registry-auth", auth.unwrap_or(NO_AUTH))];
        let body = self.stream(Outgoing::post("/images/create").query(query).headers(&headers)).await?;
        Ok(Lines::new(body, "pull"))
    }

    /// Pushes an image. `auth` is base64 of JSON, as Docker's header has it.
    ///
    /// # Errors
    /// 404 when there is none; failures later on come as messages.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        auth: Option<&str>,
    ) -> Result<Lines<ProgressMessage>, Error> {
        let path = format!("/images/{}/push", name(repository));
        let headers = [("x-registry-auth", auth.unwrap_or(NO_AUTH))];
        let body =
            self.stream(Outgoing::post(&path).query(Query::new().with("tag", tag)).headers(&headers)).await?;
        Ok(Lines::new(body, "push"))
    }

    /// Loads the images of an archive.
    ///
    /// # Errors
    /// The daemon's; failures later on come as messages.
    pub async fn load(&self, quiet: bool, tar: Upload) -> Result<Lines<ProgressMessage>, Error> {
        let query = Query::new().with("quiet", if quiet { "1" } else { "0" });
        let request = Outgoing::post("/images/load")
            .query(query)
            .headers(&[("content-type", "application/x-tar")])
            .body(body::upload(tar));
        Ok(Lines::new(self.stream(request).await?, "load"))
    }

    /// Images as one archive.
    ///
    /// # Errors
    /// 404 when one does not exist.
    pub async fn save(&self, images: &[String]) -> Result<ByteBody, Error> {
        let query = images.iter().fold(Query::new(), |query, image| query.with("names", image));
        self.stream(Outgoing::get("/images/get").query(query)).await
    }

    /// Makes an image of a root file system's tar; of one that the daemon fetches if `source` is not `-`.
    ///
    /// # Errors
    /// The daemon's; failures later on come as messages.
    pub async fn import(
        &self,
        source: &str,
        tar: Upload,
        o: &ImportOptions,
    ) -> Result<Lines<ProgressMessage>, Error> {
        let mut query = Query::new()
            .with("fromSrc", source)
            .with_some("repo", o.repository.as_deref())
            .with_some("tag", o.tag.as_deref())
            .with_some("message", o.message.as_deref())
            .with_some("platform", o.platform.as_deref());
        for change in &o.changes {
            query = query.with("changes", change);
        }
        let request = Outgoing::post("/images/create")
            .query(query)
            .headers(&[("content-type", "application/x-tar")])
            .body(body::upload(tar));
        Ok(Lines::new(self.stream(request).await?, "import"))
    }

    /// Has everything verified that these images consist of, or everything there is; only a look changes nothing. The
    /// last message has the report in its field `aux`.
    ///
    /// # Errors
    /// 404 when an image does not exist, or the daemon is not creel's.
    pub async fn verify_images(
        &self,
        images: &[String],
        only_look: bool,
    ) -> Result<Lines<ProgressMessage>, Error> {
        let query = images.iter().fold(Query::new(), |query, image| query.with("names", image));
        let query = query.with_flag("only-look", only_look);
        let body = self.stream(Outgoing::post("/creel/images/verify").query(query)).await?;
        Ok(Lines::new(body, "verify"))
    }

    /// Makes an image of a container and returns its id.
    ///
    /// # Errors
    /// 404 when there is no such container, 400 for a bad reference or change.
    pub async fn commit(&self, container: &str, o: &CommitOptions) -> Result<String, Error> {
        let mut query = Query::new()
            .with("container", container)
            .with_some("repo", o.repository.as_deref())
            .with_some("tag", o.tag.as_deref())
            .with_some("author", o.author.as_deref())
            .with_some("comment", o.message.as_deref());
        for change in &o.changes {
            query = query.with("changes", change);
        }
        if !o.pause {
            query = query.with("pause", "0");
        }
        let none: Option<Config> = None;
        let reply = self.call(Outgoing::post("/commit").query(query).json(&none)?).await?;
        Ok(reply.json::<IdResponse>()?.id)
    }

    /// Removes images that nothing uses.
    ///
    /// # Errors
    /// 400 for an unknown filter.
    pub async fn prune_images(&self, filters: Option<&str>) -> Result<ImagesPrune, Error> {
        let query = Query::new().with_some("filters", filters);
        self.call(Outgoing::post("/images/prune").query(query)).await?.json()
    }
}
