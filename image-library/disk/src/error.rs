// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package, in three families: corrupt, unsupported, input/output.
//!
//! The text is `structure at byte 0x..: problem`; the source is not repeated in it, because
//! whoever reports walks the chain. What to do about it is separate, in [`Error::hint`].

use std::io;
use std::path::{Path, PathBuf};

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a disk, partition or filesystem could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes break their own format.
    #[error("{structure} at byte {offset:#x}: {problem}")]
    Corrupt {
        /// Which structure, as its specification calls it.
        structure: &'static str,
        /// Where it begins, in bytes from the start of the device that was read.
        offset: u64,
        /// What is wrong, with the expected and the found value.
        problem: String,
    },
    /// The bytes are legal, but this code does not know the feature.
    #[error("{structure}: {feature} is not supported")]
    Unsupported {
        /// Which structure or format.
        structure: &'static str,
        /// The feature, as its specification calls it.
        feature: String,
    },
    /// A file was named as a disk and is something else.
    #[error("{path} is not a disk: {problem}")]
    NotADisk {
        /// The file.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        problem: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// An image stands on another file, and the caller did not allow to open that.
    #[error("{image} needs the backing file `{backing}`, which it may not open by itself")]
    BackingRefused {
        /// The image.
        image: PathBuf,
        /// The name inside it.
        backing: String,
    },
    /// The file that an image stands on could not be opened.
    #[error("open {backing}, the backing file of {image}")]
    Backing {
        /// The image.
        image: PathBuf,
        /// The file it stands on.
        backing: PathBuf,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// A path inside a filesystem does not exist.
    #[error("no such file in the guest: {path}")]
    NotFound {
        /// The absolute path inside the filesystem.
        path: String,
    },
    /// A file or device of this computer could not be read or written.
    #[error("{action} {path}")]
    File {
        /// What was being done: "open", "read", "write".
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A device below this one (an image, a network export) could not be read or written.
    #[error("{action} {length} bytes at byte {offset:#x}")]
    Device {
        /// What was being done: "read", "write".
        action: &'static str,
        /// Where, in bytes from the start of the device.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// What the device said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A limit that protects this computer was reached.
    #[error("{what} would exceed the limit of {limit}")]
    Limit {
        /// What grew.
        what: &'static str,
        /// The limit, in the unit that `what` names.
        limit: u64,
    },
}

impl Error {
    /// A [`Error::Corrupt`] in fewer words.
    pub fn corrupt(structure: &'static str, offset: u64, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            structure,
            offset,
            problem: problem.into(),
        }
    }

    /// An [`Error::Unsupported`] in fewer words.
    pub fn unsupported(structure: &'static str, feature: impl Into<String>) -> Self {
        Self::Unsupported {
            structure,
            feature: feature.into(),
        }
    }

    /// A device that could not be written because of `path` names that file instead.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Device {
                action: action @ "write",
                offset,
                length,
                source,
            } => match source.downcast::<io::Error>() {
                Ok(source) => Self::File {
                    action,
                    path: path.to_owned(),
                    source: *source,
                },
                Err(source) => Self::Device {
                    action,
                    offset,
                    length,
                    source,
                },
            },
            other => other,
        }
    }

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, path, .. } => io_hint(source, Some(path)),
            Self::Device { source, .. } => source
                .downcast_ref::<io::Error>()
                .and_then(|source| io_hint(source, None)),
            Self::NotADisk { hint, .. } => Some((*hint).to_owned()),
            Self::BackingRefused { image, .. } => Some(format!(
                "if you made this image and trust it, allow backing files, or make one file of \
                 it: qemu-img convert -O qcow2 {} NEW.qcow2",
                image.display()
            )),
            Self::Backing {
                image,
                source,
                backing,
            } => match &**source {
                Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    Some(format!(
                        "put it back to {}, or tell the image where it is now: \
                         qemu-img rebase -u -b PATH -F FORMAT {}",
                        backing.display(),
                        image.display()
                    ))
                }
                source => source.hint(),
            },
            Self::Corrupt { structure, .. } => corrupt_hint(structure).map(str::to_owned),
            Self::Unsupported { structure, .. } => unsupported_hint(structure).map(str::to_owned),
            Self::NotFound { .. } | Self::Limit { .. } => None,
        }
    }
}

