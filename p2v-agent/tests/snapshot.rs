// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program itself: snapshots of disk files into a directory and to a server, increments,
//! interruptions of every kind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use disk::ReadAt;
use image_library::server::{
    Access, Limits, RunningServer, Server, ServerOptions, TlsIdentity, Transport,
};
use image_library::{Authority, DiskIndex, Grant, ImageReader, InitOptions, LocalLibrary};
use serde_json::Value;
use tempfile::TempDir;

const CHUNK: usize = 65_536;
const MIB: usize = 1 << 20;

/// A library, a state directory and a disk file.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(TempDir::new().unwrap());
        LocalLibrary::init(&site.library(), &InitOptions::default()).unwrap();
        site
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("library")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn disk(&self) -> PathBuf {
        self.0.path().join("disk.raw")
    }

    fn write_disk(&self, bytes: &[u8]) {
        fs::write(self.disk(), bytes).unwrap();
    }

    fn open(&self) -> LocalLibrary {
        LocalLibrary::open(&self.library()).unwrap()
    }

    fn token(&self) -> PathBuf {
        self.0.path().join("token")
    }

    /// With TLS, and a token for the agent of `web01`.
    fn serve(&self) -> RunningServer {
        let library = self.open();
        let authority = Authority::of(&library).unwrap();
        if !self.token().exists() {
            let server = "web01".parse().unwrap();
            let grant = Grant::Agent { server };
            let fingerprint = Some(authority.fingerprint());
            let token = library.add_token(grant, None, fingerprint).unwrap();
            fs::write(self.token(), token.reveal().as_bytes()).unwrap();
            fs::set_permissions(self.token(), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let names = vec!["127.0.0.1".to_owned()];
        let options = ServerOptions {
            access: Access::Tokens(library.clone()),
            transport: Transport::Tls(Box::new(TlsIdentity::issued(authority, names).unwrap())),
            limits: Limits::default(),
        };
        let address = "127.0.0.1:0".parse().unwrap();
        Server::bind(Arc::new(library), address, options)
            .unwrap()
            .start()
            .unwrap()
    }

    /// `p2v-agent snapshot` of the disk, by default into the directory.
    fn snapshot(&self, more: &[&str]) -> Command {
        let library = self.library();
        let mut command = agent(&["snapshot", "--json", "--server", "web01"]);
        if !more.contains(&"--library") {
            command.arg("--library").arg(library);
        }
        command
            .arg("--disk")
            .arg(self.disk())
            .arg("--state")
            .arg(self.state())
            .args(more);
        if self.token().exists() {
            command.arg("--token-file").arg(self.token());
        }
        command
    }

    fn content(&self, image: &Value) -> Vec<u8> {
        let id = image["image"].as_str().unwrap().parse().unwrap();
        let disk = self.open().open_disk(id, DiskIndex(0)).unwrap();
        let mut bytes = vec![1; usize::try_from(disk.length_bytes()).unwrap()];
        disk.read_exact_at(0, &mut bytes).unwrap();
        bytes
    }

    fn stored_bytes(&self) -> u64 {
        directory_bytes(&self.library())
    }
}

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2v-agent"));
    command.args(arguments).env_remove("RELEVO_LIBRARY");
    command
}

fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => directory_bytes(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn report(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    stderr(&output)
}

/// Bytes that do not compress and never repeat.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Waits until the library holds so many bytes, or the agent has ended.
fn wait_for_bytes(site: &Site, child: &mut Child, bytes: u64) {
    let started = Instant::now();
    while site.stored_bytes() < bytes && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_image_is_the_disk_byte_by_byte() {
    let site = Site::new();
    let mut bytes = noise(5 * MIB + 512, 1);
    bytes[MIB..3 * MIB].fill(0);
    site.write_disk(&bytes);
    let report = report(&mut site.snapshot(&[]));
    assert_eq!(report["consistency"], "cold");
    assert_eq!(report["disks"][0]["name"], "disk.raw");
    assert_eq!(report["disks"][0]["changed_bytes"], 3 * MIB + 512);
    assert!(site.content(&report) == bytes);
    let image = site.open().images().unwrap().remove(0);
    assert!(image.machine.is_none(), "a disk file may be of any machine");
}

#[test]
fn the_next_snapshot_sends_only_what_changed_with_and_without_notes() {
    let site = Site::new();
    let mut bytes = noise(4 * MIB, 2);
    site.write_disk(&bytes);
    report(&mut site.snapshot(&[]));
    let second = report(&mut site.snapshot(&[]));
    assert_eq!(second["disks"][0]["changed_bytes"], 0);
    assert_eq!(second["disks"][0]["sent_bytes"], 0);
    bytes[10 * CHUNK + 5] ^= 1;
    bytes[20 * CHUNK..21 * CHUNK].fill(0);
    site.write_disk(&bytes);
    let third = report(&mut site.snapshot(&[]));
    assert_eq!(third["disks"][0]["changed_bytes"], CHUNK);
    assert_eq!(third["disks"][0]["sent_bytes"], CHUNK);
    fs::remove_dir_all(site.state()).unwrap();
    let fourth = report(&mut site.snapshot(&[]));
    assert_eq!(
        fourth["disks"][0]["changed_bytes"], 0,
        "the library is asked"
    );
    for image in [&third, &fourth] {
        assert!(site.content(image) == bytes);
    }
}

/// Changes a byte in the middle of a chunk's record in the only pack of that length or more.
fn damage_a_chunk(site: &Site) {
    let packs = site.library().join("packs");
    let directories = fs::read_dir(packs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = directories.flat_map(|directory| fs::read_dir(directory).unwrap());
    let pack = files
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::metadata(path).unwrap().len() > MIB as u64)
        .unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[10 * CHUNK + CHUNK / 2] ^= 1;
    fs::write(&pack, bytes).unwrap();
}

#[test]
fn what_the_library_lost_is_sent_again_though_nothing_changed_and_the_agent_has_notes() {
    for over_https in [false, true] {
        let site = Site::new();
        let bytes = noise(4 * MIB, 11);
        site.write_disk(&bytes);
        let server = over_https.then(|| site.serve());
        let url = server.as_ref().map(RunningServer::url);
        let library: Vec<&str> = url.iter().flat_map(|url| ["--library", url]).collect();
        let first = report(&mut site.snapshot(&library));
        damage_a_chunk(&site);
        // By another program than the server.
        assert!(!site.open().verify(&disk::Silent).unwrap().is_sound());

        let output = site.snapshot(&library).output().unwrap();
        let told = stderr(&output);
        assert!(told.contains("agent.snapshot.wanted-again"), "{told}");
        assert!(!told.contains("agent.snapshot.notes-dropped"), "{told}");
        let second: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(second["disks"][0]["sent_bytes"], CHUNK);
        for image in [&first, &second] {
            assert!(site.content(image) == bytes, "the old image is whole again");
        }
        let third = report(&mut site.snapshot(&library));
        assert_eq!(third["disks"][0]["sent_bytes"], 0);
    }
}

#[test]
fn notes_of_another_library_are_not_believed() {
    let site = Site::new();
    let bytes = noise(MIB, 3);
    site.write_disk(&bytes);
    report(&mut site.snapshot(&[]));
    fs::remove_dir_all(site.library()).unwrap();
    LocalLibrary::init(&site.library(), &InitOptions::default()).unwrap();
    let again = report(&mut site.snapshot(&[]));
    assert_eq!(again["disks"][0]["sent_bytes"], MIB);
    assert!(site.content(&again) == bytes);
}

#[test]
fn a_killed_snapshot_is_taken_up_without_sending_twice_in_bounded_memory() {
    let site = Site::new();
    let bytes = noise(160 * MIB, 4);
    site.write_disk(&bytes);
    let server = site.serve();
    let url = server.url();
    let arguments = ["--library", url.as_str()];
    let mut child = site
        .snapshot(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_bytes(&site, &mut child, 80 << 20);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "it was to be killed in mid-upload"
    );
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 150 << 10, "{peak_kib} KiB");
    assert!(site.open().images().unwrap().is_empty());

    let resumed = report(&mut site.snapshot(&arguments));
    let sent = resumed["disks"][0]["sent_bytes"].as_u64().unwrap();
    // All but what stood in packs that were not complete.
    assert!(
        sent < 130 << 20,
        "{sent} of {} bytes sent again",
        bytes.len()
    );
    assert_eq!(resumed["disks"][0]["changed_bytes"], bytes.len());
    assert!(site.content(&resumed) == bytes);
}

#[test]
fn a_server_killed_in_mid_upload_is_told_and_the_next_run_goes_on() {
    let site = Site::new();
    let bytes = noise(96 * MIB, 5);
    site.write_disk(&bytes);
    let server = site.serve();
    let url = server.url();
    let mut child = site
        .snapshot(&["--library", &url, "--patience", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_bytes(&site, &mut child, 24 << 20);
    drop(server);
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let message = format!("error: the library at {url} was lost in the middle of an upload: ");
    assert!(text.contains(&message), "{text}");
    assert!(text.contains("\n\nhint: nothing was committed"), "{text}");
    assert!(site.open().images().unwrap().is_empty());

    let server = site.serve();
    let again = report(&mut site.snapshot(&["--library", &server.url()]));
    assert!(site.content(&again) == bytes);
}

#[test]
fn ctrl_c_stops_cleanly_and_the_next_run_goes_on() {
    let site = Site::new();
    let bytes = noise(96 * MIB, 6);
    site.write_disk(&bytes);
    let mut child = site
        .snapshot(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_bytes(&site, &mut child, 24 << 20);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("error: stopped before the image was complete"),
        "{text}"
    );
    assert!(text.contains("hint: nothing was committed"), "{text}");
    let again = report(&mut site.snapshot(&[]));
    assert!(again["disks"][0]["sent_bytes"].as_u64().unwrap() < bytes.len() as u64);
    assert!(site.content(&again) == bytes);
}

#[test]
fn a_library_that_is_not_there_is_one_clear_message() {
    let site = Site::new();
    site.write_disk(&noise(MIB, 7));
    let text = failure(&mut site.snapshot(&["--library", "http://127.0.0.1:1"]));
    assert!(
        text.contains("error: the library at http://127.0.0.1:1 is unreachable: "),
        "{text}"
    );
    assert!(
        text.contains("\n\nhint: check that `image-library serve` runs there"),
        "{text}"
    );
    let nowhere = failure(&mut site.snapshot(&["--library", "/nowhere/library"]));
    assert!(
        nowhere.contains("/nowhere/library") && nowhere.contains("hint: "),
        "{nowhere}"
    );
}

#[test]
fn a_token_that_is_missing_or_of_another_library_is_one_clear_message() {
    let (site, other) = (Site::new(), Site::new());
    site.write_disk(&noise(MIB, 8));
    let (server, _stranger) = (site.serve(), other.serve());
    let with = |file: &Path| {
        let mut command = site.snapshot(&["--library", &server.url()]);
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let (last, others) = arguments.split_last().unwrap();
        assert_eq!(last, site.token().as_os_str());
        command = agent(&[]);
        command.args(others).arg(file);
        failure(&mut command)
    };
    let missing = with(Path::new("/nowhere/token"));
    assert!(
        missing.contains("error: open /nowhere/token: "),
        "{missing}"
    );
    let untrusted = with(&other.token());
    assert!(
        untrusted.contains(&format!(
            "error: the server at {} is not trusted: ",
            server.url()
        )) && untrusted.contains("\n\nhint: the token has to be one of this library"),
        "{untrusted}"
    );
    assert!(site.open().images().unwrap().is_empty());
}

#[test]
fn what_is_no_disk_is_refused_before_anything_is_sent() {
    let site = Site::new();
    let before = site.stored_bytes();
    let missing = failure(&mut site.snapshot(&[]));
    assert!(missing.contains("disk.raw"), "{missing}");
    site.write_disk(b"");
    let empty = failure(&mut site.snapshot(&[]));
    assert!(
        empty.contains("it is empty") && empty.contains("hint: "),
        "{empty}"
    );
    assert_eq!(site.stored_bytes(), before);
}

#[test]
fn a_dry_run_says_what_it_would_do_and_sends_nothing() {
    let site = Site::new();
    site.write_disk(&noise(MIB, 8));
    let before = site.stored_bytes();
    let plan = report(&mut site.snapshot(&["--dry-run"]));
    assert_eq!(plan["disks"][0]["used_bytes"], MIB);
    assert_eq!(plan["consistency"], "cold");
    assert_eq!(site.stored_bytes(), before);
    assert!(!site.state().exists());
}

#[test]
fn space_that_ext4_does_not_use_is_not_read() {
    let site = Site::new();
    let bytes = noise(64 * MIB, 9);
    site.write_disk(&bytes);
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(site.disk())
        .output();
    match made {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("skipped: mkfs.ext4 is not installed");
            assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
            return;
        }
    }
    let report = report(&mut site.snapshot(&[]));
    let read = report["disks"][0]["read_bytes"].as_u64().unwrap();
    assert!(read < 16 << 20, "{read} bytes read of an empty filesystem");
    let content = site.content(&report);
    assert_eq!(content.len(), bytes.len());
    fs::write(site.disk(), &content).unwrap();
    let checked = Command::new("e2fsck")
        .arg("-fn")
        .arg(site.disk())
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

#[test]
fn a_mounted_disk_is_refused_by_name_and_taken_as_fuzzy_when_told_so() {
    let inventory = report(&mut agent(&["inventory", "--json"]));
    let mounts = inventory["mounts"].as_array().unwrap();
    let disks = inventory["disks"].as_array().unwrap();
    let mounted = disks.iter().find_map(|disk| {
        let name = disk["name"].as_str()?;
        let node = format!("/dev/{name}");
        let is_source = |mount: &Value| mount["source"] == node.as_str();
        mounts.iter().any(is_source).then_some(node)
    });
    let readable = mounted.filter(|node| fs::File::open(node).is_ok());
    let Some(node) = readable else {
        eprintln!("skipped: no readable disk is mounted here");
        return;
    };
    let base = [
        "snapshot",
        "--library",
        "/nowhere",
        "--dry-run",
        "--json",
        "--disk",
        &node,
    ];
    let text = failure(&mut agent(&base));
    assert!(text.contains("is in use: "), "{text}");
    assert!(text.contains("hint: unmount it"), "{text}");
    let plan = report(agent(&base).arg("--crash-consistent"));
    assert_eq!(plan["consistency"], "fuzzy");
}

#[test]
fn completions_manual_and_exit_codes_are_there() {
    let directory = TempDir::new().unwrap();
    let output = agent(&["man"]).arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(directory.path().join("p2v-agent-snapshot.1").exists());
    let output = agent(&["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("p2v-agent"));
    let output = agent(&["--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes: 0"));
    assert_eq!(
        agent(&["no-such-thing"]).output().unwrap().status.code(),
        Some(2)
    );
}
