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
    /// `mbr`, `gpt`, or the recipe in `fixtures/build/staged`.
    pub table: String,
    /// The hardware address of its NIC.
    pub mac: String,
    /// The address it was installed with.
    pub address: String,
    /// The sentence its web page shows.
    pub page: String,
    /// Seconds from power on to its web page, on its own hardware.
    #[serde(default)]
    pub physical_boot_seconds: u64,
    /// How many disks it has.
    #[serde(default = "one")]
    pub disk_count: usize,
    /// How it starts: `bios` or `uefi`.
    #[serde(default = "bios")]
    pub firmware: String,
    /// The file beside its disks that opens what is encrypted on them; empty where nothing is.
    #[serde(default)]
    pub key: String,
    /// What it said of itself on its own hardware, a line for each: addresses, mounts, services.
    #[serde(skip)]
    pub status: Vec<String>,
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
        let status = fs::read_to_string(folder.join("status.txt"))
            .expect("the build script keeps what a server says of itself");
        let status = status.lines().map(|line| line.trim().to_owned()).collect();
        Some(Self {
            status,
            folder,
            ..server
        })
    }

    /// Its first disk. Read only: a test that changes it works on a copy.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// All its disks, in their order.
    #[must_use]
    pub fn disks(&self) -> Vec<PathBuf> {
        let others = (1..self.disk_count).map(|index| self.folder.join(format!("disk{index}.raw")));
        std::iter::once(self.disk()).chain(others).collect()
    }

    /// The file with the key of what is encrypted on its disks.
    #[must_use]
    pub fn key(&self) -> Option<PathBuf> {
        (!self.key.is_empty()).then(|| self.folder.join(&self.key))
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

const fn one() -> usize {
    1
}

fn bios() -> String {
    "bios".to_owned()
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
