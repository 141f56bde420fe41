// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole conversion on a real ext4 filesystem that mkfs made from a phony guest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use disk::block::{MemoryDevice, OverlayOptions};
use disk::{ReadAt, SectorSize, Silent};
use image_library::{Consistency, Error as LibraryError, ImageDisk, ImageId, ImageReader, Result};
use tempfile::TempDir;

use super::*;
use crate::apply::NoMachine;
use crate::phony::{MemoryFilesystem, Node, debian_bookworm, encrypted};
use crate::plan::Verdict;
use crate::verify::checker;

const MIB: usize = 1 << 20;
const ROOT_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
const LUKS_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c03";
const SWAP_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c02";
const APPLY: ApplyOptions = ApplyOptions {
    now_unix_seconds: 1_700_000_000,
};
/// None of these guests has a use for a machine.
pub(super) const WORK: Work<'_> = Work {
    machine: &NoMachine,
    monitor: &Silent,
};

/// Runs a tool; `None`, with its reason printed, where it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<()> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if std::env::var("E2E_REQUIRE").as_deref() == Ok("all") => {
            panic!("{program}: {error}")
        }
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {text}");
    Some(())
}

fn export(filesystem: &MemoryFilesystem, directory: &Path) {
    for (path, node) in filesystem.entries() {
        let target = directory.join(path.trim_start_matches('/'));
        match node {
            Node::Directory => fs::create_dir_all(target).unwrap(),
            Node::File(bytes, _) => fs::write(target, bytes).unwrap(),
            Node::Symlink(link) => symlink(link, target).unwrap(),
        }
    }
}

/// A disk with MBR, the guest's root on an ext filesystem, and swap.
pub(super) fn disk_with(guest: &MemoryFilesystem, kind: &str) -> Option<Vec<u8>> {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(path("tree")).unwrap();
    export(guest, Path::new(&path("tree")));
    let (root, swap, tree) = (path("root.raw"), path("swap.raw"), path("tree"));
    let mkfs = format!("/sbin/mkfs.{kind}");
    run(&mkfs, &["-q", "-U", ROOT_UUID, "-d", &tree, &root, "40M"])?;
    fs::write(&swap, vec![0; 4 * MIB]).unwrap();
    run("/sbin/mkswap", &["-q", "-U", SWAP_UUID, &swap])?;
    let mut disk = vec![0; MIB];
    disk.extend(fs::read(root).unwrap());
    disk.extend(fs::read(swap).unwrap());
    disk[0] = 0xeb;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (place, (start, length, kind)) in [(1, 40, 0x83), (41, 4, 0x82)].into_iter().enumerate() {
        let entry = 446 + 16 * place;
        disk[entry + 4] = kind;
        let sectors = |mib: u32| (mib * 2048).to_le_bytes();
        disk[entry + 8..entry + 12].copy_from_slice(&sectors(start));
        disk[entry + 12..entry + 16].copy_from_slice(&sectors(length));
    }
    Some(disk)
}

/// The same disk with its root encrypted.
fn encrypted_disk() -> Option<Vec<u8>> {
    let plain = disk_with(debian_bookworm().partition(1), "ext4")?;
    let mut disk = plain[..MIB].to_vec();
    disk.extend(encrypted::luks(LUKS_UUID, &plain[MIB..41 * MIB]));
    disk.resize(42 * MIB, 0);
    disk.extend(&plain[41 * MIB..]);
    let sectors = |mib: u32| (mib * 2048).to_le_bytes();
    disk[458..462].copy_from_slice(&sectors(41));
    disk[470..474].copy_from_slice(&sectors(42));
    Some(disk)
}

fn errors(plan: &Plan) -> Vec<&str> {
    let findings = plan.findings.iter();
    let errors = findings.filter(|finding| finding.level == Level::Error);
    errors.map(|finding| finding.code.as_str()).collect()
}

