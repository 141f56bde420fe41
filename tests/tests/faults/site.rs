// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library with a restless server, and machines of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use e2e::{
    Library, Outcome, Program, Running, Signal, have_tool, one_machine_at_a_time, overwrite,
    signal, wait_until, work_dir,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::guest::{self, Habits, WRITE_AT};

/// What this computer can do is found out once.
static HOST: Mutex<Option<String>> = Mutex::new(None);

/// A library that has the server `web`, and the slot for its machines.
pub(crate) struct Site {
    pub(crate) work: TempDir,
    pub(crate) library: Library,
    /// The state directory, as it is seen from here.
    pub(crate) state: PathBuf,
    _slot: fs::File,
}

impl Site {
    /// `None`, and said so, where this computer cannot run one.
    pub(crate) fn new(habits: Habits) -> Option<Self> {
        if !have_tool("qemu-system-x86_64") || !have_tool("qemu-io") {
            return None;
        }
        let work = work_dir();
        let disks = guest::disks(work.path(), habits)?;
        let library = Library::create(work.path());
        let import = library.relevo().args("image import --server web");
        disks.iter().fold(import, Program::arg).succeeds();
        for disk in disks {
            fs::remove_file(disk).unwrap();
        }
        let site = Self {
            state: work.path().join("state"),
            work,
            library,
            _slot: one_machine_at_a_time(),
        };
        if let Some(host) = &*HOST.lock().unwrap() {
            fs::create_dir_all(site.path("state")).unwrap();
            fs::write(site.path("state/host.json"), host).unwrap();
        }
        Some(site)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// More lines for `relevo.toml`.
    pub(crate) fn configure(&self, lines: &str) {
        let place = self.path("relevo.toml");
        let text = fs::read_to_string(&place).unwrap();
        fs::write(place, text + lines).unwrap();
    }

    /// Starts a machine: `relevo` is the program with its library, to which what it is to do is
    /// added. Waits until its guest is at work.
    pub(crate) fn start(&self, relevo: Program) -> Machine {
        let machine = self.start_early(relevo);
        machine.waits_for("the guest", |machine| machine.count('.') > 0);
        machine
    }

    /// The same, and waits for its processes only.
    pub(crate) fn start_early(&self, relevo: Program) -> Machine {
        let known = self.runs();
        let mut command = relevo.args("--memory 64MiB --cpus 1").start();
        let new = || self.runs().into_iter().find(|run| !known.contains(run));
        let mut machine = Machine {
            state: self.state.clone(),
            run: String::new(),
            command: None,
        };
        wait_until("the machine is made", || {
            machine.run = new().unwrap_or_default();
            let is_made = !machine.run.is_empty() && machine.process("machine-started").is_some();
            is_made || !command.is_running()
        });
        if !command.is_running() {
            panic!("the command has ended: {}", command.wait());
        }
        machine.command = Some(command);
        let host = fs::read_to_string(self.state.join("host.json")).ok();
        *HOST.lock().unwrap() = host;
        machine
    }

    /// The runs whose files are there.
    pub(crate) fn runs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state.join("runs"));
        let names = entries.into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// `relevo attach` of the one machine that goes on without its command.
    pub(crate) fn attach(&self, relevo: Program, machine: &mut Machine) {
        let mut command = relevo.args("attach").start();
        wait_until("it is taken over", || {
            machine.journal().contains("taken-over") || !command.is_running()
        });
        if !command.is_running() {
            panic!("it is not taken over: {}", command.wait());
        }
        machine.command = Some(command);
    }

    /// Who wrote the first block of a disk whose machine has ended.
    pub(crate) fn writer(&self, disk: &Path) -> u32 {
        let read = format!("read -v {} 8", WRITE_AT);
        let io = Program::tool("qemu-io").args("-r -f qcow2 -c").arg(read);
        let said = io.arg(disk).succeeds().stdout;
        let bytes: Vec<u32> = said
            .split_whitespace()
            .skip(5)
            .take(4)
            .map(|byte| u32::from_str_radix(byte, 16).expect("two digits"))
            .collect();
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | byte)
    }

    /// Damages one chunk in the middle of a pack with the data of all disks: of the last one.
    pub(crate) fn damage(&self) {
        let packs = Program::tool("find")
            .arg(self.library.folder().join("packs"))
            .args("-name *.pack -size +6M")
            .succeeds();
        let newest = |path: &&str| fs::metadata(path).unwrap().modified().unwrap();
        let pack = packs.stdout.lines().max_by_key(newest).unwrap();
        overwrite(Path::new(pack), 5 << 20, &[0xA5; 16]);
    }
}

