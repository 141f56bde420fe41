// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which operating system it is, and what starts by itself.

use disk::filesystem::FileType;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::guest::shell_config::ShellConfig;
use crate::inspect::inspection::System;
use crate::inspect::tree::GuestTree;

const PROGRAM_BYTES_MAX: u64 = 8 << 20;

/// Reads the operating system's identity; `None` where nothing says it.
pub(crate) fn system(tree: &GuestTree) -> Result<Option<System>> {
    let release = match tree.text("/etc/os-release")? {
        Some(file) => Some(file),
        None => tree.text("/usr/lib/os-release")?,
    };
    let values = release.map(|file| file.text).unwrap_or_default();
    let identity = match value(&values, "ID") {
        Some(id) => {
            let version = value(&values, "VERSION_ID");
            let name = value(&values, "PRETTY_NAME")
                .unwrap_or_else(|| format!("{id} {}", version.as_deref().unwrap_or_default()));
            Some(Identity { id, version, name })
        }
        None => old_identity(tree)?,
    };
    let Some(identity) = identity else {
        return Ok(None);
    };
    Ok(Some(System {
        id: identity.id,
        version: identity.version,
        name: identity.name.trim().to_owned(),
        hostname: hostname(tree)?,
        architecture: architecture(tree)?,
        systemd: tree.exists("/usr/lib/systemd/systemd")? || tree.exists("/lib/systemd/systemd")?,
        link_files: tree.exists("/usr/lib/udev/rules.d/80-net-setup-link.rules")?
            || tree.exists("/lib/udev/rules.d/80-net-setup-link.rules")?,
        clock_utc: clock_utc(tree)?,
    }))
}

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    id: String,
    version: Option<String>,
    name: String,
}

/// Systems from before os-release, each with a file of its own.
fn old_identity(tree: &GuestTree) -> Result<Option<Identity>> {
    for path in ["/etc/redhat-release", "/etc/SuSE-release"] {
        if let Some(file) = tree.text(path)? {
            return Ok(Some(release_line(&file.text)));
        }
    }
    let debian = tree.text("/etc/debian_version")?;
    Ok(debian.map(|file| {
        let version = file.text.trim().to_owned();
        Identity {
            name: format!("debian {version}"),
            id: "debian".to_owned(),
            version: Some(version),
        }
    }))
}

/// `Red Hat Enterprise Linux Server release 5.11 (Tikanga)`, or SUSE's name with `VERSION = 11` and
/// `PATCHLEVEL = 4` below.
fn release_line(text: &str) -> Identity {
    const IDS: [(&str, &str); 6] = [
        ("CentOS", "centos"),
        ("Scientific", "scientific"),
        ("Fedora", "fedora"),
        ("Oracle", "ol"),
        ("openSUSE", "opensuse"),
        ("SUSE", "sles"),
    ];
    let name = text.lines().next().unwrap_or_default().trim();
    let known = IDS.iter().find(|(start, _)| name.starts_with(start));
    let number = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let released = name.split_once(" release ").and_then(|(_, rest)| {
        let version = rest.split_whitespace().next()?;
        Some(version.to_owned())
    });
    let version = match (number("VERSION"), number("PATCHLEVEL")) {
        (Some(version), Some(level)) if level != "0" => Some(format!("{version}.{level}")),
        (version, _) => version.or(released),
    };
    Identity {
        id: known.map_or("rhel", |(_, id)| *id).to_owned(),
        version,
        name: name.to_owned(),
    }
}

/// `/etc/hostname`; SUSE and Red Hat had it elsewhere.
fn hostname(tree: &GuestTree) -> Result<Option<String>> {
    for path in ["/etc/hostname", "/etc/HOSTNAME"] {
        if let Some(file) = tree.text(path)? {
            let name = file.text.trim().to_owned();
            return Ok((!name.is_empty()).then_some(name));
        }
    }
    let network = tree.text("/etc/sysconfig/network")?;
    let name = network.and_then(|file| value(&file.text, "HOSTNAME"));
    Ok(name.filter(|name| !name.is_empty()))
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

/// The third line of `/etc/adjtime` says `LOCAL` where the clock is not in UTC; before that counted,
/// Red Hat and SUSE had a file of their own, and Debian another.
fn clock_utc(tree: &GuestTree) -> Result<bool> {
    for path in ["/etc/sysconfig/clock", "/etc/default/rcS"] {
        let Some(file) = tree.text(path)? else {
            continue;
        };
        let config = ShellConfig::parse(file.text.as_bytes());
        if let Some(utc) = config.get("UTC") {
            return Ok(!matches!(
                utc.to_ascii_lowercase().as_str(),
                "false" | "no" | "0"
            ));
        }
        if let Some(option) = config.get("HWCLOCK").filter(|option| !option.is_empty()) {
            return Ok(!option.contains("--localtime"));
        }
    }
    let adjtime = tree.text("/etc/adjtime")?;
    let mode = adjtime.as_ref().and_then(|file| file.text.lines().nth(2));
    Ok(mode.map(str::trim) != Some("LOCAL"))
}

/// What was found about how services start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Units of systemd that were switched off in virtual machines by a file that we make.
    pub switched_off: Vec<String>,
    /// Jobs of upstart that start by themselves.
    pub upstart_jobs: Vec<String>,
    /// The profile of tuned.
    pub tuned_profile: Option<String>,
}

