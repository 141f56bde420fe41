// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders given to the machine without a plan: every operation, a dirty log, damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use converter::apply::{WriterDisk, WriterMachine, WriterOrder};
use converter::vm::DiskController;
use disk::block::{OpenOptions, Overlay, OverlayOptions, copy_to_raw, open_disk};
use disk::filesystem::{self, Filesystem};
use disk::{ReadAt, Recorder, SectorSize, Silent, WriteAt};
use guest_writer::{Action, Attributes, Device, Mount, ORDER, Operation, Report};
use tempfile::TempDir;

use super::super::{SmallVm, program};
use super::NOW;
use super::images::make;
use super::toolbox::{is_built_in, kernel, lock, module, small_vm, tool, unpacked};

const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// A machine with what is to be done in it.
struct Direct {
    machine: SmallVm,
    archive: TempDir,
    order: guest_writer::Order,
    kernel: PathBuf,
    memory_bytes: u64,
    monitor: Recorder,
}

impl Direct {
    /// With these modules, in this order.
    fn new(modules: &[&str]) -> Option<Self> {
        let (machine, (kernel, tree, _)) = (small_vm()?, kernel()?);
        let archive = TempDir::new().unwrap();
        for name in ["modules", "content", "sys", "mnt"] {
            fs::create_dir(archive.path().join(name)).unwrap();
        }
        let program = program(&machine.programs).unwrap();
        let init = archive.path().join("init");
        fs::write(&init, program).unwrap();
        tool("chmod", &["755", init.to_str().unwrap()])?;
        let mut order = guest_writer::Order {
            now_unix_seconds: NOW,
            modules: Vec::new(),
            mounts: Vec::new(),
            operations: Vec::new(),
        };
        for name in modules.iter().filter(|name| !is_built_in(&tree, name)) {
            let content = unpacked(&module(&tree, name)?)?;
            let to = format!("modules/{}", order.modules.len());
            fs::write(archive.path().join(&to), content).unwrap();
            order.modules.push(to);
        }
        Some(Self {
            machine,
            archive,
            order,
            kernel,
            memory_bytes: MEMORY_BYTES_MAX,
            monitor: Recorder::default(),
        })
    }

    fn mount(&mut self, filesystem: &str, device: &dyn ReadAt) {
        self.order.mounts.push(Mount {
            devices: vec![Device {
                pci: "0000:00:05.0".to_owned(),
                index: 0,
                size_bytes: device.length_bytes(),
            }],
            filesystem: filesystem.to_owned(),
            options: String::new(),
        });
    }

    fn push(&mut self, path: &str, action: Action) {
        self.order.operations.push(Operation {
            mount: 0,
            path: path.to_owned(),
            action,
        });
    }

    fn content(&self, bytes: &[u8]) -> String {
        let name = format!("content/{}", self.order.operations.len());
        fs::write(self.archive.path().join(&name), bytes).unwrap();
        name
    }

    fn run(&self, device: Arc<dyn WriteAt>) -> Option<(Vec<Report>, String)> {
        let order = serde_json::to_vec(&self.order).unwrap();
        fs::write(self.archive.path().join(ORDER), order).unwrap();
        let target = self.archive.path().with_extension("cpio");
        let script = format!(
            "cd {} && find . | cpio -o -H newc --quiet -R 0:0 > {}",
            self.archive.path().display(),
            target.display()
        );
        tool("sh", &["-c", &script])?;
        let output = self
            .machine
            .run(
                WriterOrder {
                    kernel: fs::read(&self.kernel).unwrap(),
                    initramfs: fs::read(&target).unwrap(),
                    command_line: "console=ttyS0 loglevel=5 panic=-1".to_owned(),
                    controller: DiskController::VirtioBlk,
                    disks: vec![WriterDisk {
                        device,
                        sector_size: SectorSize::B512,
                        slot: 5,
                    }],
                    memory_bytes: self.memory_bytes,
                    memory_bytes_max: MEMORY_BYTES_MAX,
                    is_done,
                },
                &self.monitor,
            )
            .unwrap();
        fs::remove_file(target).unwrap();
        let lines = output.report.split(|byte| *byte == b'\n');
        let reports = lines.filter_map(|line| serde_json::from_slice(line).ok());
        let console = String::from_utf8_lossy(&output.console).into_owned();
        Some((reports.collect(), console))
    }
}

const XFS_MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "crypto/crc32c_generic",
    "lib/libcrc32c",
];

fn xfs_modules() -> Vec<&'static str> {
    XFS_MODULES.into_iter().chain(["fs/xfs/xfs"]).collect()
}

fn is_done(said: &[u8]) -> bool {
    said.split(|byte| *byte == b'\n')
        .any(|line| matches!(serde_json::from_slice(line), Ok(Report::Finished)))
}

/// An overlay, the fixture below it, and its reader.
fn overlay(device: Arc<dyn ReadAt>) -> Arc<Overlay> {
    Arc::new(Overlay::new(device, OverlayOptions::default()))
}

