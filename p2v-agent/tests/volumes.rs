// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program itself: a snapshot of the disks of a volume group reads what is in use inside of its
//! volumes, and gives back every file, every other volume and the metadata.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../image-library/disk/tests/outside/mod.rs"]
mod outside;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::volume::lvm2::{VolumeGroup, scan};
use disk::{ReadAt, WriteAt, filesystem};
use image_library::{DiskIndex, ImageReader, InitOptions, LocalLibrary};
use serde_json::Value;
use tempfile::TempDir;

use outside::{have, run};

/// Volumes that LVM's tools made and Linux wrote.
const DISKS: &str = "../image-library/disk/fixtures/lvm2/disks.img.xz";
const DISK_BYTES: usize = 12 << 20;
/// Of the volumes, those that get a filesystem.
const FORMATTED: [&str; 2] = ["linear", "striped"];

fn disks() -> Vec<Arc<dyn WriteAt>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DISKS);
    let mut bytes = Vec::new();
    let mut reader = liblzma::read::XzDecoder::new(fs::File::open(path).unwrap());
    reader.read_to_end(&mut bytes).unwrap();
    let disks = bytes.chunks_exact(DISK_BYTES);
    disks
        .map(|disk| Arc::new(MemoryDevice::from(disk.to_vec())) as Arc<dyn WriteAt>)
        .collect()
}

fn content(device: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.length_bytes()).unwrap()];
    device.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

fn group(disks: &[Arc<dyn WriteAt>]) -> VolumeGroup {
    scan(disks).groups.remove(0)
}

fn open(group: &VolumeGroup, name: &str) -> Arc<dyn WriteAt> {
    group.logical_volume(name).unwrap().open().unwrap()
}

/// Puts a filesystem with one file onto a volume, whose other blocks keep what they had.
fn format(volume: &dyn WriteAt, folder: &Path) {
    let tree = folder.join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), vec![7; 100_000]).unwrap();
    let image = fs::File::create(folder.join("image")).unwrap();
    image.set_len(volume.length_bytes()).unwrap();
    let arguments = ["-qF", "-t", "ext2", "-b", "1024", "-d", "tree", "image"];
    run(folder, "mke2fs", &arguments);
    let image = fs::read(folder.join("image")).unwrap();
    let used = filesystem::used_extents(&MemoryDevice::from(image.clone())).unwrap();
    for range in used.unwrap() {
        let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        volume.write_all_at(range.start, &image[part]).unwrap();
    }
}

/// What a snapshot of these disks says of itself.
fn snapshot(folder: &TempDir, disks: &[Arc<dyn WriteAt>]) -> Value {
    let library = folder.path().join("library");
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2v-agent"));
    command
        .args(["snapshot", "--json", "--server", "db01", "--library"])
        .arg(&library)
        .arg("--state")
        .arg(folder.path().join("state"));
    for (index, disk) in disks.iter().enumerate() {
        let path = folder.path().join(format!("vd{index}"));
        fs::write(&path, content(&**disk)).unwrap();
        command.arg("--disk").arg(path);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn read_bytes(report: &Value) -> Vec<u64> {
    let disks = report["disks"].as_array().unwrap();
    let read = disks.iter().map(|disk| disk["read_bytes"].as_u64());
    read.map(Option::unwrap).collect()
}

fn restored(folder: &TempDir, report: &Value) -> Vec<Arc<dyn WriteAt>> {
    let library = LocalLibrary::open(&folder.path().join("library")).unwrap();
    let id = report["image"].as_str().unwrap().parse().unwrap();
    let disks = 0..report["disks"].as_array().unwrap().len();
    let restore = |index| {
        let index = DiskIndex(u16::try_from(index).unwrap());
        let disk = library.open_disk(id, index).unwrap();
        Arc::new(MemoryDevice::from(content(&*disk))) as Arc<dyn WriteAt>
    };
    disks.map(restore).collect()
}

#[test]
fn a_snapshot_of_a_volume_group_reads_what_is_in_use_and_gives_back_all_of_it() {
    if !have(&["mke2fs", "e2fsck"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    LocalLibrary::init(&folder.path().join("library"), &InitOptions::default()).unwrap();
    let disks = disks();
    let before = group(&disks);
    for name in FORMATTED {
        format(&*open(&before, name), folder.path());
    }
    let report = snapshot(&folder, &disks);
    let read = read_bytes(&report);
    // What `pvs --segments` calls free on the six disks, and what is free in the two filesystems.
    let extents: Vec<u64> = before
        .used_ranges()
        .iter()
        .map(|(_, ranges)| ranges.iter().map(|range| range.end - range.start).sum())
        .collect();
    for (index, (read, extents)) in read.iter().zip(&extents).enumerate() {
        assert!(read <= extents, "disk {index}: {read} of {extents}");
    }
    let saved = extents.iter().sum::<u64>() - read.iter().sum::<u64>();
    assert!(saved > 1 << 20, "{read:?} of {extents:?}");

    let restored = restored(&folder, &report);
    let after = group(&restored);
    for volume in before.logical_volumes() {
        let name = volume.name();
        let (Ok(old), Ok(new)) = (volume.open(), after.logical_volume(name).unwrap().open()) else {
            continue;
        };
        if FORMATTED.contains(&name) {
            fs::write(folder.path().join("restored"), content(&*new)).unwrap();
            run(folder.path(), "e2fsck", &["-fn", "restored"]);
            let files = filesystem::open(new).unwrap();
            assert_eq!(files.read("/file", 1 << 20).unwrap(), vec![7; 100_000]);
        } else if !["broken"].contains(&name) {
            assert!(content(&*old) == content(&*new), "{name}");
        }
    }
    for (index, (old, new)) in disks.iter().zip(&restored).enumerate() {
        let (old, new) = (content(&**old), content(&**new));
        assert!(old[..1 << 20] == new[..1 << 20], "metadata of disk {index}");
    }
}

#[test]
fn a_snapshot_of_some_disks_of_a_group_reads_them_whole() {
    let folder = TempDir::new().unwrap();
    LocalLibrary::init(&folder.path().join("library"), &InitOptions::default()).unwrap();
    let disks = disks();
    let report = snapshot(&folder, &disks[..5]);
    let whole = DISK_BYTES as u64;
    assert_eq!(read_bytes(&report), [whole; 5]);
    for (old, new) in disks.iter().zip(restored(&folder, &report)) {
        assert!(content(&**old) == content(&*new));
    }
}
