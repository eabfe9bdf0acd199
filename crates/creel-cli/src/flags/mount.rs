//! `--mount`: one line of comma-separated values, quotes allowed.

use creel_wire::host::{BindOptions, Mount, TmpfsOptions};
use serde_json::json;

use super::values;
use crate::units;

/// Splits a line of CSV (RFC 4180): commas separate, `"` quotes, `""` within quotes is one quote.
///
/// # Errors
/// For a quote inside a bare field or one that does not end.
pub fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    None => return Err("a quoted field does not end".to_owned()),
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                }
            }
            if chars.peek().is_some_and(|c| *c != ',') {
                return Err("text after a quoted field".to_owned());
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err("a bare \" in a field without quotes".to_owned());
                }
                field.push(c);
            }
        }
        fields.push(field);
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

/// A check for `--mount`.
///
/// # Errors
/// As [`parse`].
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// Reads the value of `--mount`.
///
/// # Errors
/// For an unknown key, a value that does not fit its key, options of another type of mount, a missing target.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    let mut bind = BindOptions::default();
    let mut tmpfs = TmpfsOptions::default();
    let (mut has_bind, mut has_tmpfs) = (false, false);
    let mut volume = serde_json::Map::new();
    let mut image = serde_json::Map::new();
    if text.is_empty() {
        return Err("value is empty".to_owned());
    }
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let key = key.to_ascii_lowercase();
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => mount.read_only = true,
                "rw" => mount.read_only = false,
                "volume-nocopy" => drop(volume.insert("NoCopy".to_owned(), json!(true))),
                "bind-nonrecursive" => (has_bind, bind.non_recursive) = (true, true),
                "bind-create-src" => (has_bind, bind.create_mountpoint) = (true, true),
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            }
            continue;
        };
        let truth = || values::boolean(value).map_err(|_| format!("invalid value for {key}: {value}"));
        match key.as_str() {
            "type" => mount.kind = value.to_ascii_lowercase(),
            "source" | "src" => {
                mount.source =
                    if value == "." || value.starts_with("./") || value.starts_with("../") || value == ".." {
                        absolute(value)?
                    } else {
                        value.to_owned()
                    };
            }
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = truth()?,
            "consistency" => mount.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => (has_bind, bind.propagation) = (true, value.to_ascii_lowercase()),
            "bind-nonrecursive" => (has_bind, bind.non_recursive) = (true, truth()?),
            "bind-create-src" => (has_bind, bind.create_mountpoint) = (true, truth()?),
            "bind-recursive" => {
                has_bind = true;
                match value {
                    "enabled" => {}
                    "disabled" => bind.non_recursive = true,
                    "writable" => bind.read_only_non_recursive = true,
                    "readonly" => bind.read_only_force_recursive = true,
                    _ => {
                        return Err(format!(
                            "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \
                             \"readonly\")"
                        ));
                    }
                }
            }
            "volume-nocopy" => drop(volume.insert("NoCopy".to_owned(), json!(truth()?))),
            "volume-subpath" => drop(volume.insert("Subpath".to_owned(), json!(value))),
            "volume-driver" | "volume-opt" => {
                let driver = volume.entry("DriverConfig").or_insert_with(|| json!({}));
                if key == "volume-driver" {
                    driver["Name"] = json!(value);
                } else {
                    let (name, option) = value.split_once('=').unwrap_or((value, ""));
                    driver["Options"][name] = json!(option);
                }
            }
            "volume-label" => {
                let (name, label) = value.split_once('=').unwrap_or((value, ""));
                volume.entry("Labels").or_insert_with(|| json!({}))[name] = json!(label);
            }
            "image-subpath" => drop(image.insert("Subpath".to_owned(), json!(value))),
            "tmpfs-size" => {
                has_tmpfs = true;
                tmpfs.size_bytes =
                    units::parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
            }
            "tmpfs-mode" => {
                has_tmpfs = true;
                tmpfs.mode =
                    u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let only = |has: bool, kind: &str| {
        if has && mount.kind != kind {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind));
        }
        Ok(())
    };
    only(has_bind, "bind")?;
    only(has_tmpfs, "tmpfs")?;
    only(!volume.is_empty(), "volume")?;
    only(!image.is_empty(), "image")?;
    if bind.read_only_non_recursive && !mount.read_only {
        return Err(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned()
        );
    }
    if bind.read_only_force_recursive {
        if !mount.read_only {
            return Err(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                    .to_owned(),
            );
        }
        if bind.propagation != "rprivate" {
            return Err(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in \
                        conjunction"
                    .to_owned(),
            );
        }
    }
    mount.bind_options = has_bind.then_some(bind);
    mount.tmpfs_options = has_tmpfs.then_some(tmpfs);
    mount.volume_options = (!volume.is_empty()).then(|| volume.into());
    mount.image_options = (!image.is_empty()).then(|| image.into());
    Ok(mount)
}

fn absolute(path: &str) -> Result<String, String> {
    let path = std::path::absolute(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(super::volume::clean(&path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read() {
        let lines = [
            "type=bind,src=/a,dst=/b,readonly",
            "type=bind,\"src=/a,b\",target=/c,bind-propagation=rslave",
            "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1777",
            "source=vol,target=/v,volume-nocopy,volume-opt=a=b",
            "type=bind,src=/a,dst=/b,readonly=false,bind-recursive=disabled",
            "type=bind",
            "foo=bar",
            "foo",
            "type=bind,src=/a,dst=/b,tmpfs-size=1",
            "type=tmpfs,dst=/b,tmpfs-mode=9",
            "type=bind,src=/a,dst=/b,readonly=perhaps",
            "type=bind,\"src=/a",
            "",
        ];
        let text = lines.map(|line| match parse(line) {
            Ok(mount) => serde_json::to_string(&mount).unwrap(),
            Err(e) => e,
        });
        expect![[r#"
            {"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}
            {"Type":"bind","Source":"/a,b","Target":"/c","BindOptions":{"Propagation":"rslave","NonRecursive":false,"CreateMountpoint":false,"ReadOnlyNonRecursive":false,"ReadOnlyForceRecursive":false}}
            {"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":67108864,"Mode":1023}}
            {"Type":"volume","Source":"vol","Target":"/v","VolumeOptions":{"DriverConfig":{"Options":{"a":"b"}},"NoCopy":true}}
            {"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"","NonRecursive":true,"CreateMountpoint":false,"ReadOnlyNonRecursive":false,"ReadOnlyForceRecursive":false}}
            target is required
            unexpected key 'foo' in 'foo=bar'
            invalid field 'foo' must be a key=value pair
            cannot mix 'tmpfs-*' options with mount type 'bind'
            invalid value for tmpfs-mode: 9
            invalid value for readonly: perhaps
            a quoted field does not end
            value is empty"#]].assert_eq(&text.join("\n"));
    }

    proptest! {
        #[test]
        fn quoted_fields_come_back(fields in prop::collection::vec("\\PC{0,6}", 1..5)) {
            let line = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(csv(&line).unwrap(), fields);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = parse(&text);
        }
    }
}
