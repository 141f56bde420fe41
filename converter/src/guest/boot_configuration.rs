// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every boot loader's configuration has in common: entries, each a kernel with arguments, one
//! of which is started by itself.
//!
//! A reader of one format is a [`BootConfiguration`]; what is done to command lines is then the same
//! for all of them.

use std::collections::BTreeMap;
use std::fmt;

use super::kernel_cmdline::CommandLine;

/// Values that a boot loader keeps elsewhere than in its configuration: GRUB's environment block.
pub type Environment = BTreeMap<String, String>;

/// One kernel that a boot loader can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// Number of the line with the arguments, from 0: the handle for editing.
    pub line: usize,
    /// What the menu shows.
    pub title: String,
    /// The kernel's path as the loader reads it, without the device before it.
    pub kernel: String,
    /// The paths of what is loaded as its initramfs.
    pub initrds: Vec<String>,
    /// The arguments.
    pub arguments: CommandLine,
}

/// A boot loader's configuration file.
pub trait BootConfiguration: fmt::Debug {
    /// The entries that start a kernel, in the order of the file.
    fn entries(&self) -> Vec<BootEntry>;

    /// Which of [`BootConfiguration::entries`] is started by itself, where the file says so.
    fn default_entry(&self, environment: &Environment) -> Option<usize>;

    /// Writes other arguments into the line of an entry; false where the line has none. Where a line
    /// is added for them, the lines behind it move: edit from the last entry to the first.
    fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool;

    /// The file.
    fn to_bytes(&self) -> Vec<u8>;
}

/// A path without GRUB's device before it: `(hd0,1)/boot/vmlinuz`.
pub(super) fn without_device(path: &str) -> &str {
    match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, path)) => path,
        None => path,
    }
}

/// The line's text without its line end, and that line end.
pub(super) fn split_line_end(line: &str) -> (&str, &str) {
    let text = line.trim_end_matches(['\n', '\r']);
    line.split_at(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_no_part_of_a_path() {
        assert_eq!(without_device("(hd0,1)/boot/vmlinuz"), "/boot/vmlinuz");
        assert_eq!(without_device("($root)/vmlinuz"), "/vmlinuz");
        assert_eq!(without_device("/vmlinuz"), "/vmlinuz");
        assert_eq!(without_device("(hd0"), "(hd0");
    }
}
