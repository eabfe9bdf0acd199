//! Manifests and indexes: from bytes that a stranger sent to values, and the choice among platforms.

use creel_types::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use creel_types::{Digest, Platform};
use serde_json::Value;

use crate::error::{Error, Result};

/// The largest manifest, index or configuration that is read, in bytes (distribution-spec: at least 4 MiB must pass).
pub(crate) const LIMIT: u64 = 4 << 20;

/// What a registry or archive names by a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// What to accept, the most general first.
pub(crate) fn accept() -> String {
    use media_type::*;
    [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST, "application/json;q=0.5"].join(", ")
}

/// Reads a manifest or index. `declared` is the media type by which it was named, if any: where the
/// document names its own, both must agree, so that nobody reads one document as two.
pub(crate) fn parse(bytes: &[u8], declared: Option<&str>, name: &str) -> Result<(Document, String)> {
    let wrong = |reason: String| Error::document("manifest", name, reason);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
    let own = value.get("mediaType").and_then(Value::as_str).filter(|own| !own.is_empty());
    let declared =
        declared.map(|text| text.split(';').next().unwrap_or_default().trim()).filter(|text| is_known(text));
    if let (Some(own), Some(declared)) = (own, declared)
        && own != declared
    {
        return Err(wrong(format!("it was sent as `{declared}` and calls itself `{own}`")));
    }
    if is_schema1(own.or(declared).unwrap_or_default()) || value.get("schemaVersion") == Some(&Value::from(1))
    {
        return Err(Error::Unsupported {
            name: name.to_owned(),
            reason: "it is in Docker's image format schema 1, which has been retired since 2017 and does not \
                     bind the content to its digest; pull it with an old engine and push it again with a new one"
                .to_owned(),
        });
    }
    let (has_manifests, has_layers) = (value.get("manifests").is_some(), value.get("layers").is_some());
    if has_manifests && has_layers {
        return Err(wrong(
            "it has both `manifests` and `layers`, so it could be read in two ways".to_owned(),
        ));
    }
    let media = match own.or(declared) {
        Some(media) if media_type::is_index(media) || media_type::is_manifest(media) => media.to_owned(),
        Some(media) => return Err(wrong(format!("`{media}` is not the media type of an image"))),
        None if has_manifests => media_type::OCI_INDEX.to_owned(),
        None if has_layers => media_type::OCI_MANIFEST.to_owned(),
        None => return Err(wrong("it has neither `manifests` nor `layers`".to_owned())),
    };
    if value.get("schemaVersion") != Some(&Value::from(2)) {
        return Err(wrong("its schemaVersion is not 2".to_owned()));
    }
    let document = if media_type::is_index(&media) {
        Document::Index(serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?)
    } else {
        Document::Manifest(serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?)
    };
    Ok((document, media))
}

fn is_schema1(media: &str) -> bool {
    matches!(media, media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED)
}

fn is_known(media: &str) -> bool {
    media_type::is_index(media) || media_type::is_manifest(media) || is_schema1(media)
}

/// Chooses the entry of an index for a platform: one that matches and names no more of a variant than was
/// asked for is best; an entry without a platform is taken only if it is the only one.
pub(crate) fn choose<'a>(index: &'a Index, wanted: &Platform, name: &str) -> Result<&'a Descriptor> {
    choose_among(&index.manifests.iter().collect::<Vec<_>>(), wanted, name)
}

/// [`choose`] among descriptors from anywhere.
pub(crate) fn choose_among<'a>(
    entries: &[&'a Descriptor],
    wanted: &Platform,
    name: &str,
) -> Result<&'a Descriptor> {
    let images = entries.iter().copied().filter(|entry| {
        (entry.media_type.is_empty()
            || media_type::is_manifest(&entry.media_type)
            || media_type::is_index(&entry.media_type))
            && !is_attestation(entry)
    });
    let mut best: Option<&Descriptor> = None;
    let mut unnamed = Vec::new();
    let mut available = Vec::new();
    for entry in images {
        let Some(platform) = &entry.platform else {
            unnamed.push(entry);
            continue;
        };
        available.push(platform.to_string());
        if !wanted.accepts(platform) {
            continue;
        }
        let exact = |entry: &Descriptor| entry.platform.as_ref().is_some_and(|p| p.variant == wanted.variant);
        if best.is_none_or(|best| !exact(best) && exact(entry)) {
            best = Some(entry);
        }
    }
    match (best, unnamed.as_slice()) {
        (Some(best), _) => Ok(best),
        (None, [only]) if available.is_empty() => Ok(only),
        _ => Err(Error::Platform {
            name: name.to_owned(),
            wanted: wanted.to_string(),
            available: if available.is_empty() { "none".to_owned() } else { available.join(", ") },
        }),
    }
}

