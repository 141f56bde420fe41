// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM's configuration syntax: that of its metadata, of `lvm.conf`, of metadata backups and of
//! `lvmlocal.conf`.
//!
//! ```text
//! section { # comment
//!     key = "text \"quoted\"" number = 5 other = 0.5 list = [ "a", 5 ]
//!     section { }
//! }
//! ```
//!
//! A key may be a path (`devices/dir = "/dev"`); sections of one name are one section; of two
//! values of one key the first counts, as libdm/libdm-config.c has it.
//!
//! **Limits:** 64 MiB of text, sections in sections to a depth of 16, a million keys and values
//! together.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

const TEXT_BYTES_MAX: usize = 64 << 20;
const DEPTH_MAX: usize = 16;
const ENTRIES_MAX: usize = 1_000_000;
const STRUCTURE: &str = "LVM2 configuration text";

/// What a key stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number; one that is too large or too small becomes the largest or smallest.
    Number(i64),
    /// A number with a point.
    Fraction(f64),
    /// Text, quoted or bare.
    Text(String),
    /// Any number of values.
    List(Vec<Self>),
}

/// A key's value, or the section of that name.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `key = value`
    Value(Value),
    /// `key { ... }`
    Section(Section),
}

/// Keys with their values, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    entries: Vec<(String, Node)>,
    places: BTreeMap<String, usize>,
}

impl Section {
    /// Parses a text, which ends at its end or at a NUL. Bytes that are not UTF-8 are replaced.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::Limit {
                what: "bytes of LVM2 configuration text",
                limit: TEXT_BYTES_MAX as u64,
            });
        }
        let end = text.iter().position(|&byte| byte == 0);
        let mut parser = Parser {
            text: &text[..end.unwrap_or(text.len())],
            at: 0,
            entries: 0,
        };
        let mut root = Self::default();
        while parser.peek().is_some() {
            parser.entry(&mut root, 0)?;
        }
        Ok(root)
    }

    /// All keys with what they stand for, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// The sections right below this one, in the order of the text.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.entries().filter_map(|(key, node)| match node {
            Node::Section(section) => Some((key, section)),
            Node::Value(_) => None,
        })
    }

    /// What `key` stands for, right below this section.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        let place = *self.places.get(key)?;
        self.entries.get(place).map(|(_, node)| node)
    }

    /// The section of that name.
    #[must_use]
    pub fn section(&self, key: &str) -> Option<&Self> {
        match self.get(key)? {
            Node::Section(section) => Some(section),
            Node::Value(_) => None,
        }
    }

    /// The value of that key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        match self.get(key)? {
            Node::Value(value) => Some(value),
            Node::Section(_) => None,
        }
    }

    /// The text of that key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value(key).and_then(Value::as_text)
    }

    /// The number of that key, where it is whole and not negative.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.value(key).and_then(Value::as_number)
    }

    /// The values of that key; one that stands alone is a list of one, and no key is an empty list.
    #[must_use]
    pub fn list(&self, key: &str) -> &[Value] {
        match self.value(key) {
            Some(Value::List(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    /// The texts in the list of that key.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<String> {
        let texts = self.list(key).iter().filter_map(Value::as_text);
        texts.map(str::to_owned).collect()
    }

    /// The place of a key, made where it is not there yet.
    fn enter(&mut self, key: &str, new: Node) -> &mut Node {
        let place = *self.places.entry(key.to_owned()).or_insert_with(|| {
            self.entries.push((key.to_owned(), new));
            self.entries.len() - 1
        });
        &mut self.entries[place].1
    }
}

impl Value {
    /// The text, where it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Fraction(_) | Self::List(_) => None,
        }
    }

    /// The number, where it is whole and not negative.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(_) | Self::Fraction(_) | Self::List(_) => None,
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    entries: usize,
}

