// SPDX-License-Identifier: MIT OR Apache-2.0
//! The damage matrix: what is damaged, how, and what happens to readers, `verify` and uploads.
//!
//! In every cell: bytes that are given out are right; what cannot be given out is an error that
//! says where; and after `verify` the next upload of a server that still has its disk heals it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{ReadAt, Silent};
use jiff::Timestamp;
use object_store::memory::InMemory;
use rstest::rstest;

use super::{TestLibrary, begin, draft, put_all, put_disk, sample_disk, store};
use crate::local::write_new;
use crate::pack::BlobKind;
use crate::store::{Bucket, Workspace, list_packs, names};
use crate::{DiskIndex, Image, ImageReader, InitOptions, KeyAccess, LocalLibrary};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    FlipBit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    PackHeader,
    Chunk,
    ChunkLength,
    Leaf,
    Root,
    PackFooter,
    PackTrailer,
    ImageDocument,
    IndexBlock,
    IndexFooter,
    SideFile,
}

/// A library with one image whose manifest stands in a pack of its own.
fn library_with_image(disk: &[u8]) -> (TestLibrary, Image) {
    let test = TestLibrary::new();
    let upload = test.begin("web");
    let hashes = put_all(&test.library, &*upload, disk);
    drop(upload);
    let upload = test.begin("web");
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts");
    let image = upload.commit(&draft()).expect("commits");
    let side = test
        .library
        .put_side_file(image.id, "readiness.json", b"{}");
    side.expect("writes");
    (test, image)
}

fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The pack that holds a blob of this kind, and the first such blob.
fn blob(library: &LocalLibrary, kind: BlobKind) -> (PathBuf, crate::pack::Extent) {
    let core = library.core();
    for listed in list_packs(&*core.store).expect("lists") {
        let path = PathBuf::from(core.store.place(&names::pack(&listed.id)));
        let pack = core.open_pack(listed.id).expect("opens");
        let footer = pack.footer().expect("is whole");
        if let Some(entry) = footer.entries.iter().find(|entry| entry.kind == kind) {
            return (path, entry.extent);
        }
    }
    panic!("no blob of kind {kind:?}");
}

/// The file and the byte to be damaged.
fn locate(test: &TestLibrary, place: Place) -> (PathBuf, usize) {
    let root = test.directory.path();
    let middle = |extent: crate::pack::Extent| extent.offset as usize + extent.length as usize / 2;
    let of = |kind| {
        let (path, extent) = blob(&test.library, kind);
        (path, middle(extent))
    };
    let from_end = |path: PathBuf, bytes: usize| {
        let length = fs::metadata(&path).expect("is there").len() as usize;
        (path, length - bytes)
    };
    match place {
        Place::PackHeader => (of(BlobKind::Data).0, 20),
        Place::Chunk => of(BlobKind::Data),
        Place::ChunkLength => (of(BlobKind::Data).0, 64),
        Place::Leaf => of(BlobKind::Leaf),
        Place::Root => of(BlobKind::Root),
        Place::PackFooter => from_end(of(BlobKind::Data).0, 40),
        Place::PackTrailer => from_end(of(BlobKind::Data).0, 1),
        Place::ImageDocument => (files(&root.join("images"), ".image")[0].clone(), 100),
        Place::IndexBlock => (files(&root.join("index"), ".run")[0].clone(), 10),
        Place::IndexFooter => from_end(files(&root.join("index"), ".run")[0].clone(), 1),
        Place::SideFile => (files(&root.join("side"), ".json")[0].clone(), 70),
    }
}

fn inflict(damage: Damage, path: &Path, at: usize) {
    match damage {
        Damage::Delete => fs::remove_file(path).expect("removes"),
        Damage::Truncate => {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("opens");
            file.set_len(at as u64).expect("cuts");
        }
        Damage::FlipBit => {
            let mut bytes = fs::read(path).expect("reads");
            bytes[at] ^= 0x10;
            fs::write(path, bytes).expect("writes");
        }
    }
}

/// The disk as it reads, or why it does not.
fn read(library: &LocalLibrary, image: &Image) -> Result<Vec<u8>, String> {
    let report = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    };
    let device: Arc<dyn ReadAt> = library
        .open_disk(image.id, DiskIndex(0))
        .map_err(|error| report(&error))?;
    let mut bytes = vec![0xee; device.length_bytes() as usize];
    device
        .read_exact_at(0, &mut bytes)
        .map_err(|error| report(&error))?;
    Ok(bytes)
}

