// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB's environment block, `grubenv`: the values that GRUB itself can write.
//!
//! ```text
//! # GRUB Environment Block\n
//! name=value\n ...              a newline or `\` in a value has a `\` before it
//! #################...          up to the end of the file
//! ```
//! GRUB writes it sector by sector in place, so its size (1024 bytes as a rule) never changes. Facts:
//! grub-core/lib/envblk.c. Editing keeps every byte of what is not edited; a value that grows takes its
//! room from the `#` at the end.

use super::boot_configuration::Environment;

const SIGNATURE: &str = "# GRUB Environment Block\n";

/// An environment block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubEnv {
    text: String,
}

impl GrubEnv {
    /// Reads a block; `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.starts_with(SIGNATURE).then(|| Self {
            text: text.to_owned(),
        })
    }

    /// The block.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// All values by name.
    #[must_use]
    pub fn values(&self) -> Environment {
        let records = self.records().into_iter();
        records
            .filter_map(|(start, end)| {
                let (name, value) = self.text[start..end].split_once('=')?;
                Some((name.to_owned(), unescape(value)))
            })
            .collect()
    }

    /// A value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.values().remove(name)
    }

    /// Sets a value; false where there is no room for it, or `name` is none.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        if name.is_empty() || name.contains(['=', '\n', '#']) {
            return false;
        }
        let record = format!("{name}={}", escape(value));
        let is_named = |text: &str| text.split_once('=').is_some_and(|(known, _)| known == name);
        let records = self.records();
        let known = records
            .iter()
            .find(|(start, end)| is_named(&self.text[*start..*end]));
        let size = self.text.len();
        let text = match known {
            Some((start, end)) => {
                format!("{}{record}{}", &self.text[..*start], &self.text[*end..])
            }
            None => {
                let end = records.last().map_or(SIGNATURE.len(), |(_, end)| end + 1);
                let end = end.min(size);
                format!("{}{record}\n{}", &self.text[..end], &self.text[end..])
            }
        };
        match resized(text, size) {
            Some(text) => self.text = text,
            None => return false,
        }
        true
    }

    /// Where each `name=value` is, its newline not included.
    fn records(&self) -> Vec<(usize, usize)> {
        let mut records = Vec::new();
        let mut start = SIGNATURE.len();
        while let Some(first) = self.text[start..].chars().next() {
            let length = record_length(&self.text[start..]);
            let Some(length) = length else { break };
            if first != '#' {
                records.push((start, start + length));
            }
            start += length + 1;
        }
        records
    }
}

/// How long a record is; `None` where no newline ends it, as in the padding.
fn record_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' if !is_escaped => return Some(position),
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    None
}

/// The same text in `size` bytes, by more or fewer `#` in its padding.
fn resized(mut text: String, size: usize) -> Option<String> {
    let end = text.rfind('#').map(|last| last + 1)?;
    let start = text[..end].trim_end_matches('#').len();
    // The signature's own `#` is not padding.
    let has_padding = start >= SIGNATURE.len() && text[..start].ends_with('\n');
    let padding = if has_padding {
        start..end
    } else {
        text.len()..text.len()
    };
    if let Some(missing) = size.checked_sub(text.len()) {
        let is_line = text[..padding.start].ends_with('\n');
        text.insert_str(padding.end, &"#".repeat(missing));
        return is_line.then_some(text);
    }
    let excess = text.len() - size;
    if padding.len() < excess {
        return None;
    }
    text.replace_range(padding.start..padding.start + excess, "");
    Some(text)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\\n")
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::samples::linux_samples;

    fn block(records: &str) -> String {
        let text = format!("{SIGNATURE}{records}");
        format!("{text}{}", "#".repeat(1024 - text.len()))
    }

    #[test]
    fn values_are_read_and_the_size_never_changes() {
        let text = block("saved_entry=4-el8\nboot_success=1\nkernelopts=root=/dev/sda1 ro \n");
        let mut env = GrubEnv::parse(&text).unwrap();
        assert_eq!(env.get("kernelopts").as_deref(), Some("root=/dev/sda1 ro "));
        assert_eq!(env.get("next_entry"), None);
        assert!(env.set("kernelopts", "root=UUID=6f1cc2f4-8d5a ro console=ttyS0"));
        assert!(env.set("new", "a\\b\nc"));
        assert!(env.set("saved_entry", "4"));
        assert_eq!(env.as_str().len(), 1024);
        assert_eq!(env.get("new").as_deref(), Some("a\\b\nc"));
        assert_eq!(
            env.as_str().trim_end_matches('#'),
            format!(
                "{SIGNATURE}saved_entry=4\nboot_success=1\n\
                 kernelopts=root=UUID=6f1cc2f4-8d5a ro console=ttyS0\nnew=a\\\\b\\\nc\n"
            )
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut env = GrubEnv::parse(&block("a=1\n")).unwrap();
        let before = env.clone();
        assert!(!env.set("b", &"x".repeat(1000)));
        assert!(!env.set("a=", "1"));
        assert_eq!(env, before);
        assert!(env.set("b", &"x".repeat(1024 - SIGNATURE.len() - 4 - 3)));
        assert_eq!(env.as_str().len(), 1024);
        assert!(!env.set("a", "22"));
    }

    #[test]
    fn only_a_block_is_a_block() {
        assert_eq!(GrubEnv::parse("saved_entry=1\n"), None);
        assert_eq!(GrubEnv::parse(""), None);
    }

    #[test]
    fn real_blocks_are_read_and_written_in_their_size() {
        let Some(samples) = linux_samples("grubby-tests.tar.xz") else {
            return;
        };
        let mut count = 0;
        for (name, bytes) in samples {
            if !name.contains("support_files/grubenv") {
                continue;
            }
            count += 1;
            let text = String::from_utf8(bytes).unwrap();
            let mut env = GrubEnv::parse(&text).unwrap();
            let before = env.get("saved_entry");
            assert!(env.set("saved_entry", "another one"), "{name}");
            assert_eq!(env.as_str().len(), text.len(), "{name}");
            if let Some(before) = before {
                assert!(env.set("saved_entry", &before));
                assert_eq!(env.as_str(), text, "{name}");
            }
        }
        assert!(count >= 5, "{count}");
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_size(text in any::<String>(), value in any::<String>()) {
            for tail in ["", "###########################"] {
                let text = format!("{SIGNATURE}{text}{tail}");
                let mut env = GrubEnv::parse(&text).unwrap();
                if env.set("name", &value) {
                    assert_eq!(env.as_str().len(), text.len());
                }
            }
        }
    }
}
