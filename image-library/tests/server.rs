// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library behind its server: the same images as in the directory, and nothing that a client
//! sends breaks it.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod served;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use disk::block::ExtentKind;
use disk::{ReadAt, SectorSize};
use image_library::{
    ChunkState, ChunkUpload, Consistency, ContentHash, DiskDraft, DiskIndex, Error, Image,
    ImageDraft, ImageReader, ImageWriter, ServerName, Upload, UploadTarget,
};
use reqwest::blocking::RequestBuilder;

use crate::served::{Served, client};

const CHUNK: usize = 65_536;

fn target() -> UploadTarget {
    UploadTarget {
        server: server_name(),
    }
}

fn server_name() -> ServerName {
    "web01".parse().unwrap()
}

fn chunk(plain: &[u8]) -> ChunkUpload {
    ChunkUpload {
        hash: ContentHash::of(plain),
        length: u32::try_from(plain.len()).unwrap(),
        compressed: zstd::bulk::compress(plain, 1).unwrap(),
    }
}

/// A disk of 40 chunks: two of data, thirty-six of zeros, two of data, the last one short.
fn disk_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 39 * CHUNK + 512];
    for index in [0, 1, 38, 39] {
        let end = bytes.len().min((index + 1) * CHUNK);
        for (at, byte) in bytes[index * CHUNK..end].iter_mut().enumerate() {
            *byte = (at / 7 + index) as u8 | 1;
        }
    }
    bytes
}

fn wire(hash: Option<&ContentHash>) -> [u8; 32] {
    hash.map_or([0; 32], |hash| *hash.as_bytes())
}

fn put_disk(upload: &dyn Upload, name: &str, bytes: &[u8]) {
    let mut hashes = Vec::new();
    for piece in bytes.chunks(CHUNK) {
        if piece.iter().all(|byte| *byte == 0) {
            hashes.push(None);
        } else {
            upload.put_chunks(vec![chunk(piece)]).unwrap();
            hashes.push(Some(ContentHash::of(piece)));
        }
    }
    let draft = DiskDraft {
        name: name.to_owned(),
        size_bytes: bytes.len() as u64,
        sector_size: SectorSize::B512,
    };
    let leaf: Vec<u8> = hashes.iter().flat_map(|hash| wire(hash.as_ref())).collect();
    let leaves = [Some(ContentHash::of(&leaf))];
    // An answer that was lost makes a client put it again.
    for _ in 0..2 {
        upload.put_leaf(&draft, 0, &hashes).unwrap();
    }
    for _ in 0..2 {
        upload.put_disk(&draft, &leaves).unwrap();
    }
}

fn draft() -> ImageDraft {
    ImageDraft {
        taken_at: "2026-11-01T10:00:00Z".parse().unwrap(),
        consistency: Consistency::Cold,
        machine: None,
    }
}

fn upload_image(library: &dyn ImageWriter) -> Image {
    let upload = library.begin(&target()).unwrap();
    put_disk(&*upload, "sda 1/ä", &disk_bytes());
    upload.commit(&draft()).unwrap()
}

#[test]
fn an_image_that_was_sent_is_read_back_byte_by_byte() {
    let served = Served::to_everybody();
    let library = served.connect();
    let image = upload_image(&library);
    assert_eq!(image.server, server_name());
    assert_eq!(image.disks.len(), 1);
    assert_eq!(image.disks[0].name, "sda 1/ä");
    assert_eq!(library.images().unwrap(), std::slice::from_ref(&image));
    assert_eq!(library.image(image.id).unwrap(), image);

    let opened = library.open_disk(image.id, DiskIndex(0)).unwrap();
    reads_as(&*opened, &disk_bytes());
    let direct = library.open_disk_direct(image.id, DiskIndex(0)).unwrap();
    reads_as(&*direct, &disk_bytes());
}

fn reads_as(disk: &dyn ReadAt, expected: &[u8]) {
    assert_eq!(disk.length_bytes(), expected.len() as u64);
    let mut all = vec![1; expected.len()];
    disk.read_exact_at(0, &mut all).unwrap();
    assert!(all == expected);
    for (offset, length) in [(0, 1), (65_535, 2), (2_490_368 - 3, 66_000), (2_556_415, 1)] {
        let mut part = vec![1; length];
        disk.read_exact_at(offset as u64, &mut part).unwrap();
        assert!(
            part == expected[offset..offset + length],
            "{length} bytes at {offset}"
        );
    }
    let past_end = disk
        .read_exact_at(expected.len() as u64, &mut [0])
        .unwrap_err();
    assert!(
        past_end.to_string().starts_with("read 1 bytes at byte"),
        "{past_end}"
    );
}

