// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text files about disks and modules, besides the tables that every guest has; and where else
//! disks are named.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::guest::multipath_conf::{MultipathAlias, parse_bindings, parse_configuration};
use crate::inspect::device_names::is_volatile;
use crate::inspect::inspection::TextFile;
use crate::inspect::network::network_scripts;
use crate::inspect::tree::GuestTree;

/// Names of disks that are kept of one file.
const NAMES_MAX: usize = 8;

/// Text files about disks and modules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceFiles {
    /// `/etc/modprobe.conf`, `/etc/modules.conf`, `/etc/modprobe.d/*`.
    pub modprobe: Vec<TextFile>,
    /// `/etc/sysconfig/network-scripts/ifcfg-*`.
    pub network_scripts: Vec<TextFile>,
    /// `/etc/lvm/lvm.conf`.
    pub lvm: Option<TextFile>,
    /// Whether LVM has a list of devices (`/etc/lvm/devices/system.devices`).
    pub lvm_devices: bool,
    /// `mdadm.conf` and the files beside it.
    pub mdadm: Vec<TextFile>,
    /// Names of multipath maps.
    pub multipath_aliases: Vec<MultipathAlias>,
    /// Whether multipath is set up.
    pub multipath: bool,
    /// What was remembered of disks: `blkid.tab`, LVM's `.cache`.
    pub caches: Vec<TextFile>,
    /// Units of systemd that mount something (`/etc/systemd/system/*.mount`).
    pub mount_units: Vec<TextFile>,
    /// Where else disks are named.
    pub mentions: Vec<Mention>,
}

/// A file that names disks and is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mention {
    /// The file.
    pub file: String,
    /// The names.
    pub names: Vec<String>,
    /// What it is for.
    pub kind: MentionKind,
}

/// What a file that names disks is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MentionKind {
    /// Something watches or tunes the disk.
    Watches,
    /// Something keeps its data there, and does not work without it.
    Needs,
    /// A rule of udev knows the disk by its hardware.
    UdevRule,
    /// Oracle ASM looks for its disks only among some.
    OracleAsm,
}

/// Reads the files.
pub(crate) fn device_files(tree: &GuestTree) -> Result<DeviceFiles> {
    let mut modprobe = present(tree, &["/etc/modprobe.conf", "/etc/modules.conf"])?;
    modprobe.extend(tree.texts("/etc/modprobe.d", "")?);
    let mut mdadm = present(tree, &["/etc/mdadm.conf", "/etc/mdadm/mdadm.conf"])?;
    mdadm.extend(tree.texts("/etc/mdadm.conf.d", ".conf")?);
    mdadm.extend(tree.texts("/etc/mdadm/mdadm.conf.d", ".conf")?);
    let configuration = present(tree, &["/etc/multipath.conf"])?;
    let bindings = ["/etc/multipath/bindings", "/var/lib/multipath/bindings"];
    let bindings = present(tree, &bindings)?;
    let aliases = configuration
        .iter()
        .flat_map(|file| parse_configuration(&file.text));
    let aliases = aliases.chain(bindings.iter().flat_map(|file| parse_bindings(&file.text)));
    let caches = [
        "/etc/blkid.tab",
        "/etc/blkid/blkid.tab",
        "/etc/lvm/cache/.cache",
        "/etc/lvm/.cache",
    ];
    Ok(DeviceFiles {
        modprobe,
        network_scripts: network_scripts(tree)?,
        lvm: tree.text("/etc/lvm/lvm.conf")?,
        lvm_devices: tree.exists("/etc/lvm/devices/system.devices")?,
        mdadm,
        multipath_aliases: aliases.collect(),
        multipath: !configuration.is_empty() || !bindings.is_empty(),
        caches: present(tree, &caches)?,
        mount_units: tree.texts("/etc/systemd/system", ".mount")?,
        mentions: mentions(tree)?,
    })
}

fn present(tree: &GuestTree, paths: &[&str]) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(tree.text(path)?);
    }
    Ok(files)
}

/// Files that watch or tune disks by their names.
const WATCHING: [&str; 17] = [
    "/etc/smartd.conf",
    "/etc/smartmontools/smartd.conf",
    "/etc/hdparm.conf",
    "/etc/sdparm.conf",
    "/etc/default/hddtemp",
    "/etc/sysconfig/hddtemp",
    "/etc/monitrc",
    "/etc/monit/monitrc",
    "/etc/collectd.conf",
    "/etc/collectd/collectd.conf",
    "/etc/telegraf/telegraf.conf",
    "/etc/zabbix/zabbix_agentd.conf",
    "/etc/nagios/nrpe.cfg",
    "/etc/munin/plugin-conf.d/munin-node",
    "/etc/snmp/snmpd.conf",
    "/etc/uswsusp.conf",
    "/etc/rc.local",
];
/// Files of services that have their data on the disks that they name.
const NEEDING: [&str; 6] = [
    "/etc/sysconfig/rawdevices",
    "/etc/drbd.conf",
    "/etc/tgt/targets.conf",
    "/etc/ietd.conf",
    "/etc/iet/ietd.conf",
    "/etc/target/saveconfig.json",
];

