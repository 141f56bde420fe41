// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ifcfg-*` files of Red Hat (`/etc/sysconfig/network-scripts`) and SUSE (`/etc/sysconfig/network`),
//! and the files of routes beside them.
//!
//! | | Red Hat | SUSE |
//! |---|---|---|
//! | interface | `DEVICE`, else the file's name | the file's name; before 2008 `eth-id-MAC` |
//! | card | `HWADDR` | - |
//! | address that the card is given | `MACADDR` | `LLADDR` |
//! | bond | `MASTER` in each member, `BONDING_OPTS` | `BONDING_SLAVE0`, `BONDING_MODULE_OPTS` |
//! | bridge, team | `BRIDGE`, `TEAM_MASTER` in each member | `BRIDGE_PORTS`, `TEAM_PORT_DEVICE_1` |
//! | VLAN | `VLAN=yes`, `PHYSDEV`, or `eth0.5` | `ETHERDEVICE` |
//! | default route | `GATEWAY`, `route-eth0`, `../network` | `routes`, `ifroute-eth0` |
//!
//! `HWADDR` beside `DEVICE` also gives the card its name, where initscripts have `rename_device`;
//! and a card with another address is left alone.

use crate::guest::shell_config::ShellConfig;

use super::{
    Bonding, Found, Gateway, Interface, Lost, LostKind, NamePin, PinKind, base_name,
    normal_address, normal_mac,
};

/// Whose `ifcfg` files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Red Hat Enterprise Linux, its kin, Fedora.
    RedHat,
    /// SUSE.
    Suse,
}

/// The end of an `ifcfg-` file's name; `None` for what the guest itself does not read.
#[must_use]
pub fn interface_of(file_name: &str) -> Option<&str> {
    const LEFT_BEHIND: [&str; 9] = [
        "~",
        ".bak",
        ".orig",
        ".old",
        ".rpmnew",
        ".rpmorig",
        ".rpmsave",
        ".rpmold",
        ".scpmbackup",
    ];
    let name = file_name.strip_prefix("ifcfg-")?;
    let left_behind = LEFT_BEHIND.iter().any(|end| name.ends_with(end));
    (!left_behind && !name.is_empty() && name != "lo").then_some(name)
}

/// Reads one `ifcfg` file; `name` is the end of its name.
#[must_use]
pub fn parse(text: &str, name: &str, file: &str, flavour: Flavour) -> Found {
    let file = File {
        config: ShellConfig::parse(text.as_bytes()),
        name,
        path: file,
    };
    match flavour {
        Flavour::RedHat => file.red_hat(),
        Flavour::Suse => file.suse(),
    }
}

#[derive(Debug)]
struct File<'a> {
    config: ShellConfig,
    name: &'a str,
    path: &'a str,
}

