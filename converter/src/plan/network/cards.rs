// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cards that the virtual machine gets: their names, their order, and where their MAC addresses
//! are from.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use super::CARDS_MAX;
use crate::guest::network::{Card, base_name, natural_key};
use crate::inspect::Inspection;
use crate::inspect::findings::finding;
use crate::vm::VmNic;

/// A card of the virtual machine.
#[derive(Debug)]
pub(super) struct PlannedCard {
    pub(super) nic: VmNic,
    /// The guest configures it by name.
    pub(super) configured: bool,
    mac: MacSource,
}

/// Where a virtual card's MAC address is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MacSource {
    Known,
    /// Nothing tells it.
    MadeUp,
    /// What is told is another card's: members of a bond all have the first one's while they work.
    Shared,
}

impl PlannedCard {
    pub(super) fn is_pinned(&self, inspection: &Inspection) -> bool {
        let pin = inspection.network.pin_of(&self.nic.mac);
        pin.is_some_and(|pin| pin.name == self.nic.name)
    }

    pub(super) fn made_up(&self) -> Option<Finding> {
        let (name, mac) = (self.nic.name.clone(), &self.nic.mac);
        match self.mac {
            MacSource::Known => None,
            MacSource::MadeUp => {
                let problem = format!("nothing tells its MAC address; the virtual card gets {mac}");
                Some(finding(Level::Note, "network.mac.generated", name, problem))
            }
            MacSource::Shared => {
                let problem = format!(
                    "the MAC address that is told of it is another card's; the virtual card gets \
                     {mac}"
                );
                Some(finding(Level::Warning, "network.mac.shared", name, problem))
            }
        }
    }
}

/// One card for each that the guest configures or the machine had; at least one.
pub(super) fn wanted_cards(inspection: &Inspection, server_name: &str) -> Vec<PlannedCard> {
    let mut taken = BTreeSet::new();
    let mut cards: Vec<PlannedCard> = Vec::new();
    for card in &inspection.network.cards {
        let planned = wanted_card(card, cards.len(), inspection, server_name, &mut taken);
        let twice = |other: &PlannedCard| other.nic.name == planned.nic.name;
        if !cards.iter().any(twice) {
            cards.push(planned);
        }
    }
    cards.extend(unconfigured_cards(inspection, &cards, &taken));
    fill_gaps(&mut cards, inspection, server_name);
    cards.sort_by_key(|card| {
        let name = &card.nic.name;
        (kernel_number(name).is_none(), natural_key(name))
    });
    if cards.is_empty() {
        // A guest that takes whatever card there is.
        let name = match inspection.network.kernel_names {
            true => "eth0",
            false => "net0",
        };
        cards.push(placeholder(name, inspection, server_name));
    }
    cards
}

fn wanted_card(
    card: &Card,
    place: usize,
    inspection: &Inspection,
    server_name: &str,
    taken: &mut BTreeSet<String>,
) -> PlannedCard {
    let (name, configured) = card_name(card, place, inspection);
    let machine = machine_mac(inspection, &name);
    let is_shared = |mac: &String| machine_cards(inspection, mac).count() > 1;
    // The machine's own word counts, unless it says it of several cards.
    let (shared, own) = match machine {
        Some(mac) if is_shared(&mac) => (Some(mac), None),
        own => (None, own),
    };
    let own_file = card
        .mac
        .clone()
        .filter(|mac| !is_anothers(mac, &name, inspection));
    let mut candidates = [own, own_file, shared].into_iter().flatten();
    let was_told = candidates.clone().next().is_some();
    let known = candidates.find(|mac| taken.insert(mac.clone()));
    PlannedCard {
        mac: match (&known, was_told) {
            (Some(_), _) => MacSource::Known,
            (None, true) => MacSource::Shared,
            (None, false) => MacSource::MadeUp,
        },
        nic: VmNic {
            mac: known.unwrap_or_else(|| made_up_mac(server_name, &name)),
            name,
            addresses: card.addresses.clone(),
            gateway: card.gateway.clone(),
        },
        configured,
    }
}

