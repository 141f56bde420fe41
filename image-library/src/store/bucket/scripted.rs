// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server on the loopback address that answers as a test says: one answer for each request, the
//! last one for all that follow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Bucket, BucketAccess};

/// What is done with one request.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        /// What `Content-Length` says, when it is not the truth.
        declared: Option<usize>,
    },
    /// The connection ends without an answer.
    HangUp,
    /// Nothing happens for so long, then the connection ends.
    Silence(Duration),
    /// The object's bytes, one every so long.
    Trickle(Vec<u8>, Duration),
    /// The object, two times, on a connection that stays open.
    Twice(Vec<u8>),
}

impl Step {
    pub(super) fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: vec![("ETag", "\"version-1\"".to_owned())],
            body: Vec::new(),
            declared: None,
        }
    }

    pub(super) fn refusal(status: u16, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        Self::status(status).with_body(body.as_bytes())
    }

    /// The whole of an object of these bytes, asked for as a range.
    pub(super) fn object(content: &[u8]) -> Self {
        let range = format!("bytes 0-{}/{}", content.len() - 1, content.len());
        Self::status(206)
            .with_header("Content-Range", range)
            .with_body(content)
    }

    pub(super) fn with_body(mut self, content: &[u8]) -> Self {
        if let Self::Answer { body, .. } = &mut self {
            *body = content.to_vec();
        }
        self
    }

    pub(super) fn with_header(mut self, name: &'static str, value: String) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value));
        }
        self
    }

    pub(super) fn declaring(mut self, length: usize) -> Self {
        if let Self::Answer { declared, .. } = &mut self {
            *declared = Some(length);
        }
        self
    }
}

/// The server; it ends with the test process.
#[derive(Debug)]
pub(super) struct Scripted {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub(super) fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (seen, steps) = (Arc::clone(&seen), steps.clone());
                thread::spawn(move || serve(stream, &seen, &steps));
            }
        });
        Self { address, requests }
    }

    /// A bucket there, with little patience.
    pub(super) fn bucket(&self) -> Bucket {
        bucket_at(&self.address)
    }

    /// Method, path and query of every request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("nothing panics").clone()
    }
}

/// The most that an operation on [`bucket_at`] takes.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(3);

pub(super) fn bucket_at(address: &str) -> Bucket {
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "geheim".to_owned()),
        ("AWS_REGION", "here".to_owned()),
    ];
    let access = BucketAccess {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        certificates: None,
        request_timeout: Duration::from_secs(1),
        time_limit: TIME_LIMIT,
    };
    let address = "s3://images/site".parse().expect("is an address");
    Bucket::connect(&address, &access).expect("connects")
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<String>>, steps: &[Step]) {
    let Some(request) = read_request(&stream) else {
        return;
    };
    let number = {
        let mut seen = seen.lock().expect("nothing panics");
        seen.push(request);
        seen.len() - 1
    };
    let step = steps.get(number).or(steps.last()).expect("a script");
    match step {
        Step::HangUp => {}
        Step::Silence(duration) => thread::sleep(*duration),
        Step::Trickle(content, pause) => trickle(&stream, content, *pause),
        Step::Twice(content) => {
            let once = [object_head(content).as_bytes(), content].concat();
            let _ = (&stream).write_all(&once.repeat(2));
            serve(stream, seen, steps);
        }
        Step::Answer {
            status,
            headers,
            body,
            declared,
        } => {
            let length = declared.unwrap_or(body.len());
            let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
            head.push_str(&format!("Content-Length: {length}\r\n"));
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let mut stream = stream;
            // A client that has gone away is part of some tests.
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(b"\r\n");
            let _ = stream.write_all(body);
        }
    }
}

fn object_head(content: &[u8]) -> String {
    let (last, length) = (content.len() - 1, content.len());
    format!(
        "HTTP/1.1 206 x\r\nContent-Length: {length}\r\nContent-Range: bytes 0-{last}/{length}\r\n\
         ETag: \"version-1\"\r\n\r\n"
    )
}

/// Until the client has enough of it.
fn trickle(mut stream: &TcpStream, content: &[u8], pause: Duration) {
    let head = object_head(content);
    for piece in std::iter::once(head.as_bytes()).chain(content.chunks(1)) {
        if stream.write_all(piece).is_err() {
            return;
        }
        thread::sleep(pause);
    }
}

/// Reads a request with its body; gives its first line without the protocol.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let (request, _) = first.rsplit_once(' ')?;
    Some(request.to_owned())
}
