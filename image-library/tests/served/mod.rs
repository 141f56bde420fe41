// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library and its server in this process, for the tests of both sides.
#![expect(dead_code, reason = "not every test file uses all of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image_library::client::{Patience, RemoteLibrary, ServerAccess, plain_http_client};
use image_library::server::{
    Access, Limits, RunningServer, Server, ServerOptions, TlsIdentity, Transport,
};
use image_library::{Authority, Fingerprint, Grant, InitOptions, LocalLibrary, Token};
use reqwest::blocking::Client;
use tempfile::TempDir;

/// Ends its server when dropped.
pub(crate) struct Served {
    directory: TempDir,
    pub(crate) library: LocalLibrary,
    pub(crate) server: RunningServer,
    access: Access,
}

impl Served {
    /// Plain HTTP, no tokens.
    pub(crate) fn to_everybody() -> Self {
        let directory = TempDir::new().unwrap();
        let library = init(&directory);
        Self::start(directory, library, Transport::Plain, Access::Everybody)
    }

    /// As the program does it: TLS with the library's own authority, and tokens.
    pub(crate) fn securely() -> Self {
        let directory = TempDir::new().unwrap();
        let library = init(&directory);
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let authority = Authority::of(&library).unwrap();
        let transport = Transport::Tls(Box::new(TlsIdentity::issued(authority, names).unwrap()));
        let access = Access::Tokens(library.clone());
        Self::start(directory, library, transport, access)
    }

    fn start(
        directory: TempDir,
        library: LocalLibrary,
        transport: Transport,
        access: Access,
    ) -> Self {
        let server = serve(directory.path(), transport, access.clone());
        Self {
            directory,
            library,
            server,
            access,
        }
    }

    /// Another server process, in effect: on another port, with no memory of the first.
    pub(crate) fn restart(&mut self) {
        let (path, access) = (self.directory.path(), self.access.clone());
        self.server = serve(path, Transport::Plain, access);
    }

    /// A client without a token.
    pub(crate) fn connect(&self) -> RemoteLibrary {
        let access = ServerAccess::default();
        RemoteLibrary::connect_with(&self.server.url(), &access, impatient()).unwrap()
    }

    /// A client with a token.
    pub(crate) fn connect_as(&self, token: &Token) -> image_library::Result<RemoteLibrary> {
        let access = ServerAccess::with_token(token.clone());
        RemoteLibrary::connect_with(&self.server.url(), &access, impatient())
    }

    /// A new token that pins the library's authority.
    pub(crate) fn token(&self, grant: Grant) -> Token {
        let authority = Some(self.authority());
        self.library.add_token(grant, None, authority).unwrap()
    }

    pub(crate) fn authority(&self) -> Fingerprint {
        Authority::of(&self.library).unwrap().fingerprint()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    /// A place for files of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn init(directory: &TempDir) -> LocalLibrary {
    LocalLibrary::init(&directory.path().join("library"), &InitOptions::default()).unwrap()
}

fn serve(directory: &Path, transport: Transport, access: Access) -> RunningServer {
    let library = LocalLibrary::open(&directory.join("library")).unwrap();
    let options = ServerOptions {
        access,
        transport,
        limits: Limits::default(),
    };
    let address = "127.0.0.1:0".parse().unwrap();
    Server::bind(Arc::new(library), address, options)
        .unwrap()
        .start()
        .unwrap()
}

pub(crate) fn impatient() -> Patience {
    Patience {
        give_up_after: Duration::from_millis(300),
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(20),
    }
}

/// A client for requests that no client of ours makes.
pub(crate) fn client() -> Client {
    plain_http_client().build().unwrap()
}

/// The agent of a server.
pub(crate) fn agent(server: &str) -> Grant {
    Grant::Agent {
        server: server.parse().unwrap(),
    }
}
