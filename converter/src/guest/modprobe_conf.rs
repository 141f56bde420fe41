// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/modprobe.conf`, `/etc/modprobe.d/*` and `/etc/modules.conf`: which kernel module stands for
//! a name, and with which options modules are loaded.
//!
//! ```text
//! alias NAME MODULE | options MODULE KEY=VALUE... | install .. | remove .. | blacklist ..
//! ```
//! Facts from modprobe.d(5). Editing keeps every byte of what is not edited.

use super::table::Table;

/// A file of module settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModprobeConf {
    table: Table,
}

/// One line that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// `alias eth0 tg3`.
    Alias {
        /// What is asked for.
        name: String,
        /// What is loaded.
        module: String,
    },
    /// `options bond0 mode=1`.
    Options {
        /// The module, or an alias of it.
        module: String,
        /// The options, between blanks.
        options: String,
    },
}

impl ModprobeConf {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self {
            table: Table::parse(text),
        }
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.table.to_bytes()
    }

    /// Number of the line, from 0, and what it says.
    pub fn directives(&self) -> impl Iterator<Item = (usize, Directive)> {
        self.table.rows().filter_map(|(line, fields)| {
            let directive = match fields.as_slice() {
                [word, name, module, ..] if word == "alias" => Directive::Alias {
                    name: name.clone(),
                    module: module.clone(),
                },
                [word, module, options @ ..] if word == "options" => Directive::Options {
                    module: module.clone(),
                    options: options.join(" "),
                },
                _ => return None,
            };
            Some((line, directive))
        })
    }

    /// Lets an alias stand for another module; false where the line is none.
    pub fn set_alias(&mut self, line: usize, module: &str) -> bool {
        self.table.set_field(line, 2, module, "off")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn an_alias_is_changed_and_the_rest_stays() {
        let text = b"# cards\nalias eth0 tg3 # onboard\nalias bond0 bonding\n\
                     options bond0 mode=1  miimon=100\ninstall x /bin/true\n";
        let mut conf = ModprobeConf::parse(text);
        let directives: Vec<(usize, Directive)> = conf.directives().collect();
        assert_eq!(directives.len(), 3);
        assert_eq!(
            directives[2].1,
            Directive::Options {
                module: "bond0".into(),
                options: "mode=1 miimon=100".into()
            }
        );
        assert!(conf.set_alias(directives[0].0, "virtio_net"));
        assert_eq!(
            String::from_utf8(conf.to_bytes()).unwrap(),
            "# cards\nalias eth0 virtio_net # onboard\nalias bond0 bonding\n\
             options bond0 mode=1  miimon=100\ninstall x /bin/true\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<Vec<u8>>()) {
            let conf = ModprobeConf::parse(&text);
            _ = conf.directives().count();
            assert_eq!(conf.to_bytes(), text);
        }
    }
}
