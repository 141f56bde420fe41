// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts together what a guest's network files say: which cards are at the bottom of bonds, bridges
//! and VLANs, and which addresses are reached through them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Bond, Card, Found, Gateway, Interface, Lost, LostKind, NamePin, NetworkConfiguration,
    base_name, contains, natural_key,
};

impl NetworkConfiguration {
    /// Puts together what the files say, in the order in which they were read.
    #[must_use]
    pub fn assemble(found: Vec<(String, Found)>) -> Self {
        let files = found.iter().map(|(file, _)| file.clone()).collect();
        let pins: Vec<NamePin> = found
            .iter()
            .flat_map(|(_, found)| found.pins.clone())
            .collect();
        let gateways: Vec<Gateway> = found
            .iter()
            .flat_map(|(_, found)| found.gateways.clone())
            .collect();
        let mut lost: Vec<Lost> = found
            .iter()
            .flat_map(|(_, found)| found.lost.clone())
            .collect();
        let mut all: Vec<(String, Interface)> = found
            .into_iter()
            .flat_map(|(file, found)| found.interfaces.into_iter().map(move |i| (file.clone(), i)))
            .collect();
        name_members(&mut all);
        for gateway in gateways {
            give_gateway(&mut all, gateway);
        }
        lost.extend(lost_cards(&all));
        lost.sort();
        lost.dedup_by(|left, right| left.name == right.name && left.kind == right.kind);
        let mut cards = collect_cards(&all);
        for card in cards.values_mut() {
            if let Some(pin) = pins.iter().find(|pin| pin.name == card.name) {
                card.mac = Some(pin.mac.clone());
                card.pinned = true;
            }
        }
        let mut cards: Vec<Card> = cards.into_values().collect();
        cards.sort_by_key(|card| natural_key(&card.name));
        Self {
            cards,
            pins,
            files,
            bonds: bonds(&all),
            lost,
            ..Self::default()
        }
    }
}

/// Members and makers that are named by a UUID get the name of the interface that has it.
fn name_members(all: &mut [(String, Interface)]) {
    let names: BTreeMap<String, String> = all
        .iter()
        .filter_map(|(_, interface)| Some((interface.uuid.clone()?, interface.name.clone())))
        .collect();
    for (_, interface) in all {
        if let Some(name) = names.get(&interface.name) {
            interface.name.clone_from(name);
        }
        for member in &mut interface.members {
            if let Some(name) = names.get(member) {
                member.clone_from(name);
            }
        }
    }
}

fn give_gateway(all: &mut [(String, Interface)], gateway: Gateway) {
    let is_for = |interface: &Interface| match &gateway.interface {
        Some(name) => interface.name == *name,
        None => {
            let mut networks = interface.addresses.iter();
            networks.any(|network| contains(network, &gateway.address))
        }
    };
    let interface = all.iter_mut().find(|(_, interface)| is_for(interface));
    if let Some((_, interface)) = interface {
        interface.gateway.get_or_insert(gateway.address);
    }
}

fn bonds(all: &[(String, Interface)]) -> Vec<Bond> {
    let mut bonds: BTreeMap<&str, super::Bonding> = BTreeMap::new();
    for (_, interface) in all {
        if interface.bonding != super::Bonding::default() {
            bonds
                .entry(&interface.name)
                .or_default()
                .merge(&interface.bonding);
        }
    }
    let bonds = bonds.into_iter().map(|(name, bonding)| Bond {
        name: name.to_owned(),
        bonding,
    });
    bonds.collect()
}

fn collect_cards(all: &[(String, Interface)]) -> BTreeMap<String, Card> {
    let made: BTreeSet<&str> = all
        .iter()
        .filter(|(_, interface)| interface.is_virtual)
        .map(|(_, interface)| interface.name.as_str())
        .collect();
    let mut cards: BTreeMap<String, Card> = BTreeMap::new();
    for (file, interface) in all {
        for (place, below) in cards_below(interface, all).into_iter().enumerate() {
            // Without a name a card is known by its MAC address.
            let known = match below.name.as_str() {
                "" => interface.mac.clone(),
                name => (!made.contains(name) && is_card_name(name)).then(|| name.to_owned()),
            };
            let Some(key) = known else { continue };
            let card = cards.entry(key).or_insert_with(|| Card {
                name: below.name,
                mac: None,
                pinned: false,
                any_name: true,
                addresses: Vec::new(),
                gateway: None,
                file: file.clone(),
            });
            card.any_name &= interface.any_name;
            let own = !interface.is_virtual;
            if own && card.mac.is_none() {
                card.mac.clone_from(&interface.mac);
            }
            if place == 0 && !below.is_tagged {
                for address in &interface.addresses {
                    if !card.addresses.contains(address) {
                        card.addresses.push(address.clone());
                    }
                }
                if card.gateway.is_none() {
                    card.gateway.clone_from(&interface.gateway);
                }
            }
        }
    }
    cards
}

