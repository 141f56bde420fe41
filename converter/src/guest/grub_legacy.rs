// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB 0.9x: `menu.lst` or `grub.conf`.
//!
//! ```text
//! default=0                      number of a title from 0, or `saved`
//! #boot=/dev/sda                 only grub-install reads this
//! # kopt=root=/dev/hda1 ro       Debian's update-grub makes entries of this comment
//! title CentOS (2.6.32-754.el6.x86_64)
//!     root (hd0,0)
//!     kernel /vmlinuz-2.6.32-754.el6.x86_64 ro root=/dev/sda2 rhgb quiet
//!     initrd /initramfs-2.6.32-754.el6.x86_64.img
//! title Xen
//!     kernel /xen.gz             the hypervisor; Linux is its first module
//!     module /vmlinuz ro root=/dev/sda2
//!     module /initrd.img
//! ```
//! A keyword ends at a blank or `=`. Editing keeps every byte of what is not edited. Facts: the manual
//! of GRUB 0.97; Debian's update-grub of that time.

use super::boot_configuration::{
    BootConfiguration, BootEntry, Environment, split_line_end, without_device,
};
use super::kernel_cmdline::{CommandLine, Quoting};

/// The comments that Debian's update-grub takes arguments of the kernel from.
const AUTOMAGIC: [&str; 3] = ["kopt", "defoptions", "xenkopt"];

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubLegacy {
    lines: Vec<String>,
}

/// A comment that entries are made from later: `# kopt=root=/dev/hda1 ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Automagic {
    /// Number of its line, from 0: the handle for editing.
    pub line: usize,
    /// Its name: `kopt`, `kopt_2_6`, `defoptions`.
    pub name: String,
    /// The arguments.
    pub arguments: CommandLine,
}

impl GrubLegacy {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            lines: text.split_inclusive('\n').map(str::to_owned).collect(),
        }
    }

    /// The comments that hold arguments for entries made later.
    #[must_use]
    pub fn automagic(&self) -> Vec<Automagic> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter_map(|(line, text)| {
                let (start, name) = automagic_value(text)?;
                let (text, _) = split_line_end(text);
                Some(Automagic {
                    line,
                    name: name.to_owned(),
                    arguments: CommandLine::parse(text.get(start..)?, Quoting::Kernel),
                })
            })
            .collect()
    }

    /// Writes other arguments into such a comment; false where the line is none.
    pub fn set_automagic(&mut self, line: usize, arguments: &CommandLine) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let Some((start, _)) = automagic_value(text) else {
            return false;
        };
        let (text, end) = split_line_end(text);
        self.lines[line] = format!("{}{}{end}", &text[..start], arguments.as_str());
        true
    }

    /// The titles with their lines.
    fn titles(&self) -> Vec<Title> {
        let mut titles: Vec<Title> = Vec::new();
        for (line, text) in self.lines.iter().enumerate() {
            let Some(command) = Command::of(text) else {
                continue;
            };
            match (command.name, titles.last_mut()) {
                ("title", _) => titles.push(Title {
                    name: command.rest.trim().to_owned(),
                    ..Title::default()
                }),
                (_, Some(title)) => title.take(line, &command),
                (_, None) => {}
            }
        }
        titles
    }
}

/// Where the value of such a comment starts, and its name.
fn automagic_value(line: &str) -> Option<(usize, &str)> {
    let comment = line.strip_prefix("# ")?;
    let (name, _) = comment.split_once('=')?;
    let base = name.split('_').next().unwrap_or(name);
    AUTOMAGIC.contains(&base).then_some((name.len() + 3, name))
}

/// One title while it is read.
#[derive(Debug, Default)]
struct Title {
    name: String,
    /// Line, path and where the arguments begin.
    kernel: Option<(usize, String, String)>,
    initrds: Vec<String>,
}

impl Title {
    fn take(&mut self, line: usize, command: &Command<'_>) {
        let kernel = || {
            let (path, arguments) = command.path_and_arguments()?;
            Some((line, without_device(path).to_owned(), arguments.to_owned()))
        };
        match command.name {
            "kernel" => self.kernel = kernel(),
            // The first module of a hypervisor is Linux.
            "module" | "modulenounzip" => match &self.kernel {
                Some((_, path, _)) if is_xen(path) => self.kernel = kernel(),
                _ => self.initrds.extend(kernel().map(|(_, path, _)| path)),
            },
            "initrd" => self.initrds.extend(
                command
                    .rest
                    .split_whitespace()
                    .map(|path| without_device(path).to_owned()),
            ),
            _ => {}
        }
    }

