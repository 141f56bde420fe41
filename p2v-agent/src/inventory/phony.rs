// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that do not exist, as trees of files: what the tests of the inventory read.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use crate::inventory::root::Root;

/// A server as a directory.
#[derive(Debug)]
pub(crate) struct PhonyServer(TempDir);

impl PhonyServer {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Its root.
    pub(crate) fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    /// Writes a file, with the directories it needs.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Makes a directory.
    pub(crate) fn directory(&self, path: &str) {
        fs::create_dir_all(self.root().path(path)).unwrap();
    }

    /// Makes a link.
    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A spinning SATA disk, through the path of devices that the kernel shows it at.
    pub(crate) fn sata_disk(&self, name: &str, sectors: u64) {
        let device = format!("/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/block/{name}");
        self.write(&format!("{device}/size"), format!("{sectors}\n"));
        self.write(&format!("{device}/queue/logical_block_size"), "512\n");
        self.write(&format!("{device}/queue/physical_block_size"), "4096\n");
        self.write(&format!("{device}/queue/rotational"), "1\n");
        self.write(&format!("{device}/device/model"), "ST1000NM0011    \n");
        self.write(&format!("{device}/device/wwid"), "naa.5000c5004f\n");
        self.write(
            &format!("{device}/device/vpd_pg80"),
            b"\x00\x80\x00\x14          Z1D0SERIAL",
        );
        self.link(
            &format!("/sys/block/{name}"),
            &format!("../devices/pci0000:00/0000:00:1f.2/ata1/host0/block/{name}"),
        );
    }

    /// A partition of a disk; start and size in units of 512 bytes.
    pub(crate) fn partition(&self, disk: &str, number: u32, start: u64, size: u64) {
        let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) {
            "p"
        } else {
            ""
        };
        let directory = format!("/sys/block/{disk}/{disk}{separator}{number}");
        self.write(&format!("{directory}/partition"), format!("{number}\n"));
        self.write(&format!("{directory}/start"), format!("{start}\n"));
        self.write(&format!("{directory}/size"), format!("{size}\n"));
    }
}
