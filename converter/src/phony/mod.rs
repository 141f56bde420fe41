// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests for tests: trees in memory, laid out as distributions do, with kernels and initramfs
//! images small enough to be made in a millisecond.

pub(crate) mod catalogue;
pub(crate) mod encrypted;
mod enterprise_servers;
pub(crate) mod generators;
pub(crate) mod image;
pub(crate) mod loaders;
mod machines;
mod memory;
mod old_servers;
mod racks;
mod servers;

use std::collections::BTreeMap;

use disk::filesystem::{Filesystem, FilesystemKind};
use disk::{Finding, SectorSize};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::apply::{AppliedFile, ApplyOptions, Volumes, write_edits};
use crate::error::Result;
use crate::guest::compression::{Compression, compress};
use crate::guest::cpio::Writer;
use crate::inspect::{
    AssembledFacts, AssembledKind, DiskFacts, Inspection, PartitionPurpose, Storage, TableKind,
    VolumeContent, VolumeFacts, VolumeId, inspect_filesystems,
};
use crate::plan::Plan;

pub(crate) use enterprise_servers::{
    debian_on_smart_array, dell_with_agents, lvm_filtered, rhel_7_with_teams, rhel_9, server,
    sles_15, ubuntu_bionic, ubuntu_jammy,
};
pub(crate) use machines::{ethernet, machine, machine_disk};
pub(crate) use memory::{MemoryFilesystem, Node};
pub(crate) use old_servers::{centos_6, rhel_5, sles_10, sles_11, ubuntu_trusty};

const OPTIONS: ApplyOptions = ApplyOptions {
    now_unix_seconds: 1_700_000_000,
};

/// A guest in memory.
#[derive(Debug)]
pub(crate) struct PhonyGuest {
    pub(crate) disks: Vec<DiskFacts>,
    /// Logical volumes, arrays.
    pub(crate) assembled: Vec<AssembledFacts>,
    pub(crate) filesystems: BTreeMap<VolumeId, MemoryFilesystem>,
    /// What was noticed when the disks were opened.
    pub(crate) noticed: Vec<(DiskIndex, Finding)>,
}

/// What is on one partition of a phony guest.
pub(crate) struct PhonyVolume {
    pub(crate) kind: FilesystemKind,
    pub(crate) uuid: &'static str,
    pub(crate) purpose: PartitionPurpose,
}

pub(crate) fn volume(kind: FilesystemKind, uuid: &'static str) -> PhonyVolume {
    PhonyVolume {
        kind,
        uuid,
        purpose: PartitionPurpose::Other,
    }
}

impl PhonyGuest {
    /// One disk with these partitions.
    pub(crate) fn new(table: TableKind, volumes: Vec<PhonyVolume>) -> Self {
        let mut guest = Self {
            disks: Vec::new(),
            assembled: Vec::new(),
            filesystems: BTreeMap::new(),
            noticed: Vec::new(),
        };
        guest.add_disk(None, table, volumes);
        guest
    }

    /// Another disk, with the name that the server gave to it.
    pub(crate) fn add_disk(
        &mut self,
        name: Option<&str>,
        table: TableKind,
        volumes: Vec<PhonyVolume>,
    ) {
        let index = u16::try_from(self.disks.len()).expect("a phony guest has few disks");
        let index = DiskIndex(index);
        let mut facts = Vec::new();
        for (number, volume) in (1_u32..).zip(volumes) {
            let id = VolumeId::on_disk(index, Some(number));
            facts.push(VolumeFacts {
                id,
                start_bytes: u64::from(number) << 30,
                size_bytes: 1 << 30,
                purpose: volume.purpose,
                partition_uuid: Some(format!("c0ffee0{index}-0{number}")),
                partition_label: None,
                content: Some(self.content(id, &volume)),
            });
        }
        self.disks.push(DiskFacts {
            index,
            name: name.map(str::to_owned),
            size_bytes: 8 << 30,
            sector_size: SectorSize::B512,
            table,
            boot_code: true,
            boot_code_of: None,
            volumes: facts,
        });
    }

    /// A volume that is made of others.
    pub(crate) fn assemble(
        &mut self,
        kind: AssembledKind,
        nodes: &[&str],
        parts: &[VolumeId],
        volume: &PhonyVolume,
    ) -> MemoryFilesystem {
        let number = u16::try_from(self.assembled.len()).expect("a phony guest has few volumes");
        let id = VolumeId::Assembled { number };
        let content = Some(self.content(id, volume));
        self.assembled.push(AssembledFacts {
            id,
            kind,
            name: nodes[0].to_owned(),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            parts: parts.to_vec(),
            size_bytes: 1 << 30,
            content,
        });
        let made = self.filesystems.get(&id).cloned();
        made.unwrap_or_else(|| MemoryFilesystem::new(volume.kind))
    }

