// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's command line, in itself and as it stands in boot loader configuration.
//!
//! Arguments stand between blanks; a blank inside quotes is part of an argument. The kernel knows
//! double quotes, around the whole argument or its value (lib/cmdline.c); GRUB's scripts also know
//! single quotes and `\`. `-` and `_` are the same in a name. Editing keeps every byte of what is
//! not edited, blanks included.

use std::fmt;
use std::ops::Range;

use super::table::between_blanks;

/// Whose quotes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    /// Double quotes.
    Kernel,
    /// Double quotes, single quotes, and `\` before a character.
    Grub,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    quoting: Quoting,
}

/// One argument of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name, without quotes.
    pub name: String,
    /// What is behind the first `=`, without quotes.
    pub value: Option<String>,
    range: Range<usize>,
}

impl Argument {
    /// True for this name, whichever dash it has.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let same = |byte: u8| if byte == b'-' { b'_' } else { byte };
        self.name.bytes().map(same).eq(name.bytes().map(same))
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl CommandLine {
    /// A command line from its text.
    #[must_use]
    pub fn parse(text: impl Into<String>, quoting: Quoting) -> Self {
        Self {
            text: text.into(),
            quoting,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The arguments, in their order.
    #[must_use]
    pub fn arguments(&self) -> Vec<Argument> {
        word_ranges(&self.text, self.quoting)
            .into_iter()
            .map(|range| {
                let plain = unquote(&self.text[range.clone()], self.quoting);
                let (name, value) = match plain.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (plain, None),
                };
                Argument { name, value, range }
            })
            .collect()
    }

    /// True where an argument of this name is present, with or without a value.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.arguments().iter().any(|argument| argument.is(name))
    }

    /// The value of an argument; of several the last, which is what counts for most.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_all(name).pop()
    }

    /// The values of all arguments of one name, as several `console=` are.
    #[must_use]
    pub fn get_all(&self, name: &str) -> Vec<String> {
        let arguments = self.arguments().into_iter();
        arguments
            .filter(|argument| argument.is(name))
            .filter_map(|argument| argument.value)
            .collect()
    }

    /// Gives each argument of one name a new value where `change` has one; true if any changed.
    pub fn replace(&mut self, name: &str, change: impl Fn(&str) -> Option<String>) -> bool {
        let before = self.text.clone();
        for argument in self.arguments().into_iter().rev() {
            let value = argument.value.as_deref().unwrap_or_default();
            if let Some(value) = Some(value).filter(|_| argument.is(name)).and_then(&change) {
                let text = self.quote(&format!("{}={value}", argument.name));
                self.text.replace_range(argument.range, &text);
            }
        }
        self.text != before
    }

    /// Sets an argument: the first of this name gets the value, others go; or it is added.
    pub fn set(&mut self, name: &str, value: &str) {
        let all = self.arguments().into_iter();
        let mut same: Vec<Argument> = all.filter(|argument| argument.is(name)).collect();
        let text = self.quote(&format!("{name}={value}"));
        if same.is_empty() {
            return self.insert_text(&text);
        }
        let first = same.remove(0);
        for argument in same.into_iter().rev() {
            self.cut(argument.range);
        }
        self.text.replace_range(first.range, &text);
    }

    /// Adds an argument at the end, unless exactly this one is there; true if it was added.
    ///
    /// It is put before `--`, behind which arguments are init's.
    pub fn add(&mut self, argument: &str) -> bool {
        let words = word_ranges(&self.text, self.quoting);
        let mut words = words
            .into_iter()
            .map(|range| unquote(&self.text[range], self.quoting));
        if words.any(|word| word == argument) {
            return false;
        }
        let text = self.quote(argument);
        self.insert_text(&text);
        true
    }

    /// Removes all arguments for which `unwanted` says so; true if any went.
    pub fn remove(&mut self, unwanted: impl Fn(&Argument) -> bool) -> bool {
        let before = self.text.len();
        for argument in self.arguments().into_iter().rev() {
            if unwanted(&argument) {
                self.cut(argument.range);
            }
        }
        self.text.len() != before
    }

    /// Adds text behind the last argument of the kernel.
    fn insert_text(&mut self, text: &str) {
        let words = word_ranges(&self.text, self.quoting);
        let separator = words
            .iter()
            .find(|range| &self.text[(*range).clone()] == "--");
        if let Some(separator) = separator {
            return self.text.insert_str(separator.start, &format!("{text} "));
        }
        let end = words.last().map_or(self.text.len(), |range| range.end);
        let needs_blank = !self.text[..end].is_empty() && !self.text[..end].ends_with([' ', '\t']);
        let blank = if needs_blank { " " } else { "" };
        self.text.insert_str(end, &format!("{blank}{text}"));
    }

