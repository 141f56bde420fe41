// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which network of a platform each card is on, and whether the card keeps its address there.

use std::str::FromStr;

use disk::{Finding, Level};

use super::{Export, Platform, text};
use crate::inspect::findings::{WithRemedy, finding};
use crate::vm::VmNic;

/// Stands before the name of a network that is a bridge of the host, which libvirt tells apart.
pub(super) const BRIDGE: &str = "bridge:";

/// Networks of a platform for the cards of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Mapping>);

/// One network, for one card or for all others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    /// The card's name in the guest; `None`: all that have none of their own.
    card: Option<String>,
    network: String,
}

impl Networks {
    /// Networks as a person names them: `NETWORK` for all cards, `CARD=NETWORK` for one;
    /// `bridge:NAME` where it is a bridge of a libvirt host.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them, as text.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The network of a card, where one was named for it, for platforms on which all are alike.
    pub(super) fn of(&self, nic: &VmNic) -> Option<&str> {
        let named = self.as_named(nic)?;
        Some(named.strip_prefix(BRIDGE).unwrap_or(named))
    }

    /// The network of a card as it was named: with [`BRIDGE`] before a bridge of the host.
    pub(super) fn as_named(&self, nic: &VmNic) -> Option<&str> {
        let own = |mapping: &&Mapping| mapping.card.as_deref() == Some(nic.name.as_str());
        let found = self.0.iter().find(own);
        found
            .or_else(|| self.0.iter().find(|mapping| mapping.card.is_none()))
            .map(|mapping| mapping.network.as_str())
    }

    /// Mappings for cards that the machine does not have.
    fn unused<'a>(&'a self, nics: &'a [VmNic]) -> impl Iterator<Item = &'a str> {
        let cards = self.0.iter().filter_map(|mapping| mapping.card.as_deref());
        cards.filter(|card| nics.iter().all(|nic| nic.name != *card))
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (card, network) = match text.split_once('=') {
            Some((card, network)) => (Some(card), network),
            None => (None, text),
        };
        let is_empty = matches!(network, "" | BRIDGE) || card == Some("");
        // A comma or a quote would be read as something else by several platforms.
        let is_strange = |c: char| c.is_control() || matches!(c, ',' | '"' | '\'');
        if is_empty || network.contains(is_strange) {
            return Err(format!(
                "{text:?} does not name a network: expected NETWORK or CARD=NETWORK"
            ));
        }
        Ok(Self {
            card: card.map(str::to_owned),
            network: network.to_owned(),
        })
    }
}

/// What somebody should know about the cards on a platform.
pub(super) fn check(platform: Platform, export: &Export<'_>, findings: &mut Vec<Finding>) {
    let nics = &export.vm.nics;
    for card in export.networks.unused(nics) {
        let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
        let problem = format!("the machine has no such card; it has: {}", names.join(" "));
        findings.push(finding(
            Level::Warning,
            "export.network.no-card",
            text::comment(card),
            problem,
        ));
    }
    for nic in nics.iter().filter(|nic| text::mac(&nic.mac).is_none()) {
        findings.push(
            finding(
                Level::Warning,
                "export.card.mac",
                text::comment(&nic.name),
                format!("its MAC address cannot be kept: {:?}", nic.mac),
            )
            .remedy("look at the guest's network names and addresses after its first start"),
        );
    }
    let forgets = matches!(
        platform,
        Platform::VmwareOrVirtualBox | Platform::VirtualBox
    );
    if forgets && !nics.is_empty() {
        findings.push(
            finding(
                Level::Warning,
                "export.card.mac-by-hand",
                platform.text(),
                "an import gives network cards new MAC addresses, and the guest knows its cards \
                 by the old ones",
            )
            .remedy("set them by hand after the import; the comment in the OVF lists them"),
        );
    }
    if platform == Platform::Kubevirt {
        check_pods(export, findings);
    }
}

/// A pod has one network, and its addresses are not the guest's.
fn check_pods(export: &Export<'_>, findings: &mut Vec<Finding>) {
    let unmapped = export.vm.nics.iter().enumerate().filter(|(index, nic)| {
        let is_static = !nic.addresses.is_empty();
        export.networks.of(nic).is_none() && (*index > 0 || is_static)
    });
    for (_, nic) in unmapped {
        findings.push(
            finding(
                Level::Warning,
                "export.network.unmapped",
                text::comment(&nic.name),
                "the network of the pod is not the network of this card",
            )
            .remedy(format!(
                "name a network attachment of the cluster: --network {}=NAMESPACE/NAME",
                text::comment(&nic.name)
            )),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str) -> VmNic {
        VmNic {
            name: name.to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            addresses: Vec::new(),
            gateway: None,
        }
    }

    #[test]
    fn a_card_gets_its_own_network_or_that_of_all() {
        let texts = ["lan", "eth1=VM Network 2"].map(str::to_owned);
        let networks = Networks::parse(&texts).unwrap();
        assert_eq!(networks.of(&nic("eth0")), Some("lan"));
        assert_eq!(networks.of(&nic("eth1")), Some("VM Network 2"));
        assert_eq!(Networks::default().of(&nic("eth1")), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "=",
            "eth0=",
            "=lan",
            "a,b",
            "eth0=a,firewall=0",
            "a\nb",
            "a\"b",
        ] {
            assert!(Networks::parse(&[text.to_owned()]).is_err(), "{text:?}");
        }
    }
}
