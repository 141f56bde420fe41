// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves the disks of a running machine from the library to local files, so that it needs the
//! library no more.
//!
//! ```text
//! trace quiet -> blockdev-mirror of every disk -> all ready -> stop -> complete all -> record -> cont
//! ```
//!
//! `blockdev-mirror` keeps holes as holes; it copies what the overlay has too. The machine stands
//! still while all disks change over, some milliseconds, so a computer that loses its power in
//! between has either all overlays or all new files as the truth, never a mixture: what is recorded
//! ([`Moved`]) decides, and it is durable before the machine goes on. Writes of the guest during the
//! copy go to both places.

use std::path::PathBuf;

use image_library::terminal::chain_text;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::nodes::{Found, add_target, job, remove_nodes};
use crate::file;
use crate::platform::qemu::Qmp;

/// How far the copy of a disk looks at once, in bytes; QEMU's own is 10 MiB. It asks for the block
/// status of each step, holes too: 1 TiB of holes is a hundred thousand questions with QEMU's own
/// steps, and sixteen thousand with these. As much memory is taken where there is so much to copy.
const STEP_BYTES: u64 = 64 << 20;

/// Where the disks go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// An empty qcow2 file for each disk, in the machine's order; `None` where it is local already.
    pub targets: Vec<Option<PathBuf>>,
    /// Bytes per second for each disk; 0: as fast as it goes.
    pub rate_bytes_per_second: u64,
    /// Where it is recorded that the new files are the machine's disks.
    pub record: PathBuf,
}

/// The record that disks were moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// For each disk of the machine, whether it is its local file from now on, or its overlay.
    pub disks: Vec<bool>,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Bytes that were gone through, of all disks.
    pub done_bytes: u64,
    /// Bytes to go through, as far as is known by now.
    pub total_bytes: u64,
    /// The disks are local.
    pub is_complete: bool,
    /// Why it does not go on.
    pub problem: Option<String>,
}

/// Which step is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Copy,
    /// All are ready; the machine was told to stop.
    Stop,
    /// It has stopped, and the disks were told to change over.
    ChangeOver,
    Done,
    Failed,
}

/// The course of moving the disks of one machine.
#[derive(Debug)]
pub(super) struct Mover {
    order: MoveOrder,
    step: Step,
    ready: Vec<bool>,
    changed: Vec<bool>,
    /// The machine stands still while its disks change over.
    is_stopped: bool,
    has_stopped: bool,
    is_cancelled: bool,
    is_undone: bool,
    progress: Moving,
}

impl Mover {
    pub(super) fn new(order: MoveOrder) -> Self {
        let is_local: Vec<bool> = order.targets.iter().map(Option::is_none).collect();
        Self {
            order,
            step: Step::Begin,
            ready: is_local.clone(),
            changed: is_local,
            is_stopped: false,
            has_stopped: false,
            is_cancelled: false,
            is_undone: false,
            progress: Moving::default(),
        }
    }

    /// Finds out how far the keeper before this one was, killed at any moment. `is_paused`: the
    /// machine stands still because it was told to.
    pub(super) fn take_over(&mut self, qmp: &mut Qmp, is_paused: bool) -> Result<(), String> {
        let found = Found::ask(qmp)?;
        for disk in self.to_move() {
            let is_ready = |job: &Value| job["ready"].as_bool() == Some(true);
            self.changed[disk] = found.is_changed(disk);
            self.ready[disk] = self.changed[disk] || found.job(disk).is_some_and(is_ready);
        }
        let is_changed = |disk: &usize| self.changed[*disk];
        let is_known = |disk: &usize| self.changed[*disk] || found.job(*disk).is_some();
        if self.to_move().iter().any(is_changed) {
            // All were ready: what has changed over is not recorded yet, and the machine waits for that.
            self.is_stopped = is_paused;
            self.has_stopped = true;
            self.step = Step::Stop;
        } else if self.to_move().iter().all(is_known) {
            self.step = Step::Copy;
        }
        Ok(())
    }

