// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index against a plain map, and against damage.

use std::collections::BTreeMap;

use super::{Adopted, Index, PackRecord};
use crate::chunk::ChunkId;
use crate::crypto::OwnerTag;
use crate::error::Result;
use crate::pack::{Extent, PackId};
use crate::store::ListedPack;

fn id(number: u64) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn extent(offset: u32) -> Extent {
    Extent {
        offset,
        length: 100,
        plain_length: 65536,
    }
}

fn pack(number: u8, chunks: std::ops::Range<u64>) -> Adopted {
    let entry = |n: u64| (id(n), extent(64 + (n as u32) * 100));
    Adopted {
        record: PackRecord {
            id: PackId::from_bytes([number; 32]),
            length: 1000,
            owner: OwnerTag([number; 16]),
        },
        entries: chunks.map(entry).collect(),
    }
}

fn listed(packs: &[u8]) -> Vec<ListedPack> {
    let list = |number: &u8| ListedPack {
        id: PackId::from_bytes([*number; 32]),
        length: 1000,
    };
    packs.iter().map(list).collect()
}

fn never(_: &[ListedPack]) -> Vec<Result<Adopted>> {
    panic!("no footer needs to be read");
}

#[test]
fn entries_are_found_in_memory_in_runs_and_after_merges() {
    let directory = tempfile::tempdir().expect("tempdir");
    let index = Index::open(directory.path(), 300).expect("opens");
    let mut expected = BTreeMap::new();
    for number in 0..60_u8 {
        let first = u64::from(number) * 97;
        index.add(&pack(number, first..first + 97)).expect("adds");
        expected.extend((first..first + 97).map(|n| (n, number)));
    }
    assert!(index.read().runs.len() <= 9, "merged");
    for (&n, &number) in &expected {
        let location = index.find(&id(n)).expect("reads").expect("is there");
        assert_eq!(location.pack, PackId::from_bytes([number; 32]));
        assert_eq!(location.extent, extent(64 + n as u32 * 100));
    }
    assert_eq!(index.find(&id(1_000_000)).expect("reads"), None);
}

#[test]
fn a_second_process_sees_what_the_first_wrote() {
    let directory = tempfile::tempdir().expect("tempdir");
    let first = Index::open(directory.path(), 10).expect("opens");
    let second = Index::open(directory.path(), 10).expect("opens");
    first.add(&pack(1, 0..50)).expect("adds");
    assert_eq!(second.find(&id(7)).expect("reads"), None);
    second.sync(&listed(&[1]), &never).expect("syncs");
    assert!(second.find(&id(7)).expect("reads").is_some());
}

#[test]
fn chunks_of_a_vanished_pack_are_not_found_and_come_back_with_it() {
    let directory = tempfile::tempdir().expect("tempdir");
    let index = Index::open(directory.path(), 10).expect("opens");
    index.add(&pack(1, 0..50)).expect("adds");
    index.add(&pack(2, 40..60)).expect("adds");
    assert_eq!(index.find_all(&id(45)).expect("reads").len(), 2);
    index.sync(&listed(&[2]), &never).expect("syncs");
    assert_eq!(index.find(&id(7)).expect("reads"), None);
    assert_eq!(index.find_all(&id(45)).expect("reads").len(), 1);
    index.sync(&listed(&[1, 2]), &never).expect("syncs");
    assert!(index.find(&id(7)).expect("reads").is_some());
}

#[test]
fn a_damaged_run_is_discarded_and_made_again() {
    let directory = tempfile::tempdir().expect("tempdir");
    let index = Index::open(directory.path(), 10).expect("opens");
    index.add(&pack(1, 0..50)).expect("adds");
    drop(index);
    let run = std::fs::read_dir(directory.path())
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .find(|path| path.extension().is_some_and(|e| e == "run"))
        .expect("a run was written");
    let mut bytes = std::fs::read(&run).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&run, &bytes).expect("writes");
    let index = Index::open(directory.path(), 10).expect("opens");
    assert!(!run.exists());
    let adopt = |_: &[ListedPack]| vec![Ok(pack(1, 0..50))];
    index.sync(&listed(&[1]), &adopt).expect("syncs");
    assert!(index.find(&id(7)).expect("reads").is_some());
}

#[test]
fn a_damaged_block_is_an_error_not_a_wrong_answer() {
    let directory = tempfile::tempdir().expect("tempdir");
    let index = Index::open(directory.path(), 10).expect("opens");
    index.add(&pack(1, 0..50)).expect("adds");
    let run = index.read().runs[0].path().to_owned();
    let mut bytes = std::fs::read(&run).expect("reads");
    bytes[100] ^= 1;
    std::fs::write(&run, &bytes).expect("writes");
    assert!(index.find(&id(7)).is_err());
    index.discard().expect("removes");
    let adopt = |_: &[ListedPack]| vec![Ok(pack(1, 0..50))];
    index.sync(&listed(&[1]), &adopt).expect("syncs");
    assert!(index.find(&id(7)).expect("reads").is_some());
}

#[test]
fn a_pack_that_was_removed_since_it_was_listed_is_passed_over() {
    let directory = tempfile::tempdir().expect("tempdir");
    let index = Index::open(directory.path(), 10).expect("opens");
    let listed = ListedPack {
        id: PackId::from_bytes([3; 32]),
        length: 1,
    };
    let gone = |_: &[ListedPack]| {
        vec![Err(crate::Error::PackMissing {
            place: "packs/03".to_owned(),
        })]
    };
    index.sync(&[listed], &gone).expect("passes it over");
    assert_eq!(
        index.find(&ChunkId::from_bytes([1; 32])).expect("asks"),
        None
    );
}
