// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the process of a keeper does, from its order to the end of its machine.

use std::ops::Add as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use disk::{Finding, Monitor, Unit};
use serde_json::{Value, json};

use super::ahead::Ahead;
use super::cached::Exported;
use super::moving::Mover;
use super::notice::Notices;
use super::room::{NO_ROOM_STATUS, NoRoom, no_room_finding};
use super::source::{KeptDisk, KeptImage, Source};
use super::trace::{Recorder, TRACE_NAME, Trace};
use super::{KeeperOrder, KeeperStatus};
use crate::cache::{CacheCounters, ChunkCache, FetchOptions};
use crate::error::{Error, Result};
use crate::file;
use crate::nbd::{Access, Export, Meter, Reads, Server};
use crate::platform::qemu::{Qmp, export_name};

/// How long a machine may take until its monitor is there.
const MACHINE_PATIENCE: Duration = Duration::from_secs(300);
/// How often the keeper looks around.
const TICK: Duration = Duration::from_millis(250);
/// After how long without an answer a machine is stopped whose controller would give up: Linux waits
/// 30 s for a SCSI or ATA command (`drivers/scsi/sd.c`, `SD_TIMEOUT`), Windows 60 s or less.
const STOP_AFTER: Duration = Duration::from_secs(8);
/// A guest that reads nothing new for so long has booted, as far as its disks go.
const QUIET: Duration = Duration::from_secs(5);
/// A trace is complete at the latest after so long.
const TRACE_MAX: Duration = Duration::from_secs(300);

impl Drop for Stand {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The disks of one machine, served.
struct Stand {
    image: Arc<KeptImage>,
    notices: Arc<Notices>,
    recorder: Arc<Recorder>,
    disks: Vec<Arc<Exported>>,
    meters: Vec<Arc<Meter>>,
    replayed: Arc<OnceLock<Trace>>,
    /// Ends fetching ahead.
    stop: Arc<AtomicBool>,
    /// Ends when it is dropped.
    _server: Server,
}

/// Serves the disks of a machine until the machine has ended.
///
/// `sources`: the library, then its replicas.
///
/// # Errors
///
/// When the library or the image cannot be opened, unless the keeper takes over from another one;
/// when the socket cannot be listened on; when no machine comes.
pub fn run(order: &KeeperOrder, sources: Vec<Source>) -> Result<()> {
    let notices = Arc::new(Notices::default());
    let image = Arc::new(KeptImage::new(order.image, sources, Arc::clone(&notices)));
    if !order.takes_over {
        // What is wrong with the library is told now, not by a machine that hangs.
        image.check()?;
    }
    let stand = serve(order, image, notices)?;
    let mut watch = Watch::new(order, stand)?;
    watch.until_the_end();
    watch.end();
    Ok(())
}

fn serve(order: &KeeperOrder, image: Arc<KeptImage>, notices: Arc<Notices>) -> Result<Stand> {
    let recorder = Arc::new(Recorder::default());
    let cache = Arc::new(ChunkCache::open(
        &order.cache.options(),
        Arc::new(ToNotices(Arc::clone(&notices))),
    )?);
    let fetch = if order.cache.is_served {
        FetchOptions::for_server()
    } else {
        FetchOptions::default()
    };
    let mut disks = Vec::new();
    let mut meters = Vec::new();
    let mut exports = Vec::new();
    for (number, disk) in order.disks.iter().enumerate() {
        let kept = KeptDisk::new(Arc::clone(&image), disk.index, disk.size_bytes);
        let (cache, recorder) = (Arc::clone(&cache), Arc::clone(&recorder));
        let exported = Arc::new(Exported::new(kept, number, cache, fetch, recorder));
        let meter = Arc::new(Meter::new(Arc::clone(&exported) as _));
        disks.push(exported);
        meters.push(Arc::clone(&meter));
        exports.push(Export {
            name: export_name(number),
            access: Access::ReadOnly(meter),
            block_size_bytes: disk.sector_size.bytes(),
        });
    }
    let server = Server::start(&order.nbd, exports)?;
    let replayed = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let ahead = Ahead {
        image: Arc::clone(&image),
        disks: disks.clone(),
        replayed: Arc::clone(&replayed),
        stop: Arc::clone(&stop),
    };
    thread::spawn(move || ahead.run());
    Ok(Stand {
        image,
        notices,
        recorder,
        disks,
        meters,
        replayed,
        stop,
        _server: server,
    })
}

/// What the cache notices goes to the others' findings.
struct ToNotices(Arc<Notices>);

impl Monitor for ToNotices {
    fn stage(&self, _title: &str) {}

