// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keyfiles of NetworkManager: `/etc/NetworkManager/system-connections/*.nmconnection`.
//!
//! A profile without `interface-name` and MAC address fits any card and binds no name. Profiles of
//! a bridge or bond name no members; the members name their `master` or `controller`, by the
//! interface's name or by the profile's UUID.

use super::{Bonding, Found, Interface, Lost, LostKind, ini, normal_address, normal_mac};

/// Reads one keyfile.
#[must_use]
pub fn parse(text: &str, file: &str) -> Found {
    let mut profile = Profile::default();
    for (section, key, value) in ini(text) {
        profile.line(&section, &key, &value);
    }
    profile.found(file)
}

#[derive(Debug, Default)]
struct Profile {
    interface: Interface,
    controller: Option<String>,
    kind: String,
    /// The MAC address that it gives to the card, instead of the card's own.
    cloned_mac: Option<String>,
    lost: Option<LostKind>,
}

impl Profile {
    fn line(&mut self, section: &str, key: &str, value: &str) {
        let interface = &mut self.interface;
        match (section, key) {
            ("connection", "interface-name") => value.clone_into(&mut interface.name),
            ("connection", "type") => value.clone_into(&mut self.kind),
            ("connection", "master" | "controller") => self.controller = Some(value.to_owned()),
            ("connection", "uuid") => interface.uuid = Some(value.to_owned()),
            ("ethernet" | "802-3-ethernet", "mac-address") => interface.mac = normal_mac(value),
            ("ethernet" | "802-3-ethernet", "cloned-mac-address") => {
                self.cloned_mac = normal_mac(value);
            }
            ("bond", key) => interface.bonding.set(key, value),
            ("team", "config") => {
                interface.bonding = Bonding::from_team(&value.replace("\\n", " "));
            }
            ("sriov", _) => self.lost = Some(LostKind::VirtualFunctions),
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

    fn found(mut self, file: &str) -> Found {
        let cable = matches!(self.kind.as_str(), "ethernet" | "802-3-ethernet" | "");
        let lost = match self.kind.as_str() {
            "wifi" | "802-11-wireless" | "gsm" | "cdma" => Some(LostKind::Wireless),
            "infiniband" => Some(LostKind::InfiniBand),
            _ => self.lost,
        };
        let mut found = Found::default();
        found.lost.extend(lost.map(|kind| Lost {
            name: self.interface.name.clone(),
            kind,
            file: file.to_owned(),
        }));
        if !cable && lost.is_some() {
            return found;
        }
        let interface = &mut self.interface;
        interface.is_virtual = !cable;
        interface.is_vlan = self.kind == "vlan";
        interface.any_name = cable && interface.name.is_empty() && interface.mac.is_some();
        if interface.mac.is_none() && cable {
            interface.mac = self.cloned_mac;
        }
        let made = self.controller.filter(|_| !interface.name.is_empty());
        let made = made.map(|controller| Interface {
            name: controller,
            is_virtual: true,
            members: vec![interface.name.clone()],
            ..Interface::default()
        });
        if !interface.name.is_empty() || interface.any_name {
            found.interfaces.push(self.interface);
        }
        found.interfaces.extend(made);
        found
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
            "f",
        );
        assert_eq!(
            found.interfaces,
            [Interface {
                name: "ens3".into(),
                mac: Some("52:54:00:aa:00:01".into()),
                addresses: vec!["10.9.0.5/24".into(), "10.9.0.6/24".into()],
                gateway: Some("10.9.0.1".into()),
                uuid: Some("9".into()),
                ..Interface::default()
            }]
        );
    }

    #[test]
    fn a_profile_for_any_card_binds_no_name() {
        assert!(
            parse("[connection]\ntype=ethernet\n[ipv4]\nmethod=auto\n", "f")
                .interfaces
                .is_empty()
        );
    }

    #[test]
    fn a_port_names_its_bond() {
        let found = parse(
            "[connection]\ntype=ethernet\ninterface-name=eno1\nmaster=bond0\n",
            "f",
        );
        assert_eq!(found.interfaces[1].name, "bond0");
        assert_eq!(found.interfaces[1].members, ["eno1"]);
    }

    #[test]
    fn a_profile_by_mac_address_has_any_name() {
        let found = parse(
            "[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:AA:00:01\n",
            "f",
        );
        assert!(found.interfaces[0].any_name);
        assert_eq!(
            found.interfaces[0].mac.as_deref(),
            Some("52:54:00:aa:00:01")
        );
    }

    #[test]
    fn bonds_teams_and_other_hardware_are_told() {
        let bond = parse(
            "[connection]\ntype=bond\ninterface-name=bond0\n[bond]\nmode=802.3ad\n",
            "f",
        );
        assert!(bond.interfaces[0].bonding.lacp);
        let wifi = parse("[connection]\ntype=wifi\ninterface-name=wlp1s0\n", "f");
        assert_eq!(wifi.lost[0].kind, LostKind::Wireless);
        assert!(wifi.interfaces.is_empty());
        let functions = parse(
            "[connection]\ntype=ethernet\ninterface-name=eno1\n[sriov]\ntotal-vfs=4\n",
            "f",
        );
        assert_eq!(functions.lost[0].kind, LostKind::VirtualFunctions);
        assert_eq!(functions.interfaces[0].name, "eno1");
    }
}
