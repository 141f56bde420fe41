// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest's names of disks mean: `/dev/sda1`, `UUID=...`, `/dev/disk/by-id/...-part2`.
//!
//! | name | resolved by |
//! |---|---|
//! | `UUID=`, `LABEL=`, `/dev/disk/by-uuid`, `by-label` | superblocks |
//! | `PARTUUID=`, `PARTLABEL=`, `by-partuuid`, `by-partlabel` | partition tables |
//! | `/dev/sda1`, `hda`, `vda`, `xvda`, `nvme0n1p1`, `mmcblk0p1`, `cciss/c0d0p1` | the disks' names, else their order |
//! | `/dev/disk/by-id`, `by-path` | the machine description's links; with a single disk, `-partN` alone |
//! | `/dev/mapper/mpatha1`, aliases and WWIDs of multipath | the disk with that WWID; with a single disk, its partition |
//!
//! What cannot be resolved stays unresolved: a guess here would put a wrong disk into fstab.

mod kernel_name;
mod stability;

use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::guest::multipath_conf::MultipathAlias;
use crate::inspect::inspection::{VolumeId, Volumes};
use crate::inspect::map_name::{MapName, link_has_wwid, same_wwn};

use kernel_name::KernelName;
use stability::tag_of;
pub(crate) use stability::{Stability, is_volatile, stability};

/// Resolves a guest's names of disks and partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceNames<'a> {
    volumes: Volumes<'a>,
    machine: Option<&'a MachineDescription>,
    aliases: &'a [MultipathAlias],
}

impl<'a> DeviceNames<'a> {
    pub(crate) fn new(volumes: Volumes<'a>, machine: Option<&'a MachineDescription>) -> Self {
        Self {
            volumes,
            machine,
            aliases: &[],
        }
    }

    /// The same, with the names that the guest gives to multipath maps.
    pub(crate) fn with_aliases(self, aliases: &'a [MultipathAlias]) -> Self {
        Self { aliases, ..self }
    }

    /// What becomes of a name when the hardware changes.
    pub(crate) fn stability(&self, spec: &str) -> Stability {
        match MapName::parse(spec, self.aliases) {
            Some(_) => Stability::Volatile,
            None => stability(spec),
        }
    }

    /// Which volume a name means; of a filesystem on several, its first one.
    pub(crate) fn resolve(&self, spec: &str) -> Option<VolumeId> {
        let volume = self.find(spec)?;
        Some(self.volumes.first_of(volume))
    }

    /// Which volume a name means, also where it is one of several of a filesystem.
    pub(crate) fn resolve_device(&self, spec: &str) -> Option<VolumeId> {
        self.find(spec)
    }

    fn find(&self, spec: &str) -> Option<VolumeId> {
        if let Some((tag, value)) = tag_of(spec) {
            return self.by_tag(tag, &value);
        }
        let name = spec.strip_prefix("/dev/")?;
        if let Some(volume) = self.by_node(name) {
            return Some(volume);
        }
        if let Some(map) = MapName::parse(spec, self.aliases) {
            return self.by_map(map);
        }
        if let Some(link) = name
            .strip_prefix("disk/by-id/")
            .or_else(|| name.strip_prefix("disk/by-path/"))
        {
            return self.by_link(spec, link);
        }
        self.by_kernel_name(name)
    }

    /// A name of the volume that does not change with the hardware: `UUID=...`, or `LABEL=...` or
    /// `PARTUUID=...` where the UUID is missing or not the only one of its kind.
    pub(crate) fn stable_name(&self, id: VolumeId) -> Option<String> {
        let content = self.volumes.contents().find(|(volume, _)| *volume == id);
        let uuid = content.and_then(|(_, content)| content.uuid.as_ref());
        if let Some(uuid) = uuid
            && self.by_tag("UUID", uuid) == Some(id)
        {
            return Some(format!("UUID={uuid}"));
        }
        let label = content.and_then(|(_, content)| content.label.as_ref());
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
        if let Some(label) = label.filter(|label| label.bytes().all(is_plain))
            && self.by_tag("LABEL", label) == Some(id)
        {
            return Some(format!("LABEL={label}"));
        }
        let volume = self.volumes.on_disks().find(|volume| volume.id == id)?;
        let part_uuid = volume.partition_uuid.as_ref()?;
        (self.by_tag("PARTUUID", part_uuid) == Some(id)).then(|| format!("PARTUUID={part_uuid}"))
    }

