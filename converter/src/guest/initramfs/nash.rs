// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/init` of RHEL 4 and 5: a script for nash, a program that knows a few dozen commands.
//!
//! ```text
//! insmod /lib/scsi_mod.ko            one line per module, dependencies first
//! echo Waiting for driver initialization.
//! stabilized --hash ... /proc/scsi/scsi
//! insmod /lib/dm-mod.ko
//! mkblkdevs                          makes the nodes of the disks (RHEL 4: /sbin/udevstart)
//! lvm vgscan ...   resume LABEL=...   mkrootdev -t ext3 -o defaults,ro sda2
//! ```
//! Nothing loads a module but `insmod`, which needs the path and knows no dependencies. The root is
//! that of the kernel's command line where it has one (nash.c: `getKernelArg("root")`), else the
//! argument of `mkrootdev`.

const SHEBANG: &str = "#!/bin/nash";
/// Commands that need the disks.
const USES_DISKS: [&str; 8] = [
    "stabilized",
    "mkdmnod",
    "dm",
    "lvm",
    "raidautorun",
    "resume",
    "mkrootdev",
    "mount /sysroot",
];
/// Commands that make the nodes of the disks that were found; they stand before the first module
/// too.
const MAKES_NODES: [&str; 2] = ["mkblkdevs", "/sbin/udevstart"];
const WAITING: &str = "echo Waiting for driver initialization";

/// The script with modules loaded before disks are used; `None` where it is no such script.
///
/// `modules` are paths without a leading `/`, in load order. What the script loads already is not
/// loaded again.
#[must_use]
pub fn with_modules(script: &str, modules: &[String]) -> Option<String> {
    if !script.starts_with(SHEBANG) {
        return None;
    }
    let is_loaded = |path: &String| {
        let full = format!("/{path}");
        let mut commands = script.lines().map(str::split_whitespace);
        commands
            .any(|mut words| words.next() == Some("insmod") && words.next() == Some(full.as_str()))
    };
    let missing: Vec<&String> = modules.iter().filter(|path| !is_loaded(path)).collect();
    let place = place_for_modules(script)?;
    let mut lines = String::new();
    for path in missing {
        let file = path.rsplit('/').next().unwrap_or(path);
        lines.push_str(&format!("echo \"Loading {file} module\"\ninsmod /{path}\n"));
    }
    let (before, after) = script.split_at_checked(place)?;
    Some(format!("{before}{lines}{after}"))
}

/// Where the first command stands that needs disks.
fn place_for_modules(script: &str) -> Option<usize> {
    let mut position = 0;
    let mut modules_seen = false;
    for line in script.split_inclusive('\n') {
        let command = line.trim();
        let is = |name: &&str| {
            command
                .strip_prefix(*name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '.']))
        };
        if is(&WAITING) || USES_DISKS.iter().any(is) || (modules_seen && MAKES_NODES.iter().any(is))
        {
            return Some(position);
        }
        modules_seen |= is(&"insmod");
        position += line.len();
    }
    None
}

/// The script with its devices renamed: the root's where the kernel's command line has none, and
/// the swap space's to resume from. A swap space without a new name is not resumed from.
///
/// `rename` gets a name with `/dev/` before it: nash adds that itself where it is missing.
#[must_use]
pub fn rename_devices(script: &str, rename: impl Fn(&str) -> Renamed) -> String {
    let mut renamed = String::new();
    for line in script.split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = words.first().copied().unwrap_or_default();
        let device = words.last().copied().unwrap_or_default();
        if words.len() < 2 || !matches!(command, "mkrootdev" | "resume") {
            renamed.push_str(line);
            continue;
        }
        let full = if device.starts_with('/') || device.contains('=') {
            device.to_owned()
        } else {
            format!("/dev/{device}")
        };
        let start = line.rfind(device).map_or("", |start| &line[..start]);
        match rename(&full) {
            Renamed::Becomes(name) => renamed.push_str(&format!("{start}{name}{end}")),
            Renamed::Gone if command == "resume" => {
                renamed.push_str(&format!("# {}{end}", line.trim()));
            }
            Renamed::Gone | Renamed::Stays => renamed.push_str(line),
        }
    }
    renamed
}

/// What becomes of a device's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renamed {
    /// It stays true.
    Stays,
    /// It gets another name.
    Becomes(String),
    /// Nothing will have that name, and what it named is not known.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHEL_5: &str = "#!/bin/nash\n\nmount -t proc /proc /proc\nhotplug\nmkblkdevs\n\
        insmod /lib/ext3.ko\ninsmod /lib/scsi_mod.ko\ninsmod /lib/sd_mod.ko\n\
        echo Waiting for driver initialization.\n\
        stabilized --hash --interval 250 /proc/scsi/scsi\ninsmod /lib/dm-mod.ko\nmkblkdevs\n\
        resume /dev/sda3\nmkrootdev -t ext3 -o defaults,ro sda2\nmount /sysroot\n";

    fn paths(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("lib/{name}.ko")).collect()
    }

    #[test]
    fn modules_are_loaded_before_disks_are_waited_for_and_only_once() {
        let after = with_modules(RHEL_5, &paths(&["scsi_mod", "virtio", "virtio_blk"])).unwrap();
        let expected = "insmod /lib/sd_mod.ko\necho \"Loading virtio.ko module\"\n\
            insmod /lib/virtio.ko\necho \"Loading virtio_blk.ko module\"\n\
            insmod /lib/virtio_blk.ko\necho Waiting for driver initialization.\n";
        assert!(after.contains(expected), "{after}");
        let again = with_modules(&after, &paths(&["scsi_mod", "virtio", "virtio_blk"])).unwrap();
        assert_eq!(again, after);
    }

    #[test]
    fn without_scsi_the_nodes_are_made_after_the_modules() {
        let script = "#!/bin/nash\n/sbin/udevstart\ninsmod /lib/cciss.ko\n/sbin/udevstart\n\
            mkrootdev /dev/root\n";
        let after = with_modules(script, &paths(&["ata_piix"])).unwrap();
        assert_eq!(
            after,
            "#!/bin/nash\n/sbin/udevstart\ninsmod /lib/cciss.ko\n\
             echo \"Loading ata_piix.ko module\"\ninsmod /lib/ata_piix.ko\n/sbin/udevstart\n\
             mkrootdev /dev/root\n"
        );
    }

    #[test]
    fn other_scripts_are_left_to_others() {
        assert_eq!(with_modules("#!/bin/sh\nmkrootdev sda2\n", &[]), None);
        assert_eq!(with_modules("#!/bin/nash\necho x\n", &paths(&["a"])), None);
    }

    #[test]
    fn the_root_gets_its_name_and_a_lost_swap_space_is_left_out() {
        let rename = |name: &str| match name {
            "/dev/sda2" => Renamed::Becomes("UUID=1".to_owned()),
            "/dev/sda3" => Renamed::Gone,
            _ => Renamed::Stays,
        };
        let after = rename_devices(RHEL_5, rename);
        assert!(
            after.contains("# resume /dev/sda3\nmkrootdev -t ext3 -o defaults,ro UUID=1\n"),
            "{after}"
        );
        let label = "#!/bin/nash\nresume LABEL=SWAP-sda3\nmkrootdev /dev/VolGroup00/root\nresume";
        assert_eq!(rename_devices(label, rename), label);
    }
}
