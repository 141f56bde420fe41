// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real machines of one boot sector: every controller, over NBD and an overlay, and their end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use converter::vm::{DiskController, Firmware, Mainboard, NicModel, Profile, VmDefinition};
use disk::block::{MemoryDevice, Overlay, OverlayOptions};
use disk::{ReadAt, SectorSize};
use rstest::rstest;

use super::*;
use crate::nbd::{Access, Export, Meter, Server};
use crate::network;
use crate::platform::{DiskOrder, KernelOrder, Status};
use crate::process::Lifetime;

const LENGTH: usize = 8 << 20;

/// QEMU, whatever it can do here; `None` where it is not installed.
fn qemu(directory: &Path) -> Option<Qemu> {
    if probe::version(Path::new(BINARY)).is_err() {
        eprintln!("skipped: {BINARY} is not installed");
        assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
        return None;
    }
    // What is found out about this computer is tested elsewhere.
    let configuration = QemuConfiguration {
        accelerator: Some(Accelerator::Tcg),
        ..QemuConfiguration::default()
    };
    Some(Qemu::open(&configuration, &directory.join("host.json")).unwrap())
}

/// Writes `up` to the serial port, then waits for ever.
fn boot_sector_disk() -> Arc<dyn ReadAt> {
    let code = [
        0xba, 0xf8, 0x03, 0xb0, b'u', 0xee, 0xb0, b'p', 0xee, 0xf4, 0xeb, 0xfd,
    ];
    let mut bytes = vec![0; LENGTH];
    bytes[..code.len()].copy_from_slice(&code);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    Arc::new(MemoryDevice::from(bytes))
}

/// An order, and the disks that it needs, served as a keeper would.
fn order(directory: &Path, disk: DiskController, firmware: Firmware) -> (Order, Served) {
    let image = boot_sector_disk();
    let file = directory.join("disk0.qcow2");
    let empty = Overlay::new(Arc::clone(&image), OverlayOptions::default());
    empty.save_qcow2(&file, None).unwrap();
    let forwards = network::free_forwards([80]).unwrap();
    let meter = Arc::new(Meter::new(image));
    let export = Export {
        name: export_name(0),
        access: Access::ReadOnly(Arc::clone(&meter) as _),
        block_size_bytes: 512,
    };
    let served = Served {
        meter,
        _server: Server::start(&directory.join("nbd"), vec![export]).unwrap(),
    };
    let order = Order {
        definition: VmDefinition {
            name: "sector".to_owned(),
            firmware,
            mainboard: Mainboard::Q35,
            cpus: 1,
            memory_bytes: 128 << 20,
            profiles: vec![],
            disks: vec![],
            nics: vec![],
            clock_utc: true,
            direct_boot: None,
        },
        profile: Profile {
            disk,
            nic: NicModel::E1000,
        },
        disks: vec![DiskOrder {
            file,
            is_overlay: true,
            is_kept: false,
            sector_size: SectorSize::B512,
        }],
        kernel: None,
        nics: network::plan("sector", &[], &[], forwards).unwrap(),
        nbd: directory.join("nbd"),
        lifetime: Lifetime::WithCommand,
        directory: directory.to_owned(),
        sockets: directory.to_owned(),
    };
    (order, served)
}

struct Served {
    meter: Arc<Meter>,
    _server: Server,
}

