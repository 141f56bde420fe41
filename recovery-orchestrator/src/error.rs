// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package.
//!
//! The text says what and where; the source is not repeated in it, because whoever reports walks
//! the chain. What to do about it is separate, in [`Error::hint`].

use std::io;
use std::path::PathBuf;

use image_library::FileError;

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of this computer could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A runbook that cannot be run as it is written.
    #[error("{file}:{line}:{column}: {problem}")]
    Runbook {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The configuration file.
    #[error("{file}: {problem}")]
    Configuration {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No image of that name.
    #[error("no image {wanted}: {problem}")]
    NoImage {
        /// What was asked for.
        wanted: String,
        /// Why there is none.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// Something was asked that cannot be.
    #[error("{problem}")]
    Request {
        /// What and why.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A virtual machine could not be started or spoken to.
    #[error("virtual machine {name}: {problem}")]
    Machine {
        /// Which one.
        name: String,
        /// What happened.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The platform itself is missing or broken.
    #[error("the platform {platform} cannot be used: {problem}")]
    Platform {
        /// Which platform.
        platform: &'static str,
        /// Why.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// The network of a virtual machine cannot be made.
    #[error("network of {server}: {problem}")]
    Network {
        /// Which server.
        server: String,
        /// Why.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A record of the journal.
    #[error("journal {path} line {line}: {problem}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Somebody pressed Ctrl-C, or the system is going down.
    #[error("interrupted")]
    Interrupted,
    /// The library.
    #[error(transparent)]
    Library(Box<image_library::Error>),
    /// The converter.
    #[error(transparent)]
    Converter(Box<converter::Error>),
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
        Self::Library(Box::new(error))
    }
}

impl From<converter::Error> for Error {
    fn from(error: converter::Error) -> Self {
        match error {
            converter::Error::Interrupted => Self::Interrupted,
            error => Self::Converter(Box::new(error)),
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
            Self::File(error) => error.hint(),
            Self::Runbook { hint, .. }
            | Self::Request { hint, .. }
            | Self::Machine { hint, .. } => hint.clone(),
            Self::NoImage { hint, .. }
            | Self::Platform { hint, .. }
            | Self::Network { hint, .. } => Some(hint.clone()),
            Self::Library(error) => error.hint(),
            Self::Converter(error) => error.hint(),
            Self::Disk(error) | Self::DiskFile { source: error, .. } => error.hint(),
            Self::Configuration { .. } | Self::Journal { .. } | Self::Interrupted => None,
        }
    }
}
