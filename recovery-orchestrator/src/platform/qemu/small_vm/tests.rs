// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real kernels write real filesystems; their own checkers and our readers look at the result.
//!
//! The kernel is Debian's, from the folder that `E2E_MODULE_TREE` names or the cache has; tools make
//! the images, and need neither root nor the host's filesystems.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::Command;
use std::sync::Arc;

use converter::apply::{ApplyOptions, NoMachine, Work};
use converter::plan::{PlanOptions, Verdict};
use converter::prepare::{Converted, convert_disks};
use converter::verify::checker;
use converter::{GuestDisk, Secrets};
use disk::block::{OpenOptions, Overlay, OverlayOptions, copy_to_raw, open_disk};
use disk::filesystem::{self, Filesystem};
use disk::{ReadAt, SectorSize, Silent, WriteAt};
use guest_writer::{Action, Attributes, Device, Mount, ORDER, Operation, Report};
use image_library::DiskIndex;
use tempfile::TempDir;

use super::*;

const NOW: i64 = 1_700_000_000;
const UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
/// The modules that are needed, by folder or file.
const MODULES: [&str; 12] = [
    "crypto",
    "lib",
    "fs/xfs",
    "fs/btrfs",
    "drivers/virtio",
    "drivers/block",
    "drivers/ata",
    "drivers/scsi",
    "arch/x86/crypto",
    "drivers/net/virtio_net.ko",
    "drivers/net/net_failover.ko",
    "net/core/failover.ko",
];

/// Says why a test does not run; counted by the tests' script.
fn skip<T>(reason: impl fmt::Display) -> Option<T> {
    eprintln!("skipped: {reason}");
    assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
    None
}

/// Runs a tool; `None` where it is not installed.
fn tool(program: &str, arguments: &[&str]) -> Option<()> {
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let run = Command::new(program)
        .args(arguments)
        .env("PATH", search)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) => return skip(format!("{program}: {error}")),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    Some(())
}

/// The machine lock of the sample servers: one at a time.
fn lock() -> Option<fs::File> {
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/relevo");
    fs::create_dir_all(&cache).ok()?;
    let file = fs::File::create(cache.join("machine.lock")).ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// A kernel with its modules: the image, the folder of its modules, its version.
fn kernel() -> Option<(PathBuf, PathBuf, String)> {
    let named = std::env::var_os("E2E_MODULE_TREE").map(PathBuf::from);
    let in_cache = || {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        let folder = home.join(".cache/relevo/appliance/lib/modules");
        Some(fs::read_dir(folder).ok()?.next()?.ok()?.path())
    };
    let Some(modules) = named.or_else(in_cache) else {
        return skip("there is no kernel: E2E_MODULE_TREE names none");
    };
    let version = modules.file_name()?.to_str()?.to_owned();
    let mut above = modules.ancestors();
    let image = above.find_map(|folder| {
        let image = folder.join(format!("boot/vmlinuz-{version}"));
        image.exists().then_some(image)
    });
    match image {
        Some(image) => Some((image, modules, version)),
        None => skip(format!("{} has no kernel", modules.display())),
    }
}

fn small_vm() -> Option<SmallVm> {
    if super::super::probe::version(Path::new(super::super::BINARY)).is_err() {
        return skip("QEMU is not installed");
    }
    let named = std::env::var_os("RELEVO_GUEST_WRITER").map(PathBuf::from);
    let built = std::env::current_exe().ok()?;
    let beside = built
        .ancestors()
        .map(|folder| folder.join("libexec/relevo/relevo-guest-writer"));
    let programs: Vec<PathBuf> = named.into_iter().chain(beside).collect();
    if let Err(problem) = program(&programs) {
        return skip(problem);
    }
    let open = || {
        let cache = std::env::temp_dir().join("relevo-small-vm-host.json");
        Qemu::open(&crate::config::QemuConfiguration::default(), &cache)
    };
    Some(SmallVm {
        open: Box::new(open),
        programs,
        temporary: std::env::temp_dir(),
        interrupt: Interrupt::default(),
    })
}

/// A server whose root is one filesystem, named as a disk that a virtual machine has not.
fn tree(folder: &Path, kind: &str, image: &Path, modules: &Path, version: &str) -> Option<()> {
    let put = |path: &str, content: &[u8]| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
    program.resize(64, 0);
    put("usr/bin/sh", &program);
    put("usr/lib/systemd/systemd", &program);
    fs::create_dir_all(folder.join("usr/sbin")).unwrap();
    symlink("../lib/systemd/systemd", folder.join("usr/sbin/init")).unwrap();
    for name in ["bin", "sbin", "lib"] {
        symlink(format!("usr/{name}"), folder.join(name)).unwrap();
    }
    put(
        "etc/os-release",
        b"ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n",
    );
    put("etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
    put("etc/hostname", b"web01\n");
    let fstab = format!("/dev/sda1 / {kind} defaults 0 1\n");
    put("etc/fstab", fstab.as_bytes());
    put("etc/initramfs-tools/modules", b"# none\n");
    put("etc/initramfs-tools/initramfs.conf", b"MODULES=dep\n");
    let grub = format!(
        "menuentry 'Debian' {{\n\tlinux\t/boot/vmlinuz-{version} root=/dev/sda1 ro\n\
         \tinitrd\t/boot/initrd.img-{version}\n}}\n"
    );
    put("boot/grub/grub.cfg", grub.as_bytes());
    put(
        &format!("boot/vmlinuz-{version}"),
        &fs::read(image).unwrap(),
    );
    let inside = folder.with_extension("initramfs");
    fs::create_dir_all(inside.join("conf")).unwrap();
    fs::create_dir_all(inside.join(format!("usr/lib/modules/{version}"))).unwrap();
    fs::write(inside.join("init"), "#!/bin/sh\n").unwrap();
    fs::write(inside.join("conf/initramfs.conf"), "MODULES=dep\n").unwrap();
    let target = folder.join(format!("boot/initrd.img-{version}"));
    let script = format!(
        "cd {} && find . | cpio -o -H newc --quiet > {}",
        inside.display(),
        target.display()
    );
    tool("cpio", &["--version"])?;
    tool("sh", &["-c", &script])?;
    let to = folder.join(format!("usr/lib/modules/{version}/kernel"));
    for name in MODULES {
        let target = to.join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let from = modules.join("kernel").join(name);
        tool(
            "cp",
            &["-r", from.to_str().unwrap(), target.to_str().unwrap()],
        )?;
    }
    for name in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        put(
            &format!("usr/lib/modules/{version}/{name}"),
            &fs::read(modules.join(name)).unwrap(),
        );
    }
    tool("depmod", &["-b", folder.to_str().unwrap(), version])
}

/// What mkfs.xfs makes a tree of: one line for each file, `$` behind each directory.
fn protofile(folder: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        let mode = found.mode() & 0o777;
        if found.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            *text += &format!("{name} l--777 0 0 {}\n", target.display());
        } else if found.is_dir() {
            *text += &format!("{name} d--{mode:03o} 0 0\n");
            protofile(&path, text);
            *text += "$\n";
        } else {
            *text += &format!("{name} ---{mode:03o} 0 0 {}\n", path.display());
        }
    }
}

