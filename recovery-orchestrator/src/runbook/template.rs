// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `relevo runbook new` prints.

/// A commented runbook with every key.
#[must_use]
pub fn template() -> String {
    include_str!("template.yaml").to_owned()
}
