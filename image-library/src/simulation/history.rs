// SPDX-License-Identifier: MIT OR Apache-2.0
//! One history: processes on two machines use one store, are killed, lose power, come back.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::coverage::Event;
use super::disks::Disk;
use super::model::Server;
use super::mutants::Mutated;
use super::operations::{Act, Kind, Performance};
use super::random::Random;
use super::turns::Actor;
use super::world::{Fate, Going, Plan, World, enter, lock, now};
use crate::config::{Config, InitOptions};
use crate::core::Core;
use crate::crypto::LibraryKey;
use crate::key_file::{self, KeyAccess};
use crate::store::faulty::Faulty;
use crate::store::lock::FileLock;
use crate::store::memory::Memory;
use crate::store::{Store, Workspace, names};
use crate::{ImageId, LocalLibrary};

/// On which machine each process runs. Prunes run on the first.
const MACHINES: [usize; 3] = [0, 0, 1];
/// Operations that go on at once.
const GOING_MAX: usize = 4;

struct Process {
    machine: usize,
    is_alive: Arc<AtomicBool>,
    library: Option<LocalLibrary>,
}

struct Active {
    actor: Actor,
    process: usize,
    kind: Kind,
    changes: Option<ImageId>,
    thread: JoinHandle<()>,
}

/// A history that goes on.
pub(super) struct History {
    pub(super) world: Arc<World>,
    pub(super) root: TempDir,
    pub(super) memory: Memory,
    processes: Vec<Process>,
    active: Vec<Active>,
    pub(super) random: Random,
    actors: usize,
}