#[rstest]
fn a_guest_starts_from_every_controller_and_ends_when_it_is_dropped(
    #[values(
        DiskController::VirtioBlk,
        DiskController::VirtioScsi,
        DiskController::Sata,
        DiskController::Ide,
        DiskController::ScsiLsi
    )]
    disk: DiskController,
) {
    let directory = tempfile::tempdir().unwrap();
    let Some(qemu) = qemu(directory.path()) else {
        return;
    };
    let (order, served) = order(directory.path(), disk, Firmware::Bios);
    let machine = qemu.start(&order).unwrap();
    let process = machine.process().unwrap();
    assert_eq!(
        machine.console().unwrap(),
        b"",
        "the processors must not run yet"
    );
    machine.resume().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while !machine.console().unwrap().ends_with(b"up") {
        assert!(Instant::now() < end, "{:?}", machine.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(served.meter.reads().read_bytes >= 512);
    assert!(machine.screenshot().unwrap().starts_with(b"\x89PNG"));
    assert!(
        !machine.accepts(80).unwrap(),
        "a forward accepts, but no guest is behind it"
    );
    drop(machine);
    assert!(!process.is_alive());
}

/// As much of a kernel as writes its command line to the serial port, then waits for ever: the setup
/// code of the boot protocol of Linux on x86, which runs in real mode.
fn kernel_that_tells_its_command_line() -> Vec<u8> {
    let code = [
        0x0e, 0x58, 0x2d, 0x20, 0x00, 0x8e, 0xd8, // ds = cs - 0x20: the header's segment
        0x66, 0xa1, 0x28, 0x02, 0x66, 0xc1, 0xe8, 0x04, // eax = cmd_line_ptr >> 4
        0x8e, 0xc0, 0x31, 0xf6, 0xba, 0xf8, 0x03, // es = ax; si = 0; dx = COM1
        0x26, 0x8a, 0x04, 0x84, 0xc0, 0x74, 0x04, // al = es:[si]; at the zero, on to `hlt`
        0xee, 0x46, 0xeb, 0xf5, // write it; the next one
        0xf4, 0xeb, 0xfd, // hlt, for ever
    ];
    let mut kernel = vec![0; 3 * 512];
    kernel[0x1f1] = 1; // sectors of setup code
    kernel[0x200..0x202].copy_from_slice(&[0xeb, 0x3e]); // to 0x240
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&[0x04, 0x02]); // protocol 2.04
    kernel[0x211] = 1; // loaded high
    kernel[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes()); // end of the initramfs
    kernel[0x240..0x240 + code.len()].copy_from_slice(&code);
    kernel
}

#[test]
fn a_kernel_from_outside_is_started_in_place_of_the_disks_own_code() {
    let directory = tempfile::tempdir().unwrap();
    let Some(qemu) = qemu(directory.path()) else {
        return;
    };
    let (mut order, _served) = order(directory.path(), DiskController::VirtioBlk, Firmware::Bios);
    let place = directory.path().join("a, b=c");
    std::fs::create_dir(&place).unwrap();
    let (kernel, initramfs) = (place.join("kernel"), place.join("initramfs"));
    std::fs::write(&kernel, kernel_that_tells_its_command_line()).unwrap();
    std::fs::write(&initramfs, [7; 5000]).unwrap();
    let line = "root=UUID=0f4a ro isolcpus=1,2 a=\"b, c\"";
    order.kernel = Some(KernelOrder {
        kernel,
        initramfs: Some(initramfs),
        command_line: line.to_owned(),
    });
    let machine = qemu.start(&order).unwrap();
    machine.resume().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let mut told = String::new();
    while !told.ends_with(line) {
        assert!(Instant::now() < end, "{told:?}: {:?}", machine.status());
        std::thread::sleep(Duration::from_millis(20));
        told = String::from_utf8_lossy(&machine.console().unwrap()).into_owned();
    }
    assert!(!told.contains("up"), "the disk's code ran: {told}");
}

#[test]
fn a_machine_with_uefi_gets_firmware_and_variables_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let Some(qemu) = qemu(directory.path()) else {
        return;
    };
    let (order, _served) = order(directory.path(), DiskController::VirtioBlk, Firmware::Uefi);
    match qemu.start(&order) {
        Ok(machine) => {
            machine.resume().unwrap();
            assert_eq!(machine.status(), Status::Running);
            assert!(directory.path().join("uefi-vars.fd").exists());
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            assert_ne!(std::env::var("E2E_REQUIRE").as_deref(), Ok("all"));
        }
    }
}

#[test]
fn what_qemu_says_about_its_failure_is_in_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let Some(qemu) = qemu(directory.path()) else {
        return;
    };
    let (mut order, _served) = order(directory.path(), DiskController::VirtioBlk, Firmware::Bios);
    order.disks[0].file = directory.path().join("no-such.qcow2");
    let error = qemu.start(&order).unwrap_err().to_string();
    assert!(error.starts_with("virtual machine sector: "), "{error}");
    assert!(error.contains("no-such.qcow2"), "{error}");
}
