// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds and reads the files that set up the guest's network.

use crate::error::Result;
use crate::guest::modprobe_conf::{Directive, ModprobeConf};
use crate::guest::network::ifcfg::Flavour;
use crate::guest::network::{
    Bonding, Found, Interface, NamingMethod, NetworkConfiguration, PinKind, ifcfg, ifupdown,
    naming, netplan, network_manager, networkd,
};
use crate::inspect::inspection::TextFile;
use crate::inspect::tree::GuestTree;

/// Nested `source` lines of `/etc/network/interfaces`.
const SOURCE_DEPTH_MAX: usize = 4;

type Files = Vec<(String, Found)>;

/// Reads every file that sets up the network. `modprobe` are the files of module options;
/// `command_line` is the kernel's, or what a boot loader has of it.
pub(crate) fn network(
    tree: &GuestTree,
    modprobe: &[TextFile],
    command_line: &str,
) -> Result<NetworkConfiguration> {
    let mut files = Files::new();
    ifupdown_file(tree, "/etc/network/interfaces", 0, &mut files)?;
    each(
        tree,
        "/etc/systemd/network",
        ".netdev",
        &mut files,
        |file| Some(networkd::parse_netdev(&file.text)),
    )?;
    each(
        tree,
        "/etc/systemd/network",
        ".network",
        &mut files,
        |file| Some(networkd::parse_network(&file.text, &file.place.guest_path)),
    )?;
    each(tree, "/etc/systemd/network", ".link", &mut files, |file| {
        Some(naming::parse_link(&file.text, &file.place.guest_path))
    })?;
    for suffix in [".yaml", ".yml"] {
        each(tree, "/etc/netplan", suffix, &mut files, |file| {
            netplan::parse(&file.text, &file.place.guest_path)
        })?;
    }
    each(
        tree,
        "/etc/NetworkManager/system-connections",
        "",
        &mut files,
        |file| Some(network_manager::parse(&file.text, &file.place.guest_path)),
    )?;
    ifcfg_files(tree, RED_HAT, Flavour::RedHat, &mut files)?;
    ifcfg_files(tree, SUSE, Flavour::Suse, &mut files)?;
    each(tree, "/etc/udev/rules.d", ".rules", &mut files, |file| {
        let found = naming::parse_udev_rules(&file.text, &file.place.guest_path);
        (!found.pins.is_empty() || file.place.path.ends_with("net.rules")).then_some(found)
    })?;
    for file in modprobe {
        files.push((file.place.guest_path.clone(), bonds_of_modules(&file.text)));
    }
    if !renames_by_ifcfg(tree)? {
        for (_, found) in &mut files {
            found.pins.retain(|pin| pin.kind != PinKind::Ifcfg);
        }
    }
    let mut network = NetworkConfiguration::assemble(files);
    network.method = naming_method(tree)?;
    network.kernel_names = command_line
        .split_whitespace()
        .any(|word| word == "net.ifnames=0");
    Ok(network)
}

const RED_HAT: &str = "/etc/sysconfig/network-scripts";
const SUSE: &str = "/etc/sysconfig/network";

/// Red Hat's `ifcfg` files, as text: old guests know a card's MAC address from there.
pub(crate) fn network_scripts(tree: &GuestTree) -> Result<Vec<TextFile>> {
    let files = tree.texts(RED_HAT, "")?.into_iter();
    let is_card = |file: &TextFile| {
        let name = file.place.path.rsplit('/').next().unwrap_or_default();
        ifcfg::interface_of(name).is_some()
    };
    Ok(files.filter(is_card).collect())
}

fn ifcfg_files(
    tree: &GuestTree,
    directory: &str,
    flavour: Flavour,
    files: &mut Files,
) -> Result<()> {
    for entry in tree.list(directory)? {
        let path = format!("{directory}/{}", entry.name);
        let routes = ["route-", "route6-", "ifroute-"];
        let routes = routes
            .iter()
            .find_map(|start| entry.name.strip_prefix(start));
        let interface = ifcfg::interface_of(&entry.name);
        if interface.is_none() && routes.is_none() && entry.name != "routes" {
            continue;
        }
        let Some(file) = tree.text(&path)? else {
            continue;
        };
        let found = match interface {
            Some(name) => ifcfg::parse(&file.text, name, &file.place.guest_path, flavour),
            None => ifcfg::parse_routes(&file.text, routes),
        };
        files.push((file.place.guest_path, found));
    }
    // A directory with SUSE.
    if flavour == Flavour::RedHat
        && let Some(file) = tree.text("/etc/sysconfig/network")?
    {
        files.push((file.place.guest_path, ifcfg::parse_global(&file.text)));
    }
    Ok(())
}

