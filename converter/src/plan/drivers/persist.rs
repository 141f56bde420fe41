// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's own next initramfs gets the drivers too, whatever makes it.
//!
//! | made by | file |
//! |---|---|
//! | initramfs-tools | `/etc/initramfs-tools/modules` |
//! | dracut | `/etc/dracut.conf.d/relevo.conf`: `add_drivers+=" ... "`, spaces included |
//! | mkinitcpio | `MODULES` of `/etc/mkinitcpio.conf`, an array or a list |
//! | mkinitfs | `features` of `/etc/mkinitfs/mkinitfs.conf` |
//! | mkinitrd of SUSE | `INITRD_MODULES` of `/etc/sysconfig/kernel` |
//! | mkinitrd with nash | `alias scsi_hostadapter` of `/etc/modprobe.conf`, and `alias eth0` |

use crate::guest::initramfs::Generator;
use crate::guest::kmod::ModuleName;
use crate::guest::kmod::blocked::unblocked;
use crate::inspect::{DriverPlace, FALLBACK_DISKS, Inspection, TextFile, WANTED};
use crate::plan::edit::{Change, Edit, Rewrites};

use super::{drivers_to_load, missing_modules, with_modules, with_words};

const REASON: &str = "initramfs images that the guest makes later have the drivers too";
const DRACUT_FILE: &str = "/etc/dracut.conf.d/relevo.conf";
const MODPROBE_CONF: &str = "/etc/modprobe.conf";

/// Plans the edits; gives those that make a file.
pub(super) fn plan(inspection: &Inspection, rewrites: &mut Rewrites) -> Vec<Edit> {
    let files = &inspection.files;
    if let Some(file) = &files.initramfs_modules {
        let drivers = drivers(inspection, Generator::InitramfsTools);
        rewrites.change(file, REASON, |text| with_modules(text, &drivers));
    }
    words(inspection, Generator::SuseMkinitrd, rewrites);
    words(inspection, Generator::Mkinitfs, rewrites);
    if let Some(file) = &files.modules.mkinitcpio {
        let drivers = drivers(inspection, Generator::Mkinitcpio);
        rewrites.change(file, REASON, |text| with_array(text, &drivers));
    }
    unblock(inspection, rewrites);
    let conf = inspection.device_files.modprobe.iter();
    for file in conf.filter(|file| file.place.guest_path == MODPROBE_CONF) {
        let drivers = drivers(inspection, Generator::Nash);
        if !drivers.is_empty() {
            rewrites.change(file, REASON, |text| {
                with_aliases(text, &drivers, inspection)
            });
        }
    }
    dracut(inspection, rewrites).into_iter().collect()
}

/// The drivers that kernels lack whose initramfs this program made.
fn drivers(inspection: &Inspection, generator: Generator) -> Vec<&'static str> {
    let mut drivers: Vec<&str> = Vec::new();
    for kernel in &inspection.kernels {
        let Some(initramfs) = &kernel.initramfs else {
            continue;
        };
        if initramfs.generator != generator {
            continue;
        }
        let missing = missing_modules(kernel, initramfs);
        let wanted = drivers_to_load(kernel, generator);
        if !missing
            .iter()
            .any(|module| wanted.contains(&module.name.as_str()))
        {
            continue;
        }
        let is_new = |name: &&str| !drivers.contains(name);
        let new: Vec<&str> = wanted.into_iter().filter(is_new).collect();
        drivers.extend(new);
    }
    let order: Vec<&str> = WANTED.into_iter().chain(FALLBACK_DISKS).collect();
    drivers.sort_by_key(|name| order.iter().position(|known| known == name));
    drivers
}

/// Lists of words in files of shell assignments.
fn words(inspection: &Inspection, generator: Generator, rewrites: &mut Rewrites) {
    let files = &inspection.files.modules;
    let mut drivers = drivers(inspection, generator);
    let (file, key) = match generator {
        Generator::SuseMkinitrd => (&files.suse, "INITRD_MODULES"),
        Generator::Mkinitfs => {
            // The feature has all drivers of virtio.
            drivers = drivers.iter().take(1).map(|_| "virtio").collect();
            (&files.mkinitfs, "features")
        }
        _ => return,
    };
    if let Some(file) = file {
        rewrites.change(file, REASON, |text| with_words(text, key, &drivers));
    }
}

