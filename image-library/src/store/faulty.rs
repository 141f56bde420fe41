// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store around another one that fails as real ones do. Which operation fails how is up to a
//! [`FaultSource`], which is seeded, so that a run can be repeated.
//!
//! | fault | what the caller sees | what the contract asks of the library |
//! |---|---|---|
//! | crash before, inside, after an operation | the process is gone | nothing that was promised is lost |
//! | EIO, before or after the effect | an error | the same, and the operation says so |
//! | ENOSPC | an error, no effect | the same |
//! | slow | nothing | the same |
//! | torn, lost, misdirected write; bit flip | success | no wrong bytes; `verify` finds it; the next upload heals it |
//!
//! The last row is damage of the medium: the store said that the bytes are durable, and they are
//! not. Nothing can prevent that, so it must be told.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Store, Stored, StoredObject};
use crate::error::{Error, Result};

/// An operation of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Read,
    Open,
    ReadPart,
    Exists,
    Create,
    Replace,
    Adopt,
    Remove,
    List,
}

impl Operation {
    /// Whether it changes what is stored.
    pub(crate) const fn writes(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Replace | Self::Adopt | Self::Remove
        )
    }

    /// Whether it brings bytes into the store.
    pub(crate) const fn stores(self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::Adopt)
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// It takes long, and succeeds.
    Slow,
    /// EIO, and nothing was done.
    Io,
    /// EIO, and it was done nevertheless.
    IoAfter,
    /// ENOSPC, and nothing was done.
    NoSpace,
    /// The process is killed before it.
    CrashBefore,
    /// The process is killed when half of it is done.
    CrashInside,
    /// The process is killed when all of it is done and the caller does not know yet.
    CrashAfter,
    /// It succeeds, and only a part of the bytes arrives.
    TornWrite,
    /// It succeeds, and nothing arrives.
    LostWrite,
    /// It succeeds, and the bytes arrive in another object's place.
    MisdirectedWrite,
    /// Before it, one bit of some object changes.
    BitFlip,
    /// The process was killed before: nothing works any more.
    Dead,
}

impl Fault {
    /// Every fault.
    pub(crate) const ALL: [Self; 12] = [
        Self::Slow,
        Self::Io,
        Self::IoAfter,
        Self::NoSpace,
        Self::CrashBefore,
        Self::CrashInside,
        Self::CrashAfter,
        Self::TornWrite,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::BitFlip,
        Self::Dead,
    ];

    /// Whether the process is killed by it.
    pub(crate) const fn kills(self) -> bool {
        matches!(
            self,
            Self::CrashBefore | Self::CrashInside | Self::CrashAfter
        )
    }
}

/// Decides which operations fail.
pub(crate) trait FaultSource: Debug + Send + Sync {
    /// Asked before every operation; `None` lets it succeed.
    fn next(&self, operation: Operation, name: &str) -> Option<Fault>;

    /// A number below `bound`, which is not 0: where in an object a fault strikes.
    fn below(&self, bound: u64) -> u64;

    /// Told which object was damaged.
    fn damaged(&self, fault: Fault, name: &str);
}

/// A store that fails as its source says.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    source: Arc<dyn FaultSource>,
}

/// Objects that faults of the medium may strike: those of which FORMAT.md says what follows.
const FRAGILE: [&str; 3] = ["packs/", "images/", "side/"];

