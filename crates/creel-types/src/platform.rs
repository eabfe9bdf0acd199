//! Platforms: operating system, architecture and variant (OCI image-spec, `image-index.md`, "platform").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It is not of the form that platforms have.
    #[error(
        "`{0}` is not a platform: `os/architecture[/variant]` is wanted, like linux/amd64 or linux/arm64/v8"
    )]
    Malformed(String),
    /// One word only, and neither a system nor a processor is called so.
    #[error(
        "error parsing specified platform: {0:?}: unknown operating system or architecture: invalid argument"
    )]
    Unknown(String),
}

/// Go's names of processors, as far as images are made for them (Go's `go/build`, the list of known architectures).
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

/// An operating system and processor that an image is made for, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, `linux` for all that creel runs.
    #[serde(default)]
    pub os: String,
    /// The architecture by Go's name: `amd64`, `arm64`, `arm`, `386`, …
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system (Windows only).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// The platform that this binary was built for and so runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            other => (other, None),
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant, os_version: None }
    }

    /// Whether an image made for `image` satisfies this wish. A variant that either side leaves open matches,
    /// and `arm64` and `arm64/v8` are the same, as in containerd's platform matching.
    pub fn accepts(&self, image: &Platform) -> bool {
        if self.os != image.os || self.architecture != image.architecture {
            return false;
        }
        match (self.normal_variant(), image.normal_variant()) {
            (Some(wanted), Some(given)) => wanted == given,
            _ => true,
        }
    }

    fn normal_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8" | "8")) => None,
            (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError::Malformed(text.to_owned());
        let mut parts = text.split('/');
        let os = parts.next().filter(|p| !p.is_empty()).ok_or_else(wrong)?;
        let (os, architecture) = match parts.next() {
            Some(architecture) => (os.to_ascii_lowercase(), architecture),
            None => match os {
                "linux" => return Ok(Platform::host()),
                architecture => ("linux".to_owned(), architecture),
            },
        };
        let variant = parts.next().map(str::to_owned);
        if parts.next().is_some() || architecture.is_empty() || variant.as_deref() == Some("") {
            return Err(wrong());
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-')) {
            return Err(wrong());
        }
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            "armhf" => "arm",
            other => other,
        };
        if !text.contains('/') && !ARCHITECTURES.contains(&architecture) {
            return Err(PlatformError::Unknown(text.to_owned()));
        }
        Ok(Self { os, architecture: architecture.to_owned(), variant, os_version: None })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn variants_match_as_containerd_matches_them() {
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(platform("linux/amd64").accepts(&platform("linux/x86_64")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("windows/amd64")));
    }

    #[test]
    fn wrong_platforms_are_refused() {
        for wrong in ["", "/", "linux/", "linux/amd64/", "a/b/c/d", "linux/am d", "foo"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
