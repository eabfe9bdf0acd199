//! `pull` and `push` against a real registry on loopback, in the daemon's own network namespace.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::{Daemon, eventually, path};

const ADDRESS: &str = "127.0.0.1:5000";

/// Debian's docker-registry, in a daemon's network namespace.
pub(crate) struct Registry {
    child: Child,
    pub(crate) storage: PathBuf,
}

impl Registry {
    pub(crate) fn start(daemon: &Daemon) -> Self {
        let storage = daemon.dir.path().join("registry");
        let config = daemon.dir.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{ADDRESS}\"}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = daemon
            .inside("docker-registry")
            .args(["serve", path(&config)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is not installed: run dev/setup");
        eventually("the registry's start", || {
            daemon
                .inside("bash")
                .args(["-c", &format!("exec 3<>/dev/tcp/{}", ADDRESS.replace(':', "/"))])
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        });
        Self { child, storage }
    }

    /// Its process, which holds the network namespace when the daemon is gone.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name in that registry.
pub(crate) fn name(rest: &str) -> String {
    format!("{ADDRESS}/{rest}")
}

#[test]
fn pushed_images_are_pulled_again_with_the_same_digest() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    let image = name("team/app:v1");
    daemon.ok(&["tag", "busybox", &image]);
    let pushed = daemon.ok(&["push", &image]);
    let digest = pushed.split("digest: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let id = daemon.inspect(&image, "{{.Id}}");
    daemon.ok(&["rmi", &image, "busybox"]);
    let pulled = daemon.ok(&["pull", &image]);
    assert!(
        pulled.contains(&format!("Digest: {digest}")) && pulled.contains("Downloaded newer image"),
        "{pulled}"
    );
    assert_eq!(daemon.inspect(&image, "{{.Id}}"), id);
    assert!(daemon.ok(&["pull", &image]).contains("Image is up to date"));
    assert!(daemon.ok(&["push", &image]).contains("Layer already exists"));
    daemon.ok(&["rmi", &image]);
    let by_digest = name(&format!("team/app@{digest}"));
    assert_eq!(daemon.ok(&["run", "--rm", &by_digest, "echo", "pulled by digest"]), "pulled by digest");
    assert!(daemon.fails(1, &["pull", &name("no/such:tag")]).contains("not found"));
    drop(registry);
    daemon.finish();
}

#[test]
fn an_index_gives_the_hosts_platform() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    daemon.ok(&["tag", "busybox", &name("multi:amd64")]);
    daemon.ok(&["push", &name("multi:amd64")]);
    let script = format!(
        r#"
import http.client, json
def call(method, path, body=None, headers={{}}):
    c = http.client.HTTPConnection("{ADDRESS}"); c.request(method, path, body, headers); r = c.getresponse(); data = r.read()
    assert r.status < 300, (method, path, r.status, data); return r, data
accept = {{"Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"}}
r, manifest = call("GET", "/v2/multi/manifests/amd64", headers=accept)
entry = dict(mediaType=r.getheader("Content-Type"), digest=r.getheader("Docker-Content-Digest"), size=len(manifest))
other = dict(entry, platform=dict(os="linux", architecture="s390x"))
index = dict(schemaVersion=2, mediaType="application/vnd.oci.image.index.v1+json",
             manifests=[other, dict(entry, platform=dict(os="linux", architecture="amd64"))])
call("PUT", "/v2/multi/manifests/all", json.dumps(index), {{"Content-Type": index["mediaType"]}})
index["manifests"] = [other]
call("PUT", "/v2/multi/manifests/foreign", json.dumps(index), {{"Content-Type": index["mediaType"]}})
"#
    );
    let output = daemon.inside("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(daemon.ok(&["run", "--rm", &name("multi:all"), "echo", "ours"]), "ours");
    let foreign = daemon.fails(1, &["pull", &name("multi:foreign")]);
    assert!(foreign.contains("s390x") && foreign.contains("amd64"), "{foreign}");
    drop(registry);
    daemon.finish();
}

#[test]
fn a_corrupt_or_truncated_layer_is_named_and_nothing_is_stored() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    let image = name("bad:latest");
    daemon.ok(&["tag", "busybox", &image]);
    daemon.ok(&["push", &image]);
    daemon.ok(&["rmi", &image, "busybox"]);
    let blobs =
        stdout_of(Command::new("find").arg(&registry.storage).args(["-name", "data", "-size", "+100k"]));
    let layer = PathBuf::from(blobs.lines().next().unwrap());
    let good = std::fs::read(&layer).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (what, data) in [("corrupt", &flipped), ("truncated", &good[..good.len() / 2].to_vec())] {
        std::fs::write(&layer, data).unwrap();
        let stderr = daemon.fails(1, &["pull", &image]);
        let digest = layer.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(stderr.contains(&digest[..12]), "{what}: the digest is not named: {stderr}");
        assert_eq!(daemon.ok(&["images", "-q"]), "", "{what}");
        assert_eq!(std::fs::read_dir(daemon.root().join("layers")).unwrap().count(), 0, "{what}");
    }
    std::fs::write(&layer, &good).unwrap();
    daemon.ok(&["pull", &image]);
    drop(registry);
    daemon.finish();
}

fn stdout_of(command: &mut Command) -> String {
    crate::support::stdout(&command.output().unwrap())
}
