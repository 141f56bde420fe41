// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keeper of a machine, with a monitor that only writes down what it is told: no machine is
//! needed to see what becomes of its disks.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use e2e::{
    Library, Outcome, Program, Running, differing_blocks, have_tool, overwrite, raw_disk,
    scatter_writes, wait_until, work_dir,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const DISK_MIB: u64 = 16;
const BLOCKS_PER_CHUNK: usize = 16;

/// A library with one image of a disk that is full of data.
struct Site {
    work: TempDir,
    library: Library,
    disk: PathBuf,
}

impl Site {
    fn new() -> Option<Self> {
        if !have_tool("qemu-img") {
            return None;
        }
        let work = work_dir();
        let library = Library::create(work.path());
        let disk = raw_disk(work.path(), "web.raw", DISK_MIB);
        scatter_writes(&disk, 0..DISK_MIB << 20, DISK_MIB << 8);
        library.import("web", &disk);
        Some(Self {
            work,
            library,
            disk,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn image(&self) -> String {
        let list = self.library.relevo().args("image list --json").succeeds();
        let images = list.json();
        images[0]["id"].as_str().expect("it has an id").to_owned()
    }

    /// An order for a keeper, written where the test can find it.
    fn order(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut order = json!({
            "image": self.image(),
            "disks": [{"index": 0, "size_bytes": DISK_MIB << 20, "sector_size": 512}],
            "nbd": self.path("nbd"),
            "monitor": self.path("watch"),
            "status": self.path("status.json"),
            "controller_gives_up": true,
            "move_disks": null,
            "takes_over": false,
        });
        change(&mut order);
        let path = self.path("order.json");
        fs::write(&path, order.to_string()).expect("the work directory can be written to");
        path
    }

    /// Starts a keeper and waits until it serves.
    fn keeper(&self, relevo: Program, order: &Path) -> Running {
        let running = relevo.arg("keep").arg(order).start();
        wait_until("the keeper serves", || self.path("nbd").exists());
        running
    }

    fn status(&self) -> Value {
        let text = fs::read_to_string(self.path("status.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Copies the disk out of the keeper, as far as it can be read.
    fn copy(&self, name: &str) -> (Outcome, PathBuf) {
        (self.start_copy(name).wait(), self.path(name))
    }

    fn start_copy(&self, name: &str) -> Running {
        let socket = self.path("nbd");
        let uri = format!("nbd+unix:///disk0?socket={}", socket.display());
        let qemu_img = Program::tool("qemu-img").args("convert --salvage -f raw -O raw");
        qemu_img.arg(uri).arg(self.path(name)).start()
    }

    fn is_copied_whole(&self, name: &str) {
        let (outcome, copy) = self.copy(name);
        assert_eq!(outcome.code, Some(0), "{outcome}");
        assert_eq!(differing_blocks(&self.disk, &copy), [0; 0]);
    }

    /// Damages one chunk in a pack, which is sealed: any byte will do.
    fn damage(&self) {
        let packs = Program::tool("find")
            .arg(self.library.folder().join("packs"))
            .args("-name *.pack -size +6M")
            .succeeds();
        let pack = packs.stdout.lines().next().expect("there is one");
        overwrite(Path::new(pack), 5 << 20, &[0xA5; 16]);
    }
}

/// A monitor that knows every command and does nothing; it closes when it is dropped.
struct Monitor {
    told: Receiver<String>,
    stream: Receiver<UnixStream>,
}

impl Monitor {
    fn listen(site: &Site) -> Self {
        let path = site.path("watch");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(path).expect("the work directory has a short path");
        let (tell, told) = channel();
        let (give, stream) = channel();
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("the keeper comes");
            let copy = connection.try_clone().expect("it is open");
            give.send(copy.try_clone().expect("it is open")).ok();
            connection.write_all(b"{\"QMP\": {}}\n").ok();
            for line in BufReader::new(copy).lines().map_while(Result::ok) {
                let command: Value = serde_json::from_str(&line).expect("the keeper speaks JSON");
                let answer = json!({"return": {}, "id": command["id"]});
                connection.write_all(format!("{answer}\n").as_bytes()).ok();
                let name = command["execute"].as_str().unwrap_or_default();
                tell.send(name.to_owned()).ok();
            }
        });
        Self { told, stream }
    }

    /// Waits until the keeper tells it this.
    fn is_told(&self, what: &str) {
        let patience = Duration::from_secs(60);
        while self.told.recv_timeout(patience).expect("it is told") != what {}
    }

    /// The machine ends.
    fn end(self, keeper: Running) -> Outcome {
        let stream = self.stream.recv().expect("the keeper came");
        stream.shutdown(std::net::Shutdown::Both).ok();
        keeper.wait()
    }
}

#[test]
fn a_damaged_chunk_is_an_error_at_its_place_and_nowhere_else() {
    let Some(site) = Site::new() else { return };
    site.damage();
    let monitor = Monitor::listen(&site);
    let keeper = site.keeper(site.library.relevo(), &site.order(|_| {}));

    let (outcome, copy) = site.copy("salvaged.raw");
    assert_eq!(outcome.code, Some(0), "{outcome}");
    let differing = differing_blocks(&site.disk, &copy);
    assert_eq!(differing.len(), BLOCKS_PER_CHUNK, "{differing:?}");
    assert_eq!(differing[0] as usize % BLOCKS_PER_CHUNK, 0, "{differing:?}");

    let ended = monitor.end(keeper);
    assert_eq!(ended.code, Some(0), "{ended}");
    let status = site.status();
    assert_eq!(status["is_over"], true, "{status}");
    let findings = status["findings"].as_array().expect("a list");
    assert!(!findings.is_empty(), "{status}");
    for finding in findings {
        assert_eq!(finding["code"], "boot.chunk.damaged", "{status}");
        let at = format!("byte {:#x}", differing[0] * 4096);
        assert!(finding.to_string().contains(&at), "{at} in {finding}");
    }
}

#[test]
fn a_damaged_chunk_is_read_from_a_replica() {
    let Some(site) = Site::new() else { return };
    let replica = site.path("replica");
    Program::library().arg("init").arg(&replica).succeeds();
    Program::library()
        .arg("replicate")
        .arg(site.library.folder())
        .arg("--to")
        .arg(&replica)
        .succeeds();
    site.damage();
    let monitor = Monitor::listen(&site);
    let relevo = site.library.relevo().arg("--replica").arg(&replica);
    let keeper = site.keeper(relevo, &site.order(|_| {}));

    site.is_copied_whole("whole.raw");

    monitor.end(keeper);
    let findings = site.status()["findings"].clone();
    assert_eq!(findings[0]["code"], "boot.chunk.replica", "{findings}");
    let names_it = findings[0].to_string().contains("replica");
    assert!(names_it, "{findings}");
}

#[test]
fn reads_wait_for_a_library_that_is_away_and_the_machine_is_stopped_meanwhile() {
    let Some(site) = Site::new() else { return };
    let (serving, url) = site.library.serve();
    let port = url.rsplit(':').next().unwrap().parse().expect("a port");
    let monitor = Monitor::listen(&site);
    let keeper = site.keeper(site.library.relevo_with(&url), &site.order(|_| {}));
    serving.kill();

    let mut copying = site.start_copy("late.raw");
    monitor.is_told("stop");
    let is_running = copying.is_running();
    assert!(is_running, "it was answered without the library");
    wait_until("it says so", || site.status()["is_stopped"] == true);
    let _serving = site.library.serve_on(port);
    monitor.is_told("cont");
    let copied = copying.wait();

    assert_eq!(copied.code, Some(0), "{copied}");
    let differing = differing_blocks(&site.disk, &site.path("late.raw"));
    assert_eq!(differing, [0; 0]);
    monitor.end(keeper);
    let findings = site.status()["findings"].clone();
    assert_eq!(findings[0]["code"], "boot.library.away", "{findings}");
}

#[test]
fn what_was_read_once_is_in_the_cache_of_the_next_keeper() {
    let Some(site) = Site::new() else { return };
    let (serving, url) = site.library.serve();
    let cached = |order: &mut Value| {
        order["controller_gives_up"] = false.into();
    };
    let with_cache = || site.library.relevo_with(&url);
    let monitor = Monitor::listen(&site);
    let order = site.order(|order| {
        cached(order);
        order["cache"] = json!({
            "directory": site.path("cache"), "disk_bytes_max": 1 << 30,
            "memory_bytes_max": 1 << 20, "is_served": true,
        });
    });
    let keeper = site.keeper(with_cache(), &order);
    site.is_copied_whole("first.raw");
    monitor.end(keeper);
    let first = site.status();
    let fetched = first["cache"]["fetched_bytes"].as_u64();
    assert_eq!(fetched, Some(DISK_MIB << 20), "{first}");

    // A chunk that the disk of the cache has damaged is fetched again.
    let files = Program::tool("find")
        .arg(site.path("cache"))
        .args("-type f -size 64k")
        .succeeds();
    let file = files.stdout.lines().next().expect("there are files");
    overwrite(Path::new(file), 1000, &[0xFF; 8]);
    let monitor = Monitor::listen(&site);
    let keeper = site.keeper(with_cache(), &order);
    site.is_copied_whole("second.raw");
    monitor.end(keeper);
    let second = site.status();
    let hits = second["cache"]["disk_hit_count"].as_u64();
    assert!(hits >= Some((DISK_MIB << 4) - 64), "{second}");
    drop(serving);
}

#[test]
fn what_a_boot_read_is_fetched_ahead_by_the_next() {
    let Some(site) = Site::new() else { return };
    let order = site.order(|_| {});
    let read = |what: &str| {
        let socket = site.path("nbd");
        let uri = format!("nbd+unix:///disk0?socket={}", socket.display());
        let io = Program::tool("qemu-io").args("-f raw -r");
        io.arg("-c").arg(what).arg(uri).succeeds();
    };
    let monitor = Monitor::listen(&site);
    let keeper = site.keeper(site.library.relevo(), &order);
    read("read 0 4096");
    read("read 8M 256k");
    monitor.end(keeper);
    fs::remove_file(site.path("status.json")).unwrap();

    let monitor = Monitor::listen(&site);
    let keeper = site.keeper(site.library.relevo(), &order);
    let fetched = || site.status()["cache"]["fetched_bytes"].as_u64();
    wait_until("it is fetched ahead", || fetched() >= Some(320 << 10));
    assert_eq!(site.status()["reads"]["request_count"], 0);
    monitor.end(keeper);
}

#[test]
fn what_keeps_a_keeper_from_its_work_is_one_clear_error() {
    let Some(site) = Site::new() else { return };
    let order = site.order(|_| {});
    fs::write(site.path("nbd"), "in the way").unwrap();
    let relevo = site.library.relevo().arg("keep").arg(&order);
    relevo.run().is_one_clear_error(2, &["nbd"]);
    fs::remove_file(site.path("nbd")).unwrap();
    let order = site.order(|order| {
        order["image"] = "00000000-0000-0000-0000-000000000001".into();
    });
    let relevo = site.library.relevo().arg("keep").arg(&order);
    relevo
        .run()
        .is_one_clear_error(2, &["00000000-0000-0000-0000-000000000001"]);
}
