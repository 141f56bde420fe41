// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks with a server on them, made by the tools of its filesystem.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use converter::{GuestDisk, Secrets};
use disk::SectorSize;
use disk::block::{OpenOptions, open_disk};
use image_library::DiskIndex;

use super::toolbox::{module, tool};

const UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";

/// Where the modules are that are needed, whole folders.
const MODULE_FOLDERS: [&str; 9] = [
    "crypto",
    "lib",
    "fs/xfs",
    "fs/btrfs",
    "drivers/virtio",
    "drivers/block",
    "drivers/ata",
    "drivers/scsi",
    "arch/x86/crypto",
];

/// Others, of folders with very many.
const MODULES: [&str; 3] = [
    "drivers/net/virtio_net",
    "drivers/net/net_failover",
    "net/core/failover",
];

/// A server whose root is one filesystem, named as a disk that a virtual machine has not.
pub(super) fn tree(
    folder: &Path,
    kind: &str,
    image: &Path,
    modules: &Path,
    version: &str,
) -> Option<()> {
    let put = |path: &str, content: &[u8]| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
    program.resize(64, 0);
    put("usr/bin/sh", &program);
    put("usr/lib/systemd/systemd", &program);
    fs::create_dir_all(folder.join("usr/sbin")).unwrap();
    symlink("../lib/systemd/systemd", folder.join("usr/sbin/init")).unwrap();
    for name in ["bin", "sbin", "lib"] {
        symlink(format!("usr/{name}"), folder.join(name)).unwrap();
    }
    put(
        "etc/os-release",
        b"ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n",
    );
    put("etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
    put("etc/hostname", b"web01\n");
    let fstab = format!("/dev/sda1 / {kind} defaults 0 1\n");
    put("etc/fstab", fstab.as_bytes());
    put("etc/initramfs-tools/modules", b"# none\n");
    put("etc/initramfs-tools/initramfs.conf", b"MODULES=dep\n");
    let grub = format!(
        "menuentry 'Debian' {{\n\tlinux\t/boot/vmlinuz-{version} root=/dev/sda1 ro\n\
         \tinitrd\t/boot/initrd.img-{version}\n}}\n"
    );
    put("boot/grub/grub.cfg", grub.as_bytes());
    put(
        &format!("boot/vmlinuz-{version}"),
        &fs::read(image).unwrap(),
    );
    let inside = folder.with_extension("initramfs");
    fs::create_dir_all(inside.join("conf")).unwrap();
    fs::create_dir_all(inside.join(format!("usr/lib/modules/{version}"))).unwrap();
    fs::write(inside.join("init"), "#!/bin/sh\n").unwrap();
    fs::write(inside.join("conf/initramfs.conf"), "MODULES=dep\n").unwrap();
    let target = folder.join(format!("boot/initrd.img-{version}"));
    let script = format!(
        "cd {} && find . | cpio -o -H newc --quiet > {}",
        inside.display(),
        target.display()
    );
    tool("cpio", &["--version"])?;
    tool("sh", &["-c", &script])?;
    let to = folder.join(format!("usr/lib/modules/{version}/kernel"));
    let from = modules.join("kernel");
    let folders = MODULE_FOLDERS.map(|folder| Some(from.join(folder)));
    let others = MODULES.map(|name| module(modules, name));
    for source in folders.into_iter().chain(others) {
        let source = source?;
        let target = to.join(source.strip_prefix(&from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        tool(
            "cp",
            &["-r", source.to_str().unwrap(), target.to_str().unwrap()],
        )?;
    }
    for name in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        put(
            &format!("usr/lib/modules/{version}/{name}"),
            &fs::read(modules.join(name)).unwrap(),
        );
    }
    tool("depmod", &["-b", folder.to_str().unwrap(), version])
}

/// What mkfs.xfs makes a tree of: one line for each file, `$` behind each directory.
fn protofile(folder: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        let mode = found.mode() & 0o777;
        if found.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            *text += &format!("{name} l--777 0 0 {}\n", target.display());
        } else if found.is_dir() {
            *text += &format!("{name} d--{mode:03o} 0 0\n");
            protofile(&path, text);
            *text += "$\n";
        } else {
            *text += &format!("{name} ---{mode:03o} 0 0 {}\n", path.display());
        }
    }
}

/// A filesystem of a kind with a tree in it.
pub(super) fn make(kind: &str, tree: &Path, file: &Path) -> Option<()> {
    let image = fs::File::create(file).unwrap();
    image.set_len(512 << 20).unwrap();
    let name = file.to_str().unwrap();
    match kind {
        "xfs" => {
            let mut text = "boot\n0 0\nd--755 0 0\n".to_owned();
            protofile(tree, &mut text);
            let list = file.with_extension("proto");
            fs::write(&list, text + "$\n").unwrap();
            let uuid = format!("uuid={UUID}");
            tool(
                "mkfs.xfs",
                &["-q", "-m", &uuid, "-p", list.to_str().unwrap(), name],
            )
        }
        _ => tool(
            "mkfs.btrfs",
            &["-q", "-U", UUID, "--rootdir", tree.to_str().unwrap(), name],
        ),
    }
}

/// A disk with that filesystem as its first partition, behind a boot sector.
pub(super) fn disk(filesystem: &Path, file: &Path) -> GuestDisk {
    let mut sector = vec![0; 1 << 20];
    let sectors = u32::try_from(fs::metadata(filesystem).unwrap().len() / 512).unwrap();
    sector[0] = 0xeb;
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut target = fs::File::create(file).unwrap();
    target.write_all(&sector).unwrap();
    let mut source = fs::File::open(filesystem).unwrap();
    std::io::copy(&mut source, &mut target).unwrap();
    let opened = open_disk(file, &OpenOptions::default()).unwrap();
    GuestDisk {
        index: DiskIndex(0),
        name: Some("sda".to_owned()),
        device: opened.device,
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    }
}
