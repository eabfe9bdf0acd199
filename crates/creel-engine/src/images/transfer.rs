//! Pull, push, load, save and import: the store's and the registries' work, with its progress handed on.

use std::io::Write;
use std::sync::Arc;

use creel_distribution::{Auth, LoadOptions, Progress, PullOptions, PushOptions, RegistryOptions};
use creel_store::{Content, ImageRecord};
use creel_types::{ErrorKind, Platform, Reference};
use creel_wire::image::ProgressMessage;
use creel_wire::system::AuthResponse;
use tokio::sync::mpsc::{self, Receiver};

use super::streams::{MESSAGES, Messages, SourceReader, StreamWriter, failure, output, status};
use super::{hello, tell};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::options::{ByteSource, ByteStream, ImportOptions};

fn registry(core: &Core, auth: Option<Auth>) -> RegistryOptions {
    RegistryOptions { auth, config: core.config.registries.clone(), ..RegistryOptions::default() }
}

/// Tries credentials.
pub(crate) async fn login(core: &Core, auth: Auth) -> Result<AuthResponse> {
    let token = creel_distribution::login(&auth, &registry(core, None)).await.map_err(|e| Error::of(&e))?;
    Ok(AuthResponse { status: "Login Succeeded".to_owned(), identity_token: token.unwrap_or_default() })
}

/// Pulls an image; the embedded one needs no registry.
pub(crate) fn pull(
    core: &Arc<Core>,
    reference: Reference,
    platform: Option<Platform>,
    auth: Option<Auth>,
) -> Receiver<ProgressMessage> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let core = core.clone();
    tokio::spawn(async move {
        let done = if hello::is(&reference) {
            hello::provide(&core, platform.as_ref(), &sender).await
        } else {
            let options = PullOptions { registry: registry(&core, auth), platform, ..PullOptions::default() };
            let (core, reference, sender) = (core.clone(), reference.clone(), sender.clone());
            // On a thread of its own: what a pull does between its awaits is not small either.
            let runtime = tokio::runtime::Handle::current();
            blocking(move || {
                runtime.block_on(async {
                    let progress: Arc<dyn Progress> = Arc::new(Messages(sender.clone()));
                    // A client that hangs up ends the pull; what was fetched stays for the next attempt.
                    tokio::select! {
                        done = creel_distribution::pull(&core.store, &reference, &options, &progress) => {
                            done.map(drop).map_err(|e| Error::of(&e))
                        }
                        () = sender.closed() => Ok(()),
                    }
                })
            })
            .await
        };
        match done {
            Ok(()) => tell(&core, "pull", &reference.familiar(), &reference.familiar_name()),
            Err(e) => {
                let _ = sender.send(failure(&e)).await;
            }
        }
    });
    receiver
}

/// Pushes an image.
pub(crate) fn push(
    core: &Arc<Core>,
    reference: Reference,
    auth: Option<Auth>,
) -> Result<Receiver<ProgressMessage>> {
    let name = reference.familiar();
    if core.store.reference(&reference).is_none() {
        return Err(Error::not_found(format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        )));
    }
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let core = core.clone();
    tokio::spawn(async move {
        let options = PushOptions { registry: registry(&core, auth), ..PushOptions::default() };
        let progress: Arc<dyn Progress> = Arc::new(Messages(sender.clone()));
        let done = tokio::select! {
            done = creel_distribution::push(&core.store, &reference, &options, &progress) => done,
            () = sender.closed() => return,
        };
        match done {
            Ok(_) => tell(&core, "push", &name, &reference.familiar_name()),
            Err(e) => {
                let _ = sender.send(failure(&Error::of(&e))).await;
            }
        }
    });
    Ok(receiver)
}

/// Loads the images of an archive.
pub(crate) fn load(core: &Arc<Core>, tar: ByteSource, quiet: bool) -> Receiver<ProgressMessage> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let core = core.clone();
    tokio::spawn(async move {
        let (store, progress) = (core.store.clone(), Messages(sender.clone()));
        let policy = core.config.registries.policy.clone();
        let loaded = blocking(move || {
            let reader = SourceReader::new(tar);
            let options = LoadOptions { policy, ..LoadOptions::default() };
            let loaded = if quiet {
                creel_distribution::load(&store, reader, &options, &creel_distribution::Silent)
            } else {
                creel_distribution::load(&store, reader, &options, &progress)
            };
            loaded.map_err(|e| Error::of(&e))
        });
        match loaded.await {
            Ok(images) => {
                for image in images {
                    let lines: Vec<String> = if image.references.is_empty() {
                        vec![format!("Loaded image ID: {}\n", image.image)]
                    } else {
                        image.references.iter().map(|r| format!("Loaded image: {}\n", r.familiar())).collect()
                    };
                    for line in lines {
                        let _ = sender.send(output(line)).await;
                    }
                    tell(&core, "load", &image.image.to_string(), &image.image.to_string());
                }
            }
            Err(e) => {
                let _ = sender.send(failure(&e)).await;
            }
        }
    });
    receiver
}

