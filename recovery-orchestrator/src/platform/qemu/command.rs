// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of a machine: a pure function of what was ordered, golden-tested.
//!
//! Everything is explicit (`-nodefaults`), so that a new QEMU gives the same machine. The network
//! cards sit from slot 0x10 on, away from where the hardware's or another hypervisor's were.

use std::path::{Path, PathBuf};

use converter::vm::{DiskController, Mainboard, NicModel, check_command_line};
use serde_json::{Value, json};

use super::firmware::Uefi;
use super::probe::Host;
use crate::error::{Error, Result};
use crate::network::NicPlan;
use crate::platform::{DiskOrder, KernelOrder, Order};

/// No privileges, no other programs, no other users' resources.
pub(super) const SANDBOX: &str =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
const FIRST_NIC_SLOT: usize = 0x10;
const MIB: u64 = 1 << 20;

/// Where a machine's sockets and files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) qmp: PathBuf,
    pub(super) watch: PathBuf,
    pub(super) console: PathBuf,
    pub(super) console_log: PathBuf,
}

/// The name of a disk's NBD export.
pub(crate) fn export_name(index: usize) -> String {
    format!("disk{index}")
}

/// The arguments of QEMU.
pub(super) fn arguments(
    host: &Host,
    order: &Order,
    places: &Places,
    firmware: Option<&Uefi>,
) -> Result<Vec<String>> {
    let mut arguments = Arguments::default();
    arguments.base(host, order);
    arguments.firmware(firmware);
    arguments.control(places);
    arguments.disks(order)?;
    if let Some(kernel) = &order.kernel {
        arguments.kernel(kernel, &order.definition.name)?;
    }
    for (index, nic) in order.nics.iter().enumerate() {
        arguments.nic(index, nic, order.profile.nic);
    }
    if order.profile.nic == NicModel::Virtio {
        arguments.add("-object", "rng-random,id=entropy,filename=/dev/urandom");
        arguments.add("-device", "virtio-rng-pci,rng=entropy");
    }
    Ok(arguments.0)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn flag(&mut self, option: &str) {
        self.0.push(option.to_owned());
    }

    fn base(&mut self, host: &Host, order: &Order) {
        let definition = &order.definition;
        self.flag("-no-user-config");
        self.flag("-nodefaults");
        self.add("-name", format!("relevo-{}", definition.name));
        self.add("-machine", mainboard(order));
        self.add("-accel", host.accelerator.options());
        self.add("-cpu", host.accelerator.processor());
        self.add("-smp", definition.cpus.max(1).to_string());
        self.add("-m", format!("{}M", (definition.memory_bytes / MIB).max(1)));
        let base = if definition.clock_utc {
            "utc"
        } else {
            "localtime"
        };
        self.add("-rtc", format!("base={base}"));
        self.add("-display", "none");
        self.add("-vga", "std");
        self.add("-boot", "menu=off,strict=on");
        if host.sandbox {
            self.add("-sandbox", SANDBOX);
        }
        // The processors wait for `cont`, the moment from which recovery is measured.
        self.flag("-S");
    }

    fn firmware(&mut self, firmware: Option<&Uefi>) {
        let Some(Uefi { code, vars }) = firmware else {
            return;
        };
        let drive = "if=pflash,format=raw";
        self.add(
            "-drive",
            format!("{drive},unit=0,readonly=on,file={}", escaped(code)),
        );
        self.add("-drive", format!("{drive},unit=1,file={}", escaped(vars)));
    }

    fn control(&mut self, places: &Places) {
        let socket = |id: &str, path: &Path| {
            format!("socket,id={id},path={},server=on,wait=off", escaped(path))
        };
        for (id, path) in [("qmp", &places.qmp), ("watch", &places.watch)] {
            self.add("-chardev", socket(id, path));
            self.add("-mon", format!("chardev={id},mode=control"));
        }
        let log = escaped(&places.console_log);
        self.add(
            "-chardev",
            format!("{},logfile={log}", socket("console", &places.console)),
        );
        self.add("-serial", "chardev:console");
    }

    fn disks(&mut self, order: &Order) -> Result<()> {
        let controller = order.profile.disk;
        check_disks(order)?;
        for bus in 0..order.disks.len().div_ceil(disks_per_bus(controller)) {
            match controller {
                DiskController::VirtioScsi => {
                    self.add("-device", format!("virtio-scsi-pci,id=scsi{bus}"));
                }
                DiskController::Sata => self.add("-device", format!("ich9-ahci,id=sata{bus}")),
                DiskController::ScsiLsi => self.add("-device", format!("lsi53c895a,id=scsi{bus}")),
                DiskController::VirtioBlk | DiskController::Ide => {}
            }
        }
        for (index, disk) in order.disks.iter().enumerate() {
            for node in block_nodes(index, disk, &order.nbd) {
                self.add("-blockdev", node.to_string());
            }
            self.add("-device", disk_device(controller, index, disk));
        }
        Ok(())
    }

    /// These values are taken as they are: a comma in one ends nothing, and would be two if doubled.
    /// The firmware starts the kernel before it looks at any disk.
    fn kernel(&mut self, kernel: &KernelOrder, name: &str) -> Result<()> {
        check_command_line(&kernel.command_line).map_err(|problem| Error::Machine {
            name: name.to_owned(),
            problem,
            hint: Some("look at `append` in the guest's /etc/lilo.conf".to_owned()),
        })?;
        self.add("-kernel", kernel.kernel.display().to_string());
        if let Some(initramfs) = &kernel.initramfs {
            self.add("-initrd", initramfs.display().to_string());
        }
        self.add("-append", &kernel.command_line);
        Ok(())
    }

    fn nic(&mut self, index: usize, nic: &NicPlan, model: NicModel) {
        self.add("-netdev", netdev(index, nic));
        let model = match model {
            NicModel::Virtio => "virtio-net-pci",
            NicModel::E1000e => "e1000e",
            NicModel::E1000 => "e1000",
            NicModel::Rtl8139 => "rtl8139",
        };
        let slot = FIRST_NIC_SLOT + index;
        // Without its ROM: nothing here boots from the network.
        self.add(
            "-device",
            format!(
                "{model},netdev=net{index},mac={},addr={slot:#x},romfile=",
                nic.mac
            ),
        );
    }
}

