// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contenders: ours in three ways, restic and borg, each with a repository of its own. All are
//! encrypted.

use std::path::{Path, PathBuf};

use e2e::{Library, Program, Relay, Running, Usage, bytes_below, the_only_disk};

/// Somebody who keeps disks.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What has to be installed for it.
    pub(crate) tool: Option<&'static str>,
    /// Makes an empty repository in a folder.
    pub(crate) create: fn(&Path) -> Box<dyn Repository>,
}

/// The names of ours; what is promised is promised of these.
pub(crate) const IMPORT: &str = "relevo image import";
pub(crate) const AGENT: &str = "p2v-agent snapshot";
pub(crate) const SERVED: &str = "p2v-agent snapshot to a server";

pub(crate) fn contenders() -> Vec<Contender> {
    let contender = |name, tool, create| Contender { name, tool, create };
    vec![
        contender(AGENT, None, |work| Box::new(Agent(Library::create(work)))),
        contender(IMPORT, None, |work| Box::new(Import(Library::create(work)))),
        contender(SERVED, None, |work| Box::new(Served::create(work))),
        contender("restic", Some("restic"), |work| {
            Box::new(Restic::create(work))
        }),
        contender("borg, zstd -1", Some("borg"), |work| {
            Box::new(Borg::create(work, "zstd,1"))
        }),
        contender("borg, lz4", Some("borg"), |work| {
            Box::new(Borg::create(work, "lz4"))
        }),
    ]
}

/// What a contender keeps.
pub(crate) trait Repository {
    /// Takes a disk in. Gives the bytes on the wire too, where there is one.
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64);

    /// Bytes of everything that it keeps.
    fn stored_bytes(&self) -> u64;

    /// Writes the disk that was taken in last into a new folder; `None` where another contender
    /// shows the same.
    fn restore(&self, folder: &Path) -> Option<(Usage, PathBuf)>;
}

/// `relevo image import`: every byte of the disk.
struct Import(Library);

impl Repository for Import {
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64) {
        let import = self.0.relevo().args("image import --server x").arg(disk);
        (import.succeeds().usage, 0)
    }

    fn stored_bytes(&self) -> u64 {
        self.0.stored_bytes()
    }

    fn restore(&self, folder: &Path) -> Option<(Usage, PathBuf)> {
        let export = self.0.relevo().args("image export x -o").arg(folder);
        let usage = export.succeeds().usage;
        Some((usage, the_only_disk(folder)))
    }
}

/// `p2v-agent snapshot`: what is in use, into a directory.
struct Agent(Library);

impl Repository for Agent {
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64) {
        let folder = self.0.folder().to_string_lossy().into_owned();
        (self.0.snapshot(&folder, disk).succeeds().usage, 0)
    }

    fn stored_bytes(&self) -> u64 {
        self.0.stored_bytes()
    }

    fn restore(&self, _folder: &Path) -> Option<(Usage, PathBuf)> {
        None
    }
}

/// The same over TLS to a server on this machine, through a relay that counts.
struct Served {
    library: Library,
    relay: Relay,
    _serving: Running,
}

impl Served {
    fn create(work: &Path) -> Self {
        let library = Library::create(work);
        let (serving, address) = library.serve();
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        Self {
            relay: Relay::to(port.expect("the address ends in a port")),
            library,
            _serving: serving,
        }
    }
}

impl Repository for Served {
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64) {
        let address = format!("https://127.0.0.1:{}", self.relay.port());
        let before = self.relay.sent_bytes();
        let usage = self.library.snapshot(&address, disk).succeeds().usage;
        (usage, self.relay.sent_bytes() - before)
    }

    fn stored_bytes(&self) -> u64 {
        self.library.stored_bytes()
    }

    fn restore(&self, _folder: &Path) -> Option<(Usage, PathBuf)> {
        None
    }
}

/// restic with compression, which version 2 of its repository has. `--force`: a file's time says
/// nothing about a block device.
struct Restic(PathBuf);

impl Restic {
    fn create(work: &Path) -> Self {
        let restic = Self(work.join("restic"));
        restic.run("init --repository-version 2").succeeds();
        restic
    }

    fn run(&self, words: &str) -> Program {
        Program::tool("restic")
            .env("RESTIC_PASSWORD", "benchmark")
            .env("RESTIC_CACHE_DIR", self.0.with_extension("cache"))
            .args("--quiet --repo")
            .arg(&self.0)
            .args(words)
    }
}

impl Repository for Restic {
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64) {
        (self.run("backup --force").arg(disk).succeeds().usage, 0)
    }

    fn stored_bytes(&self) -> u64 {
        bytes_below(&self.0)
    }

    fn restore(&self, folder: &Path) -> Option<(Usage, PathBuf)> {
        let restore = self.run("restore latest --target").arg(folder);
        let usage = restore.succeeds().usage;
        Some((usage, the_file_below(folder)))
    }
}

/// borg, in the encryption that its manual recommends. `--files-cache disabled`: as with restic.
struct Borg {
    folder: PathBuf,
    compression: &'static str,
    snapshots: usize,
}

impl Borg {
    fn create(work: &Path, compression: &'static str) -> Self {
        let folder = work.join("borg");
        let init = Program::tool("borg").args("init --encryption repokey-blake2");
        at_home(init.arg(&folder), &folder).succeeds();
        Self {
            folder,
            compression,
            snapshots: 0,
        }
    }

    fn archive(&self) -> String {
        format!("{}::{}", self.folder.display(), self.snapshots)
    }
}

/// With its keys and caches beside the repository.
fn at_home(borg: Program, folder: &Path) -> Program {
    borg.env("BORG_PASSPHRASE", "benchmark")
        .env("BORG_BASE_DIR", folder.with_extension("home"))
}

impl Repository for Borg {
    fn snapshot(&mut self, disk: &Path) -> (Usage, u64) {
        self.snapshots += 1;
        let create = Program::tool("borg")
            .args("create --files-cache disabled --compression")
            .arg(self.compression)
            .arg(self.archive())
            .arg(disk);
        (at_home(create, &self.folder).succeeds().usage, 0)
    }

    fn stored_bytes(&self) -> u64 {
        bytes_below(&self.folder)
    }

    fn restore(&self, folder: &Path) -> Option<(Usage, PathBuf)> {
        std::fs::create_dir(folder).expect("the work directory is ours");
        let target = folder.to_string_lossy();
        let extract = Program::tool("borg")
            .args("extract --sparse")
            .arg(self.archive())
            .within("sh", &["-c", "cd \"$0\" && exec \"$@\"", &target]);
        let usage = at_home(extract, &self.folder).succeeds().usage;
        Some((usage, the_file_below(folder)))
    }
}

/// The disk, however deep the path that it was taken in from.
fn the_file_below(folder: &Path) -> PathBuf {
    let mut path = folder.to_owned();
    while path.is_dir() {
        let mut entries = std::fs::read_dir(&path).expect("it was just written");
        let entry = entries.next().expect("the disk is in it");
        path = entry.expect("it was just written").path();
    }
    path
}
