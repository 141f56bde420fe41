// SPDX-License-Identifier: MIT OR Apache-2.0
//! The recovery sheet: a library's secret on paper. Whoever has it and the library's files has
//! every image, so it goes into a safe.
//!
//! The secret is written as four lines of fifteen characters in Crockford's base 32 (no I, L, O,
//! U; those are read as what they look like). Each line carries 8 bytes and 2 characters of
//! check, so a mistake in typing is found, and the line that it is in.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::error::{Error, Result};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CONTEXT: &str = "relevo image-library 2026-11 v1 recovery sheet";
const LINES: usize = 4;
const LINE_BYTES: usize = 8;
/// 64 bits in characters of 5 bits.
const DATA_CHARACTERS: usize = 13;
const LINE_CHARACTERS: usize = DATA_CHARACTERS + 2;
/// Characters between two spaces.
const GROUP: usize = 5;

/// The sheet as text of at most 80 columns.
pub(crate) fn to_text(secret: &[u8; 32], library: Uuid, place: &str, created: &str) -> String {
    let mut text = String::new();
    let key: Vec<String> = key_lines(secret);
    let _ = write!(
        text,
        "RECOVERY SHEET OF A RELEVO IMAGE LIBRARY\n\n\
         Library   {library}\n\
         Created   {created}\n\
         Place     {place}\n\n\
         Key       1  {}\n          2  {}\n          3  {}\n          4  {}\n\n\
         Whoever has this sheet and the library's files can read every image.\n\
         Keep it in a safe, away from the library. No passphrase is needed with it.\n\n\
         To open the library when its key file or passphrase is lost:\n\n\
         \x20   image-library key restore DIRECTORY\n\n\
         and type the four lines of the key, each with Enter at its end.\n",
        key[0], key[1], key[2], key[3]
    );
    text
}

fn key_lines(secret: &[u8; 32]) -> Vec<String> {
    let lines = secret.chunks_exact(LINE_BYTES).enumerate();
    lines
        .map(|(number, bytes)| line_text(number, bytes))
        .collect()
}

fn line_text(number: usize, bytes: &[u8]) -> String {
    let mut value = [0; LINE_BYTES];
    value.copy_from_slice(bytes);
    // 64 bits and one zero bit are 13 characters.
    let value = u128::from(u64::from_be_bytes(value)) << 1;
    let mut characters: Vec<u8> = (0..DATA_CHARACTERS)
        .rev()
        .map(|position| ALPHABET[(value >> (5 * position)) as usize % 32])
        .collect();
    characters.extend(check(number, bytes));
    let groups = characters.chunks(GROUP).map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

fn check(number: usize, bytes: &[u8]) -> [u8; 2] {
    let mut material = vec![number as u8];
    material.extend_from_slice(bytes);
    let hash = blake3::derive_key(CONTEXT, &material);
    [0, 1].map(|position| ALPHABET[usize::from(hash[position]) % 32])
}

/// Reads the key that a person typed, or the whole sheet: the lines that hold a key are taken, in
/// their order.
///
/// # Errors
///
/// [`Error::InvalidName`] that names the line with a mistake.
pub(crate) fn parse(text: &str) -> Result<[u8; 32]> {
    let lines: Vec<Vec<u8>> = text.lines().filter_map(key_characters).collect();
    let wrong = |kind, name: String| Error::InvalidName { kind, name };
    if lines.len() != LINES {
        let found = lines.len();
        return Err(wrong(
            "key of a recovery sheet (four lines of 15 characters)",
            format!("{found} such lines"),
        ));
    }
    let mut secret = [0; 32];
    for (number, characters) in lines.iter().enumerate() {
        let bytes = line_bytes(number, characters).ok_or_else(|| {
            let line = number + 1;
            wrong(
                "key of a recovery sheet",
                format!("line {line} has a mistake"),
            )
        })?;
        secret[number * LINE_BYTES..][..LINE_BYTES].copy_from_slice(&bytes);
    }
    Ok(secret)
}

/// The characters of a line that is one of a key: 15 of the alphabet, perhaps after its number.
fn key_characters(line: &str) -> Option<Vec<u8>> {
    let line = line.trim();
    let line = line.strip_prefix("Key").unwrap_or(line).trim_start();
    let compact = |line: &str| -> Option<Vec<u8>> {
        let is_gap = |c: char| c.is_whitespace() || c == '-';
        let groups: Vec<&str> = line
            .split(is_gap)
            .filter(|group| !group.is_empty())
            .collect();
        // `Created 2026-11-21` has fifteen characters of the alphabet, too.
        let is_grouped = groups.len() == 1 || groups.iter().all(|group| group.len() == GROUP);
        let values: Option<Vec<u8>> = groups.concat().chars().map(value_of).collect();
        values.filter(|values| is_grouped && values.len() == LINE_CHARACTERS)
    };
    compact(line).or_else(|| compact(line.strip_prefix(['1', '2', '3', '4'])?))
}

fn value_of(character: char) -> Option<u8> {
    let character = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let position = ALPHABET.iter().position(|&a| char::from(a) == character)?;
    u8::try_from(position).ok()
}

fn line_bytes(number: usize, values: &[u8]) -> Option<[u8; LINE_BYTES]> {
    let (data, given) = values.split_at_checked(DATA_CHARACTERS)?;
    let value = data
        .iter()
        .fold(0u128, |value, &five| (value << 5) | u128::from(five));
    // The last bit is padding.
    if value & 1 != 0 {
        return None;
    }
    let bytes = u64::try_from(value >> 1).ok()?.to_be_bytes();
    let expected = check(number, &bytes).map(|c| value_of(char::from(c)));
    let given = [0, 1].map(|position| given.get(position).copied());
    (expected == given).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn sheet(secret: &[u8; 32]) -> String {
        to_text(secret, Uuid::nil(), "/srv/library", "2026-11-21")
    }

    proptest! {
        #[test]
        fn every_secret_is_read_back_from_its_sheet(secret in any::<[u8; 32]>()) {
            let text = sheet(&secret);
            assert_eq!(parse(&text).expect("reads"), secret);
            assert!(text.lines().all(|line| line.len() <= 80));
            let typed = key_lines(&secret).join("\n").to_lowercase().replace(' ', "-");
            assert_eq!(parse(&typed.replace('0', "o").replace('1', "l")).expect("reads"), secret);
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_mistake_is_found_in_its_line() {
        let lines = key_lines(&[0x5a; 32]);
        for number in 0..LINES {
            let mut typed = lines.clone();
            let first = if typed[number].starts_with('Z') {
                "Y"
            } else {
                "Z"
            };
            typed[number].replace_range(0..1, first);
            let error = parse(&typed.join("\n")).unwrap_err().to_string();
            assert!(error.contains(&format!("line {}", number + 1)), "{error}");
        }
    }

    #[test]
    fn lines_in_another_order_are_a_mistake() {
        let mut lines = key_lines(&[0x5a; 32]);
        lines.swap(0, 1);
        assert!(parse(&lines.join("\n")).is_err());
        lines.pop();
        assert!(
            parse(&lines.join("\n"))
                .unwrap_err()
                .to_string()
                .contains("3 such lines")
        );
    }
}
