// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks and their partitions, from `/sys/block` and `/dev/disk`.
//!
//! A disk is what has hardware behind it: loop, RAM, zram, device-mapper, md and optical devices
//! are none. An NVMe disk with several paths shows a hidden twin, which is left out.

use std::collections::BTreeMap;

use image_library::machine::{Disk, Partition};

use crate::inventory::root::{Root, by_number};

/// sysfs counts in units of 512 bytes, whatever the sector size.
const SYSFS_SECTOR_BYTES: u64 = 512;

/// All disks, in the order of their names.
pub(crate) fn disks(root: &Root) -> Vec<Disk> {
    let udev = UdevLinks::read(root);
    let mut names: Vec<String> = root
        .names("/sys/block")
        .into_iter()
        .filter(|name| is_disk(root, name))
        .collect();
    names.sort_by_key(|name| (name.len(), by_number(name)));
    names.iter().map(|name| disk(root, name, &udev)).collect()
}

fn is_disk(root: &Root, name: &str) -> bool {
    let virtual_prefixes = [
        "loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd",
    ];
    let directory = format!("/sys/block/{name}");
    let is_hidden = root.number(&format!("{directory}/hidden")) == Some(1);
    let size = root.number(&format!("{directory}/size")).unwrap_or(0);
    let is_virtual = virtual_prefixes
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(starts_with_digit));
    // The boot areas of an eMMC are not disks of their own.
    let is_boot_area = name.starts_with("mmcblk") && name.contains("boot");
    size > 0 && !is_hidden && !is_virtual && !is_boot_area
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn disk(root: &Root, name: &str, udev: &UdevLinks) -> Disk {
    let directory = format!("/sys/block/{name}");
    let file = |file: &str| format!("{directory}/{file}");
    let sector_size_bytes = root.number(&file("queue/logical_block_size"));
    let physical = root.number(&file("queue/physical_block_size"));
    let partitions = partitions(root, name, udev);
    let mut kernel_names = vec![name];
    kernel_names.extend(partitions.iter().map(|partition| partition.name.as_str()));
    Disk {
        name: name.to_owned(),
        size_bytes: root
            .number(&file("size"))
            .unwrap_or(0)
            .saturating_mul(SYSFS_SECTOR_BYTES),
        sector_size_bytes: small(sector_size_bytes, 512),
        physical_sector_size_bytes: small(physical, 512),
        model: root
            .line(&file("device/model"))
            .or_else(|| root.line(&file("device/name"))),
        serial: serial(root, &directory),
        wwn: root
            .line(&file("wwid"))
            .or_else(|| root.line(&file("device/wwid"))),
        bus: bus(root, name),
        rotational: root.number(&file("queue/rotational")) == Some(1),
        links: udev.links_of(&kernel_names),
        holders: holders(root, name, &partitions),
        partitions,
    }
}

fn small(number: Option<u64>, default: u32) -> u32 {
    number
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(default)
}

/// NVMe and virtio tell it directly; SCSI in the vital product data page 0x80.
fn serial(root: &Root, directory: &str) -> Option<String> {
    let direct = ["device/serial", "serial"]
        .iter()
        .find_map(|file| root.line(&format!("{directory}/{file}")));
    direct.or_else(|| {
        let page = root.bytes(&format!("{directory}/device/vpd_pg80"))?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text = String::from_utf8_lossy(page.get(4..)?.get(..length)?).into_owned();
        let serial = text.trim().to_owned();
        (!serial.is_empty()).then_some(serial)
    })
}

/// What the disk hangs on, from its name and from its path through the devices.
fn bus(root: &Root, name: &str) -> Option<String> {
    let by_name = [
        ("nvme", "nvme"),
        ("vd", "virtio"),
        ("mmcblk", "mmc"),
        ("xvd", "xen"),
    ];
    if let Some((_, bus)) = by_name.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some((*bus).to_owned());
    }
    let path = root.link_target(&format!("/sys/block/{name}"))?;
    let is_part =
        |part: &str, prefix: &str| part.strip_prefix(prefix).is_some_and(starts_with_digit);
    let on = |prefix: &str| path.split('/').any(|part| is_part(part, prefix));
    let bus = if on("usb") {
        "usb"
    } else if on("ata") {
        "sata"
    } else if on("end_device-") || on("port-") {
        "sas"
    } else {
        return root
            .link_name(&format!("/sys/block/{name}/device/driver"))
            .map(|driver| {
                if driver == "sd" {
                    "scsi".to_owned()
                } else {
                    driver
                }
            });
    };
    Some(bus.to_owned())
}

