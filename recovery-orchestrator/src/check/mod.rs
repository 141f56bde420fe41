// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks: the questions that are put to a started machine, all at once, until each is answered
//! or its time is over.
//!
//! A console that shows that the guest will never come up (a kernel panic, a rescue shell) ends
//! all of them at once, with what was seen as the reason.

mod boot_failure;
mod http;
mod pattern;

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::interrupt::Interrupt;
use crate::platform::{Machine, Status};
use crate::runbook::Check;

pub use boot_failure::boot_failure;
pub use pattern::{Pattern, without_controls as plain};

/// Time between two attempts.
const INTERVAL: Duration = Duration::from_millis(500);

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered as expected.
    Passed,
    /// Not in its time, or never to be.
    Failed,
    /// The command was interrupted.
    Interrupted,
}

/// A check with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The question in words: `http port 80 / answers 200`.
    pub check: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// From the start of the virtual processors to the answer, in milliseconds.
    pub after_start_ms: u64,
    /// From the start of the command to the answer, in milliseconds.
    pub after_command_ms: u64,
    /// How often it was asked.
    pub attempt_count: u32,
}

/// A machine to be asked, and since when.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// When its processors began to run.
    pub started: Instant,
    /// When the command began.
    pub command_started: Instant,
    /// Whether to give up.
    pub interrupt: &'a Interrupt,
}

/// What one attempt found.
enum Answer {
    Yes,
    NotYet(String),
    Never(String),
}

/// Puts all checks to a machine at once; the results are in the checks' order.
#[must_use]
pub fn run(subject: Subject<'_>, checks: &[Check]) -> Vec<CheckResult> {
    thread::scope(|scope| {
        let threads: Vec<_> = checks
            .iter()
            .map(|check| scope.spawn(move || run_one(subject, check)))
            .collect();
        let results = threads.into_iter().zip(checks);
        results
            .map(|(thread, check)| {
                thread.join().unwrap_or_else(|_| {
                    subject.result(
                        check,
                        Outcome::Failed,
                        Some("the check itself failed".to_owned()),
                        0,
                    )
                })
            })
            .collect()
    })
}

fn run_one(subject: Subject<'_>, check: &Check) -> CheckResult {
    let deadline = subject.started + check.within();
    let mut attempt_count = 0_u32;
    loop {
        attempt_count = attempt_count.saturating_add(1);
        let last = match ask(subject.machine, check) {
            Answer::Yes => return subject.result(check, Outcome::Passed, None, attempt_count),
            Answer::Never(reason) => {
                return subject.result(check, Outcome::Failed, Some(reason), attempt_count);
            }
            Answer::NotYet(reason) => reason,
        };
        if subject.interrupt.is_raised() {
            return subject.result(check, Outcome::Interrupted, Some(last), attempt_count);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let reason = format!(
                "not within {}: {last}",
                crate::runbook::duration_text(check.within())
            );
            return subject.result(check, Outcome::Failed, Some(reason), attempt_count);
        }
        subject.interrupt.sleep(INTERVAL.min(left));
    }
}

impl Subject<'_> {
    fn result(
        &self,
        check: &Check,
        outcome: Outcome,
        reason: Option<String>,
        attempt_count: u32,
    ) -> CheckResult {
        CheckResult {
            check: check.to_string(),
            outcome,
            reason,
            after_start_ms: milliseconds(self.started.elapsed()),
            after_command_ms: milliseconds(self.command_started.elapsed()),
            attempt_count,
        }
    }
}

/// Whole milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ask(machine: &dyn Machine, check: &Check) -> Answer {
    let console = match machine.console() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Answer::NotYet(error.to_string()),
    };
    let answer = match check {
        Check::Console(question) => {
            if question.expect.is_in(&console) {
                Answer::Yes
            } else {
                Answer::NotYet(format!("{} is not on the console", question.expect))
            }
        }
        Check::Tcp(question) => match machine.accepts(question.port) {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::NotYet("nothing accepts a connection".to_owned()),
            Err(error) => Answer::NotYet(error.to_string()),
        },
        Check::Http(question) => match machine.endpoint(question.port) {
            Some(endpoint) => {
                http::ask(endpoint, question).map_or_else(Answer::NotYet, |()| Answer::Yes)
            }
            None => Answer::Never(format!(
                "port {} of the guest is not forwarded",
                question.port
            )),
        },
    };
    let Answer::NotYet(reason) = answer else {
        return answer;
    };
    if let Some(sign) = boot_failure(&console) {
        return Answer::Never(sign);
    }
    match machine.status() {
        Status::Running => Answer::NotYet(reason),
        Status::Ended(reason) => Answer::Never(format!("the machine has ended: {reason}")),
    }
}
