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
