// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server against a client written here, against `qemu-img` and `qemu-io`, and against bytes
//! that mean no good.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use disk::block::{Extent, ExtentKind};
use proptest::prelude::{any, proptest};

use super::*;

/// 1 MiB that counts, 2 MiB of zeros, 1 MiB that counts.
#[derive(Debug)]
struct Pattern;

const MIB: u64 = 1 << 20;

impl ReadAt for Pattern {
    fn length_bytes(&self) -> u64 {
        4 * MIB
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        for (position, byte) in (offset..).zip(buffer.iter_mut()) {
            let zero = (MIB..3 * MIB).contains(&position);
            *byte = if zero {
                0
            } else {
                u8::try_from(position / 512 % 251).unwrap() + 1
            };
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        let (end, kind) = match offset / MIB {
            0 => (MIB, ExtentKind::Data),
            1 | 2 => (3 * MIB, ExtentKind::Zero),
            _ => (4 * MIB, ExtentKind::Data),
        };
        Ok(Extent {
            length: end - offset,
            kind,
        })
    }
}

struct Fixture {
    server: Server,
    _directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let export = Export {
        name: "disk0".to_owned(),
        device: Arc::new(Pattern),
        block_size_bytes: 512,
    };
    let server = Server::start(&directory.path().join("nbd"), vec![export]).unwrap();
    Fixture {
        server,
        _directory: directory,
    }
}

impl Fixture {
    fn connect(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.server.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\x00\x03");
        stream
    }

    fn url(&self) -> String {
        format!(
            "nbd+unix:///disk0?socket={}",
            self.server.socket().display()
        )
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn go(name: &str) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend([0, 0]);
    option(7, &data)
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13, 0, 0];
    bytes.extend(command.to_be_bytes());
    bytes.extend(0x1122_3344_5566_7788_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Type and data of one option reply.
fn reply(stream: &mut UnixStream) -> (u32, Vec<u8>) {
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
    let length = u32::from_be_bytes(head[16..20].try_into().unwrap());
    let mut data = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut data).unwrap();
    (kind, data)
}

fn opened(fixture: &Fixture) -> UnixStream {
    let mut stream = fixture.connect();
    stream.write_all(&[0, 0, 0, 3]).unwrap();
    stream.write_all(&go("disk0")).unwrap();
    let (kind, info) = reply(&mut stream);
    assert_eq!((kind, &info[2..10]), (3, &4_194_304_u64.to_be_bytes()[..]));
    assert_eq!(reply(&mut stream).0, 3);
    assert_eq!(reply(&mut stream).0, 1);
    stream
}

fn simple_reply(stream: &mut UnixStream, length: usize) -> (u32, Vec<u8>) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[..4], &[0x67, 0x44, 0x66, 0x98]);
    assert_eq!(&head[8..], &0x1122_3344_5566_7788_u64.to_be_bytes());
    let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
    let mut data = vec![0; if error == 0 { length } else { 0 }];
    stream.read_exact(&mut data).unwrap();
    (error, data)
}

#[test]
fn a_client_that_chose_an_export_reads_its_bytes() {
    let fixture = fixture();
    let mut stream = opened(&fixture);
    stream.write_all(&request(0, MIB - 2, 4)).unwrap();
    assert_eq!(simple_reply(&mut stream, 4), (0, vec![40, 40, 0, 0]));
}

#[test]
fn reads_outside_of_the_disk_and_everything_that_writes_get_an_error() {
    let fixture = fixture();
    let mut stream = opened(&fixture);
    for (command, offset, length, error) in [
        (0, 4 * MIB - 1, 2, 22),
        (0, u64::MAX, 1, 22),
        (0, 0, u32::MAX, 22),
        (4, 0, 512, 1),
        (6, 0, 512, 1),
        (99, 0, 512, 22),
    ] {
        stream.write_all(&request(command, offset, length)).unwrap();
        assert_eq!(simple_reply(&mut stream, 0), (error, vec![]));
    }
    stream.write_all(&request(0, 0, 1)).unwrap();
    assert_eq!(simple_reply(&mut stream, 1), (0, vec![1]));
}

