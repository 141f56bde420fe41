// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keyfiles of NetworkManager: `/etc/NetworkManager/system-connections/*.nmconnection`.
//!
//! A profile without `interface-name` and MAC address fits any card and binds no name. Profiles of
//! a bridge or bond name no members; the members name their `master` or `controller`, by the
//! interface's name or by the profile's UUID.

use super::{Found, Interface, ini, normal_address, normal_mac};

/// Reads one keyfile.
#[must_use]
pub fn parse(text: &str) -> Found {
    let mut profile = Profile::default();
    for (section, key, value) in ini(text) {
        profile.line(&section, &key, &value);
    }
    profile.found()
}

#[derive(Debug, Default)]
struct Profile {
    interface: Interface,
    controller: Option<String>,
    kind: String,
}

impl Profile {
    fn line(&mut self, section: &str, key: &str, value: &str) {
        let interface = &mut self.interface;
        match (section, key) {
            ("connection", "interface-name") => value.clone_into(&mut interface.name),
            ("connection", "type") => value.clone_into(&mut self.kind),
            ("connection", "master" | "controller") => self.controller = Some(value.to_owned()),
            ("ethernet" | "802-3-ethernet", "mac-address") => interface.mac = normal_mac(value),
            ("vlan", "parent") => interface.members.push(value.to_owned()),
            ("ipv4" | "ipv6", "gateway") => {
                interface.gateway.get_or_insert_with(|| value.to_owned());
            }
            ("ipv4" | "ipv6", key) if is_numbered(key, "address") || key == "addresses" => {
                for (place, part) in value.split([',', ';']).enumerate() {
                    match normal_address(part, None) {
                        Some(address) if part.contains('/') => interface.addresses.push(address),
                        // `address1=10.0.0.5/24,10.0.0.1`: the second is the gateway.
                        Some(_) if place == 1 => {
                            interface
                                .gateway
                                .get_or_insert_with(|| part.trim().to_owned());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn found(mut self) -> Found {
        let cable = matches!(self.kind.as_str(), "ethernet" | "802-3-ethernet" | "");
        self.interface.is_virtual = !cable;
        self.interface.is_vlan = self.kind == "vlan";
        let mut interfaces = Vec::new();
        if let Some(controller) = self.controller.filter(|_| !self.interface.name.is_empty()) {
            interfaces.push(Interface {
                name: controller,
                is_virtual: true,
                members: vec![self.interface.name.clone()],
                ..Interface::default()
            });
        }
        if !self.interface.name.is_empty() && self.kind != "wifi" {
            interfaces.insert(0, self.interface);
        }
        Found {
            interfaces,
            pins: Vec::new(),
        }
    }
}

fn is_numbered(key: &str, stem: &str) -> bool {
    key.strip_prefix(stem)
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_profile_is_read() {
        let found = parse(
            "[connection]\nid=Wired\nuuid=9\ntype=ethernet\ninterface-name=ens3\n\
             [ethernet]\nmac-address=52:54:00:AA:00:01\n[ipv4]\nmethod=manual\n\
             address1=10.9.0.5/24,10.9.0.1\naddress2=10.9.0.6/24\n",
        );
        assert_eq!(
            found.interfaces,
            [Interface {
                name: "ens3".into(),
                mac: Some("52:54:00:aa:00:01".into()),
                addresses: vec!["10.9.0.5/24".into(), "10.9.0.6/24".into()],
                gateway: Some("10.9.0.1".into()),
                ..Interface::default()
            }]
        );
    }

    #[test]
    fn a_profile_for_any_card_binds_no_name() {
        assert!(
            parse("[connection]\ntype=ethernet\n[ipv4]\nmethod=auto\n")
                .interfaces
                .is_empty()
        );
    }

    #[test]
    fn a_port_names_its_bond() {
        let found = parse("[connection]\ntype=ethernet\ninterface-name=eno1\nmaster=bond0\n");
        assert_eq!(found.interfaces[1].name, "bond0");
        assert_eq!(found.interfaces[1].members, ["eno1"]);
    }
}
