// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package. What to do about it is separate, in [`Error::hint`].

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::id::ImageId;
use crate::protocol::DAMAGED;

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a bucket did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BucketFailure {
    /// The settings cannot be used.
    Settings,
    /// There are no credentials.
    NoCredentials,
    /// The credentials are wrong, or do not allow this.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The bucket is in another region.
    Region,
    /// The store cannot be reached.
    Unreachable,
    /// The store answers too slowly.
    TooSlow,
    /// The store answers that it cannot, or with something else than was asked for.
    Answer,
}

impl BucketFailure {
    const fn hint(self) -> &'static str {
        match self {
            Self::Settings => "check the variables whose names begin with AWS_",
            Self::NoCredentials => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Denied => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that the key may list, read, \
                 write and delete in this bucket, and that the clock of this machine is right"
            }
            Self::NoBucket => "check the name and AWS_ENDPOINT_URL, or create the bucket first",
            Self::Region => "set AWS_REGION to the region of the bucket",
            Self::Unreachable => "check AWS_ENDPOINT_URL and the network to it",
            Self::TooSlow => "check the network to the store; then run the command again",
            Self::Answer => {
                "look into the store's own log; when it works again, run the command again: what \
                 is stored already is not sent twice"
            }
        }
    }
}

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
    /// An object of a library in a bucket could not be read or written.
    #[error("{action} {place}")]
    Bucket {
        /// What was being done.
        action: &'static str,
        /// Which object, with its bucket.
        place: String,
        /// What kind of failure it is.
        failure: BucketFailure,
        /// What the store or the network said, after the last attempt.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A library in a bucket needs a directory on this machine, and nothing says which.
    #[error("there is no directory for what a library in a bucket needs on this machine")]
    NoWorkspace,
    /// Reading a disk that is to be stored, or one made from an image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The work was asked to end before it was done.
    #[error("stopped")]
    Stopped,
    /// The directory holds no library.
    #[error("{path} is not an image library: {problem}")]
    NotALibrary {
        /// The directory.
        path: PathBuf,
        /// What was missed there.
        problem: String,
    },
    /// A library is to be created where something is already.
    #[error("{path} is not empty: a library is created only where nothing is")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A stored structure has a version or feature that this program does not know.
    #[error("{structure} in {place}: {feature} is not supported")]
    Unsupported {
        /// Which structure, as FORMAT.md calls it.
        structure: &'static str,
        /// The file.
        place: String,
        /// The version or feature.
        feature: String,
    },
    /// The library's key is not where it should be.
    #[error("the key of the library is missing: {path}")]
    KeyMissing {
        /// The key file.
        path: PathBuf,
    },
    /// The key is one, but of another library.
    #[error("the key {path} does not belong to this library")]
    WrongKey {
        /// The key file.
        path: PathBuf,
    },
    /// The key file has a passphrase, and none was given.
    #[error("the key {path} needs its passphrase")]
    PassphraseNeeded {
        /// The key file.
        path: PathBuf,
    },
    /// The passphrase does not open the key file.
    #[error("the passphrase does not open the key {path}")]
    WrongPassphrase {
        /// The key file.
        path: PathBuf,
    },
    /// Another program holds a lock that this operation needs.
    #[error("the library is locked: {path} is held by another program")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Stored bytes break their own format.
    #[error("{structure} in {place} at byte {offset:#x}: {problem}")]
    Corrupt {
        /// Which structure, as FORMAT.md calls it.
        structure: &'static str,
        /// The file it is in.
        place: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong, with the expected and the found value.
        problem: String,
    },
    /// A pack that the index lists is gone.
    #[error("{place} is gone")]
    PackMissing {
        /// Where it was.
        place: String,
    },
    /// No pack holds a chunk that something names.
    #[error("no pack holds chunk {chunk}")]
    ChunkMissing {
        /// The chunk's id.
        chunk: String,
    },
    /// A part of an image cannot be given back.
    #[error("image {image}, disk {disk:?}: the chunk at byte {offset:#x} is lost")]
    Lost {
        /// The image.
        image: ImageId,
        /// The disk's name.
        disk: String,
        /// Where on the disk, in bytes.
        offset: u64,
        /// Which chunk in which pack, and what is wrong with it.
        #[source]
        source: Box<Self>,
    },
    /// What names the chunks of an image's disk cannot be read.
    #[error("image {image}, disk {disk:?}: its manifest cannot be read")]
    ManifestLost {
        /// The image.
        image: ImageId,
        /// The disk's name.
        disk: String,
        /// What is wrong with it.
        #[source]
        source: Box<Self>,
    },
    /// No image fits what was asked for.
    #[error("{problem}")]
    NoSuchImage {
        /// What was asked for, and what there is instead.
        problem: String,
    },
    /// An upload asked for something that the library refuses.
    #[error("{what} was refused: {problem}")]
    Refused {
        /// What the upload asked for.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// A limit of the format was reached.
    #[error("{what} would exceed the limit of {limit}")]
    Limit {
        /// What grew, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A value could not be written as JSON; a bug of this program.
    #[error("encode {what}")]
    Encode {
        /// Which document.
        what: &'static str,
        /// What the encoder said.
        #[source]
        source: serde_json::Error,
    },
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
    /// A text that is no token, or a token that does not exist.
    #[error("not a token: {problem}")]
    Token {
        /// Why not; never the token itself.
        problem: String,
    },
    /// Certificates could not be made, read or used.
    #[error("could not {action}: {problem}")]
    Certificate {
        /// What was being done.
        action: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A server answers, and has no certificate that is trusted.
    #[error("the server at {location} is not trusted")]
    Untrusted {
        /// Its URL.
        location: String,
        /// What is wrong with its certificate.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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
    /// A library server went away before the commit.
    #[error("the library at {location} was lost in the middle of an upload")]
    UploadLost {
        /// Its URL.
        location: String,
        /// What was seen of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A library server answers, but was restarted since the upload began, or another upload of
    /// the same server took over.
    #[error("the library at {location} does not know this upload any more")]
    UploadForgotten {
        /// Its URL.
        location: String,
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
    /// Whether the library, rather than the world around it, is what is wrong.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::ChunkMissing { .. }
                | Self::PackMissing { .. }
                | Self::Lost { .. }
                | Self::ManifestLost { .. }
        )
    }

    /// Whether it shows that something of the library is damaged or lost, so that asking again gives
    /// no other answer. A library that is away, or a store that fails, shows nothing of the kind.
    #[must_use]
    pub fn proves_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::ChunkMissing { .. } | Self::PackMissing { .. } => true,
            Self::ServerRefused { code, .. } => code == DAMAGED,
            // One level: what is lost is lost because of something that is none of these two.
            Self::Lost { source, .. } | Self::ManifestLost { source, .. } => match &**source {
                Self::Lost { .. } | Self::ManifestLost { .. } => false,
                source => source.proves_damage(),
            },
            _ => false,
        }
    }

    /// An [`Error::File`] for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// An [`Error::Corrupt`] in fewer words.
    pub(crate) fn corrupt(
        structure: &'static str,
        place: impl Into<String>,
        offset: u64,
        problem: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            structure,
            place: place.into(),
            offset,
            problem: problem.into(),
        }
    }

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File { source, .. } => return file_hint(source),
            Self::Bucket { failure, .. } => failure.hint(),
            Self::NoWorkspace => "name one with --workspace or RELEVO_WORKSPACE",
            Self::Disk(error) => return error.hint(),
            Self::Lost { source, .. } | Self::ManifestLost { source, .. } => return source.hint(),
            Self::NotALibrary { .. } => {
                "give the directory or bucket in which `image-library init` created one, or create one \
                 with it"
            }
            Self::NotEmpty { .. } => "choose another place, or empty this one yourself",
            Self::Unsupported { .. } => "use a newer version of this program",
            Self::KeyMissing { .. } => {
                "put the key back from its copy: without it nobody can read the library"
            }
            Self::PassphraseNeeded { .. } => {
                "set RELEVO_PASSPHRASE_FILE to a file that holds it, or run this on a terminal"
            }
            Self::WrongPassphrase { .. } => {
                "try again; with the recovery sheet, `image-library key restore` opens the library \
                 without it"
            }
            Self::WrongKey { .. } => "put back the key that was made when the library was created",
            Self::Locked { .. } => "wait until the other program has ended, then try again",
            Self::Corrupt { .. } | Self::ChunkMissing { .. } | Self::PackMissing { .. } => {
                "run `image-library verify` to see which images are affected; take a new image of \
                 those servers, or bring the file back from a copy of the library"
            }
            Self::Stopped => "run it again: what was sent is not sent twice",
            Self::NoSuchImage { .. } => "`relevo image list` shows all images",
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program listens there; choose another port"
            }
            Self::Location { .. } => {
                "name a directory, a bucket as s3://BUCKET[/PREFIX], or the URL of a library server: \
                 https://HOST:PORT"
            }
            Self::Unreachable { .. } => {
                "check that `image-library serve` runs there and that its address and port can be \
                 reached from here"
            }
            Self::Token { .. } => {
                "tokens are made by `image-library token add`; keep one in a file of your own \
                 (chmod 600) and name it with --token-file or RELEVO_TOKEN_FILE"
            }
            Self::Untrusted { .. } => {
                "the token has to be one of this library, and the server has to be started with \
                 --name and the name in this URL; for certificates of another authority name that \
                 with --ca-file or RELEVO_CA_FILE"
            }
            Self::Certificate { .. } => "check the names, files and times of the certificates",
            Self::UploadLost { .. } => {
                "nothing was committed and nothing is lost: run the same command again when the \
                 server is back; what it had stored is not sent twice"
            }
            Self::UploadForgotten { .. } => {
                "nothing was committed and nothing is lost: run the same command again, and only \
                 one for each server at a time"
            }
            Self::ServerRefused { hint, .. } => return hint.clone(),
            Self::Protocol { .. } => "check the address, and that both sides have the same version",
            Self::InvalidName { .. }
            | Self::Listen { .. }
            | Self::Refused { .. }
            | Self::Limit { .. }
            | Self::Encode { .. } => return None,
        };
        Some(text.to_owned())
    }
}

fn file_hint(source: &io::Error) -> Option<String> {
    let text = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that filesystem and run the command again: what is stored already is \
             not sent twice"
        }
        io::ErrorKind::PermissionDenied => "run as the user who owns the library",
        io::ErrorKind::ReadOnlyFilesystem => "the library's filesystem must be writable for this",
        _ => return None,
    };
    Some(text.to_owned())
}

/// An error with its sources in one line.
#[must_use]
pub fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        // A transparent error says what its source says.
        if message != last {
            let _ = write!(text, ": {message}");
        }
        last = message;
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_tells_what_to_do() {
        let error = Error::File {
            action: "write",
            path: "/library/packs/00".into(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        assert_eq!(error.to_string(), "write /library/packs/00");
        assert!(error.hint().expect("has one").starts_with("make room"));
    }
}
