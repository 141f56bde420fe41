// SPDX-License-Identifier: MIT OR Apache-2.0
//! Made-up disks as every target, read again by the readers of others.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use converter::export::{GuestFacts, Networks, Target};
use converter::inspect::{DriverFacts, DriverPlace};
use converter::vm::{
    DirectBoot, DiskController, Firmware, KernelFiles, Mainboard, NicModel, Profile, VmDefinition,
    VmDisk, VmNic,
};
use disk::block::{Extent, ExtentKind, MemoryDevice};
use disk::{ReadAt, Recorder, SectorSize, Silent};
use image_library::DiskIndex;

use super::{Disks, ExportMachine, ExportPlan, FileKind, Writing};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// Prints why a test does nothing; fails where all tests are required.
pub(super) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "a required test was skipped: {reason}"
    );
}

/// Sizes that no cylinder, megabyte or grain divides.
const SIZES: [u64; 2] = [(37 << 20) + 512 * 3, (5 << 20) + 512];

pub(super) fn vm() -> VmDefinition {
    let disk = |(index, size_bytes): (usize, &u64)| VmDisk {
        index: DiskIndex(u16::try_from(index).unwrap()),
        size_bytes: *size_bytes,
        sector_size: SectorSize::B512,
    };
    VmDefinition {
        name: "web01".to_owned(),
        firmware: Firmware::Bios,
        mainboard: Mainboard::Q35,
        cpus: 2,
        memory_bytes: 1 << 30,
        profiles: vec![Profile {
            disk: DiskController::VirtioBlk,
            nic: NicModel::Virtio,
        }],
        disks: SIZES.iter().enumerate().map(disk).collect(),
        nics: vec![VmNic {
            name: "eth0".to_owned(),
            mac: "00:16:3e:11:22:33".to_owned(),
            addresses: Vec::new(),
            gateway: None,
        }],
        clock_utc: true,
        direct_boot: None,
    }
}

pub(super) fn machine(vm: &VmDefinition) -> ExportMachine<'_> {
    const DRIVERS: &str = "sd_mod ahci ata_piix mptspi vmw_pvscsi hv_storvsc hv_netvsc vmxnet3 e1000 xen_blkfront \
         xen_netfront";
    let drivers = DRIVERS.split_whitespace().map(|name| DriverFacts {
        name: name.to_owned(),
        place: DriverPlace::InInitramfs,
    });
    ExportMachine {
        vm,
        guest: GuestFacts {
            drivers: drivers.collect(),
            ..GuestFacts::default()
        },
        networks: Networks::default(),
        unix_seconds: 1_700_000_000,
    }
}

/// Disks in memory: some data that packs badly, some that packs well, and nothing.
#[derive(Debug)]
pub(super) struct Made(Vec<Vec<u8>>);

impl Made {
    pub(super) fn new() -> Self {
        let mut state = 1_u32;
        let mut noise = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        };
        let disk = |size: &u64| {
            let mut bytes = vec![0; usize::try_from(*size).unwrap()];
            let length = bytes.len();
            bytes[..70_000].fill_with(&mut noise);
            bytes[(2 << 20)..(3 << 20)].fill(0x55);
            bytes[length - 512..].fill_with(&mut noise);
            bytes
        };
        Self(SIZES.iter().map(disk).collect())
    }
}

impl Disks for Made {
    fn open(&self, index: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(MemoryDevice::from(
            self.0[usize::from(index.0)].clone(),
        )))
    }

    fn read_kernel(&self, kernel: &DirectBoot) -> Result<KernelFiles> {
        Ok(KernelFiles {
            kernel: b"a kernel".to_vec(),
            initramfs: kernel.initramfs.as_ref().map(|_| b"its initramfs".to_vec()),
        })
    }
}

fn qemu_img(arguments: &[&str]) -> Option<Output> {
    Command::new("qemu-img").args(arguments).output().ok()
}

