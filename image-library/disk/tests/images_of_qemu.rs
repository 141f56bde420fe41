// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that QEMU's tools made are read as QEMU reads them, and ours are sound to QEMU.

mod outside;
#[path = "outside/testdata.rs"]
mod testdata;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use disk::block::{
    Backing, BackingFiles, DiskFile, OpenOptions, Overlay, OverlayOptions, copy_to_qcow2,
    create_empty_qcow2, open_disk,
};
use disk::block::{ExtentKind, WritableDiskFile};
use disk::{Error, ReadAt, Silent, WriteAt};
use outside::{have, run};
use rstest::rstest;
use testdata::testdata;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Bytes that do not compress, another for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A disk of 5 MiB and 3 sectors: noise, text and holes.
fn source(directory: &Path) -> Vec<u8> {
    let mut bytes = vec![0; (5 * MIB + 3 * 512) as usize];
    bytes[..300_000].copy_from_slice(&noise(1, 300_000));
    bytes[1_000_000..2_000_000].copy_from_slice(&b"relevo, ".repeat(125_000));
    bytes[2_100_000..2_100_100].copy_from_slice(&noise(2, 100));
    let end = bytes.len();
    bytes[end - 700..].copy_from_slice(&noise(3, 700));
    std::fs::write(directory.join("source.raw"), &bytes).expect("there is room");
    bytes
}

fn open(path: &Path) -> Arc<dyn ReadAt> {
    let options = OpenOptions {
        backing_files: BackingFiles::Follow,
        ..OpenOptions::default()
    };
    open_disk(path, &options).expect("QEMU made it").device
}

fn read_all(device: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(device.length_bytes()).expect("it is small")];
    device.read_exact_at(0, &mut bytes).expect("all of it");
    bytes
}

/// Compares whole, in odd pieces, and by extents.
fn assert_reads_as(device: &dyn ReadAt, expected: &[u8]) {
    assert_eq!(device.length_bytes(), expected.len() as u64);
    assert!(read_all(device) == expected, "the whole disk");
    let mut at = 0;
    while at < expected.len() {
        let end = expected.len().min(at + 7_919);
        let mut piece = vec![0xee; end - at];
        device.read_exact_at(at as u64, &mut piece).expect("inside");
        assert!(piece == expected[at..end], "bytes {at} to {end}");
        at += 50_021;
    }
    let mut at = 0;
    while at < expected.len() {
        let extent = device.extent_at(at as u64).expect("inside");
        let end = at + usize::try_from(extent.length).expect("it is small");
        let zeros = expected[at..end].iter().all(|byte| *byte == 0);
        assert!(
            extent.kind == ExtentKind::Data || zeros,
            "bytes {at} to {end}"
        );
        at = end;
    }
}

#[rstest]
#[case::version_2("compat=0.10", false)]
#[case::version_2_compressed("compat=0.10", true)]
#[case::usual("compat=1.1", false)]
#[case::small_clusters("cluster_size=512", false)]
#[case::small_clusters_compressed("cluster_size=4096", true)]
#[case::large_clusters("cluster_size=2M", false)]
#[case::large_clusters_compressed("cluster_size=2M", true)]
#[case::zlib("compression_type=zlib", true)]
#[case::zstd("compression_type=zstd", true)]
#[case::zstd_large("compression_type=zstd,cluster_size=1M", true)]
#[case::extended("extended_l2=on", false)]
#[case::extended_compressed("extended_l2=on,cluster_size=128k", true)]
#[case::preallocated("preallocation=metadata", false)]
#[case::lazy("lazy_refcounts=on,refcount_bits=1", false)]
fn an_image_of_qemu_reads_as_its_source(#[case] options: &str, #[case] compressed: bool) {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = source(directory.path());
    let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    if compressed {
        arguments.push("-c");
    }
    arguments.extend(["source.raw", "image.qcow2"]);
    run(directory.path(), "qemu-img", &arguments);
    let device = open(&directory.path().join("image.qcow2"));
    assert_reads_as(&*device, &bytes);
}

