// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding volume groups on devices: labels first, then metadata, of which the newest of each group
//! counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use crate::block::WriteAt;
use crate::error::Error;
use crate::finding::{Finding, Level};

use super::area::{self, StoredText};
use super::group::{Member, VolumeGroup};
use super::label;
use super::metadata::Group;

/// LVM makes two at most; whatever is behind these is not looked at.
const AREAS_MAX: usize = 4;

/// What devices have of LVM2.
#[derive(Debug, Default)]
pub struct Scan {
    /// The volume groups, by name.
    pub groups: Vec<VolumeGroup>,
    /// Candidates that are physical volumes of none of these groups: of no group yet, or their
    /// group's metadata could not be read.
    pub unassigned: Vec<usize>,
    /// What was noticed of devices whose group is not known: damaged labels and metadata,
    /// duplicates.
    pub findings: Vec<Finding>,
}

/// The newest metadata of a group so far.
struct Newest {
    group: Group,
    text: Vec<u8>,
    is_ignored: bool,
    findings: Vec<Finding>,
}

#[derive(Default)]
struct Scanner {
    members: BTreeMap<String, Member>,
    unassigned: BTreeMap<usize, String>,
    /// By UUID.
    newest: BTreeMap<String, Newest>,
    findings: Vec<Finding>,
}

/// Looks for volume groups on `candidates`: disks, partitions, and what is made of them.
///
/// A device that cannot be read, or whose label is damaged, is a finding, and the others are still
/// looked at. Of an array or an encrypted device the members must not be candidates beside it: a
/// mirror's member may show the same label as the mirror.
#[must_use]
pub fn scan(candidates: &[Arc<dyn WriteAt>]) -> Scan {
    let mut scanner = Scanner::default();
    for (index, device) in candidates.iter().enumerate() {
        scanner.add(index, device);
    }
    scanner.finish()
}

impl Scanner {
    fn add(&mut self, candidate: usize, device: &Arc<dyn WriteAt>) {
        let label = match label::read(device) {
            Ok(Some(label)) => label,
            Ok(None) => return,
            Err(error) => {
                let finding = damaged("storage.lvm.label-damaged", candidate, &error);
                return self.findings.push(finding);
            }
        };
        let member = match self.members.entry(label.uuid.clone()) {
            Entry::Occupied(first) => {
                let finding = duplicate(candidate, first.get());
                return self.findings.push(finding);
            }
            Entry::Vacant(place) => place.insert(Member {
                candidate,
                device: Arc::clone(device),
                label,
            }),
        };
        let areas: Vec<Range<u64>> = member.label.metadata_areas.clone();
        self.unassigned.insert(candidate, member.label.uuid.clone());
        for area in areas.iter().take(AREAS_MAX) {
            match area::read(device, area) {
                Ok(None) => {}
                Ok(Some(stored)) => self.add_text(candidate, stored),
                Err(error) => {
                    let finding = damaged("storage.lvm.metadata-damaged", candidate, &error);
                    self.findings.push(finding);
                }
            }
        }
    }

    fn add_text(&mut self, candidate: usize, stored: StoredText) {
        // Most devices of a group have the same text.
        if self
            .newest
            .values()
            .any(|newest| newest.text == stored.text)
        {
            return;
        }
        let group = match Group::parse(&stored.text) {
            Ok(group) => group,
            Err(error) => {
                let finding = damaged("storage.lvm.metadata-damaged", candidate, &error);
                return self.findings.push(finding);
            }
        };
        let found = Newest {
            group,
            text: stored.text,
            is_ignored: stored.is_ignored,
            findings: Vec::new(),
        };
        match self.newest.entry(found.group.uuid.clone()) {
            Entry::Vacant(place) => {
                place.insert(found);
            }
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                let is_newer = found.rank() > known.rank();
                let older = known.rank().min(found.rank()).1;
                // An area that LVM ignores is expected to be behind.
                if !known.is_ignored && !found.is_ignored {
                    known
                        .findings
                        .push(outdated(&found.group, candidate, older));
                }
                if is_newer {
                    let findings = std::mem::take(&mut known.findings);
                    *known = Newest { findings, ..found };
                }
            }
        }
    }

    fn finish(mut self) -> Scan {
        let mut groups = Vec::new();
        for newest in std::mem::take(&mut self.newest).into_values() {
            let uuids = newest.group.physical.iter().map(|volume| &volume.uuid);
            let uuids: Vec<_> = uuids.cloned().collect();
            self.unassigned.retain(|_, uuid| !uuids.contains(uuid));
            groups.push(VolumeGroup::assemble(
                newest.group,
                &self.members,
                newest.findings,
            ));
        }
        groups.sort_by(|one, other| one.name().cmp(other.name()));
        Scan {
            groups,
            unassigned: self.unassigned.into_keys().collect(),
            findings: self.findings,
        }
    }
}

impl Newest {
    /// Kept up to date before ignored, then by the number of changes.
    fn rank(&self) -> (bool, u64) {
        (!self.is_ignored, self.group.seqno)
    }
}

fn damaged(code: &str, candidate: usize, error: &Error) -> Finding {
    Finding {
        level: Level::Warning,
        code: code.to_owned(),
        place: format!("device {candidate}"),
        problem: error.to_string(),
        remedy: Some("look at the server with `vgck` and `pvck`".to_owned()),
    }
}

fn duplicate(candidate: usize, first: &Member) -> Finding {
    Finding {
        level: Level::Warning,
        code: "storage.lvm.duplicate".to_owned(),
        place: format!("device {candidate}"),
        problem: format!(
            "it has the UUID {} of the physical volume on device {}, which is used",
            first.label.uuid, first.candidate
        ),
        remedy: None,
    }
}

fn outdated(group: &Group, candidate: usize, older: u64) -> Finding {
    Finding {
        level: Level::Note,
        code: "storage.lvm.metadata-outdated".to_owned(),
        place: format!("device {candidate}"),
        problem: format!(
            "the metadata of {} is there in different states; change {older} is not the last",
            group.name
        ),
        remedy: None,
    }
}
