// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounted filesystems and swap in use, from `/proc/self/mountinfo` and `/proc/swaps`.

use image_library::machine::Mount;

use crate::inventory::root::Root;

/// Mounted filesystems with a device behind them, in the order of mounting; a device mounted at
/// several places counts at each.
pub(crate) fn mounts(root: &Root) -> Vec<Mount> {
    let text = root
        .text("/proc/self/mountinfo")
        .or_else(|| root.text("/proc/1/mountinfo"))
        .unwrap_or_default();
    let mut mounts: Vec<Mount> = text.lines().filter_map(mount).collect();
    if root.is_this_server() {
        for mount in &mut mounts {
            (mount.size_bytes, mount.used_bytes) = sizes(&mount.target);
        }
    }
    mounts
}

/// `id parent major:minor root target options [tags...] - type source super-options`.
fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let source = unescape(right.get(1)?);
    if !source.starts_with("/dev/") {
        return None;
    }
    Some(Mount {
        source,
        target: unescape(left.get(4)?),
        filesystem: (*right.first()?).to_owned(),
        options: (*left.get(5)?).to_owned(),
        size_bytes: None,
        used_bytes: None,
    })
}

/// Size and use of a mounted filesystem.
fn sizes(target: &str) -> (Option<u64>, Option<u64>) {
    // A mount that does not answer (a dead network disk) has no sizes.
    let Ok(status) = rustix::fs::statvfs(target) else {
        return (None, None);
    };
    let unit = status.f_frsize;
    let used = status.f_blocks.saturating_sub(status.f_bfree);
    (
        Some(status.f_blocks.saturating_mul(unit)),
        Some(used.saturating_mul(unit)),
    )
}

/// Swap devices and files in use.
pub(crate) fn swaps(root: &Root) -> Vec<String> {
    let text = root.text("/proc/swaps").unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(unescape)
        .collect()
}

/// The kernel writes spaces and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    #[test]
    fn only_filesystems_on_devices_are_mounts() {
        let server = PhonyServer::new();
        server.write(
            "/proc/self/mountinfo",
            "22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
             28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
             30 28 8:17 / /mnt/my\\040disk ro - xfs /dev/sdb1 ro\n\
             31 28 0:50 / /data rw - nfs4 nas:/data rw\n",
        );
        let texts: Vec<String> = mounts(&server.root())
            .iter()
            .map(|m| format!("{} {} {} {}", m.source, m.target, m.filesystem, m.options))
            .collect();
        assert_eq!(
            texts,
            [
                "/dev/sda1 / ext4 rw,relatime",
                "/dev/sdb1 /mnt/my disk xfs ro"
            ]
        );
    }

    #[test]
    fn swaps_are_devices_and_files() {
        let server = PhonyServer::new();
        server.write(
            "/proc/swaps",
            "Filename\t\t\tType\t\tSize\tUsed\tPriority\n\
             /dev/sda2                               partition\t1046524\t0\t-2\n\
             /swap\\040file file 100 0 -3\n",
        );
        assert_eq!(swaps(&server.root()), ["/dev/sda2", "/swap file"]);
    }
}