#[test]
fn an_encrypted_root_is_converted_with_its_key_and_without_waits_for_it() {
    let Some(bytes) = encrypted_disk() else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let mut options = options();
    for reused in [false, true] {
        let locked = prepare(&library, &image, &options, WORK).unwrap();
        assert_eq!(
            (locked.plan.verdict, locked.reused),
            (Verdict::NeedsInput, reused)
        );
        assert_eq!(errors(&locked.plan), ["storage.luks.locked"]);
        assert_eq!(locked.overlays, []);
    }
    // What was kept without a key is not the last word for who has one.
    options.secrets = encrypted::secrets();
    let opened = prepare(&library, &image, &options, WORK).unwrap();
    assert_eq!(
        opened.plan.verdict,
        Verdict::ReadyWithChanges,
        "{}",
        opened.plan
    );
    assert!(!opened.reused);
    assert!(prepare(&library, &image, &options, WORK).unwrap().reused);
    let files = library.side_files.lock().unwrap();
    for (name, bytes) in &*files {
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(!has(b"correct horse"), "{name}");
        // The console that the plan adds is written as the volume is: encrypted.
        assert!(!name.ends_with("qcow2") || !has(b"console=ttyS0"), "{name}");
    }
    let overlay: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(opened.overlays[0].1.clone()));
    let base = Arc::clone(&library.disk);
    let disk = Overlay::from_qcow2(overlay, base, OverlayOptions::default()).unwrap();
    let disk = GuestDisk {
        secrets: encrypted::secrets(),
        ..guest_disk(Arc::new(disk))
    };
    let again = convert(&[disk]);
    assert_eq!(again.plan.edits, []);
    assert_eq!(again.plan.verdict, Verdict::Ready);
}

pub(super) fn guest_disk(device: Arc<dyn ReadAt>) -> GuestDisk {
    GuestDisk {
        index: DiskIndex(0),
        name: Some("sda".to_owned()),
        device,
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    }
}

pub(super) fn options() -> PrepareOptions {
    PrepareOptions {
        plan: PlanOptions::new("web01"),
        again: false,
        secrets: Secrets::default(),
    }
}

fn convert(disks: &[GuestDisk]) -> Converted {
    convert_disks(disks, None, &PlanOptions::new("web01"), &APPLY, WORK).unwrap()
}

#[test]
fn a_real_filesystem_is_converted_passes_its_checker_and_is_ready_afterwards() {
    for kind in ["ext4", "ext3", "ext2"] {
        let Some(bytes) = disk_with(debian_bookworm().partition(1), kind) else {
            return;
        };
        let disks = [guest_disk(Arc::new(MemoryDevice::from(bytes)))];
        let first = convert(&disks);
        assert_eq!(
            first.plan.verdict,
            Verdict::ReadyWithChanges,
            "{}",
            first.plan
        );
        let applied = first.applied.unwrap();
        assert_eq!(applied.summary.files.len(), first.plan.edits.len());
        let directory = TempDir::new().unwrap();
        let findings = checker::check(&applied, &disks, directory.path(), &Silent).unwrap();
        assert_eq!(findings, [], "{kind}");

        let converted: Arc<dyn ReadAt> = applied.overlays[0].1.clone();
        let second = convert(&[guest_disk(converted)]);
        assert_eq!(second.plan.edits, [], "{kind}");
        assert_eq!(second.plan.verdict, Verdict::Ready);
        assert_eq!(second.plan.vm, first.plan.vm);
    }
}

/// An EFI system partition with Debian's loaders, which only the firmware's own memory names.
fn efi_system_partition() -> Option<Vec<u8>> {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (image, tree) = (path("esp.raw"), path("EFI"));
    fs::create_dir_all(path("EFI/debian")).unwrap();
    for name in ["shimx64.efi", "grubx64.efi", "mmx64.efi", "grub.cfg"] {
        fs::write(path(&format!("EFI/debian/{name}")), name.repeat(9000)).unwrap();
    }
    fs::write(&image, vec![0; 16 * MIB]).unwrap();
    run("/sbin/mkfs.fat", &["-i", "5A3C91F0", &image])?;
    run("mcopy", &["-s", "-i", &image, &tree, "::/EFI"])?;
    Some(fs::read(image).unwrap())
}

#[test]
fn loaders_are_copied_on_a_real_fat_filesystem_for_firmware_without_memory() {
    let guest = debian_bookworm();
    let root = guest.partition(1);
    root.take("/boot/grub/i386-pc/normal.mod");
    root.take("/boot/grub/i386-pc");
    let (Some(mut bytes), Some(esp)) = (disk_with(root, "ext4"), efi_system_partition()) else {
        return;
    };
    let entry = 446 + 16 * 2;
    bytes[entry + 4] = 0xef;
    let sectors = |bytes: usize| u32::try_from(bytes / 512).unwrap().to_le_bytes();
    bytes[entry + 8..entry + 12].copy_from_slice(&sectors(45 * MIB));
    bytes[entry + 12..entry + 16].copy_from_slice(&sectors(esp.len()));
    bytes.extend(esp);
    let disks = [guest_disk(Arc::new(MemoryDevice::from(bytes)))];
    let first = convert(&disks);
    assert_eq!(
        first.plan.verdict,
        Verdict::ReadyWithChanges,
        "{}",
        first.plan
    );
    let made: Vec<&str> = first
        .plan
        .edits
        .iter()
        .map(|edit| edit.place.guest_path.as_str())
        .filter(|path| path.starts_with("/efi/"))
        .collect();
    assert_eq!(
        made,
        [
            "/efi/EFI/BOOT/BOOTX64.EFI",
            "/efi/EFI/BOOT/grubx64.efi",
            "/efi/EFI/BOOT/mmx64.efi",
            "/efi/EFI/BOOT/grub.cfg",
        ]
    );
    let applied = first.applied.unwrap();
    let directory = TempDir::new().unwrap();
    let findings = checker::check(&applied, &disks, directory.path(), &Silent).unwrap();
    assert_eq!(findings, []);
    let converted: Arc<dyn ReadAt> = applied.overlays[0].1.clone();
    let second = convert(&[guest_disk(converted)]);
    assert_eq!(second.plan.edits, []);
    assert_eq!(second.plan.verdict, Verdict::Ready);
}

