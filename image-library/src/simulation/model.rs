// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library must have: a naive copy, with doubt where an operation was cut short.

use std::collections::{BTreeMap, BTreeSet};

use super::disks::Disk;
use crate::ImageId;

/// Where an image may be. More than one is doubt: an operation failed half-way, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) images: bool,
    pub(super) trash: bool,
    pub(super) gone: bool,
}

impl Places {
    pub(super) const COMMITTED: Self = Self {
        images: true,
        trash: false,
        gone: false,
    };
    pub(super) const DELETED: Self = Self {
        images: false,
        trash: true,
        gone: false,
    };
    pub(super) const ANYWHERE: Self = Self {
        images: true,
        trash: true,
        gone: true,
    };
    pub(super) const GONE: Self = Self {
        images: false,
        trash: false,
        gone: true,
    };
}

/// An image whose commit has returned.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) disks: Vec<Disk>,
    pub(super) places: Places,
    /// Changes with every operation on it, when it begins and when it ends.
    pub(super) version: u64,
    /// A delete or an undelete of it goes on.
    pub(super) is_busy: bool,
    /// What its side file may be.
    pub(super) side: BTreeSet<Option<Vec<u8>>>,
}

/// A server and the disks that it has now.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) disks: Vec<Disk>,
}

/// An image that may be there although its commit never returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubtful {
    pub(super) number: u64,
    pub(super) server: usize,
    pub(super) disks: Vec<Disk>,
    /// How many prunes with a policy had failed when it began.
    pub(super) policies_failed: u64,
}

/// What the library must have.
#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    pub(super) servers: Vec<Server>,
    pub(super) known: BTreeMap<ImageId, Known>,
    pub(super) doubtful: Vec<Doubtful>,
    /// Images that a policy deleted before their commit returned.
    pub(super) dropped_early: BTreeSet<ImageId>,
    pub(super) uploads: u64,
    /// How many prunes have begun or ended, and how many go on.
    pub(super) prune_edges: u64,
    pub(super) prunes_going: u64,
    /// Prunes that go on and drop images by a policy.
    pub(super) policies_going: u64,
    /// How many of them failed: nobody knows what they had dropped.
    pub(super) policies_failed: u64,
}

impl Model {
    pub(super) fn count_prune(&mut self, begins: bool) {
        self.prune_edges += 1;
        self.prunes_going = if begins {
            self.prunes_going + 1
        } else {
            self.prunes_going.saturating_sub(1)
        };
    }

    /// An upload begins: from now on its image may be there.
    pub(super) fn begin_upload(&mut self, server: usize) -> Doubtful {
        self.uploads += 1;
        let doubtful = Doubtful {
            number: self.uploads,
            server,
            disks: self.servers[server].disks.clone(),
            policies_failed: self.policies_failed,
        };
        self.doubtful.push(doubtful.clone());
        doubtful
    }

    /// It is known what became of an upload.
    pub(super) fn end_upload(&mut self, doubtful: &Doubtful) {
        self.doubtful
            .retain(|other| other.number != doubtful.number);
    }

    pub(super) fn commit(&mut self, id: ImageId, upload: &Doubtful) {
        self.end_upload(upload);
        let places = if self.dropped_early.contains(&id) {
            Places {
                gone: true,
                ..Places::DELETED
            }
        } else if self.policies_going > 0 || self.policies_failed > upload.policies_failed {
            Places::ANYWHERE
        } else {
            Places::COMMITTED
        };
        let known = Known {
            disks: upload.disks.clone(),
            places,
            version: 0,
            is_busy: false,
            side: BTreeSet::from([None]),
        };
        self.known.insert(id, known);
    }

    /// The images that must be there, with their versions.
    pub(super) fn certain(&self) -> BTreeMap<ImageId, u64> {
        self.known
            .iter()
            .filter(|(_, known)| known.places == Places::COMMITTED)
            .map(|(id, known)| (*id, known.version))
            .collect()
    }

    pub(super) fn is_certain_still(&self, id: ImageId, version: u64) -> bool {
        self.known
            .get(&id)
            .is_some_and(|known| known.places == Places::COMMITTED && known.version == version)
    }

    /// Whether an image may be listed.
    pub(super) fn may_be_there(&self, id: ImageId, server: &str) -> bool {
        match self.known.get(&id) {
            Some(known) => known.places.images,
            None => self
                .doubtful
                .iter()
                .any(|doubtful| self.servers[doubtful.server].name == server),
        }
    }
}
