// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads packs of a distant store in blocks: a request takes tens of milliseconds whatever its
//! length, so neighbours are fetched together, several requests go at once, and what will be
//! wanted soon is fetched before it is asked for.
//!
//! A block that several readers want is fetched once. Only what never changes is kept: objects
//! that are opened, which are packs. Reads of whole objects go past it, so `verify` sees what the
//! store has.
//!
//! Limits: [`KEPT_BYTES`] of blocks are kept, [`WAITING_MAX`] wait or are on their way,
//! [`FETCHERS_MAX`] at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Conditional, Part, Store, Stored, StoredObject};
use crate::error::{Error, Result};

/// What is fetched by one request.
const BLOCK_LENGTH: u64 = 1 << 20;
/// The first bytes of an object, for who only needs its length and header.
const HEAD_LENGTH: u64 = 4 << 10;
/// Blocks that are kept, in bytes.
const KEPT_BYTES: usize = 64 << 20;
/// How far ahead of a sequential reader blocks are asked for, in bytes of disk.
const AHEAD_BYTES: u64 = 32 << 20;
/// Requests at once.
const FETCHERS_MAX: usize = 16;
/// Blocks that wait for a fetcher or are on their way.
const WAITING_MAX: usize = 48;

/// A store whose packs are read in blocks.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Block {
    name: Arc<str>,
    /// `None`: the head.
    number: Option<u64>,
}

impl Block {
    fn range(&self) -> (u64, u64) {
        self.number.map_or((0, HEAD_LENGTH), |number| {
            (number.saturating_mul(BLOCK_LENGTH), BLOCK_LENGTH)
        })
    }
}

/// A part of an object, `None` when there is no such object.
type Fetched = Option<Arc<Part>>;

struct Shared {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    /// Something was fetched, or failed.
    fetched: Condvar,
    /// Something is to be fetched, or all is over.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    slots: HashMap<Block, Slot>,
    /// Kept blocks by when they were used last, oldest first.
    by_use: BTreeMap<u64, Block>,
    clock: u64,
    kept_bytes: usize,
    queue: VecDeque<Block>,
    /// How many of the slots are being fetched.
    on_the_way: usize,
    fetchers: usize,
    is_closed: bool,
}

enum Slot {
    Queued,
    OnTheWay,
    Kept { part: Arc<Part>, used: u64 },
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("inner", &self.inner)
            .finish()
    }
}

impl State {
    fn kept(&mut self, block: &Block) -> Fetched {
        let Some(Slot::Kept { part, used }) = self.slots.get_mut(block) else {
            return None;
        };
        let part = Arc::clone(part);
        self.clock += 1;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, block.clone());
        Some(part)
    }

    fn keep(&mut self, block: Block, part: Arc<Part>) {
        self.clock += 1;
        let used = self.clock;
        self.kept_bytes += part.bytes.len();
        self.by_use.insert(used, block.clone());
        self.slots.insert(block, Slot::Kept { part, used });
        while self.kept_bytes > KEPT_BYTES {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some(Slot::Kept { part, .. }) = self.slots.remove(&oldest) {
                self.kept_bytes -= part.bytes.len();
            }
        }
    }

    /// Makes a block wait for a fetcher. `false` when it is there or asked for already, or too
    /// many are.
    fn enqueue(&mut self, block: &Block) -> bool {
        let is_full = self.queue.len() + self.on_the_way >= WAITING_MAX;
        if is_full || self.slots.contains_key(block) {
            return false;
        }
        self.slots.insert(block.clone(), Slot::Queued);
        self.queue.push_back(block.clone());
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block, fetched by this thread unless another one does it.
    fn get(&self, block: &Block) -> Result<Fetched> {
        let mut state = self.lock();
        loop {
            if let Some(part) = state.kept(block) {
                return Ok(Some(part));
            }
            match state.slots.get(block) {
                Some(Slot::OnTheWay) => {
                    state = self
                        .fetched
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                // Nobody has begun: whoever needs it now does not wait behind guesses.
                _ => break,
            }
        }
        state.queue.retain(|queued| queued != block);
        self.fetch(state, block)
    }

    fn fetch(&self, mut state: MutexGuard<'_, State>, block: &Block) -> Result<Fetched> {
        state.slots.insert(block.clone(), Slot::OnTheWay);
        state.on_the_way += 1;
        drop(state);
        let (offset, length) = block.range();
        let part = self.inner.read_part(&block.name, offset, length);
        let mut state = self.lock();
        state.on_the_way -= 1;
        state.slots.remove(block);
        let part = part.map(|part| part.map(Arc::new));
        if let Ok(Some(part)) = &part {
            state.keep(block.clone(), Arc::clone(part));
        }
        self.fetched.notify_all();
        part
    }

    /// What a fetcher does until the store is closed.
    fn work(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            let Some(block) = state.queue.pop_front() else {
                state = self
                    .wanted
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // Whoever needs the block fetches it again and is told what is wrong.
            let _ = self.fetch(state, &block);
            state = self.lock();
        }
    }

    /// Asks for blocks that will be needed.
    fn ask_for(self: &Arc<Self>, blocks: impl Iterator<Item = Block>) {
        let mut state = self.lock();
        let asked = blocks.filter(|block| state.enqueue(block)).count();
        if asked == 0 {
            return;
        }
        let missing = state.queue.len().min(FETCHERS_MAX);
        while state.fetchers < missing {
            let shared = Arc::clone(self);
            let started = std::thread::Builder::new()
                .name("pack-fetcher".to_owned())
                .spawn(move || shared.work());
            if started.is_err() {
                // Then readers fetch for themselves.
                break;
            }
            state.fetchers += 1;
        }
        self.wanted.notify_all();
    }
}

impl ReadAhead {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            shared: Arc::new(Shared {
                inner,
                state: Mutex::default(),
                fetched: Condvar::new(),
                wanted: Condvar::new(),
            }),
        }
    }

    /// The head of an object, or its first block when that is there anyway.
    fn head(&self, name: &Arc<str>) -> Result<Fetched> {
        let block = |number| Block {
            name: Arc::clone(name),
            number,
        };
        let first = block(Some(0));
        let is_coming = self.shared.lock().slots.contains_key(&first);
        let wanted = if is_coming { first } else { block(None) };
        self.shared.get(&wanted)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.wanted.notify_all();
    }
}

