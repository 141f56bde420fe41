// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server does not bear: the slow, the many, and those who come while it stops.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Site, agent, refusal};
use crate::access::ImageReader;
use crate::error::Error;
use crate::server::{Access, Limits, Server, ServerOptions, Transport};
use crate::tests::draft;
use crate::token::Token;
use crate::tokens::Grant;

const SHORT: Duration = Duration::from_millis(300);
/// What is cut after [`SHORT`] is cut before this.
const AT_LAST: Duration = Duration::from_secs(8);

/// Sends what is given and reads until the server ends the connection.
fn talk(address: SocketAddr, sent: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(AT_LAST)).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    read_to_end(&mut stream)
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.expect("the server ends the connection in time")),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of a request to begin an upload, whose body has so many bytes.
fn begin_head(token: &Token, length: usize) -> String {
    format!(
        "POST /v1/uploads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
        *token.reveal()
    )
}

#[test]
fn a_slow_head_and_an_idle_connection_are_cut() {
    let site = Site::bearing(Limits {
        head: SHORT,
        ..Limits::default()
    });
    let address = site.server.address();
    let started = Instant::now();
    talk(address, "GET /v1 HTTP/1.1\r\nhost: x\r\n");
    let answer = talk(address, "GET /v1 HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    talk(address, "");
    assert!(started.elapsed() < AT_LAST);
}

#[test]
fn a_body_that_stands_still_is_cut() {
    let site = Site::bearing(Limits {
        stall: SHORT,
        ..Limits::default()
    });
    let token = site.token(agent("web01"));
    let sent = begin_head(&token, 100) + "{";
    let answer = talk(site.server.address(), &sent);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("\"code\":\"invalid\""), "{answer}");
}

#[test]
fn a_body_that_trickles_is_cut() {
    let site = Site::bearing(Limits {
        slow_after: SHORT,
        bytes_per_second: 10_000,
        ..Limits::default()
    });
    let token = site.token(agent("web01"));
    let mut stream = TcpStream::connect(site.server.address()).unwrap();
    stream.set_read_timeout(Some(AT_LAST)).unwrap();
    stream
        .write_all(begin_head(&token, 100_000).as_bytes())
        .unwrap();
    let started = Instant::now();
    // Far more time than it is given, were nobody looking.
    while stream.write_all(b" ").is_ok() && started.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() < AT_LAST, "{:?}", started.elapsed());
}

#[test]
fn connections_beyond_the_limit_are_closed_and_others_go_on() {
    let site = Site::bearing(Limits {
        connections_per_peer: 2,
        ..Limits::default()
    });
    let address = site.server.address();
    let first = TcpStream::connect(address).unwrap();
    let second = TcpStream::connect(address).unwrap();
    // The server takes them one after the other.
    thread::sleep(SHORT);
    assert_eq!(talk(address, ""), "");
    drop((first, second));
    thread::sleep(SHORT);
    let token = site.token(Grant::Operator);
    assert_eq!(site.get("/v1", &token).status().as_u16(), 200);
}

/// A request that the server waits for, until its body is sent.
fn waiting(site: &Site, token: &Token, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.server.address()).unwrap();
    stream.set_read_timeout(Some(AT_LAST)).unwrap();
    let sent = begin_head(token, body.len());
    stream.write_all(sent.as_bytes()).unwrap();
    thread::sleep(SHORT);
    stream
}

const BODY: &str = r#"{"server":"web01"}"#;

#[test]
fn more_requests_than_can_be_answered_are_asked_to_come_again() {
    let site = Site::bearing(Limits {
        requests: 1,
        ..Limits::default()
    });
    let token = site.token(agent("web01"));
    let mut stream = waiting(&site, &token, BODY);
    let refused = site.get("/v1", &token);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused), (503, "busy".to_owned()));
    stream.write_all(BODY.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn while_it_stops_requests_under_way_end_and_new_ones_are_asked_to_come_again() {
    let site = Site::new();
    let token = site.token(agent("web01"));
    let mut stream = waiting(&site, &token, BODY);
    let address = site.server.address();
    let url = format!("{}/v1", site.server.url());
    let client = site.client.clone();
    let (server, _directory) = (site.server, site._directory);
    let stopping = thread::spawn(move || drop(server));
    thread::sleep(SHORT);
    let refused = client.get(url).send().unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused), (503, "stopping".to_owned()));
    stream.write_all(BODY.as_bytes()).unwrap();
    let answer = read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stopping.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn uploads_of_one_server_that_begin_again_and_again_are_held_up() {
    let site = Site::bearing(Limits {
        uploads_per_server: 2,
        ..Limits::default()
    });
    let web = site.token(agent("web01"));
    let db = site.token(agent("db01"));
    for expected in [200, 200, 429, 429] {
        assert_eq!(site.begin("web01", &web).status().as_u16(), expected);
    }
    assert_eq!(site.begin("db01", &db).status().as_u16(), 200);
}

#[test]
fn what_is_sent_out_of_order_or_again_is_refused_or_changes_nothing() {
    let site = Site::bearing(Limits {
        uploads_per_server: 5,
        ..Limits::default()
    });
    let token = site.token(agent("web01"));
    let begin = || -> String {
        let begun: serde_json::Value = site.begin("web01", &token).json().unwrap();
        format!("/v1/uploads/{}", begun["upload"].as_str().unwrap())
    };
    let send = |method: &str, path: &str, body: Vec<u8>| {
        let request = site.ask(method, path, Some(&token.reveal()));
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    let draft = || serde_json::to_vec(&draft()).unwrap();

    let upload = begin();
    let commit = format!("{upload}/commit");
    assert_eq!(
        send("POST", &commit, draft()).0,
        422,
        "a commit before the disk"
    );
    let disk = format!("{upload}/disks?name=sda&size_bytes=65536&sector_size=512");
    assert_eq!(
        send("PUT", &disk, vec![0; 32]).0,
        404,
        "the refused commit ended it"
    );

    let upload = begin();
    let commit = format!("{upload}/commit");
    let disk = format!("{upload}/disks?name=sda&size_bytes=65536&sector_size=512");
    assert_eq!(send("PUT", &disk, vec![0; 32]).0, 204);
    let committed = send("POST", &commit, draft());
    assert_eq!(committed.0, 200);
    assert_eq!(
        send("POST", &commit, draft()),
        committed,
        "the answer was lost"
    );
    assert_eq!(
        send("PUT", &disk, vec![0; 32]).0,
        204,
        "it is the same disk"
    );
    let other = format!("{upload}/disks?name=sdb&size_bytes=65536&sector_size=512");
    assert_eq!(send("PUT", &other, vec![0; 32]).0, 404, "too late");
    assert_eq!(send("DELETE", &upload, Vec::new()).0, 204);
    assert_eq!(send("POST", &commit, draft()).0, 404);
    assert_eq!(site.library.images().unwrap().len(), 1);

    // Somebody who has one token cannot fill the audit trail with commits.
    let commit = format!("{}/commit", begin());
    let tries: Vec<u16> = (0..4).map(|_| send("POST", &commit, draft()).0).collect();
    assert_eq!(tries, [422, 404, 429, 429]);
}

#[test]
fn without_tls_or_tokens_it_listens_on_loopback_only() {
    let site = Site::new();
    let tokens = || Access::Tokens(site.library.clone());
    for access in [tokens(), Access::Everybody] {
        let options = ServerOptions {
            access,
            transport: Transport::Plain,
            limits: Limits::default(),
        };
        let address = "0.0.0.0:0".parse().unwrap();
        let library = Arc::new(site.library.clone());
        let error = Server::bind(library, address, options).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }
}
