// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk controller and the network cards that a platform and a guest both know.
//!
//! | platform | controllers, best first | network cards, best first |
//! |---|---|---|
//! | libvirt, Proxmox VE | those of the machine's profiles | that of the profile |
//! | KubeVirt | the same, without IDE and LSI | that of the profile |
//! | VMware | PVSCSI, LSI Logic, SATA, IDE | vmxnet3, e1000e, e1000 |
//! | VMware and VirtualBox | LSI Logic, SATA, IDE | e1000, vmxnet3, e1000e |
//! | VirtualBox | SATA, LSI Logic, IDE | virtio, e1000 |
//! | Hyper-V generation 1 (BIOS) | IDE, which `hv_storvsc` drives as well | Hyper-V, DEC 21140 |
//! | Hyper-V generation 2 (UEFI) | Hyper-V SCSI | Hyper-V |
//! | Xen | Xen's block device, IDE | Xen's, e1000, rtl8139 |
//!
//! LSI Logic is the 53C1030 (`mptspi`), which is not the 53C895A (`sym53c8xx`) of QEMU.

use disk::{Finding, Level};
use serde::Serialize;

use super::guest::Use;
use super::{Export, Platform, Target};
use crate::inspect::findings::{WithRemedy, finding};
use crate::vm::{DiskController, Firmware, NicModel};

/// What the disks hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
    /// AHCI.
    Sata,
    /// IDE (PIIX).
    Ide,
    /// LSI 53C895A, of QEMU.
    Lsi53c895a,
    /// LSI Logic 53C1030, of VMware and VirtualBox.
    LsiLogic,
    /// VMware's own.
    Pvscsi,
    /// Hyper-V's own.
    HyperVScsi,
    /// Xen's own.
    XenBlock,
}

/// A model of network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Card {
    /// virtio-net.
    Virtio,
    /// Intel 82574L.
    E1000e,
    /// Intel 82540EM or 82545EM.
    E1000,
    /// Realtek 8139.
    Rtl8139,
    /// VMware's own.
    Vmxnet3,
    /// Hyper-V's own.
    HyperV,
    /// DEC 21140, Hyper-V's "legacy network adapter".
    Dec21140,
    /// Xen's own.
    Xen,
}

/// What was chosen for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// What the disks hang on.
    pub controller: Controller,
    /// The network cards.
    pub card: Card,
    /// Whether virtio devices must have the interface from before virtio 1.0 as well.
    pub old_virtio: bool,
}

