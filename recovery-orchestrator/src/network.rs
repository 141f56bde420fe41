// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network of one machine: QEMU user networking with `restrict=on`, laid around the guest.
//!
//! Each network card gets a network of its own with nothing in it but the guest and QEMU, which
//! answers on the guest's gateway address; nothing gets out. From this computer single TCP
//! ports of the guest are reached through forwards on 127.0.0.1. Servers of one runbook do not
//! see each other yet: this is not the shared isolated network that is planned.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::str::FromStr;

use converter::vm::VmNic;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a guest that asks DHCP and has no subnet of its own is put.
const DHCP_SUBNET: Subnet = Subnet {
    base: Ipv4Addr::new(10, 0, 2, 0),
    prefix: 24,
};
/// QEMU needs room for itself beside the guest.
const LONGEST_PREFIX: u8 = 28;
const SHORTEST_PREFIX: u8 = 8;

/// An IPv4 network: `10.20.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The network of an address, with at least 16 addresses.
    fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = match prefix {
            // A host route or a point-to-point link: the neighbours it is likely to have.
            29.. => 24,
            short => short.max(SHORTEST_PREFIX),
        };
        Self {
            base: Ipv4Addr::from(u32::from(address) & mask(prefix)),
            prefix,
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.base)
    }

    /// The usable addresses, lowest first.
    fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(self.base).saturating_add(1);
        let last = u32::from(self.base) | !mask(self.prefix);
        (first..last).map(Ipv4Addr::from)
    }
}

