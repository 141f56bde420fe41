// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who prunes a library that several machines share: an object with a holder, a generation and a
//! time at which it runs out.
//!
//! The lease saves work, it does not make a prune safe: clocks differ, and a holder that was
//! stopped does not know for how long. What makes it safe is that every decision of a prune is a
//! change of the floor as it found it (FORMAT.md, section 10).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{overtaken, parse, to_json};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::store::{Conditional, Version, names};

/// For how long a lease is given. It is taken anew when half of that is over.
pub(super) const LEASE_TIME: Duration = Duration::from_secs(30 * 60);
const LEASE_LENGTH_MAX: u64 = 4 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Who holds it, by a name that is made up for every prune.
    holder: Uuid,
    /// Counts the holders.
    generation: u64,
    /// When it runs out, by the clock of the holder.
    expires_at: Timestamp,
}

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    core: &'a Core,
    store: &'a dyn Conditional,
    record: Record,
    version: Version,
}

impl<'a> Lease<'a> {
    /// Takes the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another holds it.
    pub(super) fn take(core: &'a Core, store: &'a dyn Conditional) -> Result<Self> {
        let name = names::PRUNE_LEASE;
        let before = core.record_version(store, name, LEASE_LENGTH_MAX)?;
        let locked = || Error::Locked {
            path: core.store.place(name).into(),
        };
        let mut record = Record {
            holder: Uuid::new_v4(),
            generation: 1,
            expires_at: expiry(core),
        };
        let mut version = None;
        if let Some((bytes, found)) = before {
            let held: Record = parse(name, &bytes)?;
            if held.expires_at > (core.clock)() {
                return Err(locked());
            }
            record.generation = held.generation + 1;
            version = Some(found);
        }
        let swapped = core.swap_record(store, name, &to_json(&record)?, version.as_ref())?;
        Ok(Self {
            core,
            store,
            record,
            version: swapped.ok_or_else(locked)?,
        })
    }

    /// Takes it for longer when half of its time is over.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when another has taken it.
    pub(super) fn keep(&mut self) -> Result<()> {
        let half = SignedDuration::try_from(LEASE_TIME / 2).unwrap_or(SignedDuration::ZERO);
        if self.record.expires_at.duration_since((self.core.clock)()) > half {
            return Ok(());
        }
        self.record.expires_at = expiry(self.core);
        self.write()
    }

    /// Gives it back. Not by removing it: that has no condition, and it may be another's by now.
    pub(super) fn give_back(mut self) -> Result<()> {
        self.record.expires_at = Timestamp::UNIX_EPOCH;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let json = to_json(&self.record)?;
        let name = names::PRUNE_LEASE;
        let swapped = self
            .core
            .swap_record(self.store, name, &json, Some(&self.version))?;
        self.version = swapped.ok_or_else(overtaken)?;
        Ok(())
    }
}

fn expiry(core: &Core) -> Timestamp {
    let time = SignedDuration::try_from(LEASE_TIME).unwrap_or(SignedDuration::ZERO);
    (core.clock)().checked_add(time).unwrap_or(Timestamp::MAX)
}
