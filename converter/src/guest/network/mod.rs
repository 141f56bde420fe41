// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a Linux guest sets up its network: which interfaces it configures by name, which rules
//! give a network card its name, and which addresses it will have.
//!
//! | files | module |
//! |---|---|
//! | `/etc/network/interfaces`, `interfaces.d/*` | [`ifupdown`] |
//! | `/etc/systemd/network/*.network`, `*.netdev` | [`networkd`] |
//! | `/etc/netplan/*.yaml` | [`netplan`] |
//! | `/etc/NetworkManager/system-connections/*` | [`network_manager`] |
//! | `*.link` of systemd, `70-persistent-net.rules` of udev | [`naming`] |
//!
//! Each module turns one file's text into [`Found`]; [`NetworkConfiguration::assemble`] puts
//! them together: a VLAN or alias stands for the card below it, a bridge or bond for its members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub mod ifupdown;
pub mod naming;
pub mod netplan;
pub mod network_manager;
pub mod networkd;

/// One interface as one file configures it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in the guest.
    pub name: String,
    /// The card's MAC address that the file selects it by, or gives it.
    pub mac: Option<String>,
    /// Static addresses with prefix length.
    pub addresses: Vec<String>,
    /// The default gateway.
    pub gateway: Option<String>,
    /// The interfaces that a bridge, bond or VLAN is made of; it is no card then.
    pub members: Vec<String>,
    /// Whether it is made by software: a bridge, bond, VLAN, tunnel.
    pub is_virtual: bool,
    /// Whether it is a VLAN, whose addresses are not those of the card below.
    pub is_vlan: bool,
}

/// What one file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The interfaces that it configures.
    pub interfaces: Vec<Interface>,
    /// The names that it gives to cards.
    pub pins: Vec<NamePin>,
}

/// A rule that gives a card its name by its MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamePin {
    /// The name.
    pub name: String,
    /// The MAC address, lower case with colons.
    pub mac: String,
    /// The file that says so.
    pub file: String,
}

/// A network card that the guest configures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// The MAC address that the guest's own files know it by.
    pub mac: Option<String>,
    /// Whether a rule of the guest binds that name to that MAC address already.
    pub pinned: bool,
    /// Static addresses with prefix length that are reached through it.
    pub addresses: Vec<String>,
    /// The default gateway through it.
    pub gateway: Option<String>,
    /// The file that configures it.
    pub file: String,
}

/// How the guest sets up its network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkConfiguration {
    /// The network cards that it configures by name, in the order of their names.
    pub cards: Vec<Card>,
    /// The rules that bind names to cards.
    pub pins: Vec<NamePin>,
    /// The files that were read.
    pub files: Vec<String>,
}

impl NetworkConfiguration {
    /// Puts together what the files say, in the order in which they were read.
    #[must_use]
    pub fn assemble(found: Vec<(String, Found)>) -> Self {
        let files = found.iter().map(|(file, _)| file.clone()).collect();
        let pins: Vec<NamePin> = found
            .iter()
            .flat_map(|(_, found)| found.pins.clone())
            .collect();
        let all: Vec<(String, Interface)> = found
            .into_iter()
            .flat_map(|(file, found)| found.interfaces.into_iter().map(move |i| (file.clone(), i)))
            .collect();
        let mut cards = collect_cards(&all);
        for card in cards.values_mut() {
            if let Some(pin) = pins.iter().find(|pin| pin.name == card.name) {
                card.mac = Some(pin.mac.clone());
                card.pinned = true;
            }
        }
        let mut cards: Vec<Card> = cards.into_values().collect();
        cards.sort_by(|a, b| natural_key(&a.name).cmp(&natural_key(&b.name)));
        Self { cards, pins, files }
    }
}

/// Names compared as people order them: `eth2` before `eth10`.
pub(crate) fn natural_key(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name
        .get(stem.len()..)
        .and_then(|digits| digits.parse().ok());
    (stem.to_owned(), number.unwrap_or(0))
}

