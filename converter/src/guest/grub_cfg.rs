// SPDX-License-Identifier: MIT OR Apache-2.0
//! `grub.cfg` of GRUB 2: what boots, and with which arguments.
//!
//! ```text
//! menuentry 'title' --class x $menuentry_id_option 'id' {      submenu 'title' { menuentry .. }
//!     set root='hd0,msdos1'
//!     search --no-floppy --fs-uuid --set=root  1234-..
//!     linux   /boot/vmlinuz-6.1 root=/dev/sda1 ro quiet
//!     initrd  /boot/initrd.img-6.1
//! }
//! ```
//! The file is a script; it is read as far as grub-mkconfig, grubby and installers write it: one
//! command in a line, blocks opened by `{` at the end of a line. Conditions are not evaluated.
//! Editing keeps every byte of what is not edited.

use super::kernel_cmdline::{CommandLine, Quoting, unquote, word_ranges};
use super::table::split_lines;

/// A GRUB configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrubCfg {
    lines: Vec<Vec<u8>>,
}

/// One entry of the menu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MenuEntry {
    /// Number of its line, from 0.
    pub line: usize,
    /// What the menu shows.
    pub title: String,
    /// Its id, by which `grubenv` names it.
    pub id: Option<String>,
    /// Titles of the submenus that it is in, outermost first.
    pub submenus: Vec<String>,
    /// Its commands, in their order.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Number of its line, from 0: the handle for editing.
    pub line: usize,
    /// What it does.
    pub kind: CommandKind,
}

/// What a command does, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandKind {
    /// `linux`, `linux16`, `linuxefi`, or a `module` with `root=`: a kernel and its arguments.
    Linux {
        /// The kernel's path.
        path: String,
        /// The arguments.
        arguments: CommandLine,
    },
    /// `initrd`, `initrd16`, `initrdefi`, another `module`: the files that are loaded one after the
    /// other.
    Initrd {
        /// Their paths.
        paths: Vec<String>,
    },
    /// `set name=value`.
    Set {
        /// The variable: `root`, `prefix`, `kernelopts`, `default`.
        name: String,
        /// Its value.
        value: String,
    },
    /// `search`: finds a filesystem and puts its device into a variable.
    Search {
        /// By what.
        by: SearchBy,
        /// Its UUID, label, or a file in it.
        value: String,
        /// The variable; `root` unless named.
        variable: String,
    },
    /// `configfile`: another configuration takes over.
    ConfigFile {
        /// Its path, variables not replaced: `$prefix/grub.cfg`.
        path: String,
    },
    /// `chainloader`: another boot loader takes over.
    ChainLoader {
        /// Its path or block list.
        path: String,
    },
    /// `blscfg`: entries come from `/boot/loader/entries`.
    BlsCfg,
}

/// How `search` finds a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchBy {
    /// By its UUID.
    FsUuid,
    /// By its label.
    Label,
    /// By a file in it.
    File,
}

