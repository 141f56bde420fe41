// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine that this guest can run on: a consequence of its drivers.
//!
//! Only hardware whose drivers the kernel that starts really has is offered: for disks inside its
//! initramfs (or built in), for network cards anywhere in its modules.

use disk::SectorSize;

use crate::guest::boot_sector::BootCode;
use crate::inspect::{DiskFacts, DriverPlace, Inspection, Kernel};
use crate::plan::PlanOptions;
use crate::plan::drivers::obstacle::obstacle;
use crate::vm::{
    DiskController, Firmware, Mainboard, NicModel, Profile, VmDefinition, VmDisk, VmNic,
};

const CPUS_DEFAULT: u32 = 2;
const MEMORY_BYTES_DEFAULT: u64 = 2 << 30;
const MEMORY_BYTES_MIN: u64 = 256 << 20;

/// Defines the machine; `kernel` is the one that starts.
pub(crate) fn define(
    inspection: &Inspection,
    kernel: Option<&Kernel>,
    nics: Vec<VmNic>,
    options: &PlanOptions,
) -> VmDefinition {
    let machine = inspection.machine.as_ref();
    let cpus = machine.map_or(CPUS_DEFAULT, |machine| machine.cpu.threads);
    let mainboard = mainboard(inspection, kernel);
    VmDefinition {
        name: options.server_name.clone(),
        firmware: inspection.firmware,
        mainboard,
        cpus: cpus.clamp(1, options.cpus_max.max(1)),
        memory_bytes: memory_bytes(inspection, options),
        profiles: kernel.map_or_else(Vec::new, |kernel| {
            let profiles = profiles(kernel, mainboard).into_iter();
            profiles
                .filter(|profile| has_sectors(profile.disk, inspection))
                .collect()
        }),
        disks: disks(inspection),
        nics,
        direct_boot: None,
        clock_utc: inspection
            .system
            .as_ref()
            .is_none_or(|system| system.clock_utc),
    }
}

/// The machine's memory.
pub(crate) fn memory_bytes(inspection: &Inspection, options: &PlanOptions) -> u64 {
    let machine = inspection.machine.as_ref();
    let memory = machine.map_or(MEMORY_BYTES_DEFAULT, |machine| machine.memory_bytes);
    let most = options.memory_bytes_max.max(MEMORY_BYTES_MIN);
    memory.clamp(MEMORY_BYTES_MIN, most)
}

/// The disk that holds the boot loader first: the root's, unless /boot or the ESP is elsewhere.
fn disks(inspection: &Inspection) -> Vec<VmDisk> {
    let mount = |path: &str| {
        let mut mounts = inspection.mounts.iter();
        let mount = mounts.find(|mount| mount.mount_point == path)?;
        inspection.volumes().disks_of(mount.volume).first().copied()
    };
    let first = match inspection.firmware {
        Firmware::Uefi => inspection.efi.as_ref().and_then(|efi| efi.volume.disk()),
        Firmware::Bios => mount("/boot").or_else(|| mount("/")),
    };
    let mut disks: Vec<VmDisk> = inspection
        .disks
        .iter()
        .map(|disk| VmDisk {
            index: disk.index,
            size_bytes: disk.size_bytes,
            sector_size: disk.sector_size,
        })
        .collect();
    // A disk without boot code cannot be started by a BIOS, whatever /boot says; one with the code of
    // another system starts that.
    let starts = |disk: &VmDisk| {
        let facts = inspection
            .disks
            .iter()
            .find(|facts| facts.index == disk.index);
        let is_ours =
            |facts: &DiskFacts| facts.boot_code && facts.boot_code_of != Some(BootCode::Windows);
        inspection.firmware == Firmware::Uefi || facts.is_some_and(is_ours)
    };
    disks.sort_by_key(|disk| (!starts(disk), first != Some(disk.index), disk.index));
    disks
}

/// Whether a controller has disks with sectors as these are: the partition tables count in them.
fn has_sectors(controller: DiskController, inspection: &Inspection) -> bool {
    let mut disks = inspection.disks.iter();
    !matches!(controller, DiskController::Sata | DiskController::Ide)
        || disks.all(|disk| disk.sector_size == SectorSize::B512)
}