/// Sets of drivers; each is enough.
type Drivers = &'static [&'static [&'static str]];

const PVSCSI: (Controller, Drivers) = (Controller::Pvscsi, &[&["vmw_pvscsi", "sd_mod"]]);
const LSI_LOGIC: (Controller, Drivers) = (Controller::LsiLogic, &[&["mptspi", "sd_mod"]]);
const SATA: (Controller, Drivers) = (Controller::Sata, &[&["ahci", "sd_mod"]]);
const IDE: (Controller, Drivers) = (Controller::Ide, &[&["ata_piix", "sd_mod"]]);
const HYPERV: &[&str] = &["hv_storvsc", "sd_mod"];
const HYPERV_IDE: (Controller, Drivers) = (Controller::Ide, &[HYPERV, &["ata_piix", "sd_mod"]]);
const HYPERV_SCSI: (Controller, Drivers) = (Controller::HyperVScsi, &[HYPERV]);
const XEN_BLOCK: (Controller, Drivers) = (Controller::XenBlock, &[&["xen_blkfront"]]);

impl Controller {
    /// How many disks one has room for; more hang on a second one, but for IDE, of which there is one.
    pub(super) const fn disks_each(self) -> usize {
        match self {
            Self::VirtioBlk => 1,
            Self::VirtioScsi => 255,
            Self::Sata => 6,
            Self::Ide => 4,
            Self::Lsi53c895a => 7,
            Self::LsiLogic | Self::Pvscsi => 15,
            Self::HyperVScsi => 64,
            Self::XenBlock => usize::MAX,
        }
    }

    const fn of_profile(controller: DiskController) -> Self {
        match controller {
            DiskController::VirtioBlk => Self::VirtioBlk,
            DiskController::VirtioScsi => Self::VirtioScsi,
            DiskController::Sata => Self::Sata,
            DiskController::Ide => Self::Ide,
            DiskController::ScsiLsi => Self::Lsi53c895a,
        }
    }
}

impl Card {
    const fn of_profile(nic: NicModel) -> Self {
        match nic {
            NicModel::Virtio => Self::Virtio,
            NicModel::E1000e => Self::E1000e,
            NicModel::E1000 => Self::E1000,
            NicModel::Rtl8139 => Self::Rtl8139,
        }
    }

    const fn drivers(self) -> Drivers {
        match self {
            Self::Virtio => &[&["virtio_pci", "virtio_net"]],
            Self::E1000e => &[&["e1000e"]],
            Self::E1000 => &[&["e1000"]],
            Self::Rtl8139 => &[&["8139cp"], &["8139too"]],
            Self::Vmxnet3 => &[&["vmxnet3"]],
            Self::HyperV => &[&["hv_netvsc"]],
            Self::Dec21140 => &[&["tulip"]],
            Self::Xen => &[&["xen_netfront"]],
        }
    }
}

/// Chooses; what is missing is among the findings.
pub(super) fn choose(
    target: Target,
    platform: Platform,
    export: &Export<'_>,
    findings: &mut Vec<Finding>,
) -> Hardware {
    let level = match target.document_ending() {
        Some(_) => Level::Error,
        // Somebody may know what to do with the disks.
        None => Level::Warning,
    };
    let is_qemu = matches!(
        platform,
        Platform::Libvirt | Platform::Proxmox | Platform::Kubevirt
    );
    let (controller, card) = match is_qemu {
        true => of_profiles(platform, export, level, findings),
        false => of_drivers(platform, export, level, findings),
    };
    check_count(platform, controller, export, level, findings);
    Hardware {
        controller,
        card,
        old_virtio: export.guest.wants_old_virtio(),
    }
}

fn has_large_sectors(export: &Export<'_>) -> bool {
    let mut disks = export.disks.iter();
    disks.any(|disk| disk.sector_size.bytes() != 512)
}

/// QEMU has all that the profiles name.
fn of_profiles(
    platform: Platform,
    export: &Export<'_>,
    level: Level,
    findings: &mut Vec<Finding>,
) -> (Controller, Card) {
    let large_sectors = has_large_sectors(export);
    let on_platform = |controller| match controller {
        Controller::VirtioBlk | Controller::VirtioScsi => true,
        Controller::Sata => !large_sectors,
        Controller::Ide => platform != Platform::Kubevirt && !large_sectors,
        _ => platform != Platform::Kubevirt,
    };
    let mut profiles = export.vm.profiles.iter().map(|profile| {
        let controller = Controller::of_profile(profile.disk);
        (controller, Card::of_profile(profile.nic))
    });
    if let Some(chosen) = profiles.find(|(controller, _)| on_platform(*controller)) {
        return chosen;
    }
    if large_sectors && !export.vm.profiles.is_empty() {
        findings.push(sectors(level, "virtio and SCSI"));
    } else {
        findings.push(no_driver(level, platform));
    }
    (Controller::VirtioBlk, Card::Virtio)
}

/// Elsewhere it is the drivers that count.
fn of_drivers(
    platform: Platform,
    export: &Export<'_>,
    level: Level,
    findings: &mut Vec<Finding>,
) -> (Controller, Card) {
    if has_large_sectors(export) {
        findings.push(sectors(level, "no"));
    }
    let offers = controllers(platform, export.vm.firmware);
    let mut best = (Use::Never, offers[0].0);
    for (controller, drivers) in offers {
        let found = use_of_controller(export, *controller, drivers);
        if found > best.0 {
            best = (found, *controller);
        }
    }
    match best.0 {
        Use::AtBoot => {}
        Use::Late => findings.push(late(level, platform, offers, export)),
        Use::Never => findings.push(no_driver(level, platform)),
    }
    (best.1, card(platform, export, findings))
}

fn controllers(platform: Platform, firmware: Firmware) -> &'static [(Controller, Drivers)] {
    match (platform, firmware) {
        (Platform::VmwareOrVirtualBox, _) => &[LSI_LOGIC, SATA, IDE],
        (Platform::VirtualBox, _) => &[SATA, LSI_LOGIC, IDE],
        (Platform::HyperV, Firmware::Bios) => &[HYPERV_IDE],
        (Platform::HyperV, Firmware::Uefi) => &[HYPERV_SCSI],
        (Platform::Xen, _) => &[XEN_BLOCK, IDE],
        (Platform::Vmware | Platform::Libvirt | Platform::Proxmox | Platform::Kubevirt, _) => {
            &[PVSCSI, LSI_LOGIC, SATA, IDE]
        }
    }
}

/// A profile proves that its drivers are there, for guests too whose drivers have other names.
fn use_of_controller(export: &Export<'_>, controller: Controller, drivers: Drivers) -> Use {
    let mut profiles = export.vm.profiles.iter();
    if profiles.any(|profile| Controller::of_profile(profile.disk) == controller) {
        return Use::AtBoot;
    }
    let sets = drivers.iter().map(|set| export.guest.all(set));
    sets.max().unwrap_or(Use::Never)
}

