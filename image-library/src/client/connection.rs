// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests to one server: repeated when they break off, failures turned into errors.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::{StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Patience;
use crate::error::{Error, Result};
use crate::protocol::{Failure, HASH_HEADER};

/// The first pause between two attempts; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The most bytes of an answer that is JSON or bytes: the hashes of a disk of 64 TiB need 32 GiB
/// and would not fit memory anyway; 4 GiB are those of 8 TiB.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// Why one attempt failed, in a form that can be a source.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How a body is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Post,
    Put,
}

/// An answer with bytes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Whether it was "there is nothing" (204).
    pub(super) is_nothing: bool,
    /// `Content-Range`, where there is one.
    pub(super) range: Option<String>,
}

/// A server that requests are made to.
#[derive(Debug)]
pub(super) struct Connection {
    base: Url,
    http: Client,
    patience: Patience,
}

impl Connection {
    /// Checks the URL; nothing is sent.
    pub(super) fn open(url: &str, patience: Patience) -> Result<Self> {
        let base = parse_url(url)?;
        crate::tls::use_ring();
        let http = Client::builder()
            .connect_timeout(patience.connect_timeout)
            .timeout(patience.request_timeout)
            .no_proxy()
            .build()
            .map_err(|source| Error::Unreachable {
                location: url.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Self {
            base,
            http,
            patience,
        })
    }

    /// The server's URL for messages.
    pub(super) fn location(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// An answer that is not what the protocol says.
    pub(super) fn protocol(&self, problem: String) -> Error {
        Error::Protocol {
            location: self.location(),
            problem,
        }
    }

    /// Asks for JSON.
    pub(super) fn get_json<T: DeserializeOwned>(
        &self,
        action: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        let answer = self.get_bytes(action, path, query, None)?;
        self.parse(&answer)
    }

    /// Asks for bytes, where `range` is given only for those from its first to its last byte.
    pub(super) fn get_bytes(
        &self,
        action: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        range: Option<(u64, u64)>,
    ) -> Result<Answer> {
        let url = self.url(path, query)?;
        self.repeat(action, || {
            let request = self.http.get(url.clone());
            match range {
                Some((first, last)) => request.header("range", format!("bytes={first}-{last}")),
                None => request,
            }
        })
    }

    /// Sends JSON, takes JSON.
    pub(super) fn post_json<T: DeserializeOwned>(
        &self,
        action: &'static str,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let url = self.url(path, &[])?;
        let answer = self.repeat(action, || self.http.post(url.clone()).json(body))?;
        self.parse(&answer)
    }

    /// Sends bytes.
    pub(super) fn send_bytes(
        &self,
        action: &'static str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: &Bytes,
    ) -> Result<Answer> {
        let url = self.url(path, query)?;
        self.repeat(action, || {
            let request = match method {
                Method::Post => self.http.post(url.clone()),
                Method::Put => self.http.put(url.clone()),
            };
            request.body(body.clone())
        })
    }

    /// Asks once and does not mind the answer: for giving up an upload.
    pub(super) fn delete_quietly(&self, path: &[&str]) {
        if let Ok(url) = self.url(path, &[]) {
            // The server ends idle uploads by itself.
            let _ = self.http.delete(url).timeout(Duration::from_secs(2)).send();
        }
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(path);
            }
            Err(()) => return Err(location(self.base.as_str(), "it cannot have a path")),
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        serde_json::from_slice(&answer.bytes).map_err(|error| self.protocol(error.to_string()))
    }

    /// Makes the request until it is answered or patience ends.
    fn repeat(&self, action: &'static str, request: impl Fn() -> RequestBuilder) -> Result<Answer> {
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let cause = match self.attempt(action, request()) {
                Ok(done) => return done,
                Err(cause) => cause,
            };
            if started.elapsed().saturating_add(pause) > self.patience.give_up_after {
                return Err(Error::Unreachable {
                    location: self.location(),
                    source: cause,
                });
            }
            tracing::warn!(action, %cause, "the library does not answer; trying again");
            thread::sleep(pause);
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// The outer error is worth another attempt, the inner is the server's last word.
    fn attempt(
        &self,
        action: &'static str,
        request: RequestBuilder,
    ) -> Result<Result<Answer>, Cause> {
        let response = request.send()?;
        let status = response.status();
        if status.is_success() {
            return read_answer(response).map(Ok);
        }
        let again = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        let body = read_answer(response)?;
        let failure: Failure = match serde_json::from_slice(&body.bytes) {
            Ok(failure) => failure,
            Err(_) if again => return Err(format!("HTTP status {status}").into()),
            Err(_) => {
                return Ok(Err(
                    self.protocol(format!("HTTP status {status} without a reason"))
                ));
            }
        };
        if again {
            return Err(failure.message.into());
        }
        Ok(Err(Error::ServerRefused {
            location: self.location(),
            action,
            status: status.as_u16(),
            code: failure.code,
            message: failure.message,
            hint: failure.hint,
        }))
    }
}

fn read_answer(response: Response) -> Result<Answer, Cause> {
    let is_nothing = response.status() == StatusCode::NO_CONTENT;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (hash, range) = (header(HASH_HEADER), header("content-range"));
    let expected = response.content_length();
    let mut bytes = Vec::new();
    response.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    if expected.is_some_and(|expected| expected != bytes.len() as u64) {
        return Err("the answer broke off".into());
    }
    if hash.is_some_and(|hash| hash != blake3::hash(&bytes).to_hex().as_str()) {
        return Err("the answer was damaged on its way".into());
    }
    Ok(Answer {
        bytes,
        is_nothing,
        range,
    })
}

fn location(url: &str, problem: &str) -> Error {
    Error::Location {
        location: url.to_owned(),
        problem: problem.to_owned(),
    }
}

fn parse_url(url: &str) -> Result<Url> {
    let base = Url::parse(url).map_err(|error| location(url, &error.to_string()))?;
    match base.scheme() {
        "http" => {}
        "https" => {
            return Err(disk::Error::unsupported("library server", "TLS (https://)").into());
        }
        _ => return Err(location(url, "expected http://HOST:PORT")),
    }
    if base.host_str().is_none_or(str::is_empty) {
        return Err(location(url, "it names no host"));
    }
    Ok(base)
}
