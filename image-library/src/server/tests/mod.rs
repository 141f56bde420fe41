// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server in this process, as requests of any kind find it.

mod admission;
mod hashes;
mod hostile;
mod limits;
mod openapi;
mod trouble;

use std::sync::Arc;

use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::plain_http_client;
use crate::config::InitOptions;
use crate::local::LocalLibrary;
use crate::server::{Access, Limits, RunningServer, Server, ServerOptions, Transport};
use crate::token::Token;
use crate::tokens::Grant;

/// A library with tokens behind a server that speaks plain HTTP.
struct Site {
    library: LocalLibrary,
    server: RunningServer,
    client: Client,
    _directory: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::bearing(Limits::default())
    }

    fn bearing(limits: Limits) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let options = ServerOptions {
            access: Access::Tokens(library.clone()),
            transport: Transport::Plain,
            limits,
        };
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(Arc::new(library.clone()), address, options).unwrap();
        Self {
            library,
            server: server.start().unwrap(),
            client: plain_http_client().build().unwrap(),
            _directory: directory,
        }
    }

    fn token(&self, grant: Grant) -> Token {
        self.library.add_token(grant, None, None).unwrap()
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>) -> RequestBuilder {
        let url = format!("{}{path}", self.server.url());
        let request = self.client.request(method.parse().unwrap(), url);
        match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn get(&self, path: &str, token: &Token) -> Response {
        let text = token.reveal();
        self.ask("GET", path, Some(&text)).send().unwrap()
    }

    fn begin(&self, server: &str, token: &Token) -> Response {
        let text = token.reveal();
        let body = serde_json::json!({ "server": server });
        let request = self.ask("POST", "/v1/uploads", Some(&text));
        request.json(&body).send().unwrap()
    }
}

fn agent(server: &str) -> Grant {
    Grant::Agent {
        server: server.parse().unwrap(),
    }
}

/// Status and code of a refusal.
fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let failure: Value = response.json().unwrap();
    (status, failure["code"].as_str().unwrap().to_owned())
}