/// Guests of 32 bits, and those without a driver of Q35's own disks, are older than it.
fn mainboard(inspection: &Inspection, kernel: Option<&Kernel>) -> Mainboard {
    let ahci = kernel.is_none_or(|kernel| kernel.driver("ahci") != DriverPlace::Absent);
    let system = inspection.system.as_ref();
    let i386 = system.is_some_and(|system| system.architecture.as_deref() == Some("i386"));
    match inspection.firmware {
        Firmware::Uefi => Mainboard::Q35,
        Firmware::Bios if ahci && !i386 => Mainboard::Q35,
        Firmware::Bios => Mainboard::Pc,
    }
}

/// Each controller with the drivers that it needs, best first.
const DISKS: [(DiskController, &[&str]); 6] = [
    (DiskController::VirtioBlk, &["virtio_pci", "virtio_blk"]),
    (
        DiskController::VirtioScsi,
        &["virtio_pci", "virtio_scsi", "sd_mod"],
    ),
    (DiskController::Sata, &["ahci", "sd_mod"]),
    (DiskController::Ide, &["ata_piix", "sd_mod"]),
    // Before libata.
    (DiskController::Ide, &["piix", "ide_disk"]),
    (DiskController::ScsiLsi, &["sym53c8xx", "sd_mod"]),
];

fn profiles(kernel: &Kernel, mainboard: Mainboard) -> Vec<Profile> {
    let on_board =
        |disk: &DiskController| *disk != DiskController::Ide || mainboard == Mainboard::Pc;
    let disks = controllers(kernel).into_iter().filter(on_board);
    disks
        .filter_map(|disk| {
            Some(Profile {
                disk,
                nic: nic(kernel, disk)?,
            })
        })
        .collect()
}

/// The controllers whose disks a kernel sees once the plan is applied, best first.
pub(crate) fn controllers(kernel: &Kernel) -> Vec<DiskController> {
    let at_boot = |driver: &&str| is_at_boot(kernel, driver);
    let mut controllers: Vec<DiskController> = DISKS
        .iter()
        .filter(|(_, drivers)| drivers.iter().all(at_boot))
        .map(|(controller, _)| *controller)
        .collect();
    controllers.dedup();
    controllers
}

/// Whether a driver is there when the root is looked for, once the plan is applied.
fn is_at_boot(kernel: &Kernel, driver: &str) -> bool {
    match kernel.driver(driver) {
        DriverPlace::BuiltIn | DriverPlace::InInitramfs => true,
        // The closure of the wanted drivers is what the plan adds.
        DriverPlace::Module => {
            let initramfs = kernel.initramfs.as_ref();
            initramfs.is_some_and(|initramfs| obstacle(initramfs).is_none())
                && kernel.closure.iter().any(|m| m.name == driver)
        }
        DriverPlace::Absent => false,
    }
}

/// The best card for a controller: virtio beside virtio, a well-known one beside the fallbacks.
fn nic(kernel: &Kernel, disk: DiskController) -> Option<NicModel> {
    const VIRTIO: (NicModel, &str) = (NicModel::Virtio, "virtio_net");
    const OTHERS: [(NicModel, &str); 4] = [
        (NicModel::E1000e, "e1000e"),
        (NicModel::E1000, "e1000"),
        (NicModel::Rtl8139, "8139cp"),
        (NicModel::Rtl8139, "8139too"),
    ];
    let is_virtio = matches!(disk, DiskController::VirtioBlk | DiskController::VirtioScsi);
    let mut order: Vec<(NicModel, &str)> = OTHERS.to_vec();
    order.insert(if is_virtio { 0 } else { OTHERS.len() }, VIRTIO);
    order
        .into_iter()
        .find(|(_, driver)| kernel.driver(driver) != DriverPlace::Absent)
        .map(|(model, _)| model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phony::debian_bookworm;
    use crate::plan::plan;

    #[test]
    fn disks_keep_their_sectors_and_get_controllers_that_have_such() {
        let mut guest = debian_bookworm();
        let define = |guest: &crate::phony::PhonyGuest| {
            let vm = plan(&guest.inspect(), &PlanOptions::new("web01")).vm;
            let disks: Vec<DiskController> = vm.profiles.iter().map(|p| p.disk).collect();
            (vm.disks[0].sector_size, disks)
        };
        let (sectors, disks) = define(&guest);
        assert_eq!(sectors, SectorSize::B512);
        assert!(disks.contains(&DiskController::Sata), "{disks:?}");
        guest.disks[0].sector_size = SectorSize::B4096;
        let (sectors, disks) = define(&guest);
        assert_eq!(sectors, SectorSize::B4096);
        assert_eq!(
            disks,
            [DiskController::VirtioBlk, DiskController::VirtioScsi]
        );
    }
}
