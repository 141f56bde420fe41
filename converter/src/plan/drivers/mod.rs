// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every initramfs gets the drivers of virtual hardware that it lacks, and what else must be true
//! inside it: the modules that are loaded, the disks that are waited for, the names of cards.
//!
//! | made by | loads an added module because |
//! |---|---|
//! | initramfs-tools | `conf/modules` names it |
//! | dracut, mkinitfs | the hardware asks for it, and the indexes know it |
//! | mkinitcpio | the same, and `MODULES` of `config` names it |
//! | mkinitrd of SUSE | `run_all.sh` loads it before udev starts |
//! | mkinitrd with nash | `init` has an `insmod` for it |

pub(crate) mod obstacle;
mod overrides;
mod persist;
#[cfg(test)]
mod tests;

use disk::{Finding, Level};

use crate::guest::initramfs::{Generator, nash, suse_mkinitrd};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{
    DriverPlace, FALLBACK_DISKS, InitramfsFacts, InnerFile, Inspection, Kernel, ModuleFacts, WANTED,
};
use crate::plan::devices::text_of;
use crate::plan::edit::{AddedModule, Change, Edit, InitramfsAppend, Rewrites};
use crate::plan::vm;
use crate::vm::DiskController;

use obstacle::{NASH_SCRIPT, SUSE_SCRIPT, hindered, obstacle};

/// The list of modules inside an initramfs of initramfs-tools.
const INNER_MODULES: &str = "conf/modules";
const MKINITCPIO_CONFIG: &str = "config";
/// Where nash scripts have their modules.
const FLAT_DIRECTORY: &str = "lib";
const COMMENT: &str = "# Drivers of virtual hardware";

/// Plans what each initramfs gets, and makes the guest's own next one get it too.
pub(crate) fn plan(
    inspection: &Inspection,
    names: DeviceNames<'_>,
    links: &[InnerFile],
    rewrites: &mut Rewrites,
    findings: &mut Vec<Finding>,
) -> Vec<Edit> {
    let default = crate::plan::default_kernel(inspection);
    let mut edits = persist::plan(inspection, rewrites);
    for kernel in &inspection.kernels {
        let is_default = default.is_some_and(|default| default.version == kernel.version);
        let level = if is_default {
            Level::Error
        } else {
            weigh_unreadable(kernel, findings);
            Level::Warning
        };
        check(kernel, level, findings);
        if let Some(initramfs) = &kernel.initramfs
            && obstacle(initramfs).is_none()
        {
            edits.extend(append(kernel, initramfs, names, links));
        }
    }
    edits
}

/// An initramfs that cannot be read weighs less where another kernel starts.
fn weigh_unreadable(kernel: &Kernel, findings: &mut [Finding]) {
    const CODES: [&str; 2] = ["initramfs.unreadable", "initramfs.ramdisk"];
    for finding in findings {
        if CODES.contains(&finding.code.as_str())
            && kernel.unreadable_initramfs.as_ref() == Some(&finding.place)
        {
            finding.level = Level::Warning;
        }
    }
}

/// What hinders this kernel; it weighs less where another one starts.
fn check(kernel: &Kernel, level: Level, findings: &mut Vec<Finding>) {
    let place = kernel.image.guest_path.clone();
    let controllers = vm::controllers(kernel);
    let Some(initramfs) = &kernel.initramfs else {
        if controllers.is_empty() {
            findings.push(
                finding(
                    level,
                    "kernel.no-initramfs",
                    place,
                    "it has no initramfs, and no drivers of virtual disks built in",
                )
                .remedy("make one on the server: update-initramfs -c -k VERSION"),
            );
        }
        return;
    };
    let lacks_modules = !missing_modules(kernel, initramfs).is_empty();
    if lacks_modules
        && !controllers.contains(&DiskController::VirtioBlk)
        && let Some(obstacle) = obstacle(initramfs)
    {
        let level = if controllers.is_empty() {
            level
        } else {
            Level::Warning
        };
        findings.push(hindered(initramfs, obstacle, level));
    }
    if kernel.modules.is_none() && controllers.is_empty() {
        findings.push(
            finding(
                level,
                "kernel.no-modules",
                place,
                format!("/lib/modules/{} does not exist", kernel.version),
            )
            .remedy("reinstall the kernel's package on the server"),
        );
    }
}

