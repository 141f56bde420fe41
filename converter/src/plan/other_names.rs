// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of disks besides the tables of mounts: LVM's filters and list of devices, md arrays, what
//! was remembered of old disks, and files that can only be told of.
//!
//! **LVM's list of devices** (`system.devices`, from 2.03.12) knows physical volumes by the disk's
//! WWID or serial number. LVM looks for one under another name only where the list has no more than
//! its name (`search_for_devnames`), and newer versions after a change of the machine's product
//! UUID. So on new hardware it hides them all. The list is switched off in `lvm.conf`, which
//! every version understands and which, unlike the removal of a file, can be done inside an
//! initramfs too.

use disk::filesystem::FilesystemKind;
use disk::{Finding, Level};

use crate::guest::lvm_conf::{LvmConf, first_match, without_devices_file};
use crate::guest::mdadm_conf;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Inspection, MentionKind, TextFile};
use crate::plan::edit::{Change, Edit, Rewrites};

const FILTERS: [&str; 2] = ["devices/filter", "devices/global_filter"];
/// Accepts the disks of every virtual controller, and their partitions.
const ACCEPT: &str = "a|^/dev/[hsv]d[a-z]+[0-9]*$|";
/// What no device is called: a pattern that matches it matches all.
const NO_DEVICE: &str = "/dev/relevo/none";

/// Plans the edits.
pub(crate) fn plan(inspection: &Inspection, rewrites: &mut Rewrites, findings: &mut Vec<Finding>) {
    let files = &inspection.device_files;
    if let Some(file) = &files.lvm {
        rewrites.change(
            file,
            "LVM's filter also accepts the disks of a virtual machine",
            |text| {
                let mut conf = LvmConf::parse(text);
                accept_virtual_disks(&mut conf, inspection, &file.place.guest_path, findings);
                conf.text().to_owned()
            },
        );
        rewrites.change(
            file,
            "LVM's list of devices knows the physical disks only, and would hide their copies",
            |text| match files.lvm_devices {
                true => without_devices_file(text),
                false => text.to_owned(),
            },
        );
    }
    for file in &files.mdadm {
        let mut only_by_devices = Vec::new();
        rewrites.change(
            file,
            "md arrays are found by their superblocks: the names of their disks change",
            |text| {
                let unbound = mdadm_conf::unbind(text);
                only_by_devices = unbound.only_by_devices;
                unbound.text
            },
        );
        for array in only_by_devices {
            findings.push(
                finding(
                    Level::Warning,
                    "mdadm.devices.only",
                    format!("{}: {array}", file.place.guest_path),
                    "nothing but the names of its disks says what belongs to the array",
                )
                .remedy("add its UUID on the server: mdadm --detail --brief"),
            );
        }
    }
    for file in &files.caches {
        rewrites.change(file, "it remembers disks that are not there", |_| {
            emptied(file)
        });
    }
    if files.multipath {
        findings.push(finding(
            Level::Note,
            "storage.multipath",
            "multipath",
            "a virtual machine has one path to each disk; maps and their names do not exist there",
        ));
    }
    mentions(inspection, findings);
}

/// Makes `lvm.conf` where there is a list of devices and no configuration that says to leave it.
pub(crate) fn new_files(inspection: &Inspection) -> Option<Edit> {
    let files = &inspection.device_files;
    let is_needed = files.lvm.is_none() && files.lvm_devices;
    let place = inspection
        .place_on_root("/etc/lvm/lvm.conf")
        .filter(|_| is_needed)?;
    Some(Edit {
        place,
        reasons: vec![
            "LVM's list of devices knows the physical disks only, and would hide their copies"
                .to_owned(),
        ],
        change: Change::Create {
            content: without_devices_file(""),
            mode: 0o644,
        },
    })
}

