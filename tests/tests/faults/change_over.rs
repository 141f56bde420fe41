// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moment in which disks change over, interrupted: with a monitor that plays the machine, since no
//! kill would hit these milliseconds. What is recorded must be what the machine uses when it goes on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use e2e::{Program, Running, wait_until, work_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A machine of two disks as its monitor shows it.
#[derive(Debug)]
struct Machine {
    status: &'static str,
    /// The file that each disk is.
    nodes: [&'static str; 2],
    /// The disks whose copies are ready, and wait to be told.
    jobs: Vec<usize>,
    /// Disks whose copy fails when it is told to complete.
    failing: Vec<usize>,
    told: Vec<String>,
}

impl Machine {
    /// The answer to a command, and the events that follow.
    fn answer(&mut self, command: &Value) -> (Value, Vec<Value>) {
        let name = command["execute"].as_str().unwrap_or_default();
        self.told.push(name.to_owned());
        let arguments = &command["arguments"];
        let mut events = Vec::new();
        let answer = match name {
            "query-status" => json!({"status": self.status, "running": self.status == "running"}),
            "query-block-jobs" => self.jobs.iter().map(|disk| job(*disk)).collect(),
            "query-block" => self
                .nodes
                .iter()
                .map(|node| json!({"inserted": {"node-name": node}}))
                .collect(),
            "cont" => {
                self.status = "running";
                json!({})
            }
            "block-job-complete" => {
                let disk = usize::from(arguments["device"] == "move1");
                self.jobs.retain(|job| *job != disk);
                events.push(self.completed(disk));
                json!({})
            }
            _ => json!({}),
        };
        (answer, events)
    }

    fn completed(&mut self, disk: usize) -> Value {
        let mut data = json!({"device": format!("move{disk}")});
        if self.failing.contains(&disk) {
            data["error"] = "Input/output error".into();
        } else {
            self.nodes[disk] = ["target0", "target1"][disk];
        }
        json!({"event": "BLOCK_JOB_COMPLETED", "data": data})
    }
}

fn job(disk: usize) -> Value {
    json!({"device": format!("move{disk}"), "ready": true, "io-status": "ok", "offset": 1, "len": 1})
}

/// A keeper that takes over such a machine from one that was killed.
struct Stage {
    work: TempDir,
    machine: Arc<Mutex<Machine>>,
    _keeper: Running,
}

impl Stage {
    fn new(machine: Machine) -> Self {
        let work = work_dir();
        let path = |name: &str| work.path().join(name);
        let listener = UnixListener::bind(path("watch")).unwrap();
        let machine = Arc::new(Mutex::new(machine));
        let shown = Arc::clone(&machine);
        thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            play(&shown, connection);
        });
        let order = json!({
            "image": "00000000-0000-0000-0000-000000000001",
            "disks": [{"index": 0, "size_bytes": 1 << 20, "sector_size": 512},
                      {"index": 1, "size_bytes": 1 << 20, "sector_size": 512}],
            "nbd": path("nbd"), "monitor": path("watch"), "status": path("status.json"),
            "controller_gives_up": false, "takes_over": true,
            "move_disks": {"targets": [path("disk0.qcow2"), path("disk1.qcow2")],
                "rate_bytes_per_second": 0, "record": path("kept/moved.json")},
        });
        fs::write(path("order.json"), order.to_string()).unwrap();
        let keeper = Program::relevo().arg("--library").arg(path("nowhere"));
        let keeper = keeper.arg("keep").arg(path("order.json")).start();
        Self {
            work,
            machine,
            _keeper: keeper,
        }
    }

    /// The directory of the disks is there (again), and has room.
    fn make_room(&self) {
        fs::create_dir(self.work.path().join("kept")).unwrap();
    }

    fn record(&self) -> PathBuf {
        self.work.path().join("kept/moved.json")
    }

    fn goes_on(&self) {
        wait_until("the machine goes on", || {
            self.machine.lock().unwrap().status == "running"
        });
    }

    /// What is recorded, and what the machine uses.
    fn is_recorded(&self, expected: [bool; 2]) {
        let recorded = fs::read(self.record()).expect("it is recorded before it goes on");
        let recorded: Value = serde_json::from_slice(&recorded).unwrap();
        assert_eq!(recorded, json!({"disks": expected}));
        let used = self.machine.lock().unwrap().nodes;
        assert_eq!(used.map(|node| node.starts_with("target")), expected);
    }
}

fn play(machine: &Mutex<Machine>, mut connection: UnixStream) {
    let lines = BufReader::new(connection.try_clone().unwrap()).lines();
    connection.write_all(b"{\"QMP\": {}}\n").unwrap();
    for line in lines.map_while(Result::ok) {
        let command: Value = serde_json::from_str(&line).unwrap();
        let (answer, events) = machine.lock().unwrap().answer(&command);
        let answer = json!({"return": answer, "id": command["id"]});
        for message in std::iter::once(answer).chain(events) {
            connection.write_all(format!("{message}\n").as_bytes()).ok();
        }
    }
}

fn half_changed() -> Machine {
    Machine {
        status: "paused",
        nodes: ["target0", "disk1"],
        jobs: vec![1],
        failing: vec![],
        told: vec![],
    }
}

#[test]
fn a_change_over_that_was_begun_is_brought_to_its_end_and_recorded() {
    let stage = Stage::new(half_changed());
    stage.make_room();
    stage.goes_on();
    stage.is_recorded([true, true]);
}

#[test]
fn a_disk_that_changed_over_alone_is_recorded_before_the_machine_goes_on() {
    let stage = Stage::new(Machine {
        failing: vec![1],
        ..half_changed()
    });
    stage.make_room();
    stage.goes_on();
    stage.is_recorded([true, false]);
}

#[test]
fn a_machine_whose_disks_cannot_be_recorded_waits_for_room() {
    let stage = Stage::new(half_changed());
    let has_changed = || stage.machine.lock().unwrap().nodes == ["target0", "target1"];
    wait_until("the disks have changed over", has_changed);
    let status = || fs::read_to_string(stage.work.path().join("status.json")).unwrap_or_default();
    wait_until("it says why it waits", || {
        status().contains("cannot be recorded")
    });
    assert_eq!(stage.machine.lock().unwrap().status, "paused");

    stage.make_room();
    stage.goes_on();
    stage.is_recorded([true, true]);
}

#[test]
fn a_machine_that_a_keeper_had_stopped_goes_on_with_the_next() {
    let stage = Stage::new(Machine {
        nodes: ["disk0", "disk1"],
        jobs: vec![0, 1],
        ..half_changed()
    });
    stage.make_room();
    stage.goes_on();
    let told = stage.machine.lock().unwrap().told.clone();
    assert!(!told.contains(&"block-job-complete".to_owned()), "{told:?}");
    assert!(!stage.record().exists());
}
