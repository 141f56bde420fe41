// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds and reads the files that set up the guest's network.

use crate::error::Result;
use crate::guest::network::{
    Found, NetworkConfiguration, ifupdown, naming, netplan, network_manager, networkd,
};
use crate::inspect::inspection::TextFile;
use crate::inspect::tree::GuestTree;

/// Nested `source` lines of `/etc/network/interfaces`.
const SOURCE_DEPTH_MAX: usize = 4;

type Files = Vec<(String, Found)>;

/// Reads every file that sets up the network.
pub(crate) fn network(tree: &GuestTree) -> Result<NetworkConfiguration> {
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
        |file| Some(networkd::parse_network(&file.text)),
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
        |file| Some(network_manager::parse(&file.text)),
    )?;
    each(tree, "/etc/udev/rules.d", "net.rules", &mut files, |file| {
        Some(naming::parse_udev_rules(&file.text, &file.place.guest_path))
    })?;
    Ok(NetworkConfiguration::assemble(files))
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
