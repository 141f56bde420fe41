// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/modprobe.conf`, `/etc/modprobe.d/*`: drivers that a server was told not to load.
//!
//! ```text
//! blacklist virtio_blk                  its aliases do not count: udev does not load it
//! install virtio_blk /bin/true          it is not loaded at all
//! alias virtio:d00000002v* off          (modprobe.d(5))
//! ```
//! Hardening guides have servers without virtual hardware do so. Such lines become comments; all
//! others are kept byte for byte.

use super::ModuleName;

const MARK: &str = "# needed by virtual hardware: ";

/// The text with lines that block one of these drivers made comments.
#[must_use]
pub fn unblocked(text: &str, drivers: &[ModuleName]) -> String {
    let mut after = String::new();
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let blocked = match (keyword, words.next(), words.next()) {
            ("blacklist", Some(name), _) => Some(name),
            ("install", Some(name), Some(command)) if is_nothing(command) => Some(name),
            ("alias", Some(name), Some("off")) => Some(name),
            _ => None,
        };
        if blocked.is_some_and(|name| drivers.contains(&ModuleName::new(name))) {
            after.push_str(MARK);
        }
        after.push_str(line);
    }
    after
}

/// A command that does nothing instead of loading a module.
fn is_nothing(command: &str) -> bool {
    let program = command.rsplit('/').next().unwrap_or(command);
    matches!(program, "true" | "false" | ":" | "null" | "echo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_block_a_driver_become_comments() {
        let text = "# hardening\nblacklist virtio-blk\ninstall virtio_net /bin/true\n\
            install sd_mod /sbin/modprobe --ignore-install sd_mod\nblacklist floppy\n\
            alias virtio_pci off\n";
        let drivers = ["virtio_blk", "virtio_net", "virtio_pci", "sd_mod"].map(ModuleName::new);
        let after = unblocked(text, &drivers);
        assert_eq!(
            after,
            "# hardening\n# needed by virtual hardware: blacklist virtio-blk\n\
             # needed by virtual hardware: install virtio_net /bin/true\n\
             install sd_mod /sbin/modprobe --ignore-install sd_mod\nblacklist floppy\n\
             # needed by virtual hardware: alias virtio_pci off\n"
        );
        assert_eq!(unblocked(&after, &drivers), after);
    }
}
