// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that makes full packs durable and names them while the next one fills.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::chunk::ChunkId;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::index::{Adopted, PackRecord};
use crate::pack::{FinishedPack, PackWriter};
use crate::session::PackLog;
use crate::store::names;

/// Chunks that are in a pack which the index does not know yet, with their plain lengths.
pub(super) type Pending = HashMap<ChunkId, u32>;

/// The thread that makes packs durable.
#[derive(Debug)]
pub(super) struct Finisher {
    packs: SyncSender<PackWriter>,
    thread: JoinHandle<Result<()>>,
}

impl Finisher {
    pub(super) fn start(
        core: Arc<Core>,
        pending: Arc<Mutex<Pending>>,
        log: PackLog,
    ) -> Result<Self> {
        let (packs, queue) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("pack-finisher".to_owned())
            .spawn(move || finish_packs(&core, &pending, &log, &queue))
            .map_err(|source| Error::File {
                action: "start",
                path: "a thread".into(),
                source,
            })?;
        Ok(Self { packs, thread })
    }

    /// Hands over a full pack; waits while it is one pack behind. `false` when it has ended, which
    /// it does only when it failed.
    pub(super) fn send(&self, pack: PackWriter) -> bool {
        self.packs.send(pack).is_ok()
    }

    /// Waits until every pack is durable and in the index.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.packs);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn finish_packs(
    core: &Core,
    pending: &Mutex<Pending>,
    log: &PackLog,
    queue: &Receiver<PackWriter>,
) -> Result<()> {
    for pack in queue {
        let FinishedPack {
            id,
            path,
            length,
            owner,
            entries,
        } = pack.finish()?;
        core.store.adopt(&names::pack(&id), &path)?;
        log.append(&id)?;
        let adopted = Adopted {
            record: PackRecord { id, length, owner },
            entries: entries.iter().map(|e| (e.id, e.extent)).collect(),
        };
        core.index.add(&adopted)?;
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            pending.remove(&entry.id);
        }
    }
    Ok(())
}