pub(super) fn writes(plan: &ExportPlan<'_>, disks: &dyn Disks) -> Result<Vec<String>> {
    let interrupt = Interrupt::default();
    let writing = Writing {
        disks,
        interrupt: &interrupt,
    };
    let mut names = Vec::new();
    plan.check()?;
    plan.write(writing, &Silent, &mut |file| {
        names.push(
            file.path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned(),
        );
    })?;
    Ok(names)
}

pub(super) fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What QEMU calls the format of a file, where it can be checked, and where its size is right.
const FORMATS: [(Target, &str); 9] = [
    (Target::Raw, "raw"),
    (Target::Qcow2, "qcow2"),
    (Target::Vmdk, "vmdk"),
    (Target::Vmx, "vmdk"),
    (Target::Vhdx, "vhdx"),
    (Target::Vhd, "vpc"),
    (Target::Vdi, "vdi"),
    (Target::Libvirt, "qcow2"),
    (Target::Xen, "raw"),
];

#[test]
fn every_format_holds_the_disk_as_it_is() {
    if qemu_img(&["--version"]).is_none() {
        return skip("qemu-img is not installed");
    }
    let (vm, made) = (vm(), Made::new());
    let machine = machine(&vm);
    for (target, format) in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out: a,b");
        std::fs::create_dir(&out).unwrap();
        let plan = ExportPlan::new(target, &machine, &out);
        let names = writes(&plan, &made).unwrap();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(
            entries(&out),
            sorted,
            "{target:?}: only what was told is there"
        );
        for (index, bytes) in made.0.iter().enumerate() {
            let source = directory.path().join("source");
            std::fs::write(&source, bytes).unwrap();
            let written = plan.files[index].path.to_str().unwrap();
            let compared = qemu_img(&[
                "compare",
                "-f",
                "raw",
                "-F",
                format,
                source.to_str().unwrap(),
                written,
            ]);
            let compared = compared.unwrap();
            assert!(
                compared.status.success(),
                "{target:?} disk {index}: {compared:?}"
            );
            // `compare` takes zeros behind the end for nothing.
            let told = qemu_img(&["info", "-f", format, "--output=json", written]).unwrap();
            let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
            assert_eq!(told["virtual-size"], SIZES[index], "{target:?}");
            if matches!(format, "qcow2" | "vhdx" | "vdi" | "vmdk") {
                let checked = qemu_img(&["check", "-f", format, written]).unwrap();
                assert!(
                    checked.status.success(),
                    "{target:?} disk {index}: {checked:?}"
                );
            }
            let length = std::fs::metadata(written).unwrap().len();
            let limit = if format == "raw" { u64::MAX } else { 30 << 20 };
            assert!(length < limit, "{target:?}: holes stay out, {length}");
        }
    }
}

#[test]
fn a_vhd_keeps_every_sector_of_a_size_that_no_cylinder_divides() {
    let Some(_) = qemu_img(&["--version"]) else {
        return skip("qemu-img is not installed");
    };
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    let plan = ExportPlan::new(Target::Vhd, &machine, directory.path());
    writes(&plan, &made).unwrap();
    let file = plan.files[0].path.to_str().unwrap();
    let told = qemu_img(&["info", "-f", "vpc", "--output=json", file]).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["virtual-size"], SIZES[0]);
    // The footer's current size, which is what Hyper-V goes by: offset 48.
    let bytes = std::fs::read(file).unwrap();
    let footer = &bytes[bytes.len() - 512..];
    assert_eq!(&footer[..8], b"conectix");
    assert_eq!(footer[48..56], SIZES[0].to_be_bytes());
}