    /// What a volume holds; where that is files, it gets a filesystem.
    fn content(&mut self, id: VolumeId, volume: &PhonyVolume) -> VolumeContent {
        let has_files = matches!(
            volume.kind,
            FilesystemKind::Ext2
                | FilesystemKind::Ext3
                | FilesystemKind::Ext4
                | FilesystemKind::Xfs
                | FilesystemKind::Btrfs
                | FilesystemKind::Fat
        );
        if has_files {
            self.filesystems
                .insert(id, MemoryFilesystem::new(volume.kind));
        }
        VolumeContent {
            kind: volume.kind,
            uuid: Some(volume.uuid.to_owned()),
            label: None,
            free_bytes: Some(1 << 29),
            journal_dirty: false,
        }
    }

    /// The filesystem of a partition of the first disk.
    pub(crate) fn partition(&self, number: u32) -> &MemoryFilesystem {
        let id = VolumeId::on_disk(DiskIndex(0), Some(number));
        &self.filesystems[&id]
    }

    pub(crate) fn inspect(&self) -> Inspection {
        self.inspect_with(None)
    }

    pub(crate) fn inspect_with(&self, machine: Option<&MachineDescription>) -> Inspection {
        let filesystems = self
            .filesystems
            .iter()
            .map(|(id, filesystem)| (*id, Box::new(filesystem.clone()) as Box<dyn Filesystem>))
            .collect();
        let storage = Storage {
            disks: self.disks.clone(),
            assembled: self.assembled.clone(),
            filesystems,
            findings: self.noticed.clone(),
        };
        inspect_filesystems(storage, machine).expect("a filesystem in memory can be read")
    }

    /// Carries out a plan on the filesystems in memory.
    pub(crate) fn apply(&self, plan: &Plan) -> Result<Vec<AppliedFile>> {
        let mut volumes = Volumes::default();
        for (id, filesystem) in &self.filesystems {
            volumes.writable.insert(*id, Box::new(filesystem.clone()));
        }
        write_edits(&plan.edits, &mut volumes, &OPTIONS)
    }

    /// The text of a file on a partition of the first disk.
    pub(crate) fn text(&self, number: u32, path: &str) -> String {
        let bytes = self
            .partition(number)
            .read(path, u64::MAX)
            .expect("the file exists");
        String::from_utf8(bytes).expect("the file is text")
    }
}

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
}

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
    /// Puts the kernel: `/boot` onto one filesystem, modules onto another.
    pub(crate) fn install(&self, boot: &MemoryFilesystem, prefix: &str, root: &MemoryFilesystem) {
        let version = self.version;
        boot.file(&format!("{prefix}/vmlinuz-{version}"), "kernel");
        boot.file(&format!("{prefix}/initrd.img-{version}"), self.initramfs());
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
            root.file(
                &format!("{directory}/kernel/{path}{}", self.suffix),
                self.module_file(path),
            );
        }
        let builtin: String = self
            .builtin
            .iter()
            .map(|name| module_path(name, ".ko") + "\n")
            .collect();
        root.file(&format!("{directory}/modules.dep"), dep);
        root.file(&format!("{directory}/modules.alias"), alias);
        root.file(&format!("{directory}/modules.softdep"), "");
        root.file(&format!("{directory}/modules.symbols"), "");
        root.file(&format!("{directory}/modules.builtin"), builtin);
    }

    fn module_file(&self, path: &str) -> Vec<u8> {
        let content = format!("module {path} of {}", self.version).into_bytes();
        match self.suffix {
            ".ko.xz" => compress(&content, Compression::Xz).expect("xz compresses"),
            _ => content,
        }
    }

    /// An initramfs of initramfs-tools.
    fn initramfs(&self) -> Vec<u8> {
        let mut writer = Writer::new(0);
        let directory = format!("usr/lib/modules/{}", self.version);
        let mut made = std::collections::BTreeSet::new();
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("init".to_owned(), b"#!/bin/sh\n".to_vec()),
            ("conf/initramfs.conf".to_owned(), b"MODULES=dep\n".to_vec()),
            (format!("{directory}/modules.builtin"), Vec::new()),
        ];
        for name in self.inside {
            let path = module_path(name, ".ko");
            files.push((
                format!("{directory}/{path}"),
                format!("inside {name}").into_bytes(),
            ));
        }
        for (path, text) in self.files {
            files.push(((*path).to_owned(), text.as_bytes().to_vec()));
        }
        writer.symlink("lib", "usr/lib").expect("a name fits");
        for (path, content) in files {
            for (end, _) in path.match_indices('/') {
                if made.insert(path[..end].to_owned()) {
                    writer.directory(&path[..end], 0o755).expect("a name fits");
                }
            }
            writer.file(&path, 0o644, &content).expect("a name fits");
        }
        compress(&writer.finish(), self.compression).expect("the tests name what we can write")
    }
}

pub(crate) use servers::{debian_bookworm, debian_bullseye, debian_trixie, ubuntu};

/// A link.
pub(crate) fn link(filesystem: &MemoryFilesystem, path: &str, target: &str) {
    filesystem.put(path, Node::Symlink(target.to_owned()));
}