const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        1..=32 => u32::MAX << (32 - prefix),
        _ => u32::MAX,
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("not an IPv4 network: {text:?} ({problem})");
        let (base, prefix) = text
            .split_once('/')
            .ok_or_else(|| wrong("expected ADDRESS/PREFIX"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong("its address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong("its prefix length"))?;
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix) {
            return Err(wrong("its prefix length must be from 8 to 28"));
        }
        if u32::from(base) & !mask(prefix) != 0 {
            let network = Ipv4Addr::from(u32::from(base) & mask(prefix));
            return Err(wrong(&format!(
                "the network's own address is {network}/{prefix}"
            )));
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// A TCP port of the guest and where it is reached on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The port in the guest.
    pub guest_port: u16,
    /// The port here.
    pub host_port: u16,
}

/// One network card with the network around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicPlan {
    /// Its name in the guest.
    pub interface: String,
    /// Its MAC address.
    pub mac: String,
    /// The network.
    pub subnet: Subnet,
    /// The guest's address, its own or the one that DHCP gives it.
    pub guest: Ipv4Addr,
    /// Where QEMU answers: the guest's gateway.
    pub host: Ipv4Addr,
    /// Where QEMU answers DNS, if it were not restricted.
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives.
    pub dhcp_start: Ipv4Addr,
    /// Ports of the guest that are reached from here.
    pub forwards: Vec<Forward>,
}

/// Plans a server's network cards.
///
/// `wanted[i]` is the subnet that the runbook gives the card `i`; a card without one is given the
/// network of its own address. The ports are forwarded through the first card that has a static
/// address, or else the first one.
pub fn plan(
    server: &str,
    nics: &[VmNic],
    wanted: &[Option<Subnet>],
    forwards: Vec<Forward>,
) -> Result<Vec<NicPlan>> {
    let default = [default_nic(server)];
    let nics = if nics.is_empty() { &default[..] } else { nics };
    let mut plans = Vec::new();
    for (index, nic) in nics.iter().enumerate() {
        plans.push(plan_nic(server, nic, wanted.get(index).copied().flatten())?);
    }
    let reached = nics
        .iter()
        .position(|nic| !static_addresses(nic).is_empty())
        .unwrap_or(0);
    if let Some(nic) = plans.get_mut(reached) {
        nic.forwards = forwards;
    }
    Ok(plans)
}

/// Ports on 127.0.0.1 that nobody listens on right now, one for each of the guest's ports.
pub fn free_forwards(guest_ports: impl IntoIterator<Item = u16>) -> Result<Vec<Forward>> {
    let mut held = Vec::new();
    let mut forwards: Vec<Forward> = Vec::new();
    for guest_port in guest_ports {
        if forwards
            .iter()
            .any(|forward| forward.guest_port == guest_port)
        {
            continue;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(Error::file("find a free port on", "127.0.0.1"))?;
        let address = listener
            .local_addr()
            .map_err(Error::file("find a free port on", "127.0.0.1"))?;
        forwards.push(Forward {
            guest_port,
            host_port: address.port(),
        });
        // Held until all are found, so that they differ.
        held.push(listener);
    }
    Ok(forwards)
}

fn plan_nic(server: &str, nic: &VmNic, wanted: Option<Subnet>) -> Result<NicPlan> {
    let addresses = static_addresses(nic);
    let own = match wanted {
        Some(subnet) => addresses
            .iter()
            .find(|(address, _)| subnet.contains(*address)),
        None => addresses.first(),
    };
    let subnet = match (wanted, own) {
        (Some(subnet), None) if !addresses.is_empty() => return Err(outside(server, nic, subnet)),
        (Some(subnet), _) => subnet,
        (None, Some((address, prefix))) => Subnet::around(*address, *prefix),
        (None, None) => DHCP_SUBNET,
    };
    let taken: Vec<Ipv4Addr> = addresses.iter().map(|(address, _)| *address).collect();
    let gateway = nic
        .gateway
        .as_ref()
        .and_then(|gateway| gateway.parse().ok());
    let gateway = gateway.filter(|gateway| subnet.contains(*gateway) && !taken.contains(gateway));
    let mut free = subnet
        .hosts()
        .filter(|host| !taken.contains(host) && Some(*host) != gateway);
    // At least 13 are left of the 16 addresses of the smallest network, unless the guest has them all.
    let mut next = || free.next().ok_or_else(|| full(server, subnet));
    let host = gateway.map_or_else(&mut next, Ok)?;
    let (dns, dhcp_start) = (next()?, next()?);
    Ok(NicPlan {
        interface: nic.name.clone(),
        mac: nic.mac.clone(),
        subnet,
        guest: own.map_or(dhcp_start, |(address, _)| *address),
        host,
        dns,
        dhcp_start,
        forwards: Vec::new(),
    })
}

/// IPv4 only: QEMU's user network is told to leave IPv6 alone.
fn static_addresses(nic: &VmNic) -> Vec<(Ipv4Addr, u8)> {
    let parse = |text: &String| {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "24"));
        Some((address.parse().ok()?, prefix.parse().ok()?))
    };
    nic.addresses.iter().filter_map(parse).collect()
}

/// A guest whose cards nobody knows gets one, with an address made from its name.
fn default_nic(server: &str) -> VmNic {
    let hash = blake3::hash(server.as_bytes());
    let [a, b, c, ..] = *hash.as_bytes();
    VmNic {
        name: "unknown".to_owned(),
        mac: format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"),
        addresses: Vec::new(),
        gateway: None,
    }
}

fn outside(server: &str, nic: &VmNic, subnet: Subnet) -> Error {
    Error::Network {
        server: server.to_owned(),
        problem: format!(
            "its card {} has the address {}, which is not in the runbook's subnet {subnet}",
            nic.name,
            nic.addresses.join(", ")
        ),
        hint: "leave out `subnet`: then it is taken from the guest's own address".to_owned(),
    }
}

