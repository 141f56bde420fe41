// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a person names an image: `SERVER` (its latest), `SERVER@ID` (the beginning of an id is
//! enough) or `SERVER@TIME` (the latest taken at or before that time).
//!
//! A time is RFC 3339 (`2026-11-01T10:00:00Z`), or a date, which means the end of that day in UTC.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};

use crate::access::ImageReader;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::ServerName;

/// How many images an error lists.
const LISTED_MAX: usize = 5;
/// Shorter beginnings of an id would be taken for something else.
const PREFIX_LENGTH_MIN: usize = 4;

/// Names one image of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Whose image.
    pub server: ServerName,
    /// Which of them.
    pub which: Which,
}

/// Which image of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one committed last.
    Latest,
    /// The one whose id begins so.
    Id(String),
    /// The last one taken at this time or before.
    At(Timestamp),
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((server, which)) = text.split_once('@') else {
            return Ok(Self {
                server: text.parse()?,
                which: Which::Latest,
            });
        };
        Ok(Self {
            server: server.parse()?,
            which: parse_which(which).ok_or_else(|| Error::InvalidName {
                kind: "image (SERVER, SERVER@ID or SERVER@TIME)",
                name: text.to_owned(),
            })?,
        })
    }
}

fn parse_which(text: &str) -> Option<Which> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(Which::At(time));
    }
    // An id has its first dash after eight digits, a date after four: neither is the other.
    if let Ok(date) = text.parse::<Date>()
        && text.contains('-')
    {
        let end = date.at(23, 59, 59, 999_999_999).to_zoned(TimeZone::UTC);
        // Only a date at the very end of the calendar has no time stamp.
        return end.ok().map(|end| Which::At(end.timestamp()));
    }
    let is_id =
        text.len() >= PREFIX_LENGTH_MIN && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_id.then(|| Which::Id(text.to_ascii_lowercase()))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Latest => write!(f, "{}", self.server),
            Which::Id(prefix) => write!(f, "{}@{prefix}", self.server),
            Which::At(time) => write!(f, "{}@{time}", self.server),
        }
    }
}

impl ImageRef {
    /// Finds the image in a library.
    pub fn resolve(&self, reader: &dyn ImageReader) -> Result<Image> {
        self.choose(reader.images()?)
    }

    /// Finds the image among these, which are sorted oldest first.
    pub fn choose(&self, images: Vec<Image>) -> Result<Image> {
        let servers: BTreeSet<String> = images
            .iter()
            .map(|image| image.server.to_string())
            .collect();
        let ours = images
            .into_iter()
            .filter(|image| image.server == self.server);
        let ours: Vec<Image> = ours.collect();
        if ours.is_empty() {
            return Err(self.no_image(&servers));
        }
        let fits: Vec<&Image> = match &self.which {
            Which::Latest => ours.last().into_iter().collect(),
            Which::Id(prefix) => {
                let begins = |image: &&Image| image.id.to_string().starts_with(prefix.as_str());
                ours.iter().filter(begins).collect()
            }
            Which::At(time) => {
                let before = ours.iter().filter(|image| image.taken_at <= *time);
                before
                    .max_by_key(|image| image.taken_at)
                    .into_iter()
                    .collect()
            }
        };
        match fits[..] {
            [image] => Ok(image.clone()),
            [] => Err(self.none_fits(&ours)),
            _ => Err(self.ambiguous(&fits)),
        }
    }

    fn no_image(&self, servers: &BTreeSet<String>) -> Error {
        let known = if servers.is_empty() {
            "the library is empty".to_owned()
        } else {
            let names: Vec<&str> = servers.iter().map(String::as_str).collect();
            format!("servers with images: {}", names.join(", "))
        };
        Error::NoSuchImage {
            problem: format!("no image of server {}; {known}", self.server),
        }
    }