/// The images that a name means to `save`: without a tag all of its repository.
fn chosen(core: &Core, name: &str) -> Result<Vec<Arc<ImageRecord>>> {
    let view = core.store.view();
    let reference = name.parse::<Reference>().ok();
    if let Some(repository) = reference.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none()) {
        let same = |known: &Reference| {
            (known.registry(), known.repository()) == (repository.registry(), repository.repository())
        };
        let tags = view.references().filter(|(known, _)| known.digest().is_none() && same(known));
        let images: Vec<_> = tags.filter_map(|(_, id)| view.image(id)).collect();
        if !images.is_empty() {
            return Ok(images);
        }
    }
    // Docker names it as it was given, without the tag that was looked for; a tag that was given is but a reference.
    let tagged = reference.is_some_and(|reference| reference.tag().is_some());
    let image = view.resolve_image(name).map_err(|e| match Error::from(e) {
        e if e.kind() != ErrorKind::NotFound => e,
        _ if tagged => Error::not_found("reference does not exist"),
        _ => Error::not_found(format!("No such image: {name}")),
    })?;
    Ok(vec![image])
}

/// Whether all of an image is there: once the archive has begun, a reason can no longer be given.
fn savable(core: &Core, name: &str, image: &ImageRecord) -> Result<()> {
    let lacks = core.store.view().lacks(image);
    if let Some(missing) = lacks.iter().find(|lacking| matches!(lacking, Content::Blob(_))) {
        let why = format!("image {name} is not whole: {missing} is missing; pull it again");
        return Err(Error::new(ErrorKind::DataLoss, why));
    }
    match image.layers.iter().find(|layer| layer.blob.is_none()) {
        None => Ok(()),
        Some(layer) => Err(Error::unsupported(format!(
            "image {name} cannot be saved: the archive of its layer {} is not kept",
            layer.diff_id
        ))),
    }
}

/// An archive of images.
pub(crate) fn save(core: &Arc<Core>, names: Vec<String>) -> Result<ByteStream> {
    for name in &names {
        for image in chosen(core, name)? {
            savable(core, name, &image)?;
            tell(core, "save", &image.id.to_string(), name);
        }
    }
    // From here on nobody deletes them: what has begun to be sent is sent whole.
    let saving = creel_distribution::Saving::begin(&core.store, &names).map_err(|e| Error::of(&e))?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let out = std::io::BufWriter::with_capacity(128 << 10, StreamWriter(sender.clone()));
        let mut out = out;
        let saved = saving.write(&mut out).map_err(|e| Error::of(&e));
        let done = saved.and_then(|()| out.flush().map_err(|e| Error::io("sending the archive", e)));
        if let Err(e) = done {
            let _ = sender.blocking_send(Err(e));
        }
    });
    Ok(receiver)
}

/// Makes an image of a root file system's tar.
pub(crate) fn import(
    core: &Arc<Core>,
    tar: ByteSource,
    options: ImportOptions,
) -> Result<Receiver<ProgressMessage>> {
    // What is wrong with the request is said before the archive is read.
    creel_distribution::change::apply(&mut Default::default(), &options.changes)
        .map_err(|e| Error::of(&e))?;
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let core = core.clone();
    tokio::spawn(async move {
        let store = core.store.clone();
        let options = creel_distribution::ImportOptions {
            reference: options.reference,
            changes: options.changes,
            message: options.message,
            platform: options.platform,
            policy: core.config.registries.policy.clone(),
        };
        let made = blocking(move || {
            creel_distribution::import(&store, SourceReader::new(tar), &options).map_err(|e| Error::of(&e))
        });
        let message = match made.await {
            Ok(image) => {
                tell(&core, "import", &image.to_string(), &image.to_string());
                status(image.to_string())
            }
            Err(e) => failure(&e),
        };
        let _ = sender.send(message).await;
    });
    Ok(receiver)
}
