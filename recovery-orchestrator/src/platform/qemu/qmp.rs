// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor protocol: one JSON object per line, on a unix socket.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest line that is taken.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Events between a command and its answer.
const EVENT_COUNT_MAX: usize = 10_000;
/// Events that nobody asked for yet; the oldest are forgotten first.
const EVENTS_KEPT: usize = 1000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A day, as requests to the disks wait too.
const BUSY_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection to a machine's monitor.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    /// What was received of lines that are not complete.
    received: Vec<u8>,
    events: VecDeque<Value>,
    /// The number of the command that was sent last; its answer has it too.
    sent: u64,
    /// How long an answer may take.
    patience: Duration,
}

/// Why there is no line.
enum NoLine {
    /// None came in time.
    NotYet,
    /// None will come.
    Broken(String),
}

impl Qmp {
    /// Connects as soon as QEMU listens.
    ///
    /// `gone` is asked in between: why nobody will ever listen.
    pub(crate) fn connect(
        socket: &Path,
        timeout: Duration,
        mut gone: impl FnMut() -> Option<String>,
    ) -> Result<Self, String> {
        let end = Instant::now() + timeout;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                break stream;
            }
            if let Some(reason) = gone() {
                return Err(reason);
            }
            if Instant::now() > end {
                return Err(format!(
                    "its monitor did not answer in {} s",
                    timeout.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream
            .set_write_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|error| error.to_string())?;
        let mut qmp = Self::on(stream);
        match qmp.begin() {
            Ok(()) => Ok(qmp),
            // QEMU opens its monitor before its disks: what is wrong there ends it now.
            Err(problem) => {
                std::thread::sleep(Duration::from_millis(200));
                Err(gone().unwrap_or(problem))
            }
        }
    }

    /// Connects to a machine that runs, and may not answer for hours: while it stops it waits for its
    /// reads, and those may wait for the library.
    pub(crate) fn connect_to_busy(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
        let mut qmp = Self::on(stream);
        qmp.patience = BUSY_TIMEOUT;
        qmp.begin()?;
        qmp.patience = ANSWER_TIMEOUT;
        Ok(qmp)
    }

    fn on(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            events: VecDeque::new(),
            sent: 0,
            patience: ANSWER_TIMEOUT,
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        let _greeting = self.line()?;
        self.execute("qmp_capabilities", &json!({})).map(drop)
    }

    /// Runs one command and gives its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        self.send(command, arguments)?;
        for _ in 0..EVENT_COUNT_MAX {
            let mut answer = self
                .line()
                .map_err(|problem| format!("{command}: {problem}"))?;
            let is_other = answer.get("id").is_some_and(|id| *id != self.sent);
            if is_other {
                continue;
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let text = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no description");
                return Err(format!("{command}: {text}"));
            }
            self.keep_event(answer);
        }
        Err(format!(
            "{command}: no answer among {EVENT_COUNT_MAX} events"
        ))
    }

    /// Sends a command whose answer nobody waits for: `stop` is answered only when the requests of
    /// all disks are, which may be after hours.
    pub(crate) fn send(&mut self, command: &str, arguments: &Value) -> Result<(), String> {
        self.sent += 1;
        let message = json!({"execute": command, "arguments": arguments, "id": self.sent});
        self.stream
            .write_all(format!("{message}\n").as_bytes())
            .map_err(|error| format!("{command}: {error}"))
    }

    /// The next event, waited for at most so long; an error when the monitor was closed.
    pub(crate) fn event(&mut self, patience: Duration) -> Result<Option<Value>, String> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        match self.line_within(patience) {
            Ok(event) if event.get("event").is_some() => Ok(Some(event)),
            // The late answer to a command.
            Ok(_) | Err(NoLine::NotYet) => Ok(None),
            Err(NoLine::Broken(problem)) => Err(problem),
        }
    }

    fn keep_event(&mut self, event: Value) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn line(&mut self) -> Result<Value, String> {
        self.line_within(self.patience)
            .map_err(|problem| match problem {
                NoLine::NotYet => format!("no answer in {} s", self.patience.as_secs()),
                NoLine::Broken(problem) => problem,
            })
    }

    /// A line, and what was received of the next one kept.
    fn line_within(&mut self, patience: Duration) -> Result<Value, NoLine> {
        let broken = |problem: io::Error| NoLine::Broken(problem.to_string());
        let end = Instant::now() + patience;
        let mut searched = 0;
        loop {
            let new = self.received.get(searched..).unwrap_or_default();
            if let Some(length) = new.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=searched + length).collect();
                return serde_json::from_slice(&line)
                    .map_err(|error| NoLine::Broken(format!("not JSON: {error}")));
            }
            searched = self.received.len();
            if searched > LINE_BYTES_MAX {
                return Err(NoLine::Broken("a line that does not end".to_owned()));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::NotYet);
            }
            self.stream.set_read_timeout(Some(left)).map_err(broken)?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(NoLine::Broken("the monitor was closed".to_owned())),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if is_timeout(&error) => return Err(NoLine::NotYet),
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Whether `info usernet` knows a connection to the guest's address and port that the guest has
/// accepted.
///
/// A forwarded port accepts on this side whether or not somebody is there in the guest, so only
/// the state of the inner connection tells.
pub(super) fn accepted_by_guest(usernet: &str, guest: &str, port: u16) -> bool {
    let port = port.to_string();
    usernet.lines().any(|line| {
        let Some((state, rest)) = line
            .trim()
            .strip_prefix("TCP[")
            .and_then(|rest| rest.split_once(']'))
        else {
            return false;
        };
        let fields: Vec<_> = rest.split_whitespace().collect();
        let accepted = !matches!(
            state,
            "HOST_FORWARD" | "SYN_SENT" | "CLOSED" | "NONE" | "LISTEN"
        );
        accepted && fields.get(3) == Some(&guest) && fields.get(4) == Some(&port.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_between_a_command_and_its_answer_are_kept_and_lines_may_come_in_parts() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::on(near);
        qmp.sent = 4;
        qmp.send("stop", &json!({})).unwrap();
        far.write_all(b"{\"event\": \"STOP\"}\n{\"return\": 1, \"id\": 5}\n")
            .unwrap();
        far.write_all(b"{\"return\": 7, \"id\": 6}\n{\"event\": ")
            .unwrap();
        assert_eq!(qmp.execute("cont", &json!({})), Ok(json!(7)));
        assert_eq!(
            qmp.event(Duration::ZERO),
            Ok(Some(json!({"event": "STOP"})))
        );
        assert_eq!(qmp.event(Duration::from_millis(10)), Ok(None));
        far.write_all(b"\"RESUME\"}\n").unwrap();
        let resumed = Ok(Some(json!({"event": "RESUME"})));
        assert_eq!(qmp.event(Duration::from_secs(5)), resumed);
        drop(far);
        assert!(qmp.event(Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_port_is_open_only_when_the_guest_accepted_the_connection() {
        let usernet = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  TCP[SYN_SENT]   15       127.0.0.1 40080       10.20.0.5    80     0     0\n  TCP[HOST_FORWARD]  13       127.0.0.1 40080       10.20.0.5    80     0     0\n";
        assert!(!accepted_by_guest(usernet, "10.20.0.5", 80));
        let usernet = usernet.replace("SYN_SENT", "ESTABLISHED");
        assert!(accepted_by_guest(&usernet, "10.20.0.5", 80));
        assert!(!accepted_by_guest(&usernet, "10.20.0.5", 8));
        assert!(!accepted_by_guest(&usernet, "10.20.0.50", 80));
    }
}