    /// A name that stays true even when the content is made anew, as swap space with a random key
    /// is at every boot.
    pub(crate) fn partition_name(&self, id: VolumeId) -> Option<String> {
        let volume = self.volumes.on_disks().find(|volume| volume.id == id)?;
        let uuid = volume.partition_uuid.as_ref()?;
        (self.by_tag("PARTUUID", uuid) == Some(id)).then(|| format!("/dev/disk/by-partuuid/{uuid}"))
    }

    /// The disk of a multipath map: that with its WWID, else the only one.
    fn by_map(&self, map: MapName<'_>) -> Option<VolumeId> {
        let disks = self.machine.iter().flat_map(|machine| &machine.disks);
        let mut matching = disks.filter(|disk| {
            let by_link = disk.links.iter().any(|(link, _)| {
                let name = link.rsplit('/').next().unwrap_or_default();
                name.strip_prefix("dm-name-") == Some(map.name)
                    || map.wwid.is_some_and(|wwid| link_has_wwid(name, wwid))
            });
            let wwn = disk.wwn.as_deref().unwrap_or_default();
            by_link || map.wwid.is_some_and(|wwid| same_wwn(wwn, wwid))
        });
        if let Some(disk) = matching.next() {
            let mut known = self.volumes.disks.iter();
            let known = known.find(|facts| facts.name.as_deref() == Some(disk.name.as_str()));
            return self.volume(known?.index, map.partition);
        }
        let [only] = self.volumes.disks else {
            return None;
        };
        self.volume(only.index, map.partition)
    }

    /// The only volume with that tag; two of the same are none.
    fn by_tag(&self, tag: &str, value: &str) -> Option<VolumeId> {
        let is_it = |found: Option<&str>| found.is_some_and(|f| f.eq_ignore_ascii_case(value));
        let contents = self.volumes.contents().filter(|(_, content)| match tag {
            "UUID" => is_it(content.uuid.as_deref()),
            "LABEL" => content.label.as_deref() == Some(value),
            _ => false,
        });
        let partitions = self.volumes.on_disks().filter(|volume| match tag {
            "PARTUUID" => is_it(volume.partition_uuid.as_deref()),
            "PARTLABEL" => volume.partition_label.as_deref() == Some(value),
            _ => false,
        });
        let ids = contents.map(|(id, _)| id);
        let mut matching = ids.chain(partitions.map(|volume| volume.id));
        let first = matching.next()?;
        // The first of a filesystem comes before its others.
        matching
            .all(|other| self.volumes.first_of(other) == first)
            .then_some(first)
    }

    /// A volume that was put together, by the name of its device node.
    fn by_node(&self, name: &str) -> Option<VolumeId> {
        let mut assembled = self.volumes.assembled.iter();
        let volume = assembled.find(|volume| volume.nodes.iter().any(|node| node == name))?;
        Some(volume.id)
    }

    fn by_link(&self, spec: &str, link: &str) -> Option<VolumeId> {
        let known = self.machine.and_then(|machine| {
            let mut links = machine.disks.iter().flat_map(|disk| &disk.links);
            links.find(|(name, _)| name == spec || name.ends_with(&format!("/{link}")))
        });
        if let Some((_, kernel_name)) = known {
            return self.by_kernel_name(kernel_name.trim_start_matches("/dev/"));
        }
        let stacked = ["dm-", "md-", "lvm-"].iter().any(|p| link.starts_with(p));
        // A stick that holds a key is no disk of the image.
        let on_usb = link.starts_with("usb-") || link.contains("-usb-");
        let [only] = self.volumes.disks else {
            return None;
        };
        let (_, number) = link.rsplit_once("-part")?;
        (!stacked && !on_usb).then_some(())?;
        self.volume(only.index, Some(number.parse().ok()?))
    }

    fn by_kernel_name(&self, name: &str) -> Option<VolumeId> {
        let parsed = KernelName::parse(name)?;
        let by_name = self
            .volumes
            .disks
            .iter()
            .find(|disk| disk.name.as_deref() == Some(parsed.disk));
        let named = self
            .volumes
            .disks
            .iter()
            .any(|disk| disk.name.as_deref().is_some_and(is_kernel_disk_name));
        let index = match by_name {
            Some(disk) => disk.index,
            None if named => return None,
            None => self.volumes.disks.get(parsed.order)?.index,
        };
        self.volume(index, parsed.partition)
    }

    fn volume(&self, disk: DiskIndex, partition: Option<u32>) -> Option<VolumeId> {
        let id = VolumeId::on_disk(disk, partition);
        self.volumes.has(id).then_some(id)
    }
}

fn is_kernel_disk_name(name: &str) -> bool {
    KernelName::parse(name).is_some_and(|parsed| parsed.partition.is_none())
}

#[cfg(test)]
mod tests;
