// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one door to a library by its name: a directory, a bucket, or the URL of a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::access::Library;
use crate::client::{Patience, RemoteLibrary, ServerAccess};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::key_file::KeyAccess;
use crate::local::LocalLibrary;
use crate::store::{
    Bucket, BucketAccess, BucketAddress, Directory, ReadAhead, Store, Workspace, file,
    require_empty,
};

/// Where a library is that a program opens itself, with the library's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Directory(PathBuf),
    /// A bucket: `s3://BUCKET[/PREFIX]`.
    Bucket(BucketAddress),
}

impl Location {
    /// The location that a text names; `None` when it is the URL of a server.
    ///
    /// # Errors
    ///
    /// [`Error::Location`] when it is meant to be a bucket and is none.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if BucketAddress::is_meant(text) {
            return text.parse().map(Self::Bucket).map(Some);
        }
        let is_url = text.contains("://");
        Ok((!is_url).then(|| Self::Directory(text.into())))
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)?.ok_or_else(|| Error::Location {
            location: text.to_owned(),
            problem: "this is done where the library is, not through a server".to_owned(),
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket(address) => address.fmt(f),
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Directory(path.to_owned())
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self::Directory(path.clone())
    }
}

impl From<&Self> for Location {
    fn from(location: &Self) -> Self {
        location.clone()
    }
}

/// What opens a library, wherever it is.
#[derive(Debug, Clone, Default)]
pub struct LibraryAccess {
    /// What a server is shown, and whether it is trusted.
    pub server: ServerAccess,
    /// How its key is opened.
    pub key: KeyAccess,
    /// How its bucket is reached, if it is in one.
    pub bucket: BucketAccess,
    /// The directory below which libraries in buckets have what only this machine needs: each one
    /// a directory by its id.
    pub workspaces: Option<PathBuf>,
}

impl From<KeyAccess> for LibraryAccess {
    fn from(key: KeyAccess) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }
}

impl From<&KeyAccess> for LibraryAccess {
    fn from(key: &KeyAccess) -> Self {
        key.clone().into()
    }
}

impl From<&Self> for LibraryAccess {
    fn from(access: &Self) -> Self {
        access.clone()
    }
}

/// The store of a library, which need not be there yet.
pub(crate) fn store(location: &Location, access: &LibraryAccess) -> Result<Arc<dyn Store>> {
    Ok(match location {
        Location::Directory(path) => Arc::new(Directory::new(path)),
        Location::Bucket(address) => {
            let bucket = Bucket::connect(address, &access.bucket)?;
            Arc::new(ReadAhead::new(Arc::new(bucket)))
        }
    })
}

/// The store of a library to be, where nothing is yet.
pub(crate) fn new_store(location: &Location, access: &LibraryAccess) -> Result<Arc<dyn Store>> {
    match location {
        Location::Directory(path) => {
            require_empty(path)?;
            let directory = Directory::new(path);
            directory.create_tree()?;
            Workspace::new(path).create()?;
        }
        Location::Bucket(address) => Bucket::connect(address, &access.bucket)?.require_empty()?,
    }
    store(location, access)
}

/// Where the library at `location` with this configuration is worked on.
pub(crate) fn workspace(
    location: &Location,
    access: &LibraryAccess,
    config: &Config,
) -> Result<Workspace> {
    match location {
        Location::Directory(path) => Ok(Workspace::new(path)),
        Location::Bucket(_) => workspace_of(access.workspaces.as_deref(), config.id),
    }
}

fn workspace_of(all: Option<&Path>, library: Uuid) -> Result<Workspace> {
    let all = all.ok_or_else(|| Error::NoWorkspace)?;
    let own = all.join(library.to_string());
    file::create_directory(&own)?;
    // Uploads that go on are in it, in part unsealed: the index and the sets of an upload.
    file::restrict_to_owner(&own, 0o700)?;
    let workspace = Workspace::new(&own);
    workspace.create()?;
    Ok(workspace)
}

/// Opens the library at `location`: a directory path, `s3://BUCKET[/PREFIX]`, or
/// `https://HOST:PORT`. `access` is how a directory or bucket is opened; a server has its own key.
pub fn open_library(location: &str, access: impl Into<LibraryAccess>) -> Result<Box<dyn Library>> {
    open_library_with(location, access, Patience::default())
}

/// Like [`open_library`], with another patience where it is a server.
pub fn open_library_with(
    location: &str,
    access: impl Into<LibraryAccess>,
    patience: Patience,
) -> Result<Box<dyn Library>> {
    let access = access.into();
    match Location::parse(location)? {
        Some(location) => {
            let library = LocalLibrary::open_with_key(location, access)?;
            Ok(Box::new(library))
        }
        None => {
            let library = RemoteLibrary::connect_with(location, &access.server, patience)?;
            Ok(Box::new(library))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn problem(location: &str) -> String {
        open_library(location, LibraryAccess::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_url_is_a_server_or_a_bucket_and_anything_else_a_directory() {
        assert!(problem("/nowhere").contains("/nowhere"));
        assert_eq!(
            problem("ftp://library"),
            "not the location of a library: ftp://library: expected https://HOST:PORT"
        );
        assert_eq!(
            problem("s3://"),
            "not the location of a library: s3://: expected a bucket's name of letters, digits, \
             dots, dashes and underscores"
        );
    }

    #[test]
    fn what_is_done_where_the_library_is_takes_no_server() {
        for text in ["/var/lib/relevo", "library", "s3://images/a"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let error = "http://library:8420".parse::<Location>().unwrap_err();
        assert!(
            error.to_string().contains("not through a server"),
            "{error}"
        );
    }

    #[test]
    fn a_token_does_not_cross_a_network_in_the_clear() {
        let token = crate::token::Token::random(None).unwrap();
        let access = LibraryAccess {
            server: ServerAccess::with_token(token),
            ..LibraryAccess::default()
        };
        let refused = open_library("http://192.0.2.1:8420", &access).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not the location of a library: http://192.0.2.1:8420: a token would cross the network \
             in the clear: use https://"
        );
        let tried = open_library("http://127.0.0.1:1", &access).unwrap_err();
        assert!(matches!(tried, crate::Error::Unreachable { .. }), "{tried}");
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable_and_says_what_to_do() {
        // Port 1 of the loopback address: nothing of ours listens there.
        let error = open_library("http://127.0.0.1:1", LibraryAccess::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the library at http://127.0.0.1:1 is unreachable"
        );
        assert!(error.hint().unwrap().contains("image-library serve"));
    }

    #[test]
    fn the_workspace_of_a_bucket_is_the_owners_alone_and_has_the_librarys_id() {
        let all = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(7);
        let workspace = workspace_of(Some(all.path()), id).unwrap();
        let own = all.path().join(id.to_string());
        assert_eq!(workspace.index(), own.join("index"));
        let mode = own.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = workspace_of(None, id).unwrap_err();
        assert!(
            error.hint().unwrap().contains("RELEVO_WORKSPACE"),
            "{error}"
        );
    }
}
