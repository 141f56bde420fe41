// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one door to a library by its name: a directory or the URL of a server.

use std::path::Path;

use crate::access::Library;
use crate::client::{Patience, RemoteLibrary};
use crate::error::Result;
use crate::key_file::KeyAccess;
use crate::local::LocalLibrary;

/// Opens the library at `location`: a directory path, or `http://HOST:PORT`. `access` is how the
/// key of a directory is opened; a server has its own.
pub fn open_library(location: &str, access: &KeyAccess) -> Result<Box<dyn Library>> {
    open_library_with(location, access, Patience::default())
}

/// Like [`open_library`], with another patience where it is a server.
pub fn open_library_with(
    location: &str,
    access: &KeyAccess,
    patience: Patience,
) -> Result<Box<dyn Library>> {
    if location.contains("://") {
        Ok(Box::new(RemoteLibrary::connect_with(location, patience)?))
    } else {
        let library = LocalLibrary::open_with_key(Path::new(location), access)?;
        Ok(Box::new(library))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(location: &str) -> String {
        open_library(location, &KeyAccess::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_url_is_a_server_and_anything_else_a_directory() {
        assert!(problem("/nowhere").contains("/nowhere"));
        assert_eq!(
            problem("https://library:8080"),
            "library server: TLS (https://) is not supported"
        );
        assert_eq!(
            problem("ftp://library"),
            "not the location of a library: ftp://library: expected http://HOST:PORT"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable_and_says_what_to_do() {
        // Port 1 of the loopback address: nothing of ours listens there.
        let error = open_library("http://127.0.0.1:1", &KeyAccess::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the library at http://127.0.0.1:1 is unreachable"
        );
        assert!(error.hint().unwrap().contains("image-library serve"));
    }
}
