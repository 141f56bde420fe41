// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/network/interfaces` of ifupdown: `iface NAME FAMILY METHOD` with indented options.
//!
//! A line may be continued with a backslash; `source` and `source-directory` name further files,
//! which the caller reads.

use super::{Found, Interface, base_name, normal_address, normal_mac};

/// A file and what it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The interfaces.
    pub found: Found,
    /// Paths and patterns after `source`.
    pub sources: Vec<String>,
    /// Directories after `source-directory`.
    pub directories: Vec<String>,
}

/// Reads one file.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut parsed = Parsed::default();
    let mut stanza: Option<Stanza> = None;
    for line in joined.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        match first {
            "iface" => {
                finish(stanza.take(), &mut parsed.found);
                stanza = rest
                    .first()
                    .map(|name| Stanza::new(name, rest.get(2).copied()));
            }
            "source" => parsed
                .sources
                .extend(rest.first().map(|&path| path.to_owned())),
            "source-directory" => {
                parsed
                    .directories
                    .extend(rest.first().map(|&path| path.to_owned()));
            }
            "auto" | "mapping" | "rename" | "template" | "no-auto-down" | "no-scripts" => {
                finish(stanza.take(), &mut parsed.found);
            }
            word if word.starts_with("allow-") => finish(stanza.take(), &mut parsed.found),
            option => {
                if let Some(stanza) = stanza.as_mut() {
                    stanza.option(option, &rest);
                }
            }
        }
    }
    finish(stanza.take(), &mut parsed.found);
    parsed
}

#[derive(Debug)]
struct Stanza {
    interface: Interface,
    address: Option<String>,
    netmask: Option<String>,
    loopback: bool,
    /// The bond or bridge that it says it belongs to.
    controller: Option<String>,
}

impl Stanza {
    fn new(name: &str, method: Option<&str>) -> Self {
        let mut interface = Interface {
            name: name.to_owned(),
            ..Interface::default()
        };
        let base = base_name(name);
        if name.contains('.') && base != name {
            interface.is_virtual = true;
            interface.is_vlan = true;
            interface.members = vec![base.to_owned()];
        }
        Self {
            interface,
            address: None,
            netmask: None,
            loopback: method == Some("loopback"),
            controller: None,
        }
    }

    fn option(&mut self, option: &str, values: &[&str]) {
        let first = values.first().copied();
        match option.replace('_', "-").as_str() {
            "address" => self.address = first.map(str::to_owned),
            "netmask" => self.netmask = first.map(str::to_owned),
            "gateway" => self.interface.gateway = first.map(str::to_owned),
            "hwaddress" => {
                self.interface.mac = values.iter().find_map(|value| normal_mac(value));
            }
            "bridge-ports" | "bond-slaves" | "slaves" | "ovs-ports" => {
                self.interface.is_virtual = true;
                let members = values
                    .iter()
                    .filter(|value| !matches!(**value, "none" | "all" | "regex"));
                self.interface
                    .members
                    .extend(members.map(|&member| member.to_owned()));
            }
            "vlan-raw-device" => {
                self.interface.is_virtual = true;
                self.interface.is_vlan = true;
                self.interface.members = first.map(str::to_owned).into_iter().collect();
            }
            // A member may name its bond instead of the bond its members.
            "bond-master" => self.controller = first.map(str::to_owned),
            "bond-mode" | "bond-arp-ip-target" | "bond-min-links" => {
                self.interface.is_virtual = true;
                self.interface.bonding.set(option, &values.join(" "));
            }
            "bridge-stp" | "tunnel-mode" => self.interface.is_virtual = true,
            _ => {}
        }
    }
}

fn finish(stanza: Option<Stanza>, found: &mut Found) {
    let Some(mut stanza) = stanza else { return };
    if stanza.loopback {
        return;
    }
    let address = stanza
        .address
        .and_then(|address| normal_address(&address, stanza.netmask.as_deref()));
    stanza.interface.addresses.extend(address);
    if let Some(controller) = stanza.controller {
        found.interfaces.push(Interface {
            name: controller,
            is_virtual: true,
            members: vec![stanza.interface.name.clone()],
            ..Interface::default()
        });
    }
    found.interfaces.push(stanza.interface);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_address_with_netmask_and_gateway_is_read() {
        let parsed = parse(
            "source /etc/network/interfaces.d/*\n\
             auto lo\niface lo inet loopback\n\n\
             auto enp2s0\n# the office\niface enp2s0 inet static\n\
             \taddress 10.20.0.5\n\tnetmask 255.255.255.0\n\tgateway 10.20.0.1\n\
             \thwaddress ether 00:1B:21:3c:9d:f8\n",
        );
        assert_eq!(parsed.sources, ["/etc/network/interfaces.d/*"]);
        assert_eq!(
            parsed.found.interfaces,
            [Interface {
                name: "enp2s0".into(),
                mac: Some("00:1b:21:3c:9d:f8".into()),
                addresses: vec!["10.20.0.5/24".into()],
                gateway: Some("10.20.0.1".into()),
                ..Interface::default()
            }]
        );
    }

    #[test]
    fn bridges_bonds_and_vlans_name_their_members() {
        let parsed = parse(
            "iface vmbr0 inet static\n address 10.0.0.2/24\n bridge_ports bond0\n\
             iface bond0 inet manual\n bond-slaves eno1 \\\n   eno2\n bond-mode 4\n\
             iface eno1.7 inet dhcp\n\
             iface vlan9 inet manual\n vlan-raw-device eno2\n",
        );
        let members: Vec<(&str, Vec<&str>)> = parsed
            .found
            .interfaces
            .iter()
            .map(|i| {
                (
                    i.name.as_str(),
                    i.members.iter().map(String::as_str).collect(),
                )
            })
            .collect();
        assert_eq!(
            members,
            [
                ("vmbr0", vec!["bond0"]),
                ("bond0", vec!["eno1", "eno2"]),
                ("eno1.7", vec!["eno1"]),
                ("vlan9", vec!["eno2"]),
            ]
        );
        assert!(parsed.found.interfaces.iter().all(|i| i.is_virtual));
    }

    #[test]
    fn a_member_may_name_its_bond() {
        let parsed = parse(
            "auto em1\niface em1 inet manual\n bond-master bond0\n\
             iface bond0 inet static\n address 10.0.0.5/24\n bond-slaves none\n bond-mode 802.3ad\n",
        );
        let network =
            super::super::NetworkConfiguration::assemble(vec![("f".into(), parsed.found)]);
        assert_eq!(network.cards.len(), 1);
        assert_eq!(network.cards[0].addresses, ["10.0.0.5/24"]);
        assert!(network.bonds[0].bonding.lacp);
    }

    #[test]
    fn a_line_of_auto_ends_the_stanza_before_it() {
        let parsed = parse("iface a inet static\n address 10.0.0.1/8\nauto b\n address 10.0.0.2\n");
        assert_eq!(parsed.found.interfaces.len(), 1);
        assert_eq!(parsed.found.interfaces[0].addresses, ["10.0.0.1/8"]);
    }
}
