// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mount options whose value is a device: the others of a btrfs on several, logs and journals outside.
//!
//! Their readers take nothing but a path, and a UUID belongs to the whole of a filesystem, so they are
//! named by PARTUUID. A device of a btrfs that has none, because it is a whole disk, is not named any
//! more: udev has told the kernel of it before anything is mounted. Sources: btrfs(5), xfs(5), ext4(5).

use crate::inspect::device_names::{DeviceNames, Stability};

/// `device` is of btrfs, `logdev` and `rtdev` of XFS, `journal_path` of ext4, `jdev` of reiserfs.
const DEVICES: [&str; 5] = ["device", "logdev", "rtdev", "journal_path", "jdev"];

/// What becomes of options.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Renamed {
    pub(super) options: Vec<String>,
    /// Those that changed, as they were.
    pub(super) changed: Vec<String>,
    /// Devices that are not known.
    pub(super) unknown: Vec<String>,
}

/// Gives the devices of mount options names that stay.
pub(super) fn renamed<'a>(
    options: impl IntoIterator<Item = &'a str>,
    names: DeviceNames<'_>,
) -> Renamed {
    let mut renamed = Renamed::default();
    for option in options {
        let device = option.split_once('=').filter(|(key, device)| {
            DEVICES.contains(key) && names.stability(device) == Stability::Volatile
        });
        let Some((key, device)) = device else {
            renamed.options.push(option.to_owned());
            continue;
        };
        let volume = names.resolve_device(device);
        match volume.map(|volume| names.partition_name(volume)) {
            Some(Some(name)) => renamed.options.push(format!("{key}={name}")),
            Some(None) if key == "device" => {}
            _ => {
                renamed.options.push(option.to_owned());
                renamed.unknown.push(device.to_owned());
                continue;
            }
        }
        renamed.changed.push(option.to_owned());
    }
    renamed
}

#[cfg(test)]
mod tests {
    use disk::filesystem::FilesystemKind;
    use image_library::DiskIndex;
    use rstest::rstest;

    use super::*;
    use crate::inspect::TableKind;
    use crate::phony::{PhonyGuest, volume};

    const UUID: &str = "5c1f8e1a-7a5b-4c08-9f1e-0a1b2c3d4e5f";

    /// A btrfs on a partition of each of two disks, and a third disk without a table.
    fn guest() -> PhonyGuest {
        let btrfs = || volume(FilesystemKind::Btrfs, UUID);
        let swap = || volume(FilesystemKind::Swap, "6c1f8e1a");
        let mut guest = PhonyGuest::new(TableKind::Gpt, vec![btrfs(), swap()]);
        guest.add_disk(None, TableKind::Gpt, vec![swap(), btrfs()]);
        guest.add_disk(None, TableKind::None, vec![btrfs()]);
        let whole = &mut guest.disks[2].volumes[0];
        whole.id = crate::inspect::VolumeId::on_disk(DiskIndex(2), None);
        whole.partition_uuid = None;
        guest
    }

    #[rstest]
    #[case::each_by_its_own_partition(
        "subvol=@,device=/dev/sda1,device=/dev/sdb2,compress=zstd",
        "subvol=@,device=/dev/disk/by-partuuid/c0ffee00-01,device=/dev/disk/by-partuuid/c0ffee01-02,\
         compress=zstd",
        ""
    )]
    #[case::a_whole_disk_is_found_by_udev("device=/dev/sdc,noatime", "noatime", "")]
    #[case::what_stays(
        "device=/dev/mapper/vg-a,logdev=/dev/disk/by-partuuid/x,data=/dev/sda1",
        "device=/dev/mapper/vg-a,logdev=/dev/disk/by-partuuid/x,data=/dev/sda1",
        ""
    )]
    #[case::a_log_outside("logdev=/dev/sda2", "logdev=/dev/disk/by-partuuid/c0ffee00-02", "")]
    #[case::a_log_on_a_whole_disk("logdev=/dev/sdc", "logdev=/dev/sdc", "/dev/sdc")]
    #[case::not_in_the_image("device=/dev/sdq1", "device=/dev/sdq1", "/dev/sdq1")]
    fn devices_get_names_that_stay(
        #[case] options: &str,
        #[case] expected: &str,
        #[case] unknown: &str,
    ) {
        let inspection = guest().inspect();
        let names = DeviceNames::new(inspection.volumes(), None);
        let renamed = renamed(options.split(','), names);
        assert_eq!(renamed.options.join(","), expected);
        assert_eq!(renamed.unknown.join(","), unknown);
        let changes = !renamed.changed.is_empty();
        assert_eq!(changes, options != expected);
    }
}
