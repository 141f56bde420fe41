// SPDX-License-Identifier: MIT OR Apache-2.0
//! Simulated histories of a library: uploads, prunes, deletions, reads and verifies of several
//! processes on two machines, on a store that fails, with processes that are killed and machines
//! that lose power. One seed is one history: how operations interleave, which of them fail and
//! what a crash leaves is decided by it, and it replays exactly.
//!
//! ```text
//! history   starts operations, gives turns, kills, cuts the power        (driver)
//! turns     one thread goes on at a time, up to its next use of the store
//! world     clock, dice, what goes on; Fate: what goes wrong for one process
//! model     what the library must have: a naive copy
//! settle    the end: is everything there, told, healed; does the index matter
//! mutants   libraries broken on purpose, which must be caught
//! ```
//!
//! After every history: each image whose commit returned reads back bit for bit, or (only where
//! the medium was damaged) its damage is told by reading and by `verify`; nothing is listed that
//! was not committed; what the medium damaged and one program found is healed by the next upload of
//! another; and all of that is the same when the index is deleted.
//!
//! `RELEVO_SEEDS=10000` runs so many, `RELEVO_SEED=17` only this one.

mod coverage;
mod disks;
mod history;
mod model;
mod mutants;
mod operations;
mod random;
mod settle;
mod turns;
mod world;

pub(crate) use random::Random;

use coverage::Coverage;
use history::History;
use mutants::Mutant;
use world::{Plan, lock};

/// Runs one history. What must not happen and did is the error.
fn simulate(seed: u64, mutant: Option<Mutant>) -> Result<Coverage, Vec<String>> {
    let plan = Plan {
        faults: !seed.is_multiple_of(4),
        medium: seed % 4 == 3,
        mutant,
    };
    let mut history = History::new(seed, plan);
    history.run();
    settle::settle(&mut history);
    let violations = std::mem::take(&mut *lock(&history.world.violations));
    if violations.is_empty() {
        return Ok(lock(&history.world.coverage).clone());
    }
    Err(violations)
}

mod tests;
