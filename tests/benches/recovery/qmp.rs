// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's monitor, as far as measurements need it: commands, and events with their times.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use e2e::wait_until;
use serde_json::{Value, json};

const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a monitor.
pub(crate) struct Qmp {
    stream: UnixStream,
    received: Receiver<(Instant, Value)>,
}

impl Qmp {
    /// Connects as soon as QEMU listens.
    pub(crate) fn connect(socket: &Path) -> Self {
        let mut stream = None;
        wait_until("the monitor listens", || {
            stream = UnixStream::connect(socket).ok();
            stream.is_some()
        });
        let stream = stream.expect("it was waited for");
        let lines = BufReader::new(stream.try_clone().expect("it is open"));
        let (sender, received) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let at = Instant::now();
                // What is no JSON is of no use here.
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if sender.send((at, value)).is_err() {
                    return;
                }
            }
        });
        let mut qmp = Self { stream, received };
        qmp.execute("qmp_capabilities");
        qmp
    }

    /// Runs a command without arguments; gives when it was answered.
    pub(crate) fn execute(&mut self, command: &str) -> Instant {
        let message = format!("{}\n", json!({"execute": command}));
        self.stream
            .write_all(message.as_bytes())
            .expect("the machine runs");
        loop {
            let (at, value) = self.next(ANSWER_PATIENCE);
            assert!(value.get("error").is_none(), "{command}: {value}");
            if value.get("return").is_some() {
                return at;
            }
        }
    }

    /// The next event or answer.
    pub(crate) fn next(&mut self, patience: Duration) -> (Instant, Value) {
        self.received
            .recv_timeout(patience)
            .unwrap_or_else(|_| panic!("within {patience:?} the monitor said nothing"))
    }
}
