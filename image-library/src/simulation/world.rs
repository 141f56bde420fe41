// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all processes of a history share: the clock, the dice, whose turn it is, what happened.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use super::coverage::{Coverage, Event};
use super::model::Model;
use super::mutants::Mutant;
use super::operations::Kind;
use super::random::Random;
use super::turns::{Actor, Turns};
use crate::error::Result;
use crate::store::faulty::{Fault, FaultSource, Operation, is_fragile};
use crate::surroundings::Surroundings;

/// Packs are this small: four or five chunks.
const PACK_LENGTH: u64 = 72 << 10;
/// 2026-11-01, in seconds since 1970.
const BEGINNING: u64 = 1_793_491_200;

/// Which faults a history has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Operations fail and processes are killed within them.
    pub(super) faults: bool,
    /// The medium damages what it keeps.
    pub(super) medium: bool,
    pub(super) mutant: Option<Mutant>,
}

/// An operation that goes on.
#[derive(Debug)]
pub(super) struct Going {
    pub(super) kind: Kind,
    /// A fault struck it: it may fail.
    pub(super) is_struck: bool,
    pub(super) has_ended: bool,
}

/// What the medium did.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Something is damaged.
    pub(super) any: bool,
    /// Objects that vanished, or were replaced, with nothing left to tell it.
    pub(super) vanished: BTreeSet<String>,
}

/// What all processes of a history share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) turns: Turns,
    pub(super) model: Mutex<Model>,
    pub(super) coverage: Mutex<Coverage>,
    pub(super) going: Mutex<BTreeMap<Actor, Going>>,
    pub(super) damage: Mutex<Damage>,
    pub(super) violations: Mutex<Vec<String>>,
    /// From now on nothing fails: the history is over.
    pub(super) is_quiet: AtomicBool,
    faults: Mutex<Random>,
    salts: Mutex<Random>,
    millis: Arc<AtomicU64>,
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The world of this thread, for [`now`]: a library's clock is a plain function.
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Enters a world with this thread.
pub(super) fn enter(world: &Arc<World>) {
    WORLD.set(Some(Arc::clone(world)));
}

/// The time in the world of this thread.
pub(super) fn now() -> Timestamp {
    WORLD.with_borrow(|world| {
        let millis = world.as_ref().map_or(0, |world| world.millis());
        let since = SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX));
        Timestamp::UNIX_EPOCH
            .checked_add(since)
            .unwrap_or(Timestamp::MAX)
    })
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        Self {
            plan,
            turns: Turns::default(),
            model: Mutex::default(),
            coverage: Mutex::default(),
            going: Mutex::default(),
            damage: Mutex::default(),
            violations: Mutex::default(),
            is_quiet: AtomicBool::new(false),
            faults: Mutex::new(Random::new(seed ^ 0xfa_0175)),
            salts: Mutex::new(Random::new(seed ^ 0x5a_1700)),
            millis: Arc::new(AtomicU64::new(BEGINNING * 1000)),
            synced: Arc::default(),
        }
    }

    fn millis(&self) -> u64 {
        self.millis.load(Ordering::SeqCst)
    }

    /// The store's clock.
    pub(super) fn store_clock(&self) -> Arc<crate::store::memory::Clock> {
        let millis = Arc::clone(&self.millis);
        Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_millis(millis.load(Ordering::SeqCst))
        })
    }

    /// Whether the bytes of a file of a workspace were made durable.
    pub(super) fn is_durable(&self) -> Arc<crate::store::memory::IsDurable> {
        let synced = Arc::clone(&self.synced);
        Arc::new(move |path| lock(&synced).contains(path))
    }

    pub(super) fn pass_time(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    pub(super) fn count(&self, event: Event, times: u64) {
        lock(&self.coverage).count(event, times);
    }

    /// Something happened that must not happen.
    pub(super) fn violation(&self, text: String) {
        lock(&self.violations).push(text);
    }

    /// Whether the operation whose turn it is may fail.
    pub(super) fn is_struck(&self, actor: Actor) -> bool {
        lock(&self.going)
            .get(&actor)
            .is_some_and(|going| going.is_struck)
    }

    pub(super) fn is_damaged(&self) -> bool {
        lock(&self.damage).any
    }

    pub(super) fn running_kind(&self) -> Option<Kind> {
        let actor = self.turns.running()?;
        lock(&self.going).get(&actor).map(|going| going.kind)
    }

    fn strike(&self, fault: Fault) {
        *lock(&self.coverage).faults.entry(fault).or_default() += 1;
        let is_harmless = matches!(fault, Fault::Slow | Fault::BitFlip);
        let medium = matches!(
            fault,
            Fault::TornWrite | Fault::LostWrite | Fault::MisdirectedWrite
        );
        if is_harmless || medium {
            return;
        }
        if let Some(actor) = self.turns.running()
            && let Some(going) = lock(&self.going).get_mut(&actor)
        {
            going.is_struck = true;
        }
    }

    /// Counts beside what the operation takes a step whose turn it is.
    pub(super) fn note_step(&self, actor: Actor) {
        let going = lock(&self.going);
        let Some(me) = going.get(&actor) else { return };
        let mut coverage = lock(&self.coverage);
        for (other, beside) in &*going {
            if *other != actor && !beside.has_ended {
                *coverage.pairs.entry((me.kind, beside.kind)).or_default() += 1;
            }
        }
    }

    fn draw(&self, operation: Operation, name: &str) -> Option<Fault> {
        if !self.plan.faults {
            return None;
        }
        let mut dice = lock(&self.faults);
        let per_thousand = if operation.writes() { 30 } else { 5 };
        if !dice.chance(per_thousand, 1000) {
            return None;
        }
        if self.plan.medium && operation.stores() && is_fragile(name) && dice.chance(1, 2) {
            let medium = [Fault::TornWrite, Fault::LostWrite, Fault::MisdirectedWrite];
            return dice.pick(&medium).copied();
        }
        if self.plan.medium && operation != Operation::ReadPart && dice.chance(1, 6) {
            return Some(Fault::BitFlip);
        }
        let possible: &[Fault] = match operation {
            Operation::ReadPart => &[Fault::Io, Fault::Slow],
            Operation::Create | Operation::Replace | Operation::Adopt => &[
                Fault::Slow,
                Fault::Io,
                Fault::IoAfter,
                Fault::NoSpace,
                Fault::CrashBefore,
                Fault::CrashInside,
                Fault::CrashAfter,
            ],
            Operation::Remove => &[
                Fault::Slow,
                Fault::Io,
                Fault::IoAfter,
                Fault::CrashBefore,
                Fault::CrashAfter,
            ],
            Operation::Read | Operation::Open | Operation::Exists | Operation::List => {
                &[Fault::Slow, Fault::Io, Fault::CrashBefore]
            }
        };
        dice.pick(possible).copied()
    }

    fn tick(&self, fault: Option<Fault>) {
        let mut dice = lock(&self.faults);
        let millis = match fault {
            Some(Fault::Slow) => dice.below(100) * 3_600_000,
            _ => 1 + dice.below(40),
        };
        self.pass_time(Duration::from_millis(millis));
    }
}