impl History {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let world = Arc::new(World::new(seed, plan));
        enter(&world);
        let mut random = Random::new(seed);
        let memory = Memory::new(world.store_clock(), world.is_durable());
        found_library(&memory, seed);
        let names = ["web", "db", "mail", "big"];
        lock(&world.model).servers = names
            .iter()
            .map(|name| Server {
                name,
                disks: (0..1 + random.below(2))
                    .map(|number| {
                        let disk = ["sda", "sdb"][number as usize];
                        Disk::new(disk, *name == "big" && number == 0, &mut random)
                    })
                    .collect(),
            })
            .collect();
        let mut history = Self {
            root: work_directory(),
            world,
            memory,
            processes: Vec::new(),
            active: Vec::new(),
            random,
            actors: 0,
        };
        for machine in MACHINES {
            let process = history.start(machine);
            history.processes.push(process);
        }
        history
    }

    /// Lets everything happen.
    pub(super) fn run(&mut self) {
        let operations = 8 + self.random.below(20);
        let mut started = 0;
        while started < operations || !self.active.is_empty() {
            let has_room = started < operations && self.active.len() < GOING_MAX;
            if has_room && (self.active.is_empty() || self.random.chance(1, 4)) {
                started += 1;
                self.begin_something();
            }
            self.go_on();
            self.interfere();
            self.revive();
        }
    }

    fn interfere(&mut self) {
        if self.random.chance(1, 12) {
            let hours = self.random.below(50);
            self.world.pass_time(Duration::from_secs(hours * 3600));
        }
        if self.random.chance(1, 150) {
            let process = self.random.below(self.processes.len() as u64) as usize;
            self.world.count(Event::ProcessKilled, 1);
            self.kill(process);
        }
        if self.random.chance(1, 250) {
            self.lose_power();
        }
    }

    fn kill(&self, process: usize) {
        self.processes[process]
            .is_alive
            .store(false, Ordering::SeqCst);
    }

    /// A whole machine loses its power; what is not durable is gone.
    fn lose_power(&mut self) {
        self.world.count(Event::PowerLost, 1);
        let machine = self.random.below(2) as usize;
        for process in 0..self.processes.len() {
            if self.processes[process].machine == machine {
                self.kill(process);
            }
        }
        self.bury();
        self.memory.lose_power(&mut self.random);
        let workspace = self.root.path().join(machine.to_string());
        for directory in ["uploads", "index", "tmp"] {
            spoil(&workspace.join(directory), &mut self.random);
        }
    }

    fn begin_something(&mut self) {
        let process = self.random.below(self.processes.len() as u64) as usize;
        let Some(library) = self.processes[process].library.clone() else {
            return;
        };
        if !self.processes[process].is_alive.load(Ordering::SeqCst) {
            return;
        }
        let act = self.choose(process);
        let busy = |active: &Active| act.changes().is_some() && active.changes == act.changes();
        if self.active.iter().any(busy) {
            return;
        }
        self.begin(process, library, act);
    }

    fn choose(&mut self, process: usize) -> Act {
        let model = lock(&self.world.model);
        let images: Vec<ImageId> = model.known.keys().copied().collect();
        let deleted = model.known.iter().filter(|(_, known)| known.places.trash);
        let deleted: Vec<ImageId> = deleted.map(|(id, _)| *id).collect();
        drop(model);
        let may_prune = self.processes[process].machine == 0;
        let random = &mut self.random;
        let image = random.pick(&images).copied();
        match (random.below(26), image) {
            (0..=2, Some(image)) => Act::Delete(image),
            (3..=6, _) if !deleted.is_empty() => {
                Act::Undelete(*random.pick(&deleted).expect("there is one"))
            }
            (7..=12, _) if may_prune => Act::Prune {
                grace: Duration::from_secs([0, 0, 0, 3600, 48 * 3600][random.below(5) as usize]),
                keep_last: [0, 0, 0, 1, 2][random.below(5) as usize],
            },
            (13..=14, Some(image)) => Act::Read(image),
            (15..=16, Some(image)) => Act::SideFile(image, vec![random.below(256) as u8; 40]),
            (17..=18, _) => Act::Verify,
            _ => self.choose_upload(),
        }
    }

    fn choose_upload(&mut self) -> Act {
        let mut model = lock(&self.world.model);
        let server = self.random.below(model.servers.len() as u64) as usize;
        for disk in &mut model.servers[server].disks {
            for _ in 0..self.random.below(4) {
                disk.change(&mut self.random);
            }
        }
        Act::Upload { server }
    }

    fn begin(&mut self, process: usize, library: LocalLibrary, act: Act) {
        let actor = self.actors;
        self.actors += 1;
        let kind = act.kind();
        let going = Going {
            kind,
            is_struck: false,
            has_ended: false,
        };
        lock(&self.world.going).insert(actor, going);
        let changes = act.changes();
        let world = Arc::clone(&self.world);
        let thread = std::thread::spawn(move || {
            enter(&world);
            world.turns.begin(actor);
            perform(&world, &library, actor, &act);
            drop(library);
            if let Some(going) = lock(&world.going).get_mut(&actor) {
                going.has_ended = true;
            }
            world.turns.end();
        });
        self.active.push(Active {
            actor,
            process,
            kind,
            changes,
            thread,
        });
    }

    /// Some operation takes some steps.
    fn go_on(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let chosen = self.random.below(self.active.len() as u64) as usize;
        for _ in 0..1 + self.random.below(8) {
            if self.step(chosen) {
                return;
            }
        }
    }

    /// One step; `true` when that was the operation's last.
    fn step(&mut self, chosen: usize) -> bool {
        let actor = self.active[chosen].actor;
        self.world.turns.give(actor);
        let has_ended = lock(&self.world.going)
            .get(&actor)
            .is_none_or(|going| going.has_ended);
        if has_ended {
            let active = self.active.remove(chosen);
            lock(&self.world.going).remove(&actor);
            if active.thread.join().is_err() {
                self.world.violation(format!("{:?} panicked", active.kind));
            }
        }
        has_ended
    }

    /// Lets the operations of dead processes notice, and forgets those processes' memory.
    fn bury(&mut self) {
        for process in 0..self.processes.len() {
            if self.processes[process].is_alive.load(Ordering::SeqCst) {
                continue;
            }
            while let Some(of) = self.active.iter().position(|a| a.process == process) {
                self.step(of);
            }
            self.processes[process].library = None;
        }
    }

    /// Starts the processes again that were killed.
    fn revive(&mut self) {
        self.bury();
        for process in 0..self.processes.len() {
            if self.processes[process].library.is_some() {
                continue;
            }
            let machine = self.processes[process].machine;
            self.spoil_interrupted(machine);
            self.processes[process] = self.start(machine);
        }
    }

    /// What a killed upload leaves is what it had written up to that moment: some of it.
    fn spoil_interrupted(&mut self, machine: usize) {
        let uploads = self.root.path().join(machine.to_string()).join("uploads");
        for directory in children(&uploads) {
            let lock = FileLock::try_exclusive(&directory.join("lock"));
            if matches!(lock, Ok(Some(_))) {
                spoil(&directory, &mut self.random);
            }
        }
    }

    fn start(&self, machine: usize) -> Process {
        let is_alive = Arc::new(AtomicBool::new(true));
        let workspace = self.root.path().join(machine.to_string());
        let library = open(&self.world, &self.memory, &workspace, &is_alive);
        Process {
            machine,
            is_alive,
            library: Some(library),
        }
    }

    /// Ends all processes.
    pub(super) fn end(&mut self) {
        for process in 0..self.processes.len() {
            self.kill(process);
        }
        self.bury();
    }
}

