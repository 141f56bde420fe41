// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine that is given its kernel from outside, because its disks do not start by themselves.
//!
//! | target | where kernel, initramfs and command line go |
//! |---|---|
//! | `libvirt` | `kernel`, `initrd` and `cmdline` in the domain's `os`; files beside the disks |
//! | `xen` | `kernel`, `ramdisk`, `extra`, which xl has for full virtualisation too; the same files |
//! | `qcow2`, `raw` | the same files; a finding has the command line, for whoever starts the disks |
//! | all others | refused: there is no place for them |
//!
//! Proxmox VE and KubeVirt could be told as well, but not by what we write: by an option that only
//! `root` may set, and from a container image.

use disk::{Finding, Level};

use super::{Export, Target};
use crate::inspect::findings::{WithRemedy, finding};
use crate::vm::{INITRAMFS_NAME, KERNEL_NAME, VmDefinition};

/// A file that the platform loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFile {
    /// The kernel.
    Kernel,
    /// Its initramfs.
    Initramfs,
}

impl KernelFile {
    /// Its name, beside the disks.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => KERNEL_NAME,
            Self::Initramfs => INITRAMFS_NAME,
        }
    }
}

/// The files that a machine is given besides its disks; none where its disks start by themselves.
#[must_use]
pub fn kernel_files(target: Target, vm: &VmDefinition) -> Vec<KernelFile> {
    let Some(direct) = vm.direct_boot.as_ref().filter(|_| has_place(target)) else {
        return Vec::new();
    };
    let initramfs = direct.initramfs.as_ref().map(|_| KernelFile::Initramfs);
    std::iter::once(KernelFile::Kernel)
        .chain(initramfs)
        .collect()
}

/// Whether a target's machine can be given a kernel, or is nothing but disks for anyone.
const fn has_place(target: Target) -> bool {
    match target {
        Target::Libvirt | Target::Xen | Target::Qcow2 | Target::Raw => true,
        Target::Vmdk
        | Target::Ova
        | Target::Vmx
        | Target::Vhdx
        | Target::Vhd
        | Target::Vdi
        | Target::Proxmox
        | Target::Kubevirt => false,
    }
}

/// Where a platform finds a kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) path: String,
    pub(super) initramfs: Option<String>,
    pub(super) command_line: String,
}

impl Kernel {
    /// The machine's, if it is given one.
    pub(super) fn of(export: &Export<'_>) -> Option<Self> {
        let direct = export.vm.direct_boot.as_ref()?;
        let directory = export.directory.trim_end_matches('/');
        let path = |name| format!("{directory}/{name}");
        Some(Self {
            path: path(KERNEL_NAME),
            initramfs: direct.initramfs.as_ref().map(|_| path(INITRAMFS_NAME)),
            // To a kernel they are the same; not every document has a way to write a tab.
            command_line: direct.command_line.replace('\t', " "),
        })
    }
}

/// What somebody should know who gets such a machine.
pub(super) fn check(target: Target, vm: &VmDefinition) -> Option<Finding> {
    let direct = vm.direct_boot.as_ref()?;
    if !has_place(target) {
        let platform = target.platform().map_or(target.name(), |it| it.text());
        let problem = "the guest's own boot loader cannot start it any more, and there is no place \
                       for a kernel from outside";
        let found = finding(Level::Error, "export.kernel.no-place", platform, problem);
        return Some(found.remedy(
            "--to libvirt, xen, qcow2 or raw; or install GRUB on the server and take a new image",
        ));
    }
    if target.platform().is_some() {
        return None;
    }
    let with = match direct.initramfs {
        Some(_) => format!("the files {KERNEL_NAME} and {INITRAMFS_NAME}"),
        None => format!("the file {KERNEL_NAME}"),
    };
    let problem = format!(
        "the disks do not start by themselves; whoever starts them gives the machine {with} beside \
         them, with \"{}\"",
        direct.command_line
    );
    let found = finding(
        Level::Warning,
        "export.kernel.from-outside",
        target.name(),
        problem,
    );
    Some(found.remedy("QEMU has -kernel, -initrd and -append for that"))
}

#[cfg(test)]
mod tests;
