// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that make no sense, on every route: each is refused in the same words, JSON with a
//! code and a message, and the server goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use reqwest::blocking::Response;
use serde_json::Value;

use super::{Site, agent};
use crate::access::ImageReader;
use crate::server::routes::{ROUTES, Route, Verb};
use crate::tests::{chunk, draft};
use crate::token::Token;
use crate::tokens::Grant;

/// The longest message of a refusal, and what is around it.
const FAILURE_BYTES_MAX: usize = 3 * 4096;

/// Asserts that an answer that is an error is a failure as [`crate::protocol::Failure`] has it;
/// gives its status.
fn told_properly(response: Response, what: &str) -> u16 {
    let status = response.status().as_u16();
    if response.status().is_success() {
        return status;
    }
    assert!(status < 500, "{what}: {status}");
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "application/json", "{what}: {status}");
    let text = response.text().unwrap();
    assert!(text.len() < FAILURE_BYTES_MAX, "{what}: {}", text.len());
    let failure: Value = serde_json::from_str(&text).unwrap();
    for member in ["code", "message"] {
        let said = failure[member].as_str().unwrap_or_default();
        assert!(!said.is_empty(), "{what}: {status}: {text}");
    }
    status
}

fn verb(route: &Route) -> String {
    format!("{:?}", route.verb).to_uppercase()
}

/// The path of a route with one value for all of its parameters.
fn filled(route: &Route, value: &str) -> String {
    let fill = |part: &'static str| if part.starts_with('{') { value } else { part };
    let parts: Vec<&str> = route.path.split('/').map(fill).collect();
    parts.join("/")
}

#[test]
fn malformed_paths_and_queries_are_refused_in_the_same_words_on_every_route() {
    let site = Site::new();
    let token = site.token(Grant::Administrator);
    let long = "9".repeat(5000);
    let values = ["%ff%fe", "%00", "..%2f..", "-1", "%7b", "x", &long];
    let queries = [
        "",
        "?",
        "?%ff=%ff",
        "?from=-1",
        "?from=%00",
        "?disk=sda&leaf=x",
        "?leaf=1&leaf=2",
        "?name=sda&size_bytes=x&sector_size=512",
        "?name=%ff&size_bytes=1e9&sector_size=513",
    ];
    for route in ROUTES {
        for (value, query) in values.iter().flat_map(|v| queries.map(|query| (v, query))) {
            let path = filled(route, value) + query;
            let what = format!("{} {path}", verb(route));
            let request = site.ask(&verb(route), &path, Some(&token.reveal()));
            let status = told_properly(request.send().unwrap(), &what);
            // Giving up an upload that is not there is no error, nor is asking for a server that
            // has no image.
            let is_end = route.verb == Verb::Delete && route.path.contains("uploads");
            let is_server = route.path.contains("{server}");
            let must_fail = route.path.contains('{') && !is_end && !is_server;
            assert!(!must_fail || status >= 400, "{what}: {status}");
        }
    }
}

#[test]
fn malformed_bodies_are_refused_in_the_same_words_on_every_route() {
    let site = Site::new();
    let token = site.token(Grant::Administrator);
    let deep = "[".repeat(200_000);
    let unknown = format!(
        r#"{{"server":"web01","consistency":"{}"}}"#,
        "x".repeat(100_000)
    );
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"null",
        b"[1,2]",
        b"\xff\xfe",
        br#"{"server":7}"#,
        deep.as_bytes(),
        unknown.as_bytes(),
    ];
    for route in ROUTES {
        for (number, body) in bodies.iter().enumerate() {
            for kind in ["application/json", "text/plain", ""] {
                let path = filled(route, "84cc2a2d-e051-43aa-85ab-a8c69ccef2a9");
                let what = format!("{} {path}, body {number} as {kind:?}", verb(route));
                let request = site.ask(&verb(route), &path, Some(&token.reveal()));
                let request = request.header("content-type", kind).body(body.to_vec());
                told_properly(request.send().unwrap(), &what);
            }
        }
    }
}

#[test]
fn bodies_and_heads_that_are_too_long_are_refused() {
    let site = Site::new();
    let token = site.token(agent("web01"));
    let request = site.ask("POST", "/v1/uploads", Some(&token.reveal()));
    let request = request.header("content-type", "application/json");
    let answer = request.body(vec![b' '; 9 << 20]).send().unwrap();
    assert_eq!(told_properly(answer, "9 MiB of JSON"), 413);

    let mut stream = TcpStream::connect(site.server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(b"GET /v1 HTTP/1.1\r\nx: ").unwrap();
    // The server may hang up before it has all of it.
    let _ = stream.write_all(&vec![b'x'; 1 << 20]);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert_eq!(site.get("/v1", &token).status().as_u16(), 200);
}

/// A request with bytes; gives its status.
fn send(site: &Site, token: &Token, method: &str, path: &str, body: Vec<u8>) -> u16 {
    let request = site.ask(method, path, Some(&token.reveal()));
    let request = request
        .header("content-type", "application/json")
        .body(body);
    told_properly(request.send().unwrap(), path)
}

#[test]
fn requests_that_are_replayed_store_nothing_twice() {
    let site = Site::new();
    let token = site.token(agent("web01"));
    let plain = crate::tests::noise(1, 65_536);
    let chunk = chunk(&plain);
    let mut frame = Vec::new();
    crate::protocol::append_frame(&mut frame, &chunk);
    let begun: Value = site.begin("web01", &token).json().unwrap();
    let upload = format!("/v1/uploads/{}", begun["upload"].as_str().unwrap());
    let disk = "name=sda&size_bytes=65536&sector_size=512";
    let hashes = chunk.hash.as_bytes().to_vec();
    let leaf = blake3::hash(&hashes).as_bytes().to_vec();
    let requests = [
        ("POST", format!("{upload}/chunks"), frame),
        ("PUT", format!("{upload}/leaves/0?{disk}"), hashes),
        ("PUT", format!("{upload}/disks?{disk}"), leaf),
    ];
    for (method, path, body) in &requests {
        for _ in 0..3 {
            assert_eq!(
                send(&site, &token, method, path, body.clone()),
                204,
                "{path}"
            );
        }
    }
    let commit = format!("{upload}/commit");
    let draft = serde_json::to_vec(&draft()).unwrap();
    for _ in 0..3 {
        assert_eq!(send(&site, &token, "POST", &commit, draft.clone()), 200);
    }
    let images = site.library.images().unwrap();
    assert_eq!(images.len(), 1);
    let stored = images[0].stored_bytes;
    assert!((65_536..2 * 65_536).contains(&stored), "{stored}");

    // All of it once more, when the upload is over and after another began.
    site.begin("web01", &token);
    for (method, path, body) in &requests {
        assert_eq!(
            send(&site, &token, method, path, body.clone()),
            404,
            "{path}"
        );
    }
    assert_eq!(send(&site, &token, "POST", &commit, draft), 404);
    assert_eq!(site.library.images().unwrap(), images);
}
