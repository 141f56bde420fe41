// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of shell assignments: `/etc/default/grub`, `/etc/os-release`, `/etc/sysconfig/*`.
//!
//! ```text
//! [export] KEY=value | KEY="value" | KEY='value' | KEY+=" more"    # comment
//! ```
//! A value may be put together from quoted and bare pieces, and a quoted one may go over several
//! lines. Nothing is expanded: `$x` stays `$x`. Other lines are kept and mean nothing here. Editing
//! keeps every byte of what is not edited.

use std::ops::Range;

/// A file of shell assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShellConfig {
    text: Vec<u8>,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub key: String,
    /// Its value, without quotes.
    pub value: String,
    /// True for `+=`.
    pub appends: bool,
    /// Where the value stands, with its quotes.
    range: Range<usize>,
}

impl ShellConfig {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self {
            text: text.to_vec(),
        }
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.text.clone()
    }

    /// All assignments, in their order.
    #[must_use]
    pub fn assignments(&self) -> Vec<Assignment> {
        let mut found = Vec::new();
        let mut position = 0;
        while position < self.text.len() {
            let assignment = assignment_at(&self.text, position);
            let end = assignment
                .as_ref()
                .map_or(position, |found| found.range.end);
            found.extend(assignment);
            // Never backwards: a value ends behind the start of its line.
            position = line_end(&self.text, end);
        }
        found
    }

    /// The value that a variable has at the end, `+=` included.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let mut value: Option<String> = None;
        for assignment in self.assignments() {
            if assignment.key == key {
                match &mut value {
                    Some(value) if assignment.appends => value.push_str(&assignment.value),
                    _ => value = Some(assignment.value),
                }
            }
        }
        value
    }

    /// Gives every assignment to a variable a new value where `change` has one; true if any
    /// changed.
    pub fn replace(&mut self, key: &str, change: impl Fn(&str) -> Option<String>) -> bool {
        let before = self.text.clone();
        for assignment in self.assignments().into_iter().rev() {
            let new = Some(&assignment).filter(|found| found.key == key);
            if let Some(value) = new.and_then(|found| change(&found.value)) {
                self.write(assignment.range, &value);
            }
        }
        self.text != before
    }

    /// Sets a variable: its last plain assignment, or a new one at the end.
    ///
    /// A `+=` behind that assignment still adds to it.
    pub fn set(&mut self, key: &str, value: &str) {
        let mut assignments = self.assignments().into_iter().rev();
        if let Some(last) = assignments.find(|found| found.key == key && !found.appends) {
            return self.write(last.range, value);
        }
        if !self.text.is_empty() && !self.text.ends_with(b"\n") {
            self.text.push(b'\n');
        }
        let quoted = quote(value, b'"');
        self.text
            .extend_from_slice(format!("{key}={quoted}\n").as_bytes());
    }

    /// Writes a value with the quotes that are there, or with double ones where it needs some.
    fn write(&mut self, range: Range<usize>, value: &str) {
        let quoted = match self.text.get(range.start) {
            Some(quote_mark @ (b'"' | b'\'')) => quote(value, *quote_mark),
            _ if is_bare(value) => value.to_owned(),
            _ => quote(value, b'"'),
        };
        self.text.splice(range, quoted.into_bytes());
    }
}

/// True where a shell takes a value as it is, without quotes.
fn is_bare(value: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,+@%$".contains(&byte);
    value.bytes().all(is_plain)
}