fn reader(overlay: &Arc<Overlay>) -> Box<dyn Filesystem> {
    filesystem::open(Arc::clone(overlay) as Arc<dyn ReadAt>).unwrap()
}

fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: 7,
        gid: 8,
        selinux: Some("system_u:object_r:etc_t:s0".to_owned()),
    }
}

/// Everything that a plan can ask for, and what the readers say of it.
fn operations(direct: &mut Direct) {
    let long: Vec<u8> = (0..3 << 20).map(|at| (at % 251) as u8).collect();
    let content = direct.content(b"replaced\n");
    direct.push(
        "/etc/fstab",
        Action::Write {
            content,
            attributes: None,
        },
    );
    let content = direct.content(&long);
    direct.push("/big", Action::Append { content });
    let folder = attributes(0o750);
    direct.push("/new", Action::CreateDirectory { attributes: folder });
    for number in 0..300 {
        let content = direct.content(format!("file {number}").as_bytes());
        let attributes = Some(attributes(0o4711));
        direct.push(
            &format!("/new/{number}"),
            Action::Write {
                content,
                attributes,
            },
        );
    }
    let to = "/new/renamed".to_owned();
    direct.push("/old", Action::Rename { to });
    direct.push("/gone", Action::Remove);
    let target = "../etc/fstab".to_owned();
    direct.push("/new/link", Action::CreateSymlink { target });
}

fn check_operations(read: &dyn Filesystem) {
    assert_eq!(read.read("/etc/fstab", 99).unwrap(), b"replaced\n");
    assert_eq!(read.metadata("/etc/fstab").unwrap().mode, 0o600);
    let big = read.read("/big", u64::MAX).unwrap();
    assert_eq!((big.len(), &big[..5]), ((3 << 20) + 5, b"first".as_slice()));
    for number in 0..300 {
        let path = format!("/new/{number}");
        let text = read.read(&path, 99).unwrap();
        assert_eq!(text, format!("file {number}").as_bytes());
        let found = read.metadata(&path).unwrap();
        assert_eq!((found.mode, found.uid, found.gid), (0o4711, 7, 8));
    }
    assert_eq!(read.read("/new/renamed", 99).unwrap(), b"moved");
    assert_eq!(read.read_link("/new/link").unwrap(), "../etc/fstab");
    assert!(read.metadata("/gone").is_err() && read.metadata("/old").is_err());
    assert_eq!(read.metadata("/new").unwrap().mode, 0o750);
}

#[test]
fn every_operation_is_done_by_the_kernel_and_the_checkers_are_content() {
    let btrfs = [
        "crypto/xxhash_generic",
        "crypto/blake2b_generic",
        "crypto/xor",
        "lib/raid6/raid6_pq",
        "lib/zstd/zstd_compress",
        "fs/btrfs/btrfs",
    ];
    for (kind, modules) in [
        ("xfs", xfs_modules()),
        ("btrfs", XFS_MODULES.into_iter().chain(btrfs).collect()),
    ] {
        let Some(mut direct) = Direct::new(&modules) else {
            return;
        };
        let _lock = lock();
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir_all(root.join("etc")).unwrap();
        for (name, content) in [("etc/fstab", "x"), ("big", "first"), ("old", "moved")] {
            fs::write(root.join(name), content).unwrap();
        }
        fs::write(root.join("gone"), "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(root.join("etc/fstab"), mode).unwrap();
        let file = directory.path().join("root.raw");
        if make(kind, &root, &file).is_none() {
            return;
        }
        let opened = open_disk(&file, &OpenOptions::default()).unwrap();
        let overlay = overlay(opened.device);
        direct.mount(kind, &*overlay);
        operations(&mut direct);
        let Some((reports, console)) = direct.run(Arc::clone(&overlay) as _) else {
            return;
        };
        assert_eq!(
            reports.last(),
            Some(&Report::Finished),
            "{reports:?}: {console}"
        );
        check_operations(&*reader(&overlay));
        let copy = directory.path().join("copy.raw");
        copy_to_raw(&*overlay, &copy, &Silent).unwrap();
        let copy = copy.to_str().unwrap();
        let checked = match kind {
            "xfs" => tool("xfs_repair", &["-n", copy]),
            _ => tool("btrfs", &["check", "--readonly", copy]),
        };
        assert!(checked.is_some());
    }
}

#[test]
fn a_log_is_replayed_and_damage_is_told_with_the_kernels_words() {
    let Some(mut direct) = Direct::new(&xfs_modules()) else {
        return;
    };
    let _lock = lock();
    let directory = TempDir::new().unwrap();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../image-library/disk/fixtures/xfs-dirty.img.zst");
    let file = directory.path().join("dirty.raw");
    let names = [packed.to_str().unwrap(), file.to_str().unwrap()];
    if tool("zstd", &["-q", "-d", names[0], "-o", names[1]]).is_none() {
        return;
    }
    let opened = open_disk(&file, &OpenOptions::default()).unwrap();
    let written = overlay(Arc::clone(&opened.device));
    direct.mount("xfs", &*written);
    let content = direct.content(b"new");
    let attributes = None;
    direct.push(
        "/written",
        Action::Write {
            content,
            attributes,
        },
    );
    let Some((reports, console)) = direct.run(Arc::clone(&written) as _) else {
        return;
    };
    assert_eq!(reports.last(), Some(&Report::Finished), "{console}");
    let device = Arc::clone(&written) as Arc<dyn ReadAt>;
    let log = filesystem::Xfs::open(device).unwrap().log();
    assert_eq!(log, filesystem::LogState::Clean);
    assert_eq!(reader(&written).read("/written", 9).unwrap(), b"new");
    let copy = directory.path().join("copy.raw");
    copy_to_raw(&*written, &copy, &Silent).unwrap();
    tool("xfs_repair", &["-n", copy.to_str().unwrap()]);

    let damaged = overlay(opened.device);
    damaged.write_all_at(512, &[0xff; 3 * 512]).unwrap();
    let (reports, console) = direct.run(damaged).unwrap();
    assert!(
        matches!(reports.last(), Some(Report::MountFailed { .. })),
        "{reports:?}"
    );
    assert!(console.contains("XFS"), "{console}");
}

/// A machine that is to append ` and second` to a file in which `first` stands, and its disk.
fn appending(directory: &Path) -> Option<(Direct, Arc<Overlay>)> {
    let mut direct = Direct::new(&xfs_modules())?;
    let root = directory.join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("big"), "first").unwrap();
    let file = directory.join("root.raw");
    make("xfs", &root, &file)?;
    let opened = open_disk(&file, &OpenOptions::default()).unwrap();
    let overlay = overlay(opened.device);
    direct.mount("xfs", &*overlay);
    let content = direct.content(b" and second");
    direct.push("/big", Action::Append { content });
    Some((direct, overlay))
}

