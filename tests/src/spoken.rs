// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program whose lines are read as they come, each with its time: for what happens while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{Program, ask_to_end};

/// How long a program may take to end when it is asked to.
const END_PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A started program; killed when dropped.
#[derive(Debug)]
pub struct Spoken {
    child: Child,
    shown: String,
    began: Instant,
    lines: Receiver<(Instant, String)>,
    heard: Vec<String>,
}

impl Spoken {
    /// Starts a program and listens to both of its outputs.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(program: Program) -> Self {
        let (mut command, shown) = program.into_command();
        let began = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let (sender, lines) = channel();
        listen(child.stdout.take(), sender.clone());
        listen(child.stderr.take(), sender);
        Self {
            child,
            shown,
            began,
            lines,
            heard: Vec::new(),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Waits for a line with these words; gives when it came.
    ///
    /// # Panics
    /// When it does not come in time; says what came instead.
    pub fn says(&mut self, words: &str, patience: Duration) -> Instant {
        let end = Instant::now() + patience;
        while let Ok((at, line)) = self.lines.recv_timeout(end - Instant::now().min(end)) {
            let is_it = line.contains(words);
            self.heard.push(line);
            if is_it {
                return at;
            }
        }
        panic!(
            "{} did not say {words:?} within {patience:?}:\n{}",
            self.shown,
            self.heard.join("\n")
        );
    }

    /// Asks it to end, as Ctrl-C does, and waits for that.
    ///
    /// # Panics
    /// When it does not end in time, or with an error.
    pub fn interrupt(mut self) {
        ask_to_end(self.id());
        let status = self.wait();
        assert!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.shown,
            self.heard.join("\n")
        );
    }

    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + END_PATIENCE;
        loop {
            self.heard
                .extend(self.lines.try_iter().map(|(_, line)| line));
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(Instant::now() < end, "{} does not end", self.shown);
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(pipe: Option<impl Read + Send + 'static>, sender: Sender<(Instant, String)>) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // A broken pipe ends the lines, as the end of the program does.
        while pipe
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Nobody listens any more: the pipe is emptied all the same.
            let _ = sender.send((Instant::now(), text));
            line.clear();
        }
    });
}