impl File<'_> {
    fn get(&self, key: &str) -> Option<String> {
        let value = self.config.get(key)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }

    fn is_yes(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "yes" | "true" | "1" | "on")
    }

    /// The values of `KEY`, `KEY0`, `KEY_1`...
    fn all(&self, key: &str) -> Vec<(String, String)> {
        let assignments = self.config.assignments().into_iter();
        let numbered = assignments.filter_map(|assignment| {
            let end = assignment.key.strip_prefix(key)?.to_owned();
            let is_number = end
                .trim_start_matches('_')
                .bytes()
                .all(|byte| byte.is_ascii_digit());
            (is_number && !assignment.value.is_empty()).then_some((end, assignment.value))
        });
        numbered.collect()
    }

    fn red_hat(&self) -> Found {
        let device = self.get("DEVICE");
        let kind = self.get("TYPE").unwrap_or_default().to_ascii_lowercase();
        let mut interface = Interface {
            name: device.clone().unwrap_or_else(|| self.name.to_owned()),
            mac: self.get("HWADDR").as_deref().and_then(normal_mac),
            addresses: self.addresses(),
            gateway: self.get("GATEWAY").or_else(|| self.get("GATEWAY0")),
            uuid: self.get("UUID"),
            is_vlan: self.is_yes("VLAN") || kind == "vlan",
            is_virtual: self.is_made_by_software(&kind),
            bonding: self.bonding(),
            ..Interface::default()
        };
        if interface.is_vlan {
            let base = base_name(&interface.name).to_owned();
            let parent = self.get("PHYSDEV").unwrap_or(base);
            interface.members = vec![parent];
            interface.members.retain(|parent| *parent != interface.name);
        }
        interface.any_name = device.is_none() && interface.mac.is_some();
        let mut found = Found::default();
        if let (Some(mac), Some(name), false) = (&interface.mac, device, interface.is_virtual) {
            found.pins.push(NamePin {
                name,
                mac: mac.clone(),
                file: self.path.to_owned(),
                kind: PinKind::Ifcfg,
            });
        }
        if interface.mac.is_none() && !interface.is_virtual {
            interface.mac = self.get("MACADDR").as_deref().and_then(normal_mac);
        }
        let made_of_it = self.made_of(&interface.name);
        let hardware = match kind.as_str() {
            "infiniband" => Some(LostKind::InfiniBand),
            "wireless" => Some(LostKind::Wireless),
            _ => None,
        };
        match hardware {
            Some(kind) => found.lost.push(self.lost(&interface.name, kind)),
            None => found.interfaces.push(interface),
        }
        found.interfaces.extend(made_of_it);
        found
    }

    fn is_made_by_software(&self, kind: &str) -> bool {
        let made = [
            "bridge", "bond", "team", "vlan", "gre", "ipip", "sit", "tap", "tun",
        ];
        let device_type = self.get("DEVICETYPE").unwrap_or_default();
        made.contains(&kind)
            || kind.starts_with("ovs")
            || matches!(device_type.as_str(), "Team" | "ovs")
            || self.is_yes("VLAN")
            || self.is_yes("BONDING_MASTER")
            || self.get("BONDING_OPTS").is_some()
    }

    fn bonding(&self) -> Bonding {
        match (self.get("TEAM_CONFIG"), self.get("BONDING_OPTS")) {
            (Some(team), _) => Bonding::from_team(&team),
            (None, Some(options)) => Bonding::from_options(&options),
            (None, None) => Bonding::default(),
        }
    }

    /// The bond, team or bridge that it says it belongs to.
    fn made_of(&self, name: &str) -> Vec<Interface> {
        const MAKERS: [&str; 7] = [
            "MASTER",
            "MASTER_UUID",
            "BRIDGE",
            "BRIDGE_UUID",
            "TEAM_MASTER",
            "TEAM_MASTER_UUID",
            "OVS_BRIDGE",
        ];
        let makers = MAKERS.iter().filter_map(|key| self.get(key));
        let made = makers.map(|maker| Interface {
            name: maker,
            is_virtual: true,
            members: vec![name.to_owned()],
            ..Interface::default()
        });
        made.collect()
    }

    fn suse(&self) -> Found {
        let mut found = Found::default();
        let mut interface = Interface {
            name: self.name.to_owned(),
            addresses: self.addresses(),
            ..Interface::default()
        };
        match card_of(self.name) {
            Chosen::Name => {}
            Chosen::Mac(mac) => {
                interface.name.clear();
                interface.mac = Some(mac);
                interface.any_name = true;
            }
            Chosen::Slot => {
                found.lost.push(self.lost(self.name, LostKind::Slot));
                return found;
            }
        }
        let wireless = ["WIRELESS", "WIRELESS_ESSID", "WIRELESS_MODE"];
        if wireless.iter().any(|key| self.get(key).is_some()) {
            found.lost.push(self.lost(self.name, LostKind::Wireless));
            return found;
        }
        let listed = |key: &str| self.all(key).into_iter().map(|(_, value)| value);
        let ports = self.get("BRIDGE_PORTS").unwrap_or_default();
        interface.members = listed("BONDING_SLAVE")
            .chain(listed("BONDING_SLAVE_"))
            .chain(listed("TEAM_PORT_DEVICE"))
            .chain(ports.split_whitespace().map(str::to_owned))
            .collect();
        interface.members.dedup();
        let parent = self.get("ETHERDEVICE");
        interface.is_vlan = parent.is_some();
        interface.members.extend(parent);
        interface.is_virtual = !interface.members.is_empty()
            || self.is_yes("BONDING_MASTER")
            || self.is_yes("BRIDGE")
            || self.get("TUNNEL").is_some();
        if let Some(options) = self.get("BONDING_MODULE_OPTS") {
            interface.bonding = Bonding::from_options(&options);
        }
        interface.bonding.lacp |= self.get("TEAM_RUNNER").as_deref() == Some("lacp");
        if interface.mac.is_none() && !interface.is_virtual {
            interface.mac = self.get("LLADDR").as_deref().and_then(normal_mac);
        }
        found.interfaces.push(interface);
        found
    }

    /// `IPADDR` with `PREFIX`, `PREFIXLEN` or `NETMASK`, each with the same number or none.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = Vec::new();
        for (end, address) in self.all("IPADDR") {
            let masks = ["PREFIX", "PREFIXLEN", "NETMASK"];
            let numbered = masks
                .iter()
                .find_map(|key| self.get(&format!("{key}{end}")));
            let mask = numbered.or_else(|| masks.iter().find_map(|key| self.get(key)));
            addresses.extend(normal_address(&address, mask.as_deref()));
        }
        let more = self.get("IPV6ADDR_SECONDARIES").unwrap_or_default();
        let sixes = self.get("IPV6ADDR");
        let sixes = sixes
            .iter()
            .map(String::as_str)
            .chain(more.split_whitespace());
        addresses.extend(sixes.filter_map(|address| normal_address(address, None)));
        addresses
    }

    fn lost(&self, name: &str, kind: LostKind) -> Lost {
        Lost {
            name: name.to_owned(),
            kind,
            file: self.path.to_owned(),
        }
    }
}