/// `MODULES=(ext4)` or, before version 24, `MODULES="ext4"`.
fn with_array(before: &str, drivers: &[&str]) -> String {
    const KEY: &str = "MODULES=";
    let mut position = 0;
    for line in before.split_inclusive('\n') {
        let start = position + KEY.len() + 1;
        position += line.len();
        let Some(value) = line.strip_prefix(KEY) else {
            continue;
        };
        if !value.starts_with('(') {
            return with_words(before, "MODULES", drivers);
        }
        let rest = before.get(start..).unwrap_or_default();
        let Some((inside, _)) = rest.split_once(')') else {
            return before.to_owned();
        };
        let known: Vec<String> = inside
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']).replace('-', "_"))
            .collect();
        let mut added = String::new();
        for driver in drivers
            .iter()
            .filter(|name| !known.iter().any(|k| k == *name))
        {
            if !inside.is_empty() || !added.is_empty() {
                added.push(' ');
            }
            added.push_str(driver);
        }
        let end = start + inside.len();
        return format!("{}{added}{}", &before[..end], &before[end..]);
    }
    if drivers.is_empty() {
        return before.to_owned();
    }
    format!("{before}\nMODULES=({})\n", drivers.join(" "))
}

/// Drivers of controllers get the next free alias; those of cards become the virtual one's.
fn with_aliases(before: &str, drivers: &[&str], inspection: &Inspection) -> String {
    let mut after = String::new();
    let has_virtio_net = crate::plan::default_kernel(inspection)
        .is_some_and(|kernel| kernel.driver("virtio_net") != DriverPlace::Absent);
    let mut used: Vec<String> = Vec::new();
    let mut aliased: Vec<String> = Vec::new();
    for line in before.split_inclusive('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["alias", name, _] if has_virtio_net && is_card(name) => {
                after.push_str(&format!("alias {name} virtio_net\n"));
            }
            ["alias", name, driver] if name.starts_with("scsi_hostadapter") => {
                used.push((*name).to_owned());
                aliased.push(driver.replace('-', "_"));
                after.push_str(line);
            }
            _ => after.push_str(line),
        }
    }
    if !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    let mut names = std::iter::once("scsi_hostadapter".to_owned())
        .chain((1..).map(|number| format!("scsi_hostadapter{number}")))
        .filter(|name| !used.contains(name));
    // mkinitrd adds the driver of disks itself where there is one of a controller.
    let is_new = |name: &&&str| **name != "sd_mod" && !aliased.iter().any(|known| known == *name);
    for driver in drivers.iter().filter(is_new) {
        let name = names.next().unwrap_or_default();
        after.push_str(&format!("alias {name} {driver}\n"));
    }
    after
}

fn is_card(name: &str) -> bool {
    let number = name.strip_prefix("eth").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Drivers that the guest's modprobe is told not to load.
fn unblock(inspection: &Inspection, rewrites: &mut Rewrites) {
    let closures = inspection.kernels.iter().flat_map(|kernel| &kernel.closure);
    let drivers: Vec<ModuleName> = closures.map(|m| ModuleName::new(&m.name)).collect();
    for file in &inspection.device_files.modprobe {
        rewrites.change(
            file,
            "the guest may load the drivers of its virtual hardware",
            |text| unblocked(text, &drivers),
        );
    }
}

fn dracut(inspection: &Inspection, rewrites: &mut Rewrites) -> Option<Edit> {
    let drivers = drivers(inspection, Generator::Dracut);
    if drivers.is_empty() {
        return None;
    }
    let content = format!(
        "{}.\nadd_drivers+=\" {} \"\n",
        super::COMMENT,
        drivers.join(" ")
    );
    let existing: Option<&TextFile> = inspection.files.modules.dracut.as_ref();
    if let Some(file) = existing {
        rewrites.change(file, REASON, |_| content);
        return None;
    }
    Some(Edit {
        place: inspection.place_on_root(DRACUT_FILE)?,
        reasons: vec![REASON.to_owned()],
        change: Change::Create {
            content,
            mode: 0o644,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_added_to_an_array_or_a_list() {
        let drivers = ["virtio_pci", "virtio_blk"];
        for (before, after) in [
            ("MODULES=()\n", "MODULES=(virtio_pci virtio_blk)\n"),
            (
                "# MODULES=(x)\nMODULES=(\n  ext4\n  virtio-pci)\nHOOKS=(udev)\n",
                "# MODULES=(x)\nMODULES=(\n  ext4\n  virtio-pci virtio_blk)\nHOOKS=(udev)\n",
            ),
            (
                "MODULES=\"ahci\"\n",
                "MODULES=\"ahci virtio_pci virtio_blk\"\n",
            ),
            ("HOOKS=(x)", "HOOKS=(x)\nMODULES=(virtio_pci virtio_blk)\n"),
            ("MODULES=(\n", "MODULES=(\n"),
        ] {
            assert_eq!(with_array(before, &drivers), after);
            assert_eq!(with_array(after, &drivers), after);
        }
        assert_eq!(with_array("HOOKS=(x)", &[]), "HOOKS=(x)");
    }
}
