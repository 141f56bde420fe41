// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exports of a machine that is given its kernel from outside.

use converter::export::Target;
use converter::inspect::{FilePlace, VolumeId};
use converter::vm::{DirectBoot, VmDefinition};
use image_library::DiskIndex;

use super::tests::{Made, entries, machine, vm, writes};
use super::{ExportPlan, FileKind};

/// A machine whose disks do not start by themselves.
fn vm_with_kernel() -> VmDefinition {
    let place = |path: &str| FilePlace {
        volume: VolumeId::on_disk(DiskIndex(0), Some(1)),
        path: path.to_owned(),
        guest_path: path.to_owned(),
    };
    VmDefinition {
        direct_boot: Some(DirectBoot {
            kernel: place("/vmlinuz"),
            initramfs: Some(place("/initrd.img")),
            command_line: "root=UUID=1234 ro".to_owned(),
        }),
        ..vm()
    }
}

#[test]
fn the_files_of_the_kernel_are_written_beside_the_disks() {
    let (mut vm, made) = (vm_with_kernel(), Made::new());
    for has_initramfs in [true, false] {
        if !has_initramfs {
            vm.direct_boot.as_mut().unwrap().initramfs = None;
        }
        let machine = machine(&vm);
        for target in [Target::Libvirt, Target::Xen, Target::Raw, Target::Qcow2] {
            let directory = tempfile::tempdir().unwrap();
            let plan = ExportPlan::new(target, &machine, directory.path());
            let names = writes(&plan, &made).unwrap();
            let read = |name: &str| std::fs::read(directory.path().join(name)).ok();
            assert_eq!(read("kernel").unwrap(), b"a kernel", "{target:?}");
            let initramfs = has_initramfs.then(|| b"its initramfs".to_vec());
            assert_eq!(read("initramfs"), initramfs, "{target:?}");
            let kernel = names.iter().position(|name| name == "kernel");
            let document = plan
                .files
                .iter()
                .position(|file| file.kind == FileKind::Document);
            assert!(document.is_none_or(|document| kernel < Some(document)));
            let error = writes(&plan, &made).unwrap_err().to_string();
            assert!(error.contains("exists already"), "{error}");
        }
    }
}

#[test]
fn a_platform_without_a_place_for_a_kernel_is_refused_and_nothing_is_begun() {
    let (vm, made) = (vm_with_kernel(), Made::new());
    let machine = machine(&vm);
    for target in [
        Target::Vmdk,
        Target::Ova,
        Target::Vmx,
        Target::Vhdx,
        Target::Vhd,
        Target::Vdi,
        Target::Proxmox,
        Target::Kubevirt,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let plan = ExportPlan::new(target, &machine, directory.path());
        let error = writes(&plan, &made).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("export.kernel.no-place"),
            "{target:?}: {text}"
        );
        assert!(error.hint().unwrap().contains("libvirt"), "{target:?}");
        assert_eq!(entries(directory.path()), [""; 0], "{target:?}");
    }
}
