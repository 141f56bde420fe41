// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile packs: whatever the bytes are, reading ends in an error, not in a panic or in wrong
//! bytes.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::{BlobKind, HEADER_LENGTH, OpenPack, PackId, PackOrigin, PackWriter};
use crate::chunk::CheckedChunk;
use crate::crypto::{Cipher, LibraryKey, OwnerTag};
use crate::store::{Directory, Store, StoredObject};
use crate::surroundings::{Machine, Surroundings};

const LIBRARY: [u8; 16] = [9; 16];

fn key() -> LibraryKey {
    LibraryKey::from_secret([3; 32])
}

/// A small pack with three blobs.
fn pack_bytes(directory: &Path) -> Vec<u8> {
    let path = directory.join("part");
    let origin = PackOrigin {
        cipher: Cipher::Aes256Gcm,
        library: LIBRARY,
        owner: OwnerTag([5; 16]),
    };
    let machine: Arc<dyn Surroundings> = Arc::new(Machine);
    let mut writer = PackWriter::create(&path, &key(), origin, &machine).expect("creates");
    let blobs = [vec![1; 5000], b"short".to_vec(), vec![7; 64]];
    for (plain, kind) in blobs
        .into_iter()
        .zip([BlobKind::Data, BlobKind::Leaf, BlobKind::Root])
    {
        let chunk = CheckedChunk::of(plain).expect("compresses");
        let id = key().chunk_id(&chunk.hash);
        writer.append(id, kind, &chunk).expect("appends");
    }
    writer.finish().expect("finishes");
    std::fs::read(&path).expect("reads")
}

fn object(path: &Path) -> Box<dyn StoredObject> {
    let directory = Directory::new(path.parent().expect("has a parent"));
    let name = path.file_name().and_then(|name| name.to_str());
    let object = directory.open(name.expect("is UTF-8")).expect("opens");
    object.expect("is there")
}

/// Reads everything that can be read; every blob given out has its hash.
fn read_all(directory: &Path, bytes: &[u8]) -> usize {
    let path = directory.join("hostile");
    std::fs::write(&path, bytes).expect("writes");
    let id = PackId::from_bytes([0; 32]);
    let Ok(pack) = OpenPack::open(object(&path), id, &key(), LIBRARY) else {
        return 0;
    };
    let _ = pack.scan(&key());
    let Ok(footer) = pack.footer() else { return 0 };
    let mut whole = 0;
    for entry in footer.entries {
        let mut record = vec![0; entry.extent.length as usize];
        let mut plain = vec![0; entry.extent.plain_length as usize];
        if pack
            .read_raw(u64::from(entry.extent.offset), &mut record)
            .is_err()
        {
            continue;
        }
        let opened = pack.open_record(&key(), &entry.id, &entry.extent, &mut record, &mut plain);
        if opened.is_ok() {
            let hash = crate::ContentHash::of(&plain);
            assert_eq!(key().chunk_id(&hash), entry.id);
            whole += 1;
        }
    }
    whole
}

#[test]
fn a_whole_pack_gives_all_its_blobs_and_can_be_scanned() {
    let directory = tempfile::tempdir().expect("tempdir");
    let bytes = pack_bytes(directory.path());
    assert_eq!(read_all(directory.path(), &bytes), 3);
    let path = directory.path().join("hostile");
    let id = PackId::from_bytes(*blake3::hash(&bytes).as_bytes());
    let pack = OpenPack::open(object(&path), id, &key(), LIBRARY).expect("opens");
    let footer = pack.footer().expect("is whole");
    assert_eq!(footer.owner, OwnerTag([5; 16]));
    assert_eq!(pack.scan(&key()).expect("scans"), footer.entries);
}

#[test]
fn a_pack_of_zeros_is_no_pack() {
    let directory = tempfile::tempdir().expect("tempdir");
    assert_eq!(read_all(directory.path(), &[0; 4096]), 0);
}

#[test]
fn a_pack_of_another_library_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    pack_bytes(directory.path());
    let path = directory.path().join("part");
    let id = PackId::from_bytes([0; 32]);
    let error = OpenPack::open(object(&path), id, &key(), [8; 16]).expect_err("is another's");
    assert!(error.to_string().contains("this library's id"), "{error}");
}

/// One way to spoil a pack.
#[derive(Debug, Clone)]
enum Spoil {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Extend(Vec<u8>),
    Overwrite(prop::sample::Index, Vec<u8>),
    Everything(Vec<u8>),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let some = || prop::collection::vec(any::<u8>(), 1..200);
    prop_oneof![
        (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, mask)| Spoil::Flip(at, mask)),
        any::<prop::sample::Index>().prop_map(Spoil::Cut),
        some().prop_map(Spoil::Extend),
        (any::<prop::sample::Index>(), some()).prop_map(|(at, with)| Spoil::Overwrite(at, with)),
        (Just(()), prop::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|((), bytes)| Spoil::Everything(bytes)),
    ]
}

proptest! {
    #![proptest_config(prop::test_runner::Config::with_cases(200))]
    #[test]
    fn spoiled_packs_are_errors(spoils in prop::collection::vec(spoil(), 1..4)) {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut bytes = pack_bytes(directory.path());
        for spoil in &spoils {
            match spoil {
                Spoil::Flip(at, mask) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= mask;
                }
                Spoil::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
                Spoil::Extend(with) => bytes.extend_from_slice(with),
                Spoil::Overwrite(at, with) if bytes.len() > HEADER_LENGTH => {
                    let at = at.index(bytes.len());
                    let end = (at + with.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&with[..end - at]);
                }
                Spoil::Everything(with) => bytes.clone_from(with),
                Spoil::Flip(..) | Spoil::Overwrite(..) => {}
            }
        }
        read_all(directory.path(), &bytes);
    }
}
