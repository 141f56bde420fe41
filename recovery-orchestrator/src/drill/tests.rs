// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole drills on the fake platform: every way in which they end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use converter::inspect::{FilePlace, VolumeId};
use converter::vm::{
    DirectBoot, DiskController, Firmware, KernelFiles, Mainboard, NicModel, Profile, VmDefinition,
    VmDisk, VmNic,
};
use disk::block::Reads;
use disk::{ReadAt, Recorder, SectorSize};
use image_library::{Consistency, DiskIndex, Image, ImageDisk, ImageId};

use super::*;
use crate::check::Outcome;
use crate::guest::{Conversion, EditRecord, Guest, GuestDisk};
use crate::journal::{self, Event, ProcessIdentity, RunKind, RunOutcome, Scope};
use crate::platform::fake::{Behaviour, Fake, FakeKeepers};
use crate::runbook;

const RUNBOOK: &str = "\
version: 1
name: shop
title: The shop
objectives: { rpo: 24h, rto: 5m }
networks: { lan: { mode: isolated, subnet: 10.20.0.0/24 } }
servers:
  db01: { network: [lan], checks: [ { console: { expect: \"login:\", within: 2s } } ] }
  web01:
    network: [lan]
    checks:
      - tcp: { port: 80, within: 2s }
      - http: { port: 80, path: /, contains: open, within: 2s }
plan:
  - start: [db01]
  - confirm: { text: The owner agrees }
  - start: [web01]
";

/// 2026-11-21, 03:00 UTC.
fn clock() -> Timestamp {
    "2026-11-21T03:00:00Z".parse().unwrap()
}

#[derive(Debug)]
struct Zeros;

impl ReadAt for Zeros {
    fn length_bytes(&self) -> u64 {
        1 << 20
    }
    fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        buffer.fill(0);
        Ok(())
    }
}

/// A library in memory, and guests of its images.
#[derive(Debug)]
struct Shelf {
    images: Vec<Image>,
    /// Whose disks do not start by themselves.
    with_kernel: &'static str,
}

fn image(server: &str, number: u128) -> Image {
    Image {
        id: ImageId::from_uuid(uuid::Uuid::from_u128(number)),
        server: server.parse().unwrap(),
        taken_at: "2026-11-20T23:30:00Z".parse().unwrap(),
        received_at: "2026-11-20T23:31:00Z".parse().unwrap(),
        consistency: Consistency::Filesystem,
        machine: None,
        disks: vec![ImageDisk {
            index: DiskIndex(0),
            name: "sda".to_owned(),
            size_bytes: 1 << 20,
            sector_size: SectorSize::B512,
            manifest: "00".repeat(32),
            data_bytes: 0,
        }],
        parent: None,
        stored_bytes: 0,
        generation: 0,
    }
}

impl image_library::ImageReader for Shelf {
    fn images(&self) -> image_library::Result<Vec<Image>> {
        Ok(self.images.clone())
    }
    fn image(&self, id: ImageId) -> image_library::Result<Image> {
        let found = self.images.iter().find(|image| image.id == id).cloned();
        found.ok_or_else(|| image_library::Error::NoSuchImage {
            problem: format!("no image {id}"),
        })
    }
    fn open_disk(&self, _id: ImageId, _disk: DiskIndex) -> image_library::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Zeros))
    }
    fn side_file(&self, _id: ImageId, _name: &str) -> image_library::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn put_side_file(
        &self,
        _id: ImageId,
        _name: &str,
        _content: &[u8],
    ) -> image_library::Result<()> {
        Ok(())
    }
}

impl GuestSource for Shelf {
    fn prepare(&self, image: &Image, _monitor: &dyn Monitor) -> Result<Guest> {
        let mut definition = definition(image.server.as_str());
        let has_kernel = definition.name == self.with_kernel;
        definition.direct_boot = has_kernel.then(direct_boot);
        Ok(Guest {
            image: image.id,
            definition,
            disks: vec![GuestDisk {
                index: DiskIndex(0),
                size_bytes: 1 << 20,
                sector_size: SectorSize::B512,
                overlay: None,
            }],
            kernel: has_kernel.then(|| KernelFiles {
                kernel: b"a kernel".to_vec(),
                initramfs: Some(b"its initramfs".to_vec()),
            }),
            conversion: Conversion {
                reused: true,
                edits: vec![EditRecord {
                    path: "/etc/fstab".to_owned(),
                    verb: "change".to_owned(),
                    reasons: vec!["/dev/sda1 will be called otherwise".to_owned()],
                    detail: "-/dev/sda1 / ext4\n+UUID=1234 / ext4".to_owned(),
                }],
                findings: vec![],
                reads: Reads {
                    request_count: 40,
                    read_bytes: 3 << 20,
                    block_count: 48,
                },
            },
        })
    }
}

