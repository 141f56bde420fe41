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
//! | `/etc/sysconfig/network-scripts/ifcfg-*`, `/etc/sysconfig/network/ifcfg-*` | [`ifcfg`] |
//! | `*.link` of systemd, `70-persistent-net.rules` of udev | [`naming`] |
//!
//! Each module turns one file's text into [`Found`]; [`NetworkConfiguration::assemble`] puts
//! them together: a VLAN or alias stands for the card below it, a bridge or bond for its members.

use serde::{Deserialize, Serialize};

mod assemble;
pub mod bonding;
pub mod ifcfg;
pub mod ifupdown;
pub mod naming;
pub mod netplan;
pub mod network_manager;
pub mod networkd;

pub use bonding::Bonding;

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
    /// The UUID by which other files may name it (NetworkManager).
    pub uuid: Option<String>,
    /// Whether the file chooses the card by its MAC address alone; the name is a guess then.
    pub any_name: bool,
    /// How it bonds its members.
    pub bonding: Bonding,
}

/// A default gateway that stands in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The interface, where the file names it; else that whose network has the gateway.
    pub interface: Option<String>,
    /// The address.
    pub address: String,
}

/// Hardware that no virtual machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostKind {
    /// InfiniBand.
    InfiniBand,
    /// WLAN or a mobile network.
    Wireless,
    /// A network card on USB, as of a management controller.
    Usb,
    /// Virtual functions of a card (SR-IOV).
    VirtualFunctions,
    /// Whatever card is in a given slot, or has a given driver.
    Slot,
}

/// Something that is configured and will not be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lost {
    /// Which interface, or what chooses it.
    pub name: String,
    /// What it is.
    pub kind: LostKind,
    /// The file that configures it.
    pub file: String,
}

/// What one file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The interfaces that it configures.
    pub interfaces: Vec<Interface>,
    /// The names that it gives to cards.
    pub pins: Vec<NamePin>,
    /// Default gateways that it gives to others' interfaces.
    pub gateways: Vec<Gateway>,
    /// What a virtual machine will not have.
    pub lost: Vec<Lost>,
}

impl Found {
    /// Interfaces only.
    #[must_use]
    pub fn of(interfaces: Vec<Interface>) -> Self {
        Self {
            interfaces,
            ..Self::default()
        }
    }
}

/// Who gives the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinKind {
    /// A rule of udev; the last that matches counts, and it counts more than the others.
    Rule,
    /// `HWADDR=` beside `DEVICE=` in an ifcfg file, where initscripts rename cards by it.
    Ifcfg,
    /// A `.link` file, or netplan's `set-name`; the first that matches counts.
    Link,
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
    /// Who says so.
    pub kind: PinKind,
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
    /// Whether files choose it by its MAC address alone; the name is a guess, or empty.
    pub any_name: bool,
    /// Static addresses with prefix length that are reached through it.
    pub addresses: Vec<String>,
    /// The default gateway through it.
    pub gateway: Option<String>,
    /// The file that configures it.
    pub file: String,
}

/// A bond or team and how it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Its name.
    pub name: String,
    /// How it works.
    pub bonding: Bonding,
}

/// How a name is bound to a card in this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamingMethod {
    /// A `.link` file.
    #[default]
    LinkFile,
    /// A rule of udev with `ATTR{address}`.
    UdevRule,
    /// A rule of an udev before 098, which knows only `SYSFS{address}`.
    OldUdevRule,
    /// The same of SLES 10, which renames by a program.
    RenameProgram,
    /// `HWADDR=` in the card's ifcfg file: RHEL 4 and 5.
    Ifcfg,
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
    /// Bonds and teams.
    pub bonds: Vec<Bond>,
    /// What is configured and will not be there.
    pub lost: Vec<Lost>,
    /// How a name is bound to a card.
    pub method: NamingMethod,
    /// Whether the kernel's own names are kept (`net.ifnames=0`).
    pub kernel_names: bool,
}

impl NetworkConfiguration {
    /// What gives the card with this MAC address its name.
    #[must_use]
    pub fn pin_of(&self, mac: &str) -> Option<&NamePin> {
        let of = |kind: PinKind| {
            let pins = self.pins.iter();
            pins.filter(move |pin| pin.kind == kind && pin.mac == mac)
        };
        of(PinKind::Rule)
            .next_back()
            .or_else(|| of(PinKind::Ifcfg).next())
            .or_else(|| of(PinKind::Link).next())
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

/// `eth0` of the VLAN `eth0.5` or of the alias `eth0:1`.
#[must_use]
pub fn base_name(name: &str) -> &str {
    let alias = name.split(':').next().unwrap_or(name);
    match alias.rsplit_once('.') {
        Some((base, vlan)) if !vlan.is_empty() && vlan.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => alias,
    }
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

/// Whether a network has an address.
pub(crate) fn contains(network: &str, address: &str) -> bool {
    use std::net::IpAddr;
    let Some((base, prefix)) = network.split_once('/') else {
        return false;
    };
    let prefix: u32 = prefix.parse().unwrap_or(u32::MAX);
    match (base.parse(), address.parse()) {
        (Ok(IpAddr::V4(base)), Ok(IpAddr::V4(address))) => {
            let differing = u32::from(base) ^ u32::from(address);
            differing.leading_zeros() >= prefix.min(32)
        }
        (Ok(IpAddr::V6(base)), Ok(IpAddr::V6(address))) => {
            let differing = u128::from(base) ^ u128::from(address);
            differing.leading_zeros() >= prefix.min(128)
        }
        _ => false,
    }
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
    fn a_network_has_the_addresses_of_its_prefix() {
        assert!(contains("10.0.0.5/24", "10.0.0.1"));
        assert!(!contains("10.0.0.5/24", "10.0.1.1"));
        assert!(contains("2001:db8::5/64", "2001:db8::1"));
        assert!(!contains("10.0.0.5/24", "fe80::1"));
        assert!(!contains("10.0.0.5/x", "10.0.0.6"));
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
