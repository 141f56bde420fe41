// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package.

use std::io;
use std::net::SocketAddr;
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
    /// The address of a server could not be taken.
    #[error("listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A text that names no library.
    #[error("not the location of a library: {location}: {problem}")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A library server does not answer.
    #[error("the library at {location} is unreachable")]
    Unreachable {
        /// Its URL.
        location: String,
        /// What the network said, after the last attempt.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A library server went away, or forgot the upload, before the commit.
    #[error("the library at {location} was lost in the middle of an upload")]
    UploadLost {
        /// Its URL.
        location: String,
        /// What was seen of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A library server would not do what it was asked.
    #[error("the library at {location} refused to {action} ({status}): {message}")]
    ServerRefused {
        /// Its URL.
        location: String,
        /// What it was asked.
        action: &'static str,
        /// The HTTP status.
        status: u16,
        /// The stable code of the reason.
        code: String,
        /// The reason.
        message: String,
        /// What to do about it, by the server.
        hint: Option<String>,
    },
    /// Something answered that is not a library server, or one of another version.
    #[error("the answer of {location} is not that of a library server: {problem}")]
    Protocol {
        /// Its URL.
        location: String,
        /// What was expected and found.
        problem: String,
    },
}

impl Error {
    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there; choose another port".to_owned())
            }
            Self::Location { .. } => Some(
                "name a directory, or the URL of a library server: http://HOST:PORT".to_owned(),
            ),
            Self::Unreachable { .. } => Some(
                "check that `image-library serve` runs there and that its address and port can \
                 be reached from here"
                    .to_owned(),
            ),
            Self::UploadLost { .. } => Some(
                "nothing was committed and nothing is lost: run the same command again when the \
                 server is back; what it had stored is not sent twice"
                    .to_owned(),
            ),
            Self::ServerRefused { hint, .. } => hint.clone(),
            Self::Protocol { .. } => {
                Some("check the address, and that both sides have the same version".to_owned())
            }
            Self::InvalidName { .. } | Self::File { .. } | Self::Listen { .. } => None,
        }
    }
}