    fn expect(&self, _total: u64, _unit: Unit) {}

    fn advance(&self, _amount: u64) {}

    fn finding(&self, finding: &Finding) {
        self.0.finding(finding.clone());
    }
}

/// The machine as the keeper sees it.
struct Watch {
    qmp: Qmp,
    stand: Option<Stand>,
    image: Arc<KeptImage>,
    notices: Arc<Notices>,
    recorder: Arc<Recorder>,
    mover: Option<Mover>,
    controller_gives_up: bool,
    /// The keeper stopped it, because the library is away.
    is_stopped: bool,
    /// It stands still at a write that has no room.
    no_room: Option<NoRoom>,
    trace_is_kept: bool,
    /// The trace of an earlier boot, once it was found.
    replayed: Arc<OnceLock<Trace>>,
    /// Writes the trace.
    keeping: Option<JoinHandle<()>>,
    reads: Reads,
    cache: CacheCounters,
    place: PathBuf,
    written: Option<KeeperStatus>,
}

impl Watch {
    /// Waits for the machine's monitor.
    fn new(order: &KeeperOrder, stand: Stand) -> Result<Self> {
        let failed = |problem| Error::Machine {
            name: order.image.to_string(),
            problem,
            hint: None,
        };
        let connected = match order.takes_over {
            true => Qmp::connect_to_busy(&order.monitor),
            false => Qmp::connect(&order.monitor, MACHINE_PATIENCE, || None),
        };
        let mut watch = Self {
            qmp: connected.map_err(failed)?,
            image: Arc::clone(&stand.image),
            notices: Arc::clone(&stand.notices),
            recorder: Arc::clone(&stand.recorder),
            mover: order.move_disks.clone().map(Mover::new),
            controller_gives_up: order.controller_gives_up,
            is_stopped: false,
            no_room: None,
            trace_is_kept: false,
            replayed: Arc::clone(&stand.replayed),
            keeping: None,
            reads: Reads::default(),
            cache: CacheCounters::default(),
            place: order.status.clone(),
            written: None,
            stand: Some(stand),
        };
        if order.takes_over {
            watch.take_over().map_err(failed)?;
        }
        Ok(watch)
    }

    /// Finds out what the keeper before this one had begun.
    fn take_over(&mut self) -> Result<(), String> {
        let status = self.qmp.execute("query-status", &json!({}))?;
        // Only keepers let machines pause.
        let is_paused = status["status"] == "paused";
        if let Some(mover) = &mut self.mover {
            mover.take_over(&mut self.qmp, is_paused)?;
        }
        self.is_stopped = is_paused && !self.disks_change_over();
        self.no_room = (status["status"] == NO_ROOM_STATUS).then(NoRoom::default);
        Ok(())
    }

    fn until_the_end(&mut self) {
        let mut next = Instant::now();
        loop {
            let patience = next.saturating_duration_since(Instant::now());
            match self.qmp.event(patience) {
                Ok(Some(event)) => self.event(&event),
                Ok(None) => {}
                // The machine has ended.
                Err(_) => return,
            }
            if Instant::now() >= next {
                next = Instant::now() + TICK;
                self.hold_or_go_on();
                self.go_on_when_there_is_room();
                self.keep_trace_when_complete();
                self.move_disks();
                self.status(false);
            }
        }
    }

    fn event(&mut self, event: &Value) {
        let data = &event["data"];
        if event["event"] == "BLOCK_IO_ERROR" && data["action"] == "stop" {
            self.no_room.get_or_insert_default();
            self.notices.finding(no_room_finding(data));
        }
        let Some(mover) = &mut self.mover else { return };
        mover.event(event);
        // The machine may be standing still for its disks to change over: not at the next tick.
        self.move_disks();
    }

    fn disks_change_over(&self) -> bool {
        self.mover.as_ref().is_some_and(Mover::holds_machine)
    }

    /// Stops a machine whose controller would give up, and lets it go on when the library is back.
    fn hold_or_go_on(&mut self) {
        if self.disks_change_over() {
            return;
        }
        let waited = self.notices.waiting().map(|(waited, _)| waited);
        let is_too_long = waited.is_some_and(|waited| waited >= STOP_AFTER);
        if self.controller_gives_up && is_too_long && !self.is_stopped {
            // Its processors stop at once; the answer comes when the reads that wait have theirs.
            self.is_stopped = self.qmp.send("stop", &json!({})).is_ok();
        } else if self.is_stopped && waited.is_none() {
            self.is_stopped = self.qmp.execute("cont", &json!({})).is_err();
        }
    }