#[test]
fn a_hole_of_the_disk_is_told_as_one() {
    let served = Served::to_everybody();
    let library = served.connect();
    let image = upload_image(&library);
    let disk = library.open_disk(image.id, DiskIndex(0)).unwrap();
    let extents: Vec<(u64, ExtentKind)> = [0, 65_536, 131_072, 2_490_368]
        .into_iter()
        .map(|offset| disk.extent_at(offset).unwrap())
        .map(|extent| (extent.length, extent.kind))
        .collect();
    assert_eq!(
        extents,
        [
            (131_072, ExtentKind::Data),
            (65_536, ExtentKind::Data),
            (2_359_296, ExtentKind::Zero),
            (66_048, ExtentKind::Data),
        ]
    );
}

#[test]
fn the_next_upload_needs_only_what_changed() {
    let served = Served::to_everybody();
    let library = served.connect();
    assert!(
        library
            .latest_hashes(&server_name(), "sda")
            .unwrap()
            .is_none()
    );
    upload_image(&library);
    let hashes = library
        .latest_hashes(&server_name(), "sda 1/ä")
        .unwrap()
        .unwrap();
    assert_eq!(hashes.chunk_count(), 40);
    let hashes = hashes.leaf(0).unwrap();
    assert_eq!(hashes.len(), 40);
    assert_eq!(hashes.iter().flatten().count(), 4);
    let upload = library.begin(&target()).unwrap();
    let asked = [hashes[0].unwrap(), ContentHash::of(b"new")];
    assert_eq!(
        upload.states(&asked).unwrap(),
        [ChunkState::Stored, ChunkState::Missing]
    );
}

#[test]
fn side_files_are_kept_beside_the_image() {
    let served = Served::to_everybody();
    let library = served.connect();
    let image = upload_image(&library);
    assert_eq!(library.side_file(image.id, "readiness.json").unwrap(), None);
    library
        .put_side_file(image.id, "readiness.json", b"{}")
        .unwrap();
    let found = library.side_file(image.id, "readiness.json").unwrap();
    assert_eq!(found.as_deref(), Some(&b"{}"[..]));
    assert_eq!(library.image(image.id).unwrap(), image);
    for name in ["..", "../image.json", "a/b", "", "A", &"a".repeat(101)] {
        assert!(
            library.put_side_file(image.id, name, b"x").is_err(),
            "{name:?}"
        );
    }
}

#[test]
fn what_an_interrupted_upload_sent_is_not_missing_to_the_next_one() {
    let served = Served::to_everybody();
    let library = served.connect();
    let plain = vec![5; CHUNK];
    // Enough for whole packs; the last one may be lost.
    let upload = library.begin(&target()).unwrap();
    upload.put_chunks(vec![chunk(&plain)]).unwrap();
    assert_eq!(
        upload.states(&[ContentHash::of(&plain)]).unwrap(),
        [ChunkState::Stored]
    );
    drop(upload);
    let upload = library.begin(&target()).unwrap();
    assert_eq!(
        upload.states(&[ContentHash::of(&plain)]).unwrap(),
        [ChunkState::Stored]
    );
}

