// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is looked for in a text: the text itself, or `/a regular expression/`.

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// A compiled expression may take so much memory.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What is looked for in a text.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    expression: Option<Regex>,
}

impl Pattern {
    /// Whether it is in a console's output, colours and cursor movements left out.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        let text = without_controls(text);
        match &self.expression {
            Some(expression) => expression.is_match(&text),
            None => text.contains(&self.source),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(source: &str) -> Result<Self, String> {
        let inner = source
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let expression = match inner {
            Some(inner) if !inner.is_empty() => Some(
                RegexBuilder::new(inner)
                    .multi_line(true)
                    .size_limit(COMPILED_BYTES_MAX)
                    .build()
                    .map_err(|error| error.to_string())?,
            ),
            _ if source.is_empty() => return Err("nothing to look for".to_owned()),
            _ => None,
        };
        Ok(Self {
            source: source.to_owned(),
            expression,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expression {
            Some(_) => f.write_str(&self.source),
            None => write!(f, "{:?}", self.source),
        }
    }
}

/// A console's text without escape sequences and carriage returns.
#[must_use]
pub fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\n' | '\t' => plain.push(character),
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

/// `ESC [ parameters letter`, or ESC and one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if characters.next() != Some('[') {
        return;
    }
    for character in characters.by_ref() {
        if ('\u{40}'..='\u{7e}').contains(&character) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_through_colours_and_expressions_between_slashes() {
        let console = "\u{1b}[0;32m  OK  \u{1b}[0m] Started\r\nweb01 log\u{1b}[Kin: ";
        for (pattern, found) in [
            ("login:", true),
            ("/^web\\d+ login: $/", true),
            ("/^login/", false),
            ("root", false),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.is_in(console), found, "{pattern}");
        }
        assert!("/(/".parse::<Pattern>().is_err());
        assert!("".parse::<Pattern>().is_err());
    }
}
