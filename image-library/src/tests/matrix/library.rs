// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library of the damage matrix: every kind of file is in it, and each can be damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use disk::Silent;
use tempfile::TempDir;

use super::{AT_ONCE, SIDE};
use crate::index::{Adopted, Index, PackRecord};
use crate::pack::{Extent, PackId};
use crate::tests::{TestLibrary, begin, noise, put_all, sample_disk};
use crate::{Image, ImageId, ImageReader};

/// A library in which every kind of file is, twice, and what is in it.
pub(super) struct Template {
    test: TestLibrary,
    pub(super) images: Vec<(Image, Vec<u8>)>,
    /// The disk of the server `web`, as it is now.
    pub(super) web: Vec<u8>,
    /// The file of each place, and another of its kind.
    files: BTreeMap<&'static str, (PathBuf, PathBuf)>,
    _other: TestLibrary,
}

impl Template {
    pub(super) fn new() -> Self {
        let test = TestLibrary::new();
        let library = &test.library;
        // A floor, then a list of condemned packs.
        for seed in [90, 91] {
            let old = test.store("old", &noise(seed, 100_000));
            library.delete_image(old.id).expect("deletes");
            library.prune(&AT_ONCE, &Silent).expect("condemns");
            if seed == 90 {
                library.prune(&AT_ONCE, &Silent).expect("removes");
            }
        }
        let web = sample_disk(1, 300_000);
        let db = sample_disk(2, 200_000);
        let mut images = Vec::new();
        for (server, disk) in [("web", &web), ("db", &db)] {
            let image = test.store(server, disk);
            library
                .put_side_file(image.id, SIDE, server.as_bytes())
                .expect("puts");
            images.push((image, disk.clone()));
        }
        for seed in [3, 4] {
            let deleted = test.store("gone", &sample_disk(seed, 100_000));
            library.delete_image(deleted.id).expect("deletes");
        }
        interrupt_upload(&test);
        let other = TestLibrary::new();
        other.store("other", &noise(99, 100_000));
        let files = files(&test, &images, other.directory.path());
        Self {
            test,
            images,
            web,
            files,
            _other: other,
        }
    }

    /// A copy of the library in which one file is damaged.
    pub(super) fn damaged(&self, place: &'static str, damage: &str) -> TempDir {
        let copy = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let copy = copy.expect("a directory can be made");
        let root = copy.path().join("library");
        copy_tree(self.test.directory.path(), &root);
        let (file, other) = &self.files[place];
        let inside = file.strip_prefix(self.test.directory.path());
        inflict(place, damage, &root.join(inside.expect("is inside")), other);
        copy
    }
}

