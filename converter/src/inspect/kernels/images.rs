// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where distributions put a kernel, its initramfs and its modules.
//!
//! | distribution | kernel | initramfs | modules |
//! |---|---|---|---|
//! | Debian, Ubuntu | `/boot/vmlinuz-V` | `initrd.img-V` | `V` |
//! | Fedora, RHEL from 6 | `/boot/vmlinuz-V` | `initramfs-V.img` | `V` |
//! | RHEL up to 5 | `/boot/vmlinuz-V` | `initrd-V.img` | `V` |
//! | SUSE | `/boot/vmlinuz-V` | `initrd-V` | `V` |
//! | Arch | `/boot/vmlinuz-linux` | `initramfs-linux.img` | the one whose `pkgbase` is `linux` |
//! | Alpine | `/boot/vmlinuz-lts` | `initramfs-lts` | the one whose `kernel-suffix` is `lts` |
//! | Gentoo | `/boot/kernel-genkernel-x86_64-V` | `initramfs-genkernel-x86_64-V` | `V` |
//! | kernel-install | `/boot/ID/V/linux` | `/boot/ID/V/initrd`, or as it was named before | `V` |
//!
//! Where the name of a kernel is not its version, the image itself says it: the boot protocol's header
//! (Documentation/arch/x86/boot.rst) points to the text that `uname -r` prints.
//!
//! Not here: rescue kernels (`0-rescue-ID`, whose initramfs is made for any hardware), initramfs images
//! for kdump, Arch's fallback images: no entry that starts by default names them.

use disk::filesystem::FileType;

use crate::error::Result;
use crate::guest::boot_header::BootHeader;
use crate::inspect::inspection::FilePlace;
use crate::inspect::tree::GuestTree;

/// A kernel's files, as their names tell.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) version: String,
    pub(super) place: FilePlace,
    /// Paths that an initramfs for it may have, best first.
    pub(super) initramfs_paths: Vec<String>,
}

const MODULES: &str = "/lib/modules";
const IMAGE_BYTES_MAX: u64 = 64 << 20;
const IMAGES_MAX: usize = 64;
const PREFIXES: [&str; 5] = ["vmlinuz-", "vmlinux-", "kernel-", "bzImage-", "linux-"];
/// Directories that kernel-install fills.
const INSTALL_ROOTS: [&str; 3] = ["/boot", "/boot/efi", "/efi"];
/// Files in a directory of modules that say which image it belongs to.
const OWNERS: [&str; 2] = ["pkgbase", "kernel-suffix"];

/// Every kernel, without regard to order.
pub(super) fn images(tree: &GuestTree) -> Result<Vec<Image>> {
    let mut found: Vec<Image> = Vec::new();
    for (directory, name, stem) in candidates(tree)? {
        let Some((place, metadata)) = tree.metadata(&format!("{directory}/{name}"))? else {
            continue;
        };
        // A link to the newest one, as SUSE has it.
        let known = found.iter().any(|image| image.place == place);
        if known || metadata.file_type != FileType::File || found.len() == IMAGES_MAX {
            continue;
        }
        found.push(Image {
            version: version(tree, &stem, &place)?,
            initramfs_paths: initramfs_paths(&directory, &name, &stem),
            place,
        });
    }
    Ok(found)
}

/// Directory, name and version-like part of every file that may be a kernel.
fn candidates(tree: &GuestTree) -> Result<Vec<(String, String, String)>> {
    let mut candidates = Vec::new();
    let mut unnamed = Vec::new();
    for entry in tree.list("/boot")? {
        let stem = PREFIXES
            .iter()
            .find_map(|prefix| entry.name.strip_prefix(prefix));
        match stem {
            Some(stem) if !is_leftover(stem) => {
                candidates.push(("/boot".to_owned(), entry.name.clone(), stem.to_owned()));
            }
            None if matches!(entry.name.as_str(), "vmlinuz" | "bzImage") => {
                unnamed.push(("/boot".to_owned(), entry.name.clone(), String::new()));
            }
            _ => {}
        }
    }
    for root in INSTALL_ROOTS {
        for entry in tree.list(root)? {
            if !is_machine_id(&entry.name) || entry.file_type != FileType::Directory {
                continue;
            }
            for version in tree.list(&format!("{root}/{}", entry.name))? {
                let directory = format!("{root}/{}/{}", entry.name, version.name);
                candidates.push((directory, "linux".to_owned(), version.name));
            }
        }
    }
    // Last, so that a link to a kernel with a name is no second one.
    candidates.append(&mut unnamed);
    Ok(candidates)
}