#[rstest]
fn a_chain_of_backing_files_reads_as_qemu_reads_it(
    #[values("cluster_size=64k", "extended_l2=on", "cluster_size=512")] options: &str,
) {
    if !have(&["qemu-img", "qemu-io"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    source(at);
    let create = |base, format, name, size: &'static str| {
        let arguments = [
            "create", "-f", "qcow2", "-o", options, "-b", base, "-F", format, name, size,
        ];
        run(at, "qemu-img", &arguments);
    };
    create("source.raw", "raw", "middle.qcow2", "6M");
    let writes = [
        "-c",
        "write -P 0x11 100k 30k",
        "-c",
        "write -z 1100k 256k",
        "-c",
        "write -P 5 5500k 4k",
    ];
    run(
        at,
        "qemu-io",
        &[&writes[..], &["-f", "qcow2", "middle.qcow2"]].concat(),
    );
    create("middle.qcow2", "qcow2", "top.qcow2", "7M");
    let writes = [
        "-c",
        "write -P 0x22 120k 1k",
        "-c",
        "discard 1000k 64k",
        "-c",
        "write -z 0 8k",
    ];
    run(
        at,
        "qemu-io",
        &[&writes[..], &["-f", "qcow2", "top.qcow2"]].concat(),
    );
    run(
        at,
        "qemu-img",
        &["convert", "-O", "raw", "top.qcow2", "flat.raw"],
    );
    let flat = std::fs::read(at.join("flat.raw")).expect("qemu-img wrote it");
    assert_reads_as(&*open(&at.join("top.qcow2")), &flat);
}

#[test]
fn a_truncated_image_is_an_error_with_a_hint_wherever_it_ends() {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    source(directory.path());
    for compressed in [&[][..], &["-c"]] {
        let arguments = [
            &["convert", "-f", "raw", "-O", "qcow2"],
            compressed,
            &["source.raw", "image.qcow2"],
        ];
        run(directory.path(), "qemu-img", &arguments.concat());
        let whole = std::fs::read(directory.path().join("image.qcow2")).expect("it was made");
        let path = directory.path().join("cut.qcow2");
        // The last cluster of the disk is mostly padding: less than all of it may not be missed.
        for length in [4, 100, 65_536, 200_000, whole.len() - 70_000] {
            std::fs::write(&path, &whole[..length]).expect("there is room");
            let error = open_disk(&path, &OpenOptions::default())
                .and_then(|disk| {
                    let mut bytes = vec![0; (5 * MIB + 3 * 512) as usize];
                    disk.device.read_exact_at(0, &mut bytes)
                })
                .expect_err("it was cut off");
            assert!(matches!(error, Error::Corrupt { .. }), "{length}: {error}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("cut off"), "{length}: {hint}");
        }
    }
}

#[test]
fn a_last_cluster_that_the_disk_only_begins_is_read() {
    if !have(&["qemu-img", "qemu-io"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    run(
        at,
        "qemu-img",
        &["create", "-f", "qcow2", "image.qcow2", "1049088"],
    );
    run(
        at,
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 7 1048576 512", "image.qcow2"],
    );
    let device = open(&at.join("image.qcow2"));
    let mut read = [0; 512];
    device.read_exact_at(MIB, &mut read).expect("QEMU wrote it");
    assert_eq!(read, [7; 512]);
}

#[test]
fn an_overlay_is_sound_to_qemu_and_reads_the_same() {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    source(at);
    let base = Arc::new(DiskFile::open(&at.join("source.raw")).expect("it was written"));
    let overlay = Overlay::new(base, OverlayOptions::default());
    overlay
        .write_all_at(10, b"the first cluster")
        .expect("inside");
    overlay
        .write_all_at(1_000_000, &[0; 300_000])
        .expect("inside");
    overlay
        .write_all_at(5 * MIB + 1530, b"tail")
        .expect("inside");
    let backing = Backing {
        name: "source.raw".to_owned(),
        format: "raw".to_owned(),
    };
    overlay
        .save_qcow2(&at.join("named.qcow2"), Some(backing))
        .expect("there is room");
    overlay
        .save_qcow2(&at.join("nameless.qcow2"), None)
        .expect("there is room");
    std::fs::write(at.join("expected.raw"), read_all(&overlay)).expect("there is room");
    for image in ["named.qcow2", "nameless.qcow2"] {
        let said = run(at, "qemu-img", &["check", image]);
        assert!(said.contains("No errors were found"), "{said}");
    }
    run(
        at,
        "qemu-img",
        &["compare", "-F", "raw", "named.qcow2", "expected.raw"],
    );
    // As a drill attaches it: the backing is a node of the caller's.
    let attached = "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"nameless.qcow2\"},\
                    \"backing\":{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"source.raw\"}}}";
    run(
        at,
        "qemu-img",
        &["compare", "-F", "raw", attached, "expected.raw"],
    );
    assert_reads_as(&*open(&at.join("named.qcow2")), &read_all(&overlay));
}

#[test]
fn an_overlay_that_qemu_wrote_to_is_loaded_again() {
    if !have(&["qemu-img", "qemu-io"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    source(at);
    let base = Arc::new(DiskFile::open(&at.join("source.raw")).expect("it was written"));
    let overlay = Overlay::new(base.clone(), OverlayOptions::default());
    overlay.write_all_at(10, b"ours").expect("inside");
    let backing = Backing {
        name: "source.raw".to_owned(),
        format: "raw".to_owned(),
    };
    let path = at.join("overlay.qcow2");
    overlay
        .save_qcow2(&path, Some(backing))
        .expect("there is room");
    let writes = [
        "-c",
        "write -P 0x33 3M 1k",
        "-c",
        "write -z 64k 64k",
        "-c",
        "write -P 1 5M 512",
    ];
    run(
        at,
        "qemu-io",
        &[&writes[..], &["-f", "qcow2", "overlay.qcow2"]].concat(),
    );
    let said = run(at, "qemu-img", &["check", "overlay.qcow2"]);
    assert!(said.contains("No errors were found"), "{said}");
    let image = Arc::new(DiskFile::open(&path).expect("it was written"));
    let again = Overlay::from_qcow2(image, base, OverlayOptions::default()).expect("it is sound");
    assert_eq!(again.changed_clusters(), 4);
    assert_reads_as(&again, &read_all(&*open(&path)));
}

#[test]
fn an_overlay_of_a_disk_of_1_tib_is_small_and_sound() {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let base = WritableDiskFile::create(&at.join("base.raw"), 1 << 40).expect("it is sparse");
    let overlay = Overlay::new(Arc::new(base), OverlayOptions::default());
    for place in [0, 1 << 30, 1 << 39, (1 << 40) - 4096] {
        overlay.write_all_at(place, b"edit").expect("inside");
    }
    let length = overlay
        .save_qcow2(&at.join("overlay.qcow2"), None)
        .expect("there is room");
    // Header, L1, refcounts 2; 4 clusters and 4 L2 tables.
    assert_eq!(length, 12 * 64 * KIB);
    let said = run(at, "qemu-img", &["check", "overlay.qcow2"]);
    assert!(said.contains("No errors were found"), "{said}");
    let said = run(at, "qemu-img", &["info", "overlay.qcow2"]);
    assert!(said.contains("virtual size: 1 TiB"), "{said}");
}

#[rstest]
#[case::one_sector(512)]
#[case::no_multiple_of_a_cluster(5 * MIB + 3 * 512)]
#[case::large(1 << 40)]
fn an_empty_image_is_filled_by_qemu_and_takes_little_room(#[case] size_bytes: u64) {
    if !have(&["qemu-img", "qemu-io"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let path = at.join("empty.qcow2");
    create_empty_qcow2(&path, size_bytes).expect("there is room");
    assert!(create_empty_qcow2(&path, size_bytes).is_err(), "it exists");
    let empty = open(&path);
    assert_eq!(empty.length_bytes(), size_bytes);
    let extent = empty.extent_at(0).expect("inside");
    assert_eq!((extent.length, extent.kind), (size_bytes, ExtentKind::Zero));

    let last = size_bytes - 512;
    let all = format!("write -zun 0 {size_bytes}");
    let one = format!("write -P 0x5a {last} 512");
    run(at, "qemu-io", &["-c", &all, "-c", &one, "empty.qcow2"]);

    let said = run(at, "qemu-img", &["check", "empty.qcow2"]);
    assert!(said.contains("No errors were found"), "{said}");
    let filled = open(&path);
    let mut bytes = [1; 512];
    filled.read_exact_at(last, &mut bytes).expect("inside");
    assert_eq!(bytes, [0x5a; 512]);
    let file = std::fs::metadata(&path).expect("it is there");
    let room = file.blocks() * 512;
    assert!(room < 12 * MIB, "{room} bytes");
}

#[test]
fn an_empty_image_of_an_impossible_size_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("empty.qcow2");
    let error = create_empty_qcow2(&path, 1000).expect_err("no whole sector");
    assert!(error.to_string().contains("multiple of 512"), "{error}");
    let error = create_empty_qcow2(&path, 1 << 60).expect_err("too large");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_qcow2_copy_is_sound_to_qemu_and_identical() {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    source(at);
    let device = open(&at.join("source.raw"));
    copy_to_qcow2(&*device, &at.join("copy.qcow2"), &Silent).expect("there is room");
    let said = run(at, "qemu-img", &["check", "copy.qcow2"]);
    assert!(said.contains("No errors were found"), "{said}");
    run(
        at,
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            "source.raw",
            "copy.qcow2",
        ],
    );
}

#[test]
fn an_empty_disk_is_copied_too() {
    if !have(&["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let blank = WritableDiskFile::create(&at.join("blank.raw"), 3 << 40).expect("it is sparse");
    let stats = copy_to_qcow2(&blank, &at.join("copy.qcow2"), &Silent).expect("there is room");
    assert_eq!(stats.written_bytes, 0);
    let said = run(at, "qemu-img", &["check", "copy.qcow2"]);
    assert!(said.contains("No errors were found"), "{said}");
}

#[test]
fn a_qcow2_image_of_another_tool_is_read_and_other_formats_are_named() {
    let files = ["ext2.vhd.gz", "ext2.vhdx.xz", "ext2.vmdk.gz", "ext2.E01"];
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("image");
    for file in files {
        let Some(bytes) = testdata(&format!("disk/dfvfs-{file}")) else {
            return;
        };
        std::fs::write(&path, bytes).expect("there is room");
        let error = open_disk(&path, &OpenOptions::default()).expect_err("not read by us");
        assert!(error.hint().is_some(), "{file}: {error}");
        let named = matches!(error, Error::Unsupported { .. } | Error::NotADisk { .. });
        assert!(named, "{file}: {error}");
    }
    let Some(bytes) = testdata("disk/dfvfs-ext2.qcow2.gz") else {
        return;
    };
    std::fs::write(&path, bytes).expect("there is room");
    let device = open(&path);
    let mut magic = [0; 2];
    device
        .read_exact_at(1080, &mut magic)
        .expect("the superblock");
    assert_eq!(magic, [0x53, 0xef]);
}