/// Leaves what an upload leaves that is killed: half a pack, and a set of what it proved.
fn interrupt_upload(test: &TestLibrary) {
    let upload = begin(&test.library, "web");
    put_all(&test.library, &*upload, &noise(7, 50_000));
    drop(upload);
    let uploads = below(&test.directory.path().join("uploads"));
    let log = uploads.iter().find(|path| path.ends_with("packs"));
    let session = log.and_then(|log| log.parent()).expect("is left");
    fs::write(session.join("0.pack-part"), noise(8, 70_000)).expect("writes");
    fs::write(session.join("1.pack-part"), noise(9, 70_000)).expect("writes");
    let set = Index::open(&session.join("proved"), 1).expect("opens");
    set.add(&Adopted {
        record: PackRecord {
            id: PackId::from_bytes([0; 32]),
            length: 0,
            owner: crate::crypto::OwnerTag([0; 16]),
        },
        entries: vec![(
            crate::chunk::ChunkId::from_bytes([7; 32]),
            Extent {
                offset: 0,
                length: 0,
                plain_length: 0,
            },
        )],
    })
    .expect("adds");
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_tree(from: &Path, to: &Path) {
    for file in below(from) {
        let target = to.join(file.strip_prefix(from).expect("is below"));
        fs::create_dir_all(target.parent().expect("has one")).expect("creates");
        fs::copy(file, target).expect("copies");
    }
    for name in ["tmp", "uploads", "locks"] {
        fs::create_dir_all(to.join(name)).expect("creates");
    }
}

fn files(
    test: &TestLibrary,
    images: &[(Image, Vec<u8>)],
    other: &Path,
) -> BTreeMap<&'static str, (PathBuf, PathBuf)> {
    let root = test.directory.path();
    let core = test.library.core();
    let all = below(root);
    let with = |part: &str, ending: &str| {
        let fits = |path: &&PathBuf| {
            let text = path.to_string_lossy();
            text.contains(part) && text.ends_with(ending)
        };
        all.iter().filter(fits).cloned().collect::<Vec<_>>()
    };
    let two = |found: Vec<PathBuf>| (found[0].clone(), found[1].clone());
    // The pack in which the chunks of `web` stand.
    let hash = crate::ContentHash::of(&images[0].1[..16 << 10]);
    let location = core.find(&core.key.chunk_id(&hash)).expect("looks");
    let pack = crate::store::names::pack(&location.expect("is there").pack);
    let another = with("/packs/", ".pack");
    let another = another.iter().find(|path| !path.ends_with(&pack));
    let pack = (root.join(&pack), another.expect("there are two").clone());
    let of_image = |id: ImageId| root.join(format!("images/{id}.image"));
    let of_side = |id: ImageId| root.join(format!("side/{id}/{SIDE}"));
    let (web, db) = (images[0].0.id, images[1].0.id);
    let records = (with("/prune/", "floor"), with("/prune/condemned-", ""));
    let run_of_other = below(&other.join("index"))
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(".run"));
    let run_of_other = run_of_other.expect("has an index");
    BTreeMap::from([
        (
            "library.json",
            (root.join("library.json"), other.join("library.json")),
        ),
        (
            "key",
            (
                root.join("keys/library.key"),
                other.join("keys/library.key"),
            ),
        ),
        ("pack header", pack.clone()),
        ("pack record", pack.clone()),
        ("pack footer", pack.clone()),
        ("pack trailer", pack),
        ("image", (of_image(web), of_image(db))),
        ("side file", (of_side(web), of_side(db))),
        ("trash", two(with("/trash/", ".image"))),
        ("floor", (records.0[0].clone(), records.1[0].clone())),
        ("condemned", (records.1[0].clone(), records.0[0].clone())),
        (
            "index run",
            (with("/index/", ".run")[0].clone(), run_of_other.clone()),
        ),
        ("upload pack", two(with("/uploads/", ".pack-part"))),
        (
            "upload set",
            (with("/proved/", ".run")[0].clone(), run_of_other),
        ),
    ])
}

/// Where in a file the damage begins, and how many bytes it has.
fn part(place: &str, length: usize) -> (usize, usize) {
    match place {
        "pack header" => (16, 32),
        "pack record" => (5000, 200),
        "pack footer" => (length - 100, 60),
        "pack trailer" => (length - 16, 16),
        _ => (length / 2, length / 3),
    }
}

fn inflict(place: &str, damage: &str, file: &Path, other: &Path) {
    let mut bytes = fs::read(file).expect("reads");
    let (at, count) = part(place, bytes.len());
    match damage {
        "truncated" => bytes.truncate(at),
        "emptied" => bytes.clear(),
        "flipped" => bytes[at] ^= 0x10,
        "zeroed" => bytes[at..at + count].fill(0),
        "replaced" => bytes = fs::read(other).expect("reads"),
        "removed" => return fs::remove_file(file).expect("removes"),
        _ => {
            let above = file.parent().and_then(Path::parent).expect("has one");
            let name = file.file_name().expect("has one");
            return fs::rename(file, above.join(name)).expect("renames");
        }
    }
    fs::write(file, bytes).expect("writes");
}
