// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VirtualMachine of KubeVirt (`kubevirt.io/v1`).
//!
//! Every string is in double quotes, so that none is read as anything else. The disks are volumes
//! that are uploaded first; the comment says how. The board is always Q35: clusters allow no other
//! unless they are told to.

use std::fmt::Write as _;

use super::hardware::{Card, Controller, Hardware};
use super::text::{kubernetes_name, quoted};
use super::{DiskFile, Export, text};
use crate::vm::{Firmware, VmNic};

/// Beside the disk itself, a volume's filesystem needs room.
const GIB: u64 = 1 << 30;

/// Writes the manifest.
pub(super) fn yaml(export: &Export<'_>, hardware: &Hardware) -> String {
    let vm = export.vm;
    let bootloader = match vm.firmware {
        Firmware::Bios => "bios: { useSerial: true }",
        Firmware::Uefi => "efi: { secureBoot: false, persistent: true }",
    };
    let head = format!(
        "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: {name}
spec:
  runStrategy: Halted
  template:
    spec:
      architecture: amd64
      domain:
        machine:
          type: q35
        cpu:
          cores: {cpus}
        memory:
          guest: {memory}Mi
        clock:
          utc: {{}}
          timer:
            rtc: {{ tickPolicy: catchup }}
            pit: {{ tickPolicy: delay }}
            hpet: {{ present: false }}
        features:
          acpi: {{}}
        firmware:
          uuid: {uuid}
          bootloader:
            {bootloader}
",
        name = quoted(&kubernetes_name(&vm.name)),
        cpus = vm.cpus,
        memory = text::mebibytes(vm.memory_bytes),
        uuid = quoted(&text::machine_uuid(&vm.name).to_string()),
    );
    let mut yaml = Yaml(comment(export) + &head);
    devices(&mut yaml, export, hardware);
    networks(&mut yaml, export);
    yaml.line(3, "volumes:");
    for disk in export.disks {
        yaml.pair(4, "- name", &quoted(&volume(disk)));
        yaml.line(5, "persistentVolumeClaim:");
        yaml.pair(6, "claimName", &quoted(&claim(export, disk)));
    }
    yaml.0
}

struct Yaml(String);

impl Yaml {
    fn line(&mut self, level: usize, text: &str) {
        let indent = 2 * level;
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    fn pair(&mut self, level: usize, name: &str, value: &str) {
        self.line(level, &format!("{name}: {value}"));
    }
}

fn comment(export: &Export<'_>) -> String {
    let name = &export.vm.name;
    let mut text = format!(
        "# {name}: a virtual machine of KubeVirt. In the directory of these files, into the namespace \
         that is chosen:\n"
    );
    for disk in export.disks {
        let size = disk.size_bytes.div_ceil(GIB);
        let _ = writeln!(
            text,
            "#   virtctl image-upload pvc {} --size={size}Gi --volume-mode=block --force-bind --image-path={}",
            claim(export, disk),
            disk.name
        );
    }
    let _ = writeln!(text, "#   kubectl apply -f {name}.yaml");
    let _ = writeln!(text, "#   virtctl start {}", kubernetes_name(name));
    text
}

fn volume(disk: &DiskFile) -> String {
    format!("disk{}", disk.index)
}

fn claim(export: &Export<'_>, disk: &DiskFile) -> String {
    let name: String = kubernetes_name(&export.vm.name).chars().take(50).collect();
    kubernetes_name(&format!("{name}-disk{}", disk.index))
}

fn devices(yaml: &mut Yaml, export: &Export<'_>, hardware: &Hardware) {
    yaml.line(4, "devices:");
    yaml.line(5, "autoattachSerialConsole: true");
    yaml.line(5, "autoattachGraphicsDevice: true");
    // Otherwise a machine without cards gets one.
    yaml.line(5, "autoattachPodInterface: false");
    if hardware.old_virtio {
        yaml.line(5, "useVirtioTransitional: true");
    }
    if hardware.card == Card::Virtio {
        yaml.line(5, "rng: {}");
    }
    disks(yaml, export, hardware.controller);
    if !export.vm.nics.is_empty() {
        interfaces(yaml, export, hardware.card);
    }
}

fn disks(yaml: &mut Yaml, export: &Export<'_>, controller: Controller) {
    yaml.line(5, "disks:");
    let bus = match controller {
        Controller::VirtioScsi => "scsi",
        Controller::Sata => "sata",
        _ => "virtio",
    };
    for (index, disk) in export.disks.iter().enumerate() {
        yaml.pair(6, "- name", &quoted(&volume(disk)));
        yaml.pair(7, "bootOrder", &(index + 1).to_string());
        if let Some(serial) = &disk.serial {
            yaml.pair(7, "serial", &quoted(serial));
        }
        yaml.line(7, &format!("disk: {{ bus: {bus} }}"));
        let sector = disk.sector_size.bytes();
        if sector != 512 {
            let custom = format!("custom: {{ logical: {sector}, physical: {sector} }}");
            yaml.line(7, &format!("blockSize: {{ {custom} }}"));
        }
    }
}

fn interfaces(yaml: &mut Yaml, export: &Export<'_>, card: Card) {
    yaml.line(5, "interfaces:");
    let model = match card {
        Card::E1000e => "e1000e",
        Card::E1000 => "e1000",
        Card::Rtl8139 => "rtl8139",
        _ => "virtio",
    };
    for (index, nic) in export.vm.nics.iter().enumerate() {
        yaml.pair(6, "- name", &quoted(&network_name(index)));
        if let Some(mac) = text::mac(&nic.mac) {
            yaml.pair(7, "macAddress", &quoted(&mac));
        }
        yaml.pair(7, "model", model);
        let way = match is_pod_network(export, index, nic) {
            true => "masquerade",
            false => "bridge",
        };
        yaml.pair(7, way, "{}");
    }
}

/// Without a network of its own the first card is on the pod's, of which there is one.
fn is_pod_network(export: &Export<'_>, index: usize, nic: &VmNic) -> bool {
    index == 0 && export.networks.of(nic).is_none()
}

fn network_name(index: usize) -> String {
    format!("nic{index}")
}

fn networks(yaml: &mut Yaml, export: &Export<'_>) {
    if export.vm.nics.is_empty() {
        return;
    }
    yaml.line(3, "networks:");
    for (index, nic) in export.vm.nics.iter().enumerate() {
        yaml.pair(4, "- name", &quoted(&network_name(index)));
        if is_pod_network(export, index, nic) {
            yaml.line(5, "pod: {}");
            continue;
        }
        let name = export.networks.of(nic).map(str::to_owned);
        let name = name.unwrap_or_else(|| kubernetes_name(&nic.name));
        yaml.line(5, "multus:");
        yaml.pair(6, "networkName", &quoted(&name));
    }
}