#[test]
fn two_conversions_of_one_disk_give_the_same_bytes() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let disks = [guest_disk(Arc::new(MemoryDevice::from(bytes)))];
    let one = Prepared::from_converted(convert(&disks)).unwrap();
    let two = Prepared::from_converted(convert(&disks)).unwrap();
    assert!(one.overlays == two.overlays, "the overlays differ");
}

/// A library of one image.
#[derive(Debug)]
pub(super) struct OneImage {
    disk: Arc<dyn ReadAt>,
    side_files: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl OneImage {
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        Self {
            disk: Arc::new(MemoryDevice::from(bytes)),
            side_files: Mutex::default(),
        }
    }

    /// As if another version had written that side file.
    fn made_by(&self, name: &str, version: &str) {
        self.change(name, |value| value["converter"] = version.into());
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut files = self.side_files.lock().unwrap();
        let bytes = files.get_mut(name).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    }
}

impl ImageReader for OneImage {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    fn image(&self, _id: ImageId) -> Result<Image> {
        Ok(image(self.disk.length_bytes()))
    }

    fn open_disk(&self, _id: ImageId, _disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::clone(&self.disk))
    }

    fn side_file(&self, _id: ImageId, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.side_files.lock().unwrap().get(name).cloned())
    }

    fn put_side_file(&self, _id: ImageId, name: &str, content: &[u8]) -> Result<()> {
        self.side_files
            .lock()
            .unwrap()
            .insert(name.to_owned(), content.to_vec());
        Ok(())
    }
}

pub(super) fn image(size_bytes: u64) -> Image {
    let time = "2026-11-01T10:00:00Z".parse().unwrap();
    Image {
        id: "019a3c00-0000-7000-8000-000000000001".parse().unwrap(),
        server: "web01".parse().unwrap(),
        taken_at: time,
        received_at: time,
        consistency: Consistency::Cold,
        machine: None,
        disks: vec![ImageDisk {
            index: DiskIndex(0),
            name: "sda".to_owned(),
            size_bytes,
            sector_size: SectorSize::B512,
            manifest: String::new(),
            data_bytes: size_bytes,
        }],
        parent: None,
        stored_bytes: Default::default(),
        generation: 0,
    }
}

#[test]
fn an_image_is_prepared_once_and_again_when_asked_or_when_the_options_change() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let mut options = options();
    let first = prepare(&library, &image, &options, WORK).unwrap();
    assert!(!first.reused);
    let second = prepare(&library, &image, &options, WORK).unwrap();
    assert!(second.reused);
    assert_eq!(second.plan, first.plan);
    assert!(second.overlays == first.overlays, "the overlay was kept");

    let overlay: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(second.overlays[0].1.clone()));
    let base = Arc::clone(&library.disk);
    let disk = Overlay::from_qcow2(overlay, base, OverlayOptions::default()).unwrap();
    assert_eq!(convert(&[guest_disk(Arc::new(disk))]).plan.edits, []);

    options.again = true;
    assert!(!prepare(&library, &image, &options, WORK).unwrap().reused);
    options.again = false;
    options.plan.serial_console = false;
    assert!(!prepare(&library, &image, &options, WORK).unwrap().reused);
}

#[test]
fn what_does_not_fit_together_or_is_of_another_version_is_prepared_again() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let mut options = options();
    let is_reused = |options: &PrepareOptions| {
        let prepared = prepare(&library, &image, options, WORK).unwrap();
        prepared.reused
    };
    assert!(!is_reused(&options));
    assert!(is_reused(&options));

    let overlay = "overlay-0.qcow2".to_owned();
    let put = |bytes: Vec<u8>| {
        library
            .side_files
            .lock()
            .unwrap()
            .insert(overlay.clone(), bytes)
    };
    let ours = put(b"of another version".to_vec()).unwrap();
    assert!(!is_reused(&options));
    assert!(is_reused(&options));
    assert!(put(ours.clone()) == Some(ours), "the overlay is ours again");

    library.made_by(RECORD_NAME, "0.0.1");
    assert!(!is_reused(&options));
    assert!(is_reused(&options));

    // What a later version made stays, unless this one's work is asked for.
    library.made_by(RECORD_NAME, "999.0.0");
    assert!(!is_reused(&options));
    assert!(!is_reused(&options));
    let beside = kept(&library, image.id, &options.plan).unwrap();
    assert!(matches!(beside, Kept::ByLater { .. }), "{beside:?}");
    options.again = true;
    assert!(!is_reused(&options));
    options.again = false;
    assert!(is_reused(&options));
}