fn mentions(tree: &GuestTree) -> Result<Vec<Mention>> {
    let mut found = Vec::new();
    let mut take = |file: &TextFile, kind| {
        let names = volatile_names(&file.text);
        if !names.is_empty() {
            found.push(Mention {
                file: file.place.guest_path.clone(),
                names,
                kind,
            });
        }
    };
    for file in present(tree, &WATCHING)? {
        take(&file, MentionKind::Watches);
    }
    let mut needing = present(tree, &NEEDING)?;
    needing.extend(tree.texts("/etc/drbd.d", ".res")?);
    // A unit of swap space is called after its device, so its text alone cannot be changed.
    needing.extend(tree.texts("/etc/systemd/system", ".swap")?);
    for file in &needing {
        take(file, MentionKind::Needs);
    }
    for file in tree.texts("/etc/udev/rules.d", ".rules")? {
        let names = udev_keys(&file.text);
        if !names.is_empty() {
            found.push(Mention {
                file: file.place.guest_path,
                names,
                kind: MentionKind::UdevRule,
            });
        }
    }
    if let Some(file) = tree.text("/etc/sysconfig/oracleasm")? {
        let config = crate::guest::shell_config::ShellConfig::parse(file.text.as_bytes());
        let keys = ["ORACLEASM_SCANORDER", "ORACLEASM_SCANEXCLUDE"];
        let set = keys.iter().filter_map(|key| {
            let value = config.get(key).filter(|value| !value.is_empty())?;
            Some(format!("{key}={value}"))
        });
        let names: Vec<String> = set.collect();
        if !names.is_empty() {
            found.push(Mention {
                file: file.place.guest_path,
                names,
                kind: MentionKind::OracleAsm,
            });
        }
    }
    Ok(found)
}

/// The names of disks in a text, outside comments, that change with the hardware.
fn volatile_names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/_-.:".contains(c);
    for word in lines.flat_map(|line| line.split(move |c| !is_part(c))) {
        let Some(start) = word.find("/dev/") else {
            continue;
        };
        let name = word.get(start..).unwrap_or_default();
        let name = name.trim_end_matches([':', '.', '/']);
        if is_volatile(name) && !names.iter().any(|known| known == name) && names.len() < NAMES_MAX
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// What a file's rules know disks by, where that is one certain disk's hardware. Distributions'
/// own rules, which stood beside the administrator's before 2008, compare with patterns.
fn udev_keys(text: &str) -> Vec<String> {
    const KEYS: [&str; 8] = [
        "ENV{ID_SERIAL",
        "ENV{ID_MODEL",
        "ENV{ID_WWN",
        "ENV{ID_PATH",
        "ENV{DM_UUID}",
        "ATTRS{model}",
        "ATTRS{wwid}",
        "RESULT",
    ];
    let joined = text.replace("\\\n", " ");
    let is_rule = |line: &&str| {
        let is_comment = line.trim_start().starts_with('#');
        let asks_disk = !line.contains("RESULT") || line.contains("scsi_id");
        !is_comment && !line.contains("\"net\"") && asks_disk
    };
    let conditions: Vec<&str> = joined
        .lines()
        .filter(is_rule)
        .flat_map(|line| line.split(','))
        .filter(|condition| names_one(condition))
        .map(str::trim)
        .collect();
    let keys = KEYS.iter().filter(|key| {
        let mut conditions = conditions.iter();
        conditions.any(|condition| condition.starts_with(**key))
    });
    keys.map(|key| match *key {
        "RESULT" => "scsi_id".to_owned(),
        key => key
            .trim_start_matches("ENV{")
            .trim_end_matches('}')
            .to_owned(),
    })
    .collect()
}

/// `KEY=="value"` with a value that is no pattern.
fn names_one(condition: &str) -> bool {
    let value = condition.split_once("==").map(|(_, value)| value.trim());
    value.is_some_and(|value| {
        let value = value.trim_matches('"');
        value.len() >= 4 && !value.contains(['*', '?', '$', '['])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_change_are_found_outside_comments() {
        let text = "# /dev/sdz\n/dev/sda -a -m root\nDEVICESCAN\n\
                    disk=/dev/disk/by-path/pci-0000:03:00.0-scsi-0:2:0:0: /dev/sda\n\
                    /dev/md0 /dev/vg0/lv \"/dev/cciss/c0d0\";\n";
        assert_eq!(
            volatile_names(text),
            [
                "/dev/sda",
                "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:2:0:0",
                "/dev/cciss/c0d0"
            ]
        );
    }

    #[test]
    fn rules_for_network_cards_are_no_rules_for_disks() {
        assert_eq!(
            udev_keys("SUBSYSTEM==\"net\", ENV{ID_PATH}==\"pci\", NAME=\"x\"\n"),
            [""; 0]
        );
        assert_eq!(
            udev_keys(
                "KERNEL==\"sd?1\", PROGRAM==\"/lib/udev/scsi_id -g\", \\\n \
                 RESULT==\"36000c29\", SYMLINK+=\"asm1\"\n\
                 ENV{ID_SERIAL}==\"S3X1\", MODE=\"0660\"\n"
            ),
            ["ID_SERIAL", "scsi_id"]
        );
        assert_eq!(
            udev_keys(
                "ENV{ID_SERIAL}==\"?*\", SYMLINK+=\"disk/by-id/$env{ID_BUS}\"\n\
                 PROGRAM=\"/sbin/scsi_id\", RESULT==\"?*\"\n"
            ),
            [""; 0]
        );
    }
}
