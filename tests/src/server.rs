// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sample servers: real Debian machines, built by `fixtures/build/server.sh` and kept in the
//! cache. A test asks for one by name; where it is not built, the test is skipped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::toolbox::skip;

/// The root of the project's source tree.
pub const PROJECT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A built sample server: its disk, shut down cleanly, and what is known of it.
#[derive(Debug, Clone, Deserialize)]
pub struct SampleServer {
    /// The name in `fixtures/build/servers`.
    pub name: String,
    /// Debian's code name.
    pub suite: String,
    /// `mbr` or `gpt`.
    pub table: String,
    /// The hardware address of its NIC.
    pub mac: String,
    /// The address it was installed with.
    pub address: String,
    /// The sentence its web page shows.
    pub page: String,
    #[serde(skip)]
    folder: PathBuf,
}

impl SampleServer {
    /// The server, built now if `E2E_BUILD=all`; says `skipped` when it is not there.
    ///
    /// # Panics
    /// When the build script fails, or its result cannot be read.
    pub fn find(name: &str) -> Option<Self> {
        let build_all = env::var("E2E_BUILD").as_deref() == Ok("all");
        let folder = match build_all {
            true => server_script(&[name]),
            false => server_script(&["--path", name]),
        };
        let facts = folder.join("server.json");
        if !facts.exists() {
            skip(&format!(
                "the sample server {name} is not built (make servers, or E2E_BUILD=all)"
            ));
            return None;
        }
        let text = fs::read_to_string(&facts).expect("server.json was just seen");
        let server: Self = serde_json::from_str(&text).expect("the build script writes this form");
        Some(Self { folder, ..server })
    }

    /// Its disk. Read only: a test that changes it works on a copy.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// What is left of the attempt to start it on virtio as it is.
    #[must_use]
    pub fn proof_that_it_needs_conversion(&self) -> PathBuf {
        self.folder.join("does-not-start-on-virtio.txt")
    }

    /// A copy of the disk that may be changed; holes stay holes.
    ///
    /// # Panics
    /// When the copy fails.
    #[must_use]
    pub fn copy_disk(&self, folder: &Path) -> PathBuf {
        let copy = folder.join(format!("{}.raw", self.name));
        let status = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(self.disk())
            .arg(&copy)
            .status()
            .expect("cp can be run");
        assert!(status.success(), "copying {} failed", self.disk().display());
        copy
    }
}

fn server_script(arguments: &[&str]) -> PathBuf {
    let output = Command::new("bash")
        .arg(Path::new(PROJECT_DIR).join("tests/fixtures/build/server.sh"))
        .args(arguments)
        .output()
        .expect("bash can be run");
    assert!(
        output.status.success(),
        "server.sh {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
