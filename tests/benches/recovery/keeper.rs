// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who serves a disk to a machine, without the machine: the keeper of a boot, with a monitor that
//! agrees to everything, or `qemu-nbd` for a local file.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use e2e::{NbdClient, Program, Running, wait_until};
use serde_json::{Value, json};

use super::site::Site;

const EXPORT: &str = "disk0";
const PATIENCE: Duration = Duration::from_secs(60);

/// The keeper of a machine that is not there.
pub(crate) struct Keeper {
    process: Running,
    monitor: Receiver<UnixStream>,
    socket: PathBuf,
    status: PathBuf,
}

impl Keeper {
    /// Starts one as a boot does.
    pub(crate) fn start(site: &Site, relevo: Program, is_served: bool) -> Self {
        let socket = site.path("keeper/nbd");
        let status = site.path("keeper/status.json");
        let watch = site.path("keeper/watch");
        for old in [&socket, &status, &watch] {
            let _ = fs::remove_file(old);
        }
        let order = json!({
            "image": image_of(site),
            "disks": [disk_of(site)],
            "nbd": socket,
            "monitor": watch,
            "status": status,
            "controller_gives_up": false,
            "move_disks": null,
            "cache": {
                // As `relevo boot` orders it.
                "directory": is_served.then(|| site.path("state/cache")),
                "disk_bytes_max": 32_u64 << 30,
                "memory_bytes_max": 192 << 20,
                "is_served": is_served,
            },
            "takes_over": false,
        });
        let place = site.path("keeper/order.json");
        fs::write(&place, order.to_string()).expect("the folder is ours");
        let monitor = monitor(&watch);
        let process = relevo.arg("keep").arg(place).start();
        Self {
            process,
            monitor,
            socket,
            status,
        }
    }

    pub(crate) fn connect(&self) -> NbdClient {
        connect(&self.socket)
    }

    /// Its machine ends, so it does: what was read is kept beside the image. Gives what its cache says.
    pub(crate) fn end(self) -> Fetched {
        let stream = self.monitor.recv_timeout(PATIENCE);
        let stream = stream.expect("the keeper watches its machine");
        // It may have gone already.
        let _ = stream.shutdown(Shutdown::Both);
        let ended = self.process.wait();
        assert_eq!(ended.code, Some(0), "{ended}");
        let text = fs::read_to_string(&self.status).expect("it told how it was");
        let status: Value = serde_json::from_str(&text).expect("it writes JSON");
        assert_eq!(status["findings"], json!([]), "{status}");
        let figure = |name: &str| status["cache"][name].as_u64().unwrap_or_default();
        Fetched {
            bytes: figure("fetched_bytes"),
            requests: figure("fetch_count"),
        }
    }
}

/// What a keeper fetched from its library.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fetched {
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
}

/// Connects as soon as somebody listens.
fn connect(socket: &Path) -> NbdClient {
    let mut client = None;
    wait_until("the disk is served", || {
        client = NbdClient::connect(socket, EXPORT).ok();
        client.is_some()
    });
    client.expect("it was waited for")
}

fn image_of(site: &Site) -> Value {
    let list = site.library.relevo().args("image list --json").succeeds();
    list.json()[0]["id"].clone()
}

fn disk_of(site: &Site) -> Value {
    let shown = site.library.relevo().args("image show x --json").succeeds();
    let disk = &shown.json()["disks"][0];
    json!({"index": 0, "size_bytes": disk["size_bytes"], "sector_size": disk["sector_size"]})
}

/// A monitor that does nothing; gives its connection.
fn monitor(socket: &Path) -> Receiver<UnixStream> {
    let listener = UnixListener::bind(socket).expect("the folder has a short path");
    let (give, given) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the keeper comes");
        let lines = BufReader::new(stream.try_clone().expect("it is open"));
        give.send(stream.try_clone().expect("it is open")).ok();
        // It ends when the keeper does.
        let _ = stream.write_all(b"{\"QMP\": {}}\n");
        for line in lines.lines().map_while(Result::ok) {
            let command: Value = serde_json::from_str(&line).expect("the keeper speaks JSON");
            let answer = json!({"return": {}, "id": command["id"]});
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        }
    });
    given
}

/// `qemu-nbd` on a local file; killed when dropped.
pub(crate) struct QemuNbd {
    process: Running,
    socket: PathBuf,
}

impl QemuNbd {
    pub(crate) fn start(disk: &Path, socket: PathBuf) -> Self {
        let _ = fs::remove_file(&socket);
        let program = Program::tool("qemu-nbd").args("--read-only --persistent --format=qcow2");
        let program = program.arg("--export-name").arg(EXPORT);
        let process = program.arg("--socket").arg(&socket).arg(disk).start();
        Self { process, socket }
    }

    pub(crate) fn connect(&self) -> NbdClient {
        connect(&self.socket)
    }

    pub(crate) fn end(self) {
        self.process.kill();
    }
}
