// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who uses a disk: mounted filesystems, swap, and what is stacked on it (LVM, md, LUKS).
//!
//! A disk in use changes while it is read. What is found here says by whom, for people; the
//! last word has the kernel, which gives a device in use to nobody exclusively (see `source`).

use std::collections::BTreeSet;

use disk::{Finding, Level};
use image_library::machine::{Disk, MachineDescription};

use crate::inventory::root::Root;

/// What was found about one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DiskUse {
    /// One for each use, with a stable code.
    pub findings: Vec<Finding>,
    /// The partitions that are mounted or swapped to, by kernel name; a disk without a partition
    /// table by its own.
    pub busy_parts: BTreeSet<String>,
}

impl DiskUse {
    /// All uses in one line.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let uses: Vec<String> = self
            .findings
            .iter()
            .map(|finding| format!("{} {}", finding.place, finding.problem))
            .collect();
        uses.join("; ")
    }
}

/// Who uses `disk`.
pub(crate) fn disk_use(root: &Root, machine: &MachineDescription, disk: &Disk) -> DiskUse {
    let mut parts: Vec<&str> = disk.partitions.iter().map(|p| p.name.as_str()).collect();
    parts.push(&disk.name);
    parts_use(root, machine, &disk.name, &parts)
}

/// Who uses a block device that is no disk of the inventory: a volume, a loop device.
pub(crate) fn device_use(root: &Root, machine: &MachineDescription, name: &str) -> DiskUse {
    parts_use(root, machine, name, &[name])
}

fn parts_use(root: &Root, machine: &MachineDescription, disk: &str, parts: &[&str]) -> DiskUse {
    let mut usage = DiskUse::default();
    for &part in parts {
        let places = mounted_at(root, machine, disk, part);
        if !places.is_empty() {
            usage.busy_parts.insert(part.to_owned());
            usage.findings.push(finding(
                "agent.disk.mounted",
                part,
                format!("is mounted at {}", places.join(", ")),
                "unmount it, or accept a fuzzy image with --crash-consistent",
            ));
        }
        if machine
            .swaps
            .iter()
            .any(|swap| kernel_name(root, swap) == part)
        {
            usage.busy_parts.insert(part.to_owned());
            usage.findings.push(finding(
                "agent.disk.swap",
                part,
                "is in use as swap".to_owned(),
                "switch it off with swapoff, or accept a fuzzy image with --crash-consistent",
            ));
        }
        let holders = root.names(&holders_directory(disk, part));
        if !holders.is_empty() {
            usage.busy_parts.insert(part.to_owned());
            usage.findings.push(finding(
                "agent.disk.held",
                part,
                format!("carries {}", holders.join(", ")),
                "deactivate the volume group, array or container on it, or accept a fuzzy image \
                 with --crash-consistent",
            ));
        }
    }
    usage
}

fn finding(code: &str, place: &str, problem: String, remedy: &str) -> Finding {
    Finding {
        level: Level::Error,
        code: code.to_owned(),
        place: place.to_owned(),
        problem,
        remedy: Some(remedy.to_owned()),
    }
}

fn part_directory(disk: &str, part: &str) -> String {
    if disk == part {
        format!("/sys/block/{disk}")
    } else {
        format!("/sys/block/{disk}/{part}")
    }
}

fn holders_directory(disk: &str, part: &str) -> String {
    format!("{}/holders", part_directory(disk, part))
}

/// Where a device is mounted. It is known by its number, because the kernel calls the root
/// filesystem's device `/dev/root` at times, and by its name, because btrfs has numbers of its own.
fn mounted_at(root: &Root, machine: &MachineDescription, disk: &str, part: &str) -> Vec<String> {
    let mut places: Vec<String> = machine
        .mounts
        .iter()
        .filter(|mount| kernel_name(root, &mount.source) == part)
        .map(|mount| mount.target.clone())
        .collect();
    if let Some(number) = root.line(&format!("{}/dev", part_directory(disk, part))) {
        let text = root.text("/proc/self/mountinfo").unwrap_or_default();
        for line in text.lines() {
            let columns: Vec<&str> = line.split(' ').take(5).collect();
            if let [_, _, device, _, target] = columns.as_slice()
                && *device == number
                && !places.iter().any(|place| place == target)
            {
                places.push((*target).to_owned());
            }
        }
    }
    places
}

/// The kernel's name of a device node, through a link of udev or the device mapper.
fn kernel_name(root: &Root, node: &str) -> String {
    root.link_name(node)
        .or_else(|| node.rsplit('/').next().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;
    use crate::inventory::{InventoryOptions, take_inventory};

    fn usage_of(server: &PhonyServer, name: &str) -> DiskUse {
        let machine = take_inventory(&InventoryOptions {
            root: server.root().path("/"),
            load_interval: std::time::Duration::ZERO,
        });
        let disk = machine.disks.iter().find(|disk| disk.name == name).unwrap();
        disk_use(&server.root(), &machine, disk)
    }

    fn server() -> PhonyServer {
        let server = PhonyServer::new();
        server.sata_disk("sda", 4096);
        server.partition("sda", 1, 64, 1024);
        server.partition("sda", 2, 1088, 1024);
        server.sata_disk("sdb", 4096);
        server
    }

    #[test]
    fn a_disk_that_nobody_uses_has_no_findings() {
        assert_eq!(usage_of(&server(), "sdb"), DiskUse::default());
    }

    #[test]
    fn a_mounted_partition_and_swap_are_named_with_their_place() {
        let server = server();
        server.write(
            "/proc/self/mountinfo",
            "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        );
        server.write(
            "/proc/swaps",
            "Filename Type Size\n/dev/sda2 partition 1 0 -2\n",
        );
        let usage = usage_of(&server, "sda");
        assert_eq!(
            usage.summary(),
            "sda1 is mounted at /; sda2 is in use as swap"
        );
        let codes: Vec<&str> = usage.findings.iter().map(|f| f.code.as_str()).collect();
        assert_eq!(codes, ["agent.disk.mounted", "agent.disk.swap"]);
        assert_eq!(usage_of(&server, "sdb"), DiskUse::default());
    }

    #[test]
    fn a_root_that_the_kernel_calls_dev_root_is_found_by_its_number() {
        let server = server();
        server.write("/sys/block/sda/sda1/dev", "8:1\n");
        server.write(
            "/proc/self/mountinfo",
            "28 1 8:1 / / rw - ext4 /dev/root rw\n",
        );
        assert_eq!(usage_of(&server, "sda").summary(), "sda1 is mounted at /");
    }

    #[test]
    fn a_volume_group_on_a_partition_counts_as_use() {
        let server = server();
        server.write("/sys/block/sda/sda2/holders/dm-0/x", "");
        let usage = usage_of(&server, "sda");
        assert_eq!(usage.summary(), "sda2 carries dm-0");
        assert_eq!(usage.busy_parts.iter().collect::<Vec<_>>(), ["sda2"]);
    }

    #[test]
    fn a_whole_disk_that_is_mounted_through_a_link_is_found() {
        let server = server();
        server.link("/dev/disk/by-label/data", "../../sdb");
        server.write(
            "/proc/self/mountinfo",
            "28 1 0:50 / /data rw - btrfs /dev/disk/by-label/data rw\n",
        );
        assert_eq!(
            usage_of(&server, "sdb").summary(),
            "sdb is mounted at /data"
        );
    }
}
