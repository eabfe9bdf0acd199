//! `-v`, `--mount` and `--tmpfs`, as the API carries them, to [`MountRecord`]s. Pure.

use creel_wire::container::Config;
use creel_wire::host::{HostConfig, Mount};

use crate::error::{Error, Result};
use crate::record::{MountKind, MountRecord};

const NAMED: &str = "named volumes are not in this version of creel yet; give an absolute path of the host";
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const TMPFS_FLAGS: [&str; 21] = [
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "ro",
    "rw",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
];
const TMPFS_VALUES: [&str; 7] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol"];

/// Removes `.`, `..`, and double slashes, as Go's `path.Clean` does of an absolute path.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn target(path: &str, spec: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"bind\": invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let path = clean(path);
    if path == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
        )));
    }
    Ok(path)
}

fn tmpfs_target(path: &str) -> Result<String> {
    match path.starts_with('/') {
        true => target(path, path),
        false => Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute"))),
    }
}

/// Everything to mount, in the order in which it is to be mounted. Anonymous volumes come without a source; the
/// caller gives them one.
pub(crate) fn all(config: &Config, host: &HostConfig) -> Result<Vec<MountRecord>> {
    let mut mounts: Vec<MountRecord> = Vec::new();
    let mut add = |mount: MountRecord| {
        // The same mount twice says nothing new; Docker lets it pass.
        if mounts.contains(&mount) {
            return Ok(());
        }
        if mounts.iter().any(|other| other.destination == mount.destination) {
            return Err(Error::invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
        mounts.push(mount);
        Ok(())
    };
    for spec in host.binds.iter().flatten() {
        add(bind(spec)?)?;
    }
    for (path, options) in host.tmpfs.iter().flatten() {
        add(MountRecord {
            kind: MountKind::Tmpfs,
            source: String::new(),
            destination: tmpfs_target(path)?,
            rw: true,
            mode: String::new(),
            propagation: String::new(),
            options: tmpfs_options(options.split(',').filter(|o| !o.is_empty()))?,
            create_source: false,
            hidden: true,
        })?;
    }
    for mount in host.mounts.iter().flatten() {
        add(long(mount)?)?;
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = target(path, path)?;
        // A volume of the image gives way to whatever was asked for at its place.
        if mounts.iter().all(|other| other.destination != destination) {
            mounts.push(MountRecord {
                kind: MountKind::Volume,
                source: String::new(),
                destination,
                rw: true,
                mode: String::new(),
                propagation: String::new(),
                options: vec!["rbind".to_owned()],
                create_source: false,
                hidden: false,
            });
        }
    }
    // A mount below another one must come after it.
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(mounts)
}

/// `source:destination[:options]`.
fn bind(spec: &str) -> Result<MountRecord> {
    let wrong = |why: String| Error::invalid(format!("invalid volume specification: '{spec}': {why}"));
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] if destination.starts_with('/') => {
            return Ok(MountRecord {
                kind: MountKind::Volume,
                source: String::new(),
                destination: target(destination, spec)?,
                rw: true,
                mode: String::new(),
                propagation: String::new(),
                options: vec!["rbind".to_owned()],
                create_source: false,
                hidden: false,
            });
        }
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(Error::invalid(format!("invalid volume specification: '{spec}'"))),
    };
    if source.is_empty() || destination.is_empty() {
        return Err(wrong("source and destination must not be empty".into()));
    }
    if !source.starts_with('/') {
        return Err(Error::unsupported(format!("the volume \"{source}\" of '{spec}': {NAMED}")));
    }
    let destination = target(destination, spec)?;
    let (mut rw, mut propagation, mut seen) = (true, "rprivate", (false, false));
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" if !seen.0 => {
                rw = option == "rw";
                seen.0 = true;
            }
            // SELinux labels: without SELinux, which creel does not use, there is nothing to relabel.
            "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated" => {}
            option if PROPAGATIONS.contains(&option) && !seen.1 => {
                propagation = option;
                seen.1 = true;
            }
            _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        }
    }
    Ok(MountRecord {
        kind: MountKind::Bind,
        source: clean(source),
        destination,
        rw,
        mode: mode.to_owned(),
        propagation: propagation.to_owned(),
        options: bind_options(rw, propagation, true, true),
        create_source: true,
        hidden: false,
    })
}

