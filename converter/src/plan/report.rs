// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to "will it boot?" for other programs: `runbooks/inspection.schema.json` describes it.

use disk::Finding;
use disk::block::Reads;
use serde::Serialize;

use super::{Plan, Verdict};
use crate::inspect::Inspection;
use crate::vm::VmDefinition;

/// What was found in an image and whether it will boot, without the edits themselves.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Whether it will boot.
    pub verdict: Verdict,
    /// Everything that was noticed, each with its code.
    pub findings: &'a [Finding],
    /// How many files would be changed or made.
    pub edit_count: usize,
    /// What was found.
    pub inspection: &'a Inspection,
    /// The virtual machine.
    pub vm: &'a VmDefinition,
    /// What was read of the disks for it.
    pub reads: Reads,
}

impl<'a> Report<'a> {
    /// The report of a plan and of the inspection that it was made from.
    #[must_use]
    pub fn new(inspection: &'a Inspection, plan: &'a Plan, reads: Reads) -> Self {
        Self {
            verdict: plan.verdict,
            findings: &plan.findings,
            edit_count: plan.edits.len(),
            inspection,
            vm: &plan.vm,
            reads,
        }
    }
}
