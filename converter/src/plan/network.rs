// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network cards keep their names: the virtual card gets the MAC address of the physical one, and a
//! rule of the guest binds the name to it.
//!
//! - Names of the kind `ethN` are the kernel's own, given in the order in which cards are found.
//!   Renaming one card to a name that another still has fails, so the cards of the virtual machine
//!   are put in that order and gaps are filled (`eth1` alone gets an `eth0` before it). The rule then
//!   only prevents that a predictable name replaces `ethN`.
//! - All other names are free when the rule is applied.
//! - The rule is of the kind that the guest's udev reads; where the udev is older than rules that
//!   rename, the card's own `ifcfg` file says its MAC address.
//! - A rule of udev counts more than a `.link` file, so one that names the card otherwise is
//!   answered by a rule.
//! - The rule goes into the initramfs too. There udev names the card first, and systemd before
//!   version 240 never renames a second time.

use std::collections::BTreeSet;

use disk::{Finding, Level};

use crate::guest::modprobe_conf::{Directive, ModprobeConf};
use crate::guest::network::{
    Card, LostKind, NamingMethod, PinKind, base_name, ifcfg, naming, natural_key,
};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{DriverPlace, InnerFile, Inspection, TextFile};
use crate::plan::devices::text_of;
use crate::plan::edit::{Change, Edit, Rewrites};
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
    rewrites: &mut Rewrites,
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
            findings.extend(card.made_up());
            plan.pin(&card, inspection, rewrites);
        }
        plan.nics.push(card.nic);
    }
    module_aliases(inspection, &plan.nics, rewrites);
    lost(inspection, findings);
    bonds(inspection, findings);
    plan
}

impl NetworkPlan {
    fn pin(&mut self, card: &PlannedCard, inspection: &Inspection, rewrites: &mut Rewrites) {
        let (name, mac) = (&card.nic.name, &card.nic.mac);
        let named_by_rule = inspection
            .network
            .pin_of(mac)
            .is_some_and(|pin| pin.kind == PinKind::Rule);
        let reason = format!(
            "the interface keeps its name {name}: the virtual card has the MAC address {mac}"
        );
        let (path, content) = match inspection.network.method {
            NamingMethod::LinkFile if !named_by_rule => (
                format!("/etc/systemd/network/10-relevo-{name}.link"),
                naming::link_file(name, mac),
            ),
            // Behind 70-persistent-net.rules and biosdevname's 71, whose names it replaces; before
            // the generator at 75, which would write a rule for a card that it takes for new.
            NamingMethod::LinkFile | NamingMethod::UdevRule => (
                format!("/etc/udev/rules.d/71-relevo-{name}-net.rules"),
                naming::udev_rule(name, mac),
            ),
            NamingMethod::OldUdevRule => (
                format!("/etc/udev/rules.d/71-relevo-{name}-net.rules"),
                naming::old_udev_rule(name, mac),
            ),
            // Between 30-net_persistent_names.rules and 31-network.rules.
            NamingMethod::RenameProgram => (
                format!("/etc/udev/rules.d/30-relevo-{name}-net.rules"),
                naming::rename_program_rule(name, mac),
            ),
            NamingMethod::Ifcfg => {
                set_hardware_address(card, inspection, rewrites, &reason);
                return;
            }
        };
        let Some(place) = inspection.place_on_root(&path) else {
            return;
        };
        self.inner_files.push(InnerFile {
            path: path.trim_start_matches('/').to_owned(),
            text: content.clone(),
        });
        self.edits.push(Edit {
            place,
            reasons: vec![reason],
            change: Change::Create {
                content,
                mode: 0o644,
            },
        });
    }
}

/// `HWADDR=` in the card's own file: RHEL 4 and 5 rename by it.
fn set_hardware_address(
    card: &PlannedCard,
    inspection: &Inspection,
    rewrites: &mut Rewrites,
    reason: &str,
) {
    let configures = |file: &&TextFile| {
        let name = file.place.path.rsplit('/').next().unwrap_or_default();
        let config = ShellConfig::parse(file.text.as_bytes());
        let device = config.get("DEVICE");
        device.as_deref().or(ifcfg::interface_of(name)) == Some(&card.nic.name)
    };
    let mut files = inspection.device_files.network_scripts.iter();
    let Some(file) = files.find(configures) else {
        return;
    };
    rewrites.change(file, reason, |text| {
        let mut config = ShellConfig::parse(text.as_bytes());
        config.set("HWADDR", &card.nic.mac.to_ascii_uppercase());
        text_of(config.to_bytes(), text)
    });
}

