// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks reduced to what is worth reading of them: filesystems on volumes that Linux made are whole, says
//! their checker, volumes that are not looked into are as they were, and the tools of LVM and md see no
//! difference.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem;
use disk::{DiskToRead, ReadAt, Recorder, SectorSize, WriteAt, worth_reading};
use tempfile::TempDir;

use crate::lvm2::{self, DISK_BYTES};
use crate::md::fixture::{Fixture, all, named};
use crate::md::{Members, one_array, read_all};
use crate::outside::{have, run};

const FILES: usize = 12;

/// What is worth reading of some disks, of which `busy` are in use.
fn maps(disks: &[Arc<dyn WriteAt>], busy: &[usize]) -> Vec<Vec<Range<u64>>> {
    let devices: Vec<Arc<dyn ReadAt>> = disks.iter().map(|disk| Arc::clone(disk) as _).collect();
    let to_read = devices
        .iter()
        .enumerate()
        .map(|(index, device)| DiskToRead {
            device,
            sector_size: SectorSize::B512,
            name: "disk",
            busy_partitions: if busy.contains(&index) { &[0] } else { &[] },
        });
    let recorder = Recorder::default();
    let maps = worth_reading(&to_read.collect::<Vec<_>>(), &recorder);
    assert_eq!(recorder.findings(), []);
    maps
}

fn bytes_of(map: &[Range<u64>]) -> u64 {
    map.iter().map(|range| range.end - range.start).sum()
}

fn is_whole(map: &[Range<u64>], device: &dyn ReadAt) -> bool {
    matches!(map, [all] if *all == (0..device.length_bytes()))
}

/// The disks as an image of what is worth reading gives them back.
fn restored(disks: &[Arc<dyn WriteAt>], maps: &[Vec<Range<u64>>]) -> Vec<Arc<dyn WriteAt>> {
    let restore = |(disk, map): (&Arc<dyn WriteAt>, &Vec<Range<u64>>)| {
        let mut bytes = vec![0; disk.length_bytes() as usize];
        for range in map {
            let target = &mut bytes[range.start as usize..range.end as usize];
            disk.read_exact_at(range.start, target).expect("inside");
        }
        Arc::new(MemoryDevice::from(bytes)) as Arc<dyn WriteAt>
    };
    disks.iter().zip(maps).map(restore).collect()
}

fn file(index: usize) -> Vec<u8> {
    vec![index as u8 + 1; index * 3001]
}

/// Puts a filesystem with some files onto a volume; between them stays what was there.
fn format(volume: &dyn WriteAt, folder: &Path) {
    let tree = folder.join("tree");
    fs::create_dir_all(&tree).expect("a folder");
    for index in 0..FILES {
        fs::write(tree.join(index.to_string()), file(index)).expect("a new file");
    }
    let image = folder.join("image");
    let new = fs::File::create(&image).expect("a new file");
    new.set_len(volume.length_bytes()).expect("room");
    // Without lazy initialisation, which would leave zeros to be written out later.
    let options = "lazy_itable_init=0,lazy_journal_init=0";
    let arguments = [
        "-qF", "-t", "ext2", "-b", "1024", "-E", options, "-d", "tree", "image",
    ];
    run(folder, "mke2fs", &arguments);
    let bytes = fs::read(&image).expect("it was made");
    for (index, block) in bytes.chunks(1024).enumerate() {
        if block.iter().any(|byte| *byte != 0) || is_in_use(&bytes, index) {
            volume
                .write_all_at(index as u64 * 1024, block)
                .expect("inside");
        }
    }
}

/// Whether a block of a filesystem of one group is in use, by its bitmap.
fn is_in_use(image: &[u8], block: usize) -> bool {
    // The group's description is in block 2, its first word says where the bitmap is, and the bitmap
    // begins with block 1.
    let word: [u8; 4] = image[2048..2052].try_into().expect("four bytes");
    let bitmap = u32::from_le_bytes(word) as usize * 1024;
    let Some(bit) = block.checked_sub(1) else {
        return true;
    };
    image[bitmap + bit / 8] >> (bit % 8) & 1 == 1
}

/// Its checker finds nothing, and the files are there.
fn assert_whole(volume: &Arc<dyn WriteAt>, folder: &Path, what: &str) {
    fs::write(folder.join("restored"), read_all(&**volume)).expect("room");
    run(folder, "e2fsck", &["-fn", "restored"]);
    let device: Arc<dyn ReadAt> = Arc::clone(volume) as _;
    let filesystem = filesystem::open(device).expect("it opens");
    for index in 0..FILES {
        let path = format!("/{index}");
        let found = filesystem.read(&path, 1 << 20).expect("it is there");
        assert!(found == file(index), "{what}: {path}");
    }
}

