// SPDX-License-Identifier: MIT OR Apache-2.0
//! `loader/loader.conf` of systemd-boot: which entry is started.
//!
//! ```text
//! default  arch-*.conf        a pattern of entries' names; `@saved` is in the firmware's memory
//! timeout  3
//! ```
//! Facts: loader.conf(5).

/// The pattern of the entry to start, where the file has one that is not kept in the firmware.
#[must_use]
pub fn default_pattern(text: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| {
        let (key, value) = line.trim().split_once([' ', '\t'])?;
        (key == "default").then(|| value.trim().to_owned())
    });
    lines
        .next_back()
        .filter(|pattern| !pattern.starts_with('@'))
}

/// Whether an entry's file name, with or without `.conf` or `.efi`, fits a pattern.
#[must_use]
pub fn is_meant(pattern: &str, file_name: &str) -> bool {
    let name = file_name.to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    let short = super::bls::without_suffix(&name);
    [name.as_str(), short]
        .iter()
        .any(|text| matches(pattern.as_bytes(), text.as_bytes()))
}

/// `*`, `?` and `[a-z]`, in time that grows with the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much of the text it took.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match one(&pattern[p..], text[t]) {
            Some(length) => {
                p += length;
                t += 1;
            }
            None if pattern.get(p) == Some(&b'*') => {
                star = Some((p, t));
                p += 1;
            }
            None => match &mut star {
                Some((position, taken)) => {
                    *taken += 1;
                    (p, t) = (*position + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How long the part of a pattern is that one character fits.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.split_first()? {
        (b'*', _) => None,
        (b'?', _) => Some(1),
        (b'[', rest) => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let set = &rest[..end];
            let in_range = set
                .windows(3)
                .any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
            (set.contains(&byte) || in_range).then_some(end + 2)
        }
        (literal, _) => (*literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("arch.conf", "arch.conf", true)]
    #[case("arch", "Arch.conf", true)]
    #[case("arch-*", "arch-linux-lts.conf", true)]
    #[case("*-6.1?.[0-9].efi", "debian-6.12.4.efi", true)]
    #[case("*.conf", "arch.efi", false)]
    #[case("a*b*c", "axxbyyc", true)]
    #[case("a*b*c", "axxbyy", false)]
    #[case("[x", "[x", false)]
    #[case("", "a", false)]
    fn patterns(#[case] pattern: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(is_meant(pattern, name), expected);
    }

    #[test]
    fn the_last_default_counts_unless_the_firmware_keeps_it() {
        let text = "timeout 3\n#default a\ndefault b.conf\ndefault\tc-* \n";
        assert_eq!(default_pattern(text).as_deref(), Some("c-*"));
        assert_eq!(default_pattern("default @saved\n"), None);
        assert_eq!(default_pattern(""), None);
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in any::<Vec<u8>>(), text in any::<Vec<u8>>()) {
            matches(&pattern, &text);
        }
    }
}