/// A card at the bottom of an interface.
#[derive(Debug)]
struct Below {
    name: String,
    /// Whether there is a VLAN in between: what is reached through it is on another network.
    is_tagged: bool,
}

/// The cards at the bottom of an interface: itself, or its members' members.
fn cards_below(interface: &Interface, all: &[(String, Interface)]) -> Vec<Below> {
    let mut pending = vec![Below {
        name: interface.name.clone(),
        is_tagged: interface.is_vlan,
    }];
    let mut seen = BTreeSet::new();
    let mut cards = Vec::new();
    while let Some(Below { name, is_tagged }) = pending.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        // One interface may be made by several files: a bond and each of its members.
        let made: Vec<&Interface> = all
            .iter()
            .map(|(_, other)| other)
            .filter(|other| other.name == name && other.is_virtual)
            .collect();
        if made.is_empty() {
            let base = base_name(&name).to_owned();
            let is_tagged = is_tagged || is_vlan_name(&name);
            match base == name {
                true => cards.push(Below { name, is_tagged }),
                // `bond0.5`: what is below `bond0`.
                false => pending.push(Below {
                    name: base,
                    is_tagged,
                }),
            }
            continue;
        }
        let is_tagged = is_tagged || made.iter().any(|other| other.is_vlan);
        let members = made.iter().flat_map(|other| &other.members);
        let members: Vec<Below> = members
            .map(|member| Below {
                name: member.clone(),
                is_tagged,
            })
            .collect();
        pending.extend(members.into_iter().rev());
    }
    cards
}

fn is_vlan_name(name: &str) -> bool {
    name.split(':').next().unwrap_or(name) != base_name(name)
}

/// Hardware of other kinds among what is configured.
fn lost_cards(all: &[(String, Interface)]) -> Vec<Lost> {
    let lost = all.iter().filter(|(_, interface)| !interface.is_virtual);
    let lost = lost.filter_map(|(file, interface)| {
        Some(Lost {
            kind: lost_kind(base_name(&interface.name))?,
            name: base_name(&interface.name).to_owned(),
            file: file.clone(),
        })
    });
    lost.collect()
}

/// What hardware an interface's name stands for, where it is none that a virtual machine has.
pub(crate) fn lost_kind(name: &str) -> Option<LostKind> {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let has_number = name.bytes().any(|byte| byte.is_ascii_digit());
    if !has_number {
        None
    } else if begins(&["ib"]) {
        Some(LostKind::InfiniBand)
    } else if begins(&["wl", "ww", "ath", "wifi"]) {
        Some(LostKind::Wireless)
    } else {
        begins(&["usb"]).then_some(LostKind::Usb)
    }
}

