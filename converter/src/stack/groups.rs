// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM2 in the stack.

use disk::SectorSize;
use disk::filesystem::FilesystemKind;
use disk::volume::lvm2::{self, LogicalVolume, LogicalVolumeKind, VolumeGroup};

use super::{
    ALL_DISKS, Assembled, Builder, UNKNOWN_KIND, devices, sector_size, unusable, with_names,
};
use crate::error::Result;
use crate::inspect::volume_facts::{AssembledKind, VolumeId};

impl Builder<'_> {
    /// Opens the logical volumes on what is free.
    pub(super) fn groups(&mut self) -> Result<()> {
        let candidates = self.of_kind(FilesystemKind::Lvm2Member)?;
        let scan = lvm2::scan(&devices(&candidates));
        self.note("LVM", with_names(&scan.findings, &candidates, &[]));
        for group in &scan.groups {
            let physical = group.physical_volumes();
            let members = physical.iter().filter_map(|volume| volume.candidate);
            let parts = self.take(members, &candidates);
            let findings = with_names(group.findings(), &candidates, &parts);
            self.note(group.name(), findings);
            let sector_size = sector_size(&candidates, &parts);
            for volume in group.logical_volumes() {
                let is_nothing = matches!(
                    volume.kind(),
                    LogicalVolumeKind::ThinPool | LogicalVolumeKind::Error
                );
                if volume.is_visible() && !is_nothing {
                    self.add_logical(group, &volume, &parts, sector_size)?;
                }
            }
        }
        // A copy of a physical volume would be a group of its own in the next layer. One whose group is
        // not known may belong to one that is yet to be found.
        let numbers = 0..candidates.len();
        let done = numbers.filter(|number| !scan.unassigned.contains(number));
        self.take(done, &candidates);
        Ok(())
    }

    fn add_logical(
        &mut self,
        group: &VolumeGroup,
        volume: &LogicalVolume,
        parts: &[VolumeId],
        sector_size: SectorSize,
    ) -> Result<()> {
        let name = format!("{}/{}", group.name(), volume.name());
        let device = match volume.open() {
            Ok(device) => device,
            Err(error) => {
                let unusable = unusable("storage.lvm.unusable", &name, error, remedy_for(group))?;
                self.tell(parts, unusable);
                return Ok(());
            }
        };
        let mapper = format!(
            "mapper/{}-{}",
            doubled(group.name()),
            doubled(volume.name())
        );
        let volume = Assembled {
            part: self.part(device, sector_size)?,
            kind: AssembledKind::LogicalVolume,
            nodes: vec![name.clone(), mapper],
            name,
            parts: parts.to_vec(),
        };
        self.add(volume);
        Ok(())
    }
}

/// What to do about a volume that cannot be opened.
fn remedy_for(group: &VolumeGroup) -> &'static str {
    let physical = group.physical_volumes();
    let is_complete = physical.iter().all(|volume| volume.candidate.is_some());
    if is_complete { UNKNOWN_KIND } else { ALL_DISKS }
}

/// Device mapper's names have a hyphen between group and volume, so those inside are doubled.
fn doubled(name: &str) -> String {
    name.replace('-', "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_in_names_are_doubled_as_device_mapper_does() {
        assert_eq!(doubled("my-vg"), "my--vg");
    }
}
