// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules that give network cards their names: `.link` files of systemd-udevd and
//! `70-persistent-net.rules` of older udev.
//!
//! Only rules that select a card by its MAC address bind a name: a rule by PCI path or driver of
//! the old hardware will not match in a virtual machine.

use super::{Found, NamePin, ini, normal_mac};

/// Reads one `.link` file.
#[must_use]
pub fn parse_link(text: &str, file: &str) -> Found {
    let mut mac = None;
    let mut name = None;
    let mut path = None;
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("Match", "MACAddress" | "PermanentMACAddress") => {
                mac = value.split_whitespace().find_map(normal_mac);
            }
            ("Match", "Path") => path = Some(value),
            // Selects the old hardware's driver: not the virtual card's.
            ("Match", "Driver") if !value.contains("virtio") => return Found::default(),
            ("Link", "Name") => name = Some(value),
            _ => {}
        }
    }
    let any_path = path.is_none_or(|path| path.split_whitespace().any(|glob| glob == "pci-*"));
    Found {
        interfaces: Vec::new(),
        pins: pin(name.filter(|_| any_path), mac, file),
    }
}

/// Reads a file of udev rules.
#[must_use]
pub fn parse_udev_rules(text: &str, file: &str) -> Found {
    let joined = text.replace("\\\n", " ");
    let pins = joined.lines().flat_map(|line| {
        let line = line.trim();
        if line.starts_with('#') {
            return Vec::new();
        }
        let mac = rule_value(line, "ATTR{address}==")
            .or_else(|| rule_value(line, "ATTRS{address}=="))
            .or_else(|| rule_value(line, "SYSFS{address}=="));
        let driver =
            rule_value(line, "DRIVERS==").is_none_or(|d| d == "?*" || d.contains("virtio"));
        let name = rule_value(line, "NAME=").or_else(|| rule_value(line, "NAME:="));
        pin(
            name.filter(|_| driver),
            mac.as_deref().and_then(normal_mac),
            file,
        )
    });
    Found {
        interfaces: Vec::new(),
        pins: pins.collect(),
    }
}

fn pin(name: Option<String>, mac: Option<String>, file: &str) -> Vec<NamePin> {
    match (name, mac) {
        (Some(name), Some(mac)) => vec![NamePin {
            name,
            mac,
            file: file.to_owned(),
        }],
        _ => Vec::new(),
    }
}

/// The quoted value of one key of a rule: `NAME="eth0"`.
fn rule_value(line: &str, key: &str) -> Option<String> {
    line.split(',').find_map(|part| {
        let value = part.trim().strip_prefix(key)?.trim();
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        Some(value.to_owned())
    })
}

/// The `.link` file that gives the card with this MAC address its name.
///
/// `Path=` keeps VLANs, bridges and bonds out, which have their card's MAC address too; every
/// systemd that reads `.link` files knows it, unlike `Type=ether`.
#[must_use]
pub fn link_file(name: &str, mac: &str) -> String {
    format!(
        "# Keeps the name that this interface had on the physical server.\n\
         [Match]\nMACAddress={mac}\nPath=pci-*\n\n[Link]\nName={name}\n"
    )
}

/// The udev rule that does the same where udev is older than `.link` files.
#[must_use]
pub fn udev_rule(name: &str, mac: &str) -> String {
    format!(
        "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\", \
         ATTR{{type}}==\"1\", NAME=\"{name}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_by_mac_binds_a_name_and_one_by_path_does_not() {
        let by_mac = parse_link(
            "[Match]\nMACAddress=AA:BB:CC:DD:EE:01\n[Link]\nName=lan0\n",
            "f",
        );
        assert_eq!(by_mac.pins[0].name, "lan0");
        assert_eq!(by_mac.pins[0].mac, "aa:bb:cc:dd:ee:01");
        let by_path = parse_link("[Match]\nPath=pci-0000:03:00.0\n[Link]\nName=lan0\n", "f");
        assert!(by_path.pins.is_empty());
    }

    #[test]
    fn the_rule_of_an_older_udev_binds_a_name() {
        let found = parse_udev_rules(
            "# PCI device 0x8086:0x10d3 (e1000e)\n\
             SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", \
             ATTR{address}==\"00:25:90:11:22:33\", ATTR{dev_id}==\"0x0\", ATTR{type}==\"1\", \
             KERNEL==\"eth*\", NAME=\"eth1\"\n",
            "70-persistent-net.rules",
        );
        assert_eq!(found.pins.len(), 1);
        assert_eq!(found.pins[0].name, "eth1");
        assert_eq!(found.pins[0].mac, "00:25:90:11:22:33");
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let link = parse_link(&link_file("enp3s0", "aa:bb:cc:dd:ee:02"), "f");
        assert_eq!(link.pins[0].name, "enp3s0");
        let rule = parse_udev_rules(&udev_rule("eth0", "aa:bb:cc:dd:ee:02"), "f");
        assert_eq!(rule.pins[0].mac, "aa:bb:cc:dd:ee:02");
    }
}
