// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network interfaces with hardware behind them, bonds, bridges and VLANs over them, addresses
//! and routes.
//!
//! | what | from |
//! |---|---|
//! | names, links, drivers | `/sys/class/net` |
//! | permanent MAC of a bond's member, which shows the bond's | `/proc/net/bonding` |
//! | VLAN numbers | `/proc/net/vlan` |
//! | addresses | the kernel (`getifaddrs`), given by the caller |
//! | routes of the main table | `/proc/net/route`, `/proc/net/ipv6_route` |
//!
//! Interfaces of containers and virtual machines (veth, tap, dummy) and the loopback are left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use image_library::machine::{Interface, Route};

use crate::inventory::root::{Root, by_number};

/// Route flags of the kernel: usable, through a gateway, refused, to this host itself.
const ROUTE_UP: u32 = 0x1;
const ROUTE_GATEWAY: u32 = 0x2;
const ROUTE_REJECT: u32 = 0x200;
const ROUTE_LOCAL: u32 = 0x8000_0000;

/// One address of one interface: name, `address/prefix`.
pub(crate) type InterfaceAddress = (String, String);

/// The addresses that the kernel of this server knows.
pub(crate) fn addresses_of_this_server() -> Vec<InterfaceAddress> {
    // Without addresses the inventory is poorer, not wrong.
    let Ok(entries) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let address = ip_address(entry.address.as_ref()?)?;
            let mask = ip_address(entry.netmask.as_ref()?)?;
            let prefix = prefix_length(mask);
            Some((entry.interface_name, format!("{address}/{prefix}")))
        })
        .collect()
}

fn ip_address(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(address.ip()));
    }
    address
        .as_sockaddr_in6()
        .map(|address| IpAddr::V6(address.ip()))
}

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}

/// All interfaces worth having in a virtual machine, in the order of their names.
pub(crate) fn interfaces(root: &Root, addresses: &[InterfaceAddress]) -> Vec<Interface> {
    let permanent = permanent_macs(root);
    let mut interfaces: Vec<Interface> = root
        .names("/sys/class/net")
        .into_iter()
        .filter_map(|name| interface(root, name, &permanent))
        .collect();
    interfaces.sort_by_key(|interface| by_number(&interface.name));
    for interface in &mut interfaces {
        interface.addresses = addresses
            .iter()
            .filter(|(name, address)| *name == interface.name && !is_link_local(address))
            .map(|(_, address)| address.clone())
            .collect();
    }
    interfaces
}

/// `fe80::/10`: made from the MAC, configured by nobody.
fn is_link_local(address: &str) -> bool {
    let ip = address.split('/').next().unwrap_or_default();
    ip.parse::<Ipv6Addr>()
        .is_ok_and(|ip| ip.is_unicast_link_local())
}

fn interface(root: &Root, name: String, permanent: &BTreeMap<String, String>) -> Option<Interface> {
    let file = |file: &str| format!("/sys/class/net/{name}/{file}");
    let has_device = root.exists(&file("device"));
    let kind = kind(root, &name, has_device)?;
    let mac = permanent
        .get(&name)
        .cloned()
        .or_else(|| root.line(&file("address")))
        .map(|mac| mac.to_ascii_lowercase());
    let parent = ["master", "brport/bridge"]
        .iter()
        .find_map(|link| root.link_name(&file(link)));
    Some(Interface {
        mac,
        driver: root.link_name(&file("device/driver")),
        bus_address: has_device
            .then(|| root.link_name(&file("device")))
            .flatten(),
        up: root.number(&file("carrier")) == Some(1),
        // The kernel says -1 or an error where there is no link.
        speed_mbps: root
            .number(&file("speed"))
            .and_then(|speed| u32::try_from(speed).ok()),
        addresses: Vec::new(),
        parent,
        members: members(root, &name),
        vlan: vlan(root, &name).map(|(number, _)| number),
        mtu: root
            .number(&file("mtu"))
            .and_then(|mtu| u32::try_from(mtu).ok()),
        kind,
        name,
    })
}

/// What it is; `None` for what no virtual machine needs.
fn kind(root: &Root, name: &str, has_device: bool) -> Option<String> {
    let file = |file: &str| format!("/sys/class/net/{name}/{file}");
    let uevent = root.text(&file("uevent")).unwrap_or_default();
    let device_type = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="));
    let kind = if root.exists(&file("bonding")) {
        "bond"
    } else if root.exists(&file("bridge")) {
        "bridge"
    } else if vlan(root, name).is_some() || device_type == Some("vlan") {
        "vlan"
    } else if device_type == Some("team") {
        "team"
    } else if has_device {
        // ARPHRD_INFINIBAND is 32, ARPHRD_ETHER is 1.
        match (device_type, root.number(&file("type"))) {
            (Some("wlan"), _) => "wlan",
            (_, Some(32)) => "infiniband",
            _ => "ethernet",
        }
    } else {
        return None;
    };
    Some(kind.to_owned())
}

