// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last pass of `verify`: the trash, and what prunes have published.

use super::Findings;
use super::images::text;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::store::names;

const TRASH_REMEDY: &str = "it cannot be taken back; a prune removes it when its grace is over";
const RECORD_REMEDY: &str = "end every upload, then delete this file: what it lists is condemned \
                             again by a later prune";

/// Checks the documents in the trash, the floor, and the lists of condemned packs.
pub(super) fn check(core: &Core, findings: &Findings<'_>) -> Result<()> {
    for entry in core.trash()? {
        if let Err(error) = &entry.image {
            let place = format!("deleted image {}", entry.id);
            let code = "library.image.damaged";
            findings.add(code, place, text(error), Some(TRASH_REMEDY));
        }
    }
    let found = [
        (names::FLOOR, core.floor().map(drop)),
        (names::PRUNE, core.condemned().map(drop)),
    ];
    for (name, found) in found {
        match found {
            Err(error @ Error::Corrupt { .. } | error @ Error::Unsupported { .. }) => {
                let place = core.store.place(name);
                let code = "library.record.damaged";
                findings.add(code, place, text(&error), Some(RECORD_REMEDY));
            }
            other => other?,
        }
    }
    Ok(())
}
