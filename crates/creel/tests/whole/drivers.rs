//! One suite for every storage driver: whatever keeps the layers, a container and its image behave the same.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::registry::{Registry, name};
use crate::support::{Daemon, busybox_tar, can_run, eventually, path, scratch, stdout};

/// The drivers that work here; all must where tests have their tools.
fn each(test: impl Fn(&str, Daemon)) {
    if !can_run() {
        return;
    }
    for driver in ["overlay", "erofs", "copy"] {
        let dir = scratch();
        if driver == "erofs" && std::env::var_os("CREEL_TEST_TOOLS").is_none() && !erofs_works(dir.path()) {
            eprintln!("skipped: this kernel mounts no EROFS image in a file");
            continue;
        }
        eprintln!("with {driver}");
        let Some(daemon) = Daemon::start_in(dir, &["--storage-driver", driver]) else { return };
        test(driver, daemon);
    }
}

/// Whether a daemon starts with the driver at all.
fn erofs_works(dir: &Path) -> bool {
    let mut child = Command::new(crate::support::CREEL)
        .args([
            "daemon",
            "-s",
            "erofs",
            "--root",
            path(&dir.join("try")),
            "--run-dir",
            path(&dir.join("try-run")),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut works = false;
    eventually("the daemon's decision", || {
        works = dir.join("try-run/creel.sock").exists();
        works || child.try_wait().unwrap().is_some()
    });
    let _ = child.kill();
    child.wait().unwrap();
    works
}

/// Names as Docker has them.
fn docker_name(driver: &str) -> &str {
    match driver {
        "overlay" => "overlay2",
        "copy" => "vfs",
        other => other,
    }
}

/// `cap_net_raw=ep`.
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// An image of busybox and of everything that a layer can have, in two layers: the second deletes, hides and replaces.
fn full_image(daemon: &Daemon) {
    daemon.ok(&["import", "-c", "CMD [\"sh\"]", path(busybox_tar()), "busybox:latest"]);
    let dir = scratch();
    let make = r#"
set -e
mkdir -p one/etc one/dir/sub one/opaque one/becomes-file
tar -C one -xf "$1"
printf lower >one/etc/gone; printf lower >one/etc/kept; printf lower >one/opaque/hidden
printf deep >one/dir/sub/deep; printf x >one/becomes-file/x; printf file >one/becomes-dir
head -c 300000 /dev/urandom >one/data/big
ln one/data/a one/data/b; ln -s a one/data/link
mknod one/data/null c 1 3; mkfifo one/data/fifo
chmod 4755 one/data/capable
chown -R 7:8 one/dir; chmod 2751 one/dir; touch -d '2001-02-03 04:05:06.789012345' one/data/big
mkdir -p two/etc two/opaque two/becomes-dir
: >two/etc/.wh.gone; : >two/opaque/.wh..wh..opq; printf upper >two/opaque/shown
printf now >two/becomes-file; printf inside >two/becomes-dir/inside
chown 7:8 two/opaque
for n in one two; do tar -C $n --xattrs --xattrs-include='*' --numeric-owner --format=posix -cf $n.tar .; done
"#;
    let data = dir.path().join("one/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("a"), "linked").unwrap();
    fs::write(data.join("capable"), "not really").unwrap();
    let set = |file: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(data.join(file), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("a", "user.creel", b"value");
    set("capable", "security.capability", CAPABILITY);
    let made = Command::new("sh")
        .args(["-c", make, "sh", path(busybox_tar())])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let sum = |file: &str| {
        let output = Command::new("sha256sum").arg(dir.path().join(file)).output().unwrap();
        stdout(&output).split(' ').next().unwrap().to_owned()
    };
    let image = dir.path().join("image");
    let blobs = image.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in ["one", "two"] {
        let plain = sum(&format!("{layer}.tar"));
        assert!(
            Command::new("gzip")
                .arg("-1n")
                .arg(dir.path().join(format!("{layer}.tar")))
                .status()
                .unwrap()
                .success()
        );
        let file = format!("{layer}.tar.gz");
        let size = fs::metadata(dir.path().join(&file)).unwrap().len();
        let digest = sum(&file);
        fs::rename(dir.path().join(&file), blobs.join(&digest)).unwrap();
        diff_ids.push(format!("sha256:{plain}"));
        layers.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": format!("sha256:{digest}"), "size": size}));
    }
    let put = |value: serde_json::Value| {
        let text = value.to_string();
        fs::write(dir.path().join("json"), &text).unwrap();
        let digest = sum("json");
        fs::rename(dir.path().join("json"), blobs.join(&digest)).unwrap();
        (format!("sha256:{digest}"), text.len())
    };
    let (config, size) = put(serde_json::json!({"architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}));
    let (manifest, length) = put(serde_json::json!({"schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
        "layers": layers}));
    fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": length,
        "annotations": {"org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": "docker.io/library/full:v1"}}]});
    fs::write(image.join("index.json"), index.to_string()).unwrap();
    let archive = dir.path().join("image.tar");
    let packed =
        Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(packed.success());
    daemon.ok(&["load", "-i", path(&archive)]);
}

/// What a container shows of the full image.
const SHOW: &str = "cat /etc/kept /opaque/shown /becomes-file /becomes-dir/inside /dir/sub/deep /data/link; \
    ls /etc/gone /opaque/hidden 2>&1 | wc -l; stat -c '%a %u:%g' /dir /dir/sub /opaque /data/capable; \
    stat -c '%F %t:%T' /data/null /data/fifo; stat -c %Y /data/big; \
    stat -c %d / /dir /etc/kept /opaque/shown /data/a | sort -u | wc -l; [ /data/a -ef /data/b ] && stat -c %h /data/a; sha256sum </data/big";

#[test]
fn what_is_in_an_image_is_in_its_containers() {
    let shown = std::cell::RefCell::new(String::new());
    each(|driver, daemon| {
        full_image(&daemon);
        assert_eq!(daemon.ok(&["info", "--format", "{{.Driver}}"]), docker_name(driver));
        let text = daemon.ok(&["run", "--name", "box", "full:v1", "sh", "-c", SHOW]);
        let (text, sum) = text.rsplit_once('\n').unwrap();
        assert!(sum.len() > 60, "{sum}");
        let wanted = "lowerupper\
            nowinsidedeeplinked2\n2751 7:8\n755 7:8\n755 7:8\n4755 0:0\n\
            character special file 1:3\nfifo 0:0\n981173106\n1\n2";
        assert_eq!(text, wanted, "{driver}");
        shown.replace(text.to_owned());
        // what only a look from outside sees: nanoseconds, attributes and capabilities
        let tar = daemon.dir.path().join("export.tar");
        daemon.ok(&["export", "-o", path(&tar), "box"]);
        let into = daemon.dir.path().join("exported");
        fs::create_dir(&into).unwrap();
        let unpack = Command::new("tar")
            .args([
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "-xpf",
                path(&tar),
                "-C",
                path(&into),
            ])
            .status();
        assert!(unpack.unwrap().success());
        let big = fs::metadata(into.join("data/big")).unwrap();
        assert_eq!((big.mtime(), big.mtime_nsec()), (981_173_106, 789_012_345), "{driver}");
        let attribute = |file: &str, name: &str| {
            let mut value = [0; 64];
            let length = rustix::fs::getxattr(into.join(file), name, &mut value[..]).unwrap();
            value[..length].to_vec()
        };
        assert_eq!(attribute("data/capable", "security.capability"), CAPABILITY, "{driver}");
        assert_eq!(attribute("data/b", "user.creel"), b"value", "{driver}");
        assert_eq!(fs::metadata(into.join("data/a")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(into.join("data/capable")).unwrap().permissions().mode() & 0o7777, 0o4755);
        assert!(!into.join("etc/gone").exists() && !into.join("opaque/hidden").exists());
        // Docker's words about where it is
        let graph = daemon.inspect("box", "{{json .GraphDriver}}");
        let graph: serde_json::Value = serde_json::from_str(&graph).unwrap();
        assert_eq!(graph["Name"], docker_name(driver));
        if driver == "copy" {
            assert!(graph["Data"].is_null(), "{graph}");
        } else {
            let lower = graph["Data"]["LowerDir"].as_str().unwrap();
            assert_eq!(lower.split(':').filter(|path| Path::new(path).exists()).count(), 3, "{lower}");
            assert_eq!(lower.contains("layer.erofs"), driver == "erofs", "{lower}");
        }
        assert_eq!(daemon.inspect("full:v1", "{{.GraphDriver.Name}}"), docker_name(driver));
        daemon.finish();
    });
}

/// Changes of every kind.
const CHANGE: &str = "echo new >/etc/new; echo more >>/etc/kept; rm /opaque/shown; rm -r /dir/sub; mv /data /moved; \
    rm -r /becomes-dir; mkdir /becomes-dir; echo again >/becomes-dir/again; ln /moved/a /moved/c; chmod 700 /home; \
    ln -s /etc/new /link; mkfifo /pipe; truncate -s 10000000 /sparse; echo x | dd of=/sparse bs=1 seek=5000000 conv=notrunc \
    2>/dev/null; touch -d '2010-01-02 03:04:05' /etc/new";

#[test]
fn changes_are_told_committed_copied_and_kept() {
    let diffs = std::cell::RefCell::new(Vec::<String>::new());
    each(|driver, mut daemon| {
        full_image(&daemon);
        daemon.ok(&["run", "-d", "--name", "box", "full:v1", "sh", "-c", &format!("{CHANGE}; sleep 1000")]);
        eventually("the changes", || {
            daemon.ok(&["exec", "box", "sh", "-c", "stat -c %Y /etc/new 2>/dev/null || true"]) == "1262401445"
        });
        let diff = |daemon: &Daemon| {
            let mut lines: Vec<String> = daemon.ok(&["diff", "box"]).lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        let told = diff(&daemon);
        for line in [
            "A /etc/new",
            "C /etc/kept",
            "C /etc",
            "D /opaque/shown",
            "D /dir/sub",
            "D /data",
            "A /moved",
            "A /moved/c",
            "D /becomes-dir/inside",
            "A /becomes-dir/again",
            "C /home",
            "A /link",
            "A /pipe",
            "A /sparse",
        ] {
            assert!(told.iter().any(|told| told == line), "{driver}: `{line}` is not in {told:?}");
        }
        assert!(!told.iter().any(|line| line.contains("dockerenv") || line.contains("hosts")), "{told:?}");
        diffs.borrow_mut().push(told.join("\n"));
        // cp, both ways, of what runs and of what rests
        let host = daemon.dir.path().join("file");
        fs::write(&host, "from the host").unwrap();
        for state in ["running", "stopped"] {
            let back = daemon.dir.path().join(state);
            daemon.ok(&["cp", path(&host), &format!("box:/tmp/{state}")]);
            daemon.ok(&["cp", "box:/moved", path(&back)]);
            assert_eq!(fs::read_to_string(back.join("link")).unwrap(), "linked", "{driver}, {state}");
            assert_eq!(fs::metadata(back.join("c")).unwrap().nlink(), 3, "{driver}, {state}");
            if state == "running" {
                // the daemon dies and comes back: the container neither ends nor loses anything
                let pid = daemon.inspect("box", "{{.State.Pid}}");
                daemon.kill();
                daemon.spawn();
                assert_eq!(daemon.inspect("box", "{{.State.Pid}}"), pid);
                assert_eq!(daemon.ok(&["exec", "box", "cat", "/etc/new"]), "new");
                daemon.ok(&["kill", "box"]);
                daemon.until("box", "{{.State.Status}}", "exited");
            }
        }
        let size = |template: &str| -> u64 {
            let text = daemon.ok(&["inspect", "-s", "--format", template, "box"]);
            text.parse().unwrap()
        };
        assert!((10_300_000..12_000_000).contains(&size("{{.SizeRw}}")), "{driver}: {}", size("{{.SizeRw}}"));
        assert!(size("{{.SizeRootFs}}") > size("{{.SizeRw}}"));
        daemon.ok(&["start", "box"]);
        assert_eq!(
            daemon.ok(&["exec", "box", "cat", "/tmp/running", "/tmp/stopped"]),
            "from the hostfrom the host"
        );
        daemon.ok(&["kill", "box"]);
        // commit: a container of the new image shows the same, and nothing else
        daemon.ok(&["commit", "box", "changed:v1"]);
        daemon.ok(&["create", "--name", "other", "changed:v1"]);
        let tree = |container: &str| {
            let tar = daemon.dir.path().join("tree.tar");
            daemon.ok(&["export", "-o", path(&tar), container]);
            let list =
                Command::new("tar").args(["--numeric-owner", "--full-time", "-tvf", path(&tar)]).output();
            let mut lines: Vec<String> = stdout(&list.unwrap()).lines().map(str::to_owned).collect();
            // which of a file's names comes first is not theirs; a directory's own time is that of its last change
            lines.retain(|line| !line.starts_with('d'));
            // the engine's own: mounted over, or of another image's init layer
            let engines = [
                "etc/hosts",
                "etc/hostname",
                "etc/resolv.conf",
                ".dockerenv",
                "dev/console",
                "-> /proc/mounts",
            ];
            lines.retain(|line| !engines.iter().any(|end| line.ends_with(end)));
            lines.sort_unstable();
            lines
        };
        assert_eq!(tree("box"), tree("other"), "{driver}");
        let layers = daemon.inspect("changed:v1", "{{json .RootFS.Layers}}");
        assert_eq!(layers.matches("sha256").count(), 3);
        assert_eq!(daemon.ok(&["diff", "other"]), "");
        assert_eq!(
            daemon.ok(&[
                "run",
                "--rm",
                "changed:v1",
                "sh",
                "-c",
                "cat /etc/kept; stat -c %h /moved/a; ls /dir"
            ]),
            "lowermore\nmore\n3"
        );
        daemon.finish();
    });
    let diffs = diffs.into_inner();
    assert!(diffs.windows(2).all(|two| two[0] == two[1]), "the drivers tell different changes: {diffs:#?}");
}

#[test]
fn images_are_pulled_pushed_verified_and_gone_without_a_trace() {
    each(|driver, daemon| {
        full_image(&daemon);
        let registry = Registry::start(&daemon);
        let image = name("team/full:v1");
        daemon.ok(&["tag", "full:v1", &image]);
        daemon.ok(&["push", &image]);
        let id = daemon.inspect(&image, "{{.Id}}");
        daemon.ok(&["rmi", &image, "full:v1", "busybox"]);
        daemon.ok(&["image", "prune", "-af"]);
        let left = |what: &str| fs::read_dir(daemon.root().join(what)).unwrap().count();
        assert_eq!((left("layers"), left("blobs/sha256"), left("tmp")), (0, 0, 0), "{driver}");
        daemon.ok(&["pull", &image]);
        assert_eq!(daemon.inspect(&image, "{{.Id}}"), id);
        assert!(daemon.ok(&["pull", &image]).contains("up to date"));
        daemon.ok(&["run", "--rm", &image, "sh", "-c", SHOW]);
        // df: what layers take, to the byte
        let output = daemon
            .inside("curl")
            .args(["-s", "--unix-socket", path(&daemon.socket()), "http://x/system/df"])
            .output()
            .unwrap();
        let df: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let script = "find \"$0\" -type f ! -name layer.json -printf '%i %s\\n' | sort -u | awk '{n += $2} END {print n + 0}'";
        let found =
            Command::new("sh").args(["-c", script]).arg(daemon.root().join("layers")).output().unwrap();
        assert_eq!(df["LayersSize"].to_string(), stdout(&found).trim(), "{driver}");
        // verify: whole, then with one byte changed, then whole again
        let verify = || daemon.creel(&["image", "verify"]);
        assert!(verify().status.success(), "{driver}: {}", stdout(&verify()));
        let victim = Command::new("find")
            .arg(daemon.root().join("layers"))
            .args(["-name", if driver == "erofs" { "layer.tar" } else { "busybox" }, "-type", "f"])
            .args(["-size", "+100k"])
            .output()
            .unwrap();
        let victim = stdout(&victim).lines().next().unwrap().to_owned();
        let mut content = fs::read(&victim).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&victim, &content).unwrap();
        let said = verify();
        assert!(
            !said.status.success() && stdout(&said).contains("is damaged"),
            "{driver}: {}",
            stdout(&said)
        );
        assert!(verify().status.success(), "{driver}: it was replaced: {}", stdout(&verify()));
        if driver == "erofs" {
            let image = victim.replace("layer.tar", "layer.erofs");
            let mut content = fs::read(&image).unwrap();
            content[2000] ^= 1;
            fs::write(&image, &content).unwrap();
            assert!(stdout(&verify()).contains("its image is not what its archive makes"));
            assert!(verify().status.success());
        }
        assert_eq!(daemon.ok(&["run", "--rm", &image, "cat", "/etc/kept"]), "lower");
        fs::remove_dir_all(daemon.root().join("quarantine")).unwrap();
        // an anonymous volume begins with what the image has at its place
        daemon.ok(&["run", "--rm", "-v", "/data", &image, "sh", "-c", "cat /data/link; rm /data/link"]);
        // a user of the image's own passwd, in a root that is not mounted yet
        assert_eq!(daemon.ok(&["run", "--rm", "-u", "adam", &image, "id", "-u"]), "1000");
        assert!(daemon.fails(125, &["run", "--rm", "-u", "nobody", &image, "true"]).contains("nobody"));
        assert_eq!(
            daemon.ok(&["run", "--rm", "--read-only", &image, "sh", "-c", "echo x >/x || echo no"]),
            "no"
        );
        drop(registry);
        daemon.ok(&["rmi", &image]);
        daemon.ok(&["image", "prune", "-af"]);
        assert_eq!((left("layers"), left("blobs/sha256"), left("containers"), left("tmp")), (0, 0, 0, 0));
        assert_eq!(left("inits"), 0, "{driver}");
        let loops = stdout(&Command::new("losetup").arg("-a").output().unwrap());
        assert!(!loops.contains(path(daemon.dir.path())), "{driver}: {loops}");
        daemon.finish();
    });
}

#[test]
fn what_one_driver_has_made_another_one_uses() {
    each(|driver, mut daemon| {
        if driver == "overlay" {
            return daemon.finish();
        }
        full_image(&daemon);
        let show =
            daemon.ok(&["run", "--name", "old", "full:v1", "sh", "-c", &format!("echo mine >/mine; {SHOW}")]);
        let told = daemon.ok(&["diff", "old"]);
        for next in ["overlay", "copy", "erofs"] {
            daemon.terminate();
            daemon.set_flags(&["--storage-driver", next]);
            daemon.spawn();
            assert_eq!(daemon.ok(&["info", "--format", "{{.Driver}}"]), docker_name(next));
            assert_eq!(daemon.ok(&["diff", "old"]), told, "{driver}, then {next}");
            assert_eq!(daemon.ok(&["start", "-a", "old"]), show, "{driver}, then {next}");
            assert_eq!(daemon.inspect("old", "{{.GraphDriver.Name}}"), docker_name(driver));
            assert_eq!(
                daemon.ok(&["run", "--rm", "full:v1", "sh", "-c", SHOW]),
                show,
                "{driver}, then {next}"
            );
            daemon.ok(&["commit", "old", "again"]);
            assert_eq!(daemon.ok(&["run", "--rm", "again", "cat", "/mine", "/etc/kept"]), "mine\nlower");
            daemon.ok(&["rmi", "again"]);
        }
        daemon.finish();
    });
}

#[test]
fn where_overlay_does_not_work_images_are_copied_and_the_log_says_why() {
    if !can_run() {
        return;
    }
    // On an overlay there is no place for another one's upper directory; and it takes no whiteouts of overlay's kind.
    let outer = scratch();
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(outer.path().join(name)).unwrap();
    }
    let at = |name: &str| path(&outer.path().join(name)).to_owned();
    let mount = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {}",
        at("lower"),
        at("upper"),
        at("work"),
        at("merged")
    );
    let Some(daemon) = Daemon::start_after(&mount, &["--root", &at("merged")]) else { return };
    assert_eq!(daemon.ok(&["info", "--format", "{{.Driver}}"]), "vfs");
    assert!(daemon.log().contains("overlay cannot be used in"), "{}", daemon.log());
    full_image(&daemon);
    let text = daemon.ok(&["run", "--name", "box", "full:v1", "sh", "-c", &format!("{SHOW}; rm /etc/kept")]);
    assert!(text.starts_with("lowerupper") && text.contains("\n2751 7:8\n"), "{text}");
    daemon.ok(&["commit", "box", "again"]);
    assert_eq!(daemon.ok(&["run", "--rm", "again", "sh", "-c", "ls /etc/kept /etc/gone 2>&1 | wc -l"]), "2");
    let said = daemon.creel(&["image", "verify"]);
    assert!(said.status.success(), "{}", stdout(&said));
    daemon.finish();
    let mut asked = Command::new(crate::support::CREEL);
    let run = scratch();
    let said = asked
        .args(["daemon", "-s", "zfs", "--root", path(run.path()), "--run-dir", path(&run.path().join("run"))])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("there are overlay"), "{said:?}");
}
