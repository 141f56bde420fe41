// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for what a program or a guest brings about, and what is told where that does not come.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::files::files_called;
use crate::library::Library;
use crate::program::Running;

/// How long anything that a program does may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take to do what it does after its start; processors may be emulated.
const GUEST_PATIENCE: Duration = Duration::from_secs(8 * 60);
const PAUSE: Duration = Duration::from_millis(20);
/// A guest is not kept from its work by being asked.
const GUEST_PAUSE: Duration = Duration::from_millis(500);
/// How long a guest may take to answer a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How much of a console is told.
const CONSOLE_LINES: usize = 40;

/// Waits for something that a program does.
///
/// # Panics
/// When it does not happen within two minutes.
pub fn wait_until(what: &str, happened: impl FnMut() -> bool) {
    wait(what, PATIENCE, PAUSE, happened);
}

/// Waits for something that takes as long as a guest's start, whoever looks after it.
///
/// # Panics
/// When it does not happen within eight minutes.
pub fn wait_for_guest(what: &str, happened: impl FnMut() -> bool) {
    wait(what, GUEST_PATIENCE, GUEST_PAUSE, happened);
}

fn wait(what: &str, patience: Duration, pause: Duration, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(
            started.elapsed() < patience,
            "within {patience:?} it did not happen: {what}"
        );
        thread::sleep(pause);
    }
}

impl Running {
    /// Waits for something that takes as long as a guest's start, which this command looks after.
    ///
    /// # Panics
    /// When it does not happen within eight minutes, or the command ends before; tells what it said.
    pub fn brings(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !happened(self) {
            let is_running = self.is_running();
            assert!(
                is_running && started.elapsed() < GUEST_PATIENCE,
                "it did not happen: {what}; its command {}:\n{}",
                if is_running { "runs" } else { "has ended" },
                self.stderr_so_far()
            );
            thread::sleep(GUEST_PAUSE);
        }
    }
}

/// Whether a guest shows a page with this sentence on a forwarded port.
#[must_use]
pub fn shows_page(port: u16, sentence: &str) -> bool {
    page(port, ANSWER_PATIENCE).is_some_and(|page| page.contains(sentence))
}

/// What a guest answers on a forwarded port, with its headers; `None` while it does not within
/// `patience`.
#[must_use]
pub fn page(port: u16, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: guest\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.").then_some(text)
}

/// Ends what a library's `relevo` left running when it is dropped; where a test fails, it tells what
/// the machines said last.
#[derive(Debug)]
pub struct CleanUp<'a>(pub &'a Library);

impl CleanUp<'_> {
    #[expect(
        clippy::print_stderr,
        reason = "the machines' files are deleted with the test's directory"
    )]
    fn tell_consoles(&self) {
        for path in files_called(&self.0.runs_folder(), "console.log") {
            let console = fs::read(&path).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<&str> = console.lines().collect();
            let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
            eprintln!("--- {}\n{}", path.display(), last.join("\n"));
        }
    }
}

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_consoles();
        }
        // What it says is of no use any more.
        let _ = self.0.relevo().args("cleanup --all").run();
    }
}
