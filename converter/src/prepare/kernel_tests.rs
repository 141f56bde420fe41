// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest of LILO's on a real ext4 filesystem: the files that its machine is given from outside.

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::Filesystem as _;
use disk::{Level, ReadAt, WriteAt as _};

use super::tests::{OneImage, WORK, disk_with, guest_disk, image, options};
use super::*;
use crate::phony::{MemoryFilesystem, debian_bookworm};
use crate::plan::Verdict;

const KERNEL: &str = "/boot/vmlinuz-6.1.0-28-amd64";
const INITRAMFS: &str = "/boot/initrd.img-6.1.0-28-amd64";

/// The guest with LILO in place of GRUB, and a kernel with these bytes.
fn root_with_lilo(kernel: Vec<u8>) -> MemoryFilesystem {
    let guest = debian_bookworm();
    let root = guest.partition(1);
    root.take("/boot/grub/grub.cfg");
    root.file(
        "/etc/lilo.conf",
        format!(
            "boot=/dev/sda\nroot=/dev/sda1\n\nimage={KERNEL}\n\tlabel=Linux\n\tread-only\n\
             \tinitrd={INITRAMFS}\n"
        ),
    );
    root.file(KERNEL, kernel);
    root.clone()
}

fn bz_image() -> Vec<u8> {
    let mut kernel = vec![0x90; 70_001];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel
}

/// A disk that LILO would start.
fn lilo_disk(root: &MemoryFilesystem) -> Option<Vec<u8>> {
    let mut bytes = disk_with(root, "ext4")?;
    bytes[6..10].copy_from_slice(b"LILO");
    Some(bytes)
}

#[test]
fn a_kernel_from_outside_is_read_as_the_conversion_left_it() {
    let root = root_with_lilo(bz_image());
    let Some(bytes) = lilo_disk(&root) else {
        return;
    };
    let original = root.read(INITRAMFS, u64::MAX).unwrap();
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let options = options();
    for reused in [false, true] {
        let prepared = prepare(&library, &image, &options, WORK).unwrap();
        assert_eq!(prepared.reused, reused);
        assert_eq!(prepared.plan.verdict, Verdict::ReadyWithChanges);
        let errors = prepared.plan.findings.iter();
        assert!(errors.clone().all(|finding| finding.level != Level::Error));
        let direct = prepared.vm.direct_boot.as_ref().expect("LILO needs it");
        assert!(direct.command_line.contains("root=UUID="), "{direct:?}");
        let files = prepared.kernel(&library, &image, &options.secrets).unwrap();
        let files = files.expect("the definition names it");
        assert!(files.kernel == bz_image(), "another kernel");
        let initramfs = files.initramfs.expect("it has one");
        assert!(initramfs.starts_with(&original), "another initramfs");
        assert!(initramfs.len() > original.len(), "no driver was added");
        let written = prepared.applied.files.iter();
        let written: Vec<_> = written
            .filter(|file| file.place.guest_path == INITRAMFS)
            .map(|file| file.after.clone())
            .collect();
        assert_eq!(written, [crate::apply::hash(&initramfs)]);
    }
}

#[test]
fn a_guest_that_starts_by_itself_has_no_kernel_from_outside() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let options = options();
    let prepared = prepare(&library, &image, &options, WORK).unwrap();
    let files = prepared.kernel(&library, &image, &options.secrets).unwrap();
    assert_eq!(files, None);
}

#[test]
fn what_no_platform_could_start_is_told_when_the_image_is_prepared() {
    let Some(bytes) = lilo_disk(&root_with_lilo(b"\x7fELF".repeat(900))) else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let options = options();
    let error = prepare(&library, &image, &options, WORK).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(KERNEL) && text.contains("header"), "{text}");
    let beside = kept(&library, image.id, &options.plan).unwrap();
    assert!(matches!(beside, Kept::Failed(_)), "{beside:?}");
}

#[test]
fn a_record_of_options_that_are_no_more_is_made_anew() {
    let Some(bytes) = disk_with(debian_bookworm().partition(1), "ext4") else {
        return;
    };
    let image = image(bytes.len() as u64);
    let library = OneImage::with(bytes);
    let options = options();
    prepare(&library, &image, &options, WORK).unwrap();
    library.change(RECORD_NAME, |record| {
        record["options"]["direct_boot"] = false.into();
    });
    let beside = kept(&library, image.id, &options.plan).unwrap();
    assert_eq!(beside, Kept::Nothing);
    assert!(!prepare(&library, &image, &options, WORK).unwrap().reused);
    assert!(prepare(&library, &image, &options, WORK).unwrap().reused);
}

#[test]
fn a_changed_disk_gives_another_file_or_an_error() {
    let root = root_with_lilo(bz_image());
    let Some(bytes) = lilo_disk(&root) else {
        return;
    };
    let device = Arc::new(MemoryDevice::from(bytes.clone()));
    let disks = [guest_disk(Arc::clone(&device) as Arc<dyn ReadAt>)];
    let inspection = inspect(&disks, None, &disk::Silent).unwrap();
    let planned = plan(&inspection, &options().plan);
    let direct = planned.vm.direct_boot.expect("LILO needs it");
    // The superblock, the descriptors of the groups, and what lies behind them.
    let superblock = (0x10_0400..0x10_0800).step_by(7);
    for place in superblock.chain((0x10_1000..0x10_8000).step_by(97)) {
        let flip = |byte: u8| device.write_all_at(place as u64, &[byte]).unwrap();
        flip(!bytes[place]);
        // Either is right; a panic or a hang would not be.
        let _ = direct.read(&disks);
        flip(bytes[place]);
    }
    assert!(direct.read(&disks).is_ok());
    for length in [0, 511, 1 << 20, (1 << 20) + 2048, 4 << 20] {
        let device = MemoryDevice::from(bytes[..length].to_vec());
        direct.read(&[guest_disk(Arc::new(device))]).unwrap_err();
    }
}