fn full(server: &str, subnet: Subnet) -> Error {
    Error::Network {
        server: server.to_owned(),
        problem: format!("no address is left in {subnet}"),
        hint: "give the network a larger subnet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(addresses: &[&str], gateway: Option<&str>) -> VmNic {
        VmNic {
            name: "enp3s0".to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            addresses: addresses
                .iter()
                .map(|address| (*address).to_owned())
                .collect(),
            gateway: gateway.map(str::to_owned),
        }
    }

    fn numbers(plan: &NicPlan) -> [String; 5] {
        [
            plan.subnet.to_string(),
            plan.guest.to_string(),
            plan.host.to_string(),
            plan.dns.to_string(),
            plan.dhcp_start.to_string(),
        ]
    }

    #[test]
    fn qemu_answers_on_the_guests_gateway_and_never_on_its_own_address() {
        for (addresses, gateway, expected) in [
            (
                &["10.20.0.5/24"][..],
                Some("10.20.0.1"),
                [
                    "10.20.0.0/24",
                    "10.20.0.5",
                    "10.20.0.1",
                    "10.20.0.2",
                    "10.20.0.3",
                ],
            ),
            (
                &["10.20.0.2/24"],
                Some("10.20.0.254"),
                [
                    "10.20.0.0/24",
                    "10.20.0.2",
                    "10.20.0.254",
                    "10.20.0.1",
                    "10.20.0.3",
                ],
            ),
            (
                &["192.168.7.1/16", "192.168.7.2/16"],
                None,
                [
                    "192.168.0.0/16",
                    "192.168.7.1",
                    "192.168.0.1",
                    "192.168.0.2",
                    "192.168.0.3",
                ],
            ),
            (
                &["203.0.113.9/32"],
                Some("203.0.113.1"),
                [
                    "203.0.113.0/24",
                    "203.0.113.9",
                    "203.0.113.1",
                    "203.0.113.2",
                    "203.0.113.3",
                ],
            ),
            (
                &["10.1.1.1/30"],
                Some("10.9.9.9"),
                [
                    "10.1.1.0/24",
                    "10.1.1.1",
                    "10.1.1.2",
                    "10.1.1.3",
                    "10.1.1.4",
                ],
            ),
            (
                &[],
                None,
                [
                    "10.0.2.0/24",
                    "10.0.2.3",
                    "10.0.2.1",
                    "10.0.2.2",
                    "10.0.2.3",
                ],
            ),
            (
                &["fe80::1/64"],
                None,
                [
                    "10.0.2.0/24",
                    "10.0.2.3",
                    "10.0.2.1",
                    "10.0.2.2",
                    "10.0.2.3",
                ],
            ),
        ] {
            let plan = plan("s", &[nic(addresses, gateway)], &[], vec![]).unwrap();
            assert_eq!(numbers(&plan[0]), expected);
        }
    }

    #[test]
    fn an_address_outside_of_the_runbooks_subnet_is_an_error_with_a_remedy() {
        let subnet = Some("10.20.0.0/24".parse().unwrap());
        let error = plan("web01", &[nic(&["10.1.0.5/24"], None)], &[subnet], vec![]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network of web01: its card enp3s0 has the address 10.1.0.5/24, which is not in the runbook's subnet 10.20.0.0/24"
        );
        assert!(error.hint().unwrap().contains("leave out"));
    }

    #[test]
    fn forwards_go_to_the_first_card_with_a_static_address() {
        let forwards = vec![Forward {
            guest_port: 80,
            host_port: 1,
        }];
        let nics = [nic(&[], None), nic(&["10.20.0.5/24"], None)];
        let plans = plan("s", &nics, &[], forwards.clone()).unwrap();
        assert_eq!(
            (plans[0].forwards.len(), &plans[1].forwards),
            (0, &forwards)
        );
        assert_eq!(
            plan("s", &[], &[], forwards.clone()).unwrap()[0].forwards,
            forwards
        );
    }

    #[test]
    fn a_subnet_is_written_with_its_own_address() {
        assert_eq!(
            "10.0.0.0/8".parse::<Subnet>().unwrap().to_string(),
            "10.0.0.0/8"
        );
        for text in [
            "10.20.0.5/24",
            "10.0.0.0/30",
            "10.0.0.0/7",
            "10.0.0/24",
            "10.0.0.0",
            "::/64",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_port_is_forwarded_once_and_from_another_port_here() {
        let forwards = free_forwards([80, 443, 80]).unwrap();
        assert_eq!(forwards.len(), 2);
        assert_ne!(forwards[0].host_port, forwards[1].host_port);
    }
}
