//! Storage drivers: in which form layers are kept, and how containers' roots are made from them.
//!
//! A driver decides about what is new and nothing else. Each layer's record says in which form it is kept, and each
//! container's directory shows how its root is made; everything that reads goes by these. So a store may be opened with
//! another driver than the one that it was made with: what is there stays as it is, and is used as it is.
//!
//! | | a new layer | a new container's root |
//! | --- | --- | --- |
//! | `overlay` | unpacked into a directory | an overlay of its own upper directory over the layers |
//! | `erofs` | its archive, and an EROFS image that points into it; what that cannot say is unpacked | the same |
//! | `copy` | unpacked into a directory | a copy of what the layers show together |
//!
//! Whether a driver can be used on this machine is found out by trying; that is for those who may mount.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A storage driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// Directories, and overlayfs.
    #[default]
    Overlay,
    /// EROFS images, and overlayfs.
    Erofs,
    /// Directories, and copies of them.
    Copy,
}

/// In which form a layer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerForm {
    /// A directory, with whiteouts in overlay's form if there are any.
    #[default]
    Directory,
    /// A directory with plain whiteouts, because the file system refused overlay's: for copies only.
    Plain,
    /// An EROFS image and the archive that it points into.
    Erofs,
}

/// How a container's root is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootForm {
    /// An overlay, mounted where the container is.
    #[default]
    Overlay,
    /// A directory of its own.
    Copy,
}

impl Driver {
    /// The form that it keeps layers in where it can.
    pub fn layers(self) -> LayerForm {
        match self {
            Driver::Overlay | Driver::Copy => LayerForm::Directory,
            Driver::Erofs => LayerForm::Erofs,
        }
    }

    /// How it makes roots.
    pub fn roots(self) -> RootForm {
        match self {
            Driver::Overlay | Driver::Erofs => RootForm::Overlay,
            Driver::Copy => RootForm::Copy,
        }
    }

    /// Docker's name for what does the same; `erofs`, for which it has no graph driver, is containerd's name.
    pub fn docker_name(self) -> &'static str {
        match self {
            Driver::Overlay => "overlay2",
            Driver::Erofs => "erofs",
            Driver::Copy => "vfs",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Overlay => "overlay",
            Driver::Erofs => "erofs",
            Driver::Copy => "copy",
        })
    }
}

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "overlay" | "overlay2" => Ok(Driver::Overlay),
            "erofs" => Ok(Driver::Erofs),
            "copy" | "vfs" => Ok(Driver::Copy),
            _ => Err(format!(
                "`{text}` is no storage driver: there are overlay (or overlay2), erofs, and copy (or vfs)"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_is_known_by_both_of_its_names() {
        for driver in [Driver::Overlay, Driver::Erofs, Driver::Copy] {
            assert_eq!(driver.to_string().parse(), Ok(driver));
            assert_eq!(driver.docker_name().parse(), Ok(driver));
        }
        assert!("zfs".parse::<Driver>().unwrap_err().contains("erofs"));
    }
}
