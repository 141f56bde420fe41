// SPDX-License-Identifier: MIT OR Apache-2.0
//! How single values are written: `1h30m`, `2GiB`, ports, names of images and profiles.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::{ImageChoice, ProfileChoice};

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
const SIZES: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
/// A year: longer is a mistake in writing.
const SECONDS_MAX: u64 = 366 * 86_400;

/// `90s`, `5m`, `1h30m`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a duration: {text:?}; write it as 90s, 5m, 1h30m or 2d");
    let mut seconds = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let mut characters = tail.chars();
        let unit = characters.next().ok_or_else(wrong)?;
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(*factor).ok_or_else(wrong)?;
        seconds = seconds
            .checked_add(part)
            .filter(|sum| *sum <= SECONDS_MAX)
            .ok_or_else(wrong)?;
        rest = characters.as_str();
    }
    Ok(Duration::from_secs(seconds))
}

/// The shortest way to write a duration, to the second: `1h30m`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut text = String::new();
    for (unit, size) in UNITS {
        if left >= size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// `2GiB`, `512MiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("not a size: {text:?}; write it as 512MiB or 2GiB");
    let text = text.trim();
    let (_, unit, number) = SIZES
        .iter()
        .find_map(|(name, size)| Some((name, size, text.strip_suffix(name)?)))
        .ok_or_else(wrong)?;
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number
        .checked_mul(*unit)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

/// A size in the largest unit that divides it: `2GiB`.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    let unit = SIZES
        .iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

/// A text that another module knows how to read.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

pub(super) fn optional_parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    parsed(deserializer).map(Some)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(de::Error::custom)
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

pub(super) fn optional_bytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(&text).map(Some).map_err(de::Error::custom)
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(de::Error::custom("not a port: 0")),
        port => Ok(port),
    }
}

pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    let legal = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    if legal {
        Ok(path)
    } else {
        Err(de::Error::custom(format!(
            "not a path of a page: {path:?}; it begins with / and has no spaces"
        )))
    }
}

pub(super) const fn default_within() -> Duration {
    Duration::from_secs(5 * 60)
}

pub(super) const fn http_port() -> u16 {
    80
}

pub(super) fn root_path() -> String {
    "/".to_owned()
}

pub(super) const fn status_ok() -> u16 {
    200
}

impl<'de> Deserialize<'de> for ProfileChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self::Auto),
            name => name.parse().map(Self::First).map_err(de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for ImageChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImageVisitor)
    }
}

struct ImageVisitor;

impl<'de> Visitor<'de> for ImageVisitor {
    type Value = ImageChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`latest`, the id of an image, or { before: TIME }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ImageChoice, E> {
        if text == "latest" {
            return Ok(ImageChoice::Latest);
        }
        let id = text.parse().map_err(|_| {
            E::custom(format!(
                "not an image: {text:?}; it is `latest`, an image's id, or {{ before: TIME }}"
            ))
        })?;
        Ok(ImageChoice::Id(id))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageChoice, A::Error> {
        const KEYS: &[&str] = &["before"];
        let mut before = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != KEYS[0] {
                return Err(de::Error::unknown_field(&key, KEYS));
            }
            let text: String = map.next_value()?;
            let time: Timestamp = text.parse().map_err(|_| {
                de::Error::custom(format!(
                    "not a time: {text:?}; write it as 2026-11-01T10:00:00Z"
                ))
            })?;
            before = Some(time);
        }
        before
            .map(ImageChoice::Before)
            .ok_or_else(|| de::Error::missing_field("before"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_units_and_read_back() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("1h30m", 5400),
            ("2d", 172_800),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert_eq!(duration_text(Duration::from_secs(5430)), "1h30m30s");
        assert_eq!(duration_text(Duration::ZERO), "0s");
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "-1s",
            "99999999999999999999s",
            "400d",
            "5min",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_binary_units() {
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("512 MiB"), Ok(512 << 20));
        assert_eq!(bytes_text(1536 << 20), "1536MiB");
        for text in ["2GB", "2", "0MiB", "99999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
