//! What a careless or hostile caller, or whoever else can write somewhere, may try.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use crate::support::{Place, lives};

#[test]
fn an_id_never_leads_out_of_the_root() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["true"], |_| {});
    let bundle = bundle.to_str().unwrap();
    let outside = place.dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("state.json"), "{}").unwrap();
    for id in ["../outside", "..", ".", "a/b", "/etc", "a b", "ä", ""] {
        for args in
            [&["state", id][..], &["delete", "--force", id], &["kill", id], &["create", "-b", bundle, id]]
        {
            let output = place.call(args);
            assert_eq!(output.status.code(), Some(1), "{args:?}");
        }
    }
    assert!(outside.join("state.json").exists());
    // A link in the root that somebody has put there.
    fs::create_dir_all(place.root()).unwrap();
    symlink(&outside, place.root().join("link")).unwrap();
    assert_eq!(place.call(&["delete", "--force", "link"]).status.code(), Some(1));
    assert!(outside.join("state.json").exists());
    fs::remove_file(place.root().join("link")).unwrap();
    place.finish();
}

#[test]
fn the_state_is_not_for_others() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(place.root()), 0o700);
    assert_eq!(mode(place.root().join("c")), 0o711);
    assert_eq!(mode(place.root().join("c/state.json")), 0o600);
    assert_eq!(fs::metadata(place.root().join("c")).unwrap().uid(), 0);
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn damaged_state_is_told_and_hides_nobody() {
    let Some(place) = Place::new() else { return };
    place.running("good");
    place.running("bad");
    let pid = place.pid("bad");
    let file = place.root().join("bad/state.json");
    let whole = fs::read(&file).unwrap();
    for damage in [&b"{"[..], b"", b"null", b"[]", b"{\"format\":99}", b"\xff\xfe"] {
        fs::write(&file, damage).unwrap();
        let said = place.fails(1, &["state", "bad"]);
        assert!(said.starts_with("state of container bad:"), "{said}");
        assert!(place.ok(&["list", "--format", "json"]).contains("\"good\""));
        assert!(lives(pid));
    }
    fs::write(&file, whole).unwrap();
    for id in ["good", "bad"] {
        place.ok(&["delete", "--force", id]);
    }
    place.finish();
}

#[test]
fn an_occupied_cgroup_is_left_alone() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let pid = place.pid("c");
    let same = place.bundle("c", &["true"], |_| {});
    let said = place.fails(1, &["run", "--bundle", same.to_str().unwrap(), "other"]);
    assert!(said.contains("container's cgroup is not empty"), "{said}");
    assert!(lives(pid) && place.status("c") == "running");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn wrong_configurations_make_nothing() {
    let Some(place) = Place::new() else { return };
    let root = place.root();
    let tried = |change: &dyn Fn(&mut serde_json::Value), part: &str| {
        let bundle = place.bundle("w", &["true"], |spec| change(spec));
        let said = place.fails(1, &["create", "--bundle", bundle.to_str().unwrap(), "w"]);
        assert!(said.contains(part), "{said}");
        assert!(fs::read_dir(&root).into_iter().flatten().next().is_none());
        assert!(place.cgroups().is_empty());
    };
    tried(&|spec| spec["process"]["args"] = json!([]), "args must not be empty");
    tried(&|spec| spec["process"]["cwd"] = json!("x"), "Cwd must be an absolute path");
    tried(&|spec| spec["root"]["path"] = json!("/nonexistent"), "/nonexistent");
    tried(
        &|spec| spec["mounts"] = json!([{ "destination": "/x", "type": "nonsense", "source": "x" }]),
        "nonsense",
    );
    tried(&|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": "many" }), "limit");
    // Found out by the creator while the process makes its namespaces.
    tried(&|spec| spec["linux"]["resources"]["cpu"] = json!({ "cpus": "9999" }), "cpuset.cpus");
    let notify = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] });
    tried(&|spec| spec["linux"]["seccomp"] = notify.clone(), "linux.seccomp.listenerPath");
    place.finish();
}

/// CVE-2019-5736: what is executed in the container leads to the runtime's own program, which somebody inside opens, and
/// writes to when it has ended.
#[test]
fn the_program_is_not_overwritten_from_inside() {
    let Some(place) = Place::new() else { return };
    let program = place.dir.path().join("creel");
    fs::copy(crate::support::CREEL, &program).unwrap();
    let length = fs::metadata(&program).unwrap().len();
    let root = place.dir.path().join("root");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "readlink", "sleep", "cat"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    // By this name it is a reaper, which lives for as long as the program that it runs.
    symlink("/proc/self/exe", root.join("bin/init")).unwrap();
    fs::write(root.join("bin/script"), "#!/proc/self/exe init\n").unwrap();
    fs::set_permissions(root.join("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
    let watch = "while true; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in *creel*|/) exec 9<$p/exe && break 2;; \
                 esac; done; done; echo held > /tmp/said; \
                 for i in 1 2 3 4 5 6 7 8; do (echo overwritten > /proc/self/fd/9) 2>>/tmp/said && echo wrote >> /tmp/said; \
                 sleep 0.3; done; echo end >> /tmp/said; sleep 1000";
    let bundle = place.bundle("c", &["sh", "-c", watch], |spec| {
        spec["root"] = json!({ "path": root, "readonly": false });
    });
    let call = |args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(["oci", "--log", "/dev/null", "--root"]).arg(place.root()).args(args);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        command.status().unwrap().success()
    };
    assert!(call(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]));
    let said = || fs::read_to_string(root.join("tmp/said")).unwrap_or_default();
    for program in ["/bin/init", "/bin/script"] {
        // Where the runtime has let go of its file there is nothing to execute; where it runs from a sealed one, that is
        // what is opened.
        if call(&["exec", "c", program, "sleep", "1"]) {
            crate::support::eventually("the end of the attack", || said().ends_with("end\n"));
            assert!(said().contains("Read-only file system"), "{}", said());
        }
    }
    assert!(!said().contains("wrote"), "{}", said());
    assert_eq!(fs::metadata(&program).unwrap().len(), length, "{}", said());
    assert!(call(&["delete", "--force", "c"]));
    place.finish();
}
