// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules that give network cards their names: `.link` files of systemd-udevd and
//! `70-persistent-net.rules` of older udev.
//!
//! SLES 10 has `30-net_persistent_names.rules`, where a program does the renaming.
//!
//! Only rules that select a card by its MAC address bind a name: a rule by PCI path or driver of
//! the old hardware will not match in a virtual machine.

use super::{Found, Lost, LostKind, NamePin, PinKind, ini, normal_mac};

/// Reads one `.link` file.
#[must_use]
pub fn parse_link(text: &str, file: &str) -> Found {
    let mut mac = None;
    let mut name = None;
    let mut path = None;
    let mut lost = Vec::new();
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("Match", "MACAddress" | "PermanentMACAddress") => {
                mac = value.split_whitespace().find_map(normal_mac);
            }
            ("Match", "Path") => path = Some(value),
            // Selects the old hardware's driver: not the virtual card's.
            ("Match", "Driver") if !value.contains("virtio") => return Found::default(),
            ("Link", "Name") => name = Some(value),
            ("SR-IOV", _) | ("Link", "SR-IOVVirtualFunctions") => lost.push(Lost {
                name: name.clone().unwrap_or_default(),
                kind: LostKind::VirtualFunctions,
                file: file.to_owned(),
            }),
            _ => {}
        }
    }
    let any_path = path.is_none_or(|path| path.split_whitespace().any(|glob| glob == "pci-*"));
    Found {
        pins: pin(name.filter(|_| any_path), mac, file, PinKind::Link),
        lost,
        ..Found::default()
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
        let name = rule_value(line, "NAME=")
            .or_else(|| rule_value(line, "NAME:="))
            .or_else(|| renamed_by_program(line));
        pin(
            name.filter(|_| fits_a_virtual_card(line)),
            mac.as_deref().and_then(normal_mac),
            file,
            PinKind::Rule,
        )
    });
    Found {
        pins: pins.collect(),
        ..Found::default()
    }
}

/// A rule for the old card's slot or driver, or for one that another rule named before, matches no
/// virtual card, which comes as `ethN`.
fn fits_a_virtual_card(line: &str) -> bool {
    let fits = |key: &str, fits: &dyn Fn(&str) -> bool| {
        rule_value(line, key).is_none_or(|value| fits(&value))
    };
    let none = |_: &str| false;
    fits("DRIVERS==", &|d| {
        matches!(d, "?*" | "*") || d.contains("virtio")
    }) && fits("DRIVER==", &none)
        && fits("KERNEL==", &|k| {
            k.starts_with("eth") || matches!(k, "*" | "?*")
        })
        && fits("KERNELS==", &none)
        && fits("ID==", &none)
}

/// SLES 10: `IMPORT="/lib/udev/rename_netiface %k eth0"`.
fn renamed_by_program(line: &str) -> Option<String> {
    let command = rule_value(line, "IMPORT=").or_else(|| rule_value(line, "IMPORT{program}="))?;
    let mut words = command.split_whitespace();
    let program = words.next()?;
    (program.ends_with("/rename_netiface") && words.next() == Some("%k")).then_some(())?;
    words.next().map(str::to_owned)
}

fn pin(name: Option<String>, mac: Option<String>, file: &str, kind: PinKind) -> Vec<NamePin> {
    match (name, mac) {
        (Some(name), Some(mac)) => vec![NamePin {
            name,
            mac,
            file: file.to_owned(),
            kind,
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

/// The same for an udev before 098.
#[must_use]
pub fn old_udev_rule(name: &str, mac: &str) -> String {
    format!("SUBSYSTEM==\"net\", ACTION==\"add\", SYSFS{{address}}==\"{mac}\", NAME=\"{name}\"\n")
}

/// The same for SLES 10, whose program knows how to exchange two names.
#[must_use]
pub fn rename_program_rule(name: &str, mac: &str) -> String {
    format!(
        "SUBSYSTEM==\"net\", ACTION==\"add\", SYSFS{{address}}==\"{mac}\", \
         IMPORT=\"/lib/udev/rename_netiface %k {name}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_the_old_cards_slot_or_driver_bind_no_name() {
        for condition in [
            "KERNELS==\"0000:02:00.0\"",
            "DRIVERS==\"igb\"",
            "KERNEL==\"em1\"",
            "ID==\"0000:06:00.0\"",
        ] {
            let rule = format!(
                "SUBSYSTEM==\"net\", {condition}, ATTR{{address}}==\"00:25:90:11:22:33\", \
                 NAME=\"lan1\"\n"
            );
            assert!(parse_udev_rules(&rule, "f").pins.is_empty(), "{condition}");
        }
    }

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
        for rule in [old_udev_rule, rename_program_rule] {
            let rule = parse_udev_rules(&rule("eth0", "aa:bb:cc:dd:ee:02"), "f");
            assert_eq!(rule.pins[0].name, "eth0");
        }
    }
}