impl Parser<'_> {
    /// The next byte that is neither space nor comment, which is not consumed.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if byte == b'#' {
                self.skip(|byte| byte != b'\n');
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return Some(byte);
            }
        }
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|&byte| goes_on(byte)) {
            self.at += 1;
        }
    }

    fn expected(&mut self, what: &str) -> Error {
        let found = match self.peek() {
            Some(byte) => format!("`{}`", byte.escape_ascii()),
            None => "the end".to_owned(),
        };
        let problem = format!("expected {what}, found {found}");
        Error::corrupt(STRUCTURE, self.at as u64, problem)
    }

    fn count_entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(Error::Limit {
                what: "keys and values in LVM2 configuration text",
                limit: ENTRIES_MAX as u64,
            });
        }
        Ok(())
    }

    /// `key = value` or `key { ... }`.
    fn entry(&mut self, parent: &mut Section, depth: usize) -> Result<()> {
        let key = self.key()?;
        let mut parts = key.split('/').filter(|part| !part.is_empty());
        let Some(mut name) = parts.next() else {
            return Err(self.expected("a key"));
        };
        let (mut parent, mut depth) = (parent, depth);
        for part in parts {
            self.count_entry()?;
            depth += 1;
            check_depth(depth, self.at)?;
            match parent.enter(name, Node::Section(Section::default())) {
                Node::Section(section) => parent = section,
                Node::Value(_) => return Err(self.expected("the section of a path")),
            }
            name = part;
        }
        self.count_entry()?;
        match self.peek() {
            Some(b'{') => self.section(parent, name, depth + 1),
            Some(b'=') => {
                self.at += 1;
                let value = self.value()?;
                parent.enter(name, Node::Value(value));
                Ok(())
            }
            _ => Err(self.expected("`=` or `{` behind a key")),
        }
    }

    fn section(&mut self, parent: &mut Section, name: &str, depth: usize) -> Result<()> {
        check_depth(depth, self.at)?;
        self.at += 1;
        let Node::Section(section) = parent.enter(name, Node::Section(Section::default())) else {
            return Err(self.expected("one key to be either a value or a section"));
        };
        while self.peek() != Some(b'}') {
            self.entry(section, depth)?;
        }
        self.at += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<String> {
        match self.peek() {
            Some(b'"') => self.quoted(true),
            Some(b'\'') => self.quoted(false),
            _ => {
                let start = self.at;
                self.skip(|byte| !is_space(byte) && !b"#={}\"'[],".contains(&byte));
                if self.at == start {
                    return Err(self.expected("a key"));
                }
                Ok(lossy(&self.text[start..self.at]))
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        if self.peek() != Some(b'[') {
            return self.scalar();
        }
        self.at += 1;
        let mut values = Vec::new();
        while self.peek() != Some(b']') {
            self.count_entry()?;
            values.push(self.scalar()?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {}
                _ => return Err(self.expected("`,` or `]` in a list")),
            }
        }
        self.at += 1;
        Ok(Value::List(values))
    }

    fn scalar(&mut self) -> Result<Value> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.quoted(true)?)),
            Some(b'\'') => Ok(Value::Text(self.quoted(false)?)),
            Some(byte) if byte.is_ascii_digit() || b"+-.".contains(&byte) => self.numeric(),
            _ => {
                let start = self.at;
                self.skip(|byte| !is_space(byte) && !b"#={}[],".contains(&byte));
                if self.at == start {
                    return Err(self.expected("a value"));
                }
                Ok(Value::Text(lossy(&self.text[start..self.at])))
            }
        }
    }

    fn numeric(&mut self) -> Result<Value> {
        let start = self.at;
        self.at += 1;
        self.skip(|byte| byte.is_ascii_digit() || byte == b'.');
        let text = lossy(&self.text[start..self.at]);
        if !text.contains('.') {
            // Of a whole number, only its size can be wrong, or that it is nothing but a sign.
            let largest = if text.starts_with('-') {
                i64::MIN
            } else {
                i64::MAX
            };
            if text.bytes().any(|byte| byte.is_ascii_digit()) {
                return Ok(Value::Number(text.parse().unwrap_or(largest)));
            }
        }
        match text.parse() {
            Ok(number) => Ok(Value::Fraction(number)),
            Err(_) => {
                let problem = format!("expected a number, found `{text}`");
                Err(Error::corrupt(STRUCTURE, start as u64, problem))
            }
        }
    }

    /// A text in quotes. In double ones a backslash takes away the meaning of what follows.
    fn quoted(&mut self, escapes: bool) -> Result<String> {
        let start = self.at;
        let quote = if escapes { b'"' } else { b'\'' };
        let mut bytes = Vec::new();
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                _ if byte == quote => return Ok(lossy(&bytes)),
                b'\\' if escapes => {
                    let escaped = self.text.get(self.at).copied();
                    // Only the quote and the backslash itself are ever escaped.
                    if !matches!(escaped, Some(b'"' | b'\\')) {
                        bytes.push(byte);
                    }
                    bytes.extend(escaped);
                    self.at += 1;
                }
                _ => bytes.push(byte),
            }
        }
        let problem = "expected the end of a quoted text, found the end";
        Err(Error::corrupt(STRUCTURE, start as u64, problem))
    }
}

