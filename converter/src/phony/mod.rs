// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests for tests: trees in memory, laid out as distributions do, with kernels and initramfs
//! images small enough to be made in a millisecond.

pub(crate) mod catalogue;
pub(crate) mod disks;
pub(crate) mod encrypted;
mod enterprise_servers;
pub(crate) mod generators;
pub(crate) mod image;
mod kernel;
pub(crate) mod loaders;
mod machines;
mod memory;
mod old_servers;
mod racks;
mod servers;
mod tree;

use std::collections::BTreeMap;

use disk::filesystem::{Filesystem, FilesystemKind};
use disk::{Finding, SectorSize};
use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::apply::{AppliedFile, ApplyOptions, Volumes, write_edits};
use crate::error::Result;
use crate::inspect::{
    AssembledFacts, AssembledKind, DiskFacts, Inspection, PartitionPurpose, Storage, TableKind,
    VolumeContent, VolumeFacts, VolumeId, inspect_filesystems,
};
use crate::plan::Plan;

pub(crate) use enterprise_servers::{
    debian_on_smart_array, dell_with_agents, lvm_filtered, rhel_7_with_teams, rhel_9, server,
    sles_15, ubuntu_bionic, ubuntu_jammy,
};
pub(crate) use kernel::{PhonyKernel, VIRTIO};
pub(crate) use machines::{ethernet, machine, machine_disk};
pub(crate) use memory::{MemoryFilesystem, Node};
pub(crate) use old_servers::{centos_6, rhel_5, sles_10, sles_11, ubuntu_trusty};
pub(crate) use servers::{debian_bookworm, debian_bullseye, debian_trixie, ubuntu};
pub(crate) use tree::{GENERATOR, SYSTEMD};

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
    /// Where filesystems are mounted when it runs.
    mounts: BTreeMap<&'static str, VolumeId>,
    /// What was noticed when the disks were opened.
    pub(crate) noticed: Vec<(DiskIndex, Finding)>,
}

/// What is on one partition of a phony guest.
pub(crate) struct PhonyVolume {
    pub(crate) kind: FilesystemKind,
    pub(crate) uuid: &'static str,
    pub(crate) purpose: PartitionPurpose,
    /// Where its files are when the guest runs.
    mount: Option<&'static str>,
}

impl PhonyVolume {
    /// Mounted there.
    pub(crate) fn at(mut self, path: &'static str) -> Self {
        self.mount = Some(path);
        self
    }
}

pub(crate) fn volume(kind: FilesystemKind, uuid: &'static str) -> PhonyVolume {
    PhonyVolume {
        kind,
        uuid,
        purpose: PartitionPurpose::Other,
        mount: None,
    }
}

/// An EFI system partition.
pub(crate) fn esp(uuid: &'static str) -> PhonyVolume {
    PhonyVolume {
        purpose: PartitionPurpose::EfiSystem,
        ..volume(FilesystemKind::Fat, uuid)
    }
}

/// A guest with one disk that has a master boot record.
pub(crate) fn mbr<const N: usize>(volumes: [PhonyVolume; N]) -> PhonyGuest {
    PhonyGuest::new(TableKind::Mbr, volumes.into())
}

/// A guest with one disk that has a GUID partition table.
pub(crate) fn gpt<const N: usize>(volumes: [PhonyVolume; N]) -> PhonyGuest {
    PhonyGuest::new(TableKind::Gpt, volumes.into())
}

impl PhonyGuest {
    /// One disk with these partitions.
    pub(crate) fn new(table: TableKind, volumes: Vec<PhonyVolume>) -> Self {
        let mut guest = Self {
            disks: Vec::new(),
            assembled: Vec::new(),
            filesystems: BTreeMap::new(),
            mounts: BTreeMap::new(),
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

    /// A logical volume `group/name` on a partition of the first disk.
    pub(crate) fn logical_volume(&mut self, partition: u32, path: &str, volume: &PhonyVolume) {
        let mapped = path.replace('-', "--").replace('/', "-");
        let part = VolumeId::on_disk(DiskIndex(0), Some(partition));
        let nodes = [path, &format!("mapper/{mapped}")];
        self.assemble(AssembledKind::LogicalVolume, &nodes, &[part], volume);
    }

    /// A mirror of md on a partition of the first disk and the same of the second.
    pub(crate) fn mirror(&mut self, partition: u32, nodes: &[&str], volume: &PhonyVolume) {
        let parts = [0, 1].map(|disk| VolumeId::on_disk(DiskIndex(disk), Some(partition)));
        self.assemble(AssembledKind::MdArray, nodes, &parts, volume);
    }

    /// A volume that is made of others.
    pub(crate) fn assemble(
        &mut self,
        kind: AssembledKind,
        nodes: &[&str],
        parts: &[VolumeId],
        volume: &PhonyVolume,
    ) {
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
    }

    /// What a volume holds; where that is files, it gets a filesystem and its place.
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
        if let Some(path) = volume.mount {
            self.mounts.insert(path, id);
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

    /// The filesystem on which a path of the running guest is, and the path there.
    fn place<'a>(&self, path: &'a str) -> Option<(&MemoryFilesystem, &'a str)> {
        let mut mounts = self.mounts.iter().rev();
        mounts.find_map(|(mount, id)| {
            let rest = path.strip_prefix(mount.trim_end_matches('/'))?;
            rest.starts_with('/').then(|| (&self.filesystems[id], rest))
        })
    }

    pub(crate) fn put(&self, path: &str, node: Node) {
        for mount in self.mounts.keys().filter(|mount| **mount != "/") {
            if let Some((above, path)) = self.place(mount) {
                above.directory(path);
            }
        }
        let (filesystem, path) = self.place(path).expect("something is mounted there");
        filesystem.put(path, node);
    }

    pub(crate) fn file(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File(content.into(), 0o644));
    }

    pub(crate) fn take(&self, path: &str) {
        let (filesystem, path) = self.place(path).expect("something is mounted there");
        filesystem.take(path);
    }

    /// Puts what a text lists; `{NAME}` in it stands for a word of this list.
    pub(crate) fn tree(&self, text: &str, words: &[(&str, &str)]) {
        let mut text = text.to_owned();
        for (name, word) in words {
            text = text.replace(&format!("{{{name}}}"), word);
        }
        for (path, node) in tree::nodes(&text) {
            self.put(path, node);
        }
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
