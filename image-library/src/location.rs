// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one door to a library by its name: a directory or the URL of a server.

use std::path::Path;

use crate::access::Library;
use crate::client::{Patience, RemoteLibrary, ServerAccess};
use crate::error::Result;
use crate::key_file::KeyAccess;
use crate::local::LocalLibrary;

/// What opens a library, wherever it is.
#[derive(Debug, Clone, Default)]
pub struct LibraryAccess {
    /// How the key of a directory is opened.
    pub key: KeyAccess,
    /// What a server is shown, and whether it is trusted.
    pub server: ServerAccess,
}

/// Opens the library at `location`: a directory path, or `https://HOST:PORT`.
pub fn open_library(location: &str, access: &LibraryAccess) -> Result<Box<dyn Library>> {
    open_library_with(location, access, Patience::default())
}

/// Like [`open_library`], with another patience where it is a server.
pub fn open_library_with(
    location: &str,
    access: &LibraryAccess,
    patience: Patience,
) -> Result<Box<dyn Library>> {
    if location.contains("://") {
        let library = RemoteLibrary::connect_with(location, &access.server, patience)?;
        Ok(Box::new(library))
    } else {
        let library = LocalLibrary::open_with_key(Path::new(location), &access.key)?;
        Ok(Box::new(library))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(location: &str) -> String {
        open_library(location, &LibraryAccess::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_url_is_a_server_and_anything_else_a_directory() {
        assert!(problem("/nowhere").contains("/nowhere"));
        assert_eq!(
            problem("ftp://library"),
            "not the location of a library: ftp://library: expected https://HOST:PORT"
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
        let error = open_library("http://127.0.0.1:1", &LibraryAccess::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the library at http://127.0.0.1:1 is unreachable"
        );
        assert!(error.hint().unwrap().contains("image-library serve"));
    }
}