/// Whether this entry only attests to another one (buildkit's provenance and SBOM manifests).
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.digest")
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// Checks that a manifest is one of a container image, and not of some other artifact kept in a registry.
pub(crate) fn check_manifest(manifest: &Manifest, name: &str) -> Result<()> {
    let config = manifest.config.media_type.as_str();
    if !matches!(config, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "") {
        return Err(Error::Unsupported {
            name: name.to_owned(),
            reason: format!("it is not a container image: its configuration is of type `{config}`"),
        });
    }
    if manifest.config.size > LIMIT {
        return Err(Error::document(
            "manifest",
            name,
            format!("its configuration of {} bytes is larger than {LIMIT}", manifest.config.size),
        ));
    }
    for layer in &manifest.layers {
        if layer.media_type.ends_with("+encrypted") {
            return Err(Error::Unsupported {
                name: name.to_owned(),
                reason: format!("its layer {} is encrypted", layer.digest),
            });
        }
        if !layer.media_type.contains(".tar") {
            return Err(Error::Unsupported {
                name: name.to_owned(),
                reason: format!("its layer {} is of type `{}`, not a tar", layer.digest, layer.media_type),
            });
        }
    }
    Ok(())
}

/// Reads a configuration and checks that it speaks of as many layers as the manifest does.
pub(crate) fn parse_config(bytes: &[u8], digest: &Digest, layers: usize) -> Result<ImageConfig> {
    let wrong = |reason: String| Error::document("configuration", digest, reason);
    let config: ImageConfig = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if config.rootfs.diff_ids.len() != layers {
        return Err(wrong(format!(
            "it names {} layers where its manifest names {layers}",
            config.rootfs.diff_ids.len()
        )));
    }
    if !config.os.is_empty() && config.os != "linux" {
        return Err(Error::Unsupported {
            name: digest.to_string(),
            reason: format!("it is an image for {}; creel runs those for linux", config.platform()),
        });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn entry(platform: Option<&str>, byte: u8) -> Descriptor {
        Descriptor {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            digest: Digest::from_sha256([byte; 32]),
            size: 1,
            platform: platform.map(|text| text.parse().unwrap()),
            annotations: Default::default(),
        }
    }

    fn pick(entries: &[Descriptor], wanted: &str) -> String {
        let wanted = wanted.parse().unwrap();
        match choose_among(&entries.iter().collect::<Vec<_>>(), &wanted, "x:latest") {
            Ok(entry) => entry.digest.as_bytes()[0].to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_nearest_platform_is_chosen() {
        let mut attestation = entry(Some("linux/amd64"), 9);
        attestation.platform.as_mut().unwrap().os = "unknown".into();
        attestation.platform.as_mut().unwrap().architecture = "unknown".into();
        let all = [
            attestation,
            entry(Some("linux/amd64/v3"), 1),
            entry(Some("linux/amd64"), 2),
            entry(Some("linux/arm/v6"), 3),
            entry(Some("linux/arm/v7"), 4),
            entry(Some("linux/arm64/v8"), 5),
            entry(Some("linux/amd64"), 6),
        ];
        let picks = ["linux/amd64", "linux/amd64/v3", "linux/arm/v7", "linux/arm64", "linux/s390x"]
            .map(|wanted| pick(&all, wanted))
            .join("\n");
        expect![[r#"
            2
            1
            4
            5
            x:latest has no image for linux/s390x; it has: linux/amd64/v3, linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, linux/amd64"#]]
        .assert_eq(&picks);
        assert_eq!(pick(&[entry(None, 7)], "linux/amd64"), "7");
        assert_eq!(
            pick(&[entry(None, 7), entry(None, 8)], "linux/amd64"),
            "x:latest has no image for linux/amd64; it has: none"
        );
    }

    #[test]
    fn documents_that_could_be_read_in_two_ways_are_refused() {
        let read = |text: &str, declared: Option<&str>| match parse(text.as_bytes(), declared, "x") {
            Ok((_, media)) => media,
            Err(error) => error.to_string(),
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#);
        let all = [
            read(&manifest, None),
            read(&manifest, Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8")),
            read(&manifest, Some("application/json")),
            read(r#"{"schemaVersion":2,"manifests":[]}"#, Some("text/plain")),
            read(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, None),
            read(
                r#"{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json"}"#,
                Some(media_type::OCI_MANIFEST),
            ),
            read(r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            read("{}", None),
            read(r#"{"layers":[]}"#, None),
            read(r#"{"mediaType":"x/y","layers":[]}"#, None),
            read("[", None),
            read(r#"{"schemaVersion":2,"layers":[],"config":{"digest":"sha512:00","size":1}}"#, None),
        ]
        .join("\n");
        expect![[r#"
            application/vnd.oci.image.manifest.v1+json
            application/vnd.docker.distribution.manifest.v2+json
            application/vnd.oci.image.manifest.v1+json
            application/vnd.oci.image.index.v1+json
            the manifest x is not valid: it has both `manifests` and `layers`, so it could be read in two ways
            the manifest x is not valid: it was sent as `application/vnd.oci.image.manifest.v1+json` and calls itself `application/vnd.oci.image.index.v1+json`
            x cannot be used: it is in Docker's image format schema 1, which has been retired since 2017 and does not bind the content to its digest; pull it with an old engine and push it again with a new one
            the manifest x is not valid: it has neither `manifests` nor `layers`
            the manifest x is not valid: its schemaVersion is not 2
            the manifest x is not valid: `x/y` is not the media type of an image
            the manifest x is not valid: it is not JSON: EOF while parsing a list at line 1 column 1
            the manifest x is not valid: digest algorithm `sha512` is not supported: only sha256 is"#]]
        .assert_eq(&all);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, None, "x");
            let _ = parse_config(&bytes, &Digest::from_sha256([0; 32]), 0);
        }
    }
}
