// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is ordered to do, and what is made of its answers. Real machines are in the
//! orchestrator's tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::block::MemoryDevice;
use disk::filesystem::WritableFilesystem as _;
use disk::{Monitor, SectorSize, Silent};
use image_library::DiskIndex;

use super::*;
use crate::apply::deferred::Deferred;
use crate::apply::machine::WriterMachine;
use crate::apply::open_deferred;
use crate::inspect::FilePlace;
use crate::phony::MemoryFilesystem;
use crate::plan::{LoadedModule, WrittenVolume};

/// A command line, and the files of an initramfs.
type Ordered = (String, BTreeMap<String, Vec<u8>>);

/// Answers with what it was given.
#[derive(Debug, Default)]
struct Fake {
    report: Vec<u8>,
    console: Vec<u8>,
    ordered: Mutex<Vec<Ordered>>,
    judged: AtomicBool,
}

impl WriterMachine for Fake {
    fn program(&self) -> Result<Vec<u8>> {
        Ok(b"program".to_vec())
    }

    fn run(&self, order: WriterOrder, _monitor: &dyn Monitor) -> Result<WriterOutput> {
        assert_eq!(order.kernel, b"kernel");
        // That kernel does not tell how much it takes.
        assert_eq!(order.memory_bytes, order.memory_bytes_max);
        self.judged
            .store((order.is_done)(&self.report), Ordering::Relaxed);
        let form = Compression::detect(&order.initramfs);
        assert_eq!(form, Compression::Gzip);
        let (initramfs, _) = compression::decompress(&order.initramfs, form, 1 << 20).unwrap();
        let mut reader = cpio::Reader::new(initramfs.as_slice());
        let mut files = BTreeMap::new();
        while reader.find_archive().unwrap() {
            while let Some(entry) = reader.next_entry().unwrap() {
                files.insert(entry.name, reader.read_data(u64::MAX).unwrap());
            }
        }
        self.ordered
            .lock()
            .unwrap()
            .push((order.command_line, files));
        Ok(WriterOutput {
            report: self.report.clone(),
            console: self.console.clone(),
        })
    }
}

const VOLUME: VolumeId = VolumeId::Partition {
    disk: DiskIndex(0),
    number: 1,
};

fn place(path: &str) -> FilePlace {
    FilePlace {
        volume: VOLUME,
        path: path.to_owned(),
        guest_path: path.to_owned(),
    }
}

fn part(mebibytes: usize) -> Part {
    Part {
        id: VOLUME,
        device: Arc::new(MemoryDevice::from(vec![0; mebibytes << 20])),
        sector_size: SectorSize::B512,
    }
}

fn run(machine: &Fake) -> Result<()> {
    let below = MemoryFilesystem::new(FilesystemKind::Fat);
    below.file("/vmlinuz", "kernel");
    below.file("/xfs.ko", "module");
    below.file("/etc/fstab", "old");
    let (mut deferred, operations) = Deferred::new(Box::new(below.clone()));
    deferred.write("/etc/fstab", b"new", None).unwrap();
    deferred.append("/etc/fstab", b" more").unwrap();
    let mut volumes = Volumes::default();
    volumes.readable.insert(VOLUME, Box::new(below));
    let plan = SmallVm {
        version: "6.1".to_owned(),
        kernel: place("/vmlinuz"),
        initramfs: Compression::Gzip,
        controller: DiskController::VirtioBlk,
        modules: vec![LoadedModule {
            name: "xfs".to_owned(),
            file: place("/xfs.ko"),
        }],
        volumes: vec![WrittenVolume {
            volume: VOLUME,
            filesystem: FilesystemKind::Xfs,
        }],
    };
    let waiting = Waiting {
        id: VOLUME,
        parts: vec![part(1), part(2)],
        // Of a kind whose log is not looked for.
        kind: FilesystemKind::Fat,
        operations,
    };
    let options = ApplyOptions {
        now_unix_seconds: 1_700_000_000,
    };
    let work = Work {
        machine,
        monitor: &Silent,
    };
    write(&[waiting], &plan, &mut volumes, &options, work)
}

fn lines(reports: &[Report]) -> Vec<u8> {
    let lines = reports
        .iter()
        .map(|report| serde_json::to_string(report).unwrap() + "\r\n");
    lines.collect::<String>().into_bytes()
}

