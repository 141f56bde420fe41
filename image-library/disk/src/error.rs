// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package, in three families: corrupt, unsupported, input/output.
//!
//! The text is `structure at byte 0x..: problem`; the source is not repeated in it, because
//! whoever reports walks the chain. What to do about it is separate, in [`Error::hint`].

use std::io;
use std::path::PathBuf;

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

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as a user who may read it, or change its permissions".to_owned())
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room on that filesystem and run the command again".to_owned())
            }
            Self::Corrupt { .. }
            | Self::Unsupported { .. }
            | Self::NotFound { .. }
            | Self::File { .. }
            | Self::Device { .. }
            | Self::Limit { .. } => None,
        }
    }
}
