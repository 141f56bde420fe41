// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernel writes what, and what is said where none can.

use super::*;
use crate::phony::{MemoryFilesystem, PhonyGuest, debian_bookworm};
use crate::plan::{Plan, PlanOptions, Verdict, plan};

const MODULE_64: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0 module";
const MODULE_32: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x03\0 module";

/// Debian 12 with its root on another filesystem, whose driver is in these kernels.
fn guest(kind: FilesystemKind, module: &[u8], knows: impl Fn(&str) -> bool) -> PhonyGuest {
    let mut guest = debian_bookworm();
    let (id, root) = guest
        .filesystems
        .iter()
        .next()
        .map(|(id, root)| (*id, root.clone()))
        .expect("it has a root");
    let changed = MemoryFilesystem::new(kind);
    for (path, node) in root.entries() {
        changed.put(&path, node);
    }
    for version in versions(&guest) {
        let directory = format!("/usr/lib/modules/{version}");
        let list = format!("{directory}/modules.dep");
        let mut dep = text(&root, &list);
        let mut names: Vec<String> = dep
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
            .collect();
        if knows(&version) {
            let name = kind.to_string().to_lowercase();
            let path = format!("kernel/fs/{name}/{name}.ko");
            dep += &format!("{path}: kernel/lib/libcrc32c.ko\nkernel/lib/libcrc32c.ko:\n");
            dep += "kernel/crypto/crc32c_generic.ko:\n";
            let alias = format!("{directory}/modules.alias");
            let aliases = text(&root, &alias) + "alias crypto-crc32c crc32c_generic\n";
            changed.file(&alias, aliases);
            names.extend([path, "kernel/lib/libcrc32c.ko".to_owned()]);
            names.push("kernel/crypto/crc32c_generic.ko".to_owned());
        }
        changed.file(&list, dep);
        for name in names {
            changed.file(&format!("{directory}/{name}"), module);
        }
    }
    guest.filesystems.insert(id, changed);
    let volumes = guest.disks.iter_mut().flat_map(|disk| &mut disk.volumes);
    for volume in volumes.filter(|volume| volume.id == id) {
        if let Some(content) = &mut volume.content {
            content.kind = kind;
        }
    }
    guest
}

fn versions(guest: &PhonyGuest) -> Vec<String> {
    let kernels = guest.inspect().kernels;
    kernels.into_iter().map(|kernel| kernel.version).collect()
}

fn text(root: &MemoryFilesystem, path: &str) -> String {
    use disk::filesystem::Filesystem as _;
    let bytes = root.read(path, u64::MAX).expect("the file is there");
    String::from_utf8(bytes).expect("the file is text")
}

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &PlanOptions::new("server"))
}

#[test]
fn the_newest_kernel_that_knows_the_filesystem_writes_it() {
    for kind in [FilesystemKind::Xfs, FilesystemKind::Btrfs] {
        let guest = guest(kind, MODULE_64, |_| true);
        let plan = planned(&guest);
        assert_eq!(plan.verdict, Verdict::ReadyWithChanges, "{plan}");
        let small_vm = plan.small_vm.as_ref().expect("the root has edits");
        assert_eq!(small_vm.version, versions(&guest)[0]);
        assert_eq!(small_vm.controller, DiskController::VirtioBlk);
        let names = small_vm.modules.iter().map(|module| module.name.as_str());
        let names: Vec<&str> = names.collect();
        let place = |name: &str| names.iter().position(|other| *other == name);
        let driver = kind.to_string().to_lowercase();
        let order = ["virtio_ring", "virtio_pci", "crc32c_generic", "libcrc32c"];
        let mut places: Vec<Option<usize>> = order.iter().map(|name| place(name)).collect();
        places.push(place(&driver));
        assert!(places.iter().all(Option::is_some), "{names:?}");
        assert!(places.is_sorted(), "{names:?}");
        let printed = plan.to_string();
        assert!(printed.contains("  written by: the small virtual machine"));
        assert!(printed.contains(&format!("kernel {}", small_vm.version)));
        let json = serde_json::to_value(&plan).expect("a plan can be written");
        let shown = &json["small_vm"]["volumes"][0]["filesystem"];
        assert_eq!(shown, driver.as_str());
    }
}

#[test]
fn an_older_kernel_writes_where_the_newest_cannot() {
    let newest = versions(&debian_bookworm())[0].clone();
    let guest = guest(FilesystemKind::Xfs, MODULE_64, |version| version != newest);
    let plan = planned(&guest);
    match (plan.small_vm, versions(&guest).get(1)) {
        (Some(small_vm), Some(second)) => assert_eq!(small_vm.version, *second),
        (found, second) => assert_eq!((found, second), (None, None)),
    }
}

#[test]
fn a_guest_whose_kernels_cannot_write_is_refused_with_its_code() {
    let ignorant = guest(FilesystemKind::Xfs, MODULE_64, |_| false);
    let old = guest(FilesystemKind::Btrfs, MODULE_32, |_| true);
    for (guest, code) in [
        (ignorant, "writer.no-kernel"),
        (old, "writer.kernel-32-bit"),
    ] {
        let plan = planned(&guest);
        assert_eq!(plan.verdict, Verdict::NotConvertible);
        assert!(plan.small_vm.is_none());
        let found = plan.findings.iter().find(|finding| finding.code == code);
        assert!(
            found.is_some_and(|finding| finding.remedy.is_some()),
            "{plan}"
        );
    }
}

#[test]
fn a_guest_without_such_filesystems_needs_no_machine() {
    let guest = debian_bookworm();
    assert!(guest.inspect().kernels.iter().all(|k| k.writing.is_none()));
    assert!(planned(&guest).small_vm.is_none());
}
