// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of volumes that only the guest's configuration tells, so they are known once its root is:
//!
//! | volume | named by |
//! |---|---|
//! | LUKS | `/etc/crypttab`; `rd.luks.name=UUID=NAME`, `cryptdevice=DEVICE:NAME` of command lines |
//! | md | `ARRAY` lines of `mdadm.conf`; the only array without one is `md127` |
//!
//! What is not named there keeps the names that programs give by themselves (`luks-UUID`, `md/name`).
//! Sources: crypttab(5), dracut.cmdline(7), mdadm.conf(5), mdadm(8) on names of foreign arrays.

use crate::error::Result;
use crate::guest::crypttab::Crypttab;
use crate::guest::kernel_cmdline::{CommandLine, Quoting};
use crate::guest::mdadm_conf::{ArrayLine, arrays};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::inspection::{AssembledFacts, AssembledKind, VolumeId, Volumes};
use crate::inspect::tree::GuestTree;
use crate::stack::partition_node;

/// The volumes with the names that the guest's root gives them.
pub(crate) fn named(
    tree: &GuestTree,
    root: Option<VolumeId>,
    volumes: Volumes<'_>,
) -> Result<Vec<AssembledFacts>> {
    let mut named = volumes.assembled.to_vec();
    if root.is_none() || named.is_empty() {
        return Ok(named);
    }
    name_arrays(&mut named, &array_lines(tree)?);
    // An encrypted device may be an array, by its new name.
    let volumes = Volumes {
        disks: volumes.disks,
        assembled: &named,
    };
    let names = mapper_names(tree, DeviceNames::new(volumes, None))?;
    for (encrypted, name) in names {
        let mut opened = named.iter_mut().filter(|volume| {
            volume.kind == AssembledKind::Encrypted && volume.parts.contains(&encrypted)
        });
        if let Some(volume) = opened.next() {
            call(volume, &name);
        }
    }
    Ok(named)
}

/// Encrypted devices with the names of what they are opened as.
fn mapper_names(tree: &GuestTree, names: DeviceNames<'_>) -> Result<Vec<(VolumeId, String)>> {
    let mut found = Vec::new();
    let mut add = |device: &str, name: &str| {
        let device = unquoted(device);
        if let Some(volume) = names.resolve(device).or_else(|| by_uuid(device, names)) {
            found.push((volume, name.to_owned()));
        }
    };
    for line in command_lines(tree)? {
        for argument in CommandLine::parse(line, Quoting::Kernel).arguments() {
            let value = argument.value.as_deref().unwrap_or_default();
            if argument.is("rd.luks.name") || argument.is("luks.name") {
                if let Some((uuid, name)) = value.split_once('=') {
                    add(uuid, name);
                }
            } else if argument.is("cryptdevice")
                && let Some((device, rest)) = value.split_once(':')
            {
                add(device, rest.split(':').next().unwrap_or_default());
            }
        }
    }
    if let Some(file) = tree.text("/etc/crypttab")? {
        for entry in Crypttab::parse(file.text.as_bytes()).entries() {
            add(&entry.device, &entry.name);
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    Ok(found)
}

fn unquoted(device: &str) -> &str {
    device.trim_matches(['"', '\''])
}

/// A UUID alone, as dracut and systemd take it, also behind `luks-`.
fn by_uuid(device: &str, names: DeviceNames<'_>) -> Option<VolumeId> {
    let uuid = device.strip_prefix("luks-").unwrap_or(device);
    names.resolve(&format!("UUID={uuid}"))
}

/// The files of the root that command lines are made from: boot loaders' own may be on a volume that
/// is not mounted yet.
fn command_lines(tree: &GuestTree) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if let Some(file) = tree.text("/etc/default/grub")? {
        let config = ShellConfig::parse(file.text.as_bytes());
        for name in ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"] {
            lines.extend(config.get(name));
        }
    }
    let more = tree.text("/etc/kernel/cmdline")?;
    lines.extend(more.map(|file| file.text));
    Ok(lines)
}

/// Gives an opened volume another name than the one that is made of its UUID.
fn call(volume: &mut AssembledFacts, name: &str) {
    let before = std::mem::replace(&mut volume.name, name.to_owned());
    let nodes = volume.nodes.iter();
    let nodes: Vec<String> = nodes
        .filter_map(|node| Some(format!("{}{name}", node.strip_suffix(&before)?)))
        .collect();
    for node in nodes.into_iter().rev() {
        if !volume.nodes.contains(&node) {
            volume.nodes.insert(0, node);
        }
    }
}

fn array_lines(tree: &GuestTree) -> Result<Vec<ArrayLine>> {
    let mut lines = Vec::new();
    for path in ["/etc/mdadm.conf", "/etc/mdadm/mdadm.conf"] {
        let file = tree.text(path)?;
        lines.extend(file.into_iter().flat_map(|file| arrays(&file.text)));
    }
    for directory in ["/etc/mdadm.conf.d", "/etc/mdadm/mdadm.conf.d"] {
        let files = tree.texts(directory, ".conf")?;
        lines.extend(files.iter().flat_map(|file| arrays(&file.text)));
    }
    Ok(lines)
}

