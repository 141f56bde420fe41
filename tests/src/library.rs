// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library of the test's own: in a directory, served over HTTP when asked, measured from outside.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{Program, Running};
use crate::toolbox::free_port;

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A library in a directory.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    agent_state: PathBuf,
    configuration: PathBuf,
}

impl Library {
    /// A new, empty library in the test's folder.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn create(work: &Path) -> Self {
        Self::create_named(work, "library")
    }

    /// The same under another name.
    #[must_use]
    pub fn create_named(work: &Path, name: &str) -> Self {
        let folder = work.join(name);
        let configuration = work.join("relevo.toml");
        let state = format!("state = {:?}\n", work.join("state"));
        fs::write(&configuration, state).expect("the work directory can be written to");
        Program::library().arg("init").arg(&folder).succeeds();
        let agent_state = work.join(format!("{name}-agent"));
        Self {
            folder,
            agent_state,
            configuration,
        }
    }

    /// Its directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `relevo --library` this one, with journals and reports in the test's folder.
    #[must_use]
    pub fn relevo(&self) -> Program {
        self.relevo_with(&self.folder)
    }

    /// The same with another directory or a URL as library.
    #[must_use]
    pub fn relevo_with(&self, place: impl AsRef<OsStr>) -> Program {
        Program::relevo()
            .arg("--config")
            .arg(&self.configuration)
            .arg("--library")
            .arg(place)
    }

    /// Makes a disk file an image of a server.
    pub fn import(&self, server: &str, disk: &Path) {
        self.relevo()
            .args("image import --server")
            .arg(server)
            .arg(disk)
            .succeeds();
    }

    /// An agent's snapshot of a disk file; `place` is the directory or a URL of this library.
    #[must_use]
    pub fn snapshot(&self, place: &str, disk: &Path) -> Program {
        Program::agent()
            .args("snapshot --server x --patience 3 --library")
            .arg(place)
            .arg("--state")
            .arg(&self.agent_state)
            .arg("--disk")
            .arg(disk)
    }

    /// Starts the server on this library; gives it with its address.
    pub fn serve(&self) -> (Running, String) {
        self.serve_on(free_port())
    }

    /// The same on a port that was used before.
    pub fn serve_on(&self, port: u16) -> (Running, String) {
        let address = format!("127.0.0.1:{port}");
        let running = Program::library()
            .arg("serve")
            .arg(&self.folder)
            .args("--listen")
            .arg(&address)
            .start();
        wait_until("the library listens", || {
            TcpStream::connect(&address).is_ok()
        });
        (running, format!("http://{address}"))
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        bytes_below(&self.folder)
    }

    /// Asserts that the library is sound, and that a server's latest image is the disk, byte for byte.
    ///
    /// # Panics
    /// When it is not.
    pub fn gives_back(&self, server: &str, disk: &Path, work: &Path) {
        let exported = work.join("exported");
        self.relevo().args("image verify").succeeds();
        self.relevo()
            .args("image export")
            .arg(server)
            .arg("-o")
            .arg(&exported)
            .succeeds();
        let copy = the_only_disk(&exported);
        let same = Command::new("cmp")
            .arg(disk)
            .arg(&copy)
            .output()
            .expect("cmp can be run");
        assert!(
            same.status.success(),
            "the image is not the disk: {}",
            String::from_utf8_lossy(&same.stdout)
        );
    }
}

/// The one disk file that a program wrote into a folder.
///
/// # Panics
/// When there is none, or more than one.
#[must_use]
pub fn the_only_disk(folder: &Path) -> PathBuf {
    let mut disks = files_ending(folder, ".qcow2");
    disks.extend(files_ending(folder, ".raw"));
    assert_eq!(
        disks.len(),
        1,
        "one disk expected in {}: {disks:?}",
        folder.display()
    );
    disks.remove(0)
}

/// The files of a folder whose name ends so.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn files_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

/// Waits for something to happen.
///
/// # Panics
/// When it does not.
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(
            started.elapsed() < PATIENCE,
            "within {PATIENCE:?} it did not happen: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn bytes_below(folder: &Path) -> u64 {
    // A file may vanish while it is counted: the program is at work.
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