/// Bonds of old guests, whose options stand with the kernel module's.
fn bonds_of_modules(text: &str) -> Found {
    let conf = ModprobeConf::parse(text.as_bytes());
    let directives: Vec<Directive> = conf.directives().map(|(_, directive)| directive).collect();
    let aliases = directives.iter().filter_map(|directive| match directive {
        Directive::Alias { name, module } if module == "bonding" => Some(name.as_str()),
        _ => None,
    });
    let aliases: Vec<&str> = aliases.collect();
    let mut interfaces = Vec::new();
    for directive in &directives {
        let Directive::Options { module, options } = directive else {
            continue;
        };
        let bonds = match module.as_str() {
            "bonding" if aliases.is_empty() => vec!["bond0"],
            "bonding" => aliases.clone(),
            alias if aliases.contains(&alias) => vec![alias],
            _ => Vec::new(),
        };
        interfaces.extend(bonds.into_iter().map(|name| Interface {
            name: name.to_owned(),
            is_virtual: true,
            bonding: Bonding::from_options(options),
            ..Interface::default()
        }));
    }
    Found::of(interfaces)
}

/// Whether initscripts rename cards by `HWADDR=`: a program of udev (RHEL 5 to 8), or their own
/// functions (RHEL 4).
fn renames_by_ifcfg(tree: &GuestTree) -> Result<bool> {
    if tree.exists("/lib/udev/rename_device")? || tree.exists("/usr/lib/udev/rename_device")? {
        return Ok(true);
    }
    let functions = tree.text(&format!("{RED_HAT}/network-functions"))?;
    Ok(functions.is_some_and(|file| file.text.contains("rename_device")))
}

fn naming_method(tree: &GuestTree) -> Result<NamingMethod> {
    for usr in ["/usr", ""] {
        if tree.exists(&format!("{usr}/lib/udev/rules.d/80-net-setup-link.rules"))? {
            return Ok(NamingMethod::LinkFile);
        }
    }
    // From 125 on, udev's own rules stand in /lib. Older ones stand in /etc, and those before 098
    // read attributes by another word.
    let is_modern = tree.exists("/lib/udev/rules.d")? || tree.exists("/usr/lib/udev/rules.d")?;
    let rules = match is_modern {
        true => Vec::new(),
        false => tree.texts("/etc/udev/rules.d", ".rules")?,
    };
    let any = |word: &str| rules.iter().any(|file| file.text.contains(word));
    if any("ATTR{") || any("ATTRS{") || !any("SYSFS{") {
        return Ok(NamingMethod::UdevRule);
    }
    if tree.exists("/lib/udev/rename_netiface")? {
        Ok(NamingMethod::RenameProgram)
    } else if renames_by_ifcfg(tree)? {
        Ok(NamingMethod::Ifcfg)
    } else {
        Ok(NamingMethod::OldUdevRule)
    }
}

fn each(
    tree: &GuestTree,
    directory: &str,
    suffix: &str,
    files: &mut Files,
    parse: impl Fn(&TextFile) -> Option<Found>,
) -> Result<()> {
    for file in tree.texts(directory, suffix)? {
        if let Some(found) = parse(&file) {
            files.push((file.place.guest_path.clone(), found));
        }
    }
    Ok(())
}

fn ifupdown_file(tree: &GuestTree, path: &str, depth: usize, files: &mut Files) -> Result<()> {
    if depth > SOURCE_DEPTH_MAX {
        return Ok(());
    }
    let Some(file) = tree.text(path)? else {
        return Ok(());
    };
    if files
        .iter()
        .any(|(known, _)| *known == file.place.guest_path)
    {
        return Ok(());
    }
    let parsed = ifupdown::parse(&file.text);
    files.push((file.place.guest_path, parsed.found));
    for source in &parsed.sources {
        for path in expand(tree, source)? {
            ifupdown_file(tree, &path, depth + 1, files)?;
        }
    }
    for directory in &parsed.directories {
        for entry in tree.list(directory)? {
            // What ifupdown takes from a directory: names of letters, digits, `_` and `-`.
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            if entry.name.bytes().all(legal) {
                ifupdown_file(
                    tree,
                    &format!("{directory}/{}", entry.name),
                    depth + 1,
                    files,
                )?;
            }
        }
    }
    Ok(())
}

/// The files that a pattern with `*` in its last part names.
fn expand(tree: &GuestTree, pattern: &str) -> Result<Vec<String>> {
    let absolute = match pattern.strip_prefix('/') {
        Some(_) => pattern.to_owned(),
        None => format!("/etc/network/{pattern}"),
    };
    let Some((directory, last)) = absolute.rsplit_once('/') else {
        return Ok(Vec::new());
    };
    let Some((head, tail)) = last.split_once('*') else {
        return Ok(vec![absolute.clone()]);
    };
    let entries = tree.list(directory)?;
    let matching = entries
        .iter()
        .map(|entry| entry.name.as_str())
        .filter(|name| {
            name.len() >= head.len() + tail.len()
                && name.starts_with(head)
                && name.ends_with(tail)
                && !name.starts_with('.')
        });
    Ok(matching.map(|name| format!("{directory}/{name}")).collect())
}
