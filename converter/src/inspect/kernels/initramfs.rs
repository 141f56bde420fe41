// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel's initramfs: what made it, which modules are inside, and the files inside that name
//! disks or drivers.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::cpio::FileKind;
use crate::guest::initramfs::{Generator, Initramfs, Limits, dracut, ramdisk_filesystem};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::inspection::{InitramfsFacts, InnerFile};
use crate::inspect::kernels::images::Image;
use crate::inspect::tree::GuestTree;

const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
/// Configuration is small; what is longer is something else.
const TEXT_LENGTH_MAX: usize = 256 << 10;

/// An initramfs, or that it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) facts: Option<InitramfsFacts>,
    /// The names of the modules inside.
    pub(super) inside: BTreeSet<String>,
    /// Its path where it is there and cannot be read.
    pub(super) unreadable: Option<String>,
}

/// Reads the initramfs of a kernel.
pub(super) fn read(tree: &GuestTree, image: &Image, findings: &mut Vec<Finding>) -> Result<Found> {
    for path in &image.initramfs_paths {
        let Some((file, bytes)) = tree.read(path, INITRAMFS_BYTES_MAX)? else {
            continue;
        };
        let archive = match Initramfs::read(&bytes, &is_wanted_file, Limits::default()) {
            Ok(archive) => archive,
            Err(error) => {
                findings.push(unreadable(path, &bytes, &error));
                return Ok(Found {
                    unreadable: Some(path.clone()),
                    ..Found::default()
                });
            }
        };
        let inside: BTreeSet<String> = archive
            .modules()
            .into_iter()
            // Without a directory for each version, all are of the kernel that it is for.
            .filter(|module| {
                let version = module.version.as_deref();
                version.is_none_or(|version| version == image.version)
            })
            .map(|module| module.name.as_str().to_owned())
            .collect();
        let generator = archive.generator();
        let facts = InitramfsFacts {
            file,
            size_bytes: bytes.len() as u64,
            hash: blake3::hash(&bytes).to_hex().to_string(),
            compression: archive.placement().compression,
            generator,
            module_count: inside.len(),
            files: inner_files(&archive, generator),
            waits: waits(&archive),
            signed: tree.exists(&format!("{path}.sig"))?,
        };
        return Ok(Found {
            facts: Some(facts),
            inside,
            unreadable: None,
        });
    }
    Ok(Found::default())
}

fn unreadable(path: &str, bytes: &[u8], error: &disk::Error) -> Finding {
    match ramdisk_filesystem(bytes) {
        Some(name) => finding(
            Level::Error,
            "initramfs.ramdisk",
            path,
            format!("it is an image of a filesystem ({name}), as kernels before 2.6 have it"),
        )
        .remedy("put the virtio or IDE drivers into it on the server, if its kernel has any"),
        None => finding(
            Level::Error,
            "initramfs.unreadable",
            path,
            error.to_string(),
        )
        .remedy("rebuild it on the server with `update-initramfs -u` or `dracut --force`"),
    }
}

/// The files inside an initramfs whose text a plan may have to override.
fn is_wanted_file(path: &str) -> bool {
    const NAMES: [&str; 15] = [
        "init",
        "config",
        "run_all.sh",
        "conf/modules",
        "cryptroot/crypttab",
        "etc/cmdline",
        "etc/crypttab",
        "etc/fstab",
        "etc/fstab.sys",
        "etc/lvm/lvm.conf",
        "etc/lvm/devices/system.devices",
        "etc/mdadm.conf",
        "etc/mdadm/mdadm.conf",
        "etc/modprobe.conf",
        "etc/modprobe.conf.local",
    ];
    let starts = ["conf/conf.d/", "etc/cmdline.d/"];
    NAMES.contains(&path)
        || starts.iter().any(|start| path.starts_with(start))
        || path.contains("modprobe.d/")
        || (path.starts_with("config/") && path.ends_with(".sh"))
        || (path.contains("systemd/network/") && path.ends_with(".link"))
        || dracut::is_finished_script(path)
}

fn inner_files(archive: &Initramfs, generator: Generator) -> Vec<InnerFile> {
    let has_devices_file = archive.entry("etc/lvm/devices/system.devices").is_some();
    archive
        .kept()
        .filter(|(path, bytes)| match *path {
            _ if bytes.len() > TEXT_LENGTH_MAX => false,
            "init" => generator == Generator::Nash,
            "config" => generator == Generator::Mkinitcpio,
            // A hundred kilobytes of explanations as a rule, and nothing else.
            "etc/lvm/lvm.conf" => has_devices_file || filters_disks(bytes),
            _ => true,
        })
        .map(|(path, bytes)| InnerFile {
            path: path.to_owned(),
            text: String::from_utf8_lossy(bytes).into_owned(),
        })
        .collect()
}

fn filters_disks(lvm_conf: &[u8]) -> bool {
    let text = String::from_utf8_lossy(lvm_conf);
    let mut lines = text.lines().map(str::trim_start);
    lines.any(|line| line.starts_with("filter") || line.starts_with("global_filter"))
}

/// Links that make systemd wait for a device.
fn waits(archive: &Initramfs) -> Vec<String> {
    archive
        .entries()
        .filter(|(_, node)| node.kind == FileKind::Symlink)
        .filter(|(path, _)| dracut::wanted_device(path).is_some())
        .map(|(path, _)| path.to_owned())
        .collect()
}