    fn entry(&self) -> Option<BootEntry> {
        let (line, kernel, arguments) = self.kernel.clone()?;
        (!is_xen(&kernel)).then(|| BootEntry {
            line,
            title: self.name.clone(),
            kernel,
            initrds: self.initrds.clone(),
            arguments: CommandLine::parse(arguments, Quoting::Kernel),
        })
    }
}

fn is_xen(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with("xen") && !name.contains("linu")
}

/// One line in words.
struct Command<'a> {
    name: &'a str,
    rest: &'a str,
}

impl<'a> Command<'a> {
    /// `None` for an empty line and a comment.
    fn of(line: &'a str) -> Option<Self> {
        let (line, _) = split_line_end(line);
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let end = line.find([' ', '\t', '=']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        Some(Self {
            name,
            rest: rest.trim_start_matches([' ', '\t', '=']),
        })
    }

    /// The path behind options like `--no-mem-option`, and what follows it.
    fn path_and_arguments(&self) -> Option<(&'a str, &'a str)> {
        let mut rest = self.rest;
        while rest.starts_with("--") {
            let end = rest.find([' ', '\t'])?;
            rest = rest[end..].trim_start();
        }
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        let (path, arguments) = rest.split_at(end);
        (!path.is_empty()).then_some((path, arguments.trim()))
    }
}

impl BootConfiguration for GrubLegacy {
    fn entries(&self) -> Vec<BootEntry> {
        self.titles().iter().filter_map(Title::entry).collect()
    }

    fn default_entry(&self, environment: &Environment) -> Option<usize> {
        let commands = self.lines.iter().filter_map(|line| Command::of(line));
        let mut defaults = commands.filter(|command| command.name == "default");
        let value = defaults.next()?.rest.trim().to_owned();
        let value = match value.as_str() {
            "saved" => environment.get("saved_entry")?.trim().to_owned(),
            _ => value,
        };
        let wanted: usize = value.parse().ok()?;
        let titles = self.titles();
        titles.get(wanted)?.entry()?;
        let before = titles.iter().take(wanted);
        Some(before.filter_map(Title::entry).count())
    }

    fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let Some(command) = Command::of(text) else {
            return false;
        };
        if !matches!(command.name, "kernel" | "module" | "modulenounzip") {
            return false;
        }
        let Some((path, old)) = command.path_and_arguments() else {
            return false;
        };
        let (whole, end) = split_line_end(text);
        let arguments = arguments.as_str().trim();
        let text = if old.is_empty() && arguments.is_empty() {
            return true;
        } else if old.is_empty() {
            format!("{} {arguments}{end}", whole.trim_end())
        } else {
            // The arguments are the end of the line, but for blanks.
            let blanks = &whole[whole.trim_end().len()..];
            let start = whole.trim_end().len() - old.len();
            format!("{}{arguments}{blanks}{end}", &whole[..start])
        };
        debug_assert!(text.contains(path), "the kernel stays");
        self.lines[line] = text;
        true
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
# menu.lst
default\t\t1
fallback 0
hiddenmenu
# kopt=root=/dev/hda1 ro
## altoptions=(single-user) single
# kopt_2_6=root=/dev/hda1 ro
# defoptions=quiet
# groot=(hd0,0)
title\tWindows
\trootnoverify (hd0,1)
\tchainloader +1
title  Xen 3.0
\troot (hd0,0)
\tkernel /boot/xen.gz com1=9600
\tmodule (hd0,0)/boot/vmlinuz-2.6.18-xen root=/dev/hda1  ro \t
\tmodule /boot/initrd-xen.img
title Linux
kernel=--no-mem-option /boot/vmlinuz root=/dev/hda1
\tinitrd (hd0,0)/boot/initrd.img
";