fn direct_boot() -> DirectBoot {
    let place = |path: &str| FilePlace {
        volume: VolumeId::on_disk(DiskIndex(0), None),
        path: path.to_owned(),
        guest_path: path.to_owned(),
    };
    DirectBoot {
        kernel: place("/vmlinuz"),
        initramfs: Some(place("/initrd.img")),
        command_line: "root=UUID=1234 ro".to_owned(),
    }
}

fn definition(name: &str) -> VmDefinition {
    let profile = |disk, nic| Profile { disk, nic };
    VmDefinition {
        name: name.to_owned(),
        firmware: Firmware::Bios,
        mainboard: Mainboard::Q35,
        cpus: 1,
        memory_bytes: 64 << 20,
        profiles: vec![
            profile(DiskController::VirtioBlk, NicModel::Virtio),
            profile(DiskController::Sata, NicModel::E1000e),
        ],
        disks: vec![VmDisk {
            index: DiskIndex(0),
            size_bytes: 1 << 20,
            sector_size: SectorSize::B512,
        }],
        nics: vec![VmNic {
            name: "enp3s0".to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            addresses: vec!["10.20.0.5/24".to_owned()],
            gateway: Some("10.20.0.1".to_owned()),
        }],
        clock_utc: true,
        direct_boot: None,
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    state: StateDirectory,
    shelf: Shelf,
    interrupt: Interrupt,
    monitor: Recorder,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    Fixture {
        state: StateDirectory::open(&directory.path().join("state"), directory.path()).unwrap(),
        directory,
        shelf: Shelf {
            images: vec![image("db01", 1), image("web01", 2)],
            with_kernel: "",
        },
        interrupt: Interrupt::default(),
        monitor: Recorder::default(),
    }
}

impl Fixture {
    fn run(&self, text: &str, platform: &Fake) -> Result<Report> {
        let loaded = LoadedRunbook {
            runbook: runbook::parse(Path::new("shop.yaml"), text).unwrap(),
            file: "shop.yaml".into(),
            text: text.to_owned(),
        };
        let drill = Drill {
            runbook: &loaded,
            reader: &self.shelf,
            guests: &self.shelf,
            keepers: &FakeKeepers,
            platform,
            state: &self.state,
            clock,
            command_started: Instant::now(),
            monitor: &self.monitor,
            interrupt: &self.interrupt,
        };
        let drilled = drill.run(Some(self.directory.path().join("report")));
        assert_eq!(platform.running_count(), 0, "a machine is left");
        assert_eq!(journal::leftovers(&self.state, Scope::All).unwrap(), []);
        assert_eq!(std::fs::read_dir(self.state.runs()).unwrap().count(), 0);
        drilled.map(|drilled| drilled.report)
    }
}

#[test]
fn a_drill_whose_checks_all_pass_has_passed() {
    let fixture = fixture();
    let report = fixture
        .run(RUNBOOK, &Fake::new(Behaviour::Boots, 7))
        .unwrap();
    assert_eq!(
        (report.outcome, &report.problem),
        (RunOutcome::Passed, &None)
    );
    assert_eq!(report.objectives.data_age_seconds, Some(12_600));
    assert_eq!(
        (report.objectives.rto_met(), report.objectives.rpo_met()),
        (Some(true), Some(true))
    );
    assert_eq!(report.confirmations, ["The owner agrees"]);
    let waves: Vec<_> = report
        .servers
        .iter()
        .map(|server| (server.name.as_str(), server.wave))
        .collect();
    assert_eq!(waves, [("db01", 1), ("web01", 2)]);
    for server in &report.servers {
        assert_eq!(
            server.image.digest_after.as_ref(),
            Some(&server.image.digest_before)
        );
        assert_eq!(server.attempts.len(), 1);
    }
    let kept = Report::open(&fixture.directory.path().join("report/report.json")).unwrap();
    assert_eq!(kept, report);
    let stages = fixture.monitor.stages();
    assert!(
        stages.contains(&"Starting web01 on virtio/virtio".to_owned()),
        "{stages:?}"
    );
}

#[test]
fn a_server_is_given_its_kernel_with_every_profile_that_is_tried() {
    let mut fixture = fixture();
    fixture.shelf.with_kernel = "web01";
    let needs_sata = Behaviour::NeedsController(DiskController::Sata);
    let report = fixture.run(RUNBOOK, &Fake::new(needs_sata, 7)).unwrap();
    assert_eq!(report.outcome, RunOutcome::Passed, "{:?}", report.problem);
    let web = report.servers.iter().find(|server| server.name == "web01");
    assert_eq!(web.unwrap().attempts.len(), 2);
}

#[test]
fn the_values_of_a_report_keep_their_form() {
    let report = fixture()
        .run(RUNBOOK, &Fake::new(Behaviour::Boots, 7))
        .unwrap();
    let mut value = serde_json::to_value(&report).unwrap();
    fix(&mut value);
    insta::assert_json_snapshot!(value);
}

/// Replaces what differs from run to run: names of runs and measured milliseconds.
fn fix(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                let varies = key.ends_with("_ms") && inner.is_number();
                if varies || matches!(key.as_str(), "run" | "attempt_count" | "program") {
                    *inner = format!("[{key}]").into();
                } else {
                    fix(inner);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(fix),
        _ => {}
    }
}

#[test]
fn a_check_that_is_not_answered_in_time_fails_the_drill_and_keeps_the_console() {
    let platform = Fake::new(Behaviour::NoService, 7);
    let report = fixture().run(RUNBOOK, &platform).unwrap();
    assert_eq!(report.outcome, RunOutcome::Failed);
    let problem = report.problem.unwrap();
    assert!(
        problem.starts_with("web01: tcp port 80 accepts: not within 2s: "),
        "{problem}"
    );
    let attempt = &report.servers[1].attempts[0];
    assert!(attempt.console_tail.ends_with("guest login: "));
    assert_eq!(report.objectives.recovered_after_ms, None);
}

#[test]
fn a_wrong_answer_is_told_and_later_waves_are_not_started() {
    let text = RUNBOOK
        .replace("- start: [db01]", "- start: [web01]")
        .replacen("  - start: [web01]\n", "@", 1);
    let text = text
        .replace("  - start: [web01]", "  - start: [db01]")
        .replace('@', "  - start: [web01]\n");
    let report = fixture()
        .run(&text, &Fake::new(Behaviour::AnswersStatus(503), 7))
        .unwrap();
    assert!(
        report
            .problem
            .unwrap()
            .ends_with("the answer has status 503")
    );
    assert_eq!(report.servers[1].attempts, []);
}

#[test]
fn a_guest_that_does_not_boot_is_given_the_next_profile_and_the_runbook_a_proposal() {
    let platform = Fake::new(Behaviour::NeedsController(DiskController::Sata), 7);
    let report = fixture().run(RUNBOOK, &platform).unwrap();
    assert_eq!(report.outcome, RunOutcome::Passed);
    let attempts = &report.servers[0].attempts;
    let profiles: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.profile.as_str())
        .collect();
    assert_eq!(profiles, ["virtio/virtio", "sata/e1000e"]);
    assert!(
        attempts[0]
            .problem
            .as_ref()
            .unwrap()
            .contains("ALERT!  /dev/sda1 does not exist")
    );
    let proposal = &report.proposals[0];
    assert_eq!(
        (proposal.key.as_str(), proposal.to.as_str()),
        ("servers.db01.hardware.profile", "sata/e1000e")
    );
}