fn is_machine_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What package managers leave beside a kernel, and what is no kernel to start.
fn is_leftover(stem: &str) -> bool {
    let ends = [
        ".old",
        ".bak",
        ".dpkg-new",
        ".dpkg-old",
        ".dpkg-tmp",
        ".rpmsave",
        ".rpmnew",
        // SUSE's images for debuggers, and signatures.
        ".gz",
        ".hmac",
        ".sig",
        ".efi",
    ];
    stem.is_empty() || stem.starts_with("0-rescue") || ends.iter().any(|end| stem.ends_with(end))
}

/// The paths that an initramfs of this kernel may have.
fn initramfs_paths(directory: &str, name: &str, stem: &str) -> Vec<String> {
    let names = if stem.is_empty() {
        ["initrd.img", "initramfs.img", "initrd", "initrd.gz"]
            .map(str::to_owned)
            .to_vec()
    } else if name == "linux" {
        let mut names = ["initrd", "initramfs", "initrd.img"]
            .map(str::to_owned)
            .to_vec();
        names.push(format!("initrd.img-{stem}"));
        names.push(format!("initramfs-{stem}.img"));
        names
    } else {
        vec![
            format!("initrd.img-{stem}"),
            format!("initramfs-{stem}.img"),
            format!("initrd-{stem}"),
            format!("initrd-{stem}.img"),
            format!("initramfs-{stem}"),
        ]
    };
    let paths = names.into_iter().map(|name| format!("{directory}/{name}"));
    paths.collect()
}

/// The release of a kernel: the name of its directory of modules.
fn version(tree: &GuestTree, stem: &str, place: &FilePlace) -> Result<String> {
    let has_modules = |version: &str| tree.exists(&format!("{MODULES}/{version}"));
    if !stem.is_empty() && has_modules(stem)? {
        return Ok(stem.to_owned());
    }
    // One that cannot be read is known by its name.
    let image = tree.read_place(place, IMAGE_BYTES_MAX).unwrap_or_default();
    let release = BootHeader::read(&image).and_then(|header| header.release());
    let release = release.map(str::to_owned);
    if let Some(release) = &release
        && has_modules(release)?
    {
        return Ok(release.clone());
    }
    for entry in tree.list(MODULES)? {
        for owner in OWNERS {
            let owned_by = tree.text(&format!("{MODULES}/{}/{owner}", entry.name))?;
            if owned_by.is_some_and(|file| file.text.trim() == stem) {
                return Ok(entry.name);
            }
        }
        if stem.ends_with(&format!("-{}", entry.name)) {
            return Ok(entry.name);
        }
    }
    let named = if stem.is_empty() { "unknown" } else { stem };
    Ok(release.unwrap_or_else(|| named.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_beside_a_kernel_is_none() {
        for name in ["6.1.0-28-amd64.dpkg-tmp", "0-rescue-abc", "5.3.18.gz", ""] {
            assert!(is_leftover(name), "{name}");
        }
        assert!(!is_leftover("6.1.0-28-amd64"));
        assert!(!is_leftover("lts"));
    }

    #[test]
    fn kernel_install_keeps_the_name_that_debian_gives_an_initramfs() {
        let directory = "/boot/efi/1168003d753b42a09e68925a526e8888/6.12.107+deb13-amd64";
        let paths = initramfs_paths(directory, "linux", "6.12.107+deb13-amd64");
        assert!(paths.contains(&format!("{directory}/initrd.img-6.12.107+deb13-amd64")));
        assert_eq!(paths[0], format!("{directory}/initrd"));
    }
}