/// How SUSE's file names choose a card.
#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Name,
    Mac(String),
    Slot,
}

fn card_of(name: &str) -> Chosen {
    let after = |mark: &str| name.split_once(mark).map(|(_, rest)| rest);
    let id = name.strip_prefix("id-").or_else(|| after("-id-"));
    if let Some(mac) = id.and_then(normal_mac) {
        return Chosen::Mac(mac);
    }
    match name.starts_with("bus-") || name.contains("-bus-") {
        true => Chosen::Slot,
        false => Chosen::Name,
    }
}

/// Reads a file of routes: `route-eth0` and `ifroute-eth0`, whose interface is given, or SUSE's
/// `routes`.
#[must_use]
pub fn parse_routes(text: &str, interface: Option<&str>) -> Found {
    let mut gateways = Vec::new();
    let mut give = |interface: Option<&str>, address: &str| {
        if address.parse::<std::net::IpAddr>().is_ok() {
            gateways.push(Gateway {
                interface: interface.map(str::to_owned),
                address: address.to_owned(),
            });
        }
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["default" | "0.0.0.0/0" | "::/0", rest @ ..] = words.as_slice() else {
            continue;
        };
        match rest {
            // ip-route(8), as Red Hat has it.
            ["via", address, more @ ..] => {
                let device = more.windows(2).find(|pair| pair[0] == "dev");
                give(device.map(|pair| pair[1]).or(interface), address);
            }
            // Gateway, netmask, interface: SUSE.
            [address, _, device, ..] if *device != "-" => give(Some(device), address),
            [address, ..] => give(interface, address),
            [] => {}
        }
    }
    // Red Hat's other form.
    let config = ShellConfig::parse(text.as_bytes());
    for assignment in config.assignments() {
        let number = assignment.key.strip_prefix("ADDRESS");
        if let Some(number) = number.filter(|_| assignment.value == "0.0.0.0") {
            let gateway = config.get(&format!("GATEWAY{number}"));
            give(interface, &gateway.unwrap_or_default());
        }
    }
    Found {
        gateways,
        ..Found::default()
    }
}