/// Whether a name can be a network card's: not loopback, no pattern, nothing that software makes.
fn is_card_name(name: &str) -> bool {
    const MADE: [&str; 22] = [
        "docker", "veth", "virbr", "vmbr", "tun", "tap", "wg", "ppp", "dummy", "sit", "ifb", "gre",
        "vxlan", "bond", "br-", "team", "vnet", "ovs", "tunl", "ipsec", "dsl", "isdn",
    ];
    let legal = !name.is_empty()
        && name.len() < 16
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'));
    legal
        && name != "lo"
        && lost_kind(name).is_none()
        && !MADE.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            ..Interface::default()
        }
    }

    fn assemble(interfaces: Vec<Interface>) -> Vec<Card> {
        NetworkConfiguration::assemble(vec![("file".to_owned(), Found::of(interfaces))]).cards
    }

    #[test]
    fn a_bridge_over_a_bond_stands_for_the_cards_of_the_bond() {
        let cards = assemble(vec![
            Interface {
                is_virtual: true,
                members: vec!["bond0".into()],
                addresses: vec!["10.0.0.5/24".into()],
                gateway: Some("10.0.0.1".into()),
                ..interface("br0")
            },
            Interface {
                is_virtual: true,
                members: vec!["eno2".into(), "eno1".into()],
                ..interface("bond0")
            },
        ]);
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        assert_eq!(names, ["eno1", "eno2"]);
        assert_eq!(cards[1].addresses, ["10.0.0.5/24"]);
        assert_eq!(cards[1].gateway.as_deref(), Some("10.0.0.1"));
        assert!(cards[0].addresses.is_empty());
    }

    #[test]
    fn a_vlan_and_an_alias_stand_for_their_card_but_only_the_alias_gives_it_an_address() {
        let cards = assemble(vec![
            Interface {
                is_virtual: true,
                is_vlan: true,
                members: vec!["eth0".into()],
                addresses: vec!["10.5.0.5/24".into()],
                ..interface("eth0.5")
            },
            Interface {
                addresses: vec!["10.0.0.6/24".into()],
                ..interface("eth0:1")
            },
        ]);
        assert_eq!(cards.len(), 1);
        assert_eq!(cards[0].name, "eth0");
        assert_eq!(cards[0].addresses, ["10.0.0.6/24"]);
    }

    #[test]
    fn members_in_a_circle_end() {
        let circle = |name: &str, member: &str| Interface {
            is_virtual: true,
            members: vec![member.to_owned()],
            ..interface(name)
        };
        assert!(assemble(vec![circle("a", "b"), circle("b", "a")]).is_empty());
    }

    #[test]
    fn cards_are_in_the_order_in_which_people_count() {
        let cards = assemble(vec![interface("eth10"), interface("eth2"), interface("lo")]);
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        assert_eq!(names, ["eth2", "eth10"]);
    }

    fn virtual_of(name: &str, members: &[&str]) -> Interface {
        Interface {
            is_virtual: true,
            members: members.iter().map(|&member| member.to_owned()).collect(),
            ..interface(name)
        }
    }

    #[test]
    fn a_bond_that_only_its_members_know_has_their_cards_below() {
        let cards = assemble(vec![
            Interface {
                addresses: vec!["10.0.0.5/24".into()],
                ..virtual_of("bond0", &[])
            },
            interface("eno1"),
            virtual_of("bond0", &["eno1"]),
        ]);
        assert_eq!(cards[0].addresses, ["10.0.0.5/24"]);
    }

    #[test]
    fn what_is_behind_a_vlan_is_not_on_the_cards_network() {
        let cards = assemble(vec![
            Interface {
                addresses: vec!["10.0.0.5/24".into()],
                ..virtual_of("br9", &["bond0.9"])
            },
            virtual_of("bond0", &["eno1"]),
        ]);
        assert_eq!(cards[0].name, "eno1");
        assert!(cards[0].addresses.is_empty());
    }

    #[test]
    fn members_named_by_uuid_are_found() {
        let cards = assemble(vec![
            Interface {
                uuid: Some("u-1".into()),
                addresses: vec!["10.0.0.5/24".into()],
                ..virtual_of("bond0", &[])
            },
            virtual_of("u-1", &["eno1"]),
        ]);
        assert_eq!(cards[0].addresses, ["10.0.0.5/24"]);
    }

    #[test]
    fn a_gateway_goes_to_the_network_that_has_it_or_to_whom_it_names() {
        let found = Found {
            interfaces: vec![
                Interface {
                    addresses: vec!["10.0.0.5/24".into()],
                    ..interface("eth0")
                },
                interface("eth1"),
            ],
            gateways: vec![
                Gateway {
                    interface: None,
                    address: "10.0.0.1".into(),
                },
                Gateway {
                    interface: Some("eth1".into()),
                    address: "10.9.0.1".into(),
                },
            ],
            ..Found::default()
        };
        let cards = NetworkConfiguration::assemble(vec![("file".to_owned(), found)]).cards;
        assert_eq!(cards[0].gateway.as_deref(), Some("10.0.0.1"));
        assert_eq!(cards[1].gateway.as_deref(), Some("10.9.0.1"));
    }

    #[test]
    fn infiniband_and_wlan_are_no_cards() {
        let found = Found::of(vec![
            interface("ib0"),
            interface("wlp2s0"),
            interface("ibm"),
        ]);
        let network = NetworkConfiguration::assemble(vec![("f".to_owned(), found)]);
        let names: Vec<&str> = network
            .cards
            .iter()
            .map(|card| card.name.as_str())
            .collect();
        assert_eq!(names, ["ibm"]);
        let kinds: Vec<LostKind> = network.lost.iter().map(|lost| lost.kind).collect();
        assert_eq!(kinds, [LostKind::InfiniBand, LostKind::Wireless]);
    }

    #[test]
    fn cards_chosen_by_mac_address_alone_are_told_apart_by_it() {
        let by_mac = |mac: &str| Interface {
            mac: Some(mac.to_owned()),
            any_name: true,
            ..interface("")
        };
        let cards = assemble(vec![
            by_mac("52:54:00:00:00:02"),
            by_mac("52:54:00:00:00:01"),
        ]);
        assert_eq!(cards.len(), 2);
        assert!(cards.iter().all(|card| card.any_name));
    }
}
