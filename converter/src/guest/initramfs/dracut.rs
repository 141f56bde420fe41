// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an initramfs of dracut that was made for one server waits for.
//!
//! ```text
//! lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2fdisk\x2f....sh      [ -e "/dev/disk/..." ]
//! etc/systemd/system/initrd.target.wants/dev-disk-by\x2did-....device        a link
//! etc/systemd/system/dev-disk-by\x2did-....device.d/timeout.conf             JobTimeoutSec=0: for ever
//! ```
//! (wait_for_dev of dracut-dev-lib.sh.) The initqueue runs until every script in `finished` says yes, or
//! gives up after minutes. A unit that is wanted is waited for as long as its timeout says.
//!
//! An entry cannot be deleted by appending. A script can say yes; a link can become an empty file,
//! which systemd from version 233 on takes for a mask, and the time that older ones wait can be a
//! second: what is only wanted may fail.

/// Directories of scripts that must say yes; the second is that of version 004.
const FINISHED: [&str; 2] = [
    "lib/dracut/hooks/initqueue/finished/",
    "initqueue-finished/",
];
const UNITS: &str = "etc/systemd/system/";

/// What a wanted device's unit gets: it is given up after a second.
pub const TIMEOUT: &str = "[Unit]\nJobTimeoutSec=1\nJobRunningTimeoutSec=1\n";

/// True for a script that says whether there is something left to wait for.
#[must_use]
pub fn is_finished_script(path: &str) -> bool {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    path.ends_with(".sh") && FINISHED.iter().any(|directory| path.starts_with(directory))
}

/// The device that a link in a `.wants` directory makes systemd wait for.
#[must_use]
pub fn wanted_device(path: &str) -> Option<String> {
    let (directory, unit) = path.strip_prefix(UNITS)?.rsplit_once('/')?;
    let is_wants = directory.ends_with(".wants") || directory.ends_with(".requires");
    let name = unit.strip_suffix(".device")?;
    (is_wants && name.starts_with("dev-")).then(|| unescape_unit(name))
}

/// Where a device's unit says how long it is waited for.
#[must_use]
pub fn timeout_path(wants: &str) -> Option<String> {
    let unit = wants.strip_prefix(UNITS)?.rsplit('/').next()?;
    Some(format!("{UNITS}{unit}.d/timeout.conf"))
}

/// A unit's name as a path: `-` is `/`, `\x2d` is `-`.
fn unescape_unit(name: &str) -> String {
    let mut path = String::from("/");
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let escaped = rest
            .strip_prefix("\\x")
            .and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        let (character, length) = match escaped {
            Some(byte) => (char::from(byte), 4),
            None if first == '-' => ('/', 1),
            None => (first, first.len_utf8()),
        };
        path.push(character);
        rest = rest.get(length..).unwrap_or_default();
    }
    path
}

/// A script of `finished` with other devices. `rename` gives the new name; what has none is not
/// waited for.
#[must_use]
pub fn rename_awaited(script: &str, rename: impl Fn(&str) -> Awaited) -> String {
    let mut renamed = String::new();
    for line in script.split_inclusive('\n') {
        let test = line.trim_start();
        let indent = &line[..line.len() - test.len()];
        let device = test
            .strip_prefix("[ -e ")
            .and_then(|rest| rest.split_once(" ]"))
            .map(|(device, _)| device.trim_matches(['"', '\'']));
        match device.map_or(Awaited::Stays, &rename) {
            Awaited::Stays => renamed.push_str(line),
            Awaited::Becomes(name) => renamed.push_str(&format!("{indent}[ -e \"{name}\" ]\n")),
            Awaited::Never => renamed.push_str(&format!("{indent}true\n")),
        }
    }
    renamed
}

/// What becomes of a device that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// It will be there.
    Stays,
    /// It will have another name.
    Becomes(String),
    /// It will not be there.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_links_that_wait_are_known_by_their_paths() {
        for directory in [
            "usr/lib/dracut/hooks/initqueue/finished",
            "initqueue-finished",
        ] {
            assert!(is_finished_script(&format!("{directory}/devexists-x.sh")));
        }
        assert!(!is_finished_script("lib/dracut/hooks/cmdline/90.sh"));
        let link =
            r"etc/systemd/system/initrd.target.wants/dev-disk-by\x2did-ata\x2dX\x2dpart2.device";
        assert_eq!(
            wanted_device(link).as_deref(),
            Some("/dev/disk/by-id/ata-X-part2")
        );
        assert_eq!(
            timeout_path(link).as_deref(),
            Some(r"etc/systemd/system/dev-disk-by\x2did-ata\x2dX\x2dpart2.device.d/timeout.conf")
        );
        assert_eq!(
            wanted_device("etc/systemd/system/a.wants/sysroot.mount"),
            None
        );
        assert_eq!(wanted_device("etc/systemd/system/dev-sda1.device"), None);
    }

    #[test]
    fn a_script_waits_for_what_there_will_be() {
        let rename = |name: &str| match name {
            "/dev/sda2" => Awaited::Becomes("/dev/disk/by-uuid/1".to_owned()),
            "/dev/mapper/mpatha" => Awaited::Never,
            _ => Awaited::Stays,
        };
        let script =
            "[ -e \"/dev/sda2\" ]\nif ! grep -q x y; then\n    [ -e \"/dev/mapper/mpatha\" ]\nfi\n";
        assert_eq!(
            rename_awaited(script, rename),
            "[ -e \"/dev/disk/by-uuid/1\" ]\nif ! grep -q x y; then\n    true\nfi\n"
        );
        let other = "[ -e \"/dev/vg/root\" ]\n";
        assert_eq!(rename_awaited(other, rename), other);
    }
}
