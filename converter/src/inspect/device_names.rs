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

use image_library::DiskIndex;
use image_library::machine::MachineDescription;

use crate::guest::multipath_conf::MultipathAlias;
use crate::inspect::inspection::{VolumeId, Volumes};
use crate::inspect::map_name::{MapName, link_has_wwid, same_wwn};

/// What becomes of a name when the hardware changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stability {
    /// It names content, and stays true: `UUID=`, `LABEL=`.
    Stable,
    /// It names hardware, and will be wrong: `/dev/sda1`, by-id, by-path.
    Volatile,
    /// A device stacked on others: LVM, md, device mapper.
    Stacked,
    /// Not a block device: `tmpfs`, `server:/export`.
    NotADevice,
}

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

/// What becomes of a name when the hardware changes.
pub(crate) fn stability(spec: &str) -> Stability {
    if tag_of(spec).is_some() {
        return Stability::Stable;
    }
    let Some(name) = spec.strip_prefix("/dev/") else {
        return Stability::NotADevice;
    };
    let link = name
        .strip_prefix("disk/by-id/")
        .or_else(|| name.strip_prefix("disk/by-path/"));
    if let Some(link) = link {
        let stacked = ["dm-", "md-", "lvm-"].iter().any(|p| link.starts_with(p));
        return if stacked {
            Stability::Stacked
        } else {
            Stability::Volatile
        };
    }
    if KernelName::parse(name).is_some() {
        return Stability::Volatile;
    }
    let other = [
        "fd", "sr", "cdrom", "scd", "dvd", "loop", "ram", "zram", "shm", "pts",
    ];
    if other.iter().any(|prefix| name.starts_with(prefix)) {
        return Stability::NotADevice;
    }
    Stability::Stacked
}

/// Whether a name is one that the kernel gives by the order in which disks are found, or a link by
/// hardware.
pub(crate) fn is_volatile(spec: &str) -> bool {
    MapName::parse(spec, &[]).is_some() || stability(spec) == Stability::Volatile
}

fn is_kernel_disk_name(name: &str) -> bool {
    KernelName::parse(name).is_some_and(|parsed| parsed.partition.is_none())
}

/// `UUID="x"` and `/dev/disk/by-uuid/x` as the pair of tag and value.
fn tag_of(spec: &str) -> Option<(&'static str, String)> {
    const TAGS: [(&str, &str, &str); 4] = [
        ("UUID", "UUID=", "/dev/disk/by-uuid/"),
        ("LABEL", "LABEL=", "/dev/disk/by-label/"),
        ("PARTUUID", "PARTUUID=", "/dev/disk/by-partuuid/"),
        ("PARTLABEL", "PARTLABEL=", "/dev/disk/by-partlabel/"),
    ];
    for (tag, prefix, directory) in TAGS {
        if let Some(value) = spec.strip_prefix(prefix) {
            return Some((tag, value.trim_matches(['"', '\'']).to_owned()));
        }
        if let Some(value) = spec.strip_prefix(directory) {
            return Some((tag, unescape(value)));
        }
    }
    None
}

/// Undoes udev's `\x20` in link names.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .strip_prefix(b"x")
            .and_then(|hex| hex.get(..2))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A kernel's name of a disk or partition, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KernelName<'a> {
    /// The disk's part: `sda`, `nvme0n1`.
    disk: &'a str,
    /// The disk's place among its like, from 0.
    order: usize,
    /// The partition's number.
    partition: Option<u32>,
}

