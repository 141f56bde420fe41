// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel of Debian's kind: its modules, and an initramfs of initramfs-tools.

use super::{Node, PhonyGuest, tree};
use crate::guest::compression::{Compression, compress};

/// A kernel of a phony guest.
pub(crate) struct PhonyKernel<'a> {
    pub(crate) version: &'a str,
    /// Where `lib` is: "" or "/usr".
    pub(crate) usr: &'a str,
    /// The end of module files: ".ko" or ".ko.xz".
    pub(crate) suffix: &'a str,
    /// Modules that are built in.
    pub(crate) builtin: &'a [&'a str],
    /// Modules inside the initramfs, by name.
    pub(crate) inside: &'a [&'a str],
    pub(crate) compression: Compression,
    /// Other files inside the initramfs.
    pub(crate) files: &'a [(&'a str, &'a str)],
    /// Its name; `{}` is the version.
    pub(crate) initramfs: &'a str,
}

impl Default for PhonyKernel<'_> {
    fn default() -> Self {
        Self {
            version: "",
            usr: "",
            suffix: ".ko",
            builtin: &[],
            inside: &[],
            compression: Compression::Gzip,
            files: &[],
            initramfs: "initrd.img-{}",
        }
    }
}

/// All that a virtual machine's disk and card need.
pub(crate) const VIRTIO: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "virtio_scsi",
];

/// Path below `kernel/`, dependencies, aliases.
const MODULES: [(&str, &[&str], &str); 16] = [
    ("drivers/virtio/virtio", &[], ""),
    ("drivers/virtio/virtio_ring", &[], ""),
    ("drivers/virtio/virtio_pci_modern_dev", &[], ""),
    ("drivers/virtio/virtio_pci_legacy_dev", &[], ""),
    (
        "drivers/virtio/virtio_pci",
        &[
            "virtio_pci_legacy_dev",
            "virtio_pci_modern_dev",
            "virtio",
            "virtio_ring",
        ],
        "pci:v00001AF4d*sv*sd*bc*sc*i*",
    ),
    (
        "drivers/block/virtio_blk",
        &["virtio", "virtio_ring"],
        "virtio:d00000002v*",
    ),
    ("drivers/scsi/scsi_common", &[], ""),
    ("drivers/scsi/scsi_mod", &["scsi_common"], ""),
    (
        "drivers/scsi/virtio_scsi",
        &["scsi_mod", "virtio", "virtio_ring"],
        "virtio:d00000008v*",
    ),
    ("drivers/scsi/sd_mod", &["scsi_mod"], "scsi:t-0x00*"),
    ("net/core/failover", &[], ""),
    ("drivers/net/net_failover", &["failover"], ""),
    (
        "drivers/net/virtio_net",
        &["net_failover", "virtio", "virtio_ring"],
        "virtio:d00000001v*",
    ),
    (
        "drivers/ata/ahci",
        &["scsi_mod"],
        "pci:v*d*sv*sd*bc01sc06i01*",
    ),
    (
        "drivers/net/ethernet/intel/e1000/e1000",
        &[],
        "pci:v00008086d0000100Esv*sd*bc*sc*i*",
    ),
    (
        "drivers/net/ethernet/intel/e1000e/e1000e",
        &[],
        "pci:v00008086d000010D3sv*sd*bc*sc*i*",
    ),
];

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().expect("a path has a last part")
}

fn module_path(name: &str, suffix: &str) -> String {
    let (path, _, _) = MODULES
        .iter()
        .find(|(path, _, _)| name_of(path) == name)
        .expect("the tests name known modules");
    format!("kernel/{path}{suffix}")
}

impl PhonyKernel<'_> {
    /// Puts the kernel and its initramfs into `/boot`, and its modules.
    pub(crate) fn install(&self, guest: &PhonyGuest) {
        let version = self.version;
        guest.file(&format!("/boot/vmlinuz-{version}"), "kernel");
        let initramfs = self.initramfs.replace("{}", version);
        guest.file(&format!("/boot/{initramfs}"), self.archive());
        let directory = format!("{}/lib/modules/{version}", self.usr);
        let mut dep = String::new();
        let mut alias = String::new();
        for (path, dependencies, pattern) in MODULES {
            if self.builtin.contains(&name_of(path)) {
                continue;
            }
            let dependencies: Vec<String> = dependencies
                .iter()
                .filter(|name| !self.builtin.contains(name))
                .map(|name| module_path(name, self.suffix))
                .collect();
            dep += &format!("kernel/{path}{}: {}\n", self.suffix, dependencies.join(" "));
            if !pattern.is_empty() {
                alias += &format!("alias {pattern} {}\n", name_of(path));
            }
            guest.file(
                &format!("{directory}/kernel/{path}{}", self.suffix),
                self.module_file(path),
            );
        }
        let builtin: String = self
            .builtin
            .iter()
            .map(|name| module_path(name, ".ko") + "\n")
            .collect();
        guest.file(&format!("{directory}/modules.dep"), dep);
        guest.file(&format!("{directory}/modules.alias"), alias);
        guest.file(&format!("{directory}/modules.softdep"), "");
        guest.file(&format!("{directory}/modules.symbols"), "");
        guest.file(&format!("{directory}/modules.builtin"), builtin);
    }

    fn module_file(&self, path: &str) -> Vec<u8> {
        let content = format!("module {path} of {}", self.version).into_bytes();
        match self.suffix {
            ".ko.xz" => compress(&content, Compression::Xz).expect("xz compresses"),
            _ => content,
        }
    }

    /// An initramfs of initramfs-tools.
    fn archive(&self) -> Vec<u8> {
        let directory = format!("usr/lib/modules/{}", self.version);
        let file = |path: String, content: String| (path, Node::File(content.into(), 0o644));
        let mut nodes = vec![
            ("lib".to_owned(), Node::Symlink("usr/lib".to_owned())),
            file("init".to_owned(), "#!/bin/sh\n".to_owned()),
            file("conf/initramfs.conf".to_owned(), "MODULES=dep\n".to_owned()),
            file(format!("{directory}/modules.builtin"), String::new()),
        ];
        for name in self.inside {
            let path = format!("{directory}/{}", module_path(name, ".ko"));
            nodes.push(file(path, format!("inside {name}")));
        }
        for (path, text) in self.files {
            nodes.push(file((*path).to_owned(), (*text).to_owned()));
        }
        compress(&tree::archive(nodes), self.compression).expect("the tests name what we can write")
    }
}