impl GrubCfg {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self {
            lines: split_lines(text),
        }
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }

    /// All commands that matter, inside and outside of entries, in their order.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(|(line, text)| {
            let kind = Words::of(text)?.command()?;
            Some(Command { line, kind })
        })
    }

    /// The entries of the menu, those in submenus too.
    #[must_use]
    pub fn menu_entries(&self) -> Vec<MenuEntry> {
        let mut entries: Vec<MenuEntry> = Vec::new();
        // What each open `{` belongs to.
        let mut open: Vec<Block> = Vec::new();
        for (line, text) in self.lines.iter().enumerate() {
            let Some(words) = Words::of(text) else {
                continue;
            };
            let first = words.texts.first().map_or("", String::as_str);
            if words.closes_block() {
                open.pop();
            }
            match first {
                "menuentry" => entries.push(words.menu_entry(line, &open)),
                _ if open.contains(&Block::Entry) => {
                    let command = words.command().map(|kind| Command { line, kind });
                    entries.last_mut().into_iter().for_each(|entry| {
                        entry.commands.extend(command.clone());
                    });
                }
                _ => {}
            }
            if words.opens_block() {
                open.push(match first {
                    "menuentry" => Block::Entry,
                    "submenu" => Block::Submenu(words.texts.get(1).cloned().unwrap_or_default()),
                    _ => Block::Other,
                });
            }
        }
        entries
    }

    /// Writes other arguments into a `linux` line; false where the line is none.
    pub fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool {
        let Some(text) = self.lines.get(line) else {
            return false;
        };
        let Some(words) = Words::of(text).filter(Words::is_linux) else {
            return false;
        };
        let (start, end) = words.arguments_range();
        let arguments = arguments.as_str().trim_start();
        let is_first = start == words.end_of_path() && !arguments.is_empty();
        let blank = if is_first { " " } else { "" };
        let text = format!(
            "{}{blank}{arguments}{}",
            &words.line[..start],
            &words.line[end..]
        );
        self.write(line, text)
    }

    /// Writes another value into a `set` line; false where the line is none.
    pub fn set_value(&mut self, line: usize, value: &str) -> bool {
        let Some(words) = self.lines.get(line).and_then(|text| Words::of(text)) else {
            return false;
        };
        let Some(CommandKind::Set { .. }) = words.command() else {
            return false;
        };
        let range = words.ranges[1].clone();
        let Some(equals) = words.line[range.clone()].find('=') else {
            return false;
        };
        let start = range.start + equals + 1;
        let quoted = match words.line[start..].chars().next() {
            Some('\'') if !value.contains('\'') => format!("'{value}'"),
            _ => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        let text = format!(
            "{}{quoted}{}",
            &words.line[..start],
            &words.line[range.end..]
        );
        self.write(line, text)
    }

    /// Replaces one line, its line end included. A line with bytes that are not UTF-8 has no words
    /// and does not come here.
    fn write(&mut self, line: usize, text: String) -> bool {
        self.lines[line] = text.into_bytes();
        true
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Entry,
    Submenu(String),
    Other,
}

/// One line in words.
struct Words<'a> {
    line: &'a str,
    ranges: Vec<std::ops::Range<usize>>,
    /// The words without quotes.
    texts: Vec<String>,
}

impl<'a> Words<'a> {
    /// `None` for an empty line, a comment, or a line that is not UTF-8.
    fn of(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut ranges = word_ranges(line, Quoting::Grub);
        // A word that begins with `#` begins a comment.
        if let Some(comment) = ranges
            .iter()
            .position(|range| line[range.clone()].starts_with('#'))
        {
            ranges.truncate(comment);
        }
        if ranges.is_empty() {
            return None;
        }
        let words = ranges
            .iter()
            .map(|range| unquote(&line[range.clone()], Quoting::Grub));
        let texts = words.collect();
        Some(Self {
            line,
            ranges,
            texts,
        })
    }

    fn raw(&self, index: usize) -> &str {
        self.ranges
            .get(index)
            .map_or("", |range| &self.line[range.clone()])
    }

    fn opens_block(&self) -> bool {
        self.raw(self.ranges.len() - 1) == "{"
    }

    fn closes_block(&self) -> bool {
        self.raw(0) == "}"
    }

    fn is_linux(&self) -> bool {
        match self.texts[0].as_str() {
            "linux" | "linux16" | "linuxefi" => self.texts.len() > 1,
            // Under a hypervisor Linux is the module that is told its root.
            "module" | "module2" => self.texts[1..].iter().any(|word| word.starts_with("root=")),
            _ => false,
        }
    }

    fn command(&self) -> Option<CommandKind> {
        let word = |index: usize| self.texts.get(index).cloned();
        Some(match self.texts[0].as_str() {
            _ if self.is_linux() => {
                let (start, end) = self.arguments_range();
                CommandKind::Linux {
                    path: word(1)?,
                    arguments: CommandLine::parse(&self.line[start..end], Quoting::Grub),
                }
            }
            "initrd" | "initrd16" | "initrdefi" => CommandKind::Initrd {
                paths: self.texts[1..].to_vec(),
            },
            "module" | "module2" => CommandKind::Initrd {
                paths: self.texts[1..].last().cloned().into_iter().collect(),
            },
            "set" => {
                let assignment = word(1)?;
                let (name, value) = assignment.split_once('=')?;
                CommandKind::Set {
                    name: name.to_owned(),
                    value: value.to_owned(),
                }
            }
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => self.search()?,
            "configfile" => CommandKind::ConfigFile { path: word(1)? },
            "chainloader" => CommandKind::ChainLoader {
                path: self.texts[1..]
                    .iter()
                    .find(|word| !word.starts_with('-'))?
                    .clone(),
            },
            "blscfg" => CommandKind::BlsCfg,
            _ => return None,
        })
    }

