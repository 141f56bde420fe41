// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernel is started by itself: which of the boot loaders counts, and its default entry.

use crate::guest::bls::{BlsEntry, MenuKey, grub_order, without_suffix};
use crate::guest::boot_configuration::{BootConfiguration, Environment};
use crate::guest::boot_sector::BootCode;
use crate::guest::grub_cfg::GrubCfg;
use crate::guest::grub_menu::{self, MenuItem};
use crate::guest::grubenv::GrubEnv;
use crate::guest::loader_conf;
use crate::inspect::boot::{menu_key, read};
use crate::inspect::{Bootloader, BootloaderKind, Inspection, Kernel, TextFile, UkiFacts};
use crate::vm::Firmware;

/// The kernel that the boot loader starts by default: that of its default entry, else the first that
/// an entry names, else the newest.
pub(crate) fn default_kernel(inspection: &Inspection) -> Option<&Kernel> {
    let loaders = in_order(inspection);
    let named = loaders.iter().find_map(|loader| match loader.kind {
        BootloaderKind::SystemdBoot => started_by_systemd_boot(inspection, loader),
        _ => kernels_of(loader)
            .iter()
            .find_map(|path| kernel_at(inspection, loader, path)),
    });
    let uki = || inspection.ukis.first().map(|uki| &uki.kernel);
    named.or_else(|| inspection.kernels.first()).or_else(uki)
}

/// The boot loaders, the one that the firmware starts first.
pub(super) fn in_order(inspection: &Inspection) -> Vec<&Bootloader> {
    let mut loaders: Vec<&Bootloader> = inspection.bootloaders.iter().collect();
    loaders.sort_by_key(|loader| rank(inspection, loader));
    loaders
}

/// How far a boot loader is from being started: by the code in the boot sector, by what is on the EFI
/// system partition, else by how common it is.
fn rank(inspection: &Inspection, loader: &Bootloader) -> u8 {
    let is_grub = matches!(
        loader.kind,
        BootloaderKind::Grub2 | BootloaderKind::Bls | BootloaderKind::GrubLegacy
    );
    let common = match loader.kind {
        BootloaderKind::Grub2 | BootloaderKind::Bls => 1,
        BootloaderKind::GrubLegacy => 2,
        BootloaderKind::Extlinux => 3,
        BootloaderKind::Lilo => 4,
        BootloaderKind::SystemdBoot | BootloaderKind::Elilo => 5,
    };
    let is_started = match inspection.firmware {
        Firmware::Bios => {
            let codes = inspection.disks.iter().find_map(|disk| disk.boot_code_of);
            match codes {
                Some(BootCode::Grub) => is_grub,
                Some(BootCode::Lilo) => loader.kind == BootloaderKind::Lilo,
                Some(BootCode::Syslinux) => loader.kind == BootloaderKind::Extlinux,
                Some(BootCode::Windows) | None => false,
            }
        }
        Firmware::Uefi => {
            let efi = inspection.efi.as_ref();
            let has = |name: &str| {
                let mut loaders = efi.into_iter().flat_map(|efi| &efi.loaders);
                loaders.any(|path| path.to_ascii_lowercase().contains(name))
            };
            let on_esp = efi.is_some_and(|efi| efi.volume == loader.configuration.place.volume);
            match loader.kind {
                BootloaderKind::SystemdBoot => has("systemd-boot") && !has("/grub"),
                _ => on_esp && !kernels_of(loader).is_empty(),
            }
        }
    };
    if is_started { 0 } else { common }
}

/// What a boot loader of this name keeps itself.
fn environment(loader: &Bootloader) -> Environment {
    let Some(file) = &loader.environment else {
        return Environment::new();
    };
    match GrubEnv::parse(&file.text) {
        Some(block) => block.values(),
        // GRUB legacy writes the number of the entry into the first line.
        None => {
            let number = file.text.lines().next().unwrap_or_default().trim();
            Environment::from([("saved_entry".to_owned(), number.to_owned())])
        }
    }
}

