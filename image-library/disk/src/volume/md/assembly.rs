// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices make an array: grouped by UUID, then judged by the one that saw the most.
//!
//! The list of the member with the highest count of events says who is who. A member that is more
//! than one event behind missed writes; one behind is what a stop in the wrong moment leaves, and
//! counts as up to date, as for `mdadm`.

use std::sync::Arc;

use crate::block::WriteAt;
use crate::finding::{Finding, Level as Weight};

use super::superblock::{Seat, Superblock, find};
use super::{Array, Assembly, Level, Member, MemberState, open};
use crate::fields::uuid;

/// What an array is opened from: for each member its device and what its superblock says.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    pub(super) members: Vec<(Arc<dyn WriteAt>, Superblock)>,
    /// Which of them decides.
    pub(super) best: usize,
}

impl Sources {
    pub(super) fn best(&self) -> Option<&Superblock> {
        self.members
            .get(self.best)
            .map(|(_, superblock)| superblock)
    }
}

/// A device with a superblock.
struct Candidate {
    index: usize,
    device: Arc<dyn WriteAt>,
    superblock: Superblock,
}

/// Finds the arrays that devices are members of.
///
/// A device that cannot be read, or whose superblock is damaged, becomes a finding. Arrays may be
/// members of arrays: whoever looks for those asks again with the opened ones.
#[must_use]
pub fn assemble(candidates: &[Arc<dyn WriteAt>]) -> Assembly {
    let mut findings = Vec::new();
    let mut groups: Vec<Vec<Candidate>> = Vec::new();
    for (index, device) in candidates.iter().enumerate() {
        let superblock = match find(&**device) {
            Ok(Some(superblock)) => superblock,
            Ok(None) => continue,
            Err(error) => {
                findings.push(damaged(index, &error.to_string()));
                continue;
            }
        };
        let candidate = Candidate {
            index,
            device: Arc::clone(device),
            superblock,
        };
        let uuid = candidate.superblock.uuid;
        match groups
            .iter_mut()
            .find(|group| group[0].superblock.uuid == uuid)
        {
            Some(group) => group.push(candidate),
            None => groups.push(vec![candidate]),
        }
    }
    Assembly {
        arrays: groups.into_iter().filter_map(array).collect(),
        findings,
    }
}

fn damaged(index: usize, problem: &str) -> Finding {
    Finding {
        level: Weight::Warning,
        code: "storage.md.member-damaged".to_owned(),
        place: format!("device {index}"),
        problem: problem.to_owned(),
        remedy: Some("mdadm --examine on the server".to_owned()),
    }
}

fn array(group: Vec<Candidate>) -> Option<Array> {
    // The first of those with the most events.
    let best = (0..group.len())
        .rev()
        .max_by_key(|i| group[*i].superblock.events)?;
    let decides = group[best].superblock.clone();
    let mut members: Vec<Member> = group
        .iter()
        .map(|candidate| member(candidate, &decides))
        .collect();
    let twins = ignore_twins(&mut members, &group);
    let mut array = Array {
        uuid: uuid(&decides.uuid).unwrap_or_default(),
        name: decides.name.clone(),
        preferred_minor: decides.preferred_minor,
        metadata: decides.metadata,
        level: Level::from(decides.level),
        layout: decides.layout,
        chunk_bytes: decides.chunk_bytes,
        size_bytes: None,
        disks: decides.disks,
        members,
        findings: Vec::new(),
        obstacle: None,
        sources: Sources {
            members: group
                .into_iter()
                .map(|candidate| (candidate.device, candidate.superblock))
                .collect(),
            best,
        },
    };
    open::judge(&mut array);
    for twin in twins {
        let [first, second] = twin;
        let problem =
            format!("device {first} and device {second} say that they are the same member");
        let remedy = Some("give each disk once");
        array.note(Weight::Warning, "storage.md.duplicate", problem, remedy);
    }
    array.note_members(&decides);
    Some(array)
}