    /// Cuts out a word and the blanks before it, or after it where it is the first.
    fn cut(&mut self, range: Range<usize>) {
        let before = self.text[..range.start].trim_end_matches([' ', '\t']).len();
        if before > 0 {
            return self.text.replace_range(before..range.end, "");
        }
        let rest = &self.text[range.end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        self.text.replace_range(range.start..range.end + blanks, "");
    }

    /// A word in quotes, where it needs them.
    ///
    /// Neither can the kernel's quotes hold a `"`, nor does an argument need one: it is dropped.
    fn quote(&self, word: &str) -> String {
        let word: String = word
            .chars()
            .filter(|character| !matches!(character, '"' | '\n' | '\r'))
            .collect();
        let is_special = |character| match self.quoting {
            Quoting::Kernel => character == ' ' || character == '\t',
            Quoting::Grub => " \t'\\;|&<>{}#".contains(character),
        };
        match (word.contains(is_special), self.quoting) {
            (false, _) => word,
            (true, Quoting::Grub) => format!("\"{}\"", word.replace('\\', "\\\\")),
            (true, Quoting::Kernel) => format!("\"{word}\""),
        }
    }
}

/// Where the words of a text are.
pub(super) fn word_ranges(text: &str, quoting: Quoting) -> Vec<Range<usize>> {
    let mut scanner = Scanner::new(quoting);
    let blanks = text.char_indices().map(|(position, character)| {
        let is_blank = scanner.next(character) == Role::Blank;
        (position, is_blank)
    });
    between_blanks(blanks, text.len())
}

/// A word without its quotes.
pub(super) fn unquote(word: &str, quoting: Quoting) -> String {
    let mut scanner = Scanner::new(quoting);
    word.chars()
        .filter(|character| scanner.next(*character) != Role::Quote)
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Blank,
    Quote,
    Text,
}

/// Says of each character what it is, from left to right.
struct Scanner {
    quoting: Quoting,
    open: Option<char>,
    is_escaped: bool,
}

impl Scanner {
    fn new(quoting: Quoting) -> Self {
        Self {
            quoting,
            open: None,
            is_escaped: false,
        }
    }

    fn next(&mut self, character: char) -> Role {
        if std::mem::take(&mut self.is_escaped) {
            return Role::Text;
        }
        match (self.open, character) {
            (None | Some('"'), '\\') if self.quoting == Quoting::Grub => {
                self.is_escaped = true;
                Role::Quote
            }
            (None, '"') => self.open_with(character),
            (None, '\'') if self.quoting == Quoting::Grub => self.open_with(character),
            (Some(open), _) if open == character => {
                self.open = None;
                Role::Quote
            }
            (None, blank) if blank.is_ascii_whitespace() => Role::Blank,
            _ => Role::Text,
        }
    }

    fn open_with(&mut self, quote: char) -> Role {
        self.open = Some(quote);
        Role::Quote
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn kernel(text: &str) -> CommandLine {
        CommandLine::parse(text, Quoting::Kernel)
    }

    #[test]
    fn quotes_hold_an_argument_together() {
        let line = kernel("root=/dev/sda1 dyndbg=\"file a.c +p; file b.c +p\" \"b c=d e\" quiet");
        assert_eq!(line.get("root").as_deref(), Some("/dev/sda1"));
        assert_eq!(
            line.get("dyndbg").as_deref(),
            Some("file a.c +p; file b.c +p")
        );
        assert_eq!(line.get("b c").as_deref(), Some("d e"));
        assert!(line.contains("quiet"));
        assert_eq!(line.get("quiet"), None);
    }

    #[test]
    fn replaced_values_leave_blanks_and_order() {
        let mut line = kernel("  root=/dev/sda1\tro  resume=/dev/sda2 quiet ");
        let rename = |value: &str| value.strip_prefix("/dev/sda").map(|n| format!("UUID={n}"));
        assert!(line.replace("root", rename));
        assert!(line.replace("resume", rename));
        assert!(!line.replace("init", rename));
        assert_eq!(line.as_str(), "  root=UUID=1\tro  resume=UUID=2 quiet ");
    }

    #[test]
    fn set_keeps_the_first_of_several_and_add_does_not_repeat() {
        let mut line = kernel("a=1 b a=2 c a=3 -- single");
        line.set("a", "x y");
        assert_eq!(line.as_str(), "\"a=x y\" b c -- single");
        assert!(line.add("console=ttyS0"));
        assert!(!line.add("console=ttyS0"));
        assert_eq!(line.as_str(), "\"a=x y\" b c console=ttyS0 -- single");
        assert_eq!(kernel("a-b=1").get("a_b").as_deref(), Some("1"));
    }

    #[test]
    fn removed_arguments_take_their_blanks_with_them() {
        let mut line = kernel("rhgb quiet  splash ro");
        assert!(line.remove(|argument| argument.is("rhgb") || argument.is("splash")));
        assert_eq!(line.as_str(), "quiet ro");
    }

    #[test]
    fn grub_knows_more_quotes() {
        let line = CommandLine::parse(r#"root='a b' c\ d="e \"f" $x"#, Quoting::Grub);
        assert_eq!(line.get("root").as_deref(), Some("a b"));
        assert_eq!(line.get("c d").as_deref(), Some("e \"f"));
        assert!(line.contains("$x"));
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_set(
            text in any::<String>(), value in "[a-z /'#;-]{0,9}", grub in any::<bool>(),
        ) {
            let quoting = if grub { Quoting::Grub } else { Quoting::Kernel };
            let mut line = CommandLine::parse(text.clone(), quoting);
            assert_eq!(line.to_string(), text);
            // In text whose quotes are never closed, nothing can be added behind.
            if text.contains(['"', '\'', '\\']) { return Ok(()); }
            line.remove(|argument| argument.name == "--");
            line.set("some-name", &value);
            assert_eq!(line.get("some_name"), Some(value));
        }
    }
}
