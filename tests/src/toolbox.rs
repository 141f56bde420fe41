// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests need of the machine they run on: tools, a place to work, a free port, the one slot
//! for a virtual machine; and how they say that something is missing.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Says why the test cannot run here; fails it where everything is required.
#[expect(
    clippy::print_stderr,
    reason = "a skip is reported to whoever runs the tests"
)]
pub fn skip(reason: &str) {
    assert!(
        env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "required, but cannot run here: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Whether a tool is installed; says `skipped` when it is not.
pub fn have_tool(name: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path
        .split(':')
        .any(|folder| PathBuf::from(folder).join(name).is_file());
    if !found {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Whether this user may mount something where nobody else sees it; says `skipped` when not, as in
/// most containers.
pub fn can_mount() -> bool {
    if !have_tool("unshare") {
        return false;
    }
    let tried = Command::new("unshare")
        .args(["--mount", "--map-root-user", "true"])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        skip("this user may make no mount namespace");
    }
    may
}

/// Where built servers are kept between runs: `RELEVO_CACHE`, or `~/.cache/relevo`.
pub fn cache_dir() -> PathBuf {
    match env::var_os("RELEVO_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/var/cache".into()))
            .join(".cache/relevo"),
    }
}

/// An empty directory of the test's own, on the disk of the cache (not in memory: a server's disk
/// is copied into it), deleted when the test ends.
///
/// # Panics
/// When the directory cannot be made: no test can run then.
pub fn work_dir() -> TempDir {
    let parent = cache_dir().join("tests");
    fs::create_dir_all(&parent).expect("the cache directory can be written to");
    TempDir::with_prefix_in("work-", &parent).expect("the cache directory can be written to")
}

/// A TCP port on this machine that was free a moment ago.
///
/// # Panics
/// When this machine has no loopback address.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("the loopback address can be listened on")
        .port()
}

/// Waits for the only slot for a virtual machine: two of them on two cores without KVM only make
/// each other's time limits fail. Held until the file is dropped, across processes.
///
/// # Panics
/// When the lock file cannot be made.
#[must_use]
pub fn one_machine_at_a_time() -> File {
    fs::create_dir_all(cache_dir()).expect("the cache directory can be written to");
    let slot = File::create(cache_dir().join("machine.lock")).expect("the lock file can be made");
    slot.lock().expect("the lock is on a file of our own");
    slot
}
