// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be said about a runbook before it is run.

use std::time::Duration;

use disk::{Finding, Level};
use image_library::ImageReader;
use jiff::Timestamp;

use crate::capacity::Memory;
use crate::error::{Error, Result};
use crate::runbook::{Runbook, duration_text};
use crate::select;

/// What a machine has that nobody described.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;

/// With a library at hand: images that are missing or old, memory that is not there.
pub fn check(runbook: &Runbook, reader: &dyn ImageReader, now: Timestamp) -> Result<Vec<Finding>> {
    let mut findings = notes(runbook);
    let mut memory_bytes = 0_u64;
    for (name, server) in &runbook.servers {
        match select::for_runbook(reader, name, &server.image) {
            Ok(image) => {
                let described = image.machine.as_ref().map(|machine| machine.memory_bytes);
                let memory = server
                    .hardware
                    .memory
                    .or(described)
                    .unwrap_or(DEFAULT_MEMORY_BYTES);
                memory_bytes = memory_bytes.saturating_add(memory);
                findings.extend(too_old(runbook, name, age_seconds(image.taken_at, now)));
            }
            Err(error @ Error::NoImage { .. }) => findings.push(Finding {
                level: Level::Error,
                code: "runbook.image.missing".to_owned(),
                place: format!("server {name}"),
                problem: error.to_string(),
                remedy: error.hint(),
            }),
            Err(error) => return Err(error),
        }
    }
    findings.extend(Memory::of_host().and_then(|memory| memory.judge(memory_bytes)));
    Ok(findings)
}

/// How old an image is; 0 when the clocks disagree.
pub(super) fn age_seconds(taken_at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(taken_at).as_secs()).unwrap_or(0)
}

/// An image that is older than the objective allows.
pub(super) fn too_old(runbook: &Runbook, server: &str, age_seconds: u64) -> Option<Finding> {
    let rpo = runbook.objectives.rpo?;
    let age = Duration::from_secs(age_seconds);
    (age > rpo).then(|| Finding {
        level: Level::Warning,
        code: "runbook.image.old".to_owned(),
        place: format!("server {server}"),
        problem: format!(
            "its image is {} old, and the objective (RPO) is {}",
            duration_text(age),
            duration_text(rpo)
        ),
        remedy: Some("take a new image".to_owned()),
    })
}

/// What a runbook leaves open, whatever is in the library.
pub fn notes(runbook: &Runbook) -> Vec<Finding> {
    let unchecked = runbook
        .servers
        .iter()
        .filter(|(_, server)| server.checks.is_empty());
    let mut findings: Vec<Finding> = unchecked.map(|(name, _)| without_checks(name)).collect();
    if runbook.schedule.is_some() {
        findings.push(Finding {
            level: Level::Note,
            code: "runbook.schedule.unused".to_owned(),
            place: "schedule".to_owned(),
            problem: "nothing starts drills by itself yet".to_owned(),
            remedy: Some("call `relevo drill run` from a timer of the system".to_owned()),
        });
    }
    if runbook.servers.len() > 1 {
        findings.push(Finding {
            level: Level::Note,
            code: "runbook.network.separate".to_owned(),
            place: "networks".to_owned(),
            problem:
                "servers do not reach each other in a drill yet: each card has a network of its own"
                    .to_owned(),
            remedy: None,
        });
    }
    findings
}

fn without_checks(server: &str) -> Finding {
    Finding {
        level: Level::Warning,
        code: "runbook.checks.none".to_owned(),
        place: format!("server {server}"),
        problem: "it has no check, so a drill only proves that its machine can be started"
            .to_owned(),
        remedy: Some("add a console, tcp or http check".to_owned()),
    }
}