#[test]
fn an_ova_is_read_by_tar_and_its_manifest_is_true() {
    if qemu_img(&["--version"]).is_none() {
        return skip("qemu-img is not installed");
    }
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    let plan = ExportPlan::new(Target::Ova, &machine, directory.path());
    assert_eq!(writes(&plan, &made).unwrap(), ["web01.ova", "machine.json"]);
    assert_eq!(entries(directory.path()), ["machine.json", "web01.ova"]);
    let ova = &plan.files[0].path;
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory.path());
        command.output().ok().map(|output| {
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    };
    let Some(listed) = run("tar", &["-tf", ova.to_str().unwrap()]) else {
        return skip("tar is not installed");
    };
    let names: Vec<&str> = listed.lines().collect();
    let expected = [
        "web01.ovf",
        "web01-disk0.vmdk",
        "web01-disk1.vmdk",
        "web01.mf",
    ];
    assert_eq!(names, expected);
    run("tar", &["-xf", ova.to_str().unwrap()]);
    let sums = std::fs::read_to_string(directory.path().join("web01.mf")).unwrap();
    let tagged = sums.replace("SHA256(", "SHA256 (").replace(")= ", ") = ");
    std::fs::write(directory.path().join("sums"), tagged).unwrap();
    if run("sha256sum", &["--check", "--strict", "sums"]).is_none() {
        skip("sha256sum is not installed");
    }
    let descriptor = std::fs::read_to_string(directory.path().join("web01.ovf")).unwrap();
    for (index, bytes) in made.0.iter().enumerate() {
        let file = directory.path().join(format!("web01-disk{index}.vmdk"));
        let length = std::fs::metadata(&file).unwrap().len();
        assert!(
            descriptor.contains(&format!("ovf:size=\"{length}\"")),
            "{descriptor}"
        );
        assert!(descriptor.contains(&format!("ovf:capacity=\"{}\"", bytes.len())));
        let source = directory.path().join("source");
        std::fs::write(&source, bytes).unwrap();
        let (source, file) = (source.to_str().unwrap(), file.to_str().unwrap());
        run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "vmdk", source, file],
        );
    }
    if run("xmllint", &["--noout", "web01.ovf"]).is_none() {
        skip("xmllint (libxml2-utils) is not installed");
    }
}

