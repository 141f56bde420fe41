// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netplan's YAML: `/etc/netplan/*.yaml`.
//!
//! An `ethernets` key is the interface's name, unless the definition has a `match`: then the card is
//! chosen by MAC address and named by `set-name`, which netplan itself turns into a `.link` file at
//! every boot.

use serde_json::{Map, Value};

use super::{Found, Interface, Lost, LostKind, NamePin, PinKind, normal_address, normal_mac};

/// Reads one file; `None` when it is not netplan's YAML.
#[must_use]
pub fn parse(text: &str, file: &str) -> Option<Found> {
    let document: Value = serde_saphyr::from_str(text).ok()?;
    let network = document.get("network")?.as_object()?;
    let mut found = Found::default();
    for (name, definition) in definitions(network, "ethernets") {
        ethernet(name, definition, file, &mut found);
    }
    for (kind, is_vlan) in [("bridges", false), ("bonds", false), ("vlans", true)] {
        for (name, definition) in definitions(network, kind) {
            let mut interface = addressed(name, definition);
            interface.is_virtual = true;
            interface.is_vlan = is_vlan;
            interface.members = match definition.get("link") {
                Some(link) => strings(Some(link)),
                None => strings(definition.get("interfaces")),
            };
            if let Some(Value::Object(parameters)) = definition.get("parameters") {
                for (key, value) in parameters {
                    interface.bonding.set(key, &text_of(value));
                }
            }
            found.interfaces.push(interface);
        }
    }
    for (kind, lost) in [
        ("wifis", LostKind::Wireless),
        ("modems", LostKind::Wireless),
    ] {
        for (name, _) in definitions(network, kind) {
            found.lost.push(lose(name, lost, file));
        }
    }
    Some(found)
}

fn definitions<'a>(
    network: &'a Map<String, Value>,
    kind: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    network
        .get(kind)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn lose(name: &str, kind: LostKind, file: &str) -> Lost {
    Lost {
        name: name.to_owned(),
        kind,
        file: file.to_owned(),
    }
}

/// A scalar, or a list of them, as one text.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(many) => many.iter().map(text_of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn ethernet(name: &str, definition: &Value, file: &str, found: &mut Found) {
    let mut interface = addressed(name, definition);
    let functions = ["virtual-function-count", "embedded-switch-mode"];
    if functions.iter().any(|key| definition.get(key).is_some()) {
        found
            .lost
            .push(lose(name, LostKind::VirtualFunctions, file));
    }
    // A virtual function: `link` names its card.
    if definition.get("link").is_some() {
        found
            .lost
            .push(lose(name, LostKind::VirtualFunctions, file));
        return;
    }
    if let Some(selection) = definition.get("match") {
        let mac = selection
            .get("macaddress")
            .and_then(Value::as_str)
            .and_then(normal_mac);
        let set_name = definition.get("set-name").and_then(Value::as_str);
        let by_name = selection.get("name").and_then(Value::as_str);
        if let (Some(mac), Some(set_name)) = (&mac, set_name) {
            found.pins.push(NamePin {
                name: set_name.to_owned(),
                mac: mac.clone(),
                file: file.to_owned(),
                kind: PinKind::Link,
            });
        }
        let by_driver = selection.get("driver").map(text_of);
        if let Some(driver) = by_driver.filter(|driver| !driver.contains("virtio")) {
            found.lost.push(lose(&driver, LostKind::Slot, file));
        }
        interface.any_name = set_name.is_none() && by_name.is_none();
        match set_name.or(by_name) {
            Some(chosen) if !chosen.contains(['*', '?', '[']) => {
                chosen.clone_into(&mut interface.name);
            }
            // Any card that matches: no name is bound, but a MAC address still is.
            _ if mac.is_none() => return,
            _ => {}
        }
        interface.mac = mac;
    }
    found.interfaces.push(interface);
}

fn addressed(name: &str, definition: &Value) -> Interface {
    let addresses = definition.get("addresses").and_then(Value::as_array);
    let addresses = addresses.into_iter().flatten().filter_map(|address| {
        // An address may carry options: `- 10.0.0.5/24: { label: x }`.
        let text = match address {
            Value::Object(options) => options.keys().next().map(String::as_str),
            other => other.as_str(),
        };
        text.and_then(|text| normal_address(text, None))
    });
    Interface {
        name: name.to_owned(),
        addresses: addresses.collect(),
        gateway: gateway(definition),
        ..Interface::default()
    }
}

fn gateway(definition: &Value) -> Option<String> {
    if let Some(gateway) = definition.get("gateway4").and_then(Value::as_str) {
        return Some(gateway.to_owned());
    }
    let routes = definition.get("routes").and_then(Value::as_array)?;
    let default = routes.iter().find(|route| {
        let to = route.get("to").and_then(Value::as_str);
        matches!(to, Some("default" | "0.0.0.0/0" | "::/0"))
    })?;
    default
        .get("via")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_interface_is_read() {
        let found = parse(
            "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    enp5s0:\n      \
             addresses: [10.3.0.5/24]\n      routes:\n        - to: default\n          \
             via: 10.3.0.1\n      nameservers:\n        addresses: [10.3.0.2]\n",
            "f",
        )
        .unwrap();
        assert_eq!(found.interfaces.len(), 1);
        assert_eq!(found.interfaces[0].name, "enp5s0");
        assert_eq!(found.interfaces[0].addresses, ["10.3.0.5/24"]);
        assert_eq!(found.interfaces[0].gateway.as_deref(), Some("10.3.0.1"));
    }

    #[test]
    fn a_match_with_set_name_binds_the_name() {
        let found = parse(
            "network:\n  ethernets:\n    lan:\n      match: {macaddress: '00:16:3E:00:00:01'}\n      \
             set-name: eth0\n      dhcp4: true\n",
            "f",
        )
        .unwrap();
        assert_eq!(found.interfaces[0].name, "eth0");
        assert_eq!(found.pins[0].mac, "00:16:3e:00:00:01");
    }

    #[test]
    fn what_is_not_yaml_is_not_netplan() {
        assert_eq!(parse("network: [", "f"), None);
        assert_eq!(parse("a: b", "f"), None);
    }

    #[test]
    fn bonds_and_lost_hardware_are_told() {
        let found = parse(
            "network:\n  ethernets:\n    eno1: {}\n    eno2: {virtual-function-count: 4}\n    \
             slot: {match: {driver: ixgbe}, dhcp4: true}\n  bonds:\n    bond0:\n      \
             interfaces: [eno1]\n      parameters: {mode: 802.3ad, min-links: 2, \
             arp-ip-targets: [10.0.0.1]}\n  wifis:\n    wlp1s0: {}\n",
            "f",
        )
        .unwrap();
        let bond = found.interfaces.iter().find(|i| i.name == "bond0").unwrap();
        assert!(bond.bonding.lacp);
        assert_eq!(bond.bonding.links_min, 2);
        assert_eq!(bond.bonding.arp_targets, ["10.0.0.1"]);
        let kinds: Vec<LostKind> = found.lost.iter().map(|lost| lost.kind).collect();
        assert_eq!(
            kinds,
            [
                LostKind::VirtualFunctions,
                LostKind::Slot,
                LostKind::Wireless
            ]
        );
    }
}
