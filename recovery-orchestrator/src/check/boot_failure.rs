// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signs on a console that a guest will not come up by itself.

use super::pattern::without_controls;

/// What is on the console, and what it means. Only texts that a healthy start does not show.
const SIGNS: [(&str, &str); 13] = [
    ("Kernel panic - not syncing", "the kernel panicked"),
    (
        "(initramfs)",
        "the initramfs did not find the root filesystem and opened its shell",
    ),
    (
        "Gave up waiting for root file system device",
        "the initramfs did not find the root filesystem",
    ),
    (
        "Gave up waiting for root device",
        "the initramfs did not find the root filesystem",
    ),
    (
        "dracut-initqueue: Warning: Could not boot.",
        "dracut did not find the root filesystem",
    ),
    (
        "Entering emergency mode. Exit the shell to continue.",
        "dracut opened its emergency shell",
    ),
    (
        "You are in emergency mode",
        "systemd stopped in emergency mode",
    ),
    ("You are in rescue mode", "systemd stopped in rescue mode"),
    (
        "Give root password for maintenance",
        "the system asks for the root password to be repaired",
    ),
    ("grub rescue>", "GRUB did not find its files"),
    (
        "Minimal BASH-like line editing is supported",
        "GRUB found no configuration and waits for commands",
    ),
    (
        "error: you need to load the kernel first",
        "GRUB did not find the kernel",
    ),
    (
        "No bootable device",
        "the firmware found nothing to start from",
    ),
];

/// Where the initramfs of Debian says which device it misses.
const MISSING_ROOT: (&str, &str) = ("ALERT!", "does not exist");

/// Why a guest with this console will not come up, when the console says so.
#[must_use]
pub fn boot_failure(console: &str) -> Option<String> {
    let console = without_controls(console);
    let missing = console
        .lines()
        .find(|line| line.contains(MISSING_ROOT.0) && line.contains(MISSING_ROOT.1));
    if let Some(line) = missing {
        return Some(format!(
            "the initramfs did not find the root filesystem: {}",
            line.trim()
        ));
    }
    let (text, meaning) = SIGNS.iter().find(|(text, _)| console.contains(text))?;
    let line = console.lines().rev().find(|line| line.contains(text))?;
    Some(format!("{meaning}: {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_ends_in_a_shell_or_a_panic_is_recognised() {
        for (console, reason) in [
            (
                "Gave up waiting for root file system device.\r\nALERT!  /dev/sda1 does not exist.  Dropping to a shell!\r\n(initramfs) ",
                "the initramfs did not find the root filesystem: ALERT!  /dev/sda1 does not exist.  Dropping to a shell!",
            ),
            (
                "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
                "the kernel panicked: [    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            ),
            (
                "error: no such device: 1234.\r\ngrub \u{1b}[0mrescue> ",
                "GRUB did not find its files: grub rescue>",
            ),
        ] {
            assert_eq!(boot_failure(console).as_deref(), Some(reason));
        }
    }

    #[test]
    fn a_healthy_console_is_not_a_failure() {
        let console = "Loading initial ramdisk ...\r\n[ 1.0] sda: sda1 sda2\r\nDebian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ";
        assert_eq!(boot_failure(console), None);
    }
}
