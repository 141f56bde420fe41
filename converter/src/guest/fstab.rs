// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/fstab`: which filesystem is mounted where.
//!
//! ```text
//! spec  file  type  options  dump  pass        (fstab(5); the last two may be missing)
//! ```
//! A blank in a field is written `\040`, a tab `\011`, a backslash `\134`. `#` begins a comment
//! only at the start of a line. Editing keeps every byte of what is not edited.

use super::table::{Table, escape, unescape};

/// A file system table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fstab {
    table: Table,
}

/// One line of it that mounts something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the line, from 0: the handle for editing.
    pub line: usize,
    /// What is mounted: `/dev/sda1`, `UUID=..`, `LABEL=..`, `server:/path`.
    pub spec: String,
    /// Where, or `none`.
    pub file: String,
    /// Type of the filesystem.
    pub kind: String,
    /// Options, in their order; empty if the field is missing.
    pub options: Vec<String>,
    /// How often dump saves it.
    pub dump: Option<String>,
    /// When fsck checks it.
    pub pass: Option<String>,
}

impl Entry {
    /// The value of a tag as `UUID` or `LABEL` in [`Entry::spec`], without quotes.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        let (tag, value) = self.spec.split_once('=')?;
        tag.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches(['"', '\'']))
    }

    /// True where an option is set.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// The value of an option `name=value`; of several the last.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter().rev();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Fstab {
    /// Reads a file. A line with less than two fields is kept, and is no entry.
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

    /// The lines that mount something, in their order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.table.rows().filter_map(|(line, fields)| {
            let field = |index: usize| fields.get(index).map(|field| unescape(field));
            Some(Entry {
                line,
                spec: field(0)?,
                file: field(1)?,
                kind: field(2).unwrap_or_else(|| "auto".to_owned()),
                options: field(3)
                    .map(|field| split_options(&field))
                    .unwrap_or_default(),
                dump: field(4),
                pass: field(5),
            })
        })
    }

    /// The entry that is mounted at a path; of several the last, which hides the others.
    #[must_use]
    pub fn at(&self, file: &str) -> Option<Entry> {
        self.entries().filter(|entry| entry.file == file).last()
    }

    /// Changes what is mounted; false where the line is no entry.
    pub fn set_spec(&mut self, line: usize, spec: &str) -> bool {
        self.table.set_field(line, 0, &escape(spec), "auto")
    }

    /// Changes the options; false where the line is no entry.
    pub fn set_options(&mut self, line: usize, options: &[String]) -> bool {
        let options = match options {
            [] => "defaults".to_owned(),
            options => escape(&options.join(",")),
        };
        self.table.set_field(line, 3, &options, "auto")
    }

    /// Makes a line a comment; `reason` stands on it too.
    pub fn disable(&mut self, line: usize, reason: &str) -> bool {
        let reason = reason.replace(['\n', '\r'], " ");
        self.table.prefix_line(line, &format!("# {reason}: "))
    }
}

/// Options stand between commas; a comma within double quotes is part of an option.
fn split_options(field: &str) -> Vec<String> {
    let mut is_quoted = false;
    field
        .split(|character| {
            is_quoted ^= character == '"';
            character == ',' && !is_quoted
        })
        .filter(|option| !option.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    const SAMPLE: &str = "\
# /etc/fstab: static file system information.
/dev/sda1\t/               ext4    errors=remount-ro 0       1
UUID=\"1234-ABCD\"  /boot/efi vfat umask=0077,shortname=winnt 0 2
/dev/cciss/c0d0p2 none swap sw
LABEL=my\\040data\t/mnt/with\\040blank auto

//server/share /mnt/s cifs context=\"system_u:object_r:t:s0,c1\",ro 0 0\r
proc";

    #[test]
    fn entries_have_their_fields_and_escapes_resolved() {
        let fstab = Fstab::parse(SAMPLE.as_bytes());
        let entries: Vec<Entry> = fstab.entries().collect();
        let specs: Vec<&str> = entries.iter().map(|entry| entry.spec.as_str()).collect();
        assert_eq!(
            specs,
            [
                "/dev/sda1",
                "UUID=\"1234-ABCD\"",
                "/dev/cciss/c0d0p2",
                "LABEL=my data",
                "//server/share"
            ]
        );
        assert_eq!(entries[0].options, ["errors=remount-ro"]);
        assert_eq!(entries[0].option("errors"), Some("remount-ro"));
        assert_eq!(entries[0].pass.as_deref(), Some("1"));
        assert_eq!(entries[1].tag("uuid"), Some("1234-ABCD"));
        assert_eq!(entries[2].pass, None);
        assert_eq!(entries[3].file, "/mnt/with blank");
        assert!(entries[3].options.is_empty());
        assert_eq!(
            entries[4].options,
            ["context=\"system_u:object_r:t:s0,c1\"", "ro"]
        );
        assert_eq!(entries[4].pass.as_deref(), Some("0"));
    }

    #[test]
    fn an_edited_spec_changes_nothing_else() {
        let mut fstab = Fstab::parse(SAMPLE.as_bytes());
        let root = fstab.at("/").unwrap();
        assert!(fstab.set_spec(root.line, "UUID=0a-0b"));
        let expected = SAMPLE.replace("/dev/sda1\t", "UUID=0a-0b\t");
        assert_eq!(String::from_utf8(fstab.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn missing_fields_are_added_before_an_option() {
        let mut fstab = Fstab::parse(b"LABEL=a /a # no comment here\n/dev/b /b\n");
        assert!(fstab.set_options(1, &["nofail".to_owned(), "ro".to_owned()]));
        assert!(fstab.set_options(0, &[]));
        assert!(!fstab.set_options(7, &[]));
        assert_eq!(
            fstab.to_bytes(),
            b"LABEL=a /a # defaults comment here\n/dev/b /b auto nofail,ro\n"
        );
    }

    #[test]
    fn a_disabled_entry_is_a_comment() {
        let mut fstab = Fstab::parse(b"/dev/cdrom /media iso9660 ro\n");
        assert!(fstab.disable(0, "no such\ndrive"));
        assert_eq!(
            fstab.to_bytes(),
            b"# no such drive: /dev/cdrom /media iso9660 ro\n"
        );
        assert_eq!(fstab.entries().count(), 0);
    }

    proptest! {
        #[test]
        fn what_is_not_edited_stays(text in any::<Vec<u8>>()) {
            assert_eq!(Fstab::parse(&text).to_bytes(), text);
        }

        #[test]
        fn a_spec_is_read_as_it_was_set(spec in "[^\u{0}]{1,20}") {
            let mut fstab = Fstab::parse(b"\t x /y ext4\n");
            fstab.set_spec(0, &spec);
            assert_eq!(fstab.entries().next().unwrap().spec, spec);
        }
    }
}
