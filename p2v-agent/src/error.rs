// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package.

use std::io;
use std::path::PathBuf;

use image_library::FileError;

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or device of this server could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something that should be known is not there.
    #[error("{what} is not known: {problem}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Where, and what was found.
        problem: String,
    },
    /// A disk is in use, so that its image would not be one point in time.
    #[error("{disk} is in use: {uses}")]
    InUse {
        /// Which disk.
        disk: String,
        /// By what, in words.
        uses: String,
    },
    /// The operator asked to stop.
    #[error("stopped before the image was complete")]
    Stopped,
    /// The library.
    #[error(transparent)]
    Library(image_library::Error),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A file or device is no disk, or one that cannot be read.
    #[error("cannot read {path} as a disk")]
    DiskFile {
        /// The file or device.
        path: PathBuf,
        /// Why.
        #[source]
        source: disk::Error,
    },
}

impl From<image_library::Error> for Error {
    fn from(error: image_library::Error) -> Self {
        match error {
            image_library::Error::Stopped => Self::Stopped,
            other => Self::Library(other),
        }
    }
}

impl Error {
    /// Names the file that an operating system's error is about.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let named = FileError::on(action, path);
        move |source| Self::File(named(source))
    }

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the agent as root".to_owned())
            }
            Self::InUse { .. } => Some(
                "unmount it, or take it as it is with --crash-consistent: the image is then as \
                 consistent as a disk read while it is written, and its level says so"
                    .to_owned(),
            ),
            Self::Stopped => Some(
                "nothing was committed; the same command goes on where this one stopped".to_owned(),
            ),
            Self::Library(error) => error.hint(),
            Self::Disk(error) | Self::DiskFile { source: error, .. } => error.hint(),
            Self::File(error) => error.hint(),
            Self::Unknown { .. } => None,
        }
    }
}