fn name_arrays(volumes: &mut [AssembledFacts], lines: &[ArrayLine]) {
    let is_array = |volume: &AssembledFacts| volume.kind == AssembledKind::MdArray;
    let mut without = Vec::new();
    for index in 0..volumes.len() {
        if !is_array(&volumes[index]) {
            continue;
        }
        let mut matching = lines
            .iter()
            .filter(|line| is_of(line, &volumes[index]))
            .peekable();
        if matching.peek().is_none() {
            without.push(index);
        }
        let nodes: Vec<String> = matching.flat_map(ArrayLine::nodes).collect();
        for node in nodes.iter().rev() {
            give(volumes, index, node);
        }
    }
    // The numbers of several depend on the order in which they are found.
    if let [index] = without[..] {
        let taken = volumes.iter().any(|volume| has(volume, "md127"));
        if !taken {
            let last = volumes[index].nodes.len();
            volumes[index].nodes.insert(last, "md127".to_owned());
            name_partitions(volumes, index, "md127", false);
        }
    }
}

/// Whether a line of `mdadm.conf` is about an array.
fn is_of(line: &ArrayLine, array: &AssembledFacts) -> bool {
    let link = |kind: &str, value: &str| has(array, &format!("disk/by-id/md-{kind}-{value}"));
    let by_uuid = line.uuid.as_deref().map(|uuid| link("uuid", uuid));
    let by_name = line.name.as_deref().map(|name| link("name", name));
    let by_minor = line
        .super_minor
        .map(|minor| has(array, &format!("md{minor}")));
    by_uuid.or(by_name).or(by_minor).unwrap_or(false)
}

fn has(volume: &AssembledFacts, node: &str) -> bool {
    volume.nodes.iter().any(|known| known == node)
}

/// Gives an array a name, which no other has then; so are its partitions named.
fn give(volumes: &mut [AssembledFacts], index: usize, node: &str) {
    for volume in volumes.iter_mut() {
        volume.nodes.retain(|known| known != node);
    }
    volumes[index].nodes.insert(0, node.to_owned());
    name_partitions(volumes, index, node, true);
    volumes[index].name = node.to_owned();
}

