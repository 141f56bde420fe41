// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's serial console on this terminal.
//!
//! On a terminal, keys go to the guest as they are pressed (raw mode), except Ctrl-], which ends
//! the machine. Elsewhere only the guest's output is passed on; what is on standard input is
//! sent, and its end changes nothing.

use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use image_library::FileError;
use recovery_orchestrator::Result;
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::platform::{Machine, Status};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
const TICK: Duration = Duration::from_millis(200);
/// How often news about the disks are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Ctrl-].
    Escape,
    /// A signal.
    Interrupted,
    /// The machine.
    Machine,
}

/// What a person should know before the guest says something, which may take it half a minute.
pub(super) fn usage() -> &'static str {
    if isatty(rustix::stdio::stdin()) {
        "  Its serial console follows; keys go to the guest, also Ctrl-C. Ctrl-] ends it."
    } else {
        "  Its serial console follows. SIGINT or SIGTERM ends it."
    }
}

/// A connection to a console.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
}

enum Event {
    Output(Vec<u8>),
    Closed,
    Escape,
}

impl Connection {
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(FileError::on("connect to", socket))?;
        Ok(Self { stream })
    }

    /// Passes bytes both ways until somebody ends it.
    /// `look` is called now and then.
    pub(super) fn talk(
        self,
        machine: &dyn Machine,
        interrupt: &Interrupt,
        look: &mut dyn FnMut(),
    ) -> Result<End> {
        let _raw = RawMode::enter();
        let (sender, receiver) = channel();
        let copy = |stream: &UnixStream| {
            stream
                .try_clone()
                .map_err(FileError::on("use", Path::new("console")))
        };
        let (mut output, mut input) = (copy(&self.stream)?, copy(&self.stream)?);
        let for_keys = sender.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender
                    .send(Event::Output(buffer[..count].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
            // Nobody listens any more: then it has ended already.
            let _ = sender.send(Event::Closed);
        });
        // It hangs in a read of the terminal at the end, and goes with the program.
        thread::spawn(move || {
            if pass_keys(&mut io::stdin(), &mut input) {
                let _ = for_keys.send(Event::Escape);
            }
        });
        let end = wait(&receiver, machine, interrupt, look);
        // Ends the first thread.
        let _ = self.stream.shutdown(Shutdown::Both);
        Ok(end)
    }
}

fn wait(
    receiver: &Receiver<Event>,
    machine: &dyn Machine,
    interrupt: &Interrupt,
    look: &mut dyn FnMut(),
) -> End {
    let mut looked = Instant::now();
    loop {
        if looked.elapsed() >= LOOK_INTERVAL {
            look();
            looked = Instant::now();
        }
        match receiver.recv_timeout(TICK) {
            Ok(Event::Output(bytes)) => {
                let mut stdout = io::stdout().lock();
                // Whoever closed the output does not want to see it.
                let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            }
            Ok(Event::Escape) => return End::Escape,
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => return End::Machine,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt.is_raised() {
            return End::Interrupted;
        }
        if machine.status() != Status::Running {
            return End::Machine;
        }
    }
}

/// Whether it ended with the escape key.
fn pass_keys(keys: &mut impl Read, console: &mut UnixStream) -> bool {
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = keys.read(&mut buffer) {
        let typed = &buffer[..count];
        let escape = typed.iter().position(|key| *key == ESCAPE);
        if console
            .write_all(&typed[..escape.unwrap_or(count)])
            .is_err()
        {
            return false;
        }
        if escape.is_some() {
            return true;
        }
    }
    false
}

/// The terminal in raw mode; as it was when dropped.
struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Self { before: None };
        }
        let before = tcgetattr(stdin).ok();
        if let Some(settings) = &before {
            let mut raw = settings.clone();
            raw.make_raw();
            // A terminal that stays as it is still shows the guest's output.
            let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        Self { before }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_before_the_escape_are_passed_on_and_none_after() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert!(pass_keys(&mut &b"ls\r\x1dmore"[..], &mut near));
        drop(near);
        let mut passed = Vec::new();
        far.read_to_end(&mut passed).unwrap();
        assert_eq!(passed, b"ls\r");
    }
}