fn check_depth(depth: usize, at: usize) -> Result<()> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    let problem = format!("expected sections to a depth of {DEPTH_MAX} at most");
    Err(Error::corrupt(STRUCTURE, at as u64, problem))
}

/// What C calls white space.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = b"# a backup\nvg {\n\tid = \"a\\\"b\\\\c\\n\" # more\n\tempty=[]\n\
            list = [ \"x\", 7 , -3,]\n rate = 0.5 one = single\n 'q k' = 'it\\s'\n}\nversion=1\0junk {";
        let root = Section::parse(text).expect("it parses");
        let vg = root.section("vg").expect("a section");
        assert_eq!(vg.text("id"), Some("a\"b\\c\\n"));
        assert_eq!(vg.list("empty"), []);
        assert_eq!(vg.list("absent"), []);
        let list = [
            Value::Text("x".to_owned()),
            Value::Number(7),
            Value::Number(-3),
        ];
        assert_eq!(vg.list("list"), list);
        assert_eq!(vg.texts("list"), ["x"]);
        assert_eq!(vg.value("rate"), Some(&Value::Fraction(0.5)));
        assert_eq!(vg.texts("one"), ["single"]);
        assert_eq!(vg.text("q k"), Some("it\\s"));
        assert_eq!(root.number("version"), Some(1));
        assert_eq!(root.number("vg"), None);
        let keys: Vec<_> = root.entries().map(|(key, _)| key).collect();
        assert_eq!(keys, ["vg", "version"]);
    }

    #[test]
    fn paths_and_repeated_sections_come_together_and_the_first_value_counts() {
        let text = b"devices/dir = \"/dev\"\ndevices { scan = 1 dir = \"/other\" }\n";
        let root = Section::parse(text).expect("it parses");
        let devices = root.section("devices").expect("a section");
        assert_eq!(devices.text("dir"), Some("/dev"));
        assert_eq!(devices.number("scan"), Some(1));
        assert_eq!(root.sections().count(), 1);
    }

    #[test]
    fn numbers_beyond_every_size_are_the_largest() {
        let root = Section::parse(b"a = 99999999999999999999 b = -99999999999999999999 c = +4");
        let root = root.expect("it parses");
        assert_eq!(root.value("a"), Some(&Value::Number(i64::MAX)));
        assert_eq!(root.value("b"), Some(&Value::Number(i64::MIN)));
        assert_eq!(root.number("b"), None);
        assert_eq!(root.number("c"), Some(4));
    }

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        let cases: [(&[u8], &str); 11] = [
            (b"a {", "at byte 0x3: expected a key, found the end"),
            (b"a =", "at byte 0x3: expected a value, found the end"),
            (b"a b", "expected `=` or `{` behind a key, found `b`"),
            (b"a = [ 1 2 ]", "expected `,` or `]` in a list, found `2`"),
            (b"a = [ 1", "expected `,` or `]` in a list, found the end"),
            (b"a = \"x", "expected the end of a quoted text"),
            (b"a = \"x\\", "expected the end of a quoted text"),
            (b"a = 1.2.3", "expected a number, found `1.2.3`"),
            (b"a = -", "expected a number, found `-`"),
            (b"a = 1 a { }", "either a value or a section"),
            (b"a = 1 a/b = 2", "the section of a path"),
        ];
        for (text, expected) in cases {
            let error = Section::parse(text).expect_err("it is broken");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn depth_and_count_have_limits() {
        let deep = "a { ".repeat(17);
        let error = Section::parse(deep.as_bytes()).expect_err("too deep");
        assert!(error.to_string().contains("depth of 16"), "{error}");
        let path = "a/".repeat(40) + "b = 1";
        assert!(Section::parse(path.as_bytes()).is_err());
        let long = "a = [".to_owned() + &"1,".repeat(1_000_001) + "]";
        let error = Section::parse(long.as_bytes()).expect_err("too many");
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
}
