// SPDX-License-Identifier: MIT OR Apache-2.0
//! A loader where firmware looks for one that no entry of its memory names: `/EFI/BOOT/BOOTX64.EFI`.
//!
//! It is a copy of the one that the server's firmware started, which needs what stands beside it:
//!
//! | loader | copied | why it then finds its way |
//! |---|---|---|
//! | shim, fallback in `BOOT`, a CSV file names shim | shim | fallback makes entries of the CSV files, and starts one |
//! | shim, fallback in `BOOT`, no CSV file | GRUB, as `BOOTX64.EFI` | shim would start fallback, which would find nothing |
//! | shim | shim, GRUB, MokManager | shim starts the GRUB beside it |
//! | GRUB 2 | GRUB | where it looks for its files is inside it |
//! | GRUB legacy | GRUB, its configuration | it reads the `.conf` of its own name |
//! | systemd-boot | it | it reads `/loader` of its partition |
//!
//! Some builds of GRUB 2 read the `grub.cfg` beside them instead of the one of their vendor: they get
//! one that leads there. Facts: shim.c, fallback.c; the packages of the distributions.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{BootloaderKind, EfiFacts, EfiFile, FilePlace, Inspection};
use crate::plan::edit::{Change, Edit, Rewrites};
use crate::vm::Firmware;

/// Directories below `/EFI` that hold no loader of a Linux to be copied.
const OTHERS: [&str; 6] = ["boot", "linux", "microsoft", "tools", "dell", "hp"];

const FIRST: &str = "firmware without an entry for the boot loader looks for it here";
const BESIDE: &str = "shim, started there, looks for it beside itself";

/// The names of loaders for one kind of firmware, newer names first.
struct Names {
    target: &'static str,
    shim: &'static [&'static str],
    grub: &'static [&'static str],
    mok_manager: &'static [&'static str],
    fallback: &'static [&'static str],
    systemd_boot: &'static [&'static str],
}

const X64: Names = Names {
    target: "BOOTX64.EFI",
    shim: &["shimx64.efi", "shim.efi"],
    grub: &["grubx64.efi", "grub.efi"],
    mok_manager: &["mmx64.efi", "mokmanager.efi"],
    fallback: &["fbx64.efi", "fallback.efi"],
    systemd_boot: &["systemd-bootx64.efi"],
};
const IA32: Names = Names {
    target: "BOOTIA32.EFI",
    shim: &["shimia32.efi"],
    grub: &["grubia32.efi"],
    mok_manager: &["mmia32.efi"],
    fallback: &["fbia32.efi"],
    systemd_boot: &["systemd-bootia32.efi"],
};

/// Plans the copies, where there is no loader that firmware finds by itself.
pub(super) fn plan(
    inspection: &Inspection,
    rewrites: &Rewrites,
    findings: &mut Vec<Finding>,
) -> Vec<Edit> {
    let efi = match &inspection.efi {
        _ if inspection.firmware != Firmware::Uefi => return Vec::new(),
        Some(efi) if efi.removable_loader => return Vec::new(),
        Some(efi) => efi,
        None => {
            findings.push(nothing_to_copy(&BTreeSet::new()));
            return Vec::new();
        }
    };
    for names in [X64, IA32] {
        let copier = Copier { efi, names };
        let vendors = copier.vendors();
        match choose(&vendors, inspection) {
            Some(vendor) => return copier.edits(vendor, inspection, rewrites),
            None if vendors.is_empty() => {}
            None => {
                findings.push(nothing_to_copy(&vendors));
                return Vec::new();
            }
        }
    }
    findings.push(nothing_to_copy(&BTreeSet::new()));
    Vec::new()
}

fn nothing_to_copy(vendors: &BTreeSet<String>) -> Finding {
    let choice = match vendors
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => "there is none to copy".to_owned(),
        several => format!("which of {} to copy there is not known", several.join(", ")),
    };
    finding(
        Level::Error,
        "boot.uefi.nvram-only",
        "EFI system partition",
        format!(
            "only the firmware's own memory names the boot loader; a virtual machine starts with \
             an empty one and looks for /EFI/BOOT/BOOTX64.EFI, and {choice}"
        ),
    )
    .remedy("on the server: grub-install --removable, then take a new image")
}

