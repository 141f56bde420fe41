// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library with one prepared image, and machines that are started from it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Library, Program, Spoken, files_called, forget, free_port, one_machine_at_a_time, page,
    wait_until, work_dir,
};
use serde_json::Value;
use tempfile::TempDir;

/// How long a command may take until its machine runs; a computer tries QEMU out first.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take until its page is there; processors may be emulated.
pub(crate) const PAGE_PATIENCE: Duration = Duration::from_secs(8 * 60);
/// How often the page is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A guest that is up answers sooner; one that is not would be waited for in vain.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// The side file of an image in which a boot keeps what was read.
const TRACE: &str = "boot-trace-v1.json";
/// How every machine is started.
const HARDWARE: &str = "--memory 512MiB --cpus 2";

/// What `relevo` found out about QEMU on this computer, and how long the first command took with it.
static PROBED: OnceLock<(Vec<u8>, Duration)> = OnceLock::new();

/// A library of one server, `x`, whose image is prepared.
pub(crate) struct Site {
    work: TempDir,
    pub(crate) library: Library,
    /// How many chunk caches were put aside.
    put_aside: AtomicU32,
}

impl Site {
    pub(crate) fn new(disk: &Path) -> Self {
        let work = work_dir();
        let library = Library::create(work.path());
        library.import("x", disk);
        library.relevo().args("convert x").succeeds();
        Self {
            work,
            library,
            put_aside: AtomicU32::new(0),
        }
    }

    /// The first machine on this computer since it was started: QEMU is tried out for it.
    fn probe(&self) -> (Vec<u8>, Duration) {
        let machine = Self::start(self.library.relevo(), None);
        let took = machine.took();
        machine.end();
        let host = fs::read(self.path("state/host.json")).expect("it was just tried out");
        (host, took)
    }

    /// How long the first command after the start of a computer takes until its machine runs.
    pub(crate) fn first_start() -> Duration {
        PROBED.get().map(|(_, took)| *took).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let path = self.work.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("the folder is ours");
        }
        path
    }

    /// Nothing of the library is in memory any more, nor anything of it on this computer's disk.
    ///
    /// What was in the chunk cache is put aside: ext4 looks for a new file's inode past those that were
    /// deleted within the last minutes, which would be measured with thousands of them.
    pub(crate) fn chill(&self) {
        let cache = self.path("state/cache");
        if cache.exists() {
            let number = self.put_aside.fetch_add(1, Ordering::Relaxed);
            fs::rename(cache, self.path(&format!("put-aside/{number}")))
                .expect("both are in our folder");
        }
        forget(self.library.folder());
    }

    /// Nobody knows any more what an earlier start has read.
    pub(crate) fn forget_trace(&self) {
        for trace in files_called(self.library.folder(), TRACE) {
            fs::remove_file(trace).expect("the library is ours");
        }
    }

    /// Whether what an earlier start has read is known.
    pub(crate) fn has_trace(&self) -> bool {
        !files_called(self.library.folder(), TRACE).is_empty()
    }

    /// Boots the server with a `relevo` that knows its library, until its processors run.
    pub(crate) fn boot(&self, relevo: Program, to: Option<&Path>) -> Booted {
        let (host, _) = PROBED.get_or_init(|| self.probe());
        fs::write(self.path("state/host.json"), host).expect("the state is in our folder");
        Self::start(relevo, to)
    }

    fn start(relevo: Program, to: Option<&Path>) -> Booted {
        let slot = one_machine_at_a_time();
        let port = free_port();
        let mut relevo = relevo.args("boot x").args(HARDWARE);
        relevo = relevo.arg("--forward").arg(format!("{port}:80"));
        if let Some(directory) = to {
            relevo = relevo.arg("--to").arg(directory);
        }
        let mut command = Spoken::start(relevo);
        let running = command.says("Running on", START_PATIENCE);
        Booted {
            command,
            running,
            port,
            slot,
        }
    }

    /// The QEMU of the machine that runs.
    pub(crate) fn running_process(&self) -> u32 {
        let process = self.running_machine()["process"]["pid"].as_u64();
        let process = process.expect("it is a process");
        u32::try_from(process).expect("the kernel's numbers are smaller")
    }

    /// Who serves the disk of the machine that runs.
    pub(crate) fn keeper_process(&self) -> u32 {
        let runs = self
            .library
            .relevo()
            .args("cleanup --all --dry-run --json")
            .succeeds()
            .json();
        let process = runs[0]["keepers"][0][1]["pid"].as_u64();
        let process = process.expect("the machine has a keeper");
        u32::try_from(process).expect("the kernel's numbers are smaller")
    }

    /// The monitor of the machine that runs. It has room for one client, which is the command that
    /// booted the machine, until it has ended.
    pub(crate) fn monitor(&self) -> PathBuf {
        let sockets = self.running_machine()["sockets"].clone();
        PathBuf::from(sockets.as_str().expect("it is a path")).join("qmp")
    }

    /// What is known of the machine that runs.
    pub(crate) fn running_machine(&self) -> Value {
        let places = files_called(&self.path("state/runs"), "running.json");
        let place = places.first().expect("a machine runs");
        let text = fs::read_to_string(place).expect("a machine runs");
        serde_json::from_str(&text).expect("relevo writes JSON")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nothing runs on when something failed; else there is nothing to do.
        let _ = self.library.relevo().args("cleanup --all").run();
    }
}

/// A machine that runs, with the command that started it.
pub(crate) struct Booted {
    pub(crate) command: Spoken,
    /// When its processors ran.
    pub(crate) running: Instant,
    pub(crate) port: u16,
    /// No other machine runs meanwhile.
    pub(crate) slot: File,
}

impl Booted {
    /// From the start of the command until the processors ran.
    pub(crate) fn took(&self) -> Duration {
        self.running - self.command.began()
    }

    pub(crate) fn end(self) {
        self.command.interrupt();
    }
}

/// Waits for the web page that a guest shows on a forwarded port; gives when it was there.
pub(crate) fn wait_for_page(port: u16, sentence: &str) -> Instant {
    page_within(PAGE_PATIENCE, port, sentence).expect("the page comes")
}

/// The same for so long; `None` when it did not come.
pub(crate) fn page_within(patience: Duration, port: u16, sentence: &str) -> Option<Instant> {
    let end = Instant::now() + patience;
    let left = || end.saturating_duration_since(Instant::now());
    while !left().is_zero() {
        let shown = page(port, ANSWER_PATIENCE.min(left()));
        if shown.is_some_and(|page| page.contains(sentence)) {
            return Some(Instant::now());
        }
        thread::sleep(LOOK_INTERVAL.min(left()));
    }
    None
}

/// Waits for a file to be there.
pub(crate) fn wait_for_file(path: &Path) {
    wait_until(&format!("{} is there", path.display()), || path.exists());
}