fn member(candidate: &Candidate, decides: &Superblock) -> Member {
    let own = &candidate.superblock;
    let seat = decides.seat(own.number);
    let behind = own.events.saturating_add(1) < decides.events;
    let (role, state) = match (seat, own.seat(own.number)) {
        (Seat::Role(role), _) if role >= decides.disks => (None, MemberState::Ignored),
        (Seat::Role(role), _) if behind => (Some(role), MemberState::Stale),
        (Seat::Role(role), _) => (
            Some(role),
            match own.recovered_bytes {
                Some(until_bytes) => MemberState::Rebuilding { until_bytes },
                None => MemberState::InSync,
            },
        ),
        (Seat::Journal, _) if behind => (None, MemberState::Stale),
        (Seat::Journal, _) => (None, MemberState::Journal),
        (_, Seat::Role(role)) => (Some(role), MemberState::Stale),
        (Seat::Faulty, _) => (None, MemberState::Stale),
        (Seat::Spare, _) => (None, MemberState::Spare),
    };
    Member {
        candidate: candidate.index,
        device_uuid: own.device_uuid.as_ref().and_then(|bytes| uuid(bytes)),
        role,
        events: own.events,
        state,
    }
}

/// Two devices with the same number: one disk seen twice, or a copy of a disk. The smaller one
/// counts: a superblock at the end of a disk's last partition is also at the end of the disk.
fn ignore_twins(members: &mut [Member], group: &[Candidate]) -> Vec<[usize; 2]> {
    let mut twins = Vec::new();
    for later in 1..group.len() {
        for earlier in 0..later {
            let (a, b) = (&group[earlier].superblock, &group[later].superblock);
            let left = |index: usize| {
                matches!(
                    members[index].state,
                    MemberState::Ignored | MemberState::Stale
                )
            };
            if a.number != b.number || left(earlier) || left(later) {
                continue;
            }
            let length = |index: usize| group[index].device.length_bytes();
            let ignored = match length(later) < length(earlier) {
                true => earlier,
                false => later,
            };
            members[ignored].state = MemberState::Ignored;
            twins.push([group[earlier].index, group[later].index]);
        }
    }
    twins
}

impl Array {
    /// What the array is called in findings.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.name, self.preferred_minor) {
            (Some(name), _) => format!("md array {name}"),
            (None, Some(minor)) => format!("md array md{minor}"),
            (None, None) => format!("md array {}", self.uuid),
        }
    }

    pub(super) fn note(
        &mut self,
        level: Weight,
        code: &str,
        problem: String,
        remedy: Option<&str>,
    ) {
        self.findings.push(Finding {
            level,
            code: code.to_owned(),
            place: self.place(),
            problem,
            remedy: remedy.map(str::to_owned),
        });
    }

    fn note_members(&mut self, decides: &Superblock) {
        let stale: Vec<usize> = self
            .members
            .iter()
            .filter(|member| member.state == MemberState::Stale)
            .map(|member| member.candidate)
            .collect();
        for candidate in stale {
            let problem = format!("device {candidate} missed writes and is left out");
            let remedy = Some("add it again on the server: mdadm ARRAY --add DEVICE");
            self.note(Weight::Warning, "storage.md.stale-member", problem, remedy);
        }
        if self.is_degraded() {
            let missing: Vec<u32> = (0..self.disks).filter(|role| !self.has(*role)).collect();
            let problem = format!("the members {missing:?} of {} are missing", self.disks);
            self.note(Weight::Warning, "storage.md.degraded", problem, None);
        }
        let has_redundancy = !matches!(self.level, Level::Linear | Level::Raid0);
        if decides.dirty && has_redundancy {
            let problem = "the array was in use: its members may differ".to_owned();
            self.note(Weight::Note, "storage.md.dirty", problem, None);
        }
    }
}