/// Whether the guest labels its files (SELinux).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// SELinux is off, or not installed.
    #[default]
    Unused,
    /// Files are labelled, and their labels can be read.
    Readable,
    /// Files should be labelled, and no label can be read; a relabelling was asked for already
    /// where that is true.
    Unreadable {
        /// `/.autorelabel` exists.
        relabels: bool,
    },
}

/// The end of the name of what switches a unit off.
pub(crate) const DROP_IN: &str = "relevo.conf";

const WANTS: [&str; 2] = [".wants", ".requires"];
const UNITS: &str = "/etc/systemd/system";

/// The services that start by themselves: systemd's wants, System V's start links, upstart's jobs.
pub(crate) fn services(tree: &GuestTree) -> Result<Vec<String>> {
    let mut services = Vec::new();
    for directory in tree.list(UNITS)? {
        if !WANTS.iter().any(|end| directory.name.ends_with(end)) {
            continue;
        }
        for unit in tree.list(&format!("{UNITS}/{}", directory.name))? {
            if let Some(name) = unit.name.strip_suffix(".service") {
                services.push(name.to_owned());
            }
        }
    }
    // Debian starts servers in level 2, Red Hat and SUSE in level 3; `/etc/rc3.d` is a link where
    // the directory is elsewhere, but for SUSE's.
    for directory in [
        "/etc/rcS.d",
        "/etc/rc2.d",
        "/etc/rc3.d",
        "/etc/init.d/rc3.d",
    ] {
        for link in tree.list(directory)? {
            let digits = link.name.get(1..3).unwrap_or_default();
            if link.name.starts_with('S') && digits.bytes().all(|b| b.is_ascii_digit()) {
                services.extend(link.name.get(3..).map(str::to_owned));
            }
        }
    }
    services.extend(upstart_jobs(tree)?);
    services.sort();
    services.dedup();
    Ok(services)
}

/// Jobs that start by themselves: `start on` in the job's file, and no `manual` in its override.
fn upstart_jobs(tree: &GuestTree) -> Result<Vec<String>> {
    if !tree.exists("/sbin/initctl")? {
        return Ok(Vec::new());
    }
    let has_line = |text: &str, start: &str| {
        let mut lines = text.lines().map(str::trim_start);
        lines.any(|line| line.starts_with(start))
    };
    let mut jobs = Vec::new();
    for file in tree.texts("/etc/init", ".conf")? {
        let name = file.place.path.rsplit('/').next().unwrap_or_default();
        let name = name.trim_end_matches(".conf");
        let over = tree.text(&format!("/etc/init/{name}.override"))?;
        let manual = over.is_some_and(|file| has_line(&file.text, "manual"));
        if has_line(&file.text, "start on") && !manual {
            jobs.push(name.to_owned());
        }
    }
    Ok(jobs)
}

/// What more was found about services.
pub(crate) fn service_facts(tree: &GuestTree) -> Result<ServiceFacts> {
    let mut switched_off = Vec::new();
    for directory in tree.list(UNITS)? {
        let Some(unit) = directory.name.strip_suffix(".d") else {
            continue;
        };
        if tree.exists(&format!("{UNITS}/{}/{DROP_IN}", directory.name))? {
            switched_off.push(unit.to_owned());
        }
    }
    let profile = match tree.text("/etc/tuned/active_profile")? {
        Some(file) => Some(file),
        // RHEL 6.
        None => tree.text("/etc/tune-profiles/active-profile")?,
    };
    let profile = profile.map(|file| file.text.trim().to_owned());
    Ok(ServiceFacts {
        switched_off,
        upstart_jobs: upstart_jobs(tree)?,
        tuned_profile: profile.filter(|profile| !profile.is_empty()),
    })
}

/// Whether files are labelled.
pub(crate) fn labels(tree: &GuestTree) -> Result<Labels> {
    let Some(config) = tree.text("/etc/selinux/config")? else {
        return Ok(Labels::Unused);
    };
    let mode = ShellConfig::parse(config.text.as_bytes()).get("SELINUX");
    if mode.is_none_or(|mode| mode.eq_ignore_ascii_case("disabled")) {
        return Ok(Labels::Unused);
    }
    for path in ["/etc/passwd", "/etc"] {
        if tree.selinux_context(path)?.is_some() {
            return Ok(Labels::Readable);
        }
    }
    Ok(Labels::Unreadable {
        relabels: tree.exists("/.autorelabel")?,
    })
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
    fn systems_before_os_release_are_known_by_their_own_files() {
        let identity = release_line("Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n");
        assert_eq!(
            (identity.id.as_str(), identity.version.as_deref()),
            ("rhel", Some("5.11"))
        );
        let identity = release_line("CentOS release 6.10 (Final)\n");
        assert_eq!(
            (identity.id.as_str(), identity.version.as_deref()),
            ("centos", Some("6.10"))
        );
        let identity = release_line(
            "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
        );
        assert_eq!(
            (identity.id.as_str(), identity.version.as_deref()),
            ("sles", Some("11.4"))
        );
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
