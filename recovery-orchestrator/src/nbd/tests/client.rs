// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client written by hand, which does what no real one would: every message can be wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What stands in every request.
pub(super) const COOKIE: u64 = 0x1122_3344_5566_7788;

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISC: u16 = 2;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const CACHE: u16 = 5;
pub(super) const WRITE_ZEROES: u16 = 6;
pub(super) const BLOCK_STATUS: u16 = 7;

pub(super) const FUA: u16 = 1;
pub(super) const NO_HOLE: u16 = 2;
pub(super) const DF: u16 = 4;
pub(super) const FAST_ZERO: u16 = 16;

pub(super) const ACK: u32 = 1;
pub(super) const INFO: u32 = 3;
pub(super) const ERR_UNSUP: u32 = (1 << 31) + 1;
pub(super) const ERR_INVALID: u32 = (1 << 31) + 3;
pub(super) const ERR_TLS_REQD: u32 = (1 << 31) + 5;
pub(super) const ERR_UNKNOWN: u32 = (1 << 31) + 6;

pub(super) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A chunk of a structured reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) flags: u16,
    pub(super) kind: u16,
    pub(super) data: Vec<u8>,
}

impl Chunk {
    /// The place at the beginning of the data.
    pub(super) fn offset(&self) -> u64 {
        u64::from_be_bytes(self.data[..8].try_into().unwrap())
    }
}

pub(super) struct Client {
    pub(super) stream: Box<dyn Stream>,
}

impl Client {
    /// After the greetings; what is said is up to the test.
    pub(super) fn new(mut stream: impl Stream + 'static) -> Self {
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\x00\x03");
        stream.write_all(&[0, 0, 0, 3]).unwrap();
        Self::within(stream)
    }

    /// Behind greetings that were exchanged on another stream.
    pub(super) fn within(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends an option, and takes the type and data of the first reply.
    pub(super) fn option(&mut self, number: u32, data: &[u8]) -> (u32, Vec<u8>) {
        self.send(&option(number, data));
        self.reply()
    }

    pub(super) fn reply(&mut self) -> (u32, Vec<u8>) {
        let mut head = [0; 20];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
        let length = u32::from_be_bytes(head[16..20].try_into().unwrap());
        let mut data = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut data).unwrap();
        (kind, data)
    }

    /// Chooses an export; tells its length, its flags and its three block sizes.
    pub(super) fn go(&mut self, name: &str) -> (u64, u16, [u32; 3]) {
        let (kind, info) = self.option(7, &info_data(name));
        assert_eq!((kind, &info[..2]), (INFO, &[0, 0][..]));
        let (kind, sizes) = self.reply();
        assert_eq!((kind, &sizes[..2]), (INFO, &[0, 3][..]));
        assert_eq!(self.reply(), (ACK, vec![]));
        let size = |at: usize| u32::from_be_bytes(sizes[at..at + 4].try_into().unwrap());
        (
            u64::from_be_bytes(info[2..10].try_into().unwrap()),
            u16::from_be_bytes(info[10..12].try_into().unwrap()),
            [size(2), size(6), size(10)],
        )
    }

    /// With structured replies, and block status.
    pub(super) fn go_structured(&mut self, name: &str) -> u16 {
        assert_eq!(self.option(8, &[]), (ACK, vec![]));
        let (kind, context) = self.option(10, &context_data(name, &["base:allocation"]));
        assert_eq!((kind, &context[..]), (4, &b"\0\0\0\x01base:allocation"[..]));
        assert_eq!(self.reply().0, ACK);
        self.go(name).1
    }

    pub(super) fn request(&mut self, flags: u16, command: u16, offset: u64, length: u32) {
        self.send(&request(flags, command, offset, length));
    }

    /// A simple reply: its error, and this much data where there is none.
    pub(super) fn simple(&mut self, length: usize) -> (u32, Vec<u8>) {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(&head[..4], &[0x67, 0x44, 0x66, 0x98]);
        assert_eq!(&head[8..], &COOKIE.to_be_bytes());
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        let mut data = vec![0; if error == 0 { length } else { 0 }];
        self.stream.read_exact(&mut data).unwrap();
        (error, data)
    }

    /// The error of a request that has no data in its reply.
    pub(super) fn does(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
        self.request(flags, command, offset, length);
        self.simple(0).0
    }

    pub(super) fn writes(&mut self, flags: u16, offset: u64, payload: &[u8]) -> u32 {
        let length = u32::try_from(payload.len()).unwrap();
        self.request(flags, WRITE, offset, length);
        self.send(payload);
        self.simple(0).0
    }

    pub(super) fn reads(&mut self, offset: u64, length: u32) -> Vec<u8> {
        self.request(0, READ, offset, length);
        let (error, data) = self.simple(usize::try_from(length).unwrap());
        assert_eq!(error, 0);
        data
    }

    /// All chunks of one structured reply.
    pub(super) fn chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        loop {
            let mut head = [0; 20];
            self.stream.read_exact(&mut head).unwrap();
            assert_eq!(&head[..4], &[0x66, 0x8e, 0x33, 0xef]);
            assert_eq!(&head[8..16], &COOKIE.to_be_bytes());
            let length = u32::from_be_bytes(head[16..20].try_into().unwrap());
            let mut data = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut data).unwrap();
            let flags = u16::from_be_bytes([head[4], head[5]]);
            chunks.push(Chunk {
                flags,
                kind: u16::from_be_bytes([head[6], head[7]]),
                data,
            });
            if flags == 1 {
                return chunks;
            }
            assert_eq!(flags, 0);
        }
    }

    /// Whether the server has ended the connection, after what it may have sent before.
    pub(super) fn is_cut(&mut self) -> bool {
        let mut sent = Vec::new();
        match self.stream.read_to_end(&mut sent) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

pub(super) fn unix(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

pub(super) fn tcp(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

pub(super) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// What follows `GO` and `INFO`.
pub(super) fn info_data(name: &str) -> Vec<u8> {
    [string(name), vec![0, 0]].concat()
}

/// What follows `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
pub(super) fn context_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        bytes.extend(string(query));
    }
    bytes
}

pub(super) fn request(flags: u16, command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(COOKIE.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}