fn partitions(root: &Root, disk: &str, udev: &UdevLinks) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = root
        .names(&format!("/sys/block/{disk}"))
        .into_iter()
        .filter(|name| name.starts_with(disk))
        .filter_map(|name| partition(root, disk, name, udev))
        .collect();
    partitions.sort_by_key(|partition| partition.number);
    partitions
}

fn partition(root: &Root, disk: &str, name: String, udev: &UdevLinks) -> Option<Partition> {
    let file = |file: &str| format!("/sys/block/{disk}/{name}/{file}");
    let number = u32::try_from(root.number(&file("partition"))?).ok()?;
    let bytes = |sectors: Option<u64>| sectors.unwrap_or(0).saturating_mul(SYSFS_SECTOR_BYTES);
    let property = |key: &str| udev.property(root, disk, &name, key);
    Some(Partition {
        number,
        start_bytes: bytes(root.number(&file("start"))),
        size_bytes: bytes(root.number(&file("size"))),
        filesystem: property("ID_FS_TYPE"),
        uuid: udev
            .name_of("by-uuid", &name)
            .or_else(|| property("ID_FS_UUID")),
        label: udev
            .name_of("by-label", &name)
            .or_else(|| property("ID_FS_LABEL")),
        name,
    })
}

fn holders(root: &Root, disk: &str, partitions: &[Partition]) -> Vec<String> {
    let mut holders = root.names(&format!("/sys/block/{disk}/holders"));
    for partition in partitions {
        holders.extend(root.names(&format!("/sys/block/{disk}/{}/holders", partition.name)));
    }
    holders.sort();
    holders.dedup();
    holders
}

/// The links that udev made: kernel name to `by-id/...`.
#[derive(Debug, Default)]
struct UdevLinks(BTreeMap<String, Vec<String>>);

impl UdevLinks {
    fn read(root: &Root) -> Self {
        let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for kind in root.names("/dev/disk") {
            let directory = format!("/dev/disk/{kind}");
            for name in root.names(&directory) {
                if let Some(target) = root.link_name(&format!("{directory}/{name}")) {
                    let link = format!("{kind}/{name}");
                    links.entry(target).or_default().push(link);
                }
            }
        }
        Self(links)
    }

    fn links_of(&self, kernel_names: &[&str]) -> Vec<(String, String)> {
        let mut links: Vec<(String, String)> = Vec::new();
        for kernel_name in kernel_names {
            for link in self.0.get(*kernel_name).into_iter().flatten() {
                links.push((link.clone(), (*kernel_name).to_owned()));
            }
        }
        links
    }

    /// The name of a kernel name's link in one directory; udev writes `\x20` for a space.
    fn name_of(&self, directory: &str, kernel_name: &str) -> Option<String> {
        let links = self.0.get(kernel_name)?;
        links
            .iter()
            .find_map(|link| link.strip_prefix(directory)?.strip_prefix('/'))
            .map(unescape)
    }

    /// A property in udev's database, where it runs.
    fn property(&self, root: &Root, disk: &str, name: &str, key: &str) -> Option<String> {
        let number = root.line(&format!("/sys/block/{disk}/{name}/dev"))?;
        let database = root.text(&format!("/run/udev/data/b{number}"))?;
        let value = database.lines().find_map(|line| {
            let line = line.strip_prefix("E:")?;
            line.strip_prefix(key)?.strip_prefix('=')
        })?;
        (!value.is_empty()).then(|| value.to_owned())
    }
}

