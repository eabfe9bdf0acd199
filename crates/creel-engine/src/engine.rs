//! The engine: a thin façade over the use cases, which live in modules of their own.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use creel_cgroup::Hierarchies;
use creel_distribution::Auth;
use creel_plugin::Plugins;
use creel_store::Store;
use creel_types::{Platform, Reference};
use creel_wire::container::{
    Change, ContainerInspect, ContainerSummary, ContainersPrune, CreateRequest, CreateResponse, PathStat, Top,
};
use creel_wire::exec::{ExecConfig, ExecInspect, ExecStart};
use creel_wire::image::{HistoryItem, ImageDelete, ImageInspect, ImageSummary, ImagesPrune, ProgressMessage};
use creel_wire::stats::Stats;
use creel_wire::system::{AuthResponse, DiskUsage, Event, Info, Version};
use creel_wire::volume::{Volume, VolumeCreate, VolumeList, VolumesPrune};
use jiff::Timestamp;
use tokio::sync::mpsc::{self, Receiver};

use crate::containers::attach::{self, Attachment};
use crate::containers::wait::{self, WaitHandle};
use crate::containers::{
    commit, create, files, inspect, list, prune, remove, rename, signal, start, stats, top,
};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::events::{self, Bus};
use crate::execs::{self, ExecSession, Execs};
use crate::filters::Filters;
use crate::options::{
    AttachOptions, ByteSource, ByteStream, CommitOptions, EngineConfig, ImportOptions, ListOptions,
    LogOptions, LogStream, PutOptions, RemoveOptions, Timings, WaitCondition,
};
use crate::program::Program;
use crate::volumes::{Volumes, manage as volumes};
use crate::{containers::Registry, driver, images, logs, reconcile, shim, system};