#[test]
fn a_machine_with_too_little_memory_is_run_again_with_more() {
    let _lock = lock();
    let directory = TempDir::new().unwrap();
    let Some((mut direct, overlay)) = appending(directory.path()) else {
        return;
    };
    // The kernel has room, and what is unpacked for it has not.
    direct.memory_bytes = 128 << 20;
    fs::write(direct.archive.path().join("ballast"), vec![1; 96 << 20]).unwrap();
    let Some((reports, console)) = direct.run(Arc::clone(&overlay) as _) else {
        return;
    };
    assert_eq!(reports.last(), Some(&Report::Finished), "{console}");
    assert_eq!(direct.monitor.stages().len(), 1, "it was run once more");
    let text = reader(&overlay).read("/big", 99).unwrap();
    assert_eq!(text, b"first and second");
}

#[test]
fn what_a_machine_wrote_that_did_not_do_all_is_dropped() {
    let _lock = lock();
    let directory = TempDir::new().unwrap();
    let Some((mut direct, overlay)) = appending(directory.path()) else {
        return;
    };
    direct.push("/nothing", Action::Remove);
    direct.memory_bytes = MEMORY_BYTES_MAX / 2;
    let Some((reports, console)) = direct.run(Arc::clone(&overlay) as _) else {
        return;
    };
    assert!(
        reports.contains(&Report::Done { operation: 0 }),
        "{reports:?}: {console}"
    );
    assert!(matches!(
        reports.last(),
        Some(Report::Failed { operation: 1, .. })
    ));
    assert_eq!(direct.monitor.stages().len(), 1, "more memory was tried");
    assert_eq!(overlay.changed_bytes(), 0);
}

/// Whether a machine whose kernel was changed appends in its first run, with little memory.
fn appends_at_once(change: impl Fn(&mut [u8])) -> Option<bool> {
    let _lock = lock();
    let directory = TempDir::new().unwrap();
    let (mut direct, overlay) = appending(directory.path())?;
    let mut kernel = fs::read(&direct.kernel).unwrap();
    change(&mut kernel);
    direct.kernel = directory.path().join("changed");
    fs::write(&direct.kernel, kernel).unwrap();
    direct.memory_bytes = MEMORY_BYTES_MAX / 2;
    let (reports, _) = direct.run(Arc::clone(&overlay) as _)?;
    let is_at_once = direct.monitor.stages().is_empty();
    let is_done = reports.last() == Some(&Report::Finished);
    is_done.then(|| {
        let text = reader(&overlay).read("/big", 99).unwrap();
        assert_eq!(text, b"first and second");
    });
    Some(is_at_once && is_done)
}

#[test]
fn a_kernel_is_unpacked_here_and_its_own_loader_does_not_run() {
    let without_loader = |kernel: &mut [u8]| {
        let code = (usize::from(kernel[0x1f1]) + 1) * 512;
        kernel[code..code + 64].fill(0xf4);
    };
    if let Some(is_done) = appends_at_once(without_loader) {
        assert!(is_done);
    }
}

#[test]
fn a_kernel_that_is_not_unpacked_here_is_started_by_its_own_loader() {
    let with_loader_only = |kernel: &mut [u8]| kernel[0x248..0x250].fill(0);
    if let Some(is_done) = appends_at_once(with_loader_only) {
        assert!(is_done);
    }
}
