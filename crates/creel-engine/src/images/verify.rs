//! Verifying images: the store reads everything again, and its findings are put into the API's words.

use std::sync::Arc;

use creel_store::{Checking, Content, Damage, Fate, VerifyOptions, VerifyReport};
use creel_wire::image::{ProgressDetail, ProgressMessage};
use creel_wire::verify::{DamagedContent, IncompleteImage, Verified};
use tokio::sync::mpsc::{self, Receiver};

use super::streams::{MESSAGES, failure};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};

/// Verifies these images, or everything if there are none.
pub(crate) fn verify(
    core: &Arc<Core>,
    names: &[String],
    only_look: bool,
) -> Result<Receiver<ProgressMessage>> {
    let images = match names {
        [] => None,
        names => Some(
            names.iter().map(|name| Ok(core.store.resolve_image(name)?.id)).collect::<Result<Vec<_>>>()?,
        ),
    };
    let options = VerifyOptions { images, quarantine: !only_look };
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let core = core.clone();
    tokio::spawn(async move {
        let (this, out) = (core.clone(), sender.clone());
        let found = blocking(move || {
            let mut tell = |checking: Checking| {
                // How far it is may be lost on a slow client; one that has gone ends it.
                let _ = out.try_send(step(checking));
                !out.is_closed()
            };
            Ok(this.store.verify(&options, &mut tell)?)
        });
        let message = match found.await {
            Ok(report) => {
                for damage in &report.damaged {
                    tracing::error!("{} is damaged ({})", damage.content, damage.what.join("; "));
                    for image in &damage.images {
                        super::tell(&core, "damaged", image, &damage.content.to_string());
                    }
                }
                match serde_json::to_value(document(report)) {
                    Ok(aux) => ProgressMessage { aux: Some(aux), ..ProgressMessage::default() },
                    Err(e) => failure(&Error::internal(format!("writing the report: {e}"))),
                }
            }
            Err(e) => failure(&e),
        };
        let _ = sender.send(message).await;
    });
    Ok(receiver)
}

fn step(checking: Checking) -> ProgressMessage {
    let (id, status) = match checking.content {
        Content::Blob(_) => ("blobs", "Reading"),
        Content::Layer(_) => ("layers", "Comparing"),
    };
    let number = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
    ProgressMessage {
        id: Some(id.to_owned()),
        status: Some(status.to_owned()),
        progress_detail: Some(ProgressDetail {
            current: number(checking.done),
            total: number(checking.total),
        }),
        ..ProgressMessage::default()
    }
}

fn document(report: VerifyReport) -> Verified {
    Verified {
        whole: report.is_whole(),
        blobs: report.blobs,
        layers: report.layers,
        bytes: report.bytes,
        unproven: report.unproven.iter().map(ToString::to_string).collect(),
        incomplete: report
            .incomplete
            .into_iter()
            .map(|one| IncompleteImage {
                image: one.image,
                lacks: one.lacks.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        unchecked: report.unchecked,
        damaged: report.damaged.into_iter().map(damaged).collect(),
    }
}

fn damaged(damage: Damage) -> DamagedContent {
    let (kind, digest) = match damage.content {
        Content::Blob(digest) => ("blob", digest.to_string()),
        Content::Layer(layer) => ("layer", layer.to_string()),
    };
    let (fate, path, reason) = match damage.fate {
        Fate::Left => ("left", None, String::new()),
        Fate::Quarantined(path) => ("quarantined", path, String::new()),
        Fate::Replaced(path) => ("replaced", path, String::new()),
        Fate::Stuck(why) => ("stuck", None, why),
    };
    DamagedContent {
        kind: kind.to_owned(),
        digest,
        what: damage.what,
        count: damage.count,
        images: damage.images,
        containers: damage.containers.iter().map(ToString::to_string).collect(),
        fate: fate.to_owned(),
        path: path.map(|path| path.display().to_string()).unwrap_or_default(),
        reason,
    }
}