    /// Has a write done again that had no room, now and then.
    fn go_on_when_there_is_room(&mut self) {
        let is_due = self.no_room.as_ref().is_some_and(NoRoom::is_due);
        if !is_due || self.is_held() || self.disks_change_over() {
            return;
        }
        let status = self.qmp.execute("query-status", &json!({}));
        let is_standing = status.is_ok_and(|status| status["status"] == NO_ROOM_STATUS);
        self.no_room = is_standing.then(NoRoom::default);
        if is_standing && let Err(problem) = self.qmp.execute("cont", &json!({})) {
            tracing::warn!(problem, "the machine does not go on");
        }
    }

    /// Whether the guest has read what it reads to boot, and is not quiet because the library is.
    fn has_booted(&self) -> bool {
        if self.is_held() {
            return false;
        }
        let quiet = self.recorder.quiet_for();
        let age = self.recorder.age();
        quiet.is_some_and(|quiet| quiet >= QUIET) || age.is_some_and(|age| age >= TRACE_MAX)
    }

    fn keep_trace_when_complete(&mut self) {
        // The copy reads everything, which would be in the trace.
        let copy_begins = self.mover.is_some() && self.has_booted();
        let is_old = self.recorder.age().is_some_and(|age| age >= TRACE_MAX);
        if copy_begins || is_old {
            self.keep_trace();
        }
    }

    /// Keeps the trace beside the image, once.
    fn keep_trace(&mut self) {
        if std::mem::replace(&mut self.trace_is_kept, true) {
            return;
        }
        let trace = self.recorder.close();
        // A machine that was ended in the middle of its boot has not shown all of it.
        let known = self.replayed.get().map_or(0, Trace::block_count);
        if trace.block_count() == 0 || trace.block_count() < known / 2 {
            return;
        }
        let image = Arc::clone(&self.image);
        self.keeping = Some(thread::spawn(move || keep(&image, &trace)));
    }

    /// Whether the machine waits for the library. Its monitor may not answer meanwhile: `stop` waits
    /// for the reads that are under way.
    fn is_held(&self) -> bool {
        self.is_stopped || self.notices.waiting().is_some()
    }

    fn move_disks(&mut self) {
        if self.is_held() {
            return;
        }
        let may_begin = self.has_booted();
        let Some(mover) = &mut self.mover else { return };
        mover.advance(&mut self.qmp, may_begin);
        if mover.is_complete() {
            self.note_reads();
            // Nothing is read from the library any more.
            self.stand = None;
        }
    }

    fn note_reads(&mut self) {
        if let Some(stand) = &self.stand {
            let all = stand.meters.iter().map(|meter| meter.reads());
            self.reads = all.fold(Reads::default(), Reads::plus);
            let all = stand.disks.iter().map(|disk| disk.counters());
            self.cache = all.fold(CacheCounters::default(), CacheCounters::add);
        }
    }

    /// Writes the status when it has changed; one that cannot be written (there is no room) is tried
    /// again, and no reason to leave the machine alone.
    fn status(&mut self, is_over: bool) {
        self.note_reads();
        let waiting = self.notices.waiting();
        let status = KeeperStatus {
            reads: self.reads,
            cache: self.cache,
            waiting: waiting.map(|(waited, why)| (waited.as_secs(), why)),
            is_stopped: self.is_stopped || self.no_room.is_some(),
            moving: self.mover.as_ref().map(Mover::progress),
            findings: self.notices.findings(),
            is_over,
        };
        if self.written.as_ref() == Some(&status) {
            return;
        }
        match write_status(&self.place, &status) {
            Ok(()) => self.written = Some(status),
            Err(error) => tracing::debug!(%error, "the status is not written"),
        }
    }

    fn end(mut self) {
        self.image.end();
        self.note_reads();
        self.stand = None;
        self.keep_trace();
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.join();
        }
        // The directory goes with the machine: it may be gone already.
        self.status(true);
    }
}

/// Keeps a trace beside its image; one that is lost costs the next boot some time.
fn keep(image: &KeptImage, trace: &Trace) {
    let Some(library) = image.library() else {
        return;
    };
    let bytes = serde_json::to_vec(trace).unwrap_or_default();
    if let Err(error) = library.put_side_file(image.id(), TRACE_NAME, &bytes) {
        tracing::warn!(%error, "the trace of the boot is not kept");
    }
}

fn write_status(place: &Path, status: &KeeperStatus) -> Result<()> {
    let text = serde_json::to_vec(status).unwrap_or_default();
    let new = place.with_extension("new");
    file::write(&new, &text)?;
    file::rename(&new, place)
}
