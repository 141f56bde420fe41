// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/lilo.conf`.
//!
//! ```text
//! boot=/dev/sda          where `lilo` writes its first sector
//! root=/dev/sda1         for images without their own
//! append="panic=60"
//! default=linux
//! image=/boot/vmlinuz
//!     label=linux
//!     root="UUID=1234-.."
//!     initrd=/boot/initrd.img
//!     append=" single "
//!     read-only
//! other=/dev/sda2
//! ```
//! `lilo` makes a map of this: the sectors of every kernel and initramfs, and each command line. LILO
//! boots by the map alone and never reads this file. Editing keeps every byte of what is not edited.
//! Facts: lilo.conf(5).

use super::boot_configuration::{BootConfiguration, BootEntry, Environment, split_line_end};
use super::kernel_cmdline::{CommandLine, Quoting};

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lilo {
    lines: Vec<String>,
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiloOption {
    /// Number of its line, from 0: the handle for editing.
    pub line: usize,
    /// Its name: `root`, `append`, `initrd`.
    pub name: String,
    /// Its value, without quotes.
    pub value: Option<String>,
    /// Which section it is in, from 1; 0 before the first.
    pub section: usize,
}

impl Lilo {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            lines: text.split_inclusive('\n').map(str::to_owned).collect(),
        }
    }

    /// All options, in their order.
    #[must_use]
    pub fn options(&self) -> Vec<LiloOption> {
        let mut section = 0;
        let lines = self.lines.iter().enumerate();
        lines
            .filter_map(|(line, text)| {
                let (name, value) = name_and_value(text)?;
                if matches!(name, "image" | "other") {
                    section += 1;
                }
                Some(LiloOption {
                    line,
                    name: name.to_owned(),
                    value,
                    section,
                })
            })
            .collect()
    }

    /// Writes another value; false where the line has none.
    pub fn set_value(&mut self, line: usize, value: &str) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        if name_and_value(text).is_none() {
            return false;
        }
        let (text, end) = split_line_end(text);
        let Some(equals) = text.find('=') else {
            return false;
        };
        let old = text[equals + 1..].trim_start();
        let start = text.len() - old.len();
        let old_end = start + value_length(old);
        let quoted = if value.contains([' ', '\t', '=', '#']) || old.starts_with('"') {
            format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            value.to_owned()
        };
        self.lines[line] = format!("{}{quoted}{}{end}", &text[..start], &text[old_end..]);
        true
    }

    /// Adds an option behind a line, with the blanks that it begins with.
    pub fn insert(&mut self, line: usize, name: &str, value: &str) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let (text, end) = split_line_end(text);
        let end = if end.is_empty() { "\n" } else { end };
        let indent = match text.trim_start().starts_with("image") {
            true => "\t",
            false => &text[..text.len() - text.trim_start().len()],
        };
        let added = format!("{indent}{name}=\"{value}\"{end}");
        self.lines[line] = format!("{text}{end}");
        self.lines.insert(line + 1, added);
        true
    }

    /// The options of one section, and those before the first where it has none of its own.
    fn value(options: &[LiloOption], section: usize, name: &str) -> Option<String> {
        let in_section = |wanted: usize| {
            let mut found = options.iter().rev();
            found.find(|option| option.section == wanted && option.name == name)
        };
        in_section(section)
            .or_else(|| in_section(0))
            .and_then(|option| option.value.clone())
    }

    /// Section and entry of each image.
    fn images(&self) -> Vec<(Vec<String>, BootEntry)> {
        let options = self.options();
        let images = options.iter().filter(|option| option.name == "image");
        images
            .filter_map(|image| {
                let value = |name: &str| Self::value(&options, image.section, name);
                let has = |name: &str| {
                    let mut found = options.iter();
                    found.any(|option| {
                        option.name == name && [0, image.section].contains(&option.section)
                    })
                };
                let mut arguments = CommandLine::parse(
                    value("append").unwrap_or_default().trim().to_owned(),
                    Quoting::Kernel,
                );
                if let Some(more) = value("addappend") {
                    arguments = CommandLine::parse(
                        format!("{} {}", arguments.as_str(), more.trim()),
                        Quoting::Kernel,
                    );
                }
                if let Some(root) = value("root") {
                    arguments = with_root(&arguments, &root);
                }
                let mode = ["read-only", "read-write"]
                    .into_iter()
                    .find(|name| has(name));
                if let Some(mode) = mode {
                    arguments.add(if mode == "read-only" { "ro" } else { "rw" });
                }
                let names = [value("label"), value("alias")];
                let label = value("label").unwrap_or_default();
                let entry = BootEntry {
                    line: image.line,
                    title: label,
                    kernel: image.value.clone()?,
                    initrds: value("initrd").into_iter().collect(),
                    arguments,
                };
                Some((names.into_iter().flatten().collect(), entry))
            })
            .collect()
    }
}

/// `root=` of LILO comes before the arguments, and what these say counts more.
fn with_root(arguments: &CommandLine, root: &str) -> CommandLine {
    if arguments.contains("root") {
        return arguments.clone();
    }
    let text = format!("root={root} {}", arguments.as_str());
    CommandLine::parse(text.trim_end().to_owned(), Quoting::Kernel)
}