/// OCI's options of a bind mount.
fn bind_options(rw: bool, propagation: &str, recursive: bool, read_only_below: bool) -> Vec<String> {
    let bind = if recursive { "rbind" } else { "bind" };
    let mut options = vec![bind.to_owned(), propagation.to_owned()];
    if !rw {
        options.push("ro".to_owned());
        if recursive && read_only_below {
            options.push("rro".to_owned());
        }
    }
    options
}

fn long(mount: &Mount) -> Result<MountRecord> {
    let wrong =
        |why: &str| Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(&format!("invalid mount path: '{}' mount path must be absolute", mount.target)));
    }
    let destination = clean(&mount.target);
    if destination == "/" {
        return Err(wrong("destination can't be '/'"));
    }
    let rw = !mount.read_only;
    let base = MountRecord {
        kind: MountKind::Bind,
        source: String::new(),
        destination,
        rw,
        mode: String::new(),
        propagation: String::new(),
        options: Vec::new(),
        create_source: false,
        hidden: false,
    };
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            if mount.volume_options.is_some()
                || mount.tmpfs_options.is_some()
                || mount.image_options.is_some()
            {
                return Err(wrong("only BindOptions are allowed"));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            let propagation = match options.propagation.as_str() {
                "" => "rprivate",
                given if PROPAGATIONS.contains(&given) => given,
                given => return Err(wrong(&format!("invalid propagation mode: {given}"))),
            };
            if options.read_only_force_recursive
                && (rw || options.non_recursive || options.read_only_non_recursive)
            {
                return Err(wrong("ReadOnlyForceRecursive needs a recursive, read-only mount"));
            }
            if options.read_only_non_recursive && rw {
                return Err(wrong("ReadOnlyNonRecursive needs a read-only mount"));
            }
            let recursive = !options.non_recursive;
            Ok(MountRecord {
                source: clean(&mount.source),
                propagation: propagation.to_owned(),
                options: bind_options(rw, propagation, recursive, !options.read_only_non_recursive),
                create_source: options.create_mountpoint,
                ..base
            })
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            if mount.bind_options.is_some() || mount.volume_options.is_some() || mount.image_options.is_some()
            {
                return Err(wrong("only TmpfsOptions are allowed"));
            }
            let given = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = Vec::new();
            if !rw {
                options.push("ro".to_owned());
            }
            if given.mode != 0 {
                options.push(format!("mode={:o}", given.mode));
            }
            if given.size_bytes < 0 {
                return Err(wrong("SizeBytes must not be negative"));
            }
            if given.size_bytes > 0 {
                options.push(format!("size={}", given.size_bytes));
            }
            options.extend(given.options.iter().flatten().map(|pair| pair.join("=")));
            Ok(MountRecord {
                kind: MountKind::Tmpfs,
                options: tmpfs_options(options.iter().map(String::as_str))?,
                ..base
            })
        }
        "volume" if mount.source.is_empty() && mount.volume_options.is_none() => Ok(MountRecord {
            kind: MountKind::Volume,
            options: bind_options(rw, "rprivate", true, true),
            ..base
        }),
        "volume" => {
            Err(Error::unsupported(format!("a mount of type volume at {}: {NAMED}", base.destination)))
        }
        "image" | "npipe" | "cluster" => {
            Err(Error::unsupported(format!("a mount of type {}: only bind and tmpfs are there", mount.kind)))
        }
        _ => Err(wrong("mount type unknown")),
    }
}

