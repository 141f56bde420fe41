// SPDX-License-Identifier: MIT OR Apache-2.0
//! `extlinux.conf` and `syslinux.cfg`, also as U-Boot reads them.
//!
//! ```text
//! default linux                  a label, or a command line
//! ui menu.c32
//! include more.cfg               `menu include` too
//! append quiet                   before the first label: for labels without `append`
//! label linux
//!     menu label ^Linux
//!     menu default
//!     kernel /vmlinuz            or `linux`; a `.c32` is a program
//!     append root=/dev/sda1 ro   may name the initramfs: `initrd=/initramfs`
//!     initrd /initramfs,/more
//! ```
//! Keywords in any case. Editing keeps every byte of what is not edited. Facts: doc/syslinux.txt and
//! doc/menu.txt of Syslinux 6.

use super::boot_configuration::{BootConfiguration, BootEntry, Environment, split_line_end};
use super::kernel_cmdline::{CommandLine, Quoting};

/// What a kernel's file name ends with where it is none.
const PROGRAMS: [&str; 8] = [".c32", ".com", ".cbt", ".0", ".bin", ".bs", ".bss", ".img"];

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslinux {
    lines: Vec<String>,
}

/// One label while it is read.
#[derive(Debug, Clone, Default)]
struct Label {
    name: String,
    title: Option<String>,
    is_menu_default: bool,
    /// Its line and path.
    kernel: Option<(usize, String)>,
    /// Its line and text.
    append: Option<(usize, String)>,
    initrds: Vec<String>,
}

impl Syslinux {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            lines: text.split_inclusive('\n').map(str::to_owned).collect(),
        }
    }

    /// The files that it includes, as it names them.
    #[must_use]
    pub fn includes(&self) -> Vec<String> {
        let commands = self.commands();
        commands
            .filter_map(|(_, name, rest)| match name.as_str() {
                "include" => Some(rest),
                "menu" => keyword(rest)
                    .filter(|(name, _)| name == "include")
                    .map(|(_, rest)| rest),
                _ => None,
            })
            .filter_map(|rest| rest.split_whitespace().next().map(str::to_owned))
            .collect()
    }

    /// Number, keyword and the rest of each line.
    fn commands(&self) -> impl Iterator<Item = (usize, String, &str)> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(|(number, line)| {
            let (text, _) = split_line_end(line);
            let (name, rest) = keyword(text)?;
            (!name.starts_with('#')).then_some((number, name, rest))
        })
    }

    /// The labels, and what stands before the first of them as one without a name.
    fn labels(&self) -> Vec<Label> {
        let mut labels = vec![Label::default()];
        for (line, name, rest) in self.commands() {
            if name == "label" {
                labels.push(Label {
                    name: rest.trim().to_owned(),
                    ..Label::default()
                });
            } else if let Some(label) = labels.last_mut() {
                label.take(line, &name, rest.trim_end());
            }
        }
        labels
    }

    fn linux_labels(&self) -> Vec<(Label, BootEntry)> {
        let labels = self.labels();
        let global = labels.first().and_then(|label| label.append.clone());
        let named = labels.into_iter().skip(1);
        named
            .filter_map(|label| {
                let entry = label.entry(global.as_ref())?;
                Some((label, entry))
            })
            .collect()
    }
}

/// The keyword of a line in lower case, and what follows it.
fn keyword(line: &str) -> Option<(String, &str)> {
    let line = line.trim_start();
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), rest.trim_start()))
}

