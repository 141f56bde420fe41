// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running `relevo`, `p2v-agent` and `image-library` as a user does, and reading what they say.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::server::PROJECT_DIR;
use crate::usage::Usage;

/// No command of a test takes longer, drills included.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

/// One of the three programs, with its arguments so far.
#[derive(Debug)]
pub struct Program {
    command: Command,
    shown: String,
}

impl Program {
    /// `relevo`; tests that use a library take `Library::relevo`.
    #[must_use]
    pub fn relevo() -> Self {
        Self::named("relevo")
    }

    /// `p2v-agent`.
    #[must_use]
    pub fn agent() -> Self {
        Self::named("p2v-agent")
    }

    /// `image-library`.
    #[must_use]
    pub fn library() -> Self {
        Self::named("image-library")
    }

    /// An example of the library's package, built in release mode if need be.
    #[must_use]
    pub fn example(name: &str) -> Self {
        Self::of(Command::new(built_example(name)), name)
    }

    /// A tool of the machine.
    #[must_use]
    pub fn tool(name: &str) -> Self {
        Self::of(Command::new(name), name)
    }

    fn named(name: &str) -> Self {
        Self::of(Command::new(programs_dir().join(name)), name)
    }

    fn of(mut command: Command, name: &str) -> Self {
        command.stdin(Stdio::null()).env("NO_COLOR", "1");
        Self {
            command,
            shown: name.to_owned(),
        }
    }

    /// The same program started by another one (`unshare`, `sh`), whose arguments come first.
    #[must_use]
    pub fn within(self, wrapper: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(wrapper);
        command
            .args(arguments)
            .arg(self.command.get_program())
            .args(self.command.get_args());
        Self::of(command, &format!("{wrapper} .. {}", self.shown))
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Several more arguments, separated by spaces; for words without spaces of their own.
    #[must_use]
    pub fn args(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::arg)
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What would be run, and as what it is shown.
    pub(crate) fn into_command(self) -> (Command, String) {
        (self.command, self.shown)
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it to its end, which must be a success.
    ///
    /// # Panics
    /// When its exit code is not 0.
    pub fn succeeds(self) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome
    }

    /// Starts it and goes on.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut self) -> Running {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Running {
            child: Kept(child),
            shown: self.shown,
            output: [stdout, stderr],
        }
    }
}

/// A process that does not outlive the test, however the test ends.
#[derive(Debug)]
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A started program; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Kept,
    shown: String,
    output: [Collecting; 2],
}

/// What a pipe gave so far.
#[derive(Debug)]
struct Collecting {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Collecting {
    fn so_far(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn all(self) -> String {
        let Self { bytes, thread } = self;
        thread.join().expect("reading a pipe does not panic");
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// What it has said on standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        let [_, stderr] = &self.output;
        stderr.so_far()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.0.try_wait(), Ok(None))
    }

    /// Ends it at once, as a power cut would (SIGKILL), and gives what it had said.
    pub fn kill(mut self) -> Outcome {
        // An error means that it has ended by itself, which `wait` tells.
        let _ = self.child.0.kill();
        self.wait()
    }

    /// Asks it to end, as Ctrl-C does, and waits for that.
    ///
    /// # Panics
    /// When it does not end within the time limit.
    pub fn interrupt(self) -> Outcome {
        ask_to_end(self.id());
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within the time limit.
    pub fn wait(mut self) -> Outcome {
        let started = Instant::now();
        let mut usage = Usage::default();
        let status = loop {
            // What a zombie took is final; who still ran when it was looked at is looked at again.
            if usage.look(self.child.0.id())
                && let Some(status) = self.child.0.try_wait().expect("the child is ours")
            {
                break status;
            }
            if started.elapsed() > TIME_LIMIT {
                let _ = self.child.0.kill();
                panic!("{} did not end within {TIME_LIMIT:?}", self.shown);
            }
            thread::sleep(Duration::from_millis(5));
        };
        usage.wall = started.elapsed();
        let [stdout, stderr] = self.output.map(Collecting::all);
        Outcome {
            shown: self.shown,
            code: status.code(),
            stdout,
            stderr,
            usage,
        }
    }
}

/// Ctrl-C for one process.
pub(crate) fn ask_to_end(id: u32) {
    assert!(signal(Signal::INT, id), "process {id} is not there");
}

/// Sends a signal to a process; whether it was there.
#[must_use]
pub fn signal(which: Signal, process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| kill_process(process, which).is_ok())
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collecting {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&bytes);
    let thread = thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 4096];
        // A broken pipe ends the text, as the end of the program does.
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut all = collected.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(&buffer[..count]);
        }
    });
    Collecting { bytes, thread }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    shown: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
    /// What it took, while it was waited for.
    pub usage: Usage,
}

impl Outcome {
    /// Its output as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}):\n{self}"))
    }

    /// Asserts the shape of an error: the exit code, one `error:` line that names every word, one
    /// hint, and no panic or backtrace.
    ///
    /// # Panics
    /// When the message has another shape.
    pub fn is_one_clear_error(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let errors = lines
            .iter()
            .filter(|line| line.starts_with("error:"))
            .count();
        assert_eq!(errors, 1, "one error line expected\n{self}");
        let hints = lines
            .iter()
            .filter(|line| line.starts_with("hint:"))
            .count();
        assert_eq!(hints, 1, "one hint expected\n{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        let message = self.stderr.to_lowercase();
        for word in words {
            assert!(
                message.contains(&word.to_lowercase()),
                "\"{word}\" is not named\n{self}"
            );
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self
            .code
            .map_or("a signal".to_owned(), |code| code.to_string());
        writeln!(f, "$ {}\nended with {code}", self.shown)?;
        writeln!(
            f,
            "--- stdout\n{}\n--- stderr\n{}",
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Where the programs are: `RELEVO_BIN_DIR`, or beside this test, built now so that they are fresh.
fn programs_dir() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match env::var_os("RELEVO_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => build_programs(),
    })
}

fn build_programs() -> PathBuf {
    let profile_dir = profile_dir();
    let release = profile_dir.file_name() == Some(OsStr::new("release"));
    cargo_build(&["--workspace", "--bins"], release);
    profile_dir
}

fn built_example(name: &str) -> PathBuf {
    if let Some(folder) = env::var_os("RELEVO_BIN_DIR") {
        return PathBuf::from(folder).join("examples").join(name);
    }
    cargo_build(&["--package", "image-library", "--example", name], true);
    profile_dir()
        .with_file_name("release")
        .join("examples")
        .join(name)
}

fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("a test knows where it is");
    test.ancestors()
        .find(|folder| folder.join(".fingerprint").is_dir())
        .expect("cargo runs tests from its target directory")
        .to_owned()
}

fn cargo_build(what: &[&str], release: bool) {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet"])
        .args(what)
        .args(release.then_some("--release"))
        .current_dir(PROJECT_DIR)
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "building the programs failed");
}