/// The modules that an initramfs lacks. Network cards are left to the root filesystem where the
/// initramfs has nothing to do with them.
fn missing_modules<'a>(kernel: &'a Kernel, initramfs: &InitramfsFacts) -> Vec<&'a ModuleFacts> {
    let wanted = needed_modules(kernel, initramfs.generator);
    wanted.filter(|module| !module.in_initramfs).collect()
}

fn needed_modules(kernel: &Kernel, generator: Generator) -> impl Iterator<Item = &ModuleFacts> {
    let has_network = generator.has_network();
    let modules = kernel.closure.iter();
    modules.filter(move |module| has_network || !is_network(&module.path))
}

/// True for drivers of cards and what they need of the network's core.
fn is_network(path: &str) -> bool {
    ["kernel/drivers/net/", "kernel/net/"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// The drivers to load, in load order: those of virtio, or of the other controllers where this
/// kernel has no virtio disks.
fn drivers_to_load(kernel: &Kernel, generator: Generator) -> Vec<&'static str> {
    let in_closure =
        |name: &&str| needed_modules(kernel, generator).any(|module| module.name == *name);
    let has_virtio = ["virtio_blk", "virtio_scsi"]
        .iter()
        .any(|name| kernel.driver(name) != DriverPlace::Absent);
    let fallback = FALLBACK_DISKS.into_iter().filter(|_| !has_virtio);
    WANTED
        .into_iter()
        .chain(fallback)
        .filter(in_closure)
        .collect()
}

/// What an initramfs is to get.
struct Draft<'a> {
    initramfs: &'a InitramfsFacts,
    files: Vec<InnerFile>,
    reasons: Vec<String>,
}

impl Draft<'_> {
    /// The text of a file inside, with what was changed so far.
    fn text(&self, path: &str) -> Option<&str> {
        let changed = self.files.iter().find(|file| file.path == path);
        let file = changed.or_else(|| self.initramfs.file(path))?;
        Some(&file.text)
    }

    /// Changes a file, or adds it; nothing happens where the text stays the same.
    fn change(&mut self, path: &str, text: String, reason: &str) {
        if self.text(path) == Some(&text) {
            return;
        }
        if !self.reasons.iter().any(|known| known == reason) {
            self.reasons.push(reason.to_owned());
        }
        match self.files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.text = text,
            None => self.files.push(InnerFile {
                path: path.to_owned(),
                text,
            }),
        }
    }
}

fn append(
    kernel: &Kernel,
    initramfs: &InitramfsFacts,
    names: DeviceNames<'_>,
    links: &[InnerFile],
) -> Option<Edit> {
    let mut draft = Draft {
        initramfs,
        files: Vec::new(),
        reasons: Vec::new(),
    };
    let missing = missing_modules(kernel, initramfs);
    if !missing.is_empty() {
        let reason = reason_for_modules(kernel, initramfs.generator, &missing);
        draft.reasons.push(reason.clone());
        load(&mut draft, kernel, &missing, &reason);
    }
    overrides::plan(&mut draft, kernel, names);
    if udev_names_cards(kernel, initramfs.generator) {
        for link in links {
            draft.change(
                &link.path,
                link.text.clone(),
                "network cards get their names before the root is mounted",
            );
        }
    }
    if missing.is_empty() && draft.files.is_empty() {
        return None;
    }
    let flat = initramfs.generator.has_flat_modules();
    Some(Edit {
        place: initramfs.file.clone(),
        reasons: draft.reasons,
        change: Change::AppendToInitramfs(InitramfsAppend {
            kernel: kernel.version.clone(),
            hash_before: initramfs.hash.clone(),
            compression: initramfs.compression,
            module_directory: kernel.modules.clone().filter(|_| !flat),
            modules: missing
                .into_iter()
                .map(|module| added(module, flat))
                .collect(),
            files: draft.files,
        }),
    })
}

/// Whether udev in the initramfs sees the network cards.
fn udev_names_cards(kernel: &Kernel, generator: Generator) -> bool {
    let at_boot = [DriverPlace::BuiltIn, DriverPlace::InInitramfs];
    match generator {
        Generator::InitramfsTools => true,
        Generator::Dracut | Generator::Mkinitcpio | Generator::SuseMkinitrd => {
            at_boot.contains(&kernel.driver("virtio_net"))
        }
        _ => false,
    }
}