#[test]
fn a_sign_of_failure_on_the_console_ends_the_wait_at_once() {
    let text = RUNBOOK.replace("within: 2s", "within: 10m");
    let platform = Fake::new(Behaviour::NeedsController(DiskController::Ide), 7);
    let start = Instant::now();
    let report = fixture().run(&text, &platform).unwrap();
    assert_eq!(
        (report.outcome, report.servers[0].attempts.len()),
        (RunOutcome::Failed, 2)
    );
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_machine_that_ends_by_itself_or_never_starts_fails_the_drill() {
    let report = fixture()
        .run(RUNBOOK, &Fake::new(Behaviour::PowersOff, 7))
        .unwrap();
    assert!(
        report
            .problem
            .unwrap()
            .contains("the machine has ended: powered off")
    );
    let report = fixture()
        .run(RUNBOOK, &Fake::new(Behaviour::CannotStart, 7))
        .unwrap();
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(
        report.problem.as_deref(),
        Some("virtual machine db01: scripted not to start")
    );
}

#[test]
fn ctrl_c_ends_the_drill_cleanly_and_the_report_says_so() {
    let fixture = fixture();
    let interrupt = fixture.interrupt.clone();
    let text = RUNBOOK.replace("within: 2s", "within: 10m");
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        interrupt.raise();
    });
    let report = fixture.run(&text, &Fake::new(Behaviour::Hangs, 7)).unwrap();
    thread.join().unwrap();
    assert_eq!(report.outcome, RunOutcome::Interrupted);
    assert_eq!(
        report.servers[0].attempts[0].checks[0].outcome,
        Outcome::Interrupted
    );
}

