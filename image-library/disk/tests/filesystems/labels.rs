// SPDX-License-Identifier: MIT OR Apache-2.0
//! Labels of SELinux as whoever inspects a guest asks for them: of any filesystem, by path.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{Filesystem, open};
use disk::{Error, ReadAt};

use crate::outside::{have, run};
use crate::volume::ImageFile;
use crate::{make, tree};

const LABEL: &str = "system_u:object_r:etc_t:s0";

fn label(filesystem: &dyn Filesystem, path: &str) -> Option<String> {
    filesystem.selinux_context(path).expect("it can be read")
}

/// A filesystem that a kernel wrote.
fn fixture(name: &str) -> Box<dyn Filesystem> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    let bytes = zstd::decode_all(fs::File::open(path).expect("a fixture")).expect("it is sound");
    let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
    open(device).expect("it opens")
}

#[test]
fn a_label_that_debugfs_sets_on_ext_is_read_with_and_without_its_end() {
    if !have(&["debugfs"]) {
        return;
    }
    // In the inode, and in a block of its own.
    for (kind, inode_bytes) in [("ext4", "256"), ("ext3", "256"), ("ext2", "128")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = tree(folder.path()).to_string_lossy().into_owned();
        let arguments = ["-qF", "-t", kind, "-I", inode_bytes, "-d", &tree];
        let Some(image) = make(folder.path(), 32, "mke2fs", &arguments) else {
            return;
        };
        fs::write(folder.path().join("bare"), LABEL).expect("a new file");
        fs::write(folder.path().join("ended"), format!("{LABEL}\0")).expect("a new file");
        for (path, value) in [("/etc", "ended"), ("/etc/1", "ended"), ("/etc/2", "bare")] {
            let request = format!("ea_set -f {value} {path} security.selinux");
            run(folder.path(), "debugfs", &["-w", "-R", &request, "image"]);
        }
        let filesystem = open(ImageFile::open(&image)).expect("it opens");
        for path in ["/etc", "/etc/1", "/etc/2"] {
            let found = label(&*filesystem, path);
            assert_eq!(found.as_deref(), Some(LABEL), "{kind}: {path}");
        }
        assert_eq!(label(&*filesystem, "/"), None);
        assert_eq!(label(&*filesystem, "/etc/3"), None);
        let nowhere = filesystem.selinux_context("/etc/none");
        assert!(matches!(nowhere, Err(Error::NotFound { .. })));
    }
}

#[test]
fn labels_that_a_kernel_wrote_to_xfs_are_read() {
    let filesystem = fixture("xfs-used.img.zst");
    let labelled = [
        ("/etc/shadow", "system_u:object_r:shadow_t:s0"),
        ("/etc/hostname", "system_u:object_r:hostname_etc_t:s0"),
        ("/leaf-attributes", "leaf_t"),
        ("/node-attributes", "node_t"),
    ];
    for (path, expected) in labelled {
        let found = label(&*filesystem, path);
        assert_eq!(found.as_deref(), Some(expected), "{path}");
    }
    assert_eq!(label(&*filesystem, "/etc"), None);
    let nowhere = filesystem.selinux_context("/etc/none");
    assert!(matches!(nowhere, Err(Error::NotFound { .. })));
}

#[test]
fn labels_that_a_kernel_wrote_to_btrfs_are_read() {
    let filesystem = fixture("btrfs/files.1.img.zst");
    let found = label(&*filesystem, "/@/etc/fstab");
    assert_eq!(found.as_deref(), Some(LABEL));
    assert_eq!(label(&*filesystem, "/@/plain"), None);
    let nowhere = filesystem.selinux_context("/@/etc/none");
    assert!(matches!(nowhere, Err(Error::NotFound { .. })));
}

#[test]
fn a_filesystem_without_attributes_has_no_labels() {
    if !have(&["mkfs.vfat"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    if let Some(image) = make(folder.path(), 4, "mkfs.vfat", &[]) {
        let filesystem = open(ImageFile::open(&image)).expect("it opens");
        assert_eq!(label(&*filesystem, "/"), None);
    }
}