fn reason_for_modules(kernel: &Kernel, generator: Generator, missing: &[&ModuleFacts]) -> String {
    let version = &kernel.version;
    let drivers = drivers_to_load(kernel, generator);
    let is_missing = |name: &&str| missing.iter().any(|module| module.name == **name);
    let has_virtio = drivers.iter().any(|name| name.starts_with("virtio"));
    if drivers.iter().any(is_missing) && has_virtio {
        format!(
            "kernel {version} finds its root on virtio disks only with these drivers in its \
             initramfs"
        )
    } else {
        format!("kernel {version} can start from other virtual disk controllers too")
    }
}

/// Makes the initramfs load its new modules.
fn load(draft: &mut Draft<'_>, kernel: &Kernel, missing: &[&ModuleFacts], reason: &str) {
    let generator = draft.initramfs.generator;
    let drivers = drivers_to_load(kernel, generator);
    let is_missing = |name: &str| missing.iter().any(|module| module.name == name);
    let (path, after) = match generator {
        // Nothing but the hardware has to ask for the fallbacks.
        Generator::InitramfsTools if drivers.iter().any(|name| is_missing(name)) => {
            let before = draft.text(INNER_MODULES).unwrap_or_default();
            (INNER_MODULES, Some(with_modules(before, &drivers)))
        }
        Generator::Mkinitcpio => {
            let after = draft
                .text(MKINITCPIO_CONFIG)
                .map(|config| with_words(config, "MODULES", &drivers));
            (MKINITCPIO_CONFIG, after)
        }
        Generator::SuseMkinitrd => {
            let script = draft.text(SUSE_SCRIPT).unwrap_or_default();
            let all = all_drivers(kernel);
            (SUSE_SCRIPT, suse_mkinitrd::with_modules(script, &all))
        }
        Generator::Nash => {
            let script = draft.text(NASH_SCRIPT).unwrap_or_default();
            let paths: Vec<String> = needed_modules(kernel, generator)
                .map(|module| flat_path(&module.path))
                .collect();
            (NASH_SCRIPT, nash::with_modules(script, &paths))
        }
        _ => return,
    };
    if let Some(after) = after {
        draft.change(path, after, reason);
    }
}

/// All drivers of disks whose modules an initramfs has after the plan.
fn all_drivers(kernel: &Kernel) -> Vec<&'static str> {
    let disks = WANTED.into_iter().filter(|name| *name != "virtio_net");
    disks
        .chain(FALLBACK_DISKS)
        .filter(|name| kernel.closure.iter().any(|module| module.name == *name))
        .collect()
}

fn added(module: &ModuleFacts, flat: bool) -> AddedModule {
    let end = module
        .path
        .rfind(".ko")
        .map_or(module.path.len(), |start| start + 3);
    let path = &module.path[..end];
    AddedModule {
        name: module.name.clone(),
        path: if flat {
            flat_path(path)
        } else {
            path.to_owned()
        },
        file: module.file.clone(),
        size_bytes: module.size_bytes,
    }
}

/// `lib/virtio.ko` of `kernel/drivers/virtio/virtio.ko`.
fn flat_path(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let end = file.rfind(".ko").map_or(file.len(), |start| start + 3);
    format!("{FLAT_DIRECTORY}/{}", &file[..end])
}

/// A list of modules with those added that it lacks; what is there stays in its place.
fn with_modules(before: &str, modules: &[&str]) -> String {
    let listed = |name: &str| {
        before.lines().any(|line| {
            let first = line.split_whitespace().next().unwrap_or_default();
            first.replace('-', "_") == name
        })
    };
    let missing: Vec<&str> = modules
        .iter()
        .copied()
        .filter(|name| !listed(name))
        .collect();
    let mut after = before.to_owned();
    if !missing.is_empty() {
        if !after.is_empty() && !after.ends_with('\n') {
            after.push('\n');
        }
        if !after.contains(COMMENT) {
            after.push_str(COMMENT);
            after.push('\n');
        }
        for name in missing {
            after.push_str(name);
            after.push('\n');
        }
    }
    after
}

/// A file of shell assignments with words added to one that is a list.
fn with_words(before: &str, key: &str, words: &[&str]) -> String {
    let mut config = ShellConfig::parse(before.as_bytes());
    let value = config.get(key).unwrap_or_default();
    let mut list: Vec<&str> = value.split_whitespace().collect();
    for word in words {
        if !list.iter().any(|known| known.replace('-', "_") == *word) {
            list.push(word);
        }
    }
    let after = list.join(" ");
    if after != value.split_whitespace().collect::<Vec<_>>().join(" ") {
        config.set(key, &after);
    }
    text_of(config.to_bytes(), before)
}
