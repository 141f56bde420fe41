// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server counts, as Prometheus reads it. Names and labels are fixed: nothing that a client
//! sends becomes one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or one that goes up and down.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn increment(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Answers by the first digit of their status, from 1.
    answers: [Count; 5],
    pub(super) request_milliseconds: Count,
    pub(super) requests_under_way: Count,
    pub(super) received_bytes: Count,
    pub(super) read_bytes: Count,
    pub(super) commits: Count,
    pub(super) refused_commits: Count,
    pub(super) failed_authentications: Count,
    pub(super) connections: Count,
    pub(super) refused_connections: Count,
    pub(super) failed_handshakes: Count,
    pub(super) lost_audit_events: Count,
}

impl Metrics {
    pub(super) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(count) = self.answers.get(class) {
            count.increment();
        }
    }

    /// The text that Prometheus fetches.
    pub(super) fn to_text(&self, uploads: usize) -> String {
        let mut text = String::new();
        let name = "relevo_library_requests_total";
        let help = "Answers by class of their status.";
        begin(&mut text, name, "counter", help);
        for (class, count) in (1..).zip(&self.answers) {
            let name = format!("{name}{{status=\"{class}xx\"}}");
            line(&mut text, &name, count.get());
        }
        let mut one = |kind, name: &str, help, value| {
            let name = format!("relevo_library_{name}");
            begin(&mut text, &name, kind, help);
            line(&mut text, &name, value);
        };
        for (name, help, count) in self.counters() {
            one("counter", name, help, count.get());
        }
        let (requests, connections) = (self.requests_under_way.get(), self.connections.get());
        for (name, help, value) in [
            ("requests_under_way", "Requests being answered.", requests),
            ("connections", "Open connections.", connections),
            ("uploads", "Uploads under way.", uploads as u64),
        ] {
            one("gauge", name, help, value);
        }
        text
    }

    /// What only grows: name, what it is, value.
    fn counters(&self) -> [(&'static str, &'static str, &Count); 9] {
        [
            (
                "request_milliseconds_total",
                "Time spent on requests.",
                &self.request_milliseconds,
            ),
            (
                "received_bytes_total",
                "Bytes of request bodies.",
                &self.received_bytes,
            ),
            (
                "disk_read_bytes_total",
                "Bytes of disks that were given out.",
                &self.read_bytes,
            ),
            (
                "commits_total",
                "Images that were committed.",
                &self.commits,
            ),
            (
                "refused_commits_total",
                "Commits that were refused.",
                &self.refused_commits,
            ),
            (
                "failed_authentications_total",
                "Requests with a token that was no good.",
                &self.failed_authentications,
            ),
            (
                "refused_connections_total",
                "Connections beyond the limits.",
                &self.refused_connections,
            ),
            (
                "failed_handshakes_total",
                "Connections that did not speak TLS in time.",
                &self.failed_handshakes,
            ),
            (
                "lost_audit_events_total",
                "Events that could not be written to the audit trail.",
                &self.lost_audit_events,
            ),
        ]
    }
}

fn begin(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_with_their_kind() {
        let metrics = Metrics::default();
        metrics.answered(200);
        metrics.answered(404);
        metrics.answered(404);
        let text = metrics.to_text(3);
        for expected in [
            "# TYPE relevo_library_requests_total counter\n",
            "relevo_library_requests_total{status=\"2xx\"} 1\n",
            "relevo_library_requests_total{status=\"4xx\"} 2\n",
            "# TYPE relevo_library_uploads gauge\nrelevo_library_uploads 3\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
