// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unified kernel images on the EFI system partition or the extended boot partition.
//!
//! Limits: 16 images of 512 MiB.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::bls::MenuKey;
use crate::guest::initramfs::{Initramfs, Limits};
use crate::guest::shell_config::ShellConfig;
use crate::guest::uki::Uki;
use crate::inspect::findings::finding;
use crate::inspect::inspection::{EfiFacts, FilePlace, UkiFacts};
use crate::inspect::kernels::describe;
use crate::inspect::tree::GuestTree;

const IMAGES_MAX: usize = 16;
const IMAGE_BYTES_MAX: u64 = 512 << 20;

/// Every image, in the order of the menu.
pub(crate) fn ukis(
    tree: &GuestTree,
    efi: Option<&EfiFacts>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<UkiFacts>> {
    let Some(efi) = efi else {
        return Ok(Vec::new());
    };
    let mut directories = vec![format!("{}/EFI/Linux", efi.mount_point)];
    if efi.mount_point != "/boot" {
        directories.push("/boot/EFI/Linux".to_owned());
    }
    let mut found: Vec<UkiFacts> = Vec::new();
    for directory in directories {
        for entry in tree.list(&directory)? {
            if found.len() >= IMAGES_MAX || !entry.name.to_ascii_lowercase().ends_with(".efi") {
                continue;
            }
            let path = format!("{directory}/{}", entry.name);
            let Some((place, metadata)) = tree.metadata(&path)? else {
                continue;
            };
            if metadata.size_bytes > IMAGE_BYTES_MAX {
                continue;
            }
            let bytes = tree.read_place(&place, IMAGE_BYTES_MAX)?;
            if let Some(uki) = Uki::parse(&bytes) {
                found.push(facts(tree, place, &uki, findings)?);
            }
        }
    }
    found.sort_by(|left, right| menu_key(left).menu_order(&menu_key(right)));
    Ok(found)
}

/// What systemd-boot orders an image by.
pub(crate) fn menu_key(uki: &UkiFacts) -> MenuKey {
    let path = &uki.kernel.image.path;
    let name = path.rsplit('/').next().unwrap_or(path);
    MenuKey {
        id: crate::guest::bls::without_suffix(name).to_owned(),
        sort_key: uki.sort_key.clone(),
        machine_id: None,
        version: uki.version.clone(),
    }
}

fn facts(
    tree: &GuestTree,
    place: FilePlace,
    uki: &Uki<'_>,
    findings: &mut Vec<Finding>,
) -> Result<UkiFacts> {
    let archive = uki.section(".initrd").and_then(|bytes| {
        let read = Initramfs::read(bytes, &|_| false, Limits::default());
        if let Err(error) = &read {
            let problem = format!("the initramfs inside cannot be read: {error}");
            let place = place.guest_path.clone();
            findings.push(finding(
                Level::Warning,
                "boot.uki.unreadable",
                place,
                problem,
            ));
        }
        read.ok()
    });
    let versions = archive.as_ref().map(Initramfs::kernel_versions);
    let version = uki.text(".uname").or_else(|| versions?.into_iter().next());
    let version = version.unwrap_or_else(|| {
        let name = place.path.rsplit('/').next().unwrap_or_default();
        crate::guest::bls::without_suffix(name).to_owned()
    });
    let modules = archive.map(|archive| archive.modules()).unwrap_or_default();
    let inside: BTreeSet<String> = modules
        .into_iter()
        .filter(|module| module.version.as_deref() == Some(version.as_str()))
        .map(|module| module.name.as_str().to_owned())
        .collect();
    let release = uki.text(".osrel").unwrap_or_default();
    let release = ShellConfig::parse(release.as_bytes());
    let first = |keys: &[&str]| keys.iter().find_map(|key| release.get(key));
    Ok(UkiFacts {
        kernel: describe(tree, &version, place, &inside, findings)?,
        command_line: uki.text(".cmdline"),
        name: first(&["PRETTY_NAME"]),
        sort_key: first(&["IMAGE_ID", "ID"]),
        version: first(&["IMAGE_VERSION", "VERSION_ID", "BUILD_ID"]),
        is_signed: uki.is_signed,
    })
}