/// `alias eth0 tg3`: old guests load a card's driver by its name.
fn module_aliases(inspection: &Inspection, nics: &[VmNic], rewrites: &mut Rewrites) {
    let Some(kernel) = crate::plan::default_kernel(inspection) else {
        return;
    };
    let models = ["virtio_net", "e1000", "8139cp", "e1000e"];
    let mut present = models
        .into_iter()
        .filter(|name| kernel.driver(name) != DriverPlace::Absent);
    let Some(driver) = present.next() else { return };
    for file in &inspection.device_files.modprobe {
        let reason = format!("the virtual cards' driver is {driver}");
        rewrites.change(file, reason, |text| with_aliases(text, nics, driver));
    }
}

/// `modprobe.conf` whose aliases of these cards name a driver.
fn with_aliases(text: &str, nics: &[VmNic], driver: &str) -> String {
    let mut conf = ModprobeConf::parse(text.as_bytes());
    let directives: Vec<(usize, Directive)> = conf.directives().collect();
    for (line, directive) in directives {
        let Directive::Alias { name, module } = directive else {
            continue;
        };
        if module != driver && nics.iter().any(|nic| nic.name == name) {
            conf.set_alias(line, driver);
        }
    }
    text_of(conf.to_bytes(), text)
}

/// What is configured and no virtual machine has.
fn lost(inspection: &Inspection, findings: &mut Vec<Finding>) {
    for lost in &inspection.network.lost {
        let name = &lost.name;
        let (code, problem, remedy) = match lost.kind {
            LostKind::InfiniBand => (
                "network.infiniband",
                format!("{name} is InfiniBand, which no virtual machine has"),
                "give the servers that talk over it another network",
            ),
            LostKind::Wireless => (
                "network.wireless",
                format!("{name} is a wireless card, which no virtual machine has"),
                "give the server a cable on the physical side too",
            ),
            LostKind::Usb => (
                "network.usb",
                format!("{name} is a card on USB, as management controllers have"),
                "nothing, where it only talks to the management controller",
            ),
            LostKind::VirtualFunctions => (
                "network.sriov",
                format!("{name} has virtual functions (SR-IOV), which a virtual card has not"),
                "what uses the functions needs cards of its own",
            ),
            LostKind::Slot => (
                "network.by-slot",
                format!("configures a card by its slot or driver ({name}), which change"),
                "let the file choose the card by its name or MAC address, on the server",
            ),
        };
        findings.push(finding(Level::Warning, code, &lost.file, problem).remedy(remedy));
    }
}

/// Bonds for which a virtual switch makes a difference.
fn bonds(inspection: &Inspection, findings: &mut Vec<Finding>) {
    for bond in &inspection.network.bonds {
        if bond.bonding.lacp {
            let links = match bond.bonding.links_min {
                0 | 1 => String::new(),
                links => format!("; it wants {links} links, and then has none"),
            };
            let problem = format!(
                "negotiates LACP, which a virtual switch does not answer: one card at most \
                 carries traffic{links}"
            );
            findings.push(
                finding(Level::Warning, "network.bond.lacp", &bond.name, problem)
                    .remedy("in the virtual machine, active-backup does the same"),
            );
        }
        if !bond.bonding.arp_targets.is_empty() {
            let targets = bond.bonding.arp_targets.join(", ");
            let problem = format!("works only while {targets} answers, as in no isolated network");
            findings.push(
                finding(
                    Level::Warning,
                    "network.bond.arp-monitor",
                    &bond.name,
                    problem,
                )
                .remedy("watch the cards' own links (miimon) instead"),
            );
        }
    }
}

#[derive(Debug)]
struct PlannedCard {
    nic: VmNic,
    /// The guest configures it by name.
    configured: bool,
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
    fn is_pinned(&self, inspection: &Inspection) -> bool {
        let pin = inspection.network.pin_of(&self.nic.mac);
        pin.is_some_and(|pin| pin.name == self.nic.name)
    }

    fn made_up(&self) -> Option<Finding> {
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

fn wanted_cards(inspection: &Inspection, server_name: &str) -> Vec<PlannedCard> {
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