#[test]
fn an_unknown_export_is_told_and_the_next_option_still_works() {
    let fixture = fixture();
    let mut stream = fixture.connect();
    stream.write_all(&[0, 0, 0, 3]).unwrap();
    stream.write_all(&go("disk7")).unwrap();
    assert_eq!(
        reply(&mut stream),
        ((1 << 31) + 6, b"no such export".to_vec())
    );
    stream.write_all(&option(3, &[])).unwrap();
    assert_eq!(reply(&mut stream), (2, b"\0\0\0\x05disk0".to_vec()));
    assert_eq!(reply(&mut stream), (1, vec![]));
    stream.write_all(&option(77, &[])).unwrap();
    assert_eq!(reply(&mut stream).0, (1 << 31) + 1);
}

#[test]
fn a_client_that_breaks_the_protocol_loses_only_its_own_connection() {
    let fixture = fixture();
    let hostile: [&[u8]; 5] = [
        &[0xff; 64],
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff",
        b"\0\0\0\x03GARBAGE!GARBAGE!",
        b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x05wrong",
        b"",
    ];
    for bytes in hostile {
        let mut stream = fixture.connect();
        // The server may have cut the connection already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 1024);
    }
    let mut stream = opened(&fixture);
    stream.write_all(&request(1, 0, 512)).unwrap();
    assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    opened(&fixture);
}

#[test]
fn a_server_ends_while_clients_are_connected() {
    let fixture = fixture();
    let _idle = fixture.connect();
    let _open = opened(&fixture);
    drop(fixture);
}

proptest! {
    #[test]
    fn no_sequence_of_bytes_panics_the_negotiation(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        struct Pipe<'a>(&'a [u8], Vec<u8>);
        impl Read for Pipe<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> { self.0.read(buffer) }
        }
        impl Write for Pipe<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> { self.1.write(bytes) }
            fn flush(&mut self) -> io::Result<()> { Ok(()) }
        }
        let export = Export { name: "d".to_owned(), device: Arc::new(Pattern), block_size_bytes: 512 };
        let mut framed = vec![0, 0, 0, 3];
        for piece in bytes.chunks(40) {
            framed.extend(option(u32::from(piece[0] % 12), &piece[1..]));
        }
        let exports = [export];
        let _ = negotiate::negotiate(&mut Pipe(&framed, Vec::new()), &exports);
        let _ = negotiate::negotiate(&mut Pipe(&bytes, Vec::new()), &exports);
    }
}

fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success(),
                "{name} {arguments:?}: {text}{problem}"
            );
            Some(text)
        }
        Err(error) => {
            eprintln!("skipped: {name} cannot be run: {error}");
            assert_ne!(
                std::env::var("E2E_REQUIRE").as_deref(),
                Ok("all"),
                "{name} is missing"
            );
            None
        }
    }
}

#[test]
fn qemu_img_sees_the_holes_and_copies_the_bytes() {
    let fixture = fixture();
    let Some(map) = tool("qemu-img", &["map", "--output=json", &fixture.url()]) else {
        return;
    };
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let runs: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["start"].as_u64().unwrap(),
                run["length"].as_u64().unwrap(),
                run["zero"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        runs,
        [(0, MIB, false), (MIB, 2 * MIB, true), (3 * MIB, MIB, false)]
    );
    let copy = fixture.server.socket().with_file_name("copy.raw");
    tool(
        "qemu-img",
        &[
            "convert",
            "-O",
            "raw",
            &fixture.url(),
            &copy.display().to_string(),
        ],
    );
    let mut expected = vec![0; 4 << 20];
    Pattern.read_exact_at(0, &mut expected).unwrap();
    assert!(std::fs::read(copy).unwrap() == expected);
}

#[test]
fn qemu_io_reads_and_is_not_allowed_to_write() {
    let fixture = fixture();
    let Some(text) = tool(
        "qemu-io",
        &["-r", "-f", "raw", "-c", "read -P 0 1M 2M", &fixture.url()],
    ) else {
        return;
    };
    assert!(text.contains("read 2097152/2097152"), "{text}");
    let write = Command::new("qemu-io")
        .args(["-f", "raw", "-c", "write 0 512", &fixture.url()])
        .output()
        .unwrap();
    assert!(!write.status.success());
}