fn perform(world: &Arc<World>, library: &LocalLibrary, actor: Actor, act: &Act) {
    let performance = Performance {
        world,
        library,
        actor,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| performance.perform(act)));
    let mut coverage = lock(&world.coverage);
    match outcome {
        Ok(true) => *coverage.done.entry(act.kind()).or_default() += 1,
        Ok(false) => *coverage.failed.entry(act.kind()).or_default() += 1,
        Err(_) => world.violation(format!("{act:?} panicked")),
    }
}

/// A process opens the library.
pub(super) fn open(
    world: &Arc<World>,
    memory: &Memory,
    workspace: &Path,
    is_alive: &Arc<AtomicBool>,
) -> LocalLibrary {
    let fate = Arc::new(Fate {
        world: Arc::clone(world),
        is_alive: Arc::clone(is_alive),
    });
    let faulty: Arc<dyn Store> = Arc::new(Faulty::new(Arc::new(memory.clone()), fate.clone()));
    let store = match world.plan.mutant {
        Some(mutant) => Arc::new(Mutated::new(mutant, faulty, memory, Arc::clone(world))),
        None => faulty,
    };
    let mut core = open_core(store, workspace);
    core.surroundings = fate;
    LocalLibrary::from_core(Arc::new(core))
}

/// Opens a store as it is.
pub(super) fn open_core(store: Arc<dyn Store>, workspace: &Path) -> Core {
    let workspace = Workspace::new(workspace);
    workspace
        .create()
        .expect("the test's directory is writable");
    Core::open(store, workspace, &KeyAccess::default(), now).expect("a library opens")
}

/// Makes an empty library with a known key, so that a history can be repeated.
pub(super) fn found_library(memory: &Memory, seed: u64) {
    let key = LibraryKey::from_secret([seed as u8; 32]);
    let options = InitOptions {
        chunk_size_bytes: super::disks::CHUNK as u32,
        ..InitOptions::default()
    };
    let mut config = Config::new(&options, &key, now()).expect("is legal");
    config.id = uuid::Uuid::from_u64_pair(seed, !seed);
    let file = key_file::to_bytes(key.secret(), config.id, None).expect("is written");
    assert!(memory.create(names::KEY, &file).expect("is empty"));
    assert!(config.create(memory).expect("is empty"));
}

/// A directory in memory, where the machine has one.
fn work_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let inside = tempfile::Builder::new()
        .prefix("simulation-")
        .tempdir_in(memory);
    inside
        .or_else(|_| tempfile::tempdir())
        .expect("a directory can be made")
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// What a crash leaves of files that nobody made durable: all, a part, nothing.
fn spoil(directory: &Path, random: &mut Random) {
    for path in children(directory) {
        if path.is_dir() {
            spoil(&path, random);
            continue;
        }
        match random.below(4) {
            0 => drop(fs::remove_file(&path)),
            1 => {
                let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let file = fs::OpenOptions::new().write(true).open(&path);
                let kept = random.below(length + 1);
                drop(file.and_then(|file| file.set_len(kept)));
            }
            _ => {}
        }
    }
}
