// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network cards keep their names: the virtual card gets the MAC address of the physical one, and a
//! rule of the guest binds the name to it.
//!
//! - Names of the kind `ethN` are the kernel's own, given in the order in which cards are found.
//!   Renaming one card to a name that another still has fails, so the cards of the virtual machine
//!   are put in that order and gaps are filled (`eth1` alone gets an `eth0` before it). The rule then
//!   only prevents that a predictable name replaces `ethN`.
//! - All other names are free when the rule is applied.
//! - The rule goes into the initramfs too. There udev names the card first, and systemd before
//!   version 240 never renames a second time.

use disk::{Finding, Level};

use crate::guest::network::{base_name, naming, natural_key};
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{FilePlace, InnerFile, Inspection};
use crate::plan::edit::{Change, Edit};
use crate::vm::VmNic;

/// Cards that a virtual machine gets at most; more fit on no virtual mainboard's first bus.
const CARDS_MAX: usize = 16;

/// The virtual machine's cards and what the guest needs to know them.
#[derive(Debug, Default)]
pub(crate) struct NetworkPlan {
    pub(crate) nics: Vec<VmNic>,
    pub(crate) edits: Vec<Edit>,
    /// The same rules for inside every initramfs.
    pub(crate) inner_files: Vec<InnerFile>,
}

/// Plans the cards.
pub(crate) fn plan(
    inspection: &Inspection,
    server_name: &str,
    findings: &mut Vec<Finding>,
) -> NetworkPlan {
    let mut cards = wanted_cards(inspection, server_name);
    if cards.len() > CARDS_MAX {
        let left_out: Vec<String> = cards.drain(CARDS_MAX..).map(|card| card.nic.name).collect();
        findings.push(
            finding(
                Level::Warning,
                "network.too-many-cards",
                "network",
                format!("no virtual card is made for {}", left_out.join(", ")),
            )
            .remedy(format!("a virtual machine gets {CARDS_MAX} cards at most")),
        );
    }
    let mut plan = NetworkPlan::default();
    for card in cards {
        if card.configured && !card.is_pinned(inspection) {
            if card.mac_is_made_up {
                findings.push(finding(
                    Level::Note,
                    "network.mac.generated",
                    card.nic.name.clone(),
                    format!(
                        "nothing tells its MAC address; the virtual card gets {}",
                        card.nic.mac
                    ),
                ));
            }
            plan.pin(&card, inspection);
        }
        plan.nics.push(card.nic);
    }
    plan
}

impl NetworkPlan {
    fn pin(&mut self, card: &PlannedCard, inspection: &Inspection) {
        let Some(root) = inspection.root else { return };
        let (name, mac) = (&card.nic.name, &card.nic.mac);
        let by_link = inspection
            .system
            .as_ref()
            .is_none_or(|system| system.link_files);
        let (path, content) = if by_link {
            let path = format!("/etc/systemd/network/10-relevo-{name}.link");
            (path, naming::link_file(name, mac))
        } else {
            let path = format!("/etc/udev/rules.d/75-relevo-{name}-net.rules");
            (path, naming::udev_rule(name, mac))
        };
        self.inner_files.push(InnerFile {
            path: path.trim_start_matches('/').to_owned(),
            text: content.clone(),
        });
        self.edits.push(Edit {
            place: FilePlace {
                volume: root,
                path: path.clone(),
                guest_path: path,
            },
            reasons: vec![format!(
                "the interface keeps its name {name}: the virtual card has the MAC address {mac}"
            )],
            change: Change::Create {
                content,
                mode: 0o644,
            },
        });
    }
}

#[derive(Debug)]
struct PlannedCard {
    nic: VmNic,
    /// The guest configures it by name.
    configured: bool,
    mac_is_made_up: bool,
}

impl PlannedCard {
    fn is_pinned(&self, inspection: &Inspection) -> bool {
        let mut pins = inspection.network.pins.iter();
        pins.any(|pin| pin.name == self.nic.name && pin.mac == self.nic.mac)
    }
}

fn wanted_cards(inspection: &Inspection, server_name: &str) -> Vec<PlannedCard> {
    let mut cards: Vec<PlannedCard> = inspection
        .network
        .cards
        .iter()
        .map(|card| {
            let known = machine_mac(inspection, &card.name).or_else(|| card.mac.clone());
            PlannedCard {
                mac_is_made_up: known.is_none(),
                nic: VmNic {
                    name: card.name.clone(),
                    mac: known.unwrap_or_else(|| made_up_mac(server_name, &card.name)),
                    addresses: card.addresses.clone(),
                    gateway: card.gateway.clone(),
                },
                configured: true,
            }
        })
        .collect();
    cards.extend(unconfigured_cards(inspection, &cards));
    fill_gaps(&mut cards, inspection, server_name);
    cards.sort_by_key(|card| {
        let name = &card.nic.name;
        (kernel_number(name).is_none(), natural_key(name))
    });
    if cards.is_empty() {
        // A guest that takes whatever card there is.
        cards.push(placeholder("net0", inspection, server_name));
    }
    cards
}

/// Cards with an address at the time of the snapshot that no file of the guest names.
fn unconfigured_cards(inspection: &Inspection, known: &[PlannedCard]) -> Vec<PlannedCard> {
    let interfaces = inspection
        .machine
        .iter()
        .flat_map(|machine| &machine.interfaces);
    interfaces
        .filter(|interface| interface.kind == "ethernet" && !interface.addresses.is_empty())
        .filter(|interface| !known.iter().any(|card| card.nic.name == interface.name))
        .filter_map(|interface| {
            Some(PlannedCard {
                nic: VmNic {
                    name: interface.name.clone(),
                    mac: interface.mac.clone()?,
                    addresses: Vec::new(),
                    gateway: None,
                },
                configured: false,
                mac_is_made_up: false,
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
    let known = machine_mac(inspection, name);
    PlannedCard {
        mac_is_made_up: known.is_none(),
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
