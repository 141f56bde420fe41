// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of two versions is the newer one, as boot loaders order their entries.
//!
//! | who | order | source |
//! |---|---|---|
//! | GRUB's `blscfg` | of RPM: other characters only separate; `~` before the end, `^` behind it | rpmio/rpmvercmp.c |
//! | systemd-boot | of the UAPI group: `~`, then `-`, `^`, `.`, each before what follows | Version Format Specification |
//!
//! In both, digits are compared as numbers and are newer than letters.

use std::cmp::Ordering;

/// Compares as RPM does.
#[must_use]
pub fn rpm_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        left = skip(left, |byte| is_part(byte) || matches!(byte, b'~' | b'^'));
        right = skip(right, |byte| is_part(byte) || matches!(byte, b'~' | b'^'));
        match (left.first(), right.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (left, right) = (&left[1..], &right[1..]);
                continue;
            }
            (Some(b'~'), _) | (None, Some(b'^')) => return Ordering::Less,
            (_, Some(b'~')) | (Some(b'^'), None) => return Ordering::Greater,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(_), Some(_)) => {}
        }
        match parts(&mut left, &mut right) {
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// Compares as the Version Format Specification says.
#[must_use]
pub fn uapi_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    let is_known = |byte: u8| is_part(byte) || matches!(byte, b'~' | b'-' | b'^' | b'.');
    loop {
        left = skip(left, is_known);
        right = skip(right, is_known);
        let starts = (left.first().copied(), right.first().copied());
        if starts == (None, None) {
            return Ordering::Equal;
        }
        // The end of a version stands behind `~` and before all else.
        match separators(starts, b"~") {
            Some(Ordering::Equal) => {
                (left, right) = (&left[1..], &right[1..]);
                continue;
            }
            Some(order) => return order,
            None => {}
        }
        match starts {
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            _ => {}
        }
        match separators(starts, b"-^.") {
            Some(Ordering::Equal) => {
                (left, right) = (&left[1..], &right[1..]);
                continue;
            }
            Some(order) => return order,
            None => {}
        }
        match parts(&mut left, &mut right) {
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// The order of versions of which at least one goes on with one of these, the least first.
fn separators(starts: (Option<u8>, Option<u8>), order: &[u8]) -> Option<Ordering> {
    for &separator in order {
        match (starts.0 == Some(separator), starts.1 == Some(separator)) {
            (true, true) => return Some(Ordering::Equal),
            (true, false) => return Some(Ordering::Less),
            (false, true) => return Some(Ordering::Greater),
            (false, false) => {}
        }
    }
    None
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn skip(text: &[u8], is_wanted: impl Fn(u8) -> bool) -> &[u8] {
    let start = text.iter().position(|byte| is_wanted(*byte));
    &text[start.unwrap_or(text.len())..]
}

fn is_digits(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}

/// Compares the digits or letters that both begin with, and goes behind them.
fn parts(left: &mut &[u8], right: &mut &[u8]) -> Ordering {
    match (is_digits(left), is_digits(right)) {
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (true, true) => {
            let (a, b) = (
                take(left, u8::is_ascii_digit),
                take(right, u8::is_ascii_digit),
            );
            let (a, b) = (number(a), number(b));
            a.len().cmp(&b.len()).then(a.cmp(b))
        }
        (false, false) => {
            let letters = u8::is_ascii_alphabetic;
            take(left, letters).cmp(take(right, letters))
        }
    }
}

fn take<'a>(text: &mut &'a [u8], is_wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|byte| !is_wanted(byte));
    let (part, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    part
}

/// Digits without leading zeros: longer is more.
fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1.0", "1.0", Ordering::Equal)]
    #[case("2.0.1", "2.0.1a", Ordering::Less)]
    #[case("5.5p10", "5.5p1", Ordering::Greater)]
    #[case("10xyz", "10.1xyz", Ordering::Less)]
    #[case("xyz10", "xyz10.1", Ordering::Less)]
    #[case("1.0", "1.fc4", Ordering::Greater)]
    #[case("3.0.0_fc", "3.0.0.fc", Ordering::Equal)]
    #[case("1.0~rc1", "1.0", Ordering::Less)]
    #[case("1.0~rc1", "1.0~rc2", Ordering::Less)]
    #[case("1.0^", "1.0", Ordering::Greater)]
    #[case("1.0^git1", "1.01", Ordering::Less)]
    #[case("4.18.0-80.el8", "4.18.0-147.el8", Ordering::Less)]
    #[case("007", "7", Ordering::Equal)]
    fn rpm(#[case] left: &str, #[case] right: &str, #[case] expected: Ordering) {
        assert_eq!(rpm_order(left, right), expected);
        assert_eq!(rpm_order(right, left), expected.reverse());
    }

    // The examples of the specification.
    #[rstest]
    #[case("11", "11", Ordering::Equal)]
    #[case("systemd-123", "systemd-123", Ordering::Equal)]
    #[case("bar-123", "foo-123", Ordering::Less)]
    #[case("123a", "123", Ordering::Greater)]
    #[case("123.a", "123", Ordering::Greater)]
    #[case("123.a", "123.b", Ordering::Less)]
    #[case("123a", "123.a", Ordering::Greater)]
    #[case("11α", "11β", Ordering::Equal)]
    #[case("A", "a", Ordering::Less)]
    #[case("", "0", Ordering::Less)]
    #[case("0.", "0", Ordering::Greater)]
    #[case("0.0", "0", Ordering::Greater)]
    #[case("0", "~", Ordering::Greater)]
    #[case("", "~", Ordering::Greater)]
    #[case("122.1", "123~rc1-1", Ordering::Less)]
    #[case("123~rc1-1", "123-1", Ordering::Less)]
    #[case("123-a.1", "123-1", Ordering::Less)]
    #[case("123-1", "123^post1", Ordering::Less)]
    #[case("123^post1", "123.a-1", Ordering::Less)]
    #[case("123.1-1", "123a-1", Ordering::Less)]
    #[case("123a-1", "124-1", Ordering::Less)]
    fn uapi(#[case] left: &str, #[case] right: &str, #[case] expected: Ordering) {
        assert_eq!(uapi_order(left, right), expected);
        assert_eq!(uapi_order(right, left), expected.reverse());
    }

    proptest! {
        #[test]
        fn any_two_texts_have_an_order(left in "[a1.~^-]{0,12}", right in "[a1.~^-]{0,12}") {
            assert_eq!(rpm_order(&left, &right), rpm_order(&right, &left).reverse());
            assert_eq!(uapi_order(&left, &right), uapi_order(&right, &left).reverse());
        }
    }
}
