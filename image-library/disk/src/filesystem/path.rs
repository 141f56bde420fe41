// SPDX-License-Identifier: MIT OR Apache-2.0
//! Absolute paths inside a filesystem, and the errors that every filesystem gives about them.
//!
//! **Invariants:** a parsed path has no `.`, no empty component and no `..`: the caller, who
//! composes filesystems, has resolved those. **Limit:** 4096 bytes, 255 per name, as in Linux.

use std::io;

use crate::error::{Error, Result};

const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// A path, cut into its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestPath<'a>(Vec<&'a str>);

impl<'a> GuestPath<'a> {
    pub(crate) fn parse(path: &'a str) -> Result<Self> {
        let refuse = |what: &str| Err(Error::unsupported("path", format!("{what} ({path:?})")));
        if !path.starts_with('/') {
            return refuse("one that is not absolute");
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::Limit {
                what: "the length of a path",
                limit: PATH_BYTES_MAX as u64,
            });
        }
        let names: Vec<&str> = path
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
            .collect();
        for name in &names {
            if *name == ".." || name.contains('\0') {
                return refuse("a component that is no name");
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Error::Limit {
                    what: "the length of a name",
                    limit: NAME_BYTES_MAX as u64,
                });
            }
        }
        Ok(Self(names))
    }

    pub(crate) fn components(&self) -> &[&'a str] {
        &self.0
    }

    /// The last name; `None` for the root.
    pub(crate) fn name(&self) -> Option<&'a str> {
        self.0.last().copied()
    }

    /// The names of the parent, and the last name; `None` for the root.
    pub(crate) fn split_name(&self) -> Option<(&[&'a str], &'a str)> {
        self.0.split_last().map(|(name, parent)| (parent, *name))
    }

    pub(crate) fn same_ignoring_case(&self, other: &Self) -> bool {
        let folded = |path: &Self| -> Vec<String> {
            path.0.iter().map(|name| name.to_uppercase()).collect()
        };
        folded(self) == folded(other)
    }
}

pub(crate) fn not_found(path: &str) -> Error {
    Error::NotFound {
        path: path.to_owned(),
    }
}

pub(crate) fn not_a_file(structure: &'static str, path: &str) -> Error {
    Error::unsupported(
        structure,
        format!("this on {path}, which is no regular file,"),
    )
}

pub(crate) fn already_exists(structure: &'static str, path: &str) -> Error {
    Error::unsupported(structure, format!("creating {path}, which exists,"))
}

pub(crate) fn too_large(limit: u64) -> Error {
    Error::Limit {
        what: "the bytes read from a guest's file",
        limit,
    }
}

pub(crate) fn directory_too_large(limit: usize) -> Error {
    Error::Limit {
        what: "the names in a guest's directory",
        limit: limit as u64,
    }
}

/// The filesystem is full; nothing more fits.
pub(crate) fn no_space() -> Error {
    Error::Limit {
        what: "what is written to the guest's filesystem, which is full,",
        limit: 0,
    }
}

/// An error of the device below that went through a library as an [`io::Error`], or the library's.
pub(crate) fn device_error(error: io::Error, structure: &'static str) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::corrupt(structure, 0, error.to_string()),
    }
}
