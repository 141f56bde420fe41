// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole index as it stood at one moment, each entry with a number: what marks entries keeps
//! one bit for each (2 MiB for the chunks of 1 TiB).

use std::collections::HashSet;
use std::sync::Arc;

use super::run::{ENTRIES_PER_BLOCK, Run};
use super::{Index, Location};
use crate::chunk::ChunkId;
use crate::error::Result;
use crate::pack::PackId;

/// The entries of all runs; those of packs that are gone are left out.
#[derive(Debug)]
pub(crate) struct View {
    /// With the number of its first entry.
    runs: Vec<(u64, Arc<Run>)>,
    gone: HashSet<PackId>,
    entries: u64,
}

/// An entry of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// Which one; below [`View::numbers`].
    pub(crate) number: u64,
    pub(crate) location: Location,
}

impl Index {
    /// Everything that is in the index now; what is in memory is written first.
    pub(crate) fn view(&self) -> Result<View> {
        self.flush()?;
        let state = self.read();
        let mut entries = 0;
        let mut runs = Vec::with_capacity(state.runs.len());
        for run in &state.runs {
            runs.push((entries, Arc::clone(run)));
            entries += (run.block_count() * ENTRIES_PER_BLOCK) as u64;
        }
        Ok(View {
            runs,
            gone: state.gone.clone(),
            entries,
        })
    }
}

impl View {
    /// All numbers are below; not all below are of an entry.
    pub(crate) const fn numbers(&self) -> u64 {
        self.entries
    }

    /// Every place where a chunk stands.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Vec<Numbered>> {
        let mut found = Vec::new();
        for (first, run) in &self.runs {
            for (place, entry) in run.find_places(id)? {
                let location = run.locate(&entry)?;
                if !self.gone.contains(&location.pack) {
                    let number = first + place;
                    found.push(Numbered { number, location });
                }
            }
        }
        Ok(found)
    }

    /// Calls `each` with every entry.
    pub(crate) fn each(&self, mut each: impl FnMut(ChunkId, Numbered) -> Result<()>) -> Result<()> {
        for (first, run) in &self.runs {
            for block in 0..run.block_count() {
                let number = first + (block * ENTRIES_PER_BLOCK) as u64;
                for (entry, number) in run.read_block(block)?.iter().zip(number..) {
                    let location = run.locate(entry)?;
                    if !self.gone.contains(&location.pack) {
                        each(entry.id, Numbered { number, location })?;
                    }
                }
            }
        }
        Ok(())
    }
}