#[test]
fn a_chunk_with_another_hash_is_refused_and_not_kept() {
    let served = Served::to_everybody();
    let library = served.connect();
    let upload = library.begin(&target()).unwrap();
    let mut wrong = chunk(&[1; CHUNK]);
    wrong.hash = ContentHash::of(b"something else");
    let error = upload.put_chunks(vec![wrong.clone()]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ServerRefused {
                status: 400..=499,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(upload.states(&[wrong.hash]).unwrap(), [ChunkState::Missing]);
}

#[test]
fn a_server_that_is_lost_in_mid_upload_is_told_with_what_to_do_and_nothing_is_visible() {
    let mut served = Served::to_everybody();
    let library = served.connect();
    let upload = library.begin(&target()).unwrap();
    upload.put_chunks(vec![chunk(&[1; CHUNK])]).unwrap();
    let url = served.server.url();
    served.restart();
    let error = upload.put_chunks(vec![chunk(&[2; CHUNK])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the library at {url} was lost in the middle of an upload")
    );
    assert!(error.hint().unwrap().contains("run the same command again"));
    let again = served.connect();
    assert!(again.images().unwrap().is_empty());
    upload_image(&again);
    assert_eq!(again.images().unwrap().len(), 1);
}

#[test]
fn another_upload_of_the_same_server_takes_over() {
    let served = Served::to_everybody();
    let library = served.connect();
    let first = library.begin(&target()).unwrap();
    let second = library.begin(&target()).unwrap();
    let error = first.put_chunks(vec![chunk(&[1; CHUNK])]).unwrap_err();
    assert!(matches!(error, Error::UploadForgotten { .. }), "{error}");
    second.put_chunks(vec![chunk(&[1; CHUNK])]).unwrap();
}

/// Asks and gives the status; the body of every failure is JSON with a code.
fn status(request: RequestBuilder) -> u16 {
    let response = request.send().unwrap();
    let status = response.status();
    let text = response.text().unwrap();
    if !status.is_success() {
        let failure: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(failure["code"].is_string(), "{status}: {text}");
    }
    status.as_u16()
}

#[test]
fn hostile_requests_for_images_are_refused() {
    let served = Served::to_everybody();
    let image = upload_image(&served.connect());
    let client = client();
    let data = format!("/v1/images/{}/disks/0/data", image.id);
    let paths = [
        "/".to_owned(),
        "/v1/images/..".to_owned(),
        "/v1/images/%2e%2e%2flibrary.json".to_owned(),
        "/v1/images/not-an-id".to_owned(),
        "/v1/images/0192f0c1-2233-7aaa-8bbb-ccccddddeeee".to_owned(),
        format!("/v1/images/{}/disks/7/data", image.id),
        format!("/v1/images/{}/disks/-1/data", image.id),
        format!("/v1/images/{}/disks/0/extents", image.id),
        format!("/v1/images/{}/disks/0/extents?from=-1", image.id),
        format!("/v1/images/{}/files/%2e%2e%2fimage.json", image.id),
        format!("/v1/images/{}/files/%2fetc%2fpasswd", image.id),
        "/v1/servers/%2e%2e/hashes?disk=sda".to_owned(),
        "/v1/servers/web01/hashes".to_owned(),
    ];
    for path in &paths {
        let response = client.get(served.url(path)).send().unwrap();
        let status = response.status().as_u16();
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    for range in [
        "",
        "bytes=0-",
        "bytes=-5",
        "bytes=5-1",
        "bytes=a-b",
        "lines=1-2",
    ] {
        let request = client.get(served.url(&data)).header("range", range);
        assert_eq!(status(request), 400, "range {range:?}");
    }
    let past_end = client
        .get(served.url(&data))
        .header("range", "bytes=99999999-99999999");
    assert_eq!(status(past_end), 416);
    let huge = format!("bytes=0-{}", u64::MAX);
    let response = client
        .get(served.url(&data))
        .header("range", huge)
        .send()
        .unwrap();
    assert_eq!(response.status().as_u16(), 206);
    assert_eq!(response.bytes().unwrap().len(), disk_bytes().len());
    assert_eq!(status(client.delete(served.url("/v1/images"))), 400);
}

#[test]
fn hostile_uploads_are_refused_and_the_server_goes_on() {
    let served = Served::to_everybody();
    let client = client();
    let begin = |body: &str| {
        client
            .post(served.url("/v1/uploads"))
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    for body in ["", "{", "[]", r#"{"server":"../etc"}"#, r#"{"server":""}"#] {
        let response = begin(body).send().unwrap();
        assert!(
            response.status().is_client_error(),
            "{body}: {}",
            response.status()
        );
    }
    let opened: serde_json::Value = begin(r#"{"server":"web01"}"#)
        .send()
        .unwrap()
        .json()
        .unwrap();
    let upload = format!("/v1/uploads/{}", opened["upload"].as_str().unwrap());
    let post = |what: &str, body: Vec<u8>| {
        client
            .post(served.url(&format!("{upload}/{what}")))
            .body(body)
    };

    assert_eq!(status(post("states", vec![1; 33])), 400);
    assert_eq!(status(post("states", vec![0; 32])), 400);
    assert_eq!(status(post("states", vec![1; 65_537 * 32])), 413);
    assert_eq!(status(post("chunks", vec![1; 39])), 400);
    assert_eq!(status(post("chunks", vec![0xff; 4096])), 400);
    let mut good = ContentHash::of(&[1; CHUNK]).as_bytes().to_vec();
    let compressed = zstd::bulk::compress(&[1; CHUNK], 1).unwrap();
    good.extend_from_slice(&65_536_u32.to_le_bytes());
    good.extend_from_slice(&u32::try_from(compressed.len()).unwrap().to_le_bytes());
    good.extend_from_slice(&compressed);
    assert_eq!(status(post("chunks", good[..good.len() - 1].to_vec())), 400);
    // A frame that unpacks to more than it says.
    let mut bomb = good.clone();
    bomb[32..36].copy_from_slice(&16_u32.to_le_bytes());
    let refused = status(post("chunks", bomb));
    assert!((400..500).contains(&refused), "{refused}");
    assert_eq!(
        status(post("chunks", good.repeat((33 << 20) / good.len()))),
        413
    );
    assert_eq!(status(post("chunks", good)), 204);

    let disk = |query: &str, body: Vec<u8>| {
        client
            .put(served.url(&format!("{upload}/disks?{query}")))
            .body(body)
    };
    assert_eq!(
        status(disk("name=sda&size_bytes=0&sector_size=512", vec![])),
        400
    );
    assert_eq!(
        status(disk(
            "name=sda&size_bytes=65536&sector_size=512",
            vec![0; 31]
        )),
        400
    );
    assert_eq!(
        status(disk(
            "name=sda&size_bytes=65536&sector_size=512",
            vec![0; 64]
        )),
        413
    );
    let huge = format!("name=sda&size_bytes={}&sector_size=512", u64::MAX);
    assert_eq!(status(disk(&huge, vec![0; 32])), 400);
    let response = disk("name=sda&size_bytes=65536&sector_size=513", vec![0; 32])
        .send()
        .unwrap();
    assert_eq!(response.status().as_u16(), 400);
    let leaf = |number: &str, body: Vec<u8>| {
        let query = "name=sda&size_bytes=65536&sector_size=512";
        let address = served.url(&format!("{upload}/leaves/{number}?{query}"));
        status(client.put(address).body(body))
    };
    assert_eq!(leaf("0", vec![1; 31]), 400);
    assert_eq!(leaf("0", vec![1; 64]), 413);
    assert_eq!(leaf("1", vec![]), 422, "beyond the disk");
    assert_eq!(leaf("-1", vec![1; 32]), 400);
    let refused = leaf("0", vec![9; 32]);
    assert!(
        (400..500).contains(&refused),
        "a chunk nobody sent: {refused}"
    );
    // A disk that names a leaf nobody sent.
    let refused = status(disk(
        "name=sda&size_bytes=65536&sector_size=512",
        vec![9; 32],
    ));
    assert!((400..500).contains(&refused), "{refused}");

    for unknown in ["0192f0c1-2233-7aaa-8bbb-ccccddddeeee", "x", "%2e%2e"] {
        let url = served.url(&format!("/v1/uploads/{unknown}/chunks"));
        assert_eq!(status(client.post(url).body("")), 404, "{unknown}");
    }
    let nothing = client
        .post(served.url(&format!("{upload}/commit")))
        .json(&draft());
    let refused = status(nothing);
    assert!(
        (400..500).contains(&refused),
        "a commit without a disk: {refused}"
    );
    upload_image(&served.connect());
}

#[test]
fn a_client_that_breaks_off_in_mid_body_leaves_the_server_well() {
    let served = Served::to_everybody();
    let client = client();
    let request = client
        .post(served.url("/v1/uploads"))
        .header("content-type", "application/json")
        .body(r#"{"server":"web01"}"#);
    let opened: serde_json::Value = request.send().unwrap().json().unwrap();
    let upload = opened["upload"].as_str().unwrap();
    for head in [
        format!(
            "POST /v1/uploads/{upload}/chunks HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\nabc"
        ),
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /v1/images HTTP/1.1\r\nhost".to_owned(),
    ] {
        let mut stream = TcpStream::connect(served.server.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut answer = Vec::new();
        // Whatever it answers, if anything.
        let _ = stream.read_to_end(&mut answer);
    }
    upload_image(&served.connect());
}