/// `None` for an empty line and a comment.
fn name_and_value(line: &str) -> Option<(&str, Option<String>)> {
    let (line, _) = split_line_end(line);
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let Some((name, value)) = line.split_once('=') else {
        let name = line.split(['#', ' ', '\t']).next()?;
        return Some((name, None));
    };
    let value = value.trim_start();
    let text = &value[..value_length(value)];
    let plain = match text.strip_prefix('"') {
        Some(inner) => {
            let inner = inner.strip_suffix('"').unwrap_or(inner);
            inner.replace("\\\"", "\"").replace("\\\\", "\\")
        }
        None => text.to_owned(),
    };
    Some((name.trim_end(), Some(plain)))
}

/// How long a value is, quotes included.
fn value_length(text: &str) -> usize {
    if !text.starts_with('"') {
        return text.find([' ', '\t', '#']).unwrap_or(text.len());
    }
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !is_escaped => return position + 1,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}

impl BootConfiguration for Lilo {
    fn entries(&self) -> Vec<BootEntry> {
        let images = self.images().into_iter();
        images.map(|(_, entry)| entry).collect()
    }

    /// Without `default`, the first section is started.
    fn default_entry(&self, _environment: &Environment) -> Option<usize> {
        let options = self.options();
        let wanted = Self::value(&options, 0, "default");
        let images = self.images();
        match wanted {
            Some(label) => images.iter().position(|(names, _)| names.contains(&label)),
            None => {
                let first = options.iter().find(|option| option.section == 1)?;
                (first.name == "image").then_some(0)
            }
        }
    }

    /// Arguments are made of several options here: nothing is written.
    fn set_arguments(&mut self, _line: usize, _arguments: &CommandLine) -> bool {
        false
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
lba32
boot = /dev/hda   # the disk
root=/dev/hda1
append=\"panic=60\"
default = Old
image=/boot/vmlinuz-2.4.27
\tlabel=Linux
\tinitrd=/boot/initrd.img-2.4.27
\tread-only
image=/boot/vmlinuz-2.4.18
\tlabel=Old
\troot=/dev/hda3
\tappend = \" single a=\\\"x y\\\" \"
other=/dev/hda2
\tlabel=DOS
";

    #[test]
    fn an_image_has_its_own_options_before_those_of_all() {
        let config = Lilo::parse(SAMPLE);
        let entries = config.entries();
        let lines: Vec<&str> = entries.iter().map(|e| e.arguments.as_str()).collect();
        assert_eq!(
            lines,
            [
                "root=/dev/hda1 panic=60 ro",
                "root=/dev/hda3 single a=\"x y\""
            ]
        );
        assert_eq!(entries[0].initrds, ["/boot/initrd.img-2.4.27"]);
        assert_eq!(config.default_entry(&Environment::new()), Some(1));
        let first = SAMPLE.replace("default = Old\n", "");
        assert_eq!(
            Lilo::parse(&first).default_entry(&Environment::new()),
            Some(0)
        );
    }

    #[test]
    fn edited_values_change_nothing_else() {
        let mut config = Lilo::parse(SAMPLE);
        for option in config.options().into_iter().rev() {
            match option.name.as_str() {
                "root" => assert!(config.set_value(option.line, "UUID=1")),
                "append" => assert!(config.set_value(option.line, "b")),
                "boot" => assert!(config.set_value(option.line, "/dev/sda")),
                "label" if option.value.as_deref() == Some("Linux") => {
                    assert!(config.insert(option.line, "append", "c"));
                }
                _ => {}
            }
        }
        let expected = SAMPLE
            .replace("/dev/hda   #", "/dev/sda   #")
            .replace("root=/dev/hda1", "root=\"UUID=1\"")
            .replace("root=/dev/hda3", "root=\"UUID=1\"")
            .replace("\" single a=\\\"x y\\\" \"", "\"b\"")
            .replace("\"panic=60\"", "\"b\"")
            .replace("label=Linux\n", "label=Linux\n\tappend=\"c\"\n");
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
        assert!(!config.set_value(0, "x"));
    }

    #[test]
    fn real_files_come_back_as_they_were() {
        let Some(samples) = linux_samples("grubby-tests.tar.xz") else {
            return;
        };
        let mut count = 0;
        for (name, bytes) in &samples {
            if !name.starts_with("grubby/lilo.") {
                continue;
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let mut config = Lilo::parse(&text);
            for entry in config.entries() {
                count += 1;
                assert!(entry.arguments.contains("root"), "{name}");
                assert_eq!(entry.initrds.len(), 1, "{name}");
            }
            for option in config.options() {
                if let Some(value) = option.value {
                    assert!(config.set_value(option.line, &value), "{name}");
                }
            }
            assert_eq!(config.to_bytes(), *bytes, "{name}");
        }
        assert!(count > 12, "{count}");
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<String>(), words in "[a-z \n\t=\"\\\\#]{0,80}") {
            assert_eq!(Lilo::parse(&text).to_bytes(), text.as_bytes());
            let mut config = Lilo::parse(&format!("image=/v\nappend={words}"));
            config.entries();
            for option in config.options().into_iter().rev() {
                config.set_value(option.line, "x y");
            }
        }
    }
}
