//! Bad input gets a clear error and loses nothing.

use std::process::Command;

use crate::support::{CREEL, Daemon, busybox_tar, path, scratch};

#[test]
fn programs_that_cannot_run_have_dockers_exit_codes() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let missing = daemon.fails(127, &["run", "--rm", "busybox", "no-such-program"]);
    assert!(missing.contains("\"no-such-program\": executable file not found in $PATH"), "{missing}");
    let forbidden = daemon.fails(126, &["run", "--rm", "busybox", "/etc/passwd"]);
    assert!(forbidden.contains("permission denied"), "{forbidden}");
    daemon.fails(127, &["run", "--name", "kept", "busybox", "/no/such"]);
    assert_eq!(daemon.inspect("kept", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    daemon.finish();
}

#[test]
fn names_and_references_that_are_wrong_are_named() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["create", "--name", "taken", "busybox"]);
    let conflict = daemon.fails(125, &["run", "--name", "taken", "busybox", "true"]);
    assert!(conflict.contains("is already in use by container"), "{conflict}");
    assert!(daemon.fails(125, &["run", "Busybox:UP", "true"]).contains("must be lowercase"));
    assert!(daemon.fails(125, &["run", "a..b", "true"]).contains("invalid reference format"));
    assert!(
        daemon
            .fails(125, &["run", "--pull", "never", "nothing-here", "true"])
            .contains("No such image: nothing-here:latest")
    );
    assert!(daemon.fails(1, &["start", "nobody"]).contains("No such container: nobody"));
    assert!(daemon.fails(125, &["run", "--name", "a/b", "busybox"]).contains("Invalid container name"));
    assert_eq!(daemon.ok(&["ps", "-aq"]).lines().count(), 1);
    daemon.finish();
}

#[test]
fn an_unknown_flag_is_answered_with_the_nearest_one() {
    let output = Command::new(CREEL).args(["run", "--memry", "5m", "x"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("unknown flag: --memry") && stderr.contains("--memory"), "{stderr}");
    let output = Command::new(CREEL).args(["rnu", "x"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("run"), "{stderr}");
}

#[test]
fn archives_that_climb_out_write_nothing_outside() {
    let Some(daemon) = Daemon::start() else { return };
    let dir = scratch();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let script = format!(
        r#"
import io, sys, tarfile
outside = {:?}
def member(name, **more):
    info = tarfile.TarInfo(name)
    for key, value in more.items(): setattr(info, key, value)
    return info
def make(path, members):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info in members:
            data = b"x" * info.size
            archive.addfile(info, io.BytesIO(data) if info.size else None)
S, H = tarfile.SYMTYPE, tarfile.LNKTYPE
make(sys.argv[1] + "/dots.tar", [member("../" * 20 + outside + "/dots", size=1)])
make(sys.argv[1] + "/absolute.tar", [member(outside + "/absolute", size=1)])
make(sys.argv[1] + "/symlink.tar", [member("link", type=S, linkname=outside), member("link/symlink", size=1)])
make(sys.argv[1] + "/hardlink.tar", [member("hard", type=H, linkname="../" * 20 + outside + "/secret"), member("hard", size=1)])
make(sys.argv[1] + "/whiteout.tar", [member("link", type=S, linkname=outside), member("link/.wh.secret")])
"#,
        target.to_str().unwrap()
    );
    std::fs::write(target.join("secret"), "untouched").unwrap();
    assert!(Command::new("python3").args(["-c", &script, path(dir.path())]).status().unwrap().success());
    for name in ["dots", "absolute", "symlink", "hardlink", "whiteout"] {
        let archive = dir.path().join(format!("{name}.tar"));
        // Taken or refused, nothing may happen outside.
        daemon.creel(&["import", path(&archive), &format!("evil:{name}")]);
        let left: Vec<_> = std::fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "{name}");
        assert_eq!(std::fs::read_to_string(target.join("secret")).unwrap(), "untouched", "{name}");
    }
    daemon.finish();
}

#[test]
fn a_truncated_archive_leaves_nothing_half_stored() {
    let Some(daemon) = Daemon::start() else { return };
    let whole = std::fs::read(busybox_tar()).unwrap();
    let cut = daemon.dir.path().join("cut.tar");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let stderr = daemon.fails(1, &["import", path(&cut), "cut:latest"]);
    assert!(!stderr.is_empty());
    assert_eq!(daemon.ok(&["images", "-q"]), "");
    let layers = std::fs::read_dir(daemon.root().join("layers")).map_or(0, Iterator::count);
    let temporary = std::fs::read_dir(daemon.root().join("tmp")).map_or(0, Iterator::count);
    assert_eq!((layers, temporary), (0, 0));
    daemon.finish();
}

#[test]
fn a_full_disk_is_said_and_survived() {
    if !crate::support::can_run() {
        return;
    }
    // The daemon's directories lie on a small file system that only its own mount namespace sees, so the test
    // runs inside one too.
    let dir = scratch();
    let script = r#"
set -e
cd "$1"; creel=$2; tar=$3
truncate -s 24M disk.img; mkfs.ext4 -q disk.img; mkdir disk; mount -o loop disk.img disk
ip link set lo up
"$creel" daemon --root "$1/disk/root" --run-dir "$1/run" --cgroup-parent "/creel-test-full-$$" 2>log & daemon=$!
trap 'kill $daemon; wait $daemon || true; umount disk; find /sys/fs/cgroup -depth -type d -name "creel-test-full-$$" -exec rmdir {} + 2>/dev/null || true' EXIT
i=0; while ! [ -S run/creel.sock ]; do i=$((i+1)); [ $i -lt 500 ]; sleep 0.01; done
c="$creel -H unix://$1/run/creel.sock"
$c import "$tar" small:latest >/dev/null
head -c 40000000 /dev/urandom >big; tar cf big.tar big
if $c import big.tar big:latest 2>err; then echo "a 40 MB image fits on 24 MB?"; exit 1; fi
grep -qi 'no space' err || { cat err; exit 1; }
[ "$($c images --format '{{.Repository}}')" = small ]
[ "$($c run --rm small echo still works)" = "still works" ]
[ -z "$(ls disk/root/tmp)" ]
"#;
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "bash", "-c", script, "test"])
        .args([path(dir.path()), CREEL, path(busybox_tar())])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
    );
}