/// `\xNN` back into the byte it stands for.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, escaped)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let digits = escaped.get(..2);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = escaped.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = escaped;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    #[test]
    fn a_sata_disk_tells_its_partitions_links_and_holders() {
        let server = PhonyServer::new();
        server.sata_disk("sda", 1_953_525_168);
        server.partition("sda", 1, 2048, 1_000_000);
        server.partition("sda", 10, 1_002_048, 2_000_000);
        server.partition("sda", 2, 3_002_048, 4_000_000);
        server.link("/dev/disk/by-uuid/1234-ABCD", "../../sda1");
        server.link("/dev/disk/by-label/my\\x20data", "../../sda2");
        server.link("/dev/disk/by-id/ata-ST1000_Z1", "../../sda");
        server.write("/sys/block/sda/sda2/holders/dm-0", "");
        let disks = disks(&server.root());
        assert_eq!(disks.len(), 1);
        let disk = &disks[0];
        assert_eq!(disk.size_bytes, 1_000_204_886_016);
        assert_eq!(disk.bus.as_deref(), Some("sata"));
        assert_eq!(disk.serial.as_deref(), Some("Z1D0SERIAL"));
        assert_eq!(disk.model.as_deref(), Some("ST1000NM0011"));
        assert!(disk.rotational);
        assert_eq!(
            (disk.sector_size_bytes, disk.physical_sector_size_bytes),
            (512, 4096)
        );
        let numbers: Vec<u32> = disk.partitions.iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 2, 10]);
        assert_eq!(disk.partitions[0].start_bytes, 1_048_576);
        assert_eq!(disk.partitions[0].uuid.as_deref(), Some("1234-ABCD"));
        assert_eq!(disk.partitions[1].label.as_deref(), Some("my data"));
        assert_eq!(disk.holders, ["dm-0"]);
        assert_eq!(
            disk.links,
            [
                ("by-id/ata-ST1000_Z1".to_owned(), "sda".to_owned()),
                ("by-uuid/1234-ABCD".to_owned(), "sda1".to_owned()),
                ("by-label/my\\x20data".to_owned(), "sda2".to_owned()),
            ]
        );
    }

    #[test]
    fn only_disks_with_hardware_behind_them_count_in_natural_order() {
        let server = PhonyServer::new();
        for name in [
            "sdb", "sdaa", "loop0", "dm-0", "md127", "zram0", "sr0", "nvme10n1", "nvme2n1",
        ] {
            server.write(&format!("/sys/block/{name}/size"), "2048\n");
        }
        server.write("/sys/block/sdc/size", "0\n");
        server.write("/sys/block/nvme0c0n1/size", "2048\n");
        server.write("/sys/block/nvme0c0n1/hidden", "1\n");
        let names: Vec<String> = disks(&server.root()).into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["sdb", "sdaa", "nvme2n1", "nvme10n1"]);
    }

    #[test]
    fn an_nvme_disk_tells_its_serial_and_namespace_identifier() {
        let server = PhonyServer::new();
        server.write("/sys/block/nvme0n1/size", "8192\n");
        server.write("/sys/block/nvme0n1/queue/logical_block_size", "4096\n");
        server.write("/sys/block/nvme0n1/device/model", "SAMSUNG MZQL2960    \n");
        server.write("/sys/block/nvme0n1/device/serial", "S64FNE0R\n");
        server.write("/sys/block/nvme0n1/wwid", "eui.36344630\n");
        server.partition("nvme0n1", 1, 8, 64);
        let disk = disks(&server.root()).remove(0);
        assert_eq!(disk.bus.as_deref(), Some("nvme"));
        assert_eq!(disk.model.as_deref(), Some("SAMSUNG MZQL2960"));
        assert_eq!(disk.serial.as_deref(), Some("S64FNE0R"));
        assert_eq!(disk.wwn.as_deref(), Some("eui.36344630"));
        assert_eq!(disk.sector_size_bytes, 4096);
        assert_eq!(disk.partitions[0].name, "nvme0n1p1");
        assert_eq!(disk.partitions[0].start_bytes, 4096);
    }
}
