// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library of the test's own: in a directory, served over HTTP when asked, measured from outside.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::disks::PhonyServer;
use crate::files::{bytes_below, disks_in, the_only_disk};
use crate::program::{Program, Running};
use crate::toolbox::{free_port, have_tool};
use crate::waiting::wait_until;

/// How many tokens were made: each is a file of its own.
static TOKENS: AtomicU32 = AtomicU32::new(0);

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

    /// The same with an image of a made-up server, `web01`; `None` where no disk can be made, which
    /// counts as skipped.
    #[must_use]
    pub fn with_server(work: &Path, server: impl FnOnce(&Path) -> PhonyServer) -> Option<Self> {
        if !have_tool("mke2fs") {
            return None;
        }
        let library = Self::create(work);
        library.import("web01", &server(work).on_disk(work));
        Some(library)
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

    /// Where this library's `relevo` keeps what it knows of its machines; they share it with those of
    /// the test's other libraries.
    pub(crate) fn runs_folder(&self) -> PathBuf {
        self.configuration.with_file_name("state").join("runs")
    }

    /// `relevo --library` this one, with journals and reports in the test's folder.
    #[must_use]
    pub fn relevo(&self) -> Program {
        self.relevo_with(&self.folder)
    }

    /// The same with another directory or a URL as library; for a URL with an operator's token.
    #[must_use]
    pub fn relevo_with(&self, place: impl AsRef<OsStr>) -> Program {
        let place = place.as_ref();
        let relevo = Program::relevo()
            .arg("--config")
            .arg(&self.configuration)
            .arg("--library")
            .arg(place);
        self.with_token(relevo, place, "--role operator")
    }

    /// Makes a disk file an image of a server.
    pub fn import(&self, server: &str, disk: &Path) {
        self.import_all(server, &[disk.to_owned()]);
    }

    /// Makes several disk files one image of a server.
    pub fn import_all(&self, server: &str, disks: &[PathBuf]) {
        let import = self.relevo().args("image import --server").arg(server);
        disks.iter().fold(import, Program::arg).succeeds();
    }

    /// An agent's snapshot of a disk file as server `x`; `place` is the directory or a URL of this library.
    #[must_use]
    pub fn snapshot(&self, place: &str, disk: &Path) -> Program {
        self.snapshot_of("x", place, disk)
    }

    /// The same for a server of this name.
    #[must_use]
    pub fn snapshot_of(&self, server: &str, place: &str, disk: &Path) -> Program {
        let agent = Program::agent()
            .args("snapshot --patience 3 --server")
            .arg(server)
            .arg("--library")
            .arg(place)
            .arg("--state")
            .arg(&self.agent_state)
            .arg("--disk")
            .arg(disk);
        let grant = format!("--role agent --server {server}");
        self.with_token(agent, OsStr::new(place), &grant)
    }

    /// With a new token of this library, where `place` is a URL.
    fn with_token(&self, program: Program, place: &OsStr, grant: &str) -> Program {
        if !place.to_string_lossy().contains("://") {
            return program;
        }
        let number = TOKENS.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.with_extension(format!("token-{number}"));
        Program::library()
            .args("token add")
            .arg(&self.folder)
            .args(grant)
            .arg("--output")
            .arg(&file)
            .succeeds();
        program.arg("--token-file").arg(file)
    }

    /// Starts the server on this library, with TLS; gives it with its address.
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
        (running, format!("https://{address}"))
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
        self.gives_back_all(server, &[disk.to_owned()], work);
    }

    /// The same of a server with several disks.
    ///
    /// # Panics
    /// When one of them is not the server's.
    pub fn gives_back_all(&self, server: &str, disks: &[PathBuf], work: &Path) {
        let copies = self.export(server, work);
        assert_eq!(copies.len(), disks.len(), "{copies:?}");
        for (disk, copy) in disks.iter().zip(&copies) {
            let differing = differing_blocks(disk, copy);
            assert!(
                differing.is_empty(),
                "the image is not the disk: {} blocks differ, the first at byte {}",
                differing.len(),
                differing[0] * BLOCK_BYTES
            );
        }
    }

    /// Asserts that the library is sound, and that a server's latest image is the disk but for the
    /// blocks that e2fsprogs says are free: those read as zeros.
    ///
    /// `filesystem_at` is where the disk's ext filesystem begins, in bytes; its blocks have 4 KiB.
    ///
    /// # Panics
    /// When it is not.
    pub fn gives_back_what_is_used(
        &self,
        server: &str,
        disk: &Path,
        filesystem_at: u64,
        work: &Path,
    ) {
        self.export(server, work);
        let exported = the_only_disk(&work.join("exported"));
        let copy = File::open(&exported).expect("it was just written");
        let free = free_blocks(disk, filesystem_at);
        assert!(!free.is_empty(), "dumpe2fs names no free blocks");
        for block in differing_blocks(disk, &exported) {
            let at = block * BLOCK_BYTES;
            assert!(
                free.iter().any(|range| range.contains(&at)),
                "the image is not the disk at byte {at}, which is in use"
            );
            let mut bytes = [1; BLOCK_BYTES as usize];
            copy.read_exact_at(&mut bytes, at)
                .expect("the copy has the disk's size");
            assert!(
                bytes.iter().all(|byte| *byte == 0),
                "byte {at} is neither the disk nor zero"
            );
        }
    }

    fn export(&self, server: &str, work: &Path) -> Vec<PathBuf> {
        let exported = work.join("exported");
        self.relevo().args("image verify").succeeds();
        self.relevo()
            .args("image export")
            .arg(server)
            .arg("-o")
            .arg(&exported)
            .succeeds();
        disks_in(&exported)
    }
}

