// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last pass of `verify`: the trash, what prunes have published, and what is known of damage.

use super::Findings;
use super::images::text;
use crate::core::Core;
use crate::error::{Error, Result, chain_text};
use crate::store::names;

const TRASH_REMEDY: &str = "it cannot be taken back; a prune removes it when its grace is over";
const WANTED_REMEDY: &str = "verify all of the library: it writes the record again, or removes it";
const PUBLISH_REMEDY: &str = "verify again where the library can be written: until then other \
                              programs may rely on what is damaged";
const RECORD_REMEDY: &str = "end every upload, then delete this file: what it lists is condemned \
                             again by a later prune";

/// Writes down what is damaged. Where that cannot be done, the damage is told all the same.
pub(super) fn publish(core: &Core, findings: &Findings<'_>) {
    let published = findings.losses().publish(core);
    if let Err(error) = published {
        let code = "library.record.not-written";
        let place = core.store.place(names::WANTED);
        findings.add(code, place, chain_text(&error), Some(PUBLISH_REMEDY));
    }
}

/// Checks the documents in the trash, the floor, the lists of condemned packs, and what was known
/// of damage.
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
    let unreadable = findings.losses().unreadable(core)?;
    for (name, error) in unreadable {
        let code = "library.record.damaged";
        let place = core.store.place(&name);
        findings.add(code, place, text(&error), Some(WANTED_REMEDY));
    }
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