/// What is below a bond, bridge or VLAN: the kernel links it as `lower_<name>`; a bridge's in
/// `brif`, which it has without members as well.
fn members(root: &Root, name: &str) -> Vec<String> {
    let mut members: Vec<String> = root
        .names(&format!("/sys/class/net/{name}"))
        .iter()
        .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned))
        .collect();
    if members.is_empty() {
        members = root.names(&format!("/sys/class/net/{name}/brif"));
    }
    if members.is_empty() {
        let slaves = root.line(&format!("/sys/class/net/{name}/bonding/slaves"));
        members = slaves
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    }
    if members.is_empty() {
        members = vlan(root, name)
            .map(|(_, below)| below)
            .into_iter()
            .collect();
    }
    members.sort_by_key(|member| by_number(member));
    members
}

/// Number of a VLAN and the interface below it.
fn vlan(root: &Root, name: &str) -> Option<(u16, String)> {
    let table = root.text("/proc/net/vlan/config")?;
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        if columns.next()? != name {
            return None;
        }
        let number = columns.next()?.parse().ok()?;
        Some((number, columns.next()?.to_owned()))
    })
}

/// A member of a bond shows the bond's MAC in sysfs; the bond remembers its own.
fn permanent_macs(root: &Root) -> BTreeMap<String, String> {
    let mut macs = BTreeMap::new();
    for bond in root.names("/proc/net/bonding") {
        let text = root.text(&format!("/proc/net/bonding/{bond}"));
        let mut member: Option<String> = None;
        for line in text.unwrap_or_default().lines() {
            if let Some(name) = line.strip_prefix("Slave Interface:") {
                member = Some(name.trim().to_owned());
            } else if let Some(mac) = line.strip_prefix("Permanent HW addr:")
                && let Some(member) = member.take()
            {
                macs.insert(member, mac.trim().to_owned());
            }
        }
    }
    macs
}

/// Routes of the main table: defaults first, then by destination.
pub(crate) fn routes(root: &Root) -> Vec<Route> {
    let ipv4 = root.text("/proc/net/route").unwrap_or_default();
    let ipv6 = root.text("/proc/net/ipv6_route").unwrap_or_default();
    let mut routes: Vec<Route> = ipv4.lines().skip(1).filter_map(ipv4_route).collect();
    routes.extend(ipv6.lines().filter_map(ipv6_route));
    routes.sort_by_key(|route| (route.destination != "default", route.destination.clone()));
    routes
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, addresses in the processor's
/// byte order.
fn ipv4_route(line: &str) -> Option<Route> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let address = |index: usize| {
        let number = u32::from_str_radix(columns.get(index)?, 16).ok()?;
        Some(Ipv4Addr::from(number.to_le_bytes()))
    };
    let flags = u32::from_str_radix(columns.get(3)?, 16).ok()?;
    if flags & ROUTE_UP == 0 || flags & ROUTE_REJECT != 0 {
        return None;
    }
    let prefix = address(7)?.to_bits().count_ones();
    let gateway = (flags & ROUTE_GATEWAY != 0).then(|| address(2)).flatten();
    Some(Route {
        destination: destination(&address(1)?.to_string(), prefix),
        gateway: gateway.map(|gateway| gateway.to_string()),
        interface: (*columns.first()?).to_owned(),
    })
}

/// `destination prefix source prefix gateway metric refcnt use flags interface`.
fn ipv6_route(line: &str) -> Option<Route> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let address = |index: usize| {
        let number = u128::from_str_radix(columns.get(index)?, 16).ok()?;
        Some(Ipv6Addr::from_bits(number))
    };
    let flags = u32::from_str_radix(columns.get(8)?, 16).ok()?;
    let network = address(0)?;
    let interface = (*columns.get(9)?).to_owned();
    let is_usual = flags & ROUTE_UP != 0 && flags & (ROUTE_REJECT | ROUTE_LOCAL) == 0;
    if !is_usual || network.is_unicast_link_local() || network.is_multicast() || interface == "lo" {
        return None;
    }
    let prefix = u32::from_str_radix(columns.get(1)?, 16).ok()?;
    let gateway = (flags & ROUTE_GATEWAY != 0).then(|| address(4)).flatten();
    Some(Route {
        destination: destination(&network.to_string(), prefix),
        gateway: gateway.map(|gateway| gateway.to_string()),
        interface,
    })
}

