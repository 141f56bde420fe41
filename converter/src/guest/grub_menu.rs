// SPDX-License-Identifier: MIT OR Apache-2.0
//! The menu of GRUB 2: which entry is started by itself.
//!
//! `default` is a number from 0 (a submenu counts as one), a title or an id, with `>` between a
//! submenu and what is in it. `next_entry` of the environment block counts once and before all else;
//! `saved_entry` where the configuration says `default="${saved_entry}"`.

use super::boot_configuration::{BootConfiguration, BootEntry, Environment, without_device};
use super::grub_cfg::{Command, CommandKind, GrubCfg, MenuEntry};
use super::kernel_cmdline::CommandLine;

/// An entry of the menu, wherever it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MenuItem {
    /// Its id.
    pub id: Option<String>,
    /// Its title.
    pub title: String,
    /// Titles of the submenus that it is in, outermost first.
    pub submenus: Vec<String>,
    /// The kernel that it starts.
    pub kernel: Option<String>,
}

/// The menu that a configuration holds itself.
#[must_use]
pub fn menu(config: &GrubCfg) -> Vec<MenuItem> {
    let entries = config.menu_entries().into_iter();
    entries
        .map(|entry| MenuItem {
            kernel: entry.commands.iter().find_map(kernel_of),
            id: entry.id,
            title: entry.title,
            submenus: entry.submenus,
        })
        .collect()
}

fn kernel_of(command: &Command) -> Option<String> {
    match &command.kind {
        CommandKind::Linux { path, .. } => Some(without_device(path).to_owned()),
        _ => None,
    }
}

/// What `default` is, variables of the environment replaced.
#[must_use]
pub fn default_value(config: &GrubCfg, environment: &Environment) -> String {
    let values = config.commands().filter_map(|command| match command.kind {
        CommandKind::Set { name, value } if name == "default" => Some(value),
        _ => None,
    });
    let values: Vec<String> = values.collect();
    let variable = |value: &str| {
        let name = value.strip_prefix('$')?;
        let name = name.trim_start_matches('{').trim_end_matches('}');
        Some(environment.get(name).cloned().unwrap_or_default())
    };
    let is_next = |value: &&String| value.contains("next_entry");
    let next = values
        .iter()
        .find(is_next)
        .and_then(|value| variable(value));
    if let Some(next) = next.filter(|next| !next.is_empty()) {
        return next;
    }
    let others = values.iter().filter(|value| !is_next(value));
    let others = others.map(|value| variable(value).unwrap_or_else(|| value.clone()));
    let mut others = others.filter(|value| !value.is_empty());
    others.next_back().unwrap_or_else(|| "0".to_owned())
}

/// The entry that such a value means; the first one where it means none.
#[must_use]
pub fn chosen<'a>(menu: &'a [MenuItem], default: &str) -> Option<&'a MenuItem> {
    let last = default.rsplit('>').next().unwrap_or(default);
    let named = menu
        .iter()
        .find(|item| item.id.as_deref() == Some(last) || item.title == last);
    named
        .or_else(|| numbered(menu, default))
        .or_else(|| menu.first())
}

/// The entry that numbers mean: `1>2`.
fn numbered<'a>(menu: &'a [MenuItem], default: &str) -> Option<&'a MenuItem> {
    let mut inside: Vec<&MenuItem> = menu.iter().collect();
    for (depth, number) in default.split('>').enumerate() {
        let number: usize = number.trim().parse().ok()?;
        // What is in the same submenu is one entry of the menu above.
        let groups = inside.chunk_by(|left, right| {
            let submenu = left.submenus.get(depth);
            submenu.is_some() && submenu == right.submenus.get(depth)
        });
        let group = groups.into_iter().nth(number)?.to_vec();
        inside = group;
    }
    inside.first().copied()
}

impl BootConfiguration for GrubCfg {
    fn entries(&self) -> Vec<BootEntry> {
        let menu = self.menu_entries();
        let commands = self.commands();
        commands
            .filter_map(|command| match command.kind {
                CommandKind::Linux { path, arguments } => {
                    Some(boot_entry(command.line, &path, arguments, &menu))
                }
                _ => None,
            })
            .collect()
    }

