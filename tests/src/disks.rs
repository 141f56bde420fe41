// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small disks made in a second: what is enough to be refused for one reason.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::damage::overwrite;

const MIB: u64 = 1 << 20;

/// Bytes that no two blocks have alike, the same ones for the same seed.
#[must_use]
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 8).to_le_bytes());
    }
    bytes
}

/// An empty sparse disk file.
///
/// # Panics
/// When the file cannot be made.
#[must_use]
pub fn raw_disk(folder: &Path, name: &str, size_mib: u64) -> PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).expect("the work directory can be written to");
    file.set_len(size_mib * MIB)
        .expect("the work directory can hold a sparse file");
    path
}

/// A file with an ext4 filesystem in blocks of 4 KiB that holds the files of a directory.
///
/// # Panics
/// When `mke2fs` fails.
#[must_use]
pub fn raw_ext4(folder: &Path, name: &str, size_mib: u64, tree: &Path) -> PathBuf {
    let path = raw_disk(folder, name, size_mib);
    let output = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"])
        .args([tree, &path])
        .output()
        .expect("mke2fs is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

/// The files of a Debian server that never ran: enough to be recognised, told apart and refused.
#[derive(Debug)]
pub struct PhonyServer {
    tree: PathBuf,
}

impl PhonyServer {
    /// A server with an operating system's name, an fstab and a GRUB menu, but no kernel.
    ///
    /// # Panics
    /// When the work directory cannot be written to.
    #[must_use]
    pub fn without_kernel(folder: &Path) -> Self {
        let server = Self {
            tree: folder.join("tree"),
        };
        server.file(
            "etc/os-release",
            "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n",
        );
        server.file("etc/debian_version", "12.5\n");
        server.file("etc/hostname", "phony\n");
        server.file("sbin/init", "not a program\n");
        server.file("etc/fstab", "/dev/sda1 / ext4 errors=remount-ro 0 1\n");
        server.file("boot/grub/grub.cfg", "set timeout=2\n");
        fs::create_dir_all(server.tree.join("usr/bin")).expect("the tree is ours");
        server
    }

    /// The same with a kernel and its modules, but no initramfs.
    ///
    /// # Panics
    /// When the work directory cannot be written to.
    #[must_use]
    pub fn without_initramfs(folder: &Path) -> Self {
        let server = Self::without_kernel(folder);
        server.file("boot/vmlinuz-6.1.0-18-amd64", &kernel_header());
        server.file(
            "boot/config-6.1.0-18-amd64",
            "CONFIG_MODULES=y\nCONFIG_VIRTIO_PCI=m\n",
        );
        server.file("lib/modules/6.1.0-18-amd64/modules.dep", "");
        server.file("lib/modules/6.1.0-18-amd64/modules.builtin", "");
        server.file(
            "boot/grub/grub.cfg",
            "menuentry 'Debian' {\n\
             \tlinux /boot/vmlinuz-6.1.0-18-amd64 root=/dev/sda1 ro\n\
             \tinitrd /boot/initrd.img-6.1.0-18-amd64\n}\n",
        );
        server
    }

    /// The same, and its kernel needs none: the drivers of virtual hardware are built in.
    ///
    /// # Panics
    /// When the work directory cannot be written to.
    #[must_use]
    pub fn with_drivers_built_in(folder: &Path) -> Self {
        let server = Self::without_initramfs(folder);
        let drivers = [
            "virtio/virtio_pci",
            "block/virtio_blk",
            "scsi/virtio_scsi",
            "scsi/sd_mod",
            "net/virtio_net",
        ];
        let names = drivers.map(|driver| format!("kernel/drivers/{driver}.ko\n"));
        server.file(
            "lib/modules/6.1.0-18-amd64/modules.builtin",
            &names.concat(),
        );
        server.file(
            "boot/grub/grub.cfg",
            "menuentry 'Debian' {\n\
             \tlinux /boot/vmlinuz-6.1.0-18-amd64 root=/dev/sda1 ro\n}\n",
        );
        server
    }

    /// The same with LILO in place of GRUB, whose map of sectors does not fit any more.
    ///
    /// # Panics
    /// When the work directory cannot be written to.
    #[must_use]
    pub fn started_by_lilo(folder: &Path) -> Self {
        let server = Self::with_drivers_built_in(folder);
        fs::remove_file(server.tree.join("boot/grub/grub.cfg")).expect("it was just written");
        server.file(
            "etc/lilo.conf",
            "boot=/dev/sda\nroot=/dev/sda1\n\n\
             image=/boot/vmlinuz-6.1.0-18-amd64\n\tlabel=Linux\n\tread-only\n",
        );
        server
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("the tree is ours");
        fs::write(path, content).expect("the tree is ours");
    }

    /// The server on a disk: MBR, one ext4 partition.
    ///
    /// # Panics
    /// When `mke2fs` fails.
    #[must_use]
    pub fn on_disk(&self, folder: &Path) -> PathBuf {
        let disk = raw_disk(folder, "phony.raw", 65);
        let partition = raw_ext4(folder, "phony.ext4", 64, &self.tree);
        write_mbr(&disk, 0x83, MIB, 64 * MIB);
        let content = fs::read(&partition).expect("mke2fs has just written it");
        overwrite(&disk, MIB, &content);
        disk
    }
}

/// Writes a partition table with one partition.
pub(crate) fn write_mbr(disk: &Path, kind: u8, start: u64, length: u64) {
    let sectors = |bytes: u64| u32::try_from(bytes / 512).expect("the disks here are small");
    let mut entry = [0_u8; 16];
    entry[0] = 0x80;
    entry[4] = kind;
    entry[8..12].copy_from_slice(&sectors(start).to_le_bytes());
    entry[12..16].copy_from_slice(&sectors(length).to_le_bytes());
    overwrite(disk, 446, &entry);
    overwrite(disk, 510, &[0x55, 0xAA]);
}

/// As much of a kernel image as names its version: the setup header of the x86 boot protocol.
fn kernel_header() -> String {
    let mut header = vec![0_u8; 0x400];
    header[0x1FE..0x200].copy_from_slice(&[0x55, 0x2A]);
    header[0x202..0x206].copy_from_slice(b"HdrS");
    header[0x20E..0x210].copy_from_slice(&[0x00, 0x01]);
    header[0x300..0x310].copy_from_slice(b"6.1.0-18-amd64 (");
    String::from_utf8(header).expect("every byte above is ASCII")
}
