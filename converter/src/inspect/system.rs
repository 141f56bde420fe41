// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which operating system it is, and what starts by itself.

use disk::filesystem::FileType;

use crate::error::Result;
use crate::inspect::inspection::System;
use crate::inspect::tree::GuestTree;

const PROGRAM_BYTES_MAX: u64 = 8 << 20;

/// Reads the operating system's identity; `None` where nothing says it.
pub(crate) fn system(tree: &GuestTree) -> Result<Option<System>> {
    let release = match tree.text("/etc/os-release")? {
        Some(file) => Some(file),
        None => tree.text("/usr/lib/os-release")?,
    };
    let old_debian = tree.text("/etc/debian_version")?;
    let values = release.map(|file| file.text).unwrap_or_default();
    let (id, version) = match (value(&values, "ID"), &old_debian) {
        (Some(id), _) => (id, value(&values, "VERSION_ID")),
        (None, Some(file)) => ("debian".to_owned(), Some(file.text.trim().to_owned())),
        (None, None) => return Ok(None),
    };
    let name = value(&values, "PRETTY_NAME")
        .unwrap_or_else(|| format!("{id} {}", version.as_deref().unwrap_or_default()));
    let hostname = tree
        .text("/etc/hostname")?
        .map(|file| file.text.trim().to_owned());
    Ok(Some(System {
        id,
        version,
        name: name.trim().to_owned(),
        hostname: hostname.filter(|name| !name.is_empty()),
        architecture: architecture(tree)?,
        systemd: tree.exists("/usr/lib/systemd/systemd")? || tree.exists("/lib/systemd/systemd")?,
        link_files: tree.exists("/usr/lib/udev/rules.d/80-net-setup-link.rules")?
            || tree.exists("/lib/udev/rules.d/80-net-setup-link.rules")?,
        clock_utc: clock_utc(tree)?,
    }))
}

/// One value of a file of shell assignments, its quotes taken off.
fn value(text: &str, key: &str) -> Option<String> {
    let assigned = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(assigned.trim().trim_matches(['"', '\'']).to_owned())
}

/// The machine number of a program that every system has.
fn architecture(tree: &GuestTree) -> Result<Option<String>> {
    for program in ["/bin/sh", "/bin/true", "/sbin/init"] {
        let Some((place, metadata)) = tree.metadata(program)? else {
            continue;
        };
        if metadata.file_type != FileType::File || metadata.size_bytes > PROGRAM_BYTES_MAX {
            continue;
        }
        let bytes = tree.read_place(&place, PROGRAM_BYTES_MAX)?;
        if let Some(found) = elf_machine(&bytes) {
            return Ok(Some(found.to_owned()));
        }
    }
    Ok(None)
}

/// `e_machine` of an ELF header, by the names that `uname -m` uses.
fn elf_machine(bytes: &[u8]) -> Option<&'static str> {
    let little_endian = bytes.starts_with(b"\x7fELF") && bytes.get(5) == Some(&1);
    let machine = match bytes.get(18..20) {
        Some(&[low, high]) if little_endian => u16::from_le_bytes([low, high]),
        _ => return None,
    };
    match machine {
        3 => Some("i386"),
        40 => Some("arm"),
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        _ => None,
    }
}

/// The third line of `/etc/adjtime` says `LOCAL` where the clock is not in UTC.
fn clock_utc(tree: &GuestTree) -> Result<bool> {
    let adjtime = tree.text("/etc/adjtime")?;
    let mode = adjtime.as_ref().and_then(|file| file.text.lines().nth(2));
    Ok(mode.map(str::trim) != Some("LOCAL"))
}

/// The services that start by themselves: systemd's wants, and System V's start links.
pub(crate) fn services(tree: &GuestTree) -> Result<Vec<String>> {
    let mut services = Vec::new();
    for directory in tree.list("/etc/systemd/system")? {
        if !directory.name.ends_with(".wants") {
            continue;
        }
        for unit in tree.list(&format!("/etc/systemd/system/{}", directory.name))? {
            if let Some(name) = unit.name.strip_suffix(".service") {
                services.push(name.to_owned());
            }
        }
    }
    for link in tree.list("/etc/rc2.d")? {
        let digits = link.name.get(1..3).unwrap_or_default();
        if link.name.starts_with('S') && digits.bytes().all(|b| b.is_ascii_digit()) {
            services.extend(link.name.get(3..).map(str::to_owned));
        }
    }
    services.sort();
    services.dedup();
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        assert_eq!(
            value(text, "PRETTY_NAME").unwrap(),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(value(text, "ID").unwrap(), "debian");
        assert_eq!(value(text, "VERSION_ID"), None);
    }

    #[test]
    fn a_programs_header_tells_the_architecture() {
        let mut header = [0; 20];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 62;
        assert_eq!(elf_machine(&header), Some("x86_64"));
        header[18] = 3;
        assert_eq!(elf_machine(&header), Some("i386"));
        assert_eq!(elf_machine(b"#!/bin/sh"), None);
    }
}
