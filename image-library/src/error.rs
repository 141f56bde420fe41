// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package.

use std::io;
use std::path::PathBuf;

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a library could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that the library does not allow.
    #[error("not a {kind}: {name:?}")]
    InvalidName {
        /// What it should have been.
        kind: &'static str,
        /// What was given.
        name: String,
    },
    /// A file of the library could not be read or written.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Reading a disk that is to be stored, or one made from an image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}