/// A filesystem of a kind with a tree in it.
fn make(kind: &str, tree: &Path, file: &Path) -> Option<()> {
    let image = fs::File::create(file).unwrap();
    image.set_len(512 << 20).unwrap();
    let name = file.to_str().unwrap();
    match kind {
        "xfs" => {
            let mut text = "boot\n0 0\nd--755 0 0\n".to_owned();
            protofile(tree, &mut text);
            let list = file.with_extension("proto");
            fs::write(&list, text + "$\n").unwrap();
            let uuid = format!("uuid={UUID}");
            tool(
                "mkfs.xfs",
                &["-q", "-m", &uuid, "-p", list.to_str().unwrap(), name],
            )
        }
        _ => tool(
            "mkfs.btrfs",
            &["-q", "-U", UUID, "--rootdir", tree.to_str().unwrap(), name],
        ),
    }
}

/// A disk with that filesystem as its first partition, behind a boot sector.
fn disk(filesystem: &Path, file: &Path) -> GuestDisk {
    let mut sector = vec![0; 1 << 20];
    let sectors = u32::try_from(fs::metadata(filesystem).unwrap().len() / 512).unwrap();
    sector[0] = 0xeb;
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut target = fs::File::create(file).unwrap();
    target.write_all(&sector).unwrap();
    let mut source = fs::File::open(filesystem).unwrap();
    std::io::copy(&mut source, &mut target).unwrap();
    let opened = open_disk(file, &OpenOptions::default()).unwrap();
    GuestDisk {
        index: DiskIndex(0),
        name: Some("sda".to_owned()),
        device: opened.device,
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    }
}

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

/// A machine with what is to be done in it.
struct Direct {
    machine: SmallVm,
    archive: TempDir,
    order: guest_writer::Order,
    kernel: PathBuf,
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
        for name in modules {
            let from = tree.join(format!("kernel/{name}.ko"));
            let to = format!("modules/{}", order.modules.len());
            if !from.exists() {
                return skip(format!("{} is not there", from.display()));
            }
            fs::copy(from, archive.path().join(&to)).unwrap();
            order.modules.push(to);
        }
        Some(Self {
            machine,
            archive,
            order,
            kernel,
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
                &WriterOrder {
                    kernel: fs::read(&self.kernel).unwrap(),
                    initramfs: fs::read(&target).unwrap(),
                    command_line: "console=ttyS0 loglevel=5 panic=-1".to_owned(),
                    controller: DiskController::VirtioBlk,
                    disks: vec![WriterDisk {
                        device,
                        sector_size: SectorSize::B512,
                        slot: 5,
                    }],
                    memory_bytes: 512 << 20,
                },
                &Silent,
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