fn collect_cards(all: &[(String, Interface)]) -> BTreeMap<String, Card> {
    let made: BTreeSet<&str> = all
        .iter()
        .filter(|(_, interface)| interface.is_virtual)
        .map(|(_, interface)| interface.name.as_str())
        .collect();
    let mut cards: BTreeMap<String, Card> = BTreeMap::new();
    for (file, interface) in all {
        for (place, name) in cards_below(interface, all).into_iter().enumerate() {
            if made.contains(name.as_str()) || !is_card_name(&name) {
                continue;
            }
            let card = cards.entry(name.clone()).or_insert_with(|| Card {
                name,
                mac: None,
                pinned: false,
                addresses: Vec::new(),
                gateway: None,
                file: file.clone(),
            });
            let own = !interface.is_virtual;
            if own && card.mac.is_none() {
                card.mac.clone_from(&interface.mac);
            }
            if place == 0 && !interface.is_vlan {
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

/// The cards at the bottom of an interface: itself, or its members' members.
fn cards_below(interface: &Interface, all: &[(String, Interface)]) -> Vec<String> {
    let mut pending: Vec<String> = if interface.is_virtual {
        interface.members.clone()
    } else {
        vec![interface.name.clone()]
    };
    let mut seen = BTreeSet::new();
    let mut cards = Vec::new();
    pending.reverse();
    while let Some(name) = pending.pop() {
        let name = base_name(&name).to_owned();
        if !seen.insert(name.clone()) {
            continue;
        }
        let made: Vec<&Interface> = all
            .iter()
            .map(|(_, other)| other)
            .filter(|other| other.name == name && other.is_virtual)
            .collect();
        if made.is_empty() {
            cards.push(name);
        }
        for other in made {
            pending.extend(other.members.iter().rev().cloned());
        }
    }
    cards
}

/// `eth0` of the VLAN `eth0.5` or of the alias `eth0:1`.
#[must_use]
pub fn base_name(name: &str) -> &str {
    let alias = name.split(':').next().unwrap_or(name);
    match alias.rsplit_once('.') {
        Some((base, vlan)) if !vlan.is_empty() && vlan.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => alias,
    }
}

/// Whether a name can be a network card's: not loopback, no pattern, nothing that software makes.
fn is_card_name(name: &str) -> bool {
    const MADE: [&str; 17] = [
        "lo", "docker", "veth", "virbr", "vmbr", "tun", "tap", "wg", "ppp", "dummy", "sit", "ifb",
        "gre", "vxlan", "bond", "br-", "team",
    ];
    let legal = !name.is_empty()
        && name.len() < 16
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'));
    legal && name != "lo" && !MADE[1..].iter().any(|prefix| name.starts_with(prefix))
}

/// A MAC address in lower case with colons; `None` when it is none.
#[must_use]
pub fn normal_mac(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let legal = parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    (legal && text != "00:00:00:00:00:00").then(|| parts.join(":"))
}

/// The prefix length of a netmask: `255.255.255.0` is 24, `24` is 24.
#[must_use]
pub fn prefix_of_netmask(netmask: &str) -> Option<u8> {
    if let Ok(prefix) = netmask.parse::<u8>() {
        return (prefix <= 128).then_some(prefix);
    }
    let mask = u32::from(netmask.parse::<std::net::Ipv4Addr>().ok()?);
    let ones = mask.leading_ones();
    (mask.checked_shl(ones).unwrap_or(0) == 0)
        .then(|| u8::try_from(ones).ok())
        .flatten()
}

/// An address with its prefix length, when both are legal.
#[must_use]
pub fn normal_address(address: &str, netmask: Option<&str>) -> Option<String> {
    let (address, prefix) = match address.split_once('/') {
        Some((address, prefix)) => (address, prefix_of_netmask(prefix)),
        None => (address, netmask.and_then(prefix_of_netmask)),
    };
    let address: std::net::IpAddr = address.trim().parse().ok()?;
    let prefix = prefix.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
    Some(format!("{address}/{prefix}"))
}

/// The lines of an ini-like file: section, key, value; comments and blank lines left out.
pub(crate) fn ini(text: &str) -> impl Iterator<Item = (String, String, String)> + '_ {
    let mut section = String::new();
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
            return None;
        }
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((
            section.clone(),
            key.trim().to_owned(),
            value.trim().to_owned(),
        ))
    })
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
        let found = Found {
            interfaces,
            pins: Vec::new(),
        };
        NetworkConfiguration::assemble(vec![("file".to_owned(), found)]).cards
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

    #[test]
    fn netmasks_and_addresses_are_normalised_or_refused() {
        assert_eq!(prefix_of_netmask("255.255.252.0"), Some(22));
        assert_eq!(prefix_of_netmask("0.0.0.0"), Some(0));
        assert_eq!(prefix_of_netmask("255.255.255.255"), Some(32));
        assert_eq!(prefix_of_netmask("255.0.255.0"), None);
        assert_eq!(
            normal_address("10.0.0.5", Some("255.255.255.0")).as_deref(),
            Some("10.0.0.5/24")
        );
        assert_eq!(
            normal_address("2001:db8::5/64", None).as_deref(),
            Some("2001:db8::5/64")
        );
        assert_eq!(normal_address("nonsense", None), None);
    }

    #[test]
    fn mac_addresses_are_written_one_way() {
        assert_eq!(
            normal_mac("00-1B-21-AA-bb-0c").as_deref(),
            Some("00:1b:21:aa:bb:0c")
        );
        assert_eq!(normal_mac("random"), None);
        assert_eq!(normal_mac("00:00:00:00:00:00"), None);
    }
}
