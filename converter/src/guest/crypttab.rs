// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/crypttab`: which encrypted devices are opened at boot.
//!
//! ```text
//! name  device  key file  options        (crypttab(5); the last two may be missing)
//! ```
//! Editing keeps every byte of what is not edited.

use super::table::{Table, escape, unescape};

/// Of Debian's cryptsetup, `debian/README.opensc` and `debian/README.gnupg-sc`.
const CARD_SCRIPTS: [&str; 2] = ["decrypt_opensc", "decrypt_gnupg-sc"];

/// A table of encrypted devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crypttab {
    table: Table,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the line, from 0: the handle for editing.
    pub line: usize,
    /// Name of the opened device below `/dev/mapper`.
    pub name: String,
    /// The encrypted device: a path or `UUID=..`.
    pub device: String,
    /// File with the key; `none` or `-` where the operator types it.
    pub key_file: Option<String>,
    /// Options, in their order.
    pub options: Vec<String>,
}

/// A device that gives the key, by an option of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDevice {
    /// `tpm2-device=`
    Tpm,
    /// `fido2-device=`
    Fido2,
    /// `pkcs11-uri=`, and the key scripts of Debian for such cards.
    SmartCard,
}

impl Entry {
    /// The value of an option `name=value`; of several the last.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter().rev();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// True where an option is set.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// The device that gives the key.
    #[must_use]
    pub fn key_device(&self) -> Option<KeyDevice> {
        let is_given = |name| self.option(name).is_some_and(|value| !value.is_empty());
        let script = self.option("keyscript").unwrap_or_default();
        let script = script.rsplit('/').next().unwrap_or_default();
        if is_given("tpm2-device") {
            Some(KeyDevice::Tpm)
        } else if is_given("fido2-device") {
            Some(KeyDevice::Fido2)
        } else if is_given("pkcs11-uri") || CARD_SCRIPTS.contains(&script) {
            Some(KeyDevice::SmartCard)
        } else {
            None
        }
    }
}

impl Crypttab {
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

    /// The devices, in their order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.table.rows().filter_map(|(line, fields)| {
            let field = |index: usize| fields.get(index).map(|field| unescape(field));
            let options = field(3).unwrap_or_default();
            let options = options.split(',').filter(|option| !option.is_empty());
            Some(Entry {
                line,
                name: field(0)?,
                device: field(1)?,
                key_file: field(2),
                options: options.map(str::to_owned).collect(),
            })
        })
    }

    /// Changes the encrypted device; false where the line is no entry.
    pub fn set_device(&mut self, line: usize, device: &str) -> bool {
        self.table.set_field(line, 1, &escape(device), "none")
    }

    /// Changes the file with the key; false where the line is no entry.
    pub fn set_key_file(&mut self, line: usize, key_file: &str) -> bool {
        self.table.set_field(line, 2, &escape(key_file), "none")
    }

    /// Changes the options; false where the line is no entry.
    pub fn set_options(&mut self, line: usize, options: &[String]) -> bool {
        let options = match options {
            [] => "luks".to_owned(),
            options => escape(&options.join(",")),
        };
        self.table.set_field(line, 3, &options, "none")
    }

    /// Makes a line a comment; `reason` stands on it too.
    pub fn disable(&mut self, line: usize, reason: &str) -> bool {
        let reason = reason.replace(['\n', '\r'], " ");
        self.table.prefix_line(line, &format!("# {reason}: "))
    }

    /// Adds a device at the end.
    pub fn push(&mut self, name: &str, device: &str, key_file: &str, options: &str) {
        let fields = [name, device, key_file, options].map(escape);
        self.table.push_line(&fields.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn a_device_is_replaced_and_the_rest_stays() {
        let text = b"# <target> <source>\nsda3_crypt\t/dev/sda3 none luks,discard\nswap /dev/sdb1";
        let mut crypttab = Crypttab::parse(text);
        let entries: Vec<Entry> = crypttab.entries().collect();
        assert_eq!(entries[0].name, "sda3_crypt");
        assert_eq!(entries[0].options, ["luks", "discard"]);
        assert_eq!(entries[1].key_file, None);
        assert!(crypttab.set_device(entries[0].line, "UUID=12-34"));
        crypttab.push("data", "UUID=5", "none", "luks");
        assert_eq!(
            String::from_utf8(crypttab.to_bytes()).unwrap(),
            "# <target> <source>\nsda3_crypt\tUUID=12-34 none luks,discard\nswap /dev/sdb1\n\
             data UUID=5 none luks\n"
        );
    }

    #[test]
    fn options_of_a_short_line_come_after_a_key_file() {
        let mut crypttab = Crypttab::parse(b"swap /dev/sdb1\n");
        assert!(crypttab.set_options(0, &["swap".to_owned()]));
        assert_eq!(crypttab.to_bytes(), b"swap /dev/sdb1 none swap\n");
    }

    #[test]
    fn devices_that_give_keys_are_known_by_their_options() {
        let of = |options: &str| {
            let text = format!("data /dev/sdb none {options}\n");
            let first = Crypttab::parse(text.as_bytes()).entries().next();
            first.expect("an entry").key_device()
        };
        assert_eq!(
            of("luks,tpm2-device=auto,tpm2-pcrs=7"),
            Some(KeyDevice::Tpm)
        );
        assert_eq!(of("tpm2-device=/dev/tpmrm0"), Some(KeyDevice::Tpm));
        assert_eq!(of("luks,fido2-device=auto"), Some(KeyDevice::Fido2));
        let card = "pkcs11-uri=pkcs11:model=PKCS%2315%20emulated;token=Key";
        assert_eq!(of(card), Some(KeyDevice::SmartCard));
        let script = "luks,keyscript=/lib/cryptsetup/scripts/decrypt_gnupg-sc";
        assert_eq!(of(script), Some(KeyDevice::SmartCard));
        for none in [
            "luks",
            "tpm2-device=",
            "tpm2-device",
            "tpm2-device=auto,tpm2-device=",
            "keyscript=decrypt_keyctl",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<Vec<u8>>()) {
            assert_eq!(Crypttab::parse(&text).to_bytes(), text);
        }
    }
}