/// The directory whose loader the server's firmware most probably started.
fn choose<'a>(vendors: &'a BTreeSet<String>, inspection: &Inspection) -> Option<&'a String> {
    let name = |vendor: &str| {
        vendor
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let has = |kind| {
        inspection
            .bootloaders
            .iter()
            .any(|loader| loader.kind == kind)
    };
    let is_systemd = has(BootloaderKind::SystemdBoot) && !has(BootloaderKind::Grub2);
    let id = inspection
        .system
        .as_ref()
        .map_or("", |system| system.id.as_str());
    let wanted: Vec<&str> = match id {
        _ if is_systemd => vec!["systemd"],
        "rhel" => vec!["redhat"],
        "sles" | "sled" => vec!["sles", "sled", "suse"],
        "ol" | "centos" | "rocky" | "almalinux" | "scientific" => vec![id, "redhat"],
        _ if id.starts_with("opensuse") => vec!["opensuse", "suse"],
        _ => vec![id],
    };
    let by_system = wanted
        .iter()
        .find_map(|wanted| vendors.iter().find(|vendor| name(vendor) == *wanted));
    let only = || vendors.first().filter(|_| vendors.len() == 1);
    by_system.or_else(only)
}

/// Copies loaders on one partition.
struct Copier<'a> {
    efi: &'a EfiFacts,
    names: Names,
}

