// SPDX-License-Identifier: MIT OR Apache-2.0
//! Merges runs of like size into one, in one pass over sorted entries.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::run::{Run, RunWriter};
use super::{Entry, PackRecord};
use crate::error::Result;
use crate::pack::PackId;

/// A run joins a merge when it has at most so many times the entries of the smaller ones
/// together; so an entry is rewritten a logarithmic number of times.
const GROWTH: u64 = 3;

/// The smallest runs, as far as their sizes are alike; at least two.
pub(super) fn choose(runs: &[Arc<Run>]) -> Vec<Arc<Run>> {
    let mut by_size: Vec<_> = runs.to_vec();
    by_size.sort_by_key(|run| run.entry_count());
    let mut chosen: Vec<Arc<Run>> = Vec::new();
    let mut total = 0_u64;
    for run in by_size {
        if chosen.len() >= 2 && run.entry_count() > total.saturating_mul(GROWTH) {
            break;
        }
        total = total.saturating_add(run.entry_count());
        chosen.push(run);
    }
    chosen
}

/// Where one input of a merge stands.
struct Cursor {
    run: Arc<Run>,
    /// This run's number of a pack to the merged run's; `None` for packs that are gone.
    packs: Vec<Option<u32>>,
    block: usize,
    entries: std::vec::IntoIter<Entry>,
}

impl Cursor {
    /// The next entry whose pack still exists, with the merged run's number of it.
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            for mut entry in self.entries.by_ref() {
                if let Some(Some(pack)) = self.packs.get(entry.pack as usize) {
                    entry.pack = *pack;
                    return Ok(Some(entry));
                }
            }
            if self.block == self.run.block_count() {
                return Ok(None);
            }
            self.entries = self.run.read_block(self.block)?.into_iter();
            self.block += 1;
        }
    }
}

/// Writes the merged run; `None` when nothing is left of the inputs.
pub(super) fn merge(
    inputs: &[Arc<Run>],
    gone: &HashSet<PackId>,
    path: &Path,
) -> Result<Option<Run>> {
    for run in inputs {
        run.forget_filter();
    }
    let (packs, mut cursors) = renumber(inputs, gone);
    let mut heap = BinaryHeap::new();
    for (number, cursor) in cursors.iter_mut().enumerate() {
        heap.extend(cursor.next()?.map(|entry| Reverse((entry, number))));
    }
    let mut writer = RunWriter::create(path, inputs.iter().map(|run| run.entry_count()).sum())?;
    let mut last: Option<Entry> = None;
    while let Some(Reverse((entry, number))) = heap.pop() {
        if last != Some(entry) {
            writer.append(&entry)?;
            last = Some(entry);
        }
        heap.extend(
            cursors[number]
                .next()?
                .map(|entry| Reverse((entry, number))),
        );
    }
    if last.is_none() {
        return Ok(None);
    }
    writer.finish(&packs).map(Some)
}

fn renumber(inputs: &[Arc<Run>], gone: &HashSet<PackId>) -> (Vec<PackRecord>, Vec<Cursor>) {
    let mut packs: Vec<PackRecord> = Vec::new();
    let mut numbers: HashMap<PackId, u32> = HashMap::new();
    let mut cursors = Vec::with_capacity(inputs.len());
    for run in inputs {
        let mut map = Vec::with_capacity(run.packs().len());
        for pack in run.packs() {
            if gone.contains(&pack.id) {
                map.push(None);
                continue;
            }
            let number = *numbers.entry(pack.id).or_insert_with(|| {
                packs.push(*pack);
                // Far fewer than 2^32: that many packs would be 64 PiB.
                (packs.len() - 1) as u32
            });
            map.push(Some(number));
        }
        cursors.push(Cursor {
            run: Arc::clone(run),
            packs: map,
            block: 0,
            entries: Vec::new().into_iter(),
        });
    }
    (packs, cursors)
}