#[rstest]
fn damage_is_told_never_given_out_and_healed(
    #[values(Damage::Delete, Damage::Truncate, Damage::FlipBit)] damage: Damage,
    #[values(
        Place::PackHeader,
        Place::Chunk,
        Place::ChunkLength,
        Place::Leaf,
        Place::Root,
        Place::PackFooter,
        Place::PackTrailer,
        Place::ImageDocument,
        Place::IndexBlock,
        Place::IndexFooter,
        Place::SideFile
    )]
    place: Place,
    #[values(false, true)] without_index: bool,
) {
    let disk = sample_disk(1, 400_000);
    let (test, image) = library_with_image(&disk);
    let (path, at) = locate(&test, place);
    inflict(damage, &path, at);
    if without_index {
        fs::remove_dir_all(test.directory.path().join("index")).expect("removes");
    }
    let library = LocalLibrary::open(test.directory.path()).expect("opens");

    // Reading: the right bytes, or an error that names what is lost.
    let is_cache = matches!(
        place,
        Place::IndexBlock | Place::IndexFooter | Place::SideFile
    );
    match read(&library, &image) {
        Ok(bytes) => assert!(bytes == disk, "wrong bytes were given out"),
        Err(error) => {
            assert!(!is_cache, "a cache is no reason: {error}");
            assert!(error.contains(&image.id.to_string()), "{error}");
        }
    }

    // Verify: finds it, unless there is nothing left to be found.
    let report = library.verify(&Silent).expect("checks");
    let leaves_no_trace =
        damage == Damage::Delete && matches!(place, Place::ImageDocument | Place::SideFile);
    let is_index = matches!(place, Place::IndexBlock | Place::IndexFooter);
    assert_eq!(report.is_sound(), leaves_no_trace || is_index, "{report:?}");

    // Upload: the server still has its disk. Another program takes it than the one that verified.
    let another = LocalLibrary::open(test.directory.path()).expect("opens");
    let healed = store(&another, "web", &disk);
    for library in [&library, &another] {
        assert_eq!(read(library, &healed).expect("reads"), disk);
    }
    let later = LocalLibrary::open(test.directory.path()).expect("opens");
    assert_eq!(read(&later, &healed).expect("reads"), disk);
}

#[test]
fn a_lost_chunk_is_named_with_pack_image_disk_and_byte() {
    let disk = sample_disk(2, 400_000);
    let (test, image) = library_with_image(&disk);
    let (path, at) = locate(&test, Place::Chunk);
    inflict(Damage::FlipBit, &path, at);
    let library = LocalLibrary::open(test.directory.path()).expect("opens");
    let error = read(&library, &image).expect_err("is damaged");
    let pack = path.file_stem().expect("has one").to_string_lossy();
    let expected = format!(
        "read 400000 bytes at byte 0x0: image {}, disk \"sda\": the chunk at byte 0x0 is lost: \
         chunk in pack {pack} at byte 0x40: chunk ",
        image.id
    );
    assert!(error.starts_with(&expected), "{error}");
    let report = library.verify(&Silent).expect("checks");
    let found: Vec<(&str, &str)> = report
        .findings
        .iter()
        .map(|finding| (finding.code.as_str(), finding.place.as_str()))
        .collect();
    let lost = format!("image {}, disk \"sda\", bytes 0x0 to 0x4000", image.id);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], ("library.pack.damaged", &*format!("pack {pack}")));
    assert_eq!(found[1].0, "library.chunk.damaged");
    assert_eq!(found[2], ("library.image.lost", &*lost));
    assert_eq!(report.damaged_images, [image.id.to_string()]);
    // The rest of the disk is as it was.
    let device = library.open_disk(image.id, DiskIndex(0)).expect("opens");
    let mut rest = vec![0; disk.len() - 16384];
    device.read_exact_at(16384, &mut rest).expect("reads");
    assert_eq!(rest, disk[16384..]);
}

#[test]
fn a_pack_without_its_footer_is_read_from_the_front() {
    let disk = sample_disk(3, 400_000);
    let (test, image) = library_with_image(&disk);
    let (path, at) = locate(&test, Place::PackFooter);
    inflict(Damage::Truncate, &path, at);
    fs::remove_dir_all(test.directory.path().join("index")).expect("removes");
    let library = LocalLibrary::open(test.directory.path()).expect("opens");
    assert_eq!(read(&library, &image).expect("reads"), disk);
}

#[test]
fn half_files_of_a_killed_program_do_no_harm() {
    let disk = sample_disk(4, 400_000);
    let (test, image) = library_with_image(&disk);
    let root = test.directory.path();
    let dead = root
        .join("uploads")
        .join(format!("{}.dead", "0".repeat(32)));
    fs::create_dir(&dead).expect("creates");
    fs::write(dead.join("0.pack-part"), b"RLVPACK1 half").expect("writes");
    fs::write(root.join("tmp/half"), b"half").expect("writes");
    fs::write(root.join("index/half.tmp"), b"half").expect("writes");
    fs::write(root.join("index/empty.run"), b"").expect("writes");
    fs::write(root.join("packs/notes.txt"), b"not ours").expect("writes");
    let library = LocalLibrary::open(root).expect("opens");
    assert_eq!(read(&library, &image).expect("reads"), disk);
    assert!(library.verify(&Silent).expect("checks").is_sound());
    let upload = begin(&library, "web");
    drop(upload);
}

