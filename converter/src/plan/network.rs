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

mod cards;

use disk::{Finding, Level};

use crate::guest::modprobe_conf::{Directive, ModprobeConf};
use crate::guest::network::{LostKind, NamingMethod, PinKind, ifcfg, naming};
use crate::guest::shell_config::ShellConfig;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{DriverPlace, InnerFile, Inspection, TextFile};
use crate::plan::devices::text_of;
use crate::plan::edit::{Change, Edit, Rewrites};
use crate::vm::VmNic;

use cards::{PlannedCard, wanted_cards};

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
