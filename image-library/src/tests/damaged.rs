// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small library, and damage to it.

use std::fs;
use std::path::{Path, PathBuf};

use disk::Silent;

use super::{TestLibrary, draft, noise, put_all, put_disk};
use crate::pack::{BlobKind, PackId};
use crate::store::{list_packs, names};
use crate::{Image, LocalLibrary};

/// Chunks of this many bytes.
pub(crate) const CHUNK: usize = 16 << 10;

/// An image whose chunks stand in one pack and whose manifest stands in another.
pub(crate) fn library_with_image() -> (TestLibrary, Image, Vec<u8>) {
    let test = TestLibrary::new();
    let disk = noise(1, 20 * CHUNK);
    let upload = test.begin("web");
    let hashes = put_all(&test.library, &*upload, &disk);
    drop(upload);
    let upload = test.begin("web");
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts");
    let image = upload.commit(&draft()).expect("commits");
    (test, image, disk)
}

/// The library as another program has it open, which has met no damage yet.
pub(crate) fn another(test: &TestLibrary) -> LocalLibrary {
    LocalLibrary::open(test.directory.path()).expect("opens")
}

/// The pack with the first blob of this kind, and the middle of that blob.
pub(crate) fn blob(library: &LocalLibrary, kind: BlobKind) -> (PackId, PathBuf, usize) {
    let core = library.core();
    for listed in list_packs(&*core.store).expect("lists") {
        let footer = core.open_pack(listed.id).and_then(|pack| pack.footer());
        let footer = footer.expect("is whole");
        if let Some(entry) = footer.entries.iter().find(|entry| entry.kind == kind) {
            let path = core.store.place(&names::pack(&listed.id)).into();
            let middle = entry.extent.offset + entry.extent.length / 2;
            return (listed.id, path, middle as usize);
        }
    }
    panic!("no blob of kind {kind:?}");
}

pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("writes");
}

pub(crate) fn damage(library: &LocalLibrary, kind: BlobKind) -> PackId {
    let (pack, path, at) = blob(library, kind);
    flip(&path, at);
    pack
}

pub(crate) fn verify(library: &LocalLibrary) -> bool {
    library.verify(&Silent).expect("verifies").is_sound()
}
