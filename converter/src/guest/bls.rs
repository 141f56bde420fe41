// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of the Boot Loader Specification: one file for each kernel, `loader/entries/*.conf`.
//!
//! ```text
//! title    Fedora Linux (6.8.5-301.fc40.x86_64) 40
//! version  6.8.5-301.fc40.x86_64
//! linux    /vmlinuz-6.8.5-301.fc40.x86_64          below the root of its partition
//! initrd   /initramfs-6.8.5-301.fc40.x86_64.img $tuned_initrd
//! options  root=UUID=.. ro rhgb quiet              several are joined
//! ```
//! Read by systemd-boot and by the GRUB of Fedora, where `$kernelopts` in the options comes from its
//! environment block. The two order the entries differently. Facts: UAPI.1 Boot Loader
//! Specification; GRUB's blscfg. Editing keeps every byte of what is not edited.

use std::cmp::Ordering;

use super::boot_configuration::{BootConfiguration, BootEntry, Environment, split_line_end};
use super::kernel_cmdline::{CommandLine, Quoting};
use super::version_order::{rpm_order, uapi_order};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlsEntry {
    lines: Vec<String>,
}

impl BlsEntry {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            lines: text.split_inclusive('\n').map(str::to_owned).collect(),
        }
    }

    /// The value of a key; of several lines the first.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values(key).next().map(|(_, value)| value)
    }

    /// Number and value of each line with a key.
    fn values<'a>(&'a self, key: &str) -> impl Iterator<Item = (usize, &'a str)> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(move |(number, line)| {
            let (name, value) = key_and_value(line)?;
            (name == key).then_some((number, value))
        })
    }
}

/// `None` for an empty line and a comment.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((name, value.trim_start()))
}

impl BootConfiguration for BlsEntry {
    fn entries(&self) -> Vec<BootEntry> {
        let Some((linux, kernel)) = self.values("linux").next() else {
            return Vec::new();
        };
        let options: Vec<(usize, &str)> = self.values("options").collect();
        let texts: Vec<&str> = options.iter().map(|(_, text)| *text).collect();
        let initrds = self
            .values("initrd")
            .flat_map(|(_, value)| value.split_whitespace());
        vec![BootEntry {
            line: options.first().map_or(linux, |(line, _)| *line),
            title: self.get("title").unwrap_or_default().to_owned(),
            kernel: kernel.to_owned(),
            initrds: initrds
                .filter(|path| !path.starts_with('$'))
                .map(str::to_owned)
                .collect(),
            arguments: CommandLine::parse(texts.join(" "), Quoting::Kernel),
        }]
    }

    fn default_entry(&self, _environment: &Environment) -> Option<usize> {
        None
    }

    /// Of several lines of options the first gets all of them, and the others go.
    fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool {
        let options: Vec<usize> = self.values("options").map(|(line, _)| line).collect();
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let (text, end) = split_line_end(text);
        match options.split_first() {
            Some((first, others)) if *first == line => {
                let key = text.find("options").map_or(0, |start| start + 7);
                let blanks = text[key..].len() - text[key..].trim_start().len();
                let blank = if blanks == 0 { " " } else { "" };
                let before = &text[..key + blanks];
                self.lines[line] = format!("{before}{blank}{}{end}", arguments.as_str().trim());
                for other in others.iter().rev() {
                    self.lines.remove(*other);
                }
                true
            }
            Some(_) => false,
            None => {
                let end = if end.is_empty() { "\n" } else { end };
                let options = format!("options {}{end}", arguments.as_str().trim());
                self.lines[line] = format!("{text}{end}");
                self.lines.insert(line + 1, options);
                true
            }
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat().into_bytes()
    }
}

/// How GRUB orders entries by their file names, without `.conf`: name, version and release of a
/// package, compared as RPM does. The greatest comes first in its menu.
#[must_use]
pub fn grub_order(left: &str, right: &str) -> Ordering {
    let (left, right) = (package(left), package(right));
    let parts = [(left.0, right.0), (left.1, right.1), (left.2, right.2)];
    let orders = parts
        .into_iter()
        .map(|(left, right)| rpm_order(left, right));
    orders.fold(Ordering::Equal, Ordering::then)
}

/// Name, version and release: what is before the last two dashes.
fn package(id: &str) -> (&str, &str, &str) {
    let (rest, release) = id.rsplit_once('-').unwrap_or((id, ""));
    match rest.rsplit_once('-') {
        Some((name, version)) => (name, version, release),
        None => ("", rest, release),
    }
}

/// What systemd-boot orders an entry by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MenuKey {
    /// The file's name, without `.conf` or `.efi`.
    pub id: String,
    /// `sort-key`.
    pub sort_key: Option<String>,
    /// `machine-id`.
    pub machine_id: Option<String>,
    /// `version`.
    pub version: Option<String>,
}

impl MenuKey {
    /// The key of an entry in a file of this name.
    #[must_use]
    pub fn of(file_name: &str, entry: &BlsEntry) -> Self {
        let value = |key: &str| entry.get(key).map(str::to_owned);
        Self {
            id: without_suffix(file_name).to_owned(),
            sort_key: value("sort-key"),
            machine_id: value("machine-id"),
            version: value("version"),
        }
    }

