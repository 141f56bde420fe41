// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor protocol: one JSON object per line, on a unix socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest line that is taken.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Events between a command and its answer.
const EVENT_COUNT_MAX: usize = 10_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a machine's monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as QEMU listens.
    ///
    /// `gone` is asked in between: why nobody will ever listen.
    pub(super) fn connect(
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
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)))
            .map_err(|error| error.to_string())?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        let answered = qmp
            .line()
            .and_then(|_greeting| qmp.execute("qmp_capabilities", &json!({})));
        match answered {
            Ok(_) => Ok(qmp),
            // QEMU opens its monitor before its disks: what is wrong there ends it now.
            Err(problem) => {
                std::thread::sleep(Duration::from_millis(200));
                Err(gone().unwrap_or(problem))
            }
        }
    }

    /// Runs one command and gives its answer.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let mut message = json!({"execute": command, "arguments": arguments}).to_string();
        message.push('\n');
        self.reader
            .get_mut()
            .write_all(message.as_bytes())
            .map_err(|error| format!("{command}: {error}"))?;
        for _ in 0..EVENT_COUNT_MAX {
            let mut answer = self
                .line()
                .map_err(|problem| format!("{command}: {problem}"))?;
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
        }
        Err(format!(
            "{command}: no answer among {EVENT_COUNT_MAX} events"
        ))
    }

    fn line(&mut self) -> Result<Value, String> {
        let mut line = Vec::new();
        let count = (&mut self.reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("the monitor was closed".to_owned());
        }
        serde_json::from_slice(&line).map_err(|error| format!("not JSON: {error}"))
    }
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
    fn a_port_is_open_only_when_the_guest_accepted_the_connection() {
        let usernet = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  TCP[SYN_SENT]   15       127.0.0.1 40080       10.20.0.5    80     0     0\n  TCP[HOST_FORWARD]  13       127.0.0.1 40080       10.20.0.5    80     0     0\n";
        assert!(!accepted_by_guest(usernet, "10.20.0.5", 80));
        let usernet = usernet.replace("SYN_SENT", "ESTABLISHED");
        assert!(accepted_by_guest(&usernet, "10.20.0.5", 80));
        assert!(!accepted_by_guest(&usernet, "10.20.0.5", 8));
        assert!(!accepted_by_guest(&usernet, "10.20.0.50", 80));
    }
}
