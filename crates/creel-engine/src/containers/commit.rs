//! Commit: a container's writable layer becomes the top layer of a new image.

use std::sync::Arc;

use creel_store::NewImage;
use creel_types::image::{ExecConfig, History, ImageConfig};
use creel_wire::container::Config;
use jiff::Timestamp;

use super::signal;
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};
use crate::images;
use crate::options::CommitOptions;
use crate::record::ContainerRecord;

/// Commits a container; returns the image's id.
pub(crate) async fn commit(core: &Arc<Core>, id: &str, options: CommitOptions) -> Result<String> {
    let container = core.containers.find(id)?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        let frozen = match container.running() {
            Some(running) if options.pause && !running.paused => {
                signal::hold(&container, &running).await?;
                true
            }
            _ => false,
        };
        let (this, record) = (core.clone(), container.record());
        let reference = options.reference.clone();
        let done = blocking(move || make(&this, &record, &options)).await;
        if frozen {
            signal::release(&container).await?;
        }
        let image = done?;
        core.tell(
            &container,
            "commit",
            &[("imageID", image.clone()), ("imageRef", reference.map(|r| r.familiar()).unwrap_or_default())],
        );
        Ok(image)
    })
    .await
}

fn make(core: &Core, record: &ContainerRecord, options: &CommitOptions) -> Result<String> {
    let mut exec = exec_config(&record.config);
    if let Some(over) = &options.config {
        override_with(&mut exec, over);
    }
    creel_distribution::change::apply(&mut exec, &options.changes).map_err(|e| Error::of(&e))?;
    let _lease = core.store.lease();
    let committed = core.store.commit_snapshot(&record.id)?;
    let snapshot = core
        .store
        .view()
        .snapshot(&record.id)
        .ok_or_else(|| Error::internal(format!("container {} has no snapshot", record.id)))?;
    let parent = core.store.image(&record.image);
    let mut layers = images::layer_refs(&core.store, parent.as_deref(), &snapshot.layers)?;
    layers.push(committed.layer);
    let base = parent.as_ref().map(|image| (*image.config).clone()).unwrap_or_default();
    let now = Timestamp::now();
    let mut config = ImageConfig {
        created: Some(now),
        author: options.author.clone().filter(|text| !text.is_empty()),
        architecture: record.platform.architecture.clone(),
        variant: record.platform.variant.clone(),
        os: record.platform.os.clone(),
        config: Some(exec),
        comment: options.message.clone().filter(|text| !text.is_empty()),
        history: base.history.clone(),
        ..base
    };
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    config.history.push(History {
        created: Some(now),
        created_by: Some(record.args().join(" ")),
        author: config.author.clone(),
        comment: config.comment.clone(),
        empty_layer: false,
    });
    let json = serde_json::to_vec(&config)
        .map_err(|e| Error::internal(format!("writing an image's configuration: {e}")))?;
    let config = images::put_blob(&core.store, &json)?;
    let image = core.store.put_image(NewImage {
        config,
        manifest: None,
        layers,
        parent: parent.map(|image| image.id),
        references: options.reference.iter().cloned().collect(),
    })?;
    Ok(image.id.to_string())
}

/// The part of a container's configuration that an image has.
fn exec_config(config: &Config) -> ExecConfig {
    ExecConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone().filter(|volumes| !volumes.is_empty()),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().filter(|labels| !labels.is_empty()),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.clone(),
        shell: config.shell.clone(),
        on_build: config.on_build.clone(),
    }
}

/// What a client's own configuration says goes over the container's.
fn override_with(exec: &mut ExecConfig, over: &Config) {
    fn set<T: Clone>(ours: &mut Option<T>, theirs: &Option<T>) {
        if theirs.is_some() {
            ours.clone_from(theirs);
        }
    }
    if !over.user.is_empty() {
        exec.user.clone_from(&over.user);
    }
    if !over.working_dir.is_empty() {
        exec.working_dir.clone_from(&over.working_dir);
    }
    set(&mut exec.exposed_ports, &over.exposed_ports);
    set(&mut exec.env, &over.env);
    set(&mut exec.entrypoint, &over.entrypoint);
    set(&mut exec.cmd, &over.cmd);
    set(&mut exec.volumes, &over.volumes);
    set(&mut exec.labels, &over.labels);
    set(&mut exec.stop_signal, &over.stop_signal);
    set(&mut exec.healthcheck, &over.healthcheck);
    set(&mut exec.shell, &over.shell);
    set(&mut exec.on_build, &over.on_build);
}