/// A comma ends a value, two are one.
pub(super) fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Q35 has no IDE.
fn mainboard(order: &Order) -> &'static str {
    match (order.definition.mainboard, order.profile.disk) {
        (Mainboard::Pc, _) | (_, DiskController::Ide) => "pc",
        (Mainboard::Q35, _) => "q35",
    }
}

const fn disks_per_bus(controller: DiskController) -> usize {
    match controller {
        DiskController::VirtioBlk => 1,
        DiskController::VirtioScsi => 255,
        DiskController::Sata => 6,
        DiskController::Ide => 4,
        DiskController::ScsiLsi => 7,
    }
}

fn check_disks(order: &Order) -> Result<()> {
    let controller = order.profile.disk;
    let refuse = |problem: String| Error::Machine {
        name: order.definition.name.clone(),
        problem,
        hint: Some("choose another profile: virtio, or virtio-scsi".to_owned()),
    };
    if matches!(controller, DiskController::Sata | DiskController::Ide)
        && order
            .disks
            .iter()
            .any(|disk| disk.sector_size.bytes() != 512)
    {
        return Err(refuse(
            "SATA and IDE have no disks with sectors of 4096 bytes".to_owned(),
        ));
    }
    if controller == DiskController::Ide && order.disks.len() > 4 {
        return Err(refuse(format!(
            "IDE has room for 4 disks, not {}",
            order.disks.len()
        )));
    }
    Ok(())
}

/// How long QEMU tries to reach the keeper when it starts, in seconds.
const OPEN_SECONDS: u64 = 30;
/// How long it holds the guest's requests when the keeper is gone, in seconds: a day.
const RECONNECT_SECONDS: u64 = 24 * 60 * 60;

/// How much of an L2 table QEMU takes into memory at once, in bytes: a cluster of the overlay, the
/// most that it allows. It sees no further when it looks for what is allocated: with its own 4 KiB,
/// 32 MiB of the disk, and then it asks the keeper about each of them.
const L2_PIECE_BYTES: u64 = 64 << 10;

/// The machine's own file, over the image where it is an overlay. What a guest writes into a file
/// that is thrown away need not reach the platter.
fn block_nodes(index: usize, disk: &DiskOrder, nbd: &Path) -> Vec<Value> {
    let cache = json!({"no-flush": !disk.is_kept});
    let mut own = json!({
        "driver": "qcow2", "node-name": format!("disk{index}"), "file": format!("file{index}"),
        "discard": "unmap", "cache": cache,
    });
    let mut nodes = Vec::new();
    if disk.is_overlay {
        own["backing"] = format!("image{index}").into();
        own["l2-cache-entry-size"] = L2_PIECE_BYTES.into();
        nodes.push(json!({
            "driver": "nbd", "node-name": format!("image{index}"), "read-only": true,
            "server": {"type": "unix", "path": nbd}, "export": export_name(index),
            "open-timeout": OPEN_SECONDS, "reconnect-delay": RECONNECT_SECONDS,
        }));
    }
    nodes.push(json!({
        "driver": "file", "node-name": format!("file{index}"), "filename": disk.file,
        "discard": "unmap", "cache": cache,
    }));
    nodes.push(own);
    nodes
}

fn disk_device(controller: DiskController, index: usize, disk: &DiskOrder) -> String {
    let per_bus = disks_per_bus(controller);
    let (bus, unit) = (index / per_bus, index % per_bus);
    let device = match controller {
        DiskController::VirtioBlk => "virtio-blk-pci".to_owned(),
        DiskController::VirtioScsi => {
            format!("scsi-hd,bus=scsi{bus}.0,channel=0,scsi-id=0,lun={unit}")
        }
        DiskController::ScsiLsi => format!("scsi-hd,bus=scsi{bus}.0,scsi-id={unit}"),
        DiskController::Sata => format!("ide-hd,bus=sata{bus}.{unit}"),
        DiskController::Ide => format!("ide-hd,bus=ide.{},unit={}", index / 2, index % 2),
    };
    let sector = disk.sector_size.bytes();
    // A read that fails is the image's damage, and the guest's to deal with; a write that fails is
    // this computer's (no room), and is done again when somebody has made some.
    format!(
        "{device},drive=disk{index},bootindex={},logical_block_size={sector},\
         physical_block_size={sector},rerror=report,werror=stop",
        index + 1
    )
}

fn netdev(index: usize, nic: &NicPlan) -> String {
    let mut text = format!(
        "user,id=net{index},restrict=on,ipv6=off,net={},host={},dns={},dhcpstart={}",
        nic.subnet, nic.host, nic.dns, nic.dhcp_start
    );
    for forward in &nic.forwards {
        let guest = nic.guest;
        text.push_str(&format!(
            ",hostfwd=tcp:127.0.0.1:{}-{guest}:{}",
            forward.host_port, forward.guest_port
        ));
    }
    text
}

#[cfg(test)]
mod tests;