    #[test]
    fn entries_are_the_titles_with_a_kernel() {
        let config = GrubLegacy::parse(SAMPLE);
        let entries = config.entries();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.title.as_str(),
                    entry.kernel.as_str(),
                    entry.arguments.as_str(),
                    entry.initrds.join(" "),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (
                    "Xen 3.0",
                    "/boot/vmlinuz-2.6.18-xen",
                    "root=/dev/hda1  ro",
                    "/boot/initrd-xen.img".to_owned()
                ),
                (
                    "Linux",
                    "/boot/vmlinuz",
                    "root=/dev/hda1",
                    "/boot/initrd.img".to_owned()
                ),
            ]
        );
        assert_eq!(config.default_entry(&Environment::new()), Some(0));
    }

    #[test]
    fn the_default_may_be_kept_elsewhere_and_may_be_no_linux() {
        let text = SAMPLE.replace("default\t\t1", "default saved");
        let saved = |number: &str| Environment::from([("saved_entry".into(), number.into())]);
        let config = GrubLegacy::parse(&text);
        assert_eq!(config.default_entry(&saved("2\n")), Some(1));
        assert_eq!(config.default_entry(&saved("0")), None);
        assert_eq!(config.default_entry(&saved("9")), None);
        assert_eq!(config.default_entry(&Environment::new()), None);
    }

    #[test]
    fn edited_arguments_change_nothing_else() {
        let mut config = GrubLegacy::parse(SAMPLE);
        for entry in config.entries() {
            let mut arguments = entry.arguments;
            arguments.replace("root", |_| Some("UUID=1".to_owned()));
            arguments.add("console=ttyS0");
            assert!(config.set_arguments(entry.line, &arguments));
        }
        for comment in config.automagic() {
            let mut arguments = comment.arguments;
            arguments.replace("root", |_| Some("UUID=2".to_owned()));
            assert!(config.set_automagic(comment.line, &arguments));
        }
        let expected = SAMPLE
            .replace("kopt=root=/dev/hda1", "kopt=root=UUID=2")
            .replace("kopt_2_6=root=/dev/hda1", "kopt_2_6=root=UUID=2")
            .replace("root=/dev/hda1  ro \t", "root=UUID=1  ro console=ttyS0 \t")
            .replace(
                "vmlinuz root=/dev/hda1",
                "vmlinuz root=UUID=1 console=ttyS0",
            );
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
        assert!(!config.set_arguments(0, &CommandLine::parse("", Quoting::Kernel)));
        assert!(!config.set_automagic(1, &CommandLine::parse("", Quoting::Kernel)));
    }

    #[test]
    fn what_update_grub_makes_entries_from_is_told_from_its_explanation() {
        let names = |config: &GrubLegacy| -> Vec<String> {
            let found = config.automagic().into_iter();
            found.map(|comment| comment.name).collect()
        };
        let config = GrubLegacy::parse(SAMPLE);
        assert_eq!(names(&config), ["kopt", "kopt_2_6", "defoptions"]);
    }

    #[test]
    fn every_entry_of_real_files_can_be_edited_and_read_again() {
        let Some(samples) = linux_samples("grubby-tests.tar.xz") else {
            return;
        };
        let mut count = 0;
        for (name, bytes) in &samples {
            if !name.starts_with("grubby/grub.") || name.contains("support_files") {
                continue;
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let mut config = GrubLegacy::parse(&text);
            assert_eq!(config.to_bytes(), *bytes, "{name}");
            for entry in config.entries() {
                count += 1;
                assert!(config.set_arguments(entry.line, &entry.arguments), "{name}");
                assert_eq!(config.to_bytes(), *bytes, "{name}");
                assert!(entry.kernel.starts_with('/'), "{name}: {}", entry.kernel);
            }
        }
        assert!(count > 25, "{count}");
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<String>(), words in "[a-z =\n\t#()-]{0,120}") {
            assert_eq!(GrubLegacy::parse(&text).to_bytes(), text.as_bytes());
            let text = format!("title x\nkernel {words}\nmodule {words}\n# kopt={words}");
            let mut config = GrubLegacy::parse(&text);
            for entry in config.entries() {
                assert!(config.set_arguments(entry.line, &entry.arguments));
            }
            for comment in config.automagic() {
                assert!(config.set_automagic(comment.line, &comment.arguments));
            }
            config.default_entry(&Environment::new());
        }
    }
}
