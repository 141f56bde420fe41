// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes with a condition: what several machines that share a bucket agree by.
//!
//! Some stores answer such a write with success and ignore the condition, so whether it means
//! anything is found out once, when a library is created ([`probe`]), and noted in `library.json`.

use std::fmt::Debug;

use uuid::Uuid;

use super::Store;
use crate::error::Result;

/// What distinguishes one content of an object from the next; what the store says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) String);

/// Compare-and-swap on the objects of a store.
pub(crate) trait Conditional: Debug + Send + Sync {
    /// The content, at most `limit` bytes, with its version; `None` when there is no such object.
    fn read_version(
        &self,
        name: &str,
        limit: u64,
        what: &'static str,
    ) -> Result<Option<(Vec<u8>, Version)>>;

    /// Writes an object if it still has the version `expected`, or does not exist where that is
    /// `None`. Gives the new version, `None` when the object is another one by now.
    fn swap(
        &self,
        name: &str,
        content: &[u8],
        expected: Option<&Version>,
    ) -> Result<Option<Version>>;
}

/// Whether the conditions of writes mean anything here: tried with an object that is removed again.
pub(crate) fn probe(store: &dyn Store) -> Result<bool> {
    let Some(conditional) = store.conditional() else {
        return Ok(false);
    };
    let name = super::names::probe(&Uuid::new_v4().to_string());
    let honoured = try_conditions(conditional, &name);
    store.remove(&name)?;
    honoured
}

fn try_conditions(store: &dyn Conditional, name: &str) -> Result<bool> {
    let what = "the length of a probe in bytes";
    // Stores that do not know a condition refuse the request, or ignore the condition: both are
    // the same answer here.
    let Ok(Some(first)) = store.swap(name, b"first", None) else {
        return Ok(false);
    };
    if !matches!(store.swap(name, b"second", None), Ok(None)) {
        return Ok(false);
    }
    let holds = |content: &[u8]| -> Result<bool> {
        let found = store.read_version(name, 64, what)?;
        Ok(found.is_some_and(|(bytes, _)| bytes == content))
    };
    if !holds(b"first")? || !matches!(store.swap(name, b"third", Some(&first)), Ok(Some(_))) {
        return Ok(false);
    }
    // The version of before must not do any more.
    let stale = store.swap(name, b"fourth", Some(&first));
    Ok(matches!(stale, Ok(None)) && holds(b"third")?)
}