    /// Which comes first in the menu, and is started where nothing else is said.
    #[must_use]
    pub fn menu_order(&self, other: &Self) -> Ordering {
        let texts = |left: &Option<String>, right: &Option<String>| left.cmp(right);
        self.has_failed()
            .cmp(&other.has_failed())
            .then_with(|| self.sort_key.is_none().cmp(&other.sort_key.is_none()))
            .then_with(|| match (&self.sort_key, &other.sort_key) {
                (Some(left), Some(right)) => left
                    .cmp(right)
                    .then_with(|| texts(&self.machine_id, &other.machine_id))
                    .then_with(|| {
                        let version = |key: &Self| key.version.clone().unwrap_or_default();
                        uapi_order(&version(other), &version(self))
                    }),
                _ => Ordering::Equal,
            })
            .then_with(|| uapi_order(&other.id, &self.id))
    }

    /// Whether boot counting has no try left for it: `name+0-3`.
    fn has_failed(&self) -> bool {
        let counter = self.id.rsplit_once('+').map(|(_, counter)| counter);
        counter.is_some_and(|text| text == "0" || text.starts_with("0-"))
    }
}

/// A file's name without `.conf` or `.efi`.
#[must_use]
pub fn without_suffix(file_name: &str) -> &str {
    let end = file_name.rfind('.').filter(|dot| {
        let suffix = &file_name[*dot..];
        suffix.eq_ignore_ascii_case(".conf") || suffix.eq_ignore_ascii_case(".efi")
    });
    end.map_or(file_name, |end| &file_name[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    const FEDORA: &str = "\
title Fedora (5.0.9-301.fc30.x86_64) 30 (Server Edition)
version 5.0.9-301.fc30.x86_64
linux /vmlinuz-5.0.9-301.fc30.x86_64
initrd /initramfs-5.0.9-301.fc30.x86_64.img $tuned_initrd
options $kernelopts $tuned_params
id fedora-20190427-5.0.9-301.fc30.x86_64
grub_users $grub_users
";

    fn edited(text: &str, arguments: &str) -> String {
        let mut entry = BlsEntry::parse(text);
        let line = entry.entries()[0].line;
        let arguments = CommandLine::parse(arguments, Quoting::Kernel);
        assert!(entry.set_arguments(line, &arguments));
        String::from_utf8(entry.to_bytes()).unwrap()
    }

    #[test]
    fn an_entry_has_one_kernel_its_files_and_its_options() {
        let entry = BlsEntry::parse(FEDORA).entries().remove(0);
        assert_eq!(entry.kernel, "/vmlinuz-5.0.9-301.fc30.x86_64");
        assert_eq!(entry.initrds, ["/initramfs-5.0.9-301.fc30.x86_64.img"]);
        assert_eq!(entry.arguments.as_str(), "$kernelopts $tuned_params");
        assert_eq!(BlsEntry::parse("title x\nefi /shell.efi\n").entries(), []);
    }

    #[test]
    fn edited_options_change_nothing_else() {
        assert_eq!(
            edited(FEDORA, "$kernelopts a=1"),
            FEDORA.replace("$kernelopts $tuned_params", "$kernelopts a=1")
        );
        let arch = "# by hand\r\ntitle  Arch\r\nlinux /vmlinuz-linux\r\ninitrd /ucode.img\r\n\
                    initrd /initramfs.img\r\noptions  root=/dev/sda2\r\noptions\trw\r\n";
        assert_eq!(
            BlsEntry::parse(arch).entries()[0].initrds,
            ["/ucode.img", "/initramfs.img"]
        );
        assert_eq!(
            edited(arch, "root=UUID=1 rw"),
            arch.replace("root=/dev/sda2\r\noptions\trw", "root=UUID=1 rw")
        );
        assert_eq!(
            edited("linux /v", "a"),
            "linux /v\noptions a\n",
            "an entry without options gets a line"
        );
        assert_eq!(edited("linux /v\noptions\n", "a"), "linux /v\noptions a\n");
    }

    #[test]
    fn grub_puts_the_newest_kernel_first_and_the_rescue_kernel_last() {
        let id = "1b2c3d4e5f60718293a4b5c6d7e8f901";
        let mut ids = [
            format!("{id}-0-rescue"),
            format!("{id}-4.18.0-80.el8.x86_64"),
            format!("{id}-4.18.0-147.3.1.el8_1.x86_64"),
        ];
        ids.sort_by(|left, right| grub_order(right, left));
        assert!(
            ids[0].contains("147") && ids[2].contains("rescue"),
            "{ids:?}"
        );
    }

    #[test]
    fn systemd_boot_orders_by_sort_key_and_then_by_version() {
        let key = |id: &str, sort_key: Option<&str>, version: &str| MenuKey {
            id: id.to_owned(),
            sort_key: sort_key.map(str::to_owned),
            machine_id: None,
            version: Some(version.to_owned()),
        };
        let mut keys = [
            key("zz", None, "9"),
            key("aa", None, "9"),
            key("debian-6.1+0-3", Some("debian"), "6.9"),
            key("debian-6.1.9", Some("debian"), "6.1.9"),
            key("debian-6.1.28", Some("debian"), "6.1.28"),
            key("arch", Some("arch"), "1"),
        ];
        keys.sort_by(MenuKey::menu_order);
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "arch",
                "debian-6.1.28",
                "debian-6.1.9",
                "zz",
                "aa",
                "debian-6.1+0-3"
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<String>(), words in "[a-z \n#\t]{0,80}") {
            assert_eq!(BlsEntry::parse(&text).to_bytes(), text.as_bytes());
            let text = format!("linux /v\noptions {words}");
            let mut entry = BlsEntry::parse(&text);
            let found = entry.entries().remove(0);
            assert!(entry.set_arguments(found.line, &found.arguments));
            let again = entry.entries().remove(0);
            assert_eq!(again.arguments.arguments().len(), found.arguments.arguments().len());
        }
    }
}