#[test]
fn what_is_kept_tells_the_verdict_and_what_was_read() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let options = options();
    let nothing = kept(&library, image.id, &options.plan).unwrap();
    assert_eq!(nothing, Kept::Nothing);
    let prepared = prepare(&library, &image, &options, WORK).unwrap();
    let Kept::Prepared(summary) = kept(&library, image.id, &options.plan).unwrap() else {
        panic!("it was prepared");
    };
    assert_eq!(summary.verdict, Verdict::ReadyWithChanges);
    assert_eq!(summary.edit_count, prepared.plan.edits.len());
    assert_eq!(summary.reads, prepared.reads);
    let blocks = library.disk.length_bytes() >> 16;
    assert!(
        (1..blocks / 2).contains(&summary.reads.block_count),
        "{summary:?}"
    );
    assert_eq!(
        summary.reads.request_count, summary.reads.block_count,
        "each block is read once"
    );
}

/// A disk that the library has lost, or that cannot be reached.
#[derive(Debug)]
struct Failing(fn() -> LibraryError);

impl ReadAt for Failing {
    fn length_bytes(&self) -> u64 {
        MIB as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        Err(disk::Error::Device {
            action: "read",
            offset,
            length: buffer.len() as u64,
            source: Box::new((self.0)()),
        })
    }
}

#[test]
fn a_failure_is_noted_where_it_is_the_images_own() {
    let lost = || LibraryError::PackMissing {
        place: "packs/17".to_owned(),
    };
    let away = || LibraryError::Unreachable {
        location: "https://library".to_owned(),
        source: "no answer".into(),
    };
    let cases: [(fn() -> LibraryError, bool); 2] = [(lost, true), (away, false)];
    for (error, is_noted) in cases {
        let library = OneImage {
            disk: Arc::new(Failing(error)),
            side_files: Mutex::default(),
        };
        let (image, options) = (image(MIB as u64), options());
        prepare(&library, &image, &options, WORK).unwrap_err();
        let beside = kept(&library, image.id, &options.plan).unwrap();
        let Kept::Failed(failure) = beside else {
            assert!(!is_noted, "{beside:?}");
            continue;
        };
        assert!(is_noted, "{failure:?}");
        assert_eq!(failure.findings[0].code, "prepare.failed");
        assert!(failure.findings[0].problem.contains("packs/17"));
        library.made_by(FAILURE_NAME, "0.0.1");
        let beside = kept(&library, image.id, &options.plan).unwrap();
        assert_eq!(beside, Kept::Nothing);
    }
}

#[test]
fn a_disk_without_an_operating_system_has_a_verdict_and_nothing_is_written() {
    let disks = [guest_disk(Arc::new(MemoryDevice::from(vec![0; 2 * MIB])))];
    let converted = convert(&disks);
    assert_eq!(converted.plan.verdict, Verdict::NotConvertible);
    assert!(converted.applied.is_none());
    let error = apply(&converted.plan, &disks, &APPLY, WORK).unwrap_err();
    assert!(error.to_string().contains("disk.no-filesystem"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_full_filesystem_is_refused_before_the_first_write() {
    let guest = debian_bookworm();
    guest.partition(1).file("/var/filler", vec![7; 33 * MIB]);
    let Some(bytes) = disk_with(guest.partition(1), "ext2") else {
        return;
    };
    let mut disks = [guest_disk(Arc::new(MemoryDevice::from(bytes)))];
    let inspection = inspect(&disks, None, &Silent).unwrap();
    let plan = plan(&inspection, &PlanOptions::new("web01"));
    // As if nothing were free: s_free_blocks_count of the superblock.
    let mut bytes = vec![0; disks[0].device.length_bytes() as usize];
    disks[0].device.read_exact_at(0, &mut bytes).unwrap();
    let field = MIB + 1024 + 0x0c;
    bytes[field..field + 4].copy_from_slice(&3_u32.to_le_bytes());
    disks[0].device = Arc::new(MemoryDevice::from(bytes));
    let error = apply(&plan, &disks, &APPLY, WORK).unwrap_err();
    assert!(error.to_string().contains("are free"), "{error}");
}