fn io_hint(source: &io::Error, path: Option<&Path>) -> Option<String> {
    match (source.kind(), path) {
        (io::ErrorKind::PermissionDenied, Some(_)) => {
            Some("run as a user who may read it, or change its permissions".to_owned())
        }
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, Some(path)) => Some(format!(
            "make room on the filesystem of {} and run the command again",
            path.display()
        )),
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, None) => {
            Some("make room on that filesystem and run the command again".to_owned())
        }
        (io::ErrorKind::AlreadyExists, Some(path)) => Some(format!(
            "move {} away or choose another name",
            path.display()
        )),
        _ => None,
    }
}

fn corrupt_hint(structure: &str) -> Option<&'static str> {
    if structure.starts_with("qcow2") {
        Some(
            "the image was cut off or damaged: copy it again and compare sizes; \
             `qemu-img check IMAGE` tells how much is wrong",
        )
    } else if structure.starts_with("GPT") {
        Some(
            "both copies of the partition table are damaged: look at the disk with \
             `gdisk -l DISK`, restore its table there (or from `sgdisk --backup`), and image it again",
        )
    } else {
        None
    }
}

fn unsupported_hint(structure: &str) -> Option<&'static str> {
    match structure {
        "qcow2" | "disk image" => {
            Some("convert it first: qemu-img convert -O qcow2 IMAGE NEW.qcow2")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_filesystem_is_told_with_the_files_name_and_a_hint() {
        let full = Error::Device {
            action: "write",
            offset: 0,
            length: 512,
            source: io::Error::from(io::ErrorKind::StorageFull).into(),
        };
        assert_eq!(
            full.hint().as_deref(),
            Some("make room on that filesystem and run the command again")
        );
        let named = full.in_file(Path::new("/srv/new.qcow2"));
        assert_eq!(named.to_string(), "write /srv/new.qcow2");
        assert_eq!(
            named.hint().as_deref(),
            Some("make room on the filesystem of /srv/new.qcow2 and run the command again")
        );
    }

    #[test]
    fn an_error_of_the_source_does_not_blame_the_target() {
        let read = Error::Device {
            action: "read",
            offset: 7,
            length: 1,
            source: io::Error::from(io::ErrorKind::TimedOut).into(),
        };
        let text = read.in_file(Path::new("/srv/new.qcow2")).to_string();
        assert_eq!(text, "read 1 bytes at byte 0x7");
        let other = Error::Device {
            action: "write",
            offset: 7,
            length: 1,
            source: "not of the operating system".into(),
        };
        let text = other.in_file(Path::new("/srv/new.qcow2")).to_string();
        assert_eq!(text, "write 1 bytes at byte 0x7");
    }

    #[test]
    fn hints_say_what_to_do() {
        let hint = |error: Error| error.hint().unwrap_or_default();
        let denied = |kind: io::ErrorKind| Error::File {
            action: "open",
            path: "/dev/sda".into(),
            source: kind.into(),
        };
        assert!(hint(denied(io::ErrorKind::PermissionDenied)).contains("permissions"));
        assert!(hint(denied(io::ErrorKind::AlreadyExists)).contains("another name"));
        assert_eq!(hint(denied(io::ErrorKind::TimedOut)), "");
        assert!(hint(Error::corrupt("qcow2 L1 table", 0, "x")).contains("qemu-img check"));
        assert!(hint(Error::corrupt("GPT header", 0, "x")).contains("gdisk"));
        assert_eq!(hint(Error::corrupt("superblock", 0, "x")), "");
        assert!(hint(Error::unsupported("disk image", "vmdk")).contains("qemu-img convert"));
        assert_eq!(hint(Error::unsupported("ext4", "x")), "");
    }
}