/// Docker's defaults (noexec, nosuid, nodev) with what was given over them.
fn tmpfs_options<'a>(given: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut options =
        vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned(), "rprivate".to_owned()];
    for option in given {
        let key = option.split_once('=').map_or(option, |(key, _)| key);
        let known = if option.contains('=') {
            TMPFS_VALUES.contains(&key)
        } else {
            TMPFS_FLAGS.contains(&key) || PROPAGATIONS.contains(&key)
        };
        if !known {
            return Err(Error::invalid(format!("invalid tmpfs option \"{option}\"")));
        }
        let opposite = |a: &str, b: &str| a.strip_prefix("no") == Some(b) || b.strip_prefix("no") == Some(a);
        options.retain(|old| {
            let old = old.split_once('=').map_or(old.as_str(), |(key, _)| key);
            let replaced = old == key
                || opposite(old, key)
                || matches!((old, key), ("ro", "rw") | ("rw", "ro"))
                || (PROPAGATIONS.contains(&old) && PROPAGATIONS.contains(&key));
            !replaced
        });
        options.push(option.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(json: &str, expected: Expect) {
        let host: HostConfig = serde_json::from_str(json).unwrap();
        let config: Config = serde_json::from_str(r#"{"Volumes":{"/data":{}}}"#).unwrap();
        let text = match all(&config, &host) {
            Ok(list) => list
                .iter()
                .map(|m| {
                    format!(
                        "{:?} {}:{} rw={} {}\n",
                        m.kind,
                        m.source,
                        m.destination,
                        m.rw,
                        m.options.join(",")
                    )
                })
                .collect(),
            Err(e) => e.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn binds() {
        check(
            r#"{"Binds":["/a//b/../c:/x:ro","/s:/data:rslave,z","/x:/x/y/z"]}"#,
            expect![[r#"
            Bind /a/c:/x rw=false rbind,rprivate,ro,rro
            Bind /s:/data rw=true rbind,rslave
            Bind /x:/x/y/z rw=true rbind,rprivate
        "#]],
        );
        check(
            r#"{"Binds":["name:/x"]}"#,
            expect![
                "the volume \"name\" of 'name:/x': named volumes are not in this version of creel yet; give an absolute path of the host"
            ],
        );
        check(
            r#"{"Binds":["/a:x"]}"#,
            expect![
                "invalid volume specification: '/a:x': invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute"
            ],
        );
        check(r#"{"Binds":["/a:/x:rw,ro"]}"#, expect!["invalid mode: rw,ro"]);
        check(r#"{"Binds":["/a:/x:y:z"]}"#, expect!["invalid volume specification: '/a:/x:y:z'"]);
        check(
            r#"{"Binds":["/a:/"]}"#,
            expect![
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
            ],
        );
        let twice = HostConfig { binds: Some(vec!["/a:/x".to_owned(); 2]), ..HostConfig::default() };
        assert_eq!(all(&Config::default(), &twice).unwrap().len(), 1);
        check(r#"{"Binds":["/a:/x","/b:/x/."]}"#, expect!["Duplicate mount point: /x"]);
    }

    #[test]
    fn tmpfs_and_long_mounts() {
        check(
            r#"{"Tmpfs":{"/t":"size=1m,exec","/u":""}}"#,
            expect![[r#"
            Tmpfs :/t rw=true nosuid,nodev,rprivate,size=1m,exec
            Tmpfs :/u rw=true noexec,nosuid,nodev,rprivate
            Volume :/data rw=true rbind
        "#]],
        );
        check(r#"{"Tmpfs":{"/t":"bogus"}}"#, expect![[r#"invalid tmpfs option "bogus""#]]);
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"NonRecursive":true,"Propagation":"rshared"}},
            {"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":4096,"Mode":448}}]}"#,
            expect![[r#"
            Bind /a:/b rw=false bind,rshared,ro
            Tmpfs :/t rw=true noexec,nosuid,nodev,rprivate,mode=700,size=4096
            Volume :/data rw=true rbind
        "#]],
        );
        check(
            r#"{"Mounts":[{"Type":"volume","Source":"v","Target":"/b"}]}"#,
            expect![
                "a mount of type volume at /b: named volumes are not in this version of creel yet; give an absolute path of the host"
            ],
        );
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"a","Target":"/b"}]}"#,
            expect![[
                r#"invalid mount config for type "bind": invalid mount path: 'a' mount path must be absolute"#
            ]],
        );
        check(
            r#"{"Mounts":[{"Type":"bind","Source":"/a"}]}"#,
            expect![[r#"invalid mount config for type "bind": field Target must not be empty"#]],
        );
    }

    proptest! {
        #[test]
        fn no_bind_makes_it_panic(spec in "\\PC{0,30}") {
            let _ = bind(&spec);
        }

        #[test]
        fn cleaned_paths_have_no_dots(path in "[./a]{0,20}") {
            let clean = clean(&path);
            prop_assert!(clean.starts_with('/'));
            prop_assert!(!clean.split('/').any(|part| part == ".." || part == "."));
        }
    }
}