/// What goes wrong for one process, and what it takes from its machine.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) world: Arc<World>,
    pub(super) is_alive: Arc<AtomicBool>,
}

impl Fate {
    fn is_dead(&self) -> bool {
        let is_dead = !self.is_alive.load(Ordering::SeqCst);
        if is_dead {
            self.world.strike(Fault::Dead);
        }
        is_dead
    }

    fn is_spared(&self) -> bool {
        let world = &self.world;
        // Several threads of a verify are at work at once: it is one step, and nothing fails in it.
        world.is_quiet.load(Ordering::SeqCst)
            || world.running_kind().is_none_or(|kind| kind == Kind::Verify)
    }
}

impl FaultSource for Fate {
    fn next(&self, operation: Operation, name: &str) -> Option<Fault> {
        if self.is_spared() {
            return None;
        }
        if self.is_dead() {
            return Some(Fault::Dead);
        }
        let world = &self.world;
        if operation != Operation::ReadPart {
            world.turns.stop();
            // Killed while it waited.
            if self.is_dead() {
                return Some(Fault::Dead);
            }
            world.note_step(world.turns.running()?);
        }
        let fault = world.draw(operation, name);
        world.tick(fault);
        if let Some(fault) = fault {
            world.strike(fault);
            if fault.kills() {
                self.is_alive.store(false, Ordering::SeqCst);
                world.count(Event::ProcessKilled, 1);
            }
        }
        fault
    }

    fn below(&self, bound: u64) -> u64 {
        lock(&self.world.faults).below(bound.max(1))
    }

    fn damaged(&self, fault: Fault, name: &str) {
        let mut damage = lock(&self.world.damage);
        damage.any = true;
        if matches!(fault, Fault::LostWrite | Fault::MisdirectedWrite) {
            damage.vanished.insert(name.to_owned());
        }
    }
}

impl Surroundings for Fate {
    fn salt(&self) -> Result<[u8; 32]> {
        let mut dice = lock(&self.world.salts);
        let mut salt = [0; 32];
        for word in salt.chunks_exact_mut(8) {
            word.copy_from_slice(&dice.next().to_le_bytes());
        }
        Ok(salt)
    }

    fn sync(&self, _file: &File, path: &Path) -> io::Result<()> {
        let world = &self.world;
        if !self.is_spared() && self.is_dead() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.is_spared() && world.plan.faults && lock(&world.faults).chance(5, 1000) {
            world.strike(Fault::NoSpace);
            world.count(Event::WorkspaceFull, 1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if world.plan.mutant != Some(Mutant::PackNotSynced) {
            lock(&world.synced).insert(path.to_owned());
        }
        Ok(())
    }

    fn pack_length(&self) -> u64 {
        PACK_LENGTH
    }

    fn packs_overlap(&self) -> bool {
        false
    }
}
