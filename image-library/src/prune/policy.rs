// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which images of a server are kept: the newest of each of the last hours, days, weeks, months
//! and years that have one.
//!
//! Periods are those of UTC, weeks those of ISO 8601, and an image belongs to the period in which
//! the library received it: a server whose clock is wrong must not decide what is deleted.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::document::Image;
use crate::id::{ImageId, ServerName};

/// How many images of each kind are kept, for every server. A number of 0 keeps none of its kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepPolicy {
    /// The newest images.
    pub last: u32,
    /// The newest image of each of the last hours that have one.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for ISO weeks.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
}

/// Why an image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeepReason {
    /// It is one of the newest.
    Last,
    /// It is the newest of its hour.
    Hourly,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// It is the newest of its year.
    Yearly,
    /// It is the only image of its server: a policy never leaves a server without one.
    Only,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Only => "newest of its server",
        })
    }
}

/// What a policy says about one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Which image.
    pub image: ImageId,
    /// Of which server.
    pub server: ServerName,
    /// When the library received it.
    pub received_at: Timestamp,
    /// Why it is kept; empty when it goes.
    pub keep: Vec<KeepReason>,
}

impl KeepPolicy {
    /// Whether it names nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it says about each image: server by server in the order of names, newest first.
    #[must_use]
    pub fn decide(&self, images: &[Image]) -> Vec<Decision> {
        let mut servers: BTreeMap<&ServerName, Vec<&Image>> = BTreeMap::new();
        for image in images {
            servers.entry(&image.server).or_default().push(image);
        }
        let mut decisions = Vec::with_capacity(images.len());
        for images in servers.values_mut() {
            images.sort_by_key(|image| std::cmp::Reverse((image.received_at, image.id)));
            decisions.extend(self.decide_server(images));
        }
        decisions
    }

    /// `images` are of one server, newest first.
    fn decide_server(&self, images: &[&Image]) -> Vec<Decision> {
        let mut rules = [
            Rule::new(KeepReason::Last, self.last),
            Rule::new(KeepReason::Hourly, self.hourly),
            Rule::new(KeepReason::Daily, self.daily),
            Rule::new(KeepReason::Weekly, self.weekly),
            Rule::new(KeepReason::Monthly, self.monthly),
            Rule::new(KeepReason::Yearly, self.yearly),
        ];
        let decide = |(position, image): (usize, &&Image)| {
            let mut keep: Vec<KeepReason> = rules
                .iter_mut()
                .filter_map(|rule| rule.keeps(position, image.received_at))
                .collect();
            if position == 0 && keep.is_empty() {
                keep.push(KeepReason::Only);
            }
            Decision {
                image: image.id,
                server: image.server.clone(),
                received_at: image.received_at,
                keep,
            }
        };
        images.iter().enumerate().map(decide).collect()
    }
}

/// One line of a policy, going from the newest image to the oldest.
struct Rule {
    reason: KeepReason,
    left: u32,
    period: Option<(i64, i64)>,
}

impl Rule {
    const fn new(reason: KeepReason, left: u32) -> Self {
        Self {
            reason,
            left,
            period: None,
        }
    }

    fn keeps(&mut self, position: usize, received_at: Timestamp) -> Option<KeepReason> {
        let period = self.period_of(position, received_at);
        if self.left == 0 || self.period == Some(period) {
            return None;
        }
        self.left -= 1;
        self.period = Some(period);
        Some(self.reason)
    }

