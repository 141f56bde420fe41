// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a disk: the same from the library itself, from its server, and from what the
//! server tells an agent.

use std::sync::Arc;

use super::{Site, agent, refusal};
use crate::access::{DiskHashes, ImageReader, ImageWriter};
use crate::client::{RemoteLibrary, ServerAccess};
use crate::error::Error;
use crate::id::{DiskIndex, ImageId};
use crate::protocol::HashPage;
use crate::tests::{all_hashes, sample_disk, store};
use crate::tokens::Grant;

const MISSING: &str = "0192f0c1-2233-7aaa-8bbb-ccccddddeeee";

/// A disk whose chunks fill one leaf and part of the next, nearly all of them zeros.
fn disk_of_two_leaves() -> Vec<u8> {
    let mut disk = vec![0; (2048 + 32) * 65_536 + 512];
    for offset in [0, 65_536 * 7, 65_536 * 2047, 65_536 * 2050] {
        disk[offset..offset + 50_000].copy_from_slice(&sample_disk(offset as u64, 50_000));
    }
    *disk.last_mut().unwrap() = 1;
    disk
}

fn connect(site: &Site, grant: Grant) -> RemoteLibrary {
    let access = ServerAccess::with_token(site.token(grant));
    RemoteLibrary::connect(&site.server.url(), &access).unwrap()
}

#[test]
fn a_library_its_server_and_what_an_agent_is_told_agree() {
    let site = Site::new();
    let image = store(&site.library, "web01", &disk_of_two_leaves());
    let local = site.library.disk_hashes(image.id, DiskIndex(0)).unwrap();
    let operator = connect(&site, Grant::Operator);
    let remote = operator.disk_hashes(image.id, DiskIndex(0)).unwrap();
    let agents = connect(&site, agent("web01"));
    let told = agents.latest_hashes(&image.server, "sda").unwrap().unwrap();

    assert_eq!(all_hashes(&*local).iter().flatten().count(), 5);
    for hashes in [&remote, &told] {
        assert_eq!(hashes.image(), image.id);
        assert_eq!(hashes.chunk_size_bytes(), 65_536);
        assert_eq!(hashes.chunk_count(), 2081);
        assert_eq!(all_hashes(&**hashes), all_hashes(&*local));
    }
    assert_eq!(local.chunk_size_bytes(), 65_536);
    // In any order, and beyond the end.
    let every: [&Arc<dyn DiskHashes>; 3] = [&local, &remote, &told];
    for hashes in every {
        assert_eq!(hashes.leaf(1).unwrap().len(), 33);
        assert_eq!(hashes.leaf(0).unwrap().len(), 2048);
        assert!(hashes.leaf(2).unwrap().is_empty());
        assert!(hashes.leaf(u64::MAX).unwrap().is_empty());
    }
}

#[test]
fn hashes_of_an_older_image_are_its_own() {
    let site = Site::new();
    let first = store(&site.library, "web01", &sample_disk(1, 300_000));
    let second = store(&site.library, "web01", &sample_disk(2, 300_000));
    let operator = connect(&site, Grant::Operator);
    let hashes = |id: ImageId| all_hashes(&*operator.disk_hashes(id, DiskIndex(0)).unwrap());
    assert_ne!(hashes(first.id), hashes(second.id));
    let local = site.library.disk_hashes(first.id, DiskIndex(0)).unwrap();
    assert_eq!(hashes(first.id), all_hashes(&*local));
}

#[test]
fn a_page_holds_as_many_leaves_as_were_asked_for() {
    let site = Site::new();
    let image = store(&site.library, "web01", &disk_of_two_leaves());
    let token = site.token(Grant::Operator);
    let page = |query: &str| {
        let path = format!("/v1/images/{}/disks/0/hashes?{query}", image.id);
        let answer = site.get(&path, &token);
        assert_eq!(answer.status().as_u16(), 200, "{query}");
        let page = HashPage::from_bytes(&answer.bytes().unwrap()).unwrap();
        assert_eq!((page.image, page.chunk_count), (image.id, 2081));
        page.hashes.len() / 32
    };
    assert_eq!(page("leaf=0"), 2081);
    assert_eq!(page("leaf=0&leaves=1"), 2048);
    assert_eq!(page("leaf=0&leaves=0"), 0);
    let all = format!("leaf=0&leaves={}", u64::MAX);
    assert_eq!(page(&all), 2081);
    assert_eq!(page("leaf=1&leaves=1"), 33);
    assert_eq!(page("leaf=2"), 0);
    assert_eq!(page(&format!("leaf={}", u64::MAX)), 0);
    for broken in ["", "leaf=-1", "leaf=x", "leaf=0&leaves=-1"] {
        let path = format!("/v1/images/{}/disks/0/hashes?{broken}", image.id);
        assert_eq!(site.get(&path, &token).status().as_u16(), 400, "{broken}");
    }
}

#[test]
fn hashes_of_what_is_not_there_are_an_error() {
    let site = Site::new();
    let image = store(&site.library, "web01", &sample_disk(1, 300_000));
    let operator = connect(&site, Grant::Operator);
    let missing: ImageId = MISSING.parse().unwrap();
    for (id, disk) in [(missing, 0), (image.id, 1), (image.id, u16::MAX)] {
        let local = site.library.disk_hashes(id, DiskIndex(disk)).unwrap_err();
        assert!(matches!(local, Error::NoSuchImage { .. }), "{local}");
        let remote = operator.disk_hashes(id, DiskIndex(disk)).unwrap_err();
        assert!(
            matches!(remote, Error::ServerRefused { status: 404, .. }),
            "{remote}"
        );
    }
}

#[test]
fn an_agent_is_not_told_the_hashes_of_images_not_even_its_own() {
    let site = Site::new();
    let own = store(&site.library, "web01", &sample_disk(1, 300_000));
    let other = store(&site.library, "db01", &sample_disk(2, 300_000));
    let token = site.token(agent("web01"));
    for id in [own.id, other.id, MISSING.parse().unwrap()] {
        let path = format!("/v1/images/{id}/disks/0/hashes?leaf=0");
        let refused = refusal(site.get(&path, &token));
        assert_eq!(refused, (403, "forbidden".to_owned()));
    }
    let agents = connect(&site, agent("web01"));
    assert!(agents.disk_hashes(other.id, DiskIndex(0)).is_err());
    assert!(agents.latest_hashes(&other.server, "sda").is_err());
}
