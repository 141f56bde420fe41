// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of multipath maps: `/etc/multipath.conf`, and the file of bindings that multipathd keeps.
//!
//! ```text
//! multipaths { multipath { wwid 3600508b1001c... alias system } }     multipath.conf(5)
//! mpatha 3600508b1001c...                                             bindings
//! ```

use serde::{Deserialize, Serialize};

/// A name of a map, and the disk that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipathAlias {
    /// The name below `/dev/mapper`.
    pub alias: String,
    /// The disk's World Wide Identifier, as `scsi_id` prints it.
    pub wwid: String,
}

/// Reads the `multipath` sections of the configuration.
#[must_use]
pub fn parse_configuration(text: &str) -> Vec<MultipathAlias> {
    let mut found = Vec::new();
    let (mut wwid, mut alias) = (None, None);
    for line in text.lines() {
        let line = line.split(['#', '!']).next().unwrap_or_default();
        // Braces may stand against a word.
        let spaced = line.replace('{', " { ").replace('}', " } ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        for (place, word) in words.iter().enumerate() {
            let value = words.get(place + 1);
            let value = value.map(|value| value.trim_matches('"').to_owned());
            match *word {
                "{" => (wwid, alias) = (None, None),
                "wwid" => wwid = value,
                "alias" => alias = value,
                "}" => {
                    let pair = alias.take().zip(wwid.take());
                    found.extend(pair.map(|(alias, wwid)| MultipathAlias { alias, wwid }));
                }
                _ => {}
            }
        }
    }
    found
}

/// Reads the bindings.
#[must_use]
pub fn parse_bindings(text: &str) -> Vec<MultipathAlias> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let bindings = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(MultipathAlias {
            alias: words.next()?.to_owned(),
            wwid: words.next()?.to_owned(),
        })
    });
    bindings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(alias: &str, wwid: &str) -> MultipathAlias {
        MultipathAlias {
            alias: alias.to_owned(),
            wwid: wwid.to_owned(),
        }
    }

    #[test]
    fn sections_with_both_a_wwid_and_an_alias_are_found() {
        let text = "defaults {\n\tuser_friendly_names yes\n}\nblacklist { wwid 360 }\n\
                    multipaths {\n  multipath{ wwid \"3600508b1\"\n alias system } # root\n\
                    multipath {\n alias data\n wwid 36002\n }\n multipath { wwid 3 } }\n";
        assert_eq!(
            parse_configuration(text),
            [alias("system", "3600508b1"), alias("data", "36002")]
        );
    }

    #[test]
    fn bindings_are_read_without_their_comments() {
        let text = "# Multipath bindings, Version : 1.0\nmpatha 3600508b1\n\nmpathb\n";
        assert_eq!(parse_bindings(text), [alias("mpatha", "3600508b1")]);
    }
}