    /// Two images with the same are of the same period.
    fn period_of(&self, position: usize, received_at: Timestamp) -> (i64, i64) {
        let time = received_at.to_zoned(TimeZone::UTC);
        let year = i64::from(time.year());
        match self.reason {
            KeepReason::Last | KeepReason::Only => (0, position as i64),
            KeepReason::Hourly => (1, received_at.as_second().div_euclid(3600)),
            KeepReason::Daily => (2, received_at.as_second().div_euclid(86_400)),
            KeepReason::Weekly => {
                let week = time.date().iso_week_date();
                (i64::from(week.year()), i64::from(week.week()))
            }
            KeepReason::Monthly => (year, i64::from(time.month())),
            KeepReason::Yearly => (year, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Strategy, prop, proptest};

    use super::*;
    use crate::document::Consistency;

    fn image(server: &str, received_at: &str, number: u128) -> Image {
        Image {
            id: ImageId::from_uuid(uuid::Uuid::from_u128(number)),
            server: server.parse().expect("is legal"),
            taken_at: Timestamp::UNIX_EPOCH,
            received_at: received_at.parse().expect("is a time"),
            consistency: Consistency::Crash,
            machine: None,
            disks: Vec::new(),
            parent: None,
            stored_bytes: 0,
            generation: 0,
        }
    }

    fn images(server: &str, times: &[&str]) -> Vec<Image> {
        let numbered = times.iter().zip(1..);
        numbered
            .map(|(time, number)| image(server, time, number))
            .collect()
    }

    /// The times of what is kept, with the reasons.
    fn kept(policy: KeepPolicy, images: &[Image]) -> Vec<String> {
        let decisions = policy.decide(images);
        let kept = decisions
            .iter()
            .filter(|decision| !decision.keep.is_empty());
        kept.map(|decision| {
            let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
            format!("{} {}", decision.received_at, reasons.join(","))
        })
        .collect()
    }

    #[test]
    fn the_newest_image_of_each_period_is_kept() {
        let images = images(
            "web",
            &[
                "2026-11-21T10:15:00Z",
                "2026-11-21T10:45:00Z",
                "2026-11-21T09:00:00Z",
                "2026-11-20T23:00:00Z",
                "2026-11-20T22:00:00Z",
                "2026-10-31T12:00:00Z",
                "2025-12-31T12:00:00Z",
            ],
        );
        let policy = KeepPolicy {
            hourly: 2,
            daily: 2,
            monthly: 3,
            ..KeepPolicy::default()
        };
        assert_eq!(
            kept(policy, &images),
            [
                "2026-11-21T10:45:00Z hourly,daily,monthly",
                "2026-11-21T09:00:00Z hourly",
                "2026-11-20T23:00:00Z daily",
                "2026-10-31T12:00:00Z monthly",
                "2025-12-31T12:00:00Z monthly",
            ]
        );
    }

    #[test]
    fn a_week_goes_over_the_end_of_a_year() {
        // The 29th of December 2025 is the Monday of week 1 of 2026.
        let images = images(
            "web",
            &[
                "2026-01-04T12:00:00Z",
                "2025-12-29T12:00:00Z",
                "2025-12-28T12:00:00Z",
            ],
        );
        let policy = KeepPolicy {
            weekly: 9,
            yearly: 9,
            ..KeepPolicy::default()
        };
        assert_eq!(
            kept(policy, &images),
            [
                "2026-01-04T12:00:00Z weekly,yearly",
                "2025-12-29T12:00:00Z yearly",
                "2025-12-28T12:00:00Z weekly",
            ]
        );
    }

    #[test]
    fn periods_without_an_image_do_not_count() {
        let images = images("web", &["2026-11-21T00:00:00Z", "2020-01-01T00:00:00Z"]);
        let policy = KeepPolicy {
            daily: 2,
            ..KeepPolicy::default()
        };
        assert_eq!(kept(policy, &images).len(), 2);
    }

    #[test]
    fn every_server_is_decided_alone_and_none_is_left_without_an_image() {
        let mut all = images("web", &["2026-11-21T00:00:00Z", "2026-11-20T00:00:00Z"]);
        all.push(image("db", "2020-01-01T00:00:00Z", 99));
        let last = KeepPolicy {
            last: 1,
            ..KeepPolicy::default()
        };
        assert_eq!(
            kept(last, &all),
            ["2020-01-01T00:00:00Z last", "2026-11-21T00:00:00Z last"]
        );
        assert_eq!(
            kept(KeepPolicy::default(), &all),
            [
                "2020-01-01T00:00:00Z newest of its server",
                "2026-11-21T00:00:00Z newest of its server"
            ]
        );
    }

    proptest! {
        #[test]
        fn keeping_again_what_was_kept_keeps_all_of_it(
            seconds in prop::collection::vec(0i64..200_000_000, 1..60),
            counts in prop::array::uniform6(0u32..5),
            servers in prop::collection::vec(0usize..3, 60).prop_map(|s| s),
        ) {
            let images: Vec<Image> = seconds.iter().zip(&servers).zip(1..).map(|((second, server), number)| {
                let mut image = image(["a", "b", "c"][*server], "2020-01-01T00:00:00Z", number);
                image.received_at = Timestamp::from_second(1_600_000_000 + second).expect("fits");
                image
            }).collect();
            let [last, hourly, daily, weekly, monthly, yearly] = counts;
            let policy = KeepPolicy { last, hourly, daily, weekly, monthly, yearly };
            let decisions = policy.decide(&images);
            assert_eq!(decisions.len(), images.len());
            let kept: BTreeSet<ImageId> = decisions.iter()
                .filter(|decision| !decision.keep.is_empty())
                .map(|decision| decision.image)
                .collect();
            let rest: Vec<Image> = images.iter().filter(|image| kept.contains(&image.id)).cloned().collect();
            assert!(policy.decide(&rest).iter().all(|decision| !decision.keep.is_empty()));
        }
    }
}