fn name_partitions(volumes: &mut [AssembledFacts], index: usize, node: &str, is_first: bool) {
    let (id, array) = (volumes[index].id, volumes[index].name.clone());
    let partitions = volumes
        .iter_mut()
        .filter(|volume| volume.kind == AssembledKind::Partition && volume.parts.contains(&id));
    for partition in partitions {
        let number = partition
            .name
            .strip_prefix(&array)
            .map(|rest| rest.trim_start_matches('p'))
            .and_then(|number| number.parse().ok());
        let Some(number) = number else {
            continue;
        };
        let named = partition_node(node, number);
        partition.nodes.retain(|known| *known != named);
        if is_first {
            partition.nodes.insert(0, named.clone());
            partition.name = named;
        } else {
            partition.nodes.push(named);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use disk::SectorSize;
    use disk::filesystem::{Filesystem, FilesystemKind};
    use image_library::DiskIndex;

    use super::*;
    use crate::inspect::{DiskFacts, PartitionPurpose, TableKind, VolumeContent, VolumeFacts};
    use crate::phony::MemoryFilesystem;

    const UUID: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b11";

    fn assembled(
        number: u16,
        kind: AssembledKind,
        name: &str,
        nodes: &[&str],
        part: VolumeId,
    ) -> AssembledFacts {
        AssembledFacts {
            id: VolumeId::Assembled { number },
            kind,
            name: name.to_owned(),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            parts: vec![part],
            size_bytes: 0,
            content: None,
        }
    }

    /// A disk with a LUKS partition.
    fn disk() -> DiskFacts {
        let content = VolumeContent {
            kind: FilesystemKind::Luks,
            uuid: Some(UUID.to_owned()),
            label: None,
            free_bytes: None,
            journal_dirty: false,
        };
        DiskFacts {
            index: DiskIndex(0),
            name: Some("sda".to_owned()),
            size_bytes: 1 << 30,
            sector_size: SectorSize::B512,
            table: TableKind::Gpt,
            boot_code: false,
            boot_code_of: None,
            volumes: vec![VolumeFacts {
                id: partition(),
                start_bytes: 1 << 20,
                size_bytes: 1 << 29,
                purpose: PartitionPurpose::Other,
                partition_uuid: None,
                partition_label: None,
                content: Some(content),
            }],
        }
    }

    fn partition() -> VolumeId {
        VolumeId::on_disk(DiskIndex(0), Some(3))
    }

    fn with_names(files: &[(&str, &str)], volumes: &[AssembledFacts]) -> Vec<AssembledFacts> {
        let root = MemoryFilesystem::new(FilesystemKind::Ext4);
        for (path, text) in files {
            root.file(path, *text);
        }
        let boxed: Box<dyn Filesystem> = Box::new(root);
        let id = VolumeId::Assembled { number: 9 };
        let mut tree = GuestTree::new(BTreeMap::from([(id, boxed)]));
        tree.set_root(id);
        let disks = [disk()];
        let volumes = Volumes {
            disks: &disks,
            assembled: volumes,
        };
        named(&tree, Some(id), volumes).expect("memory can be read")
    }

    fn encrypted() -> AssembledFacts {
        let name = format!("luks-{UUID}");
        let plain = UUID.replace('-', "");
        assembled(
            0,
            AssembledKind::Encrypted,
            &name,
            &[
                &format!("mapper/{name}"),
                &format!("disk/by-id/dm-name-{name}"),
                &format!("disk/by-id/dm-uuid-CRYPT-LUKS2-{plain}-{name}"),
            ],
            partition(),
        )
    }

    #[test]
    fn an_opened_volume_is_called_as_the_guest_says() {
        let dracut = format!("GRUB_CMDLINE_LINUX=\"rd.luks.name={UUID}=crypt quiet\"\n");
        let arch = "root=/dev/mapper/crypt cryptdevice=/dev/sda3:crypt:allow-discards rw\n";
        let cases: [(&str, &str); 5] = [
            ("/etc/crypttab", "crypt /dev/sda3 none luks\n"),
            (
                "/etc/crypttab",
                &format!("# x\ncrypt UUID={UUID} none luks\n"),
            ),
            ("/etc/default/grub", &dracut),
            ("/etc/kernel/cmdline", arch),
            (
                "/etc/crypttab",
                &format!("crypt UUID=\"{UUID}\" /etc/key\n"),
            ),
        ];
        for (path, text) in cases {
            let named = with_names(&[(path, text)], &[encrypted()]);
            assert_eq!(named[0].name, "crypt", "{path}: {text}");
            let hex = UUID.replace('-', "");
            let expected = [
                "mapper/crypt".to_owned(),
                "disk/by-id/dm-name-crypt".to_owned(),
                format!("disk/by-id/dm-uuid-CRYPT-LUKS2-{hex}-crypt"),
            ];
            assert_eq!(named[0].nodes[..3], expected, "{path}: {text}");
            let default = format!("mapper/luks-{UUID}");
            assert!(named[0].nodes.contains(&default), "dracut's own name stays");
        }
        let same = with_names(
            &[("/etc/crypttab", "other /dev/sdb1 none\n")],
            &[encrypted()],
        );
        assert_eq!(same, [encrypted()]);
    }

    fn array(number: u16, name: &str, uuid: &str) -> AssembledFacts {
        let nodes = [
            format!("md{name}"),
            format!("md/{name}"),
            format!("disk/by-id/md-name-host:{name}"),
            format!("disk/by-id/md-uuid-{uuid}"),
        ];
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        assembled(
            number,
            AssembledKind::MdArray,
            nodes[0],
            &nodes,
            partition(),
        )
    }

    const FIRST: &str = "00000001:00000002:00000003:00000004";
    const SECOND: &str = "0000000a:0000000b:0000000c:0000000d";

    #[test]
    fn arrays_are_called_as_mdadm_conf_says() {
        let text = format!(
            "ARRAY /dev/md1 metadata=1.2 UUID={FIRST} name=host:0\n\
             ARRAY /dev/md/data UUID={}\n",
            SECOND.to_uppercase()
        );
        let arrays = [array(0, "0", FIRST), array(1, "1", SECOND)];
        let mut volumes = arrays.to_vec();
        let id = volumes[0].id;
        let part = assembled(2, AssembledKind::Partition, "md0p2", &["md0p2"], id);
        volumes.push(part);
        let named = with_names(&[("/etc/mdadm/mdadm.conf", &text)], &volumes);
        let names: Vec<&str> = named.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["md1", "md/data", "md1p2"]);
        // What was another's by its superblock is not any more.
        assert_eq!(named[0].nodes[..3], ["md1", "md/1", "md0"]);
        assert!(!has(&named[1], "md1") && !has(&named[1], "md/1"));
        assert!(has(&named[2], "md1p2") && has(&named[2], "md/1p2") && has(&named[2], "md0p2"));
    }

    #[test]
    fn the_only_array_that_nothing_names_is_the_last_number() {
        let arrays = [array(0, "0", FIRST), array(1, "1", SECOND)];
        let named = with_names(&[], &arrays);
        assert_eq!(named, arrays, "which one it is cannot be told of two");
        let text = format!("ARRAY /dev/md0 UUID={FIRST}\n");
        let named = with_names(&[("/etc/mdadm.conf", &text)], &arrays);
        assert!(has(&named[1], "md127") && has(&named[1], "md1"));
        assert!(!has(&named[0], "md127"));
    }
}