/// The kernels that the entries start, the default one first.
fn kernels_of(loader: &Bootloader) -> Vec<String> {
    match loader.kind {
        BootloaderKind::Grub2 | BootloaderKind::Bls => kernels_of_grub(loader),
        _ => {
            let mut kernels = Vec::new();
            for file in loader.files() {
                let configuration = read(loader.kind, file, &file.text);
                let entries = configuration.entries();
                let default = configuration.default_entry(&environment(loader));
                let default = default.and_then(|default| entries.get(default));
                kernels.splice(0..0, default.map(|entry| entry.kernel.clone()));
                kernels.extend(entries.into_iter().map(|entry| entry.kernel));
            }
            kernels
        }
    }
}

fn kernels_of_grub(loader: &Bootloader) -> Vec<String> {
    let grub = GrubCfg::parse(loader.configuration.text.as_bytes());
    let mut menu = bls_menu(&loader.entries);
    menu.extend(grub_menu::menu(&grub));
    let default = grub_menu::default_value(&grub, &environment(loader));
    let default = grub_menu::chosen(&menu, &default).and_then(|item| item.kernel.clone());
    let all = menu.into_iter().filter_map(|item| item.kernel);
    default.into_iter().chain(all).collect()
}

fn is_entry(file: &TextFile) -> bool {
    file.place.path.contains("/loader/entries/")
}

fn file_name(file: &TextFile) -> &str {
    let path = &file.place.path;
    path.rsplit('/').next().unwrap_or(path)
}

/// The entries of the Boot Loader Specification as GRUB's menu shows them: the newest first.
fn bls_menu(files: &[TextFile]) -> Vec<MenuItem> {
    let mut files: Vec<&TextFile> = files.iter().filter(|file| is_entry(file)).collect();
    let id = |file: &TextFile| without_suffix(file_name(file)).to_owned();
    files.sort_by(|left, right| grub_order(&id(right), &id(left)));
    let items = files.into_iter().filter_map(|file| {
        let entry = BlsEntry::parse(&file.text).entries().into_iter().next()?;
        Some(MenuItem {
            id: Some(id(file)),
            title: entry.title,
            submenus: Vec::new(),
            kernel: Some(entry.kernel),
        })
    });
    items.collect()
}

/// systemd-boot's menu has entries in files and unified images.
fn started_by_systemd_boot<'a>(
    inspection: &'a Inspection,
    loader: &'a Bootloader,
) -> Option<&'a Kernel> {
    let mut menu: Vec<(MenuKey, String, Target<'_>)> = Vec::new();
    for file in loader.files().filter(|file| is_entry(file)) {
        let entry = BlsEntry::parse(&file.text);
        let key = MenuKey::of(file_name(file), &entry);
        menu.push((key, file_name(file).to_owned(), Target::Entry(entry)));
    }
    for uki in &inspection.ukis {
        let key = menu_key(uki);
        let name = format!("{}.efi", key.id);
        menu.push((key, name, Target::Image(uki)));
    }
    menu.sort_by(|left, right| left.0.menu_order(&right.0));
    let pattern = loader_conf::default_pattern(&loader.configuration.text);
    let meant = menu.iter().find(|(_, name, _)| {
        pattern
            .as_ref()
            .is_some_and(|p| loader_conf::is_meant(p, name))
    });
    let in_order = meant.into_iter().chain(&menu);
    in_order
        .filter_map(|(_, _, target)| match target {
            Target::Image(uki) => Some(&uki.kernel),
            Target::Entry(entry) => {
                let entry = entry.entries().into_iter().next()?;
                kernel_at(inspection, loader, &entry.kernel)
            }
        })
        .next()
}

/// What an entry of systemd-boot starts.
enum Target<'a> {
    Entry(BlsEntry),
    Image(&'a UkiFacts),
}

/// The kernel that an entry names by this path.
fn kernel_at<'a>(
    inspection: &'a Inspection,
    loader: &Bootloader,
    path: &str,
) -> Option<&'a Kernel> {
    let place = loader.loaded(path);
    let is_there = |kernel: &&Kernel| place == Some(&kernel.image);
    let by_place = inspection.kernels.iter().find(is_there);
    let file = format!("/{}", path.rsplit('/').next().unwrap_or(path));
    let by_name = || {
        let mut kernels = inspection.kernels.iter();
        kernels.find(|kernel| kernel.image.guest_path.ends_with(&file))
    };
    by_place.or_else(by_name)
}
