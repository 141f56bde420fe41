// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel wrote, reduced to what is in use, is whole; and what is free is what the kernel says.

use disk::filesystem::btrfs::{Btrfs, SubvolumeChoice};
use disk::filesystem::used_extents;
use rstest::rstest;

use super::fixture::{Sparse, assert_same, devices, shared, shown, shown_below, walk};
use crate::outside::have;
use crate::volume::attempt;

#[rstest]
#[case("files", 1)]
#[case("log", 1)]
#[case("raid1", 2)]
#[case("raid0", 4)]
#[case("raid10", 4)]
#[case("raid1c4", 4)]
fn devices_reduced_to_what_is_in_use_hold_everything(#[case] name: &str, #[case] count: usize) {
    let devices = devices(name, count);
    let whole = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    let mut reduced = Vec::new();
    for (number, device) in (1..).zip(&devices) {
        let used = whole.used_extents(number).expect("readable");
        // Metadata are on all devices, or on this one and another: it can be told alone.
        if name != "raid10" && name != "raid0" {
            let alone = used_extents(device).expect("readable").expect("known");
            assert_eq!(alone, used, "{name}.{number}");
        }
        let kept: u64 = used.iter().map(|range| range.end - range.start).sum();
        assert!(kept < 16 << 20, "{name}.{number}: {kept} bytes");
        assert!(
            used.windows(2).all(|pair| pair[0].end < pair[1].start),
            "apart"
        );
        reduced.push(device.reduced(&used));
    }
    let reduced = Btrfs::open_devices(&shared(&reduced)).expect("it opens");
    let top = reduced
        .open_subvolume(SubvolumeChoice::Id(5))
        .expect("it opens");
    assert_same(&walk(&top), &shown_below(name, "/"), name);
    assert_eq!(reduced.findings(), []);
    assert!(
        whole.used_extents(count as u64 + 1).is_err(),
        "no such device"
    );
}

/// What `btrfs` prints of all devices of a fixture.
fn printed(devices: &[Sparse], arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    for (index, device) in devices.iter().enumerate() {
        let path = folder.path().join(index.to_string());
        device.save(&path);
        all.push(path.to_string_lossy().into_owned());
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (code, output) = attempt("btrfs", &all);
    (code, output.replace(&*folder.path().to_string_lossy(), ""))
}

#[rstest]
#[case("files")]
#[case("log")]
fn the_checker_finds_nothing_amiss_in_what_is_in_use(#[case] name: &str) {
    if !have(&["btrfs"]) {
        return;
    }
    let device = devices(name, 1).remove(0);
    let used = used_extents(&device).expect("readable").expect("known");
    let reduced = [device.reduced(&used)];
    let (code, output) = printed(&reduced, &["check", "--readonly", "--check-data-csum"]);
    assert_eq!(code, 0, "{name}: {output}");
}

#[rstest]
#[case("log", 1)]
#[case("raid1", 2)]
#[case("raid0", 4)]
#[case("raid10", 4)]
#[case("raid5", 3)]
fn all_trees_are_printed_as_before(#[case] name: &str, #[case] count: usize) {
    if !have(&["btrfs"]) {
        return;
    }
    let devices = devices(name, count);
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    let reduced: Vec<Sparse> = (1..)
        .zip(&devices)
        .map(|(number, device)| {
            let used = filesystem.used_extents(number).expect("readable");
            device.reduced(&used)
        })
        .collect();
    let arguments = ["inspect-internal", "dump-tree"];
    let (code, before) = printed(&devices, &arguments);
    assert_eq!(code, 0, "{name}: {before}");
    assert!(
        before.contains("log tree") == (name == "log"),
        "{name}: {before}"
    );
    let (_, after) = printed(&reduced, &arguments);
    assert!(before == after, "{name}: what is printed changed");
}

#[test]
fn a_log_and_the_data_that_only_it_knows_are_in_use() {
    let device = devices("log", 1).remove(0);
    let used = used_extents(&device).expect("readable").expect("known");
    let reduced = device.reduced(&used);
    let contains = |device: &Sparse, needle: &[u8]| {
        device
            .pages
            .values()
            .any(|page| page.windows(needle.len()).any(|bytes| bytes == needle))
    };
    for line in [
        "line 1400 of logged",
        "line 1000 of logged",
        "line 3 of folder/another",
    ] {
        assert!(contains(&device, line.as_bytes()), "{line}");
        assert!(contains(&reduced, line.as_bytes()), "{line}");
    }
}

#[rstest]
#[case("files", 1)]
#[case("log", 1)]
#[case("raid1", 2)]
#[case("raid10", 4)]
#[case("raid1c4", 4)]
#[case("raid0", 4)]
fn what_is_free_is_about_what_the_kernel_says(#[case] name: &str, #[case] count: usize) {
    let filesystem = Btrfs::open_devices(&shared(&devices(name, count))).expect("it opens");
    let found = filesystem.free_bytes().expect("readable");
    let kernel: u64 = shown(name, "free")[0][0].parse().expect("a number");
    // The kernel leaves out a little of every device, and what would not make a whole chunk.
    let tolerance = count as u64 * (4 << 20);
    assert!(
        found.abs_diff(kernel) <= tolerance,
        "{name}: found {found}, the kernel says {kernel}"
    );
}