fn card(platform: Platform, export: &Export<'_>, findings: &mut Vec<Finding>) -> Card {
    let cards: &[Card] = match (platform, export.vm.firmware) {
        (Platform::VmwareOrVirtualBox, _) => &[Card::E1000, Card::Vmxnet3, Card::E1000e],
        (Platform::VirtualBox, _) => &[Card::Virtio, Card::E1000],
        (Platform::HyperV, Firmware::Bios) => &[Card::HyperV, Card::Dec21140],
        (Platform::HyperV, Firmware::Uefi) => &[Card::HyperV],
        (Platform::Xen, _) => &[Card::Xen, Card::E1000, Card::Rtl8139],
        (Platform::Vmware | Platform::Libvirt | Platform::Proxmox | Platform::Kubevirt, _) => {
            &[Card::Vmxnet3, Card::E1000e, Card::E1000]
        }
    };
    let known = |card: &&Card| {
        let mut profiles = export.vm.profiles.iter();
        profiles.any(|profile| Card::of_profile(profile.nic) == **card)
            || card
                .drivers()
                .iter()
                .any(|set| export.guest.all(set) != Use::Never)
    };
    if let Some(card) = cards.iter().find(known) {
        return *card;
    }
    if !export.vm.nics.is_empty() {
        findings.push(
            finding(
                Level::Warning,
                "export.card.no-driver",
                platform.text(),
                "the guest has a driver for none of the network cards of this platform",
            )
            .remedy("install the kernel's package with all modules, and take a new image"),
        );
    }
    cards[0]
}

fn check_count(
    platform: Platform,
    controller: Controller,
    export: &Export<'_>,
    level: Level,
    findings: &mut Vec<Finding>,
) {
    // The disks behind the fourth of a machine of generation 1 are on SCSI.
    let more = platform == Platform::HyperV && export.guest.all(HYPERV) == Use::AtBoot;
    let limit = disks_max(platform, controller);
    if export.disks.len() > limit && !more {
        let count = export.disks.len();
        let problem = format!("there is room for {limit} disks, the server has {count}");
        findings.push(
            finding(level, "export.disks.too-many", platform.text(), problem)
                .remedy("add the drivers of a better controller to the guest's initramfs"),
        );
    }
}

/// How many disks a machine can have.
const fn disks_max(platform: Platform, controller: Controller) -> usize {
    match (platform, controller) {
        (_, Controller::Ide) => Controller::Ide.disks_each(),
        // `man qm.conf`: virtio0 to virtio15, sata0 to sata5, scsi0 to scsi30.
        (Platform::Proxmox, Controller::VirtioBlk) => 16,
        (Platform::Proxmox, Controller::Sata) => 6,
        (Platform::Proxmox, _) => 31,
        (_, Controller::HyperVScsi) => 64,
        // Four controllers of each kind.
        (Platform::Vmware | Platform::VmwareOrVirtualBox, controller) => {
            4 * controller.disks_each()
        }
        _ => usize::MAX,
    }
}

fn sectors(level: Level, which: &str) -> Finding {
    let problem = format!(
        "a disk has sectors of 4096 bytes, which {which} disks of this platform have: the guest \
         would not find its partitions"
    );
    finding(level, "export.sector-size", "the disks", problem)
        .remedy("recover it with QEMU, libvirt, Proxmox VE or KubeVirt, on virtio")
}

fn no_driver(level: Level, platform: Platform) -> Finding {
    finding(
        level,
        "export.controller.no-driver",
        platform.text(),
        "the kernel that starts has a driver for none of the disk controllers of this platform",
    )
    .remedy("add one to the guest's initramfs on the server and take a new image")
}

fn late(
    level: Level,
    platform: Platform,
    offers: &[(Controller, Drivers)],
    export: &Export<'_>,
) -> Finding {
    let sets = offers.iter().flat_map(|(_, drivers)| drivers.iter());
    let mut modules = sets.filter(|set| export.guest.all(set) != Use::Never);
    let modules = modules.next().map_or_else(String::new, |set| set.join(" "));
    finding(
        level,
        "export.controller.driver-not-at-boot",
        platform.text(),
        format!(
            "the guest has drivers for this platform ({modules}), but they are not in the \
             initramfs that starts: it would not find its root"
        ),
    )
    .remedy(format!(
        "on the server: add {modules} to /etc/initramfs-tools/modules and run `update-initramfs \
         -u`, or run `dracut --force --add-drivers \"{modules}\"`; then take a new image"
    ))
}

impl Platform {
    /// Its name for a message.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt",
            Self::Proxmox => "Proxmox VE",
            Self::Kubevirt => "KubeVirt",
            Self::Xen => "Xen",
            Self::Vmware => "VMware",
            Self::VmwareOrVirtualBox => "VMware and VirtualBox",
            Self::HyperV => "Hyper-V",
            Self::VirtualBox => "VirtualBox",
        }
    }
}
