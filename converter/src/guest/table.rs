// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text in lines of fields between blanks, as fstab and crypttab are: the part they share.
//!
//! Every byte that is not edited stays: comments, blanks, line ends, bytes that are not UTF-8.

use std::ops::Range;

/// The lines of a file, each with its line end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    lines: Vec<Vec<u8>>,
}

impl Table {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self {
            lines: split_lines(text),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }

    /// Number (from 0) and fields of each line that is neither empty nor a comment.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, Vec<String>)> {
        self.lines.iter().enumerate().filter_map(|(number, line)| {
            let fields = field_ranges(line);
            let texts = fields
                .into_iter()
                .map(|range| String::from_utf8_lossy(&line[range]).into_owned());
            let texts: Vec<String> = texts.collect();
            (!texts.is_empty()).then_some((number, texts))
        })
    }

    /// Replaces a field, or adds it with those missing before it (`missing`) at the end of a row.
    ///
    /// False where the line is no row.
    pub(super) fn set_field(
        &mut self,
        line: usize,
        field: usize,
        value: &str,
        missing: &str,
    ) -> bool {
        let Some(line) = self.lines.get_mut(line) else {
            return false;
        };
        let ranges = field_ranges(line);
        let Some(last) = ranges.last() else {
            return false;
        };
        if let Some(range) = ranges.get(field) {
            line.splice(range.clone(), value.bytes());
            return true;
        }
        let mut added = String::new();
        for _ in ranges.len()..field {
            added.push(' ');
            added.push_str(missing);
        }
        added.push(' ');
        added.push_str(value);
        line.splice(last.end..last.end, added.into_bytes());
        true
    }

    /// Puts a text before a line, as to make it a comment.
    pub(super) fn prefix_line(&mut self, line: usize, prefix: &str) -> bool {
        self.lines
            .get_mut(line)
            .map(|line| line.splice(0..0, prefix.bytes()).count())
            .is_some()
    }

    /// Adds a line at the end.
    pub(super) fn push_line(&mut self, text: &str) {
        if let Some(last) = self.lines.last_mut()
            && !last.ends_with(b"\n")
        {
            last.push(b'\n');
        }
        self.lines.push(format!("{text}\n").into_bytes());
    }
}

/// The lines of a text with their line ends; joined, they are the text.
pub(super) fn split_lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Where the fields of a line are; none in a comment.
fn field_ranges(line: &[u8]) -> Vec<Range<usize>> {
    let is_blank = |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let blanks = line.iter().map(|byte| is_blank(*byte)).enumerate();
    let mut ranges = between_blanks(blanks, line.len());
    if ranges
        .first()
        .is_some_and(|range| line[range.start] == b'#')
    {
        ranges.clear();
    }
    ranges
}

/// The runs of what is not blank: of each position whether it is, and where the last ends.
pub(super) fn between_blanks(
    positions: impl Iterator<Item = (usize, bool)>,
    end: usize,
) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = None;
    for (position, is_blank) in positions {
        match (start, is_blank) {
            (None, false) => start = Some(position),
            (Some(begin), true) => {
                ranges.push(begin..position);
                start = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    ranges.extend(start.map(|begin| begin..end));
    ranges
}

/// A field's text with its octal escapes (`\040` for a blank) resolved.
pub(super) fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        match octal(bytes.get(position + 1..position + 4)).filter(|_| byte == b'\\') {
            Some(code) => {
                plain.push(code);
                position += 4;
            }
            None => {
                plain.push(byte);
                position += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn octal(digits: Option<&[u8]>) -> Option<u8> {
    let digits = std::str::from_utf8(digits?).ok()?;
    u8::from_str_radix(digits, 8)
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A text as a field: blanks, line ends and `\` become octal escapes, as does a `#` in front.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (position, character) in text.char_indices() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\\' => {
                escaped.push_str(&format!("\\{:03o}", character as u32));
            }
            '#' if position == 0 => escaped.push_str("\\043"),
            other => escaped.push(other),
        }
    }
    escaped
}
