// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store in memory that knows what a loss of power leaves of it.
//!
//! What a method has created, replaced or adopted is durable when it returns, as the contract
//! asks; with one exception: an object that was adopted from a file whose bytes were never made
//! durable is not durable either, and [`Memory::lose_power`] takes it apart.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Store, Stored, StoredObject};
use crate::error::{Error, Result};
use crate::simulation::Random;

/// Tells the time by the store's clock.
pub(crate) type Clock = dyn Fn() -> SystemTime + Send + Sync;
/// Tells whether the bytes of a file were made durable.
pub(crate) type IsDurable = dyn Fn(&Path) -> bool + Send + Sync;

#[derive(Debug, Clone)]
struct Object {
    content: Arc<[u8]>,
    modified: SystemTime,
    is_durable: bool,
}

type Objects = BTreeMap<String, Object>;

/// A store in memory. Clones share their objects.
#[derive(Clone)]
pub(crate) struct Memory {
    objects: Arc<Mutex<Objects>>,
    clock: Arc<Clock>,
    is_durable: Arc<IsDurable>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Memory({} objects)", self.objects().len())
    }
}

impl Memory {
    pub(crate) fn new(clock: Arc<Clock>, is_durable: Arc<IsDurable>) -> Self {
        Self {
            objects: Arc::default(),
            clock,
            is_durable,
        }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.objects)
    }

    fn put(&self, name: &str, content: &[u8], is_durable: bool) {
        let object = Object {
            content: content.into(),
            modified: (self.clock)(),
            is_durable,
        };
        self.objects().insert(name.to_owned(), object);
    }

    /// What a loss of power leaves: of what was not durable nothing, a part, zeros or all of it.
    /// Gives how many objects it concerned.
    pub(crate) fn lose_power(&self, random: &mut Random) -> u64 {
        let mut objects = self.objects();
        let volatile =
            |(name, object): (&String, &Object)| (!object.is_durable).then(|| name.clone());
        let names: Vec<String> = objects.iter().filter_map(volatile).collect();
        for name in &names {
            let Some(mut object) = objects.remove(name) else {
                continue;
            };
            let length = object.content.len();
            object.content = match random.below(4) {
                0 => continue,
                1 => object.content[..random.below(length as u64 + 1) as usize].into(),
                2 => vec![0; length].into(),
                _ => object.content,
            };
            object.is_durable = true;
            objects.insert(name.clone(), object);
        }
        names.len() as u64
    }
}

fn lock(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for Memory {
    fn place(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        match self.objects().get(name) {
            Some(object) if object.content.len() as u64 > limit => {
                Err(Error::Limit { what, limit })
            }
            found => Ok(found.map(|object| object.content.to_vec())),
        }
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        let found = self.objects().get(name).cloned();
        Ok(found.map(|object| -> Box<dyn StoredObject> {
            Box::new(MemoryObject {
                name: name.to_owned(),
                content: object.content,
                objects: Arc::clone(&self.objects),
            })
        }))
    }

    fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.objects().contains_key(name))
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        if self.objects().contains_key(name) {
            return Ok(false);
        }
        self.put(name, content, true);
        Ok(true)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        self.put(name, content, true);
        Ok(())
    }

    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        let content = fs::read(file).map_err(Error::file("read", file))?;
        if !self.objects().contains_key(name) {
            self.put(name, &content, (self.is_durable)(file));
        }
        fs::remove_file(file).map_err(Error::file("remove", file))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.objects().remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        let objects = self.objects();
        let below = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(below
            .map(|(name, object)| Stored {
                name: name.clone(),
                length: object.content.len() as u64,
                modified: object.modified,
            })
            .collect())
    }
}

/// An object that is open. Like an open file it outlives its name, and shows the damage of its
/// medium.
struct MemoryObject {
    name: String,
    content: Arc<[u8]>,
    objects: Arc<Mutex<Objects>>,
}

impl fmt::Debug for MemoryObject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MemoryObject({})", self.name)
    }
}

impl StoredObject for MemoryObject {
    fn length(&self) -> u64 {
        self.content.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let now = lock(&self.objects).get(&self.name).cloned();
        let same = now.filter(|now| now.content.len() == self.content.len());
        let content = same.map_or_else(|| Arc::clone(&self.content), |now| now.content);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let Some(bytes) = content.get(start..end) else {
            let path = PathBuf::from(&self.name);
            return Err(Error::File {
                action: "read",
                path,
                source: std::io::ErrorKind::UnexpectedEof.into(),
            });
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