/// Reads `/etc/sysconfig/network` of Red Hat: the gateway of the whole machine.
#[must_use]
pub fn parse_global(text: &str) -> Found {
    let config = ShellConfig::parse(text.as_bytes());
    let gateway = config.get("GATEWAY").map(|address| Gateway {
        interface: config.get("GATEWAYDEV").filter(|device| !device.is_empty()),
        address,
    });
    Found {
        gateways: gateway.into_iter().collect(),
        ..Found::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::network::NetworkConfiguration;
    use crate::guest::samples::linux_samples;

    fn red_hat(text: &str, name: &str) -> Found {
        parse(text, name, "f", Flavour::RedHat)
    }

    fn suse(text: &str, name: &str) -> Found {
        parse(text, name, "f", Flavour::Suse)
    }

    #[test]
    fn files_left_behind_by_packages_and_loopback_are_not_read() {
        assert_eq!(interface_of("ifcfg-eth0"), Some("eth0"));
        for name in [
            "ifcfg-lo",
            "ifcfg-eth0.bak",
            "ifcfg-eth0~",
            "ifcfg-eth0.rpmsave",
            "route-eth0",
        ] {
            assert_eq!(interface_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_static_card_of_red_hat_is_read() {
        let found = red_hat(
            "DEVICE=eth0\nHWADDR=00:1E:C9:AA:BB:01\nBOOTPROTO=none\nONBOOT=yes\n\
             IPADDR=10.0.0.5\nNETMASK=255.255.255.0\nIPADDR2=10.0.0.6\nPREFIX2=25\n\
             GATEWAY=10.0.0.1\nIPV6ADDR=2001:db8::5/64\n",
            "eth0",
        );
        let card = &found.interfaces[0];
        assert_eq!(card.mac.as_deref(), Some("00:1e:c9:aa:bb:01"));
        assert_eq!(
            card.addresses,
            ["10.0.0.5/24", "10.0.0.6/25", "2001:db8::5/64"]
        );
        assert_eq!(card.gateway.as_deref(), Some("10.0.0.1"));
        assert_eq!(found.pins[0].kind, PinKind::Ifcfg);
    }

    #[test]
    fn bonds_teams_bridges_and_vlans_of_red_hat_are_put_together() {
        let files = [
            (
                "bond0",
                "DEVICE=bond0\nBONDING_OPTS=\"mode=4 miimon=100\"\nBRIDGE=br0\n",
            ),
            ("em1", "DEVICE=em1\nMASTER=bond0\nSLAVE=yes\n"),
            ("em2", "DEVICE=em2\nMASTER=bond0\nSLAVE=yes\n"),
            (
                "br0",
                "DEVICE=br0\nTYPE=Bridge\nIPADDR=10.0.0.5\nPREFIX=24\n",
            ),
            (
                "em3",
                "DEVICE=em3\nTEAM_MASTER=team0\nDEVICETYPE=TeamPort\n",
            ),
            (
                "team0",
                "DEVICE=team0\nDEVICETYPE=Team\nIPADDR=10.1.0.5\nPREFIX=24\n\
                       TEAM_CONFIG='{\"runner\": {\"name\": \"lacp\"}}'\n",
            ),
            (
                "em4.7",
                "DEVICE=em4.7\nVLAN=yes\nIPADDR=10.7.0.5\nPREFIX=24\n",
            ),
            ("vlan8", "DEVICE=vlan8\nVLAN=yes\nPHYSDEV=em4\n"),
        ];
        let found = files.map(|(name, text)| (name.to_owned(), red_hat(text, name)));
        let network = NetworkConfiguration::assemble(found.to_vec());
        let cards: Vec<(&str, &[String])> = network
            .cards
            .iter()
            .map(|card| (card.name.as_str(), card.addresses.as_slice()))
            .collect();
        assert_eq!(
            cards,
            [
                ("em1", &["10.0.0.5/24".to_owned()][..]),
                ("em2", &[]),
                ("em3", &["10.1.0.5/24".to_owned()]),
                ("em4", &[]),
            ]
        );
        let bonds: Vec<(&str, bool)> = network
            .bonds
            .iter()
            .map(|bond| (bond.name.as_str(), bond.bonding.lacp))
            .collect();
        assert_eq!(bonds, [("bond0", true), ("team0", true)]);
    }

    #[test]
    fn infiniband_and_wlan_are_lost() {
        assert_eq!(
            red_hat("DEVICE=ib0\nTYPE=InfiniBand\n", "ib0").lost[0].kind,
            LostKind::InfiniBand
        );
        assert_eq!(
            suse("WIRELESS_ESSID='x'\n", "wlan0").lost[0].kind,
            LostKind::Wireless
        );
    }

    #[test]
    fn a_card_of_suse_is_chosen_by_name_by_mac_address_or_by_slot() {
        let by_mac = suse("IPADDR='10.0.0.5/24'\n", "eth-id-00:16:3E:11:22:33");
        assert!(by_mac.interfaces[0].any_name);
        assert_eq!(
            by_mac.interfaces[0].mac.as_deref(),
            Some("00:16:3e:11:22:33")
        );
        let by_slot = suse("IPADDR='10.0.0.5/24'\n", "eth-bus-pci-0000:02:01.0");
        assert_eq!(by_slot.lost[0].kind, LostKind::Slot);
        let by_name = suse(
            "IPADDR='10.0.0.5'\nNETMASK='255.255.0.0'\nIPADDR_1='10.9.0.5/24'\n",
            "eth0",
        );
        assert_eq!(
            by_name.interfaces[0].addresses,
            ["10.0.0.5/16", "10.9.0.5/24"]
        );
    }

    #[test]
    fn bonds_bridges_and_vlans_of_suse_name_their_members() {
        let files = [
            (
                "bond0",
                "BONDING_MASTER='yes'\nBONDING_SLAVE0='eth0'\nBONDING_SLAVE_1='eth1'\n\
                       BONDING_MODULE_OPTS='mode=active-backup arp_ip_target=10.0.0.1'\n",
            ),
            (
                "br0",
                "BRIDGE='yes'\nBRIDGE_PORTS='bond0 eth2'\nIPADDR='10.0.0.5/24'\n",
            ),
            (
                "vlan9",
                "ETHERDEVICE='bond0'\nVLAN_ID='9'\nIPADDR='10.9.0.5/24'\n",
            ),
        ];
        let found = files.map(|(name, text)| (name.to_owned(), suse(text, name)));
        let network = NetworkConfiguration::assemble(found.to_vec());
        let names: Vec<&str> = network
            .cards
            .iter()
            .map(|card| card.name.as_str())
            .collect();
        assert_eq!(names, ["eth0", "eth1", "eth2"]);
        assert_eq!(network.cards[0].addresses, ["10.0.0.5/24"]);
        assert_eq!(network.bonds[0].bonding.arp_targets, ["10.0.0.1"]);
    }

    #[test]
    fn default_routes_are_found_in_all_their_forms() {
        let gateways = |text: &str, interface| -> Vec<(Option<String>, String)> {
            let found = parse_routes(text, interface);
            found
                .gateways
                .into_iter()
                .map(|g| (g.interface, g.address))
                .collect()
        };
        let eth0 = Some("eth0".to_owned());
        let gateway = "10.0.0.1".to_owned();
        let expected = [(eth0, gateway)];
        assert_eq!(
            gateways(
                "default via 10.0.0.1\n10.9.0.0/16 via 10.0.0.9\n",
                Some("eth0")
            ),
            expected
        );
        assert_eq!(gateways("default via 10.0.0.1 dev eth0\n", None), expected);
        assert_eq!(
            gateways(
                "ADDRESS0=0.0.0.0\nNETMASK0=0.0.0.0\nGATEWAY0=10.0.0.1\n",
                Some("eth0")
            ),
            expected
        );
        assert_eq!(gateways("default 10.0.0.1 - eth0\n", None), expected);
        assert_eq!(gateways("default 10.0.0.1 - -\n", Some("eth0")), expected);
        assert_eq!(gateways("# default 10.0.0.1\ndefault\n", None), []);
    }

    #[test]
    fn real_files_give_the_cards_that_they_configure() {
        let Some(files) = linux_samples("forklift-net.tar.xz") else {
            return;
        };
        let of = |test: &str, directory: &str, flavour| -> Vec<(String, Option<String>)> {
            let start = format!("forklift-net/{test}/root/etc/sysconfig/{directory}/");
            let found = files.iter().filter_map(|(path, bytes)| {
                let name = interface_of(path.strip_prefix(&start)?)?;
                let text = String::from_utf8_lossy(bytes);
                Some((path.clone(), parse(&text, name, path, flavour)))
            });
            let cards = NetworkConfiguration::assemble(found.collect()).cards;
            cards
                .into_iter()
                .map(|card| (card.name, card.mac))
                .collect()
        };
        let plain = |name: &str| (name.to_owned(), None);
        for quotes in ["double", "single", "no"] {
            let test = format!("ifcfg-{quotes}-quotes-test.d");
            assert_eq!(
                of(&test, "network-scripts", Flavour::RedHat),
                [plain("eth0")]
            );
        }
        assert_eq!(
            of("ifcfg-hwaddr-test.d", "network-scripts", Flavour::RedHat),
            [
                plain("ens192"),
                ("ens224".to_owned(), Some("00:50:56:a0:e3:ff".to_owned()))
            ]
        );
        assert_eq!(
            of("ifcfg-suse-test.d", "network", Flavour::Suse),
            [plain("eth0"), plain("eth1")]
        );
    }
}