/// What disks are compared in.
const BLOCK_BYTES: u64 = 4096;

/// The numbers of the blocks of 4 KiB in which two files of the same size differ.
///
/// # Panics
/// When they cannot be read, or have different sizes.
#[must_use]
pub fn differing_blocks(left: &Path, right: &Path) -> Vec<u64> {
    let open = |path: &Path| File::open(path).expect("the disks of a test can be read");
    let (left, right) = (open(left), open(right));
    let length = left.metadata().expect("it is open").len();
    assert_eq!(
        length,
        right.metadata().expect("it is open").len(),
        "the sizes differ"
    );
    let mut buffers = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut differing = Vec::new();
    let mut at = 0;
    while at < length {
        let size = (1 << 20).min(length - at) as usize;
        let (a, b) = (&mut buffers.0[..size], &mut buffers.1[..size]);
        left.read_exact_at(a, at).expect("the length was asked for");
        right
            .read_exact_at(b, at)
            .expect("the length was asked for");
        if a != b {
            let blocks = a
                .chunks(BLOCK_BYTES as usize)
                .zip(b.chunks(BLOCK_BYTES as usize));
            let unequal = blocks.enumerate().filter(|(_, (a, b))| a != b);
            differing.extend(unequal.map(|(index, _)| at / BLOCK_BYTES + index as u64));
        }
        at += size as u64;
    }
    differing
}

/// The bytes of a disk that `dumpe2fs` says are in free blocks of the filesystem at `filesystem_at`.
fn free_blocks(disk: &Path, filesystem_at: u64) -> Vec<Range<u64>> {
    let output = Command::new("/usr/sbin/dumpe2fs")
        .arg(format!("{}?offset={filesystem_at}", disk.display()))
        .output()
        .expect("e2fsprogs are installed where sample servers are");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // Of a group: "  Free blocks: 12-40, 77"; of the whole filesystem without the indentation.
    let lists = text
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "));
    let runs = lists
        .flat_map(|list| list.split(", "))
        .filter(|run| !run.is_empty());
    runs.map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let number = |text: &str| text.trim().parse::<u64>().expect("dumpe2fs prints numbers");
        filesystem_at + number(first) * BLOCK_BYTES
            ..filesystem_at + (number(last) + 1) * BLOCK_BYTES
    })
    .collect()
}