impl Drop for Site {
    /// Nothing runs on when a test fails.
    fn drop(&mut self) {
        // What it says is of no use any more.
        let _ = self.library.relevo().args("cleanup --all").run();
    }
}

/// A machine and the command that it belongs to.
pub(crate) struct Machine {
    state: PathBuf,
    pub(crate) run: String,
    pub(crate) command: Option<Running>,
}

impl Machine {
    fn file(&self, name: &str) -> String {
        let place = self.state.join("runs").join(&self.run).join("0").join(name);
        String::from_utf8_lossy(&fs::read(place).unwrap_or_default()).into_owned()
    }

    /// How often its guest said this since it said who it is.
    pub(crate) fn count(&self, letter: char) -> usize {
        let console = self.file("console.log");
        let (_, said) = console.split_once('\n').unwrap_or_default();
        said.matches(letter).count()
    }

    /// What the keeper says.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.file("status.json")).unwrap_or_default()
    }

    fn journal(&self) -> String {
        let place = self.state.join("journal").join(&self.run);
        fs::read_to_string(place.with_extension("jsonl")).unwrap_or_default()
    }

    /// The number of the process that the journal names last of this kind.
    pub(crate) fn process(&self, event: &str) -> Option<u32> {
        let journal = self.journal();
        let entries = journal.lines().map(serde_json::from_str::<Value>);
        let mut named = entries.flatten().filter(|entry| entry["event"] == event);
        let number = named.next_back()?["process"]["pid"].as_u64()?;
        u32::try_from(number).ok()
    }

    /// Who the guest is: the number that it gave itself.
    pub(crate) fn guest(&self) -> u32 {
        let console = self.file("console.log");
        let (_, rest) = console.split_once('I').expect("it says so first");
        u32::from_str_radix(&rest[..8], 16).expect("eight digits")
    }

    pub(crate) fn waits_for(&self, what: &str, happened: impl Fn(&Self) -> bool) {
        wait_until(&format!("{what} of {}", self.run), || happened(self));
    }

    /// The guest reads on, and has lost nothing.
    pub(crate) fn goes_on(&self) {
        let before = self.count('.');
        self.waits_for("reads", |machine| machine.count('.') > before + 50);
        self.is_unharmed();
    }

    /// The guest was told of no error, and what it wrote is there.
    pub(crate) fn is_unharmed(&self) {
        for (letter, what) in [('E', "read"), ('W', "write"), ('X', "find again")] {
            assert_eq!(self.count(letter), 0, "the guest could not {what}");
        }
    }

    /// Whether a process was started for it: it is named in its arguments.
    fn is_ours(&self, process: u32) -> bool {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&self.run)
    }

    /// Ends the command at once, as a power cut would.
    pub(crate) fn kill_command(&mut self) -> Outcome {
        self.command.take().expect("it has one").kill()
    }

    /// Ends the keeper at once.
    pub(crate) fn kill_keeper(&self) {
        let keeper = self.process("keeper-started").expect("it has one");
        assert!(signal(Signal::KILL, keeper), "it has ended");
        wait_until("the keeper is gone", || !is_alive(keeper));
    }

    /// Ends it in order.
    pub(crate) fn end(mut self) -> Outcome {
        self.command.take().expect("it has one").interrupt()
    }
}

impl Drop for Machine {
    /// Nothing of it runs on when a test fails, whoever can see its journal.
    fn drop(&mut self) {
        for event in ["machine-started", "keeper-started"] {
            let process = self.process(event).filter(|process| self.is_ours(*process));
            if let Some(process) = process {
                // It may have ended meanwhile.
                let _ = signal(Signal::KILL, process);
            }
        }
    }
}

/// Whether a process runs; one that nobody has waited for does not.
pub(crate) fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}