fn destination(network: &str, prefix: u32) -> String {
    if prefix == 0 {
        "default".to_owned()
    } else {
        format!("{network}/{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    fn ethernet(server: &PhonyServer, name: &str, mac: &str, slot: &str) {
        let device = format!("/sys/devices/pci0000:00/{slot}");
        server.directory(&device);
        server.link(&format!("{device}/driver"), "../../../bus/pci/drivers/igb");
        server.write(
            &format!("/sys/class/net/{name}/address"),
            format!("{mac}\n"),
        );
        server.write(&format!("/sys/class/net/{name}/type"), "1\n");
        server.write(&format!("/sys/class/net/{name}/mtu"), "9000\n");
        server.write(&format!("/sys/class/net/{name}/carrier"), "1\n");
        server.write(&format!("/sys/class/net/{name}/speed"), "10000\n");
        let target = format!("../../../devices/pci0000:00/{slot}");
        server.link(&format!("/sys/class/net/{name}/device"), &target);
    }

    /// Two ports in a bond, a VLAN over it, a bridge over the VLAN, a container's veth beside.
    fn bonded_server() -> PhonyServer {
        let server = PhonyServer::new();
        ethernet(&server, "eno1", "aa:00:00:00:00:01", "0000:03:00.0");
        ethernet(&server, "eno2", "aa:00:00:00:00:01", "0000:03:00.1");
        for port in ["eno1", "eno2"] {
            server.link(&format!("/sys/class/net/{port}/master"), "../bond0");
            server.link(&format!("/sys/class/net/bond0/lower_{port}"), "../x");
        }
        server.directory("/sys/class/net/bond0/bonding");
        server.write("/sys/class/net/bond0/address", "AA:00:00:00:00:01\n");
        server.write(
            "/proc/net/bonding/bond0",
            "Ethernet Channel Bonding Driver: v6.1\n\nBonding Mode: IEEE 802.3ad\n\
             Permanent HW addr: 00:00:00:00:00:00\n\
             Slave Interface: eno1\nMII Status: up\nPermanent HW addr: aa:00:00:00:00:01\n\n\
             Slave Interface: eno2\nMII Status: up\nPermanent HW addr: aa:00:00:00:00:02\n",
        );
        server.write("/sys/class/net/bond0.42/address", "aa:00:00:00:00:01\n");
        server.write(
            "/sys/class/net/bond0.42/uevent",
            "DEVTYPE=vlan\nINTERFACE=bond0.42\n",
        );
        server.link("/sys/class/net/bond0.42/master", "../br0");
        server.write(
            "/proc/net/vlan/config",
            "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
             bond0.42       | 42  | bond0\n",
        );
        server.directory("/sys/class/net/br0/bridge");
        server.directory("/sys/class/net/br0/brif/bond0.42");
        server.write("/sys/class/net/veth1/address", "bb:00:00:00:00:01\n");
        server.write("/sys/class/net/lo/type", "772\n");
        server
    }

    #[test]
    fn bonds_vlans_and_bridges_keep_their_order_and_their_ports_their_own_mac() {
        let server = bonded_server();
        let addresses = [
            ("br0".to_owned(), "10.20.0.5/24".to_owned()),
            ("br0".to_owned(), "fe80::1/64".to_owned()),
            ("lo".to_owned(), "127.0.0.1/8".to_owned()),
        ];
        let interfaces = interfaces(&server.root(), &addresses);
        let summary: Vec<String> = interfaces
            .iter()
            .map(|i| {
                let mac = i.mac.as_deref().unwrap_or("-");
                let parent = i.parent.as_deref().unwrap_or("-");
                format!(
                    "{} {} {mac} {parent} {}",
                    i.name,
                    i.kind,
                    i.members.join(",")
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                "bond0 bond aa:00:00:00:00:01 - eno1,eno2",
                "bond0.42 vlan aa:00:00:00:00:01 br0 bond0",
                "br0 bridge - - bond0.42",
                "eno1 ethernet aa:00:00:00:00:01 bond0 ",
                "eno2 ethernet aa:00:00:00:00:02 bond0 ",
            ]
        );
        assert_eq!(interfaces[1].vlan, Some(42));
        assert_eq!(interfaces[2].addresses, ["10.20.0.5/24"]);
        let port = &interfaces[3];
        assert_eq!(port.driver.as_deref(), Some("igb"));
        assert_eq!(port.bus_address.as_deref(), Some("0000:03:00.0"));
        assert_eq!(
            (port.up, port.speed_mbps, port.mtu),
            (true, Some(10_000), Some(9000))
        );
    }

    #[test]
    fn routes_are_read_in_both_versions_of_the_protocol() {
        let server = PhonyServer::new();
        server.write(
            "/proc/net/route",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eno1\t0000140A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             eno1\t00000000\t0100140A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
        );
        let network = "20010db8000000000000000000000000";
        let nothing = "00000000000000000000000000000000";
        let gateway = "20010db8000000000000000000000001";
        server.write(
            "/proc/net/ipv6_route",
            format!(
                "{network} 40 {nothing} 00 {nothing} 00000100 00000001 00000000 00000001 eno1\n\
                 {nothing} 00 {nothing} 00 {gateway} 00000400 00000001 00000000 00000003 eno1\n\
                 {nothing} 00 {nothing} 00 {nothing} ffffffff 00000001 00000000 00200200 lo\n"
            ),
        );
        let texts: Vec<String> = routes(&server.root())
            .iter()
            .map(|r| {
                format!(
                    "{} {} {}",
                    r.destination,
                    r.gateway.as_deref().unwrap_or("-"),
                    r.interface
                )
            })
            .collect();
        assert_eq!(
            texts,
            [
                "default 10.20.0.1 eno1",
                "default 2001:db8::1 eno1",
                "10.20.0.0/24 - eno1",
                "2001:db8::/64 - eno1",
            ]
        );
    }
}