fn blocks_of(name: &Arc<str>, offset: u64, length: u64) -> impl Iterator<Item = Block> {
    let first = offset / BLOCK_LENGTH;
    let last = offset.saturating_add(length.max(1) - 1) / BLOCK_LENGTH;
    let name = Arc::clone(name);
    (first..=last).map(move |number| Block {
        name: Arc::clone(&name),
        number: Some(number),
    })
}

impl Store for ReadAhead {
    fn place(&self, name: &str) -> String {
        self.shared.inner.place(name)
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        self.shared.inner.read(name, limit, what)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        let name: Arc<str> = name.into();
        let Some(head) = self.head(&name)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(BlockObject {
            shared: Arc::clone(&self.shared),
            name,
            length: head.total,
            head,
        })))
    }

    fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Option<Part>> {
        self.shared.inner.read_part(name, offset, length)
    }

    fn will_read(&self, name: &str, offset: u64, length: u64) {
        let name: Arc<str> = name.into();
        // To open a pack its head is needed too: its first block, or else its first bytes.
        let starts_late = offset >= BLOCK_LENGTH;
        let head = starts_late.then(|| Block {
            name: Arc::clone(&name),
            number: None,
        });
        let has_first = |state: &State| {
            state.slots.contains_key(&Block {
                name: Arc::clone(&name),
                number: Some(0),
            })
        };
        let head = head.filter(|_| !has_first(&self.shared.lock()));
        let blocks = blocks_of(&name, offset, length).take(WAITING_MAX);
        self.shared.ask_for(head.into_iter().chain(blocks));
    }

    fn read_ahead_bytes(&self) -> u64 {
        AHEAD_BYTES
    }

    fn conditional(&self) -> Option<&dyn Conditional> {
        self.shared.inner.conditional()
    }

    fn is_shared(&self) -> bool {
        self.shared.inner.is_shared()
    }

    fn exists(&self, name: &str) -> Result<bool> {
        self.shared.inner.exists(name)
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        self.shared.inner.create(name, content)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        self.shared.inner.replace(name, content)
    }

    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        self.shared.inner.adopt(name, file)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.shared.inner.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        self.shared.inner.list(prefix)
    }
}

/// An object that is read in blocks.
struct BlockObject {
    shared: Arc<Shared>,
    name: Arc<str>,
    length: u64,
    head: Arc<Part>,
}

impl fmt::Debug for BlockObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockObject")
            .field("name", &self.name)
            .field("length", &self.length)
            .finish()
    }
}

impl StoredObject for BlockObject {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(head) = self
            .head
            .bytes
            .get(start..start.saturating_add(buffer.len()))
        {
            buffer.copy_from_slice(head);
            return Ok(());
        }
        let wanted = blocks_of(&self.name, offset, buffer.len() as u64);
        self.shared.ask_for(wanted.skip(1).take(WAITING_MAX));
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let number = at / BLOCK_LENGTH;
            let within = (at % BLOCK_LENGTH) as usize;
            let length = rest.len().min(BLOCK_LENGTH as usize - within);
            let (target, tail) = rest.split_at_mut(length);
            let block = Block {
                name: Arc::clone(&self.name),
                number: Some(number),
            };
            let place = || self.shared.inner.place(&self.name);
            let part = self.shared.get(&block)?;
            let part = part.ok_or_else(|| Error::PackMissing { place: place() })?;
            let Some(bytes) = part.bytes.get(within..within + length) else {
                let problem = format!(
                    "expected {} bytes, found {}: cut off",
                    self.length, part.total
                );
                return Err(Error::corrupt("object", place(), at, problem));
            };
            target.copy_from_slice(bytes);
            rest = tail;
            at += length as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
