// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/run_all.sh` of SUSE's mkinitrd (SLES 11, openSUSE 10.3 to 13.1): one file with a call of every
//! script and, before each, its settings.
//!
//! ```text
//! [ "$debug" ] && echo preping 03-storage.sh
//! [ "$rootdev" ] || rootdev='/dev/disk/by-id/ata-...-part2'      also in config/mount.sh
//! [ "$debug" ] && echo running 01-start.sh
//! modules="$RESOLVED_INITRD_MODULES"
//! source boot/01-start.sh
//! [ "$modules" ] && load_modules
//! ```
//! (scripts/setup-progs.sh, lib/mkinitrd/bin/linuxrc of mkinitrd.) udev, started by one of them,
//! loads what the hardware asks for where its rules say so; the modules are named all the same,
//! because the rules were other ones in each release. A setting that the kernel's command line has
//! (`root=`, `resume=`) wins.

const MARK: &str = "# Drivers of virtual hardware";
/// The settings that name a disk.
const DEVICES: [&str; 6] = [
    "rootdev",
    "resumedev",
    "journaldev",
    "usrdev",
    "blockdev",
    "dumpdev",
];

/// The script with modules loaded before udev looks for devices; `None` where it starts no udev
/// and nothing before it.
#[must_use]
pub fn with_modules(script: &str, modules: &[&str]) -> Option<String> {
    if script.contains(MARK) {
        return Some(script.to_owned());
    }
    let mut position = 0;
    let mut place = None;
    for line in script.split_inclusive('\n') {
        if sources(line, "udev.sh") {
            place = Some(position);
            break;
        }
        position += line.len();
        if sources(line, "start.sh") {
            place = Some(position);
        }
    }
    let (before, after) = script.split_at_checked(place?)?;
    let modules = modules.join(" ");
    Some(format!(
        "{before}{MARK}\nfor module in {modules}; do modprobe $module; done\n{after}"
    ))
}

/// True for `source boot/04-udev.sh`.
fn sources(line: &str, script: &str) -> bool {
    let mut words = line.split_whitespace();
    let name = match (words.next(), words.next()) {
        (Some("source" | "."), Some(path)) => path.rsplit('/').next().unwrap_or(path),
        _ => return false,
    };
    name.split_once('-').map_or(name, |(_, name)| name) == script
}

/// The settings with their disks renamed; `rename` gives nothing where a name stays.
#[must_use]
pub fn rename_devices(settings: &str, rename: impl Fn(&str) -> Option<String>) -> String {
    let mut renamed = String::new();
    for line in settings.split_inclusive('\n') {
        renamed.push_str(&rename_in(line, &rename).unwrap_or_else(|| line.to_owned()));
    }
    renamed
}

/// `[ "$rootdev" ] || rootdev='/dev/sda2'` with its value changed.
fn rename_in(line: &str, rename: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let (start, value) = line.split_once("='")?;
    let key = start.rsplit([' ', '\t']).next()?;
    let (value, end) = value.split_once('\'')?;
    if !DEVICES.contains(&key) {
        return None;
    }
    let words: Vec<String> = value
        .split(' ')
        .map(|word| rename(word).unwrap_or_else(|| word.to_owned()))
        .collect();
    Some(format!("{start}='{}'{end}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "[ \"$debug\" ] && echo running 01-start.sh\n\
        modules=\"$RESOLVED_INITRD_MODULES\"\nsource boot/01-start.sh\n\
        [ \"$modules\" ] && load_modules\nsource boot/04-udev.sh\n\
        [ \"$rootdev\" ] || rootdev='/dev/disk/by-id/x-part2'\nsource boot/83-mount.sh\n";

    #[test]
    fn modules_are_loaded_before_udev_or_after_the_start() {
        let after = with_modules(SCRIPT, &["virtio_pci", "virtio_blk"]).unwrap();
        assert!(
            after.contains(
                "load_modules\n# Drivers of virtual hardware\n\
                 for module in virtio_pci virtio_blk; do modprobe $module; done\n\
                 source boot/04-udev.sh\n"
            ),
            "{after}"
        );
        assert_eq!(with_modules(&after, &["other"]).unwrap(), after);
        let without = SCRIPT.replace("04-udev", "04-other");
        let after = with_modules(&without, &["virtio_blk"]).unwrap();
        assert!(after.contains("01-start.sh\n# Drivers"), "{after}");
        assert_eq!(with_modules("echo nothing\n", &["virtio_blk"]), None);
    }

    #[test]
    fn settings_that_name_a_disk_get_its_new_name() {
        let rename = |name: &str| (name == "/dev/sda2").then(|| "/dev/disk/by-uuid/1".to_owned());
        let text = "[ \"$rootdev\" ] || rootdev='/dev/sda2'\n[ \"$x\" ] || x='/dev/sda2'\n\
            [ \"$blockdev\" ] || blockdev='/dev/sda2 /dev/sdb'\n";
        assert_eq!(
            rename_devices(text, rename),
            "[ \"$rootdev\" ] || rootdev='/dev/disk/by-uuid/1'\n[ \"$x\" ] || x='/dev/sda2'\n\
             [ \"$blockdev\" ] || blockdev='/dev/disk/by-uuid/1 /dev/sdb'\n"
        );
    }
}