impl<'a> KernelName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        for prefix in ["xvd", "sd", "hd", "vd", "emcpower", "i2o/hd"] {
            if let Some(rest) = name.strip_prefix(prefix) {
                return Self::lettered(name, prefix.len(), rest);
            }
        }
        for prefix in ["nvme", "mmcblk", "cciss/c", "ida/c", "rd/c", "pmem"] {
            if name.starts_with(prefix) {
                return Self::numbered(name, prefix);
            }
        }
        None
    }

    fn lettered(name: &'a str, prefix: usize, rest: &str) -> Option<Self> {
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        if letters == 0 || letters > 3 {
            return None;
        }
        let order = rest.bytes().take(letters).fold(0_usize, |order, letter| {
            order * 26 + usize::from(letter - b'a') + 1
        }) - 1;
        let (disk, number) = name.split_at_checked(prefix + letters)?;
        let partition = partition_number(number)?;
        Some(Self {
            disk,
            order,
            partition,
        })
    }

    /// `nvme0n1p2`, `mmcblk0p1`, `cciss/c0d0p1`: the partition follows a `p` after a digit.
    fn numbered(name: &'a str, prefix: &str) -> Option<Self> {
        let rest = name.strip_prefix(prefix)?;
        let (disk, number) = match name.rsplit_once('p') {
            Some((disk, number))
                if disk.len() > prefix.len()
                    && disk.ends_with(|c: char| c.is_ascii_digit())
                    && !number.is_empty() =>
            {
                (disk, number)
            }
            _ => (name, ""),
        };
        let partition = partition_number(number)?;
        let digits = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let first: usize = digits(rest).parse().ok()?;
        let drive = rest.split_once('d').map(|(_, drive)| digits(drive));
        let order = match (prefix, drive) {
            ("cciss/c" | "ida/c" | "rd/c", Some(drive)) => drive.parse().ok()?,
            _ => first,
        };
        Some(Self {
            disk,
            order,
            partition,
        })
    }
}

fn partition_number(text: &str) -> Option<Option<u32>> {
    if text.is_empty() {
        return Some(None);
    }
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok().map(Some)).flatten()
}

#[cfg(test)]
mod tests {
    use disk::SectorSize;
    use disk::filesystem::FilesystemKind;
    use rstest::rstest;

    use super::*;
    use crate::inspect::inspection::{
        AssembledFacts, AssembledKind, DiskFacts, PartitionPurpose, TableKind, VolumeContent,
        VolumeFacts,
    };

    fn volume(disk: u16, number: u32, uuid: &str) -> VolumeFacts {
        VolumeFacts {
            id: VolumeId::on_disk(DiskIndex(disk), Some(number)),
            start_bytes: 0,
            size_bytes: 1,
            purpose: PartitionPurpose::Other,
            partition_uuid: Some(format!("0badcafe-{disk}{number}")),
            partition_label: Some(format!("part {number}")),
            content: Some(VolumeContent {
                kind: FilesystemKind::Ext4,
                uuid: Some(uuid.to_owned()),
                label: Some(format!("label{disk}{number}")),
                free_bytes: None,
                journal_dirty: false,
            }),
        }
    }

    fn disk(index: u16, name: Option<&str>, uuids: &[&str]) -> DiskFacts {
        DiskFacts {
            index: DiskIndex(index),
            name: name.map(str::to_owned),
            size_bytes: 1,
            sector_size: SectorSize::B512,
            table: TableKind::Mbr,
            boot_code: true,
            boot_code_of: None,
            volumes: (1..)
                .zip(uuids)
                .map(|(number, uuid)| volume(index, number, uuid))
                .collect(),
        }
    }

    fn id(disk: u16, partition: u32) -> Option<VolumeId> {
        Some(VolumeId::on_disk(DiskIndex(disk), Some(partition)))
    }