/// Physical volumes of partitions and disks: as the server called them, where that is known, and as
/// virtual controllers will.
fn physical_volumes(inspection: &Inspection) -> Vec<(Option<String>, Vec<String>)> {
    let mut found = Vec::new();
    for (disk, letter) in inspection.disks.iter().zip('a'..='z') {
        for volume in &disk.volumes {
            let kind = volume.content.as_ref().map(|content| content.kind);
            if kind != Some(FilesystemKind::Lvm2Member) {
                continue;
            }
            let number = volume.id.partition();
            let end = number.map(|number| number.to_string()).unwrap_or_default();
            let before = disk.name.as_ref().map(|name| {
                let digit = name.ends_with(|c: char| c.is_ascii_digit());
                let between = if digit && number.is_some() { "p" } else { "" };
                format!("/dev/{name}{between}{end}")
            });
            let kinds = ["vd", "sd", "hd"];
            let after = kinds.map(|kind| format!("/dev/{kind}{letter}{end}"));
            found.push((before, after.to_vec()));
        }
    }
    found
}

/// Puts a pattern that accepts virtual disks before the first one that rejects a physical volume,
/// unless the server rejected that volume itself, by its name.
fn accept_virtual_disks(
    conf: &mut LvmConf,
    inspection: &Inspection,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    for filter in FILTERS {
        let Some(patterns) = conf.strings(filter) else {
            continue;
        };
        let mut first: Option<usize> = None;
        let mut meant: Vec<String> = Vec::new();
        for (before, after) in physical_volumes(inspection) {
            let on_server = before.as_deref().and_then(|name| {
                let (number, accepts) = first_match(&patterns, name)?;
                let by_name = first_match(&patterns, NO_DEVICE).map(|(n, _)| n) != Some(number);
                (!accepts && by_name).then(|| name.to_owned())
            });
            if let Some(name) = on_server {
                meant.push(name);
                continue;
            }
            for (number, accepts) in after.iter().filter_map(|n| first_match(&patterns, n)) {
                if !accepts {
                    first = Some(first.map_or(number, |first| first.min(number)));
                }
            }
        }
        if !meant.is_empty() {
            findings.push(
                finding(
                    Level::Warning,
                    "lvm.filter.rejects-by-name",
                    place,
                    format!(
                        "{filter} leaves out {}, whose names change",
                        meant.join(", ")
                    ),
                )
                .remedy("let the filter name them by /dev/disk/by-partuuid, on the server"),
            );
        }
        if let Some(first) = first {
            conf.insert_string(filter, first, ACCEPT);
        }
    }
}

/// A cache with nothing in it, in the form that its reader expects.
fn emptied(file: &TextFile) -> String {
    match file.place.path.ends_with("/.cache") {
        true => "persistent_filter_cache {\n\tvalid_devices=[]\n}\n".to_owned(),
        false => String::new(),
    }
}

fn mentions(inspection: &Inspection, findings: &mut Vec<Finding>) {
    for mention in &inspection.device_files.mentions {
        let names = mention.names.join(", ");
        let (level, code, problem, remedy) = match mention.kind {
            MentionKind::Watches => (
                Level::Note,
                "devices.named-elsewhere",
                format!("names {names}, which a virtual machine calls otherwise"),
                "nothing, if it only watches the disks' health",
            ),
            MentionKind::Needs => (
                Level::Warning,
                "devices.needed-by-name",
                format!("needs {names}, which a virtual machine calls otherwise"),
                "name them by /dev/disk/by-partuuid or by-uuid, on the server",
            ),
            MentionKind::UdevRule => (
                Level::Warning,
                "devices.udev-rule",
                format!("its rules know disks by their hardware ({names})"),
                "let the rules go by ID_FS_UUID or ID_PART_ENTRY_UUID, on the server",
            ),
            MentionKind::OracleAsm => (
                Level::Warning,
                "storage.oracleasm",
                format!("Oracle ASM looks for its disks only where it is told: {names}"),
                "virtual disks are /dev/vd* or /dev/sd*; widen the order before ASM starts",
            ),
        };
        findings.push(finding(level, code, &mention.file, problem).remedy(remedy));
    }
}