#[test]
fn virt_v2v_reads_the_machine_in_an_ova() {
    if Command::new("virt-v2v").arg("--version").output().is_err() {
        // Not among the tools of the tests: it brings half a distribution with it.
        eprintln!("skipped: virt-v2v is not installed");
        return;
    }
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    let plan = ExportPlan::new(Target::Ova, &machine, directory.path());
    writes(&plan, &made).unwrap();
    let output = Command::new("virt-v2v")
        .args(["-i", "ova", "--print-source"])
        .arg(&plan.files[0].path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for expected in [
        "web01",
        "1073741824",
        "vCPUs: 2",
        "00:16:3e:11:22:33",
        "VM Network",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_exists_is_not_overwritten_and_nothing_is_begun() {
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    let plan = ExportPlan::new(Target::Libvirt, &machine, directory.path());
    std::fs::write(directory.path().join("web01.xml"), "somebody's").unwrap();
    let error = writes(&plan, &made).unwrap_err();
    assert!(
        error.to_string().contains("web01.xml exists already"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("another directory"));
    assert_eq!(entries(directory.path()), ["web01.xml"]);
}

#[test]
fn a_second_format_beside_the_first_finds_the_same_machine() {
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    for target in [Target::Raw, Target::Libvirt] {
        writes(&ExportPlan::new(target, &machine, directory.path()), &made).unwrap();
    }
    let error = writes(
        &ExportPlan::new(Target::Raw, &machine, directory.path()),
        &made,
    );
    assert!(error.unwrap_err().to_string().contains("disk0.raw exists"));
    let text = std::fs::read_to_string(directory.path().join("machine.json")).unwrap();
    assert_eq!(serde_json::from_str::<VmDefinition>(&text).unwrap(), vm);
}

#[test]
fn a_guest_that_would_not_start_there_is_refused() {
    let (vm, made) = (vm(), Made::new());
    let mut machine = machine(&vm);
    machine
        .guest
        .drivers
        .retain(|driver| driver.name == "virtio_blk");
    let directory = tempfile::tempdir().unwrap();
    let plan = ExportPlan::new(Target::Ova, &machine, directory.path());
    let error = writes(&plan, &made).unwrap_err();
    assert!(
        error.to_string().contains("export.controller.no-driver"),
        "{error}"
    );
    assert_eq!(entries(directory.path()), [""; 0]);
}

/// A disk that breaks in the middle, or asks for the end there.
#[derive(Debug, Clone)]
struct Breaking {
    interrupt: Option<Interrupt>,
}

impl Disks for Breaking {
    fn open(&self, _index: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(self.clone()))
    }

    fn read_kernel(&self, kernel: &DirectBoot) -> Result<KernelFiles> {
        Ok(kernel.read(&[])?)
    }
}

impl ReadAt for Breaking {
    fn length_bytes(&self) -> u64 {
        64 << 20
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        buffer.fill(7);
        if offset < 20 << 20 {
            return Ok(());
        }
        match &self.interrupt {
            Some(interrupt) => {
                interrupt.raise();
                Ok(())
            }
            None => Err(disk::Error::Device {
                action: "read",
                offset,
                length: 1,
                source: "the library is gone".into(),
            }),
        }
    }

    fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
        Ok(Extent {
            length: self.length_bytes() - offset,
            kind: ExtentKind::Data,
        })
    }
}

#[test]
fn a_failure_and_an_early_end_leave_no_files_and_say_why() {
    let vm = vm();
    let machine = machine(&vm);
    let mut targets = vec![Target::Raw, Target::Qcow2];
    match qemu_img(&["--version"]) {
        Some(_) => targets.extend([Target::Vmdk, Target::Vhdx, Target::Ova]),
        None => skip("qemu-img is not installed"),
    }
    for target in targets {
        let directory = tempfile::tempdir().unwrap();
        let plan = ExportPlan::new(target, &machine, directory.path());
        let error = writes(&plan, &Breaking { interrupt: None }).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(
            source.as_deref(),
            Some("the library is gone"),
            "{target:?}: {error:?}"
        );
        assert_eq!(entries(directory.path()), [""; 0], "{target:?}");

        let interrupt = Interrupt::default();
        let breaking = Breaking {
            interrupt: Some(interrupt.clone()),
        };
        let writing = Writing {
            disks: &breaking,
            interrupt: &interrupt,
        };
        let result = plan.write(writing, &Silent, &mut |_| {});
        assert!(
            matches!(result, Err(Error::Interrupted)),
            "{target:?}: {result:?}"
        );
        assert_eq!(entries(directory.path()), [""; 0], "{target:?}");
    }
}

#[test]
fn stages_and_files_are_told_in_the_order_of_the_work() {
    let (vm, made) = (vm(), Made::new());
    let (machine, directory) = (machine(&vm), tempfile::tempdir().unwrap());
    let plan = ExportPlan::new(Target::Proxmox, &machine, directory.path());
    let kinds: BTreeMap<&Path, FileKind> = plan
        .files
        .iter()
        .map(|file| (file.path.as_path(), file.kind))
        .collect();
    assert_eq!(kinds.len(), plan.files.len());
    let (recorder, interrupt) = (Recorder::default(), Interrupt::default());
    let writing = Writing {
        disks: &made,
        interrupt: &interrupt,
    };
    let mut told = Vec::new();
    plan.write(writing, &recorder, &mut |file| told.push(file.clone()))
        .unwrap();
    assert_eq!(told, plan.files);
    let last = told.iter().map(|file| file.kind).collect::<Vec<_>>();
    let (disk, document) = (FileKind::Disk, FileKind::Document);
    assert_eq!(last, [disk, disk, document, FileKind::Machine]);
    assert_eq!(recorder.stages().len(), 2);
}