impl Label {
    fn take(&mut self, line: usize, name: &str, rest: &str) {
        match name {
            "kernel" | "linux" => {
                let path = rest.split_whitespace().next().unwrap_or_default();
                let lower = path.to_ascii_lowercase();
                let is_program =
                    name == "kernel" && PROGRAMS.iter().any(|end| lower.ends_with(end));
                self.kernel = (!path.is_empty() && !is_program).then(|| (line, path.to_owned()));
            }
            "append" => self.append = Some((line, rest.to_owned())),
            "initrd" => self.initrds = list(rest),
            "menu" => match keyword(rest) {
                Some((name, _)) if name == "default" => self.is_menu_default = true,
                Some((name, title)) if name == "label" => {
                    self.title = Some(title.replace('^', ""));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn entry(&self, global: Option<&(usize, String)>) -> Option<BootEntry> {
        let (kernel_line, kernel) = self.kernel.clone()?;
        let (line, text) = self.append.as_ref().or(global).cloned().unwrap_or_default();
        let has_append = self.append.is_some() || global.is_some();
        // A dash alone says that there are no arguments.
        let text = if text == "-" { String::new() } else { text };
        let arguments = CommandLine::parse(text, Quoting::Kernel);
        let mut initrds = self.initrds.clone();
        if let Some(value) = arguments.get("initrd") {
            initrds.extend(list(&value));
        }
        Some(BootEntry {
            line: if has_append { line } else { kernel_line },
            title: self.title.clone().unwrap_or_else(|| self.name.clone()),
            kernel,
            initrds,
            arguments,
        })
    }
}

fn list(text: &str) -> Vec<String> {
    let paths = text.trim().split(',').map(str::trim);
    paths
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

impl BootConfiguration for Syslinux {
    fn entries(&self) -> Vec<BootEntry> {
        let labels = self.linux_labels().into_iter();
        labels.map(|(_, entry)| entry).collect()
    }

    fn default_entry(&self, _environment: &Environment) -> Option<usize> {
        let labels = self.linux_labels();
        let with_keyword = |wanted: &str| {
            let mut found = self.commands().filter(|(_, name, _)| name == wanted);
            let name = found.next().map(|(_, _, rest)| rest.trim().to_owned())?;
            labels.iter().position(|(label, _)| label.name == name)
        };
        with_keyword("default")
            .or_else(|| labels.iter().position(|(label, _)| label.is_menu_default))
            .or_else(|| with_keyword("ontimeout"))
    }

    fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let (text, end) = split_line_end(text);
        let Some((name, rest)) = keyword(text) else {
            return false;
        };
        let arguments = arguments.as_str().trim();
        let indent = &text[..text.len() - text.trim_start().len()];
        match name.as_str() {
            "append" => {
                let start = text.len() - rest.len();
                let blank = if text[..start].ends_with([' ', '\t']) {
                    ""
                } else {
                    " "
                };
                let blanks = &rest[rest.trim_end().len()..];
                self.lines[line] = format!("{}{blank}{arguments}{blanks}{end}", &text[..start]);
                true
            }
            "kernel" | "linux" if arguments.is_empty() => true,
            "kernel" | "linux" => {
                let end = if end.is_empty() { "\n" } else { end };
                let added = format!("{indent}append {arguments}{end}");
                self.lines[line] = format!("{text}{end}");
                self.lines.insert(line + 1, added);
                true
            }
            _ => false,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::samples::linux_samples;

    const SAMPLE: &str = "\
# Generated
DEFAULT menu.c32
PROMPT 0
MENU INCLUDE /menu.cfg Graphics
include local.cfg
LABEL lts
\tMENU LABEL Linux ^lts
\tLINUX vmlinuz-lts
\tINITRD intel.img,initramfs-lts
\tAPPEND root=/dev/sda3  modules=ext4 quiet \t
LABEL virt
\tMENU DEFAULT
\tKERNEL /vmlinuz-virt
LABEL old
\tKERNEL vmlinuz
\tAPPEND initrd=old.gz root=/dev/sda3
LABEL dos
\tKERNEL chain.c32
\tAPPEND hd0 1
";

    #[test]
    fn entries_are_the_labels_with_a_kernel() {
        let config = Syslinux::parse(SAMPLE);
        let entries = config.entries();
        let kernels: Vec<(&str, String)> = entries
            .iter()
            .map(|entry| (entry.kernel.as_str(), entry.initrds.join(" ")))
            .collect();
        assert_eq!(
            kernels,
            [
                ("vmlinuz-lts", "intel.img initramfs-lts".to_owned()),
                ("/vmlinuz-virt", String::new()),
                ("vmlinuz", "old.gz".to_owned()),
            ]
        );
        assert_eq!(entries[0].title, "Linux lts");
        assert_eq!(config.includes(), ["/menu.cfg", "local.cfg"]);
    }

    #[test]
    fn the_default_is_a_label_or_the_menus() {
        let default = |text: &str| Syslinux::parse(text).default_entry(&Environment::new());
        assert_eq!(default(SAMPLE), Some(1));
        assert_eq!(default(&SAMPLE.replace("menu.c32", "old")), Some(2));
        assert_eq!(default("label a\nkernel /a\n"), None);
        assert_eq!(
            default("ontimeout b\nlabel a\nkernel /a\nlabel b\nkernel /b\n"),
            Some(1)
        );
    }

    #[test]
    fn edited_arguments_change_nothing_else_and_come_where_there_are_none() {
        let mut config = Syslinux::parse(SAMPLE);
        for entry in config.entries().into_iter().rev() {
            let mut arguments = entry.arguments;
            arguments.replace("root", |_| Some("UUID=1".to_owned()));
            arguments.add("console=ttyS0");
            assert!(config.set_arguments(entry.line, &arguments));
        }
        let expected = SAMPLE
            .replace(
                "/dev/sda3  modules=ext4 quiet",
                "UUID=1  modules=ext4 quiet console=ttyS0",
            )
            .replace(
                "KERNEL /vmlinuz-virt\n",
                "KERNEL /vmlinuz-virt\n\tappend console=ttyS0\n",
            )
            .replace("old.gz root=/dev/sda3", "old.gz root=UUID=1 console=ttyS0");
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn labels_without_arguments_have_those_before_the_first_label() {
        let text = "append root=/dev/sda1\nlabel a\nkernel /a\nlabel b\nkernel /b\nappend -\n";
        let mut config = Syslinux::parse(text);
        let entries = config.entries();
        assert_eq!(entries[0].arguments.as_str(), "root=/dev/sda1");
        assert_eq!(entries[1].arguments.as_str(), "");
        let arguments = CommandLine::parse("root=UUID=1", Quoting::Kernel);
        assert!(config.set_arguments(entries[0].line, &arguments));
        assert_eq!(
            config.to_bytes(),
            text.replace("/dev/sda1", "UUID=1").into_bytes()
        );
    }

    #[test]
    fn every_entry_of_real_files_can_be_edited_and_read_again() {
        let Some(samples) = linux_samples("grubby-tests.tar.xz") else {
            return;
        };
        let mut count = 0;
        for (name, bytes) in &samples {
            if !name.starts_with("grubby/extlinux.") {
                continue;
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let mut config = Syslinux::parse(&text);
            for entry in config.entries() {
                count += 1;
                assert!(config.set_arguments(entry.line, &entry.arguments), "{name}");
                assert_eq!(config.to_bytes(), *bytes, "{name}");
                assert_eq!(entry.initrds.len(), 1, "{name}");
            }
        }
        assert!(count > 10, "{count}");
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<String>(), words in "[a-z \n\t,#=-]{0,120}") {
            assert_eq!(Syslinux::parse(&text).to_bytes(), text.as_bytes());
            let mut config = Syslinux::parse(&format!("append {words}\nlabel x\nlinux {words}"));
            for entry in config.entries().into_iter().rev() {
                assert!(config.set_arguments(entry.line, &entry.arguments));
            }
            config.default_entry(&Environment::new());
        }
    }
}
