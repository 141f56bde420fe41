// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values in documents: what may stand where, for each kind of text.
//!
//! A line of a document must never end where a guest's own file says so: everything that can come
//! from a guest goes through one of these.

use uuid::Uuid;

/// Characters of a serial number at most: virtio-blk has room for 20.
const SERIAL_LENGTH_MAX: usize = 20;
const COMMENT_LENGTH_MAX: usize = 200;

/// A text for one line of a comment of any kind.
pub(super) fn comment(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '?' } else { c };
    text.chars()
        .take(COMMENT_LENGTH_MAX)
        .map(harmless)
        .collect()
}

/// A serial number of which every platform takes each character; `None` when nothing is left.
pub(super) fn serial(text: &str) -> Option<String> {
    let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let serial: String = text.chars().filter(legal).take(SERIAL_LENGTH_MAX).collect();
    (!serial.is_empty()).then_some(serial)
}

/// A MAC address in lower case with colons; `None` where it is none, or none of one card.
pub(super) fn mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let octet = |part: &&str| match part.len() {
        2 if part.bytes().all(|byte| byte.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let octets: Vec<u8> = parts.iter().filter_map(octet).collect();
    let is_group = octets.first().is_none_or(|first| first & 1 == 1);
    if parts.len() != 6 || octets.len() != 6 || is_group || octets == [0; 6] {
        return None;
    }
    let octets: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    Some(octets.join(":"))
}

/// A string in double quotes for YAML and for Xen's configuration, as JSON has it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A name for Kubernetes (RFC 1123): lower case letters, digits and `-`, 63 at most.
pub(super) fn kubernetes_name(text: &str) -> String {
    let legal = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let name: String = text.chars().map(legal).take(63).collect();
    match name.trim_matches('-') {
        "" => "machine".to_owned(),
        name => name.to_owned(),
    }
}

/// The identity of a machine: the same at every export of the same server, so that a platform sees
/// that it is the same machine.
pub(super) fn machine_uuid(name: &str) -> Uuid {
    let hash = blake3::derive_key(
        "relevo 2026-11 identity of an exported machine",
        name.as_bytes(),
    );
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Mebibytes, 1 at least.
pub(super) const fn mebibytes(bytes: u64) -> u64 {
    match bytes >> 20 {
        0 => 1,
        mebibytes => mebibytes,
    }
}

/// The n-th letter for names of disks (`vda`, ..., `vdz`, `vdaa`).
pub(super) fn letters(index: usize) -> String {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let mut name = String::new();
    let mut rest = index;
    loop {
        name.insert(0, char::from(LETTERS[rest % LETTERS.len()]));
        match rest / LETTERS.len() {
            0 => return name,
            more => rest = more - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_single_cards_are_mac_addresses() {
        assert_eq!(
            mac("52:54:00:AB:cd:01").as_deref(),
            Some("52:54:00:ab:cd:01")
        );
        assert_eq!(
            mac("52-54-00-ab-cd-01").as_deref(),
            Some("52:54:00:ab:cd:01")
        );
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:+1",
            "52:54:00:ab:cd:'>",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
        ] {
            assert_eq!(mac(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_could_end_a_line_or_a_value_is_left_out() {
        assert_eq!(comment("eth0\nargs: -x"), "eth0?args: -x");
        assert_eq!(serial("  WD-W CC4\"<>,\n1").as_deref(), Some("WD-WCC41"));
        assert_eq!(serial("\u{1f4be}"), None);
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
        assert_eq!(kubernetes_name("ERP_db.01-"), "erp-db-01");
        assert_eq!(kubernetes_name("--"), "machine");
    }

    #[test]
    fn disks_are_lettered_as_linux_does_it() {
        let names = [0, 25, 26, 27, 701, 702].map(letters);
        assert_eq!(names, ["a", "z", "aa", "ab", "zz", "aaa"]);
    }

    #[test]
    fn a_server_keeps_its_identity() {
        assert_eq!(machine_uuid("web01"), machine_uuid("web01"));
        assert_ne!(machine_uuid("web01"), machine_uuid("web02"));
    }
}