#[test]
fn a_slow_guest_is_waited_for() {
    let platform = Fake::new(Behaviour::BootsSlowly(Duration::from_millis(900)), 7);
    let report = fixture().run(RUNBOOK, &platform).unwrap();
    assert_eq!(report.outcome, RunOutcome::Passed);
    assert!(report.servers[0].attempts[0].checks[0].after_start_ms >= 900);
}

#[test]
fn a_server_without_image_is_an_error_before_anything_starts() {
    let mut fixture = fixture();
    fixture.shelf.images.pop();
    let error = fixture
        .run(RUNBOOK, &Fake::new(Behaviour::Boots, 7))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no image web01: the library has no image of this server"
    );
    assert!(error.hint().unwrap().ends_with("there are images of: db01"));
}

#[test]
fn what_a_killed_drill_left_is_cleaned_up_by_the_next_one() {
    let fixture = fixture();
    let mut machine = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let scratch = begin(&fixture.state, RunKind::Drill, "shop", clock).unwrap();
    let process = ProcessIdentity::of(machine.id()).unwrap();
    scratch
        .journal
        .record(Event::MachineStarted {
            server: "web01".to_owned(),
            process,
        })
        .unwrap();
    let (run, sockets) = (scratch.run.clone(), scratch.sockets.clone());
    // As SIGKILL does it: no destructor runs, and the command is another process.
    std::mem::forget(scratch);
    let path = fixture.state.journal(&run);
    let own = format!("\"pid\":{}", std::process::id());
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace(&own, "\"pid\":4194305");
    std::fs::write(&path, text).unwrap();

    let report = fixture
        .run(RUNBOOK, &Fake::new(Behaviour::Boots, 7))
        .unwrap();
    assert!(!machine.wait().unwrap().success());
    assert!(!sockets.exists());
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.code == "drill.leftover")
        .unwrap();
    assert_eq!(finding.place, run.as_str());
}

#[test]
fn old_data_fails_a_drill_whose_runbook_has_an_objective_for_it() {
    let text = RUNBOOK.replace("rpo: 24h", "rpo: 1h");
    let report = fixture()
        .run(&text, &Fake::new(Behaviour::Boots, 7))
        .unwrap();
    assert_eq!(
        report.problem.as_deref(),
        Some("the data is older than its objective (RPO)")
    );
    assert_eq!(
        report
            .findings
            .iter()
            .filter(|finding| finding.code == "runbook.image.old")
            .count(),
        2
    );
}

#[test]
fn a_runbook_is_checked_against_the_library() {
    let mut fixture = fixture();
    fixture.shelf.images.remove(0);
    let runbook = runbook::parse(Path::new("shop.yaml"), RUNBOOK).unwrap();
    let findings = check(&runbook, &fixture.shelf, clock()).unwrap();
    let codes: Vec<_> = findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert_eq!(codes, ["runbook.network.separate", "runbook.image.missing"]);
}