fn written(device: &dyn ReadAt, folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, read_all(device)).expect("room");
    path
}

#[test]
fn filesystems_on_linear_and_striped_volumes_are_read_as_far_as_they_are_used() {
    if !have(&["mke2fs", "e2fsck"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disks = lvm2::disks(&[]);
    let before = maps(&disks, &[]);
    let extents: Vec<_> = lvm2::group(&disks).used_ranges();
    for (candidate, ranges) in &extents {
        assert_eq!(
            before[*candidate], *ranges,
            "nothing is known of the volumes"
        );
    }
    let group = lvm2::group(&disks);
    for name in ["linear", "striped"] {
        format(&*lvm2::open(&group, name), folder.path());
    }
    let maps = maps(&disks, &[]);
    // 2.5 MiB of volumes, of which twelve files and the tables of two filesystems are in use.
    let all = |maps: &[Vec<Range<u64>>]| maps.iter().map(|map| bytes_of(map)).sum::<u64>();
    let saved = all(&before) - all(&maps);
    assert!(
        (1 << 20..5 << 19).contains(&saved),
        "{saved} bytes are saved"
    );

    let restored = restored(&disks, &maps);
    let group = lvm2::group(&restored);
    for (name, expected) in lvm2::expected() {
        let volume = lvm2::open(&group, &name);
        match name.as_str() {
            "linear" | "striped" => assert_whole(&volume, folder.path(), &name),
            _ => assert!(lvm2::content(&volume) == expected, "{name}"),
        }
    }
    for (index, (disk, copy)) in disks.iter().zip(&restored).enumerate() {
        let (original, copy) = (read_all(&**disk), read_all(&**copy));
        assert!(
            original[..1 << 20] == copy[..1 << 20],
            "labels of disk {index}"
        );
        let end = DISK_BYTES - (1 << 20);
        assert!(
            original[end..] == copy[end..],
            "metadata at the end of {index}"
        );
    }
}

#[test]
fn pvck_sees_no_difference_in_what_was_restored() {
    if !have(&["pvck"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disks = lvm2::disks(&[]);
    let restored = restored(&disks, &maps(&disks, &[]));
    for (disk, copy) in disks.iter().zip(&restored) {
        let dump = |device: &dyn ReadAt, what: &str| {
            written(device, &folder, "disk");
            run(folder.path(), "pvck", &["--dump", what, "disk"])
        };
        for what in ["headers", "metadata_search"] {
            assert_eq!(dump(&**copy, what), dump(&**disk, what));
        }
    }
}

#[test]
fn volumes_with_snapshots_and_thin_or_mirrored_ones_are_read_whole() {
    if !have(&["mke2fs"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disks = lvm2::disks(&[]);
    let before = maps(&disks, &[]);
    let group = lvm2::group(&disks);
    for name in ["raid1", "mirror", "raid0", "raid10", "raid5", "origin"] {
        // The stores of the snapshots are too small for all of it.
        let volume = group.logical_volume(name).expect(name);
        if name != "origin" {
            format(&*volume.open().expect(name), folder.path());
        }
    }
    assert_eq!(maps(&disks, &[]), before);
}

#[test]
fn a_group_of_which_a_disk_is_missing_or_in_use_is_read_whole() {
    for missing in [0, 5] {
        let disks = lvm2::disks(&[missing]);
        for (disk, map) in disks.iter().zip(maps(&disks, &[])) {
            assert!(is_whole(&map, &**disk), "without {missing}: {map:?}");
        }
        let disks = lvm2::disks(&[]);
        for (disk, map) in disks.iter().zip(maps(&disks, &[missing])) {
            assert!(is_whole(&map, &**disk), "{missing} is in use: {map:?}");
        }
    }
    // The same disk on two paths.
    let mut disks = lvm2::disks(&[]);
    disks.push(Arc::clone(&disks[2]));
    for (disk, map) in disks.iter().zip(maps(&disks, &[])) {
        assert!(is_whole(&map, &**disk));
    }
}

fn mirrors() -> Vec<Fixture> {
    let is_mirror = |fixture: &Fixture| fixture.fact("level") == "raid1" && fixture.is_plain();
    all().into_iter().filter(is_mirror).collect()
}

#[test]
fn filesystems_on_mirrors_of_every_format_are_read_as_far_as_they_are_used() {
    if !have(&["mke2fs", "e2fsck"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut formats = Vec::new();
    for fixture in mirrors() {
        let name = fixture.name;
        let disks = Members::of(&fixture).without(&[]);
        let array = one_array(&disks);
        format(&*array.open().expect("it is whole"), folder.path());
        let maps = maps(&disks, &[]);
        if array.members.iter().any(|member| member.role.is_none()) {
            assert_eq!(name, "raid1-spare");
            assert!(
                maps.iter()
                    .zip(&disks)
                    .all(|(map, disk)| is_whole(map, &**disk))
            );
            continue;
        }
        formats.push(fixture.fact("metadata"));
        let restored = restored(&disks, &maps);
        for (map, disk) in maps.iter().zip(&disks) {
            let saved = disk.length_bytes() - bytes_of(map);
            assert!(saved > 100 << 10, "{name}: {saved} bytes are saved");
        }
        let again = one_array(&restored);
        assert_eq!(again.members, array.members, "{name}");
        assert_eq!(again.findings, [], "{name}");
        assert_whole(&again.open().expect("it is whole"), folder.path(), name);
        for (role, (disk, copy)) in disks.iter().zip(&restored).enumerate() {
            let what = format!("{name}, member {role}");
            let alone = one_array(&[Arc::clone(copy)]).open();
            assert_whole(&alone.expect("one is enough"), folder.path(), &what);
            if have(&["mdadm"]) {
                let examine = |device: &dyn ReadAt| examined(&read_all(device), &folder);
                assert_eq!(examine(&**copy), examine(&**disk), "{what}");
            }
        }
    }
    formats.sort_unstable();
    formats.dedup();
    assert_eq!(formats, ["0.90", "1.0", "1.1", "1.2"]);
}

/// What mdadm says of a member.
fn examined(bytes: &[u8], folder: &TempDir) -> String {
    fs::write(folder.path().join("member"), bytes).expect("room");
    run(folder.path(), "mdadm", &["--examine", "member"])
}

#[test]
fn arrays_with_anything_to_be_said_of_them_are_read_whole() {
    let names = [
        "raid1-stale",
        "raid1-stale-0.90",
        "raid1-stale-bitmap",
        "raid1-rebuilding",
        "raid1-bad-blocks",
        "raid1-dirty",
        "raid4",
        "raid10-n2",
        "raid5-stale",
    ];
    for name in names {
        let disks = Members::of(&named(name)).without(&[]);
        for (disk, map) in disks.iter().zip(maps(&disks, &[])) {
            assert!(is_whole(&map, &**disk), "{name}: {map:?}");
        }
    }
    // A mirror that lacks a member, or one of whose members is in use.
    let members = Members::of(&named("raid1-1.2"));
    let alone = members.without(&[0]);
    assert!(is_whole(&maps(&alone, &[])[0], &*alone[0]));
    let both = members.without(&[]);
    for (disk, map) in both.iter().zip(maps(&both, &[1])) {
        assert!(is_whole(&map, &**disk), "{map:?}");
    }
}

#[test]
fn damaged_disks_give_maps_and_never_panics() {
    let mut state = 0x51ed_270b;
    let metadata_bytes = 256 << 10;
    let mirror = Members::of(&named("raid1-1.2")).without(&[]);
    let sound: Vec<_> = lvm2::disks(&[]).into_iter().chain(mirror).collect();
    let sound: Vec<Vec<u8>> = sound.iter().map(|disk| read_all(&**disk)).collect();
    for round in 0..40 {
        let disks = sound.iter().map(|bytes| MemoryDevice::from(bytes.clone()));
        let disks: Vec<_> = disks
            .map(|disk| Arc::new(disk) as Arc<dyn WriteAt>)
            .collect();
        for disk in &disks {
            for _ in 0..1 + round % 5 {
                let at = (crate::next(&mut state) >> 8) % metadata_bytes;
                let value = [crate::next(&mut state) as u8];
                disk.write_all_at(at, &value).expect("inside");
            }
        }
        let devices: Vec<Arc<dyn ReadAt>> =
            disks.iter().map(|disk| Arc::clone(disk) as _).collect();
        let to_read = devices.iter().map(|device| DiskToRead {
            device,
            sector_size: SectorSize::B512,
            name: "disk",
            busy_partitions: &[],
        });
        let maps = worth_reading(&to_read.collect::<Vec<_>>(), &Recorder::default());
        for (map, disk) in maps.iter().zip(&disks) {
            assert!(map.is_sorted_by(|one, other| one.end < other.start));
            assert!(
                map.last()
                    .is_some_and(|last| last.end <= disk.length_bytes())
            );
        }
    }
}
