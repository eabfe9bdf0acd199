//! `creel daemon`: opens the engine, binds the socket, serves the API until it is told to stop.
//!
//! Stopping, also by SIGKILL, leaves every container running: their shims hold them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Parser;
use creel_engine::{Driver, Engine, EngineConfig, Mirror, PolicyFile, RegistryConfig};
use rustix::fs::FlockOperation;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Runs creel's daemon.
#[derive(Debug, Parser)]
#[command(name = "creel daemon", bin_name = "creel daemon")]
struct Arguments {
    /// Where images, layers and containers are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/creel")]
    root: PathBuf,
    /// Where sockets and the state of what is running are kept; best on a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/run/creel")]
    run_dir: PathBuf,
    /// Socket to listen on, as unix:///PATH [default: creel.sock in the run directory]
    #[arg(short = 'H', long = "host", value_name = "SOCKET")]
    host: Option<String>,
    /// How layers and containers' roots are kept: overlay (or overlay2), erofs, or copy (or vfs) [default: overlay where
    /// it works in the root directory, copy where not]
    #[arg(short = 's', long, value_name = "NAME")]
    storage_driver: Option<Driver>,
    /// Cgroup below which every container gets its own
    #[arg(long, value_name = "PATH", default_value = "/creel")]
    cgroup_parent: String,
    /// Registry whose certificate is not verified and that may be spoken to in plain HTTP: a HOST, HOST:PORT or a network
    /// such as 10.0.0.0/8; may be given several times. Loopback ones always may
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    insecure_registries: Vec<String>,
    /// Mirror that is asked before Docker Hub, or before REGISTRY; may be given several times
    #[arg(long = "registry-mirror", value_name = "[REGISTRY=]URL")]
    registry_mirrors: Vec<Mirror>,
    /// Directory with certificates in HOST:PORT directories; may be given several times [default:
    /// /etc/creel/certs.d and /etc/docker/certs.d]
    #[arg(long = "registry-certs", value_name = "DIR")]
    registry_certs: Vec<PathBuf>,
    /// Policy on signatures that images are held against, in the format of containers-policy.json(5); it must be there
    /// [default: /etc/creel/policy.json, if it is there]
    #[arg(long = "signature-policy", value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// The largest layer that is unpacked, uncompressed: bytes, or with k, m, g or t; 0 for any size [default: 256g]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_layer_size: Option<u64>,
    /// Directory in which volume plugins leave their sockets, .spec and .json files; may be given several times [default:
    /// /run/docker/plugins, /etc/docker/plugins and /usr/lib/docker/plugins]
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
    /// How much is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// A number of bytes, with a unit of 1024 if there is one.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 512m or 256g");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("making the directory {0}: {1}")]
    Directory(PathBuf, std::io::Error),
    #[error("another daemon uses the run directory {0}; stop it, or give this one another --run-dir")]
    RunDirInUse(PathBuf),
    #[error("locking {0}: {1}")]
    Lock(PathBuf, std::io::Error),
    #[error("-H {0}: only unix:///PATH is supported")]
    Host(String),
    #[error("listening on {0}: {1}")]
    Listen(PathBuf, std::io::Error),
    #[error("finding this program's own path: {0}")]
    Executable(std::io::Error),
    #[error("starting the async runtime: {0}")]
    Runtime(std::io::Error),
    #[error("--log-level {0}: not one of error, warn, info, debug, trace")]
    LogLevel(String),
    #[error("{0}")]
    Engine(creel_engine::Error),
}

/// The daemon's `main`; returns its exit code.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return e.exit_code();
        }
    };
    match run(arguments) {
        Ok(()) => 0,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "creel daemon: {e}");
            1
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let level = arguments.log_level.clone();
    if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        return Err(Error::LogLevel(level));
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(EnvFilter::new(level)).init();
    make_dir(&arguments.root, 0o711)?;
    make_dir(&arguments.run_dir, 0o711)?;
    let _lock = lock(&arguments.run_dir)?;
    let socket = socket_path(&arguments)?;
    let executable = std::fs::read_link("/proc/self/exe").map_err(Error::Executable)?;
    let mut registries = RegistryConfig {
        insecure: arguments.insecure_registries,
        mirrors: arguments.registry_mirrors,
        policy: Some(match arguments.signature_policy {
            Some(path) => PolicyFile { path, required: true },
            None => PolicyFile { path: PathBuf::from("/etc/creel/policy.json"), required: false },
        }),
        ..RegistryConfig::default()
    };
    if !arguments.registry_certs.is_empty() {
        registries.certs = arguments.registry_certs;
    }
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(async move {
            let engine = Engine::open(EngineConfig {
                root: arguments.root,
                run_dir: arguments.run_dir.clone(),
                cgroup_parent: arguments.cgroup_parent,
                executable,
                registries,
                driver: arguments.storage_driver,
                plugin_dirs: arguments.plugin_dirs,
                max_layer_bytes: arguments.max_layer_size,
            })
            .await
            .map_err(Error::Engine)?;
            let listener = listen(&socket)?;
            write_pid(&arguments.run_dir.join("creel.pid"));
            tracing::info!(socket = %socket.display(), "creel {} is ready", env!("CARGO_PKG_VERSION"));
            let (stop, stopped) = watch::channel(false);
            tokio::spawn(async move {
                wait_for_signal().await;
                let _ = stop.send(true);
            });
            creel_api::serve(listener, engine.clone(), stopped).await;
            engine.close();
            let _ = std::fs::remove_file(&socket);
            tracing::info!("creel stops; containers go on");
            Ok(())
        })
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| Error::Directory(path.to_owned(), e))
}

/// Holds the run directory against a second daemon for as long as the file lives.
fn lock(run_dir: &Path) -> Result<File, Error> {
    let path = run_dir.join("lock");
    let file = File::create(&path).map_err(|e| Error::Lock(path.clone(), e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::RunDirInUse(run_dir.to_owned())),
        Err(e) => Err(Error::Lock(path, e.into())),
    }
}

fn socket_path(arguments: &Arguments) -> Result<PathBuf, Error> {
    match &arguments.host {
        None => Ok(arguments.run_dir.join("creel.sock")),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err(Error::Host(host.clone())),
        },
    }
}

/// Binds the socket. What a dead daemon left at the path is removed: the lock says that none lives.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    let wrong = |e| Error::Listen(path.to_owned(), e);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(wrong(e)),
        _ => {}
    }
    // Whoever may speak to this socket is root on this machine: nobody but root, from the first moment on.
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(old);
    let listener = listener.map_err(wrong)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(wrong)?;
    Ok(listener)
}

fn write_pid(path: &Path) {
    if let Err(e) = std::fs::write(path, format!("{}\n", std::process::id())) {
        tracing::warn!("writing {}: {e}", path.display());
    }
}

async fn wait_for_signal() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received: only SIGKILL will end this daemon");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(size("3K"), Ok(3 << 10));
        assert_eq!(size("256g"), Ok(256 << 30));
        assert_eq!(size("1TiB"), Ok(1 << 40));
        for bad in ["", "g", "-1", "1.5g", "1x", "99999999999t", "1g1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
