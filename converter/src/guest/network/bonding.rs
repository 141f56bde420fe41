// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a bond or team works, as far as a virtual switch makes a difference to it.
//!
//! | where | how it is written |
//! |---|---|
//! | `BONDING_OPTS`, `BONDING_MODULE_OPTS`, `options bond0` of modprobe | `mode=4 miimon=100` |
//! | ifupdown, netplan, NetworkManager, systemd-networkd | a key and a value each |
//! | `TEAM_CONFIG`, NetworkManager's `team.config` | JSON as in teamd.conf(5) |

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a bond or team works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bonding {
    /// It talks LACP with the switch (mode 4, 802.3ad).
    pub lacp: bool,
    /// Whom it asks by ARP to know whether a link works.
    pub arp_targets: Vec<String>,
    /// How many links must work.
    pub links_min: u32,
}

impl Bonding {
    /// Reads options as the kernel module takes them.
    #[must_use]
    pub fn from_options(text: &str) -> Self {
        let mut bonding = Self::default();
        for word in text.split_whitespace() {
            if let Some((key, value)) = word.split_once('=') {
                bonding.set(key, value);
            }
        }
        bonding
    }

    /// Reads a team's configuration.
    #[must_use]
    pub fn from_team(text: &str) -> Self {
        // Not JSON, then nothing is known about the team.
        let Ok(team) = serde_json::from_str::<Value>(text) else {
            return Self::default();
        };
        let text = |path: &str| team.pointer(path).and_then(Value::as_str);
        let watches_arp = text("/link_watch/name") == Some("arp_ping");
        let target = text("/link_watch/target_host").filter(|_| watches_arp);
        let ports = team.pointer("/runner/min_ports").and_then(Value::as_u64);
        Self {
            lacp: text("/runner/name") == Some("lacp"),
            arp_targets: target.map(str::to_owned).into_iter().collect(),
            links_min: ports
                .and_then(|ports| u32::try_from(ports).ok())
                .unwrap_or(0),
        }
    }

    /// Takes one option; the names of all the formats are alike but for their beginning, their
    /// case and what is between words.
    pub fn set(&mut self, key: &str, value: &str) {
        let key: String = key
            .chars()
            .filter(|character| !matches!(character, '-' | '_'))
            .collect();
        let key = key.to_ascii_lowercase();
        let value = value.trim().trim_matches(['"', '\'']);
        match key.strip_prefix("bond").unwrap_or(&key) {
            "mode" => self.lacp = matches!(value, "4" | "802.3ad"),
            "arpiptarget" | "arpiptargets" => {
                let targets = value.split([',', ' ']).filter(|target| !target.is_empty());
                self.arp_targets
                    .extend(targets.map(|target| target.trim_start_matches('+').to_owned()));
            }
            "minlinks" => self.links_min = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    /// Adds what another file says of the same bond.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.lacp |= other.lacp;
        for target in &other.arp_targets {
            if !self.arp_targets.contains(target) {
                self.arp_targets.push(target.clone());
            }
        }
        self.links_min = self.links_min.max(other.links_min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_module_are_read() {
        let bonding = Bonding::from_options("mode=802.3ad miimon=100 min_links=2");
        assert!(bonding.lacp);
        assert_eq!(bonding.links_min, 2);
        let bonding =
            Bonding::from_options("mode=1 arp_interval=1000 arp_ip_target=10.0.0.1,+10.0.0.2");
        assert!(!bonding.lacp);
        assert_eq!(bonding.arp_targets, ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn all_ways_to_write_a_key_are_one() {
        for key in ["bond-min-links", "MinLinks", "min_links", "bond_min_links"] {
            let mut bonding = Bonding::default();
            bonding.set(key, "3");
            assert_eq!(bonding.links_min, 3, "{key}");
        }
    }

    #[test]
    fn a_team_is_read_from_its_json() {
        let team = r#"{"runner": {"name": "lacp", "min_ports": 2},
                       "link_watch": {"name": "arp_ping", "target_host": "10.0.0.1"}}"#;
        let bonding = Bonding::from_team(team);
        assert!(bonding.lacp);
        assert_eq!(
            (bonding.links_min, bonding.arp_targets),
            (2, vec!["10.0.0.1".to_owned()])
        );
        assert_eq!(Bonding::from_team("{'runner'"), Bonding::default());
    }
}
