// SPDX-License-Identifier: MIT OR Apache-2.0
//! `.network` and `.netdev` files of systemd-networkd.
//!
//! A `.network` file that matches by a pattern (`Name=en*`) binds no name: what it configures is
//! whatever card is there, so only plain names become interfaces.

use super::{Found, Interface, ini, normal_address, normal_mac};

/// Reads one `.network` file.
#[must_use]
pub fn parse_network(text: &str) -> Found {
    let mut names: Vec<String> = Vec::new();
    let mut template = Interface::default();
    let mut made: Vec<Interface> = Vec::new();
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("Match", "Name") => names.extend(value.split_whitespace().map(str::to_owned)),
            ("Match", "MACAddress" | "PermanentMACAddress") => {
                template.mac = value.split_whitespace().find_map(normal_mac);
            }
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
    names.retain(|name| !name.contains(['*', '?', '[', '!']));
    for interface in &mut made {
        interface.members.clone_from(&names);
    }
    let own = names.into_iter().map(|name| Interface {
        name,
        ..template.clone()
    });
    Found {
        interfaces: own.chain(made).collect(),
        pins: Vec::new(),
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
            _ => {}
        }
    }
    Found {
        interfaces: vec![interface],
        pins: Vec::new(),
    }
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
            parse_network("[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n")
                .interfaces
                .is_empty()
        );
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
                parse_network("[Match]\nName=eno1\n[Network]\nBridge=br0\n"),
            ),
            (
                "c.network".into(),
                parse_network("[Match]\nName=br0\n[Network]\nAddress=10.1.1.1/24\n"),
            ),
        ];
        let cards = NetworkConfiguration::assemble(found).cards;
        assert_eq!(cards.len(), 1);
        assert_eq!(cards[0].name, "eno1");
        assert_eq!(cards[0].addresses, ["10.1.1.1/24"]);
    }
}