/// Whether the machine says that an address is of another card that the guest configures: then a
/// file that gives it to this one is out of date.
fn is_anothers(mac: &str, name: &str, inspection: &Inspection) -> bool {
    let configured = |other: &str| {
        let mut cards = inspection.network.cards.iter();
        cards.any(|card| card.name == other)
    };
    let mut cards = machine_cards(inspection, mac);
    match (cards.next(), cards.next()) {
        (Some(one), None) => one.name != name && configured(&one.name),
        _ => false,
    }
}

/// A card's name, and whether the guest needs it: a card that is chosen by its MAC address alone
/// has the name that it had on the machine, or any.
fn card_name(card: &Card, place: usize, inspection: &Inspection) -> (String, bool) {
    let mac = card.mac.as_ref().filter(|_| card.any_name);
    let Some(mac) = mac else {
        return (card.name.clone(), true);
    };
    let on_machine = machine_cards(inspection, mac).next();
    if let Some(interface) = on_machine {
        return (interface.name.clone(), true);
    }
    if let Some(pin) = inspection.network.pin_of(mac) {
        return (pin.name.clone(), true);
    }
    match card.name.as_str() {
        "" => (format!("net{place}"), false),
        name => (name.to_owned(), true),
    }
}

/// The machine's cards with this MAC address.
fn machine_cards<'a>(
    inspection: &'a Inspection,
    mac: &'a str,
) -> impl Iterator<Item = &'a image_library::machine::Interface> {
    let machine = inspection.machine.iter();
    let interfaces = machine.flat_map(|machine| &machine.interfaces);
    interfaces.filter(move |interface| {
        interface.kind == "ethernet" && interface.mac.as_deref() == Some(mac)
    })
}

/// Cards with an address at the time of the snapshot that no file of the guest names.
fn unconfigured_cards(
    inspection: &Inspection,
    known: &[PlannedCard],
    taken: &BTreeSet<String>,
) -> Vec<PlannedCard> {
    let interfaces = inspection
        .machine
        .iter()
        .flat_map(|machine| &machine.interfaces);
    interfaces
        .filter(|interface| interface.kind == "ethernet" && !interface.addresses.is_empty())
        .filter(|interface| !known.iter().any(|card| card.nic.name == interface.name))
        .filter_map(|interface| {
            let mac = interface.mac.clone().filter(|mac| !taken.contains(mac))?;
            Some(PlannedCard {
                nic: VmNic {
                    name: interface.name.clone(),
                    mac,
                    addresses: Vec::new(),
                    gateway: None,
                },
                configured: false,
                mac: MacSource::Known,
            })
        })
        .collect()
}

/// `eth1` alone gets an `eth0` before it.
fn fill_gaps(cards: &mut Vec<PlannedCard>, inspection: &Inspection, server_name: &str) {
    let numbers: Vec<usize> = cards
        .iter()
        .filter_map(|c| kernel_number(&c.nic.name))
        .collect();
    let last = numbers.iter().copied().max().unwrap_or(0).min(CARDS_MAX);
    for number in (0..last).filter(|number| !numbers.contains(number)) {
        cards.push(placeholder(
            &format!("eth{number}"),
            inspection,
            server_name,
        ));
    }
}

fn placeholder(name: &str, inspection: &Inspection, server_name: &str) -> PlannedCard {
    let mut pins = inspection.network.pins.iter();
    let pin = pins.find(|pin| pin.name == name);
    let known = machine_mac(inspection, name).or_else(|| pin.map(|pin| pin.mac.clone()));
    PlannedCard {
        mac: MacSource::Known,
        nic: VmNic {
            name: name.to_owned(),
            mac: known.unwrap_or_else(|| made_up_mac(server_name, name)),
            addresses: Vec::new(),
            gateway: None,
        },
        configured: false,
    }
}

/// The N of `ethN`.
fn kernel_number(name: &str) -> Option<usize> {
    name.strip_prefix("eth")?.parse().ok()
}

fn machine_mac(inspection: &Inspection, name: &str) -> Option<String> {
    let machine = inspection.machine.as_ref()?;
    let interface = machine
        .interfaces
        .iter()
        .find(|i| i.name == base_name(name))?;
    interface.mac.clone()
}

/// A locally administered address that is the same in every conversion of this server.
fn made_up_mac(server_name: &str, interface: &str) -> String {
    let hash = blake3::hash(format!("mac\0{server_name}\0{interface}").as_bytes());
    let bytes = hash.as_bytes();
    format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]
    )
}
