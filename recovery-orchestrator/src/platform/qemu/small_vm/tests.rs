// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real kernels write real filesystems; their own checkers and our readers look at the result.
//!
//! The kernel is Debian's, from the folder that `E2E_MODULE_TREE` names or the cache has; tools make
//! the images, and need neither root nor the host's filesystems.

mod direct;
mod images;
mod toolbox;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use converter::GuestDisk;
use converter::apply::{ApplyOptions, NoMachine, Work, WriterMachine};
use converter::plan::{PlanOptions, Verdict};
use converter::prepare::{Converted, convert_disks};
use converter::verify::checker;
use disk::{ReadAt, Silent};
use tempfile::TempDir;

use super::{is_static, program};
use images::{disk, make, tree};
use toolbox::{kernel, lock, small_vm};

const NOW: i64 = 1_700_000_000;
fn convert(disk: &GuestDisk, machine: &dyn WriterMachine) -> converter::Result<Converted> {
    let options = ApplyOptions {
        now_unix_seconds: NOW,
    };
    let work = Work {
        machine,
        monitor: &Silent,
    };
    let disks = [disk.clone()];
    convert_disks(&disks, None, &PlanOptions::new("web01"), &options, work)
}

#[test]
fn a_guest_on_xfs_and_one_on_btrfs_are_converted_and_ready_afterwards() {
    let (Some(machine), Some((image, modules, version))) = (small_vm(), kernel()) else {
        return;
    };
    let _lock = lock();
    for kind in ["xfs", "btrfs"] {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let root = path("tree");
        let made = tree(&root, kind, &image, &modules, &version)
            .and_then(|()| make(kind, &root, &path("root.raw")));
        if made.is_none() {
            return;
        }
        let disk = disk(&path("root.raw"), &path("disk.raw"));
        let refused = convert(&disk, &NoMachine).unwrap_err();
        assert!(!refused.is_lasting() && refused.hint().is_some());
        let start = Instant::now();
        let converted = convert(&disk, &machine).unwrap();
        let plan = &converted.plan;
        assert_eq!(plan.verdict, Verdict::ReadyWithChanges, "{plan}");
        assert!(plan.small_vm.is_some());
        eprintln!("{kind}: converted in {:?}", start.elapsed());
        let applied = converted.applied.unwrap();
        let findings = checker::check(
            &applied,
            std::slice::from_ref(&disk),
            directory.path(),
            &Silent,
        );
        assert_eq!(findings.unwrap(), []);
        let (_, overlay) = &applied.overlays[0];
        let merged = GuestDisk {
            device: Arc::clone(overlay) as Arc<dyn ReadAt>,
            ..disk
        };
        let second = convert(&merged, &NoMachine).unwrap();
        assert_eq!(second.plan.edits, [], "{kind}: {}", second.plan);
    }
}

#[test]
fn only_a_static_program_for_this_processor_is_taken() {
    let directory = TempDir::new().unwrap();
    let mut elf = b"\x7fELF\x02\x01".to_vec();
    elf.resize(64 + 56, 0);
    elf[18] = 62;
    (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 1);
    assert!(is_static(&elf));
    elf[64] = 3;
    assert!(!is_static(&elf));
    for length in 0..elf.len() {
        assert!(!is_static(&elf[..length]), "{length}");
    }
    let path = directory.path().join("program");
    let problem = program(std::slice::from_ref(&path)).unwrap_err();
    assert!(problem.contains("program"), "{problem}");
    fs::write(&path, elf).unwrap();
    let problem = program(&[path]).unwrap_err();
    assert!(problem.contains("no static program"), "{problem}");
}