    fn search(&self) -> Option<CommandKind> {
        let mut by = match self.texts[0].as_str() {
            "search.fs_uuid" => Some(SearchBy::FsUuid),
            "search.fs_label" => Some(SearchBy::Label),
            "search.file" => Some(SearchBy::File),
            _ => None,
        };
        let is_short_form = by.is_some();
        let mut variable = "root".to_owned();
        let mut named = None;
        let mut values = Vec::new();
        let mut words = self.texts[1..].iter().peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--fs-uuid" | "-u" => by = Some(SearchBy::FsUuid),
                "--label" | "--fs-label" | "-l" => by = Some(SearchBy::Label),
                "--file" | "-f" => by = Some(SearchBy::File),
                "--set" | "-s" => named = words.next_if(|next| !next.starts_with('-')),
                option if option.starts_with("--set=") => variable = option[6..].to_owned(),
                option if option.starts_with('-') => {}
                _ => values.push(word),
            }
        }
        // `search.fs_uuid UUID VARIABLE HINT..`, else the value stands last. Old scripts leave the
        // variable out: in `--set 1234-5678` the only word is the value.
        let value = if is_short_form {
            variable = values.get(1).map_or(variable, |name| (*name).clone());
            values.first().copied()
        } else if let Some(value) = values.last() {
            variable = named.cloned().unwrap_or(variable);
            Some(*value)
        } else {
            named
        };
        Some(CommandKind::Search {
            by: by?,
            value: value?.clone(),
            variable,
        })
    }

    fn menu_entry(&self, line: usize, open: &[Block]) -> MenuEntry {
        let id_option = |word: &String| {
            matches!(
                word.as_str(),
                "--id" | "$menuentry_id_option" | "${menuentry_id_option}"
            )
        };
        let id_position = self.texts.iter().position(id_option);
        MenuEntry {
            line,
            title: self.texts.get(1).cloned().unwrap_or_default(),
            id: id_position
                .and_then(|position| self.texts.get(position + 1))
                .cloned()
                .or_else(|| {
                    let mut words = self.texts.iter();
                    words.find_map(|word| word.strip_prefix("--id=").map(str::to_owned))
                }),
            submenus: open
                .iter()
                .filter_map(|block| match block {
                    Block::Submenu(title) => Some(title.clone()),
                    Block::Entry | Block::Other => None,
                })
                .collect(),
            commands: Vec::new(),
        }
    }

    fn end_of_path(&self) -> usize {
        self.ranges[1].end
    }

    /// Where the arguments of a `linux` line are, without blanks before and after.
    fn arguments_range(&self) -> (usize, usize) {
        let path_end = self.end_of_path();
        let start = self.ranges.get(2).map_or(path_end, |range| range.start);
        let end = self.ranges.last().map_or(path_end, |range| range.end);
        (start, end.max(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::samples::linux_samples;

    const SAMPLE: &str = r#"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="0"
fi
function gfxmode {
	set gfxpayload="${1}"
}
search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 --hint='hd0,msdos1'  1a-2b
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-/dev/sda1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; fi
	set root='hd0,msdos1'
	search --no-floppy --set 1a-2b
	search --no-floppy --label BOOT --set
	echo	'Loading Linux ...'
	linux	/boot/vmlinuz-6.1 root=/dev/sda1 ro  quiet "x=a b" # note
	initrd	/boot/ucode.img /boot/initrd.img-6.1
}
submenu 'Advanced options' $menuentry_id_option 'advanced' {
	menuentry 'Debian, recovery' --id=rec {
		linux16	/vmlinuz
		initrd16 /initrd
	}
}
menuentry "UEFI" --id uefi {
	chainloader -f /EFI/x.efi
}
"#;

    #[test]
    fn entries_have_their_titles_ids_submenus_and_commands() {
        let config = GrubCfg::parse(SAMPLE.as_bytes());
        let entries = config.menu_entries();
        let names: Vec<(&str, Option<&str>, usize)> = entries
            .iter()
            .map(|entry| {
                (
                    entry.title.as_str(),
                    entry.id.as_deref(),
                    entry.commands.len(),
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("Debian GNU/Linux", Some("gnulinux-simple-/dev/sda1"), 4),
                ("Debian, recovery", Some("rec"), 2),
                ("UEFI", Some("uefi"), 1),
            ]
        );
        assert_eq!(entries[1].submenus, ["Advanced options"]);
        let CommandKind::Linux { path, arguments } = &entries[0].commands[2].kind else {
            panic!("{:?}", entries[0].commands);
        };
        assert_eq!(path, "/boot/vmlinuz-6.1");
        assert_eq!(arguments.as_str(), "root=/dev/sda1 ro  quiet \"x=a b\"");
        assert_eq!(
            entries[0].commands[3].kind,
            CommandKind::Initrd {
                paths: vec![
                    "/boot/ucode.img".to_owned(),
                    "/boot/initrd.img-6.1".to_owned()
                ]
            }
        );
    }

    #[test]
    fn a_search_names_what_it_looks_for() {
        let search = |text: &str| {
            let config = GrubCfg::parse(text.as_bytes());
            match config.commands().next()?.kind {
                CommandKind::Search {
                    by,
                    value,
                    variable,
                } => Some((by, value, variable)),
                _ => None,
            }
        };
        let found =
            |by, value: &str, variable: &str| Some((by, value.to_owned(), variable.to_owned()));
        assert_eq!(
            search("search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 1a-2b\n"),
            found(SearchBy::FsUuid, "1a-2b", "root")
        );
        assert_eq!(
            search("search.fs_uuid 1a-2b root hd0,gpt2 \n"),
            found(SearchBy::FsUuid, "1a-2b", "root")
        );
        assert_eq!(
            search("search --label --set prefix BOOT"),
            found(SearchBy::Label, "BOOT", "prefix")
        );
        assert_eq!(
            search("search -f /boot/x --set boot"),
            found(SearchBy::File, "/boot/x", "boot")
        );
        assert_eq!(
            search("search --no-floppy --fs-uuid --set 1a-2b"),
            found(SearchBy::FsUuid, "1a-2b", "root")
        );
        assert_eq!(search("search --set=root 1a"), None);
    }

    #[test]
    fn edited_arguments_change_nothing_else() {
        let mut config = GrubCfg::parse(SAMPLE.as_bytes());
        for command in config.commands().collect::<Vec<_>>() {
            if let CommandKind::Linux { mut arguments, .. } = command.kind {
                arguments.replace("root", |_| Some("UUID=1".to_owned()));
                arguments.add("console=ttyS0");
                assert!(config.set_arguments(command.line, &arguments));
            }
        }
        let expected = SAMPLE
            .replace(
                "root=/dev/sda1 ro  quiet \"x=a b\"",
                "root=UUID=1 ro  quiet \"x=a b\" console=ttyS0",
            )
            .replace("linux16\t/vmlinuz", "linux16\t/vmlinuz console=ttyS0");
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
        assert!(!config.set_arguments(0, &CommandLine::parse("", Quoting::Grub)));
    }

    #[test]
    fn a_stub_names_the_configuration_that_takes_over() {
        let stub = "search.fs_uuid 1a-2b root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
        let mut config = GrubCfg::parse(stub.as_bytes());
        let commands: Vec<CommandKind> = config.commands().map(|command| command.kind).collect();
        assert_eq!(
            commands[1..],
            [
                CommandKind::Set {
                    name: "prefix".to_owned(),
                    value: "($root)/boot/grub".to_owned()
                },
                CommandKind::ConfigFile {
                    path: "$prefix/grub.cfg".to_owned()
                },
            ]
        );
        assert!(config.set_value(1, "($root)/grub"));
        assert!(!config.set_value(2, "x"));
        assert_eq!(
            config.to_bytes(),
            stub.replace("($root)'/boot/grub'", "\"($root)/grub\"")
                .into_bytes()
        );
    }

    #[test]
    fn every_linux_line_of_real_files_can_be_edited_and_read_again() {
        let Some(samples) = linux_samples("grubby-tests.tar.xz") else {
            return;
        };
        let mut linux_lines = 0;
        for (name, text) in samples
            .iter()
            .filter(|(name, _)| name.starts_with("grubby/grub2."))
        {
            let mut config = GrubCfg::parse(text);
            assert_eq!(config.to_bytes(), *text, "{name}");
            assert!(!config.menu_entries().is_empty(), "{name}");
            for command in config.commands().collect::<Vec<_>>() {
                let CommandKind::Linux { mut arguments, .. } = command.kind else {
                    continue;
                };
                linux_lines += 1;
                assert!(config.set_arguments(command.line, &arguments));
                assert_eq!(config.to_bytes(), *text, "{name}");
                arguments.set("root", "UUID=1");
                assert!(config.clone().set_arguments(command.line, &arguments));
            }
        }
        assert!(linux_lines > 30, "{linux_lines}");
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<Vec<u8>>(), words in "[a-z {}'\"\\\\\n#=-]{0,200}") {
            assert_eq!(GrubCfg::parse(&text).to_bytes(), text);
            let config = GrubCfg::parse(format!("menuentry {words}").as_bytes());
            let _entries = config.menu_entries();
            let config = GrubCfg::parse(format!("search {words}").as_bytes());
            config.commands().count();
        }
    }
}