#[test]
fn the_machine_gets_the_order_with_its_modules_and_contents() {
    let machine = Fake {
        report: lines(&[Report::Started, Report::Finished]),
        ..Fake::default()
    };
    run(&machine).unwrap();
    assert!(machine.judged.load(Ordering::Relaxed));
    let ordered = machine.ordered.lock().unwrap();
    let (command_line, files) = &ordered[0];
    assert!(command_line.contains("console=ttyS0"));
    assert_eq!(files["init"], b"program");
    let order: Order = serde_json::from_slice(&files[ORDER]).unwrap();
    assert_eq!(order.modules, ["modules/0-xfs.ko"]);
    assert_eq!(files["modules/0-xfs.ko"], b"module");
    let disks = order.mounts[0].devices.iter();
    let disks: Vec<_> = disks
        .map(|disk| (disk.pci.as_str(), disk.size_bytes))
        .collect();
    assert_eq!(
        disks,
        [("0000:00:05.0", 1 << 20), ("0000:00:06.0", 2 << 20)]
    );
    let contents: Vec<&[u8]> = (0..2)
        .map(|number| files[&format!("content/{number}")].as_slice())
        .collect();
    assert_eq!(contents, [b"new".as_slice(), b" more"]);
    assert_eq!(order.operations[1].path, "/etc/fstab");
}

#[test]
fn whatever_the_machine_says_but_that_it_finished_is_an_error() {
    let mount_failed = Report::MountFailed {
        mount: 0,
        problem: "Structure needs cleaning".to_owned(),
    };
    let failed = Report::Failed {
        operation: 1,
        problem: "No space left on device".to_owned(),
    };
    let cases: [(Vec<u8>, &str, &str); 5] = [
        (Vec::new(), "ended before", "disk 0 partition 1"),
        (
            lines(&[mount_failed]),
            "needs cleaning",
            "disk 0 partition 1",
        ),
        (
            lines(&[Report::Started, failed]),
            "No space left",
            "/etc/fstab",
        ),
        (b"{\"report\":\"finis".to_vec(), "ended before", "disk 0"),
        (vec![0xff; 5 << 20], "ended before", "disk 0"),
    ];
    for (report, problem, place) in cases {
        let machine = Fake {
            report,
            console: b"old\n[ 1.0] XFS (vda): \x1b[31mbad magic\n\n".to_vec(),
            ..Fake::default()
        };
        let error = run(&machine).unwrap_err();
        assert!(!machine.judged.load(Ordering::Relaxed));
        let text = error.to_string();
        assert!(text.contains(problem) && text.contains(place), "{text}");
        assert!(
            text.contains("bad magic") && !text.contains('\x1b'),
            "{text}"
        );
        assert!(error.is_lasting() && error.hint().is_some());
    }
}

#[test]
fn a_log_that_the_kernel_will_replay_is_told() {
    let packed = include_bytes!("../../../../image-library/disk/fixtures/xfs-dirty.img.zst");
    let bytes = zstd::decode_all(&packed[..]).unwrap();
    let dirty = Part {
        device: Arc::new(MemoryDevice::from(bytes)),
        ..part(1)
    };
    let mut volumes = Volumes::default();
    let mut findings = Vec::new();
    let kind = FilesystemKind::Xfs;
    let opened = open_deferred(VOLUME, vec![dirty], kind, &mut volumes, &mut findings);
    assert_eq!(opened.unwrap().id, VOLUME);
    assert_eq!(findings[0].code, "filesystem.log-replayed");
    assert!(volumes.free_bytes[&VOLUME] > 0);
}

/// A kernel whose header is of a version of the boot protocol, and asks for memory.
fn kernel(protocol: u16, init_bytes: u32) -> Vec<u8> {
    let mut kernel = vec![0; 0x1000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
    kernel[0x260..0x264].copy_from_slice(&init_bytes.to_le_bytes());
    kernel
}

#[test]
fn the_machine_has_what_its_kernel_asks_for_and_much_where_that_is_not_known() {
    let mebibytes = |kernel: &[u8]| {
        let memory = Memory::new(kernel, 6 << 20, 2 << 20);
        assert_eq!(memory.most_bytes, (512 + 4 * 6) << 20);
        memory.first_bytes >> 20
    };
    let modern = kernel(0x20f, 60 << 20);
    assert_eq!(mebibytes(&modern), 60 + 2 + 2 * 6 + 22);
    assert_eq!(mebibytes(&kernel(0x209, 60 << 20)), 536, "Linux 2.6.30");
    assert_eq!(mebibytes(&kernel(0x20f, u32::MAX)), 536, "no kernel");
    assert_eq!(mebibytes(&modern[..0x262]), 536, "a torn file");
    assert_eq!(mebibytes(b"MZ"), 536);
}