impl Copier<'_> {
    /// The directories with a loader that can be copied.
    fn vendors(&self) -> BTreeSet<String> {
        let directories = self
            .efi
            .loaders
            .iter()
            .filter_map(|path| path.rsplit_once('/'));
        let directories = directories.map(|(directory, _)| directory);
        directories
            .filter(|directory| {
                let name = directory.rsplit('/').next().unwrap_or_default();
                !OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
            })
            .filter(|directory| {
                let starts = |names| self.file(directory, names).is_some();
                starts(self.names.grub)
                    || starts(self.names.systemd_boot)
                    || self.fallback(directory)
            })
            .map(str::to_owned)
            .collect()
    }

    /// A file of a directory, by the first of these names that is there.
    fn file(&self, directory: &str, names: &[&str]) -> Option<&EfiFile> {
        names.iter().find_map(|name| {
            let path = format!("{directory}/{name}");
            let mut files = self.efi.files.iter();
            files.find(|file| file.path.eq_ignore_ascii_case(&path))
        })
    }

    /// The directory that firmware looks into, written as it is where it is there.
    fn target(&self) -> String {
        let directory = |path: &str| {
            path.rsplit_once('/')
                .map(|(directory, _)| directory.to_owned())
        };
        let mut directories = self
            .efi
            .files
            .iter()
            .filter_map(|file| directory(&file.path));
        let known = directories.find(|known| known.eq_ignore_ascii_case("/efi/boot"));
        let root = || {
            let path = self.efi.loaders.first()?;
            let end = path.get(1..)?.find('/')?;
            path.get(..=end).map(str::to_owned)
        };
        known.unwrap_or_else(|| format!("{}/BOOT", root().unwrap_or_else(|| "/EFI".to_owned())))
    }

    /// Whether shim, started as the removable loader, would have fallback start this directory's.
    fn fallback(&self, directory: &str) -> bool {
        let has_fallback = self.file(&self.target(), self.names.fallback).is_some();
        let shim = self.file(directory, self.names.shim);
        let is_named = |file: &EfiFile| {
            let mut named = self.efi.fallback_entries.iter();
            named.any(|path| path.eq_ignore_ascii_case(&file.path))
        };
        has_fallback && shim.is_some_and(is_named)
    }

    fn edits(&self, vendor: &str, inspection: &Inspection, rewrites: &Rewrites) -> Vec<Edit> {
        let target = self.target();
        let first = format!("{target}/{}", self.names.target);
        let shim = self.file(vendor, self.names.shim);
        let grub = self.file(vendor, self.names.grub);
        let mok_manager = self.file(vendor, self.names.mok_manager);
        let systemd_boot = self.file(vendor, self.names.systemd_boot);
        let has_fallback = self.file(&target, self.names.fallback).is_some();
        let beside = |file: &EfiFile| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            self.copy(file, format!("{target}/{name}"), BESIDE)
        };
        let mut edits = Vec::new();
        match (shim, grub) {
            (Some(shim), _) if self.fallback(vendor) => {
                edits.extend(self.copy(shim, first, FIRST));
            }
            (Some(shim), Some(grub)) if !has_fallback => {
                edits.extend(self.copy(shim, first, FIRST));
                edits.extend(beside(grub));
                edits.extend(mok_manager.and_then(beside));
                edits.extend(self.leading(vendor, &target));
            }
            (_, Some(grub)) => {
                edits.extend(self.copy(grub, first, FIRST));
                edits.extend(self.legacy(vendor, &target, inspection, rewrites));
                edits.extend(self.leading(vendor, &target));
            }
            (_, None) => edits.extend(systemd_boot.and_then(|file| self.copy(file, first, FIRST))),
        }
        edits
    }

    fn place(&self, path: String) -> FilePlace {
        FilePlace {
            volume: self.efi.volume,
            guest_path: format!("{}{path}", self.efi.mount_point),
            path,
        }
    }

    /// `None` where such a file is there already.
    fn copy(&self, file: &EfiFile, path: String, reason: &str) -> Option<Edit> {
        let mut files = self.efi.files.iter();
        if files.any(|known| known.path.eq_ignore_ascii_case(&path)) {
            return None;
        }
        Some(Edit {
            place: self.place(path),
            reasons: vec![reason.to_owned()],
            change: Change::Copy {
                from: self.place(file.path.clone()),
                hash: file.hash.clone(),
                size_bytes: file.size_bytes,
                mode: 0o644,
            },
        })
    }

    /// A configuration that leads to the vendor's, for a GRUB that reads the one beside it.
    fn leading(&self, vendor: &str, target: &str) -> Option<Edit> {
        let configuration = self.file(vendor, &["grub.cfg"])?;
        if self.file(target, &["grub.cfg"]).is_some() {
            return None;
        }
        let path = &configuration.path;
        let directory = path
            .rsplit_once('/')
            .map_or(vendor, |(directory, _)| directory);
        Some(Edit {
            place: self.place(format!("{target}/grub.cfg")),
            reasons: vec![
                "GRUB may read the configuration beside it: this leads to its own".into(),
            ],
            change: Change::Create {
                content: format!(
                    "search --no-floppy --file --set=root {path}\n\
                     set prefix=($root){directory}\n\
                     configfile $prefix/grub.cfg\n"
                ),
                mode: 0o644,
            },
        })
    }

    /// The configuration of GRUB legacy, as it will be.
    fn legacy(
        &self,
        vendor: &str,
        target: &str,
        inspection: &Inspection,
        rewrites: &Rewrites,
    ) -> Option<Edit> {
        let configuration = self.file(vendor, &["grub.conf"])?;
        let mut loaders = inspection.bootloaders.iter();
        let loader = loaders.find(|loader| {
            let place = &loader.configuration.place;
            place.volume == self.efi.volume && place.path == configuration.path
        })?;
        let name = self.names.target.replace(".EFI", ".conf");
        Some(Edit {
            place: self.place(format!("{target}/{name}")),
            reasons: vec![
                "GRUB legacy reads the configuration of its own name; kernels that are installed \
                 later have to be added here too"
                    .to_owned(),
            ],
            change: Change::Create {
                content: rewrites.current(&loader.configuration),
                mode: 0o644,
            },
        })
    }
}