/// Whether a fault of the medium may strike an object.
pub(crate) fn is_fragile(name: &str) -> bool {
    FRAGILE.iter().any(|prefix| name.starts_with(prefix))
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Store>, source: Arc<dyn FaultSource>) -> Self {
        Self { inner, source }
    }

    fn error(&self, name: &str, kind: io::ErrorKind) -> Error {
        Error::File {
            action: "use",
            path: self.inner.place(name).into(),
            source: kind.into(),
        }
    }

    /// What goes wrong before an operation; gives what goes wrong in it.
    fn begin(&self, operation: Operation, name: &str) -> Result<Option<Fault>> {
        let fault = self.source.next(operation, name);
        match fault {
            None | Some(Fault::Slow) => Ok(None),
            Some(Fault::Io) => Err(self.error(name, io::ErrorKind::Other)),
            Some(Fault::NoSpace) => Err(self.error(name, io::ErrorKind::StorageFull)),
            Some(Fault::CrashBefore | Fault::Dead) => Err(self.gone(name)),
            Some(Fault::BitFlip) => {
                self.flip_a_bit()?;
                Ok(None)
            }
            inside => Ok(inside),
        }
    }

    fn gone(&self, name: &str) -> Error {
        self.error(name, io::ErrorKind::BrokenPipe)
    }

    /// What goes wrong after an operation that was done.
    fn end(&self, fault: Option<Fault>, name: &str) -> Result<()> {
        match fault {
            Some(Fault::IoAfter) => Err(self.error(name, io::ErrorKind::Other)),
            Some(Fault::CrashAfter | Fault::CrashInside) => Err(self.gone(name)),
            _ => Ok(()),
        }
    }

    fn content(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.inner
            .read(name, u64::MAX - 1, "the length of an object in bytes")
    }

    fn fragile_objects(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for prefix in FRAGILE {
            names.extend(
                self.inner
                    .list(prefix)?
                    .into_iter()
                    .map(|stored| stored.name),
            );
        }
        Ok(names)
    }

    fn flip_a_bit(&self) -> Result<()> {
        let names = self.fragile_objects()?;
        if names.is_empty() {
            return Ok(());
        }
        let name = &names[self.source.below(names.len() as u64) as usize];
        let Some(mut content) = self.content(name)?.filter(|content| !content.is_empty()) else {
            return Ok(());
        };
        let at = self.source.below(content.len() as u64) as usize;
        content[at] ^= 1 << self.source.below(8);
        self.source.damaged(Fault::BitFlip, name);
        self.inner.replace(name, &content)
    }

    /// Stores what a faulty medium keeps of `content`. `false` when the fault is none of these.
    fn store_badly(&self, fault: Option<Fault>, name: &str, content: &[u8]) -> Result<bool> {
        let Some(fault) = fault else { return Ok(false) };
        match fault {
            Fault::TornWrite => {
                let kept = self.source.below(content.len() as u64 + 1) as usize;
                self.inner.replace(name, &content[..kept])?;
                self.source.damaged(fault, name);
            }
            Fault::LostWrite => self.source.damaged(fault, name),
            Fault::MisdirectedWrite => {
                let prefix = name.split_inclusive('/').next().unwrap_or_default();
                let others = self.inner.list(prefix)?;
                self.source.damaged(fault, name);
                if !others.is_empty() {
                    let other = &others[self.source.below(others.len() as u64) as usize].name;
                    self.source.damaged(fault, other);
                    self.inner.replace(other, content)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Store for Faulty {
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        let fault = self.begin(Operation::Read, name)?;
        let read = self.inner.read(name, limit, what)?;
        self.end(fault, name)?;
        Ok(read)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        let fault = self.begin(Operation::Open, name)?;
        let object = self.inner.open(name)?;
        self.end(fault, name)?;
        Ok(object.map(|inner| -> Box<dyn StoredObject> {
            Box::new(FaultyObject {
                inner,
                name: name.to_owned(),
                source: Arc::clone(&self.source),
            })
        }))
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let fault = self.begin(Operation::Exists, name)?;
        let exists = self.inner.exists(name)?;
        self.end(fault, name)?;
        Ok(exists)
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let fault = self.begin(Operation::Create, name)?;
        let is_free = !self.inner.exists(name)?;
        // Half of a creation is a temporary file: nothing that has a name.
        let is_new = match fault {
            Some(Fault::CrashInside) => is_free,
            _ if is_free && self.store_badly(fault, name, content)? => true,
            _ => self.inner.create(name, content)?,
        };
        self.end(fault, name)?;
        Ok(is_new)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let fault = self.begin(Operation::Replace, name)?;
        if fault != Some(Fault::CrashInside) && !self.store_badly(fault, name, content)? {
            self.inner.replace(name, content)?;
        }
        self.end(fault, name)
    }

    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        let fault = self.begin(Operation::Adopt, name)?;
        let content = fs::read(file).map_err(Error::file("read", file))?;
        if self.store_badly(fault, name, &content)? {
            return fs::remove_file(file).map_err(Error::file("remove", file));
        }
        self.inner.adopt(name, file)?;
        if fault == Some(Fault::CrashInside) {
            // It has its name, and still the old one too.
            fs::write(file, &content).map_err(Error::file("write", file))?;
        }
        self.end(fault, name)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let fault = self.begin(Operation::Remove, name)?;
        if fault != Some(Fault::CrashInside) {
            self.inner.remove(name)?;
        }
        self.end(fault, name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        let fault = self.begin(Operation::List, prefix)?;
        let listed = self.inner.list(prefix)?;
        self.end(fault, prefix)?;
        Ok(listed)
    }
}

#[derive(Debug)]
struct FaultyObject {
    inner: Box<dyn StoredObject>,
    name: String,
    source: Arc<dyn FaultSource>,
}

impl StoredObject for FaultyObject {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.source.next(Operation::ReadPart, &self.name) {
            None | Some(Fault::Slow) => self.inner.read_exact_at(buffer, offset),
            Some(fault) => Err(Error::File {
                action: "read",
                path: self.name.clone().into(),
                source: io::Error::other(format!("{fault:?}")),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use rstest::rstest;

    use super::super::memory::Memory;
    use super::*;

    /// One fault, and then none.
    #[derive(Debug)]
    struct Once {
        fault: Mutex<Option<Fault>>,
        damaged: Mutex<Vec<String>>,
    }

    impl FaultSource for Once {
        fn next(&self, _: Operation, _: &str) -> Option<Fault> {
            self.fault.lock().expect("nobody panics").take()
        }

        fn below(&self, bound: u64) -> u64 {
            bound / 2
        }

        fn damaged(&self, _: Fault, name: &str) {
            self.damaged
                .lock()
                .expect("nobody panics")
                .push(name.to_owned());
        }
    }

    /// What an object has after it was created with `new content` under a fault, beside `packs/a`.
    #[rstest]
    #[case(Fault::Slow, true, Some("new content"))]
    #[case(Fault::Io, false, None)]
    #[case(Fault::NoSpace, false, None)]
    #[case(Fault::IoAfter, false, Some("new content"))]
    #[case(Fault::CrashBefore, false, None)]
    #[case(Fault::CrashInside, false, None)]
    #[case(Fault::CrashAfter, false, Some("new content"))]
    #[case(Fault::TornWrite, true, Some("new co"))]
    #[case(Fault::LostWrite, true, None)]
    #[case(Fault::MisdirectedWrite, true, None)]
    #[case(Fault::BitFlip, true, Some("new content"))]
    #[case(Fault::Dead, false, None)]
    fn each_fault_does_what_it_says(
        #[case] fault: Fault,
        #[case] succeeds: bool,
        #[case] there: Option<&str>,
    ) {
        let clock = || SystemTime::UNIX_EPOCH;
        let memory = Memory::new(Arc::new(clock), Arc::new(|_: &Path| true));
        memory.create("packs/a", b"old").expect("creates");
        let source = Arc::new(Once {
            fault: Mutex::new(Some(fault)),
            damaged: Mutex::default(),
        });
        let store = Faulty::new(Arc::new(memory.clone()), source.clone());
        let created = store.create("packs/b", b"new content");
        assert_eq!(created.is_ok(), succeeds, "{created:?}");
        let read = |name| memory.read(name, 99, "").expect("reads");
        assert_eq!(read("packs/b").as_deref(), there.map(str::as_bytes));
        let other = match fault {
            Fault::MisdirectedWrite => &b"new content"[..],
            // Bit 4 of the byte in the middle.
            Fault::BitFlip => b"o|d",
            _ => b"old",
        };
        assert_eq!(read("packs/a").as_deref(), Some(other));
        let medium = source.damaged.lock().expect("nobody panics").len();
        let expected = match fault {
            Fault::MisdirectedWrite => 2,
            Fault::TornWrite | Fault::LostWrite | Fault::BitFlip => 1,
            _ => 0,
        };
        assert_eq!(medium, expected);
        assert!(store.exists("packs/a").expect("works again"));
    }
}