fn quote(value: &str, mark: u8) -> String {
    if mark == b'\'' && !value.contains('\'') {
        return format!("'{value}'");
    }
    let mut quoted = "\"".to_owned();
    for character in value.chars() {
        // `$` is let through: values of `/etc/default/grub` name variables.
        if matches!(character, '"' | '\\' | '`') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Behind the end of the line that `position` is in.
fn line_end(text: &[u8], position: usize) -> usize {
    let rest = text.get(position..).unwrap_or(&[]);
    let newline = rest.iter().position(|byte| *byte == b'\n');
    newline.map_or(text.len(), |length| position + length + 1)
}

/// The assignment in the line that begins at `start`.
fn assignment_at(text: &[u8], start: usize) -> Option<Assignment> {
    let mut position = start + blanks(&text[start..]);
    if text[position..].starts_with(b"export ") {
        position += 7;
        position += blanks(&text[position..]);
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = text[position..]
        .iter()
        .take_while(|byte| is_name(byte))
        .count();
    let key = std::str::from_utf8(&text[position..position + length]).ok()?;
    position += length;
    let appends = text[position..].starts_with(b"+=");
    position += usize::from(appends);
    if key.is_empty() || key.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if text.get(position) != Some(&b'=') {
        return None;
    }
    let (value, length) = value_of(&text[position + 1..]);
    Some(Assignment {
        key: key.to_owned(),
        value,
        appends,
        range: position + 1..position + 1 + length,
    })
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count()
}

/// A value without its quotes, and how long it is with them.
fn value_of(text: &[u8]) -> (String, usize) {
    let mut value = Vec::new();
    let mut open: Option<u8> = None;
    let mut position = 0;
    while let Some(&byte) = text.get(position) {
        match (open, byte) {
            (None, b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|') => break,
            (None, b'"' | b'\'') => open = Some(byte),
            (Some(mark), _) if mark == byte => open = None,
            (None | Some(b'"'), b'\\') => match text.get(position + 1) {
                // A line that goes on.
                Some(b'\n') => position += 1,
                Some(next) if open.is_none() || b"\"\\$`".contains(next) => {
                    value.push(*next);
                    position += 1;
                }
                _ => value.push(byte),
            },
            _ => value.push(byte),
        }
        position += 1;
    }
    (String::from_utf8_lossy(&value).into_owned(), position)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    const SAMPLE: &str = "\
# If you change this file, run 'update-grub'
GRUB_DEFAULT=0
GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`
GRUB_CMDLINE_LINUX_DEFAULT=\"quiet root=/dev/sda1\"   # why
export GRUB_CMDLINE_LINUX='resume=/dev/sda2'
GRUB_CMDLINE_LINUX+=\" a=\\\"b c\\\"\"
#GRUB_TERMINAL=console
LONG=\"one \\
two\"
  if true; then X=y; fi
";

    #[test]
    fn values_are_read_without_quotes() {
        let config = ShellConfig::parse(SAMPLE.as_bytes());
        assert_eq!(config.get("GRUB_DEFAULT").as_deref(), Some("0"));
        assert_eq!(
            config.get("GRUB_CMDLINE_LINUX_DEFAULT").as_deref(),
            Some("quiet root=/dev/sda1")
        );
        assert_eq!(
            config.get("GRUB_CMDLINE_LINUX").as_deref(),
            Some("resume=/dev/sda2 a=\"b c\"")
        );
        assert_eq!(config.get("LONG").as_deref(), Some("one two"));
        assert_eq!(config.get("GRUB_TERMINAL"), None);
        assert_eq!(config.get("X"), None);
    }

    #[test]
    fn an_edited_value_keeps_its_quotes_and_all_else() {
        let mut config = ShellConfig::parse(SAMPLE.as_bytes());
        config.set("GRUB_CMDLINE_LINUX_DEFAULT", "quiet root=UUID=1 x=\"y z\"");
        config.set("GRUB_DEFAULT", "saved");
        assert!(config.replace("GRUB_CMDLINE_LINUX", |value| {
            Some(value.replace("/dev/sda2", "UUID=2"))
        }));
        let expected = SAMPLE
            .replace("root=/dev/sda1\"", "root=UUID=1 x=\\\"y z\\\"\"")
            .replace("DEFAULT=0", "DEFAULT=saved")
            .replace("/dev/sda2", "UUID=2");
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_new_variable_comes_at_the_end() {
        let mut config = ShellConfig::parse(b"A=1");
        config.set("B", "two words");
        config.set("A", "one two");
        assert_eq!(config.to_bytes(), b"A=\"one two\"\nB=\"two words\"\n");
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_set(value in "[^$\u{0}]{0,20}", mark in 0..3_usize) {
            let mut config = ShellConfig::parse([&b"X=\"\"\n"[..], b"X=''", b"X=1 # y\n"][mark]);
            config.set("X", &value);
            assert_eq!(config.get("X"), Some(value));
        }

        #[test]
        fn what_is_not_edited_stays(text in any::<Vec<u8>>()) {
            let mut config = ShellConfig::parse(&text);
            assert!(!config.replace("NOT_THERE", |_| Some(String::new())));
            assert_eq!(config.to_bytes(), text);
        }
    }
}
