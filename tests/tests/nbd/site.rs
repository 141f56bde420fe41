// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests serve: an image of two disks, in a library of their own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use e2e::{Library, Outcome, Program, Running, noise, raw_disk, wait_until, work_dir};
use tempfile::TempDir;

use crate::{CHUNK, MIB};

/// A library with an image of two disks: 40 MiB with 3 MiB at the beginning, 64 KiB at 20 MiB and
/// 64 KiB at the end; and an empty one of 3 MiB.
pub(crate) struct Site {
    pub(crate) work: TempDir,
    pub(crate) library: Library,
}

impl Site {
    pub(crate) fn new() -> Self {
        let work = work_dir();
        let library = Library::create(work.path());
        let disk = raw_disk(work.path(), "a.raw", 40);
        let file = File::options()
            .write(true)
            .open(&disk)
            .expect("the test's folder can be used");
        for (offset, length) in [(0, 3 * MIB), (20 * MIB, CHUNK), (40 * MIB - CHUNK, CHUNK)] {
            file.write_all_at(&noise(offset + 1, length), offset)
                .expect("the test's folder can be used");
        }
        let empty = raw_disk(work.path(), "b.raw", 3);
        let import = library.relevo().args("image import --server web");
        import.arg(&disk).arg(&empty).succeeds();
        Self { work, library }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.path("a.raw")
    }

    /// `relevo image serve`, with more to be said.
    pub(crate) fn program(&self) -> Program {
        self.library.relevo().args("image serve web")
    }

    /// On a unix socket of the test's folder.
    pub(crate) fn serve(&self, options: &str) -> Served {
        let socket = self.path("nbd.sock");
        let program = self.program().arg("--socket").arg(&socket).args(options);
        let mut running = program.start();
        wait_until("the socket is there", || {
            assert!(running.is_running(), "it has ended");
            UnixStream::connect(&socket).is_ok()
        });
        Served {
            running,
            uri: format!("nbd+unix:///disk0?socket={}", socket.display()),
        }
    }

    /// On a port of this computer.
    pub(crate) fn serve_tcp(&self, port: u16, with: impl FnOnce(Program) -> Program) -> Served {
        let program = self
            .program()
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"));
        let mut running = with(program).start();
        wait_until("the port is open", || {
            assert!(running.is_running(), "it has ended");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Served {
            running,
            uri: format!("nbd://127.0.0.1:{port}/disk0"),
        }
    }

    /// Whether a file has the bytes of the image's first disk.
    pub(crate) fn is_disk(&self, file: &Path) -> bool {
        fs::read(file).expect("the test's folder can be used")
            == fs::read(self.disk()).expect("the test's folder can be used")
    }
}

/// A running `relevo image serve`.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) uri: String,
}

impl Served {
    pub(crate) fn end(self) -> Outcome {
        self.running.interrupt()
    }
}

/// What a tool printed as JSON.
pub(crate) fn json(outcome: &Outcome) -> serde_json::Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{outcome}"))
}