#[test]
fn a_lost_or_wrong_key_is_one_clear_error() {
    let disk = sample_disk(5, 100_000);
    let (test, _) = library_with_image(&disk);
    let (other, _) = library_with_image(&disk);
    let key = test.directory.path().join("keys/library.key");
    let kept = fs::read(&key).expect("reads");
    fs::copy(other.directory.path().join("keys/library.key"), &key).expect("copies");
    let error = LocalLibrary::open(test.directory.path()).expect_err("wrong key");
    assert!(matches!(error, crate::Error::WrongKey { .. }), "{error}");
    fs::remove_file(&key).expect("removes");
    let error = LocalLibrary::open(test.directory.path()).expect_err("no key");
    assert!(matches!(error, crate::Error::KeyMissing { .. }), "{error}");
    fs::write(&key, kept).expect("writes");
    LocalLibrary::open(test.directory.path()).expect("opens again");
}

#[test]
fn what_is_no_library_is_told_apart() {
    let empty = tempfile::tempdir().expect("tempdir");
    let error = LocalLibrary::open(empty.path()).expect_err("is empty");
    assert!(matches!(error, crate::Error::NotALibrary { .. }), "{error}");
    let config = empty.path().join("library.json");
    fs::write(&config, b"{\"format\":\"other\",\"version\":1}").expect("writes");
    let error = LocalLibrary::open(empty.path()).expect_err("is another");
    assert!(matches!(error, crate::Error::NotALibrary { .. }), "{error}");
    let later = b"{\"format\":\"relevo image library\",\"version\":2}";
    fs::write(&config, later).expect("writes");
    let error = LocalLibrary::open(empty.path()).expect_err("is newer");
    assert!(matches!(error, crate::Error::Unsupported { .. }), "{error}");
    let error = LocalLibrary::init(empty.path(), &crate::InitOptions::default());
    let error = error.expect_err("is not empty");
    assert!(matches!(error, crate::Error::NotEmpty { .. }), "{error}");
}

#[test]
fn an_image_document_cannot_stand_in_anothers_place() {
    let disk = sample_disk(6, 100_000);
    let (test, first) = library_with_image(&disk);
    let second = test.store("web", &disk);
    let core = test.library.core();
    let path = |id| core.store.place(&names::image(id));
    fs::copy(path(first.id), path(second.id)).expect("copies");
    let error = test.library.image(second.id).expect_err("is forged");
    assert!(error.to_string().contains("its tag is wrong"), "{error}");
    let names: Vec<_> = test.library.images().expect("lists");
    assert_eq!(names, vec![first]);
}

#[test]
fn an_upload_that_could_not_store_something_is_never_committed() {
    let disk = sample_disk(7, 400_000);
    let test = TestLibrary::new();
    let upload = test.begin("web");
    let hashes = put_all(&test.library, &*upload, &disk);
    // The pack cannot be named any more.
    fs::remove_dir_all(test.directory.path().join("packs")).expect("removes");
    fs::write(test.directory.path().join("packs"), b"in the way").expect("writes");
    let size = disk.len() as u64;
    put_disk(&*upload, "sda", size, &hashes).expect("is in memory");
    assert!(upload.commit(&draft()).is_err());
    assert_eq!(test.library.images().expect("lists"), vec![]);
}

#[test]
fn a_full_disk_of_an_agent_is_told_and_leaves_no_half_image_in_the_bucket() {
    let client = Arc::new(InMemory::new());
    let options = InitOptions::default();
    write_new(&Bucket::in_memory(&client), &options, None, None).expect("creates");
    let directory = tempfile::tempdir().expect("a directory");
    let workspace = Workspace::new(directory.path());
    workspace.create().expect("creates");
    let uploads = workspace.uploads();
    let store = Arc::new(Bucket::in_memory(&client));
    let key = KeyAccess::default();
    let library = LocalLibrary::over(store, workspace, &key, Timestamp::now).expect("opens");
    let disk = sample_disk(8, 400_000);

    let upload = begin(&library, "web");
    let session = fs::read_dir(uploads).expect("lists").next();
    let pack = session.expect("is there").expect("lists").path();
    symlink("/dev/full", pack.join("0.pack-part")).expect("links");
    let hashes = put_all(&library, &*upload, &disk);
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("is in memory");
    let error = upload.commit(&draft()).expect_err("is full");
    assert!(error.to_string().contains("0.pack-part"), "{error}");
    let hint = error.hint().expect("has one");
    assert!(hint.starts_with("make room on that filesystem"), "{hint}");
    assert_eq!(library.images().expect("lists"), vec![]);

    let image = super::store(&library, "web", &disk);
    assert_eq!(read(&library, &image).expect("reads"), disk);
    assert!(library.verify(&Silent).expect("verifies").is_sound());
}