    /// Whether the machine must not go on for any other reason: its disks change over.
    pub(super) fn holds_machine(&self) -> bool {
        match self.step {
            Step::Stop | Step::ChangeOver => true,
            Step::Failed => !self.is_undone,
            Step::Begin | Step::Copy | Step::Done => false,
        }
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Moving {
        self.progress.clone()
    }

    /// Whether the library is not needed any more.
    pub(super) fn is_complete(&self) -> bool {
        self.step == Step::Done
    }

    /// Takes an event of the monitor into account.
    pub(super) fn event(&mut self, event: &Value) {
        self.has_stopped |= event["event"] == "STOP";
        let data = &event["data"];
        let of = data["device"].as_str().or_else(|| data["id"].as_str());
        let Some(disk) = of.and_then(|id| (0..self.ready.len()).find(|disk| job(*disk) == id))
        else {
            return;
        };
        match event["event"].as_str() {
            Some("BLOCK_JOB_READY") => self.ready[disk] = true,
            Some("BLOCK_JOB_COMPLETED") => match data["error"].as_str() {
                Some(problem) => self.fail(format!("disk {disk}: {problem}")),
                None => self.changed[disk] = true,
            },
            Some("BLOCK_JOB_CANCELLED") => self.fail(format!("disk {disk}: it was cancelled")),
            _ => {}
        }
    }

    fn fail(&mut self, problem: String) {
        if matches!(self.step, Step::Done | Step::Failed) {
            // What follows from the first one says nothing new.
            tracing::debug!(problem, "while the disks are left where they are");
            return;
        }
        tracing::error!(problem, "the disks cannot be moved");
        self.progress.problem = Some(problem);
        self.step = Step::Failed;
    }

    /// Does what can be done now. `may_begin`: the guest does not need the library for itself.
    pub(super) fn advance(&mut self, qmp: &mut Qmp, may_begin: bool) {
        let outcome = match self.step {
            Step::Begin if may_begin => self.begin(qmp),
            Step::Copy if self.ready.iter().all(|ready| *ready) => self.stop(qmp),
            Step::Stop if self.has_stopped => self.change_over(qmp),
            Step::Copy => self.look(qmp),
            Step::ChangeOver if self.changed.iter().all(|changed| *changed) => self.finish(qmp),
            Step::Begin | Step::Stop | Step::ChangeOver | Step::Done | Step::Failed => Ok(()),
        };
        if let Err(problem) = outcome {
            self.fail(problem);
        }
        if self.step == Step::Failed
            && !self.is_undone
            && let Err(problem) = self.undo(qmp)
        {
            tracing::warn!(problem, "tried again in a moment");
        }
    }

    /// Leaves the machine with the disks that it has. One that changed over already cannot go back,
    /// so it is recorded before the machine goes on. Tried again until all of it is done.
    fn undo(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        if !std::mem::replace(&mut self.is_cancelled, true) {
            for disk in self.to_move() {
                // It may have ended by itself.
                let job = json!({"device": job(disk), "force": true});
                let _ = qmp.execute("block-job-cancel", &job);
            }
        }
        let found = Found::ask(qmp)?;
        let to_move = self.to_move();
        if to_move.iter().any(|disk| found.job(*disk).is_some()) {
            return Ok(());
        }
        for disk in &to_move {
            self.changed[*disk] = found.is_changed(*disk);
        }
        if to_move.iter().any(|disk| self.changed[*disk]) {
            self.record()?;
        }
        if std::mem::take(&mut self.is_stopped) {
            qmp.execute("cont", &json!({}))?;
        }
        for disk in to_move {
            if !self.changed[disk] {
                self.remove_copy(qmp, disk);
            }
        }
        self.is_undone = true;
        Ok(())
    }

    /// Removes what was copied of a disk that stays where it is: it takes room.
    fn remove_copy(&self, qmp: &mut Qmp, disk: usize) {
        remove_nodes(qmp, disk, &["target", "target-file"]);
        let copy = self.order.targets[disk].as_deref();
        if let Some(Err(error)) = copy.map(file::remove_file) {
            tracing::warn!(%error, "what was copied stays");
        }
    }

    /// Writes down what the machine's disks are now, durably.
    fn record(&self) -> Result<(), String> {
        let moved = Moved {
            disks: self.changed.clone(),
        };
        let text = serde_json::to_vec_pretty(&moved).map_err(|error| error.to_string())?;
        file::write_atomically(&self.order.record, &text).map_err(|error| {
            let problem = chain_text(&error);
            format!("it cannot be recorded which disks were moved: {problem}")
        })
    }

    /// The disks that are not local yet.
    fn to_move(&self) -> Vec<usize> {
        let targets = self.order.targets.iter().enumerate();
        targets
            .filter_map(|(disk, target)| target.as_ref().map(|_| disk))
            .collect()
    }

    fn begin(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        for disk in self.to_move() {
            if let Some(target) = &self.order.targets[disk] {
                // What a keeper left that was killed here.
                qmp.execute(
                    "block-job-cancel",
                    &json!({"device": job(disk), "force": true}),
                )
                .ok();
                remove_nodes(qmp, disk, &["target", "target-file"]);
                add_target(qmp, disk, target)?;
            }
        }
        for disk in self.to_move() {
            // A target that is full is waited for; a chunk that is lost is not.
            qmp.execute(
                "blockdev-mirror",
                &json!({
                    "job-id": job(disk), "device": format!("disk{disk}"),
                    "target": format!("target{disk}"), "sync": "full",
                    "copy-mode": "write-blocking", "speed": self.order.rate_bytes_per_second,
                    "buf-size": STEP_BYTES,
                    "on-source-error": "report", "on-target-error": "stop",
                }),
            )?;
        }
        self.step = Step::Copy;
        Ok(())
    }

    fn look(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        let jobs = qmp.execute("query-block-jobs", &json!({}))?;
        let of = |job: &Value, key: &str| job[key].as_u64().unwrap_or(0);
        let jobs = jobs.as_array().map(Vec::as_slice).unwrap_or_default();
        self.progress.done_bytes = jobs.iter().map(|job| of(job, "offset")).sum();
        self.progress.total_bytes = jobs.iter().map(|job| of(job, "len")).sum();
        let paused = jobs.iter().find(|job| {
            job["io-status"]
                .as_str()
                .is_some_and(|status| status != "ok")
        });
        self.progress.problem = paused.map(|job| {
            let status = job["io-status"].as_str().unwrap_or_default();
            format!("the local disk cannot be written ({status})")
        });
        if let Some(device) = paused.and_then(|job| job["device"].as_str()) {
            // There may be room again.
            qmp.execute("block-job-resume", &json!({"device": device}))
                .ok();
        }
        Ok(())
    }

    fn stop(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        self.step = Step::Stop;
        let status = qmp.execute("query-status", &json!({}))?;
        // One that stands still already says nothing when it is told to, and is not ours to let go on.
        self.is_stopped = status["running"].as_bool() == Some(true);
        self.has_stopped = !self.is_stopped;
        if self.has_stopped {
            return Ok(());
        }
        // Reads of the guest that are under way end first, however long they take.
        qmp.send("stop", &json!({}))
    }

    fn change_over(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        self.step = Step::ChangeOver;
        let waiting = self.to_move().into_iter();
        for disk in waiting.filter(|disk| !self.changed[*disk]) {
            qmp.execute("block-job-complete", &json!({"device": job(disk)}))?;
        }
        Ok(())
    }

    fn finish(&mut self, qmp: &mut Qmp) -> Result<(), String> {
        if let Err(problem) = self.record() {
            // What it would write from now on would not be found again: it waits until there is room.
            tracing::warn!(problem, "the machine waits");
            self.progress.problem = Some(problem);
            return Ok(());
        }
        self.step = Step::Done;
        self.progress.problem = None;
        self.progress.is_complete = true;
        self.progress.done_bytes = self.progress.total_bytes;
        if std::mem::take(&mut self.is_stopped) {
            qmp.execute("cont", &json!({}))?;
        }
        for disk in self.to_move() {
            remove_nodes(qmp, disk, &["disk", "file", "image"]);
        }
        Ok(())
    }
}