    fn names(disks: &[DiskFacts]) -> DeviceNames<'_> {
        let volumes = Volumes {
            disks,
            assembled: &[],
        };
        DeviceNames::new(volumes, None)
    }

    #[test]
    fn volumes_that_were_put_together_have_their_own_names() {
        let disks = [disk(0, None, &["a-1"])];
        let part = id(0, 1).expect("it is some");
        let root = VolumeId::Assembled { number: 0 };
        let assembled = [AssembledFacts {
            id: root,
            kind: AssembledKind::LogicalVolume,
            name: "vg/root".to_owned(),
            nodes: vec!["vg/root".to_owned(), "mapper/vg-root".to_owned()],
            parts: vec![part],
            size_bytes: 1,
            content: Some(VolumeContent {
                kind: FilesystemKind::Ext4,
                uuid: Some("c-1".to_owned()),
                label: None,
                free_bytes: None,
                journal_dirty: false,
            }),
        }];
        let volumes = Volumes {
            disks: &disks,
            assembled: &assembled,
        };
        let names = DeviceNames::new(volumes, None);
        for name in ["/dev/mapper/vg-root", "/dev/vg/root", "UUID=c-1"] {
            assert_eq!(names.resolve(name), Some(root), "{name}");
        }
        assert_eq!(names.resolve("/dev/vg/swap"), None);
        assert_eq!(names.stable_name(root).as_deref(), Some("UUID=c-1"));
        assert_eq!(volumes.disks_of(root), [DiskIndex(0)]);
    }

    #[rstest]
    #[case("/dev/sda1", id(0, 1))]
    #[case("/dev/sdb2", id(1, 2))]
    #[case("/dev/nvme1n1p2", id(1, 2))]
    #[case("/dev/cciss/c0d1p1", id(1, 1))]
    #[case("/dev/mmcblk0p1", id(0, 1))]
    #[case("/dev/xvda2", id(0, 2))]
    #[case("/dev/sdc1", None)]
    #[case("/dev/sda9", None)]
    #[case("/dev/sda01", None)]
    #[case("UUID=b-1", id(1, 1))]
    #[case("UUID=\"B-1\"", id(1, 1))]
    #[case("LABEL=label02", id(0, 2))]
    #[case("/dev/disk/by-label/label02", id(0, 2))]
    #[case("/dev/disk/by-uuid/a-2", id(0, 2))]
    #[case("PARTUUID=0badcafe-12", id(1, 2))]
    #[case("/dev/disk/by-partlabel/part\\x201", None)]
    #[case("/dev/disk/by-id/ata-X-part1", None)]
    #[case("/dev/mapper/vg-root", None)]
    fn names_mean_what_they_meant_on_the_server(
        #[case] spec: &str,
        #[case] expected: Option<VolumeId>,
    ) {
        let disks = [
            disk(0, None, &["a-1", "a-2"]),
            disk(1, None, &["b-1", "b-2"]),
        ];
        assert_eq!(names(&disks).resolve(spec), expected);
    }

    #[test]
    fn known_names_of_disks_count_more_than_their_order() {
        let disks = [
            disk(0, Some("sdb"), &["a-1"]),
            disk(1, Some("nvme0n1"), &["b-1"]),
        ];
        let names = names(&disks);
        assert_eq!(names.resolve("/dev/sdb1"), id(0, 1));
        assert_eq!(names.resolve("/dev/nvme0n1p1"), id(1, 1));
        assert_eq!(names.resolve("/dev/sda1"), None);
    }

    #[test]
    fn with_a_single_disk_a_link_by_id_needs_only_the_partitions_number() {
        let disks = [disk(0, None, &["a-1", "a-2"])];
        let names = names(&disks);
        assert_eq!(names.resolve("/dev/disk/by-id/ata-WDC_1-part2"), id(0, 2));
        assert_eq!(
            names.resolve("/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part1"),
            id(0, 1)
        );
        assert_eq!(names.resolve("/dev/disk/by-id/dm-name-x-part1"), None);
        assert_eq!(names.resolve("/dev/disk/by-id/usb-Stick-0:0-part1"), None);
        assert_eq!(names.resolve("/dev/disk/by-partlabel/part\\x201"), id(0, 1));
    }

    #[test]
    fn a_uuid_that_two_volumes_have_names_neither() {
        let disks = [disk(0, None, &["same", "same"])];
        let names = names(&disks);
        assert_eq!(names.resolve("UUID=same"), None);
        let stable = names.stable_name(id(0, 2).expect("it is some"));
        assert_eq!(stable.as_deref(), Some("LABEL=label02"));
        let partition = names.partition_name(id(0, 2).expect("it is some"));
        assert_eq!(
            partition.as_deref(),
            Some("/dev/disk/by-partuuid/0badcafe-02")
        );
    }

    #[rstest]
    #[case("/dev/mapper/mpatha", None)]
    #[case("/dev/mapper/mpatha2", Some(2))]
    #[case("/dev/mapper/mpathap2", Some(2))]
    #[case("/dev/mapper/mpathaa-part2", Some(2))]
    #[case("/dev/mpath/mpath0", None)]
    #[case("/dev/mapper/mpath0p2", Some(2))]
    #[case("/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293_part2", Some(2))]
    #[case("/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293", None)]
    #[case("/dev/mapper/system2", Some(2))]
    #[case(
        "/dev/disk/by-id/dm-uuid-part2-mpath-3600508b1001c0a1b2c3d4e5f60718293",
        Some(2)
    )]
    #[case("/dev/disk/by-id/dm-name-mpatha-part2", Some(2))]
    fn a_map_of_multipath_stands_for_the_only_disk(
        #[case] spec: &str,
        #[case] partition: Option<u32>,
    ) {
        let aliases = [MultipathAlias {
            alias: "system".to_owned(),
            wwid: "3600508b1001c0a1b2c3d4e5f60718293".to_owned(),
        }];
        let map = MapName::parse(spec, &aliases).expect("it is a map");
        assert_eq!(map.partition, partition);
        let disks = [disk(0, None, &["a-1", "a-2"])];
        let names = names(&disks).with_aliases(&aliases);
        assert_eq!(names.stability(spec), Stability::Volatile);
        assert_eq!(
            names.resolve(spec),
            partition.and_then(|number| id(0, number))
        );
    }

    #[rstest]
    #[case("/dev/mapper/vg0-root")]
    #[case("/dev/mapper/mpath")]
    #[case("/dev/mapper/system2")]
    #[case("/dev/mapper/luks-3600508b1001c0a1b2c3d4e5f60718293")]
    #[case("/dev/mapper/sda3_crypt")]
    fn other_maps_are_none_of_multipath(#[case] spec: &str) {
        assert_eq!(MapName::parse(spec, &[]), None);
    }

    #[test]
    fn of_several_disks_the_one_with_the_maps_wwid_is_meant() {
        let disks = [
            disk(0, Some("sda"), &["a-1"]),
            disk(1, Some("sdb"), &["b-1"]),
        ];
        let mut machine = crate::phony::machine("host");
        for (name, wwn) in [
            ("sda", "0x600508b1001c0a1b2c3d4e5f60718293"),
            ("sdb", "naa.6005"),
        ] {
            machine.disks.push(image_library::machine::Disk {
                wwn: Some(wwn.to_owned()),
                ..crate::phony::machine_disk(name)
            });
        }
        let volumes = Volumes {
            disks: &disks,
            assembled: &[],
        };
        let names = DeviceNames::new(volumes, Some(&machine));
        let spec = "/dev/mapper/3600508b1001c0a1b2c3d4e5f60718293-part1";
        assert_eq!(names.resolve(spec), id(0, 1));
        assert_eq!(super::DeviceNames::new(volumes, None).resolve(spec), None);
    }

    #[test]
    fn without_a_uuid_a_label_names_a_volume() {
        let mut disks = [disk(0, None, &["a-1"])];
        if let Some(content) = &mut disks[0].volumes[0].content {
            content.uuid = None;
        }
        let name = names(&disks).stable_name(id(0, 1).expect("it is some"));
        assert_eq!(name.as_deref(), Some("LABEL=label01"));
    }

    #[rstest]
    #[case("UUID=1", Stability::Stable)]
    #[case("/dev/disk/by-label/x", Stability::Stable)]
    #[case("/dev/sda", Stability::Volatile)]
    #[case("/dev/hda3", Stability::Volatile)]
    #[case("/dev/disk/by-id/wwn-0x5-part1", Stability::Volatile)]
    #[case("/dev/disk/by-id/md-uuid-1", Stability::Stacked)]
    #[case("/dev/md0", Stability::Stacked)]
    #[case("/dev/vg0/root", Stability::Stacked)]
    #[case("/dev/sr0", Stability::NotADevice)]
    #[case("tmpfs", Stability::NotADevice)]
    #[case("nas:/export", Stability::NotADevice)]
    fn a_names_fate_is_known(#[case] spec: &str, #[case] expected: Stability) {
        assert_eq!(stability(spec), expected);
    }
}
