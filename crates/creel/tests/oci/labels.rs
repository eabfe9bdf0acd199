//! Security modules of the host: AppArmor's profiles, SELinux's labels.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Place, in_the_guest, say, text};

/// Whether profiles of AppArmor can be loaded here; in the guest they can.
fn with_apparmor() -> bool {
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    if on && Path::new("/sys/kernel/security/apparmor/.load").exists() {
        return true;
    }
    assert!(!in_the_guest(), "AppArmor is off in this guest");
    say("skipped: AppArmor is off; tests/vm/run has a kernel where it is on");
    false
}

/// A profile that lets everything happen but writing to one file; unloaded at the end.
struct Profile {
    name: String,
    file: std::path::PathBuf,
}

impl Profile {
    fn load(place: &Place, test: &str) -> Profile {
        let name = format!("creel-test-{test}-{}", std::process::id());
        let file = place.dir.path().join(&name);
        let rules = "file, capability, network, mount, umount, signal, ptrace, unix,";
        let text = format!(
            "profile {name} flags=(attach_disconnected) {{ {rules} deny /dev/shm/secret-{test} w, }}\n"
        );
        fs::write(&file, text).unwrap();
        let profile = Profile { name, file };
        let output = profile.parser("--replace");
        assert!(output.status.success(), "{}", text_of(&output));
        profile
    }

    fn parser(&self, action: &str) -> std::process::Output {
        Command::new("apparmor_parser").args([action, "--skip-cache"]).arg(&self.file).output().unwrap()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_profile_holds_for_the_program_and_what_is_executed() {
    let (true, Some(place)) = (with_apparmor(), Place::new()) else { return };
    let (first, second) = (Profile::load(&place, "one"), Profile::load(&place, "two"));
    let script = "cat /proc/self/attr/current; for n in one two; do
        echo x 2>/dev/null > /dev/shm/secret-$n && echo $n written || echo $n refused; done";
    let bundle = place.bundle("c", &["sh", "-c", script], |spec| {
        spec["process"]["apparmorProfile"] = json!(first.name);
    });
    let under = |profile: &Profile, refused: &str, written: &str| {
        let mut lines = [format!("{refused} refused"), format!("{written} written")];
        lines.sort();
        format!("{} (enforce)\n{}", profile.name, lines.join("\n"))
    };
    let bundle_path = bundle.to_str().unwrap();
    assert_eq!(place.ok(&["run", "--bundle", bundle_path, "c"]), under(&first, "one", "two"));
    // Without new privileges, without root's rights, and in a user namespace alike.
    for change in ["user", "privileges", "namespace"] {
        let bundle = place.bundle("c", &["sh", "-c", script], |spec| {
            spec["process"]["apparmorProfile"] = json!(first.name);
            match change {
                "user" => spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }),
                "privileges" => spec["process"]["noNewPrivileges"] = json!(false),
                _ => {
                    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
                    spec["linux"]["uidMappings"] = map.clone();
                    spec["linux"]["gidMappings"] = map;
                    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
                }
            }
        });
        let said = place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert_eq!(said, under(&first, "one", "two"), "{change}");
    }

    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["process"]["apparmorProfile"] = json!(first.name);
    });
    place.create("c", &bundle);
    place.start("c");
    assert_eq!(place.ok(&["exec", "c", "sh", "-c", script]), under(&first, "one", "two"));
    place.ok(&["exec", "c", "sh", "-c", "rm -f /dev/shm/secret-two"]);
    let said = place.ok(&["exec", "--apparmor", &second.name, "c", "sh", "-c", script]);
    assert_eq!(said, under(&second, "two", "one"));
    let said = place.fails(255, &["exec", "--apparmor", "creel-test-none", "c", "true"]);
    assert!(said.contains("creel-test-none") && said.contains("apparmor_parser"), "{said}");
    place.ok(&["delete", "--force", "c"]);

    let bundle = place.bundle("c", &["true"], |spec| {
        spec["process"]["apparmorProfile"] = json!("creel-test-none");
    });
    let said = place.fails(1, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    assert!(said.contains("creel-test-none") && said.contains("apparmor_parser"), "{said}");
    place.finish();
}

#[test]
fn a_label_that_nobody_would_enforce_is_refused() {
    let Some(place) = Place::new() else { return };
    if Path::new("/sys/fs/selinux/policy").exists() {
        say("skipped: SELinux is on");
        return;
    }
    let bundle = place.bundle("c", &["true"], |spec| {
        spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0:c1,c2");
    });
    let said = place.fails(1, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    assert!(said.contains("selinuxLabel") && said.contains("disabled or not supported"), "{said}");
    // A label for files is passed over, as by others.
    let bundle = place.bundle("c", &["echo", "fine"], |spec| {
        spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    });
    assert_eq!(place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]), "fine");
    place.finish();
}
