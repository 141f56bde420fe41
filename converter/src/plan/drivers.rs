// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every initramfs gets the drivers of virtual hardware that it lacks, and what else must be true
//! inside it: the modules that are loaded, the swap space to resume from, the names of cards.

use disk::{Finding, Level};

use crate::guest::initramfs::Generator;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{
    DriverPlace, InitramfsFacts, InnerFile, Inspection, Kernel, ModuleFacts, WANTED,
};
use crate::plan::devices::resume_setting;
use crate::plan::edit::{AddedModule, Change, Edit, InitramfsAppend, Rewrites};

/// The list of modules inside an initramfs of initramfs-tools.
const INNER_MODULES: &str = "conf/modules";
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
    let mut edits = Vec::new();
    for kernel in &inspection.kernels {
        let is_default = default.is_some_and(|default| default.version == kernel.version);
        check(kernel, is_default, findings);
        let edit = kernel
            .initramfs
            .as_ref()
            .filter(|initramfs| initramfs.generator == Generator::InitramfsTools)
            .and_then(|initramfs| append(kernel, initramfs, names, links));
        edits.extend(edit);
    }
    persist(inspection, rewrites);
    edits
}

/// What hinders this kernel; it weighs less where another one starts.
fn check(kernel: &Kernel, is_default: bool, findings: &mut Vec<Finding>) {
    let level = if is_default {
        Level::Error
    } else {
        Level::Warning
    };
    let place = kernel.image.guest_path.clone();
    let Some(initramfs) = &kernel.initramfs else {
        let built_in = |driver: &&str| kernel.driver(driver) == DriverPlace::BuiltIn;
        if !["virtio_pci", "virtio_blk"].iter().all(built_in) {
            findings.push(
                finding(
                    level,
                    "kernel.no-initramfs",
                    place,
                    "it has no initramfs, and no virtio drivers built in",
                )
                .remedy("make one on the server: update-initramfs -c -k VERSION"),
            );
        }
        return;
    };
    let needs_change = kernel.closure.iter().any(|module| !module.in_initramfs);
    if initramfs.generator != Generator::InitramfsTools && needs_change {
        findings.push(
            finding(
                level,
                "initramfs.generator.unsupported",
                initramfs.file.guest_path.clone(),
                format!(
                    "it was not made by initramfs-tools but by {:?}",
                    initramfs.generator
                ),
            )
            .remedy("add the virtio drivers to it on the server and take a new image"),
        );
    }
    if kernel.modules.is_none() {
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

fn append(
    kernel: &Kernel,
    initramfs: &InitramfsFacts,
    names: DeviceNames<'_>,
    links: &[InnerFile],
) -> Option<Edit> {
    let missing: Vec<&ModuleFacts> = kernel
        .closure
        .iter()
        .filter(|module| !module.in_initramfs)
        .collect();
    let mut reasons = Vec::new();
    let mut files: Vec<InnerFile> = Vec::new();
    if !missing.is_empty() {
        reasons.push(format!(
            "kernel {} finds its root on virtio disks only with these drivers in its initramfs",
            kernel.version
        ));
        let before = initramfs
            .file(INNER_MODULES)
            .map_or("", |file| file.text.as_str());
        files.push(InnerFile {
            path: INNER_MODULES.to_owned(),
            text: with_modules(before, &wanted_modules(kernel)),
        });
    }
    for file in initramfs
        .files
        .iter()
        .filter(|file| file.path.starts_with("conf/conf.d/"))
    {
        let text = resume_setting(&file.text, names);
        if text != file.text {
            reasons.push("the swap space to resume from is named by its UUID".to_owned());
            files.push(InnerFile {
                path: file.path.clone(),
                text,
            });
        }
    }
    let new_links = links.iter().filter(|link| {
        initramfs
            .file(&link.path)
            .is_none_or(|inside| inside.text != link.text)
    });
    let before = files.len();
    files.extend(new_links.cloned());
    if files.len() > before {
        reasons.push("network cards get their names before the root is mounted".to_owned());
    }
    if missing.is_empty() && files.is_empty() {
        return None;
    }
    Some(Edit {
        place: initramfs.file.clone(),
        reasons,
        change: Change::AppendToInitramfs(InitramfsAppend {
            kernel: kernel.version.clone(),
            hash_before: initramfs.hash.clone(),
            compression: initramfs.compression,
            module_directory: kernel.modules.clone(),
            modules: missing.into_iter().map(added).collect(),
            files,
        }),
    })
}

fn added(module: &ModuleFacts) -> AddedModule {
    let end = module
        .path
        .rfind(".ko")
        .map_or(module.path.len(), |start| start + 3);
    AddedModule {
        name: module.name.clone(),
        path: module.path[..end].to_owned(),
        file: module.file.clone(),
        size_bytes: module.size_bytes,
    }
}

/// The drivers that are modules of this kernel, in load order.
fn wanted_modules(kernel: &Kernel) -> Vec<&'static str> {
    WANTED
        .into_iter()
        .filter(|name| kernel.closure.iter().any(|module| module.name == *name))
        .collect()
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

/// `/etc/initramfs-tools/modules`: the guest's next `update-initramfs` adds the drivers itself.
fn persist(inspection: &Inspection, rewrites: &mut Rewrites) {
    let Some(file) = &inspection.files.initramfs_modules else {
        return;
    };
    let mut modules: Vec<&str> = Vec::new();
    for kernel in &inspection.kernels {
        let made_here = kernel
            .initramfs
            .as_ref()
            .is_some_and(|initramfs| initramfs.generator == Generator::InitramfsTools);
        if made_here && kernel.closure.iter().any(|module| !module.in_initramfs) {
            for name in wanted_modules(kernel) {
                if !modules.contains(&name) {
                    modules.push(name);
                }
            }
        }
    }
    modules.sort_by_key(|name| WANTED.iter().position(|wanted| wanted == name));
    rewrites.change(
        file,
        with_modules(&file.text, &modules),
        "initramfs images that the guest makes later have the drivers too",
    );
}