    fn none_fits(&self, ours: &[Image]) -> Error {
        let server = &self.server;
        let (what, first) = match &self.which {
            Which::At(time) => (
                format!("no image of server {server} was taken at or before {time}"),
                "its first images",
            ),
            Which::Id(prefix) => (
                format!("no image of server {server} has an id that begins with {prefix}"),
                "its images",
            ),
            Which::Latest => (format!("no image of server {server}"), "its images"),
        };
        let list = list(&ours.iter().collect::<Vec<_>>());
        Error::NoSuchImage {
            problem: format!("{what}; {first}: {list}"),
        }
    }

    fn ambiguous(&self, fits: &[&Image]) -> Error {
        Error::NoSuchImage {
            problem: format!("{self} names several images: {}", list(fits)),
        }
    }
}

fn list(images: &[&Image]) -> String {
    let shown = images.iter().take(LISTED_MAX);
    let shown: Vec<String> = shown
        .map(|image| format!("{} ({})", image.id, image.taken_at))
        .collect();
    let more = images.len().saturating_sub(LISTED_MAX);
    let mut text = shown.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Consistency;
    use rstest::rstest;

    fn image(id: &str, server: &str, taken_at: &str) -> Image {
        Image {
            id: id.parse().expect("an id"),
            server: server.parse().expect("a name"),
            taken_at: taken_at.parse().expect("a time"),
            received_at: taken_at.parse().expect("a time"),
            consistency: Consistency::Cold,
            machine: None,
            disks: vec![],
            parent: None,
            stored_bytes: 0,
            generation: 0,
        }
    }

    fn images() -> Vec<Image> {
        vec![
            image(
                "019aa000-0000-7000-8000-000000000001",
                "db01",
                "2026-11-01T10:00:00Z",
            ),
            image(
                "019aa000-0000-7000-8000-000000000002",
                "web",
                "2026-11-02T10:00:00Z",
            ),
            image(
                "019ab000-0000-7000-8000-000000000003",
                "db01",
                "2026-11-03T10:00:00Z",
            ),
        ]
    }

    fn choose(text: &str) -> Result<String> {
        let image = text.parse::<ImageRef>()?.choose(images())?;
        Ok(image.id.to_string()[35..].to_owned())
    }

    #[rstest]
    #[case("db01", "3")]
    #[case("web", "2")]
    #[case("db01@019aa", "1")]
    #[case("db01@019AB000-0000", "3")]
    #[case("db01@2026-11-01T10:00:00Z", "1")]
    #[case("db01@2026-11-03T11:59:00+02:00", "1")]
    #[case("db01@2026-11-02", "1")]
    #[case("db01@2026-11-03", "3")]
    fn an_image_is_found_by_every_kind_of_name(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(choose(text).expect("is there"), expected);
    }

    #[rstest]
    #[case("mail", "no image of server mail; servers with images: db01, web")]
    #[case(
        "db01@2026-10-31",
        "no image of server db01 was taken at or before 2026-10-31T23:59:59.999999999Z; its first \
         images: 019aa000-0000-7000-8000-000000000001 (2026-11-01T10:00:00Z), \
         019ab000-0000-7000-8000-000000000003 (2026-11-03T10:00:00Z)"
    )]
    #[case(
        "db01@019a",
        "db01@019a names several images: 019aa000-0000-7000-8000-000000000001 \
         (2026-11-01T10:00:00Z), 019ab000-0000-7000-8000-000000000003 (2026-11-03T10:00:00Z)"
    )]
    #[case(
        "db01@yesterday",
        "not a image (SERVER, SERVER@ID or SERVER@TIME): \"db01@yesterday\""
    )]
    #[case("../x@1234", "not a server name: \"../x\"")]
    fn what_does_not_fit_is_explained(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(
            choose(text).expect_err("fits nothing").to_string(),
            expected
        );
    }

    #[test]
    fn an_empty_library_says_so() {
        let error = "db01".parse::<ImageRef>().expect("parses").choose(vec![]);
        let text = error.expect_err("is empty").to_string();
        assert_eq!(text, "no image of server db01; the library is empty");
    }
}
