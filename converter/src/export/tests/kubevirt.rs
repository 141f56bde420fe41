// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual machines of KubeVirt against the fields of its API.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Target, guests};

/// The fields of KubeVirt's API that we use: where, those that must be there, those that may.
pub(super) const KUBEVIRT_FIELDS: [(&str, &str, &str); 6] = [
    ("", "apiVersion kind metadata.name spec.runStrategy", "spec"),
    (
        "spec.template.spec.",
        "architecture volumes[].name volumes[].persistentVolumeClaim.claimName",
        "networks[].name networks[].pod networks[].multus.networkName volumes networks",
    ),
    (
        "spec.template.spec.domain.",
        "machine.type cpu.cores memory.guest clock.utc clock.timer.rtc.tickPolicy \
         clock.timer.pit.tickPolicy clock.timer.hpet.present features.acpi firmware.uuid",
        "firmware.bootloader.bios.useSerial firmware.bootloader.efi.secureBoot \
         firmware.bootloader.efi.persistent",
    ),
    (
        "spec.template.spec.domain.devices.",
        "autoattachSerialConsole autoattachGraphicsDevice autoattachPodInterface",
        "useVirtioTransitional rng disks interfaces",
    ),
    (
        "spec.template.spec.domain.devices.interfaces[].",
        "",
        "name macAddress model masquerade bridge",
    ),
    (
        "spec.template.spec.domain.devices.disks[].",
        "name bootOrder disk.bus",
        "serial blockSize.custom.logical blockSize.custom.physical",
    ),
];

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(item, &format!("{path}[]"), found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn virtual_machines_have_the_fields_of_kubevirt_and_no_others() {
    let below = |at: &str, names: &str| -> Vec<String> {
        names
            .split_whitespace()
            .map(|name| format!("{at}{name}"))
            .collect()
    };
    let all = KUBEVIRT_FIELDS.iter();
    let required: Vec<String> = all
        .clone()
        .flat_map(|(at, must, _)| below(at, must))
        .collect();
    let optional: Vec<String> = all.flat_map(|(at, _, may)| below(at, may)).collect();
    for guest in guests() {
        let text = guest.text(Target::Kubevirt);
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let mut found = BTreeSet::new();
        leaves(&value, "", &mut found);
        let known = |path: &String| required.contains(path) || optional.contains(path);
        assert_eq!(found.iter().find(|path| !known(path)), None, "{text}");
        let missing = required.iter().find(|field| !found.contains(*field));
        assert_eq!(missing, None, "{text}");
        let spec = &value["spec"]["template"]["spec"];
        let names = |list: &Value| -> Vec<String> {
            let items = list.as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["name"].to_string()).collect()
        };
        let devices = &spec["domain"]["devices"];
        assert_eq!(names(&devices["disks"]), names(&spec["volumes"]));
        assert_eq!(names(&devices["interfaces"]), names(&spec["networks"]));
    }
}
