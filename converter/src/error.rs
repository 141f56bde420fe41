// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one error of this package. What a guest is like is never an error: it is a finding.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

/// What a function of this package returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a guest could not be inspected, changed or verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A disk or filesystem of the guest could not be read or written.
    #[error("{place}")]
    Guest {
        /// Which disk, partition or file of the guest.
        place: String,
        /// What is the matter with it.
        #[source]
        source: disk::Error,
    },
    /// The library could not be read, or a side file not be kept in it.
    #[error(transparent)]
    Library(#[from] image_library::Error),
    /// There is no disk to convert.
    #[error("there is no disk to convert")]
    NoDisks,
    /// The plan's verdict forbids applying it.
    #[error("the guest cannot be converted as it is: {problem}")]
    NotConvertible {
        /// The findings that forbid it.
        problem: String,
    },
    /// What is to be changed is no longer what was inspected.
    #[error("{place} is not as it was when the plan was made")]
    Changed {
        /// The file.
        place: String,
    },
    /// A filesystem of the guest has no room for what is to be written.
    #[error("{place}: the changes need {needed_bytes} bytes, {free_bytes} are free")]
    NoSpace {
        /// The volume.
        place: String,
        /// How many bytes are needed.
        needed_bytes: u64,
        /// How many bytes are free.
        free_bytes: u64,
    },
    /// A file of the guest is not of the form that the edit needs.
    #[error("{place}: {problem}")]
    File {
        /// The file.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was written does not read back.
    #[error("{place} does not read back as it was written: expected {expected}, found {found}")]
    NotVerified {
        /// The file.
        place: String,
        /// The hash that was written.
        expected: String,
        /// The hash that was read.
        found: String,
    },
    /// There is no small virtual machine that could write with the guest's own kernel.
    #[error("the small virtual machine that writes for the guest cannot be used: {problem}")]
    WriterUnavailable {
        /// Why.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The guest's own kernel could not write.
    #[error("{place} could not be written by the guest's own kernel: {problem}")]
    NotWritten {
        /// The volume or file.
        place: String,
        /// What the kernel said.
        problem: String,
    },
    /// The end was asked for.
    #[error("interrupted")]
    Interrupted,
    /// A file of this computer.
    #[error("{action} {path}")]
    Local {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Says which part of the guest an error of the disk is about.
    pub(crate) fn guest(place: impl Into<String>) -> impl FnOnce(disk::Error) -> Self {
        let place = place.into();
        move |source| Self::Guest { place, source }
    }

    /// Whether another attempt at the same image ends the same way: the image or what becomes of it
    /// is what is wrong, and not the way to it.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Library(error) => is_lasting(error),
            Self::Local { .. } | Self::WriterUnavailable { .. } | Self::Interrupted => false,
            Self::NoDisks
            | Self::Guest { .. }
            | Self::NotConvertible { .. }
            | Self::Changed { .. }
            | Self::NoSpace { .. }
            | Self::File { .. }
            | Self::NotWritten { .. }
            | Self::NotVerified { .. } => {
                let mut source = self.source();
                while let Some(error) = source {
                    if let Some(error) = error.downcast_ref::<image_library::Error>() {
                        return is_lasting(error);
                    }
                    // Of a file or a connection below the disk: the format's own errors are typed.
                    if error.is::<io::Error>() {
                        return false;
                    }
                    source = error.source();
                }
                true
            }
        }
    }

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Guest { source, .. } => source.hint(),
            Self::NotConvertible { .. } => {
                Some("read the findings of `relevo inspect`; each names its remedy".to_owned())
            }
            Self::Changed { .. } => Some("plan again: the disks changed meanwhile".to_owned()),
            Self::NoDisks => Some("name at least one disk".to_owned()),
            Self::NoSpace { .. } => Some(
                "make room there on the server (old kernels in /boot?) and take a new image"
                    .to_owned(),
            ),
            Self::WriterUnavailable { hint, .. } => hint.clone(),
            Self::NotWritten { .. } => Some(
                "check the filesystem on the server (xfs_repair -n, btrfs check) and take a new image"
                    .to_owned(),
            ),
            Self::Library(_)
            | Self::Interrupted
            | Self::File { .. }
            | Self::NotVerified { .. }
            | Self::Local { .. } => None,
        }
    }
}

fn is_lasting(error: &image_library::Error) -> bool {
    error.proves_damage() || matches!(error, image_library::Error::Limit { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of_a_disk(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Guest {
            place: "disk 0".to_owned(),
            source: disk::Error::Device {
                action: "read",
                offset: 0,
                length: 1,
                source,
            },
        }
    }

    #[test]
    fn what_the_way_to_the_image_did_is_not_held_against_the_image() {
        let unreachable = || image_library::Error::Unreachable {
            location: "https://library".to_owned(),
            source: Box::new(io::Error::from(io::ErrorKind::TimedOut)),
        };
        let missing = image_library::Error::PackMissing {
            place: "packs/00".to_owned(),
        };
        let corrupt = disk::Error::corrupt("ext filesystem", 0, "bad");
        let cases = [
            (Error::from(unreachable()), false),
            (read_of_a_disk(Box::new(unreachable())), false),
            (
                read_of_a_disk(Box::new(io::Error::from(io::ErrorKind::TimedOut))),
                false,
            ),
            (read_of_a_disk(Box::new(missing)), true),
            (Error::guest("disk 0")(corrupt), true),
            (Error::NoDisks, true),
        ];
        for (error, expected) in cases {
            assert_eq!(error.is_lasting(), expected, "{error:?}");
        }
    }
}
