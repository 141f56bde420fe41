// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom a client trusts, and what a server over TLS gives to whom.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod served;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use disk::block::MemoryDevice;
use disk::{SectorSize, Silent};
use image_library::client::{RemoteLibrary, ServerAccess, TokenSource};
use image_library::{
    Authority, Consistency, DiskDraft, DiskIndex, Error, Grant, ImageDraft, ImageReader,
    IngestDisk, Token, UploadTarget, ingest,
};

use crate::served::{Served, agent, impatient};

fn refused(served: &Served, access: &ServerAccess) -> Error {
    RemoteLibrary::connect_with(&served.server.url(), access, impatient()).unwrap_err()
}

fn status(error: &Error) -> u16 {
    match error {
        Error::ServerRefused { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[test]
fn an_agent_stores_with_its_token_and_an_operator_reads_with_his() {
    let served = Served::securely();
    assert!(served.server.url().starts_with("https://127.0.0.1:"));
    let agent = served.connect_as(&served.token(agent("web01"))).unwrap();
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let disk = IngestDisk {
        draft: DiskDraft {
            name: "sda".to_owned(),
            size_bytes: bytes.len() as u64,
            sector_size: SectorSize::B512,
        },
        device: Arc::new(MemoryDevice::from(bytes.clone())),
        used: None,
        known: None,
    };
    let target = UploadTarget {
        server: "web01".parse().unwrap(),
    };
    let draft = ImageDraft {
        taken_at: "2026-11-01T10:00:00Z".parse().unwrap(),
        consistency: Consistency::Cold,
        machine: None,
    };
    let (image, _) = ingest(&agent, &target, &[disk], &draft, &Silent).unwrap();
    assert_eq!(status(&agent.images().unwrap_err()), 403);
    assert_eq!(
        status(&agent.open_disk(image.id, DiskIndex(0)).unwrap_err()),
        403
    );

    let operator = served.connect_as(&served.token(Grant::Operator)).unwrap();
    let device = operator.open_disk(image.id, DiskIndex(0)).unwrap();
    let mut read = vec![0; bytes.len()];
    device.read_exact_at(0, &mut read).unwrap();
    assert!(read == bytes);
}

#[test]
fn a_server_is_trusted_for_the_authority_that_the_token_names_and_no_other() {
    let served = Served::securely();
    let stranger = Served::securely();
    let grant = Grant::Operator;
    let other = Some(stranger.authority());
    let token = served
        .library
        .add_token(grant.clone(), None, other)
        .unwrap();
    let error = served.connect_as(&token).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--ca-file"));
    // The roots of the system do not have it either.
    let token = served.library.add_token(grant, None, None).unwrap();
    let error = served.connect_as(&token).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    let error = refused(&served, &ServerAccess::default());
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
}

#[test]
fn a_server_under_a_name_that_is_not_in_its_certificate_is_not_trusted() {
    let served = Served::securely();
    let access = ServerAccess::with_token(served.token(Grant::Operator));
    // Hands everything on to the server, as somebody in between would.
    let proxy = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let url = format!("https://{}", proxy.local_addr().unwrap());
    let target = served.server.address();
    std::thread::spawn(move || {
        while let Ok((client, _)) = proxy.accept() {
            let server = TcpStream::connect(target).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (mut client, mut server) = (client, server);
            std::thread::spawn(move || std::io::copy(&mut up, &mut server));
            std::thread::spawn(move || std::io::copy(&mut down, &mut client));
        }
    });
    let error = RemoteLibrary::connect_with(&url, &access, impatient()).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
}

#[test]
fn a_file_of_authorities_counts_more_than_the_token() {
    let served = Served::securely();
    let token = served.token(Grant::Operator);
    let file = served.file("authority.pem");
    let authority = Authority::of(&served.library).unwrap();
    std::fs::write(&file, authority.certificate_pem()).unwrap();
    let access = |name: &str, token: &Token| ServerAccess {
        token: TokenSource::Given(token.clone()),
        ca_file: Some(served.file(name)),
    };
    let connect = |access: &ServerAccess| {
        RemoteLibrary::connect_with(&served.server.url(), access, impatient())
    };
    let without = served
        .library
        .add_token(Grant::Operator, None, None)
        .unwrap();
    connect(&access("authority.pem", &without)).unwrap();

    let stranger = Served::securely();
    let other = Authority::of(&stranger.library).unwrap();
    std::fs::write(served.file("other.pem"), other.certificate_pem()).unwrap();
    let error = connect(&access("other.pem", &token)).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    std::fs::write(served.file("empty.pem"), "").unwrap();
    let error = connect(&access("empty.pem", &token)).unwrap_err();
    assert!(error.to_string().contains("holds none"), "{error}");
}

#[test]
fn who_does_not_speak_tls_is_told_nothing_and_the_server_goes_on() {
    let served = Served::securely();
    for sent in [
        &b"GET /v1 HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0x16; 40],
        &[0; 4096],
    ] {
        let mut stream = TcpStream::connect(served.server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // An alert of TLS, or nothing.
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !String::from_utf8_lossy(&answer).contains("HTTP"),
            "{answer:?}"
        );
    }
    served.connect_as(&served.token(Grant::Operator)).unwrap();
}
