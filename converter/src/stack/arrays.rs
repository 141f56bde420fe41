// SPDX-License-Identifier: MIT OR Apache-2.0
//! md arrays in the stack, and the partitions on them.

use std::sync::Arc;

use disk::ReadAt;
use disk::filesystem::{self, FilesystemKind};
use disk::partition::{Scheme, read_partition_table};
use disk::volume::md::{self, Array};

use super::{
    Assembled, Builder, Part, UNKNOWN_KIND, devices, entries, sector_size, slice_of, unusable,
    with_names,
};
use crate::error::{Error, Result};
use crate::inspect::volume_facts::AssembledKind;

impl Builder<'_> {
    /// Opens the arrays on what is free; whether there were any.
    pub(super) fn arrays(&mut self) -> Result<bool> {
        let candidates = self.of_kind(FilesystemKind::MdMember)?;
        let assembly = md::assemble(&devices(&candidates));
        self.note("md", with_names(&assembly.findings, &candidates, &[]));
        for array in &assembly.arrays {
            self.add_array(array, &candidates)?;
        }
        // A damaged member becomes a part of nothing, and is told once.
        self.take(0..candidates.len(), &candidates);
        Ok(!assembly.arrays.is_empty())
    }

    fn add_array(&mut self, array: &Array, candidates: &[Part]) -> Result<()> {
        let members = array.members.iter().map(|member| member.candidate);
        let parts = self.take(members, candidates);
        let nodes = array_nodes(array);
        let name = nodes.first().cloned().unwrap_or_else(|| array.uuid.clone());
        let mut findings = array.findings.clone();
        for found in findings.iter_mut().filter(|f| f.place == array.place()) {
            found.place.clear();
        }
        self.note(&name, with_names(&findings, candidates, &parts));
        // The findings say why.
        if array.obstacle.is_some() {
            return Ok(());
        }
        let device = match array.open() {
            Ok(device) => device,
            Err(error) => {
                let unusable = unusable("storage.md.unusable", &name, error, UNKNOWN_KIND)?;
                self.tell(&parts, unusable);
                return Ok(());
            }
        };
        // As its members have them; one of 512 bytes can do with larger ones.
        let sector_size = sector_size(candidates, &parts);
        let volume = Assembled {
            part: self.part(device, sector_size)?,
            kind: AssembledKind::MdArray,
            name,
            nodes,
            parts,
        };
        self.add_partitions(&volume)?;
        self.add(volume);
        Ok(())
    }

    /// Arrays may be partitioned, as disks are: `md0p1`.
    fn add_partitions(&mut self, array: &Assembled) -> Result<()> {
        let Part {
            device,
            sector_size,
            ..
        } = &array.part;
        if filesystem::detect(device).is_ok_and(|found| found.is_some()) {
            return Ok(());
        }
        let readable: Arc<dyn ReadAt> = Arc::clone(device) as _;
        let table = match read_partition_table(&readable, *sector_size) {
            Ok(table) if !matches!(table.scheme, Scheme::None) => table,
            Ok(_) | Err(disk::Error::Corrupt { .. } | disk::Error::Unsupported { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(Error::guest(&array.name)(error)),
        };
        for entry in entries(&table) {
            let Some(device) = slice_of(device, entry) else {
                continue;
            };
            let number = entry.number.get();
            let nodes = array.nodes.iter().map(|node| partition_node(node, number));
            let volume = Assembled {
                part: self.part(device, *sector_size)?,
                kind: AssembledKind::Partition,
                name: partition_node(&array.name, number),
                nodes: nodes.collect(),
                parts: vec![array.part.id],
            };
            self.add(volume);
        }
        Ok(())
    }
}

/// `md0`, `md/0`, `md/root`, and udev's links; mdadm names arrays of other hosts otherwise, which is what
/// `mdadm.conf` is for.
fn array_nodes(array: &Array) -> Vec<String> {
    let mut nodes = Vec::new();
    let name = array.name.as_deref();
    let short = name.map(|name| name.rsplit_once(':').map_or(name, |(_, short)| short));
    if let Some(minor) = array.preferred_minor {
        nodes.push(format!("md{minor}"));
        nodes.push(format!("md/{minor}"));
    }
    if let Some(short) = short.filter(|short| !short.is_empty()) {
        let is_number = short.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            nodes.push(format!("md{short}"));
        }
        nodes.push(format!("md/{short}"));
    }
    if let Some(name) = name {
        nodes.push(format!("disk/by-id/md-name-{name}"));
    }
    nodes.push(format!("disk/by-id/md-uuid-{}", array.mdadm_uuid()));
    nodes
}

/// A partition's node: after a digit a `p`, in udev's links `-part`.
pub(crate) fn partition_node(node: &str, number: u32) -> String {
    if node.starts_with("disk/") {
        format!("{node}-part{number}")
    } else if node.ends_with(|last: char| last.is_ascii_digit()) {
        format!("{node}p{number}")
    } else {
        format!("{node}{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_as_the_guest_does() {
        assert_eq!(partition_node("md0", 1), "md0p1");
        assert_eq!(partition_node("md/data", 1), "md/data1");
        assert_eq!(
            partition_node("disk/by-id/md-uuid-a", 2),
            "disk/by-id/md-uuid-a-part2"
        );
    }
}