    fn default_entry(&self, environment: &Environment) -> Option<usize> {
        let menu = menu(self);
        let default = default_value(self, environment);
        let item = chosen(&menu, &default)?;
        let position = menu.iter().position(|known| std::ptr::eq(known, item))?;
        let entry = self.menu_entries().into_iter().nth(position)?;
        let mut commands = entry.commands.iter();
        let linux = commands.find(|command| kernel_of(command).is_some())?;
        self.entries()
            .iter()
            .position(|entry| entry.line == linux.line)
    }

    fn set_arguments(&mut self, line: usize, arguments: &CommandLine) -> bool {
        Self::set_arguments(self, line, arguments)
    }

    fn to_bytes(&self) -> Vec<u8> {
        Self::to_bytes(self)
    }
}

fn boot_entry(line: usize, path: &str, arguments: CommandLine, menu: &[MenuEntry]) -> BootEntry {
    let around = menu
        .iter()
        .find(|entry| entry.commands.iter().any(|command| command.line == line));
    let commands = around
        .map(|entry| entry.commands.as_slice())
        .unwrap_or_default();
    let initrds = commands.iter().flat_map(|command| match &command.kind {
        CommandKind::Initrd { paths } => paths.as_slice(),
        _ => &[],
    });
    BootEntry {
        line,
        title: around.map(|entry| entry.title.clone()).unwrap_or_default(),
        kernel: without_device(path).to_owned(),
        initrds: initrds
            .map(|path| without_device(path).to_owned())
            .collect(),
        arguments,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CONFIG: &str = r#"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
menuentry 'A' --id a {
	linux ($root)/a root=1
	initrd ($root)/i /j
}
submenu 'More' --id more {
	menuentry 'B' --id b { 
		linux /b
	}
	menuentry 'C' --id c {
		multiboot2 /boot/xen.gz placeholder
		module2 /c placeholder root=/dev/sda1 ro
		module2 --nounzip /boot/initrd-c
	}
}
menuentry 'D' {
	linux /d
}
"#;

    fn environment(values: &[(&str, &str)]) -> Environment {
        let values = values.iter();
        values
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[rstest]
    #[case(&[], "/a")]
    #[case(&[("saved_entry", "1>1")], "/c")]
    #[case(&[("saved_entry", "1")], "/b")]
    #[case(&[("saved_entry", "2")], "/d")]
    #[case(&[("saved_entry", "more>c")], "/c")]
    #[case(&[("saved_entry", "D")], "/d")]
    #[case(&[("saved_entry", "gone")], "/a")]
    #[case(&[("saved_entry", "D"), ("next_entry", "b")], "/b")]
    fn the_default_is_a_number_an_id_or_a_title(
        #[case] values: &[(&str, &str)],
        #[case] kernel: &str,
    ) {
        let config = GrubCfg::parse(CONFIG.as_bytes());
        let default = config.default_entry(&environment(values)).unwrap();
        assert_eq!(config.entries()[default].kernel, kernel);
    }

    #[test]
    fn a_default_in_the_configuration_needs_no_environment() {
        let config = GrubCfg::parse(b"set default=\"2\"\nset default=${saved_entry}\n");
        assert_eq!(default_value(&config, &Environment::new()), "2");
        assert_eq!(
            default_value(&config, &environment(&[("saved_entry", "x")])),
            "x"
        );
    }

    #[test]
    fn linux_under_a_hypervisor_is_an_entry_too() {
        let entries = GrubCfg::parse(CONFIG.as_bytes()).entries();
        assert_eq!(entries[0].initrds, ["/i", "/j"]);
        assert_eq!(entries[2].title, "C");
        assert_eq!(entries[2].initrds, ["/boot/initrd-c"]);
        assert_eq!(
            entries[2].arguments.get("root").as_deref(),
            Some("/dev/sda1")
        );
    }
}
