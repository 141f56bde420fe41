// SPDX-License-Identifier: MIT OR Apache-2.0
//! `.network` and `.netdev` files of systemd-networkd.
//!
//! A `.network` file that matches by a pattern (`Name=en*`) binds no name: what it configures is
//! whatever card is there, so only plain names become interfaces.

use super::{Found, Interface, Lost, LostKind, ini, normal_address, normal_mac};

/// Reads one `.network` file.
#[must_use]
pub fn parse_network(text: &str, file: &str) -> Found {
    let mut names: Vec<String> = Vec::new();
    let mut template = Interface::default();
    let mut made: Vec<Interface> = Vec::new();
    let mut lost: Vec<Lost> = Vec::new();
    let lose = |name: String, kind| Lost {
        name,
        kind,
        file: file.to_owned(),
    };
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("Match", "Name") => names.extend(value.split_whitespace().map(str::to_owned)),
            ("Match", "MACAddress" | "PermanentMACAddress") => {
                template.mac = value.split_whitespace().find_map(normal_mac);
            }
            ("Match", "Path") if !value.contains("pci-*") => lost.push(lose(value, LostKind::Slot)),
            ("Match", "Driver") if !value.contains("virtio") => {
                lost.push(lose(value, LostKind::Slot));
            }
            ("SR-IOV", _) => lost.push(lose(names.join(" "), LostKind::VirtualFunctions)),
            ("Network" | "Address", "Address") => {
                template.addresses.extend(normal_address(&value, None));
            }
            ("Network" | "Route", "Gateway") if value.parse::<std::net::IpAddr>().is_ok() => {
                template.gateway.get_or_insert(value);
            }
            ("Network", "VLAN") => made.push(Interface {
                name: value,
                is_virtual: true,
                is_vlan: true,
                ..Interface::default()
            }),
            ("Network", "Bridge" | "Bond") => made.push(Interface {
                name: value,
                is_virtual: true,
                ..Interface::default()
            }),
            _ => {}
        }
    }
    let any_name = names.is_empty() && template.mac.is_some();
    names.retain(|name| !name.contains(['*', '?', '[', '!']));
    if any_name {
        template.any_name = true;
        names.push(String::new());
    }
    for interface in &mut made {
        interface.members.clone_from(&names);
    }
    let own = names.into_iter().map(|name| Interface {
        name,
        ..template.clone()
    });
    Found {
        interfaces: own.chain(made).collect(),
        lost,
        ..Found::default()
    }
}

/// Reads one `.netdev` file: the interface is made by software.
#[must_use]
pub fn parse_netdev(text: &str) -> Found {
    let mut interface = Interface {
        is_virtual: true,
        ..Interface::default()
    };
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("NetDev", "Name") => interface.name = value,
            ("NetDev", "Kind") => interface.is_vlan = value == "vlan",
            ("Bond", key) => interface.bonding.set(key, &value),
            _ => {}
        }
    }
    Found::of(vec![interface])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::network::NetworkConfiguration;

    #[test]
    fn a_static_network_is_read() {
        let found = parse_network(
            "[Match]\nName=eno1\nMACAddress=AA:bb:cc:00:11:22\n\n[Network]\n\
             Address=192.0.2.10/25\nGateway=192.0.2.1\n[Route]\nGateway=_dhcp4\n",
            "f",
        );
        assert_eq!(found.interfaces.len(), 1);
        assert_eq!(
            found.interfaces[0].mac.as_deref(),
            Some("aa:bb:cc:00:11:22")
        );
        assert_eq!(found.interfaces[0].addresses, ["192.0.2.10/25"]);
        assert_eq!(found.interfaces[0].gateway.as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn a_pattern_binds_no_name() {
        assert!(
            parse_network("[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n", "f")
                .interfaces
                .is_empty()
        );
    }

    #[test]
    fn a_card_chosen_by_its_mac_address_has_any_name_and_one_chosen_by_its_slot_is_lost() {
        let by_mac = parse_network(
            "[Match]\nMACAddress=52:54:00:00:00:01\n[Network]\nDHCP=yes\n",
            "f",
        );
        assert!(by_mac.interfaces[0].any_name);
        let by_slot = parse_network("[Match]\nPath=pci-0000:03:00.0\n[Network]\nDHCP=yes\n", "f");
        assert_eq!(by_slot.lost[0].kind, LostKind::Slot);
        assert!(by_slot.interfaces.is_empty());
    }

    #[test]
    fn the_address_of_a_bridge_is_reached_through_its_port() {
        let found = vec![
            (
                "a.netdev".into(),
                parse_netdev("[NetDev]\nName=br0\nKind=bridge\n"),
            ),
            (
                "b.network".into(),
                parse_network("[Match]\nName=eno1\n[Network]\nBridge=br0\n", "f"),
            ),
            (
                "c.network".into(),
                parse_network("[Match]\nName=br0\n[Network]\nAddress=10.1.1.1/24\n", "f"),
            ),
        ];
        let cards = NetworkConfiguration::assemble(found).cards;
        assert_eq!(cards.len(), 1);
        assert_eq!(cards[0].name, "eno1");
        assert_eq!(cards[0].addresses, ["10.1.1.1/24"]);
    }
}