/// The engine. Every `id` may be a full id, a name with or without a leading slash, or the beginning of an id; what
/// is not found is [`creel_types::ErrorKind::NotFound`] with the text `No such container: …`. A change once begun runs
/// to its end, even if the caller's future is dropped.
#[derive(Debug)]
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// Opens the store, finds out what still runs, connects to its shims, finishes what was begun.
    ///
    /// # Errors
    /// The store cannot be opened, or the machine has no cgroups.
    pub async fn open(config: EngineConfig) -> Result<Arc<Engine>> {
        let directory = config.run_dir.join("containers");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|e| Error::io(format_args!("making {}", directory.display()), e))?;
        let root = config.root.clone();
        let wanted = config.driver;
        let store = blocking(move || {
            let store = Store::open(&root)?;
            store.set_driver(driver::choose(store.paths(), wanted)?);
            Ok(store)
        })
        .await?;
        if let Some(bytes) = config.max_layer_bytes {
            let limits = store.limits();
            store.set_limits(creel_store::Limits { bytes: (bytes > 0).then_some(bytes), ..limits });
        }
        let hierarchies = Hierarchies::detect().map_err(|e| Error::of(&e))?;
        let (told, mut heard) = mpsc::unbounded_channel::<shim::Told>();
        let volumes = Volumes::read(&store);
        let core = Arc::new(Core {
            volumes,
            plugins: match config.plugin_dirs.as_slice() {
                [] => Plugins::default(),
                given => Plugins::new(given.to_vec()),
            },
            program: Program::new(&config.executable, &config.root),
            config,
            store,
            containers: Registry::default(),
            execs: Execs::default(),
            events: Bus::default(),
            hierarchies,
            boot_id: reconcile::boot_id(),
            told,
        });
        let listener = Arc::downgrade(&core);
        tokio::spawn(async move {
            while let Some(told) = heard.recv().await {
                let Some(core) = listener.upgrade() else { return };
                hear(&core, told);
            }
        });
        reconcile::reconcile(&core).await?;
        Ok(Arc::new(Engine { core }))
    }

    /// Creates a container. A name of its own is given to one that brings none.
    ///
    /// # Errors
    /// Conflict for a name in use, NotFound for an unknown image, Unsupported for wishes that cannot be honoured yet.
    pub async fn create(
        &self,
        name: Option<&str>,
        request: CreateRequest,
        platform: Option<Platform>,
    ) -> Result<CreateResponse> {
        create::create(&self.core, name, request, platform).await
    }

    /// Starts a container; returns where the time went.
    ///
    /// # Errors
    /// NotModified when it runs; ProgramNotFound, ProgramNotExecutable and others, which are also kept as its state.
    pub async fn start(&self, id: &str) -> Result<Timings> {
        start::start(&self.core, id).await
    }

    /// Stops a container by `signal` (its own stop signal if `None`), and by SIGKILL after `timeout` seconds (its own
    /// if `None`, for ever if negative).
    ///
    /// # Errors
    /// NotModified when it does not run.
    pub async fn stop(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        signal::stop(&self.core, id, signal, timeout).await
    }

    /// Stops a container, if it runs, and starts it.
    ///
    /// # Errors
    /// As for [`Engine::start`].
    pub async fn restart(&self, id: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        signal::restart(&self.core, id, signal, timeout).await
    }

    /// Sends a signal by name or number, SIGKILL if `None`.
    ///
    /// # Errors
    /// Conflict when it does not run.
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<()> {
        signal::kill(&self.core, id, signal).await
    }

    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// Conflict when it does not run or is frozen.
    pub async fn pause(&self, id: &str) -> Result<()> {
        signal::freeze(&self.core, id, true).await
    }

    /// Thaws all processes of a container.
    ///
    /// # Errors
    /// Conflict when it is not frozen.
    pub async fn unpause(&self, id: &str) -> Result<()> {
        signal::freeze(&self.core, id, false).await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// Conflict for a name in use.
    pub async fn rename(&self, id: &str, new_name: &str) -> Result<()> {
        rename::rename(&self.core, id, new_name).await
    }

    /// Removes a container with its writable layer and anonymous volumes.
    ///
    /// # Errors
    /// Conflict when it runs and `force` is not set.
    pub async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        remove::remove(&self.core, id, options).await
    }

    /// Registers a wait: an end from now on is not missed.
    ///
    /// # Errors
    /// NotFound.
    pub async fn wait(&self, id: &str, condition: WaitCondition) -> Result<WaitHandle> {
        wait::wait(&self.core, id, condition)
    }

    /// Lists containers, the newest first.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        list::list(&self.core, options).await
    }

    /// Everything about one container; with its sizes if `size`.
    ///
    /// # Errors
    /// NotFound.
    pub async fn inspect(&self, id: &str, size: bool) -> Result<ContainerInspect> {
        inspect::inspect(&self.core, id, size).await
    }

    /// Reads a container's log.
    ///
    /// # Errors
    /// Unsupported when its log driver keeps none.
    pub async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        let container = self.core.containers.find(id)?;
        logs::read(&self.core, &container, options).await
    }

    /// Attaches to a container's streams, before its start or later.
    ///
    /// # Errors
    /// InvalidArgument for detach keys that make no sense, Conflict when it is frozen.
    pub async fn attach(&self, id: &str, options: AttachOptions) -> Result<Attachment> {
        attach::attach(&self.core, id, options).await
    }

    /// Sets the size of a container's terminal, in characters.
    ///
    /// # Errors
    /// Conflict when it does not run.
    pub async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        attach::resize(&self.core, id, height, width).await
    }

    /// Lists the processes of a container, by the host's `ps` if options for it are given.
    ///
    /// # Errors
    /// Conflict when it does not run.
    pub async fn top(&self, id: &str, ps_args: Option<&str>) -> Result<Top> {
        top::top(&self.core, id, ps_args).await
    }

    /// Takes one reading of what a container uses.
    ///
    /// # Errors
    /// NotFound.
    pub async fn stats(&self, id: &str) -> Result<Stats> {
        stats::stats(&self.core, id).await
    }

    /// What a container has changed of its image's files.
    ///
    /// # Errors
    /// NotFound.
    pub async fn changes(&self, id: &str) -> Result<Vec<Change>> {
        files::changes(&self.core, id).await
    }

    /// A container's files as an archive, what is mounted left out.
    ///
    /// # Errors
    /// NotFound.
    pub async fn export(&self, id: &str) -> Result<ByteStream> {
        files::export(&self.core, id).await
    }

    /// What is at a path in a container.
    ///
    /// # Errors
    /// NotFound for the container or the path.
    pub async fn path_stat(&self, id: &str, path: &str) -> Result<PathStat> {
        files::stat(&self.core, id, path).await
    }

    /// An archive of a path in a container.
    ///
    /// # Errors
    /// NotFound for the container or the path.
    pub async fn archive_get(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        files::get(&self.core, id, path).await
    }

    /// Unpacks an archive into a directory of a container.
    ///
    /// # Errors
    /// NotFound for the container or the directory; what was unpacked before an error stays.
    pub async fn archive_put(
        &self,
        id: &str,
        path: &str,
        options: PutOptions,
        tar: ByteSource,
    ) -> Result<()> {
        files::put(&self.core, id, path, options, tar).await
    }

    /// Makes an image of a container; returns its id as `sha256:…`.
    ///
    /// # Errors
    /// NotFound; InvalidArgument for changes that make no sense.
    pub async fn commit(&self, id: &str, options: CommitOptions) -> Result<String> {
        commit::commit(&self.core, id, options).await
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn prune_containers(&self, filters: Filters) -> Result<ContainersPrune> {
        prune::prune(&self.core, filters).await
    }

    /// Makes an exec in a running container; returns its id.
    ///
    /// # Errors
    /// Conflict when the container does not run.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        execs::create(&self.core, container, config)
    }

    /// Prepares the start of an exec; the session starts it.
    ///
    /// # Errors
    /// NotFound; Conflict when it has been started already.
    pub async fn exec_start(&self, exec: &str, options: ExecStart) -> Result<ExecSession> {
        execs::start(&self.core, exec, options).await
    }

    /// Sets the size of an exec's terminal, in characters.
    ///
    /// # Errors
    /// NotFound; Conflict when it does not run.
    pub async fn exec_resize(&self, exec: &str, height: u16, width: u16) -> Result<()> {
        execs::resize(&self.core, exec, height, width).await
    }

    /// Everything about one exec.
    ///
    /// # Errors
    /// NotFound.
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspect> {
        execs::inspect(&self.core, exec).await
    }

    /// Pulls an image; a failure is the last message.
    ///
    /// # Errors
    /// None before the first message.
    pub async fn pull(
        &self,
        reference: Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
    ) -> Result<Receiver<ProgressMessage>> {
        Ok(images::transfer::pull(&self.core, reference, platform, auth))
    }

    /// Pushes an image; a failure is the last message.
    ///
    /// # Errors
    /// NotFound when there is no such image here.
    pub async fn push(&self, reference: Reference, auth: Option<Auth>) -> Result<Receiver<ProgressMessage>> {
        images::transfer::push(&self.core, reference, auth)
    }

    /// Tries credentials on the registry that they name, Docker Hub if none.
    ///
    /// # Errors
    /// Unauthorized if it does not accept them.
    pub async fn login(&self, auth: Auth) -> Result<AuthResponse> {
        images::transfer::login(&self.core, auth).await
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// NotFound.
    pub async fn tag(&self, source: &str, target: Reference) -> Result<()> {
        images::tag(&self.core, source, target).await
    }

    /// Lists images, the newest first; `all`: also those without a name that others were made from here; `shared`: with
    /// what they share with each other.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn images(&self, all: bool, shared: bool, filters: Filters) -> Result<Vec<ImageSummary>> {
        images::list::list(&self.core, &filters, all, shared)
    }

    /// Reads everything that these images consist of (or everything there is, if none are named) once more, and puts
    /// aside what is damaged unless `only_look`. How far it is comes as messages; the last one has the report
    /// ([`creel_wire::verify::Verified`]) in its field `aux`.
    ///
    /// # Errors
    /// NotFound for an unknown image.
    pub fn image_verify(&self, names: &[String], only_look: bool) -> Result<Receiver<ProgressMessage>> {
        images::verify::verify(&self.core, names, only_look)
    }

    /// Everything about one image.
    ///
    /// # Errors
    /// NotFound.
    pub async fn image_inspect(&self, name: &str) -> Result<ImageInspect> {
        images::show::inspect(&self.core, name)
    }

    /// The steps of an image's making, the newest first.
    ///
    /// # Errors
    /// NotFound.
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        images::show::history(&self.core, name)
    }

    /// Removes a name of an image, and with the last one the image; with `prune` also what it was made from here, if
    /// that has no name.
    ///
    /// # Errors
    /// NotFound; Conflict when containers use it or it has several names and is given by id.
    pub async fn image_remove(&self, name: &str, force: bool, prune: bool) -> Result<Vec<ImageDelete>> {
        images::remove::remove(&self.core, name, force, prune).await
    }

    /// Removes images without a name, or with `dangling=false` all that no container uses.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn image_prune(&self, filters: Filters) -> Result<ImagesPrune> {
        images::remove::prune(&self.core, filters).await
    }

    /// Loads the images of an archive; a failure is the last message.
    ///
    /// # Errors
    /// None before the first message.
    pub async fn load(&self, tar: ByteSource, quiet: bool) -> Result<Receiver<ProgressMessage>> {
        Ok(images::transfer::load(&self.core, tar, quiet))
    }

    /// An archive of images, as `docker save` makes it.
    ///
    /// # Errors
    /// NotFound.
    pub async fn save(&self, names: Vec<String>) -> Result<ByteStream> {
        images::transfer::save(&self.core, names)
    }

    /// Makes an image of a root file system's archive; a failure is the last message.
    ///
    /// # Errors
    /// InvalidArgument for a change that cannot be understood; none else before the first message.
    pub async fn import(&self, tar: ByteSource, options: ImportOptions) -> Result<Receiver<ProgressMessage>> {
        images::transfer::import(&self.core, tar, options)
    }

    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// InvalidArgument for a name or an option that cannot be, NotFound for an unknown driver, Conflict when a volume of
    /// another driver has the name.
    pub async fn volume_create(&self, request: VolumeCreate) -> Result<Volume> {
        volumes::create(&self.core, request).await
    }

    /// Lists volumes by name.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn volumes(&self, filters: Filters) -> Result<VolumeList> {
        volumes::list(&self.core, &filters).await
    }

    /// Everything about one volume.
    ///
    /// # Errors
    /// NotFound.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume> {
        volumes::inspect(&self.core, name).await
    }

    /// Removes a volume with its data; with `force`, one that is not there is removed already.
    ///
    /// # Errors
    /// NotFound; Conflict when a container uses it, running or not.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        volumes::remove(&self.core, name, force).await
    }

    /// Removes anonymous volumes that no container uses, or with the filter `all` those with a name too.
    ///
    /// # Errors
    /// InvalidArgument for unknown filters.
    pub async fn volume_prune(&self, filters: Filters) -> Result<VolumesPrune> {
        volumes::prune(&self.core, filters).await
    }

    /// What this engine and this machine are.
    pub async fn info(&self) -> Info {
        system::info(&self.core)
    }

    /// Versions.
    pub fn version(&self) -> Version {
        system::version()
    }

    /// What takes how much of the disk.
    ///
    /// # Errors
    /// None but failures of the system.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        system::disk_usage(&self.core).await
    }

    /// To be called when the daemon is about to stop and no request is under way: removes the control group above all
    /// containers' if it is empty, that is, if no container runs.
    pub fn close(&self) {
        let path = format!("/{}", self.core.config.cgroup_parent.trim_matches('/'));
        if let Ok(group) = creel_cgroup::Cgroup::open(&self.core.hierarchies, &path) {
            // rmdir(2) refuses a group in which there are groups or processes, and then all stays as it is.
            let removed = group.dirs().filter(|dir| std::fs::remove_dir(dir).is_ok()).count();
            if removed > 0 {
                group.remove_empty_parents();
            }
        }
    }

    /// The remembered events since then (256 at most), and all that come. Unknown filters select nothing.
    pub fn events(&self, since: Option<Timestamp>, filters: Filters) -> Receiver<Event> {
        if let Err(e) = events::check(&filters) {
            tracing::debug!("{e}");
            return mpsc::channel(1).1;
        }
        self.core.events.listen(since, filters)
    }
}

/// What shims tell besides the end of their containers.
fn hear(core: &Core, told: shim::Told) {
    match told.event {
        creel_shim::proto::Event::ExecExit(end) => {
            execs::ended(core, &told.container, &end);
            if let Some(container) = core.containers.get(&told.container) {
                let particulars = [("execID", end.exec_id), ("exitCode", end.code.to_string())];
                core.tell(&container, "exec_die", &particulars);
            }
        }
        creel_shim::proto::Event::Oom => {
            if let Some(container) = core.containers.get(&told.container) {
                core.tell(&container, "oom", &[]);
            }
        }
        _ => {}
    }
}
