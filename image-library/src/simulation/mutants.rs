// SPDX-License-Identifier: MIT OR Apache-2.0
//! Libraries that are broken on purpose: what a simulation cannot catch here, it does not test.
//! The faults are made between the library and its store, so shipped code knows nothing of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::history::{found_library, open_core};
use super::operations::Kind;
use super::turns::Actor;
use super::world::{World, lock};
use crate::core::Core;
use crate::error::Result;
use crate::pack::PackId;
use crate::store::memory::Memory;
use crate::store::{Store, Stored, StoredObject, names};

/// What is wrong with a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// An image is created before its packs are in the store.
    ImageBeforePacks,
    /// Uploads deduplicate against packs that are condemned.
    CondemnedForgotten,
    /// What was condemned is removed without looking again whether it is in use.
    SweepUnmarked,
    /// Packs get their names while their bytes are not durable.
    PackNotSynced,
    /// Uploads do not know of damage that another program found.
    DamageForgotten,
    /// A commit does not look whether the library was pruned past it.
    FloorIgnored,
}

/// A store that makes a library behave so.
#[derive(Debug)]
pub(super) struct Mutated {
    mutant: Mutant,
    inner: Arc<dyn Store>,
    world: Arc<World>,
    /// Packs that wait for the image that names them.
    waiting: Memory,
    /// Reads and writes records with the library's key.
    plain: Core,
    scratch: Core,
    _workspaces: [tempfile::TempDir; 2],
    floors: Mutex<BTreeMap<Actor, Option<Vec<u8>>>>,
}

impl Mutated {
    pub(super) fn new(
        mutant: Mutant,
        inner: Arc<dyn Store>,
        memory: &Memory,
        world: Arc<World>,
    ) -> Self {
        let new_memory = || Memory::new(world.store_clock(), Arc::new(|_: &Path| true));
        let scratch = new_memory();
        found_library(&scratch, 0);
        for name in [names::CONFIG, names::KEY] {
            let bytes = memory
                .read(name, 1 << 20, "")
                .expect("reads")
                .expect("is there");
            scratch.replace(name, &bytes).expect("writes");
        }
        let workspaces = [(); 2].map(|()| tempfile::tempdir().expect("a directory can be made"));
        Self {
            mutant,
            inner,
            waiting: new_memory(),
            plain: open_core(Arc::new(memory.clone()), workspaces[0].path()),
            scratch: open_core(Arc::new(scratch), workspaces[1].path()),
            _workspaces: workspaces,
            floors: Mutex::default(),
            world,
        }
    }

    fn list_of(&self, name: &str) -> Option<Value> {
        let record = self.plain.record(name, 1 << 20).ok()??;
        serde_json::from_slice(&record).ok()
    }

    /// The same list of condemned packs, with none on it.
    fn without_packs(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut list) = self.list_of(name) else {
            return Ok(None);
        };
        list["packs"] = json!([]);
        self.scratch
            .replace_record(name, list.to_string().as_bytes())?;
        self.scratch.store.read(name, 1 << 20, "")
    }
}

impl Store for Mutated {
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        let read = self.inner.read(name, limit, what)?;
        if self.world.running_kind() != Some(Kind::Upload) {
            return Ok(read);
        }
        let is_list = names::parse_condemned(name).is_some();
        if self.mutant == Mutant::CondemnedForgotten && is_list && read.is_some() {
            return self.without_packs(name);
        }
        if self.mutant == Mutant::FloorIgnored
            && name == names::FLOOR
            && let Some(actor) = self.world.turns.running()
        {
            return Ok(lock(&self.floors).entry(actor).or_insert(read).clone());
        }
        Ok(read)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        match self.inner.open(name)? {
            None => self.waiting.open(name),
            found => Ok(found),
        }
    }

    fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.inner.exists(name)? || self.waiting.exists(name)?)
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let created = self.inner.create(name, content)?;
        if names::parse_image(name).is_some() {
            for pack in self.waiting.list("")? {
                let bytes = self.waiting.read(&pack.name, u64::MAX - 1, "")?;
                self.inner.create(&pack.name, &bytes.unwrap_or_default())?;
                self.waiting.remove(&pack.name)?;
            }
        }
        Ok(created)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        self.inner.replace(name, content)
    }

    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        if self.mutant == Mutant::ImageBeforePacks {
            return self.waiting.adopt(name, file);
        }
        self.inner.adopt(name, file)
    }

    fn remove(&self, name: &str) -> Result<()> {
        if self.mutant == Mutant::SweepUnmarked
            && names::parse_condemned(name).is_some()
            && let Some(list) = self.list_of(name)
        {
            let packs = list["packs"].as_array().into_iter().flatten();
            for pack in packs.filter_map(|pack| PackId::from_hex(pack.as_str()?)) {
                self.inner.remove(&names::pack(&pack))?;
            }
        }
        self.inner.remove(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        if self.mutant == Mutant::DamageForgotten && prefix == names::WANTED {
            return Ok(Vec::new());
        }
        let mut listed = self.inner.list(prefix)?;
        listed.extend(self.waiting.list(prefix)?);
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}
