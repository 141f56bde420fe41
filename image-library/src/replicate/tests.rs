// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is copied into another library is the original, once.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use disk::{Finding, Monitor, Silent, Unit};

use super::{ReplicateOptions, ReplicateReport};
use crate::store::{list_packs, names};
use crate::tests::{TestLibrary, noise, sample_disk};
use crate::{Error, ImageReader, InitOptions, Result};

fn replicate(from: &TestLibrary, to: &TestLibrary) -> ReplicateReport {
    let options = ReplicateOptions::default();
    try_replicate(from, to, &options, &Silent).expect("replicates")
}

fn try_replicate(
    from: &TestLibrary,
    to: &TestLibrary,
    options: &ReplicateOptions,
    monitor: &dyn Monitor,
) -> Result<ReplicateReport> {
    let stop = AtomicBool::new(false);
    from.library.replicate(&to.library, options, monitor, &stop)
}

#[test]
fn a_copy_is_the_original_and_is_made_once() {
    let (here, there) = (TestLibrary::new(), TestLibrary::new());
    let mut disk = sample_disk(1, 3_000_000);
    let first = here.store("web", &disk);
    let other = here.store("mail", &noise(2, 500_000));
    disk[1_000_000..1_000_100].fill(7);
    let second = here.store("web", &disk);
    let report = replicate(&here, &there);
    let copied: Vec<_> = report.copied.iter().map(|image| image.id).collect();
    assert_eq!(copied, [first.id, other.id, second.id]);
    // Of the second image of a server only what changed: one chunk, or two.
    assert!(
        (1..=32 << 10).contains(&report.copied[2].new_bytes),
        "{report:?}"
    );
    let images = there.library.images().expect("lists");
    for (copy, original) in images.iter().zip([&first, &other, &second]) {
        assert_eq!(
            (copy.id, copy.received_at),
            (original.id, original.received_at)
        );
        assert_eq!(copy.disks, original.disks);
        assert_eq!(there.read(copy), here.read(original));
    }
    assert!(there.library.verify(&Silent).expect("verifies").is_sound());
    let again = replicate(&here, &there);
    assert_eq!((again.copied.len(), again.present), (0, 3));
}

#[test]
fn what_was_deleted_over_there_does_not_come_back_unless_it_is_asked_for() {
    let (here, there) = (TestLibrary::new(), TestLibrary::new());
    let first = here.store("web", &noise(1, 100_000));
    here.store("web", &noise(2, 100_000));
    replicate(&here, &there);
    there.library.delete_image(first.id).expect("deletes");
    let report = replicate(&here, &there);
    assert_eq!(
        (report.copied.len(), report.left_out, report.present),
        (0, 1, 1)
    );
    let options = ReplicateOptions {
        older_too: true,
        ..ReplicateOptions::default()
    };
    let report = try_replicate(&here, &there, &options, &Silent).expect("replicates");
    assert_eq!(report.copied[0].id, first.id);
    assert_eq!(report.copied[0].new_bytes, 0, "it is in the trash still");
    assert_eq!(there.library.images().expect("lists").len(), 2);
}

#[test]
fn only_the_servers_that_are_asked_for_are_copied_and_a_dry_run_copies_none() {
    let (here, there) = (TestLibrary::new(), TestLibrary::new());
    let web = here.store("web", &noise(1, 100_000));
    here.store("mail", &noise(2, 100_000));
    let mut options = ReplicateOptions {
        servers: vec!["web".parse().expect("legal")],
        dry_run: true,
        ..ReplicateOptions::default()
    };
    let planned = try_replicate(&here, &there, &options, &Silent).expect("plans");
    assert_eq!((planned.copied.len(), planned.copied[0].id), (1, web.id));
    assert_eq!(there.library.images().expect("lists"), vec![]);
    options.dry_run = false;
    try_replicate(&here, &there, &options, &Silent).expect("replicates");
    let images = there.library.images().expect("lists");
    assert_eq!(
        images.iter().map(|image| image.id).collect::<Vec<_>>(),
        [web.id]
    );
}

#[test]
fn an_image_that_is_damaged_here_is_told_and_the_others_are_copied() {
    let (here, there) = (TestLibrary::new(), TestLibrary::new());
    let damaged = here.store("one", &noise(1, 500_000));
    let pack = list_packs(&*here.library.core().store).expect("lists")[0];
    let whole = here.store("two", &noise(2, 500_000));
    let path = here.directory.path().join(names::pack(&pack.id));
    let mut bytes = fs::read(&path).expect("reads");
    bytes[200_000] ^= 1;
    fs::write(&path, bytes).expect("writes");
    let report = replicate(&here, &there);
    assert_eq!(report.failed[0].id, damaged.id);
    let problem = &report.failed[0].problem;
    assert!(problem.contains("chunk in pack"), "{problem}");
    assert_eq!(report.copied[0].id, whole.id);
    assert_eq!(there.library.images().expect("lists").len(), 1);
}

#[test]
fn libraries_of_other_chunks_are_refused() {
    let here = TestLibrary::new();
    let there = TestLibrary::with(&InitOptions::default());
    here.store("web", b"bytes");
    let refused = try_replicate(&here, &there, &ReplicateOptions::default(), &Silent);
    let text = refused.expect_err("other chunks").to_string();
    assert!(text.contains("--chunk-size 16384"), "{text}");
}

/// Asks for the end when so many bytes are done.
struct StopAfter<'a> {
    stop: &'a AtomicBool,
    left: AtomicU64,
}

impl Monitor for StopAfter<'_> {
    fn stage(&self, _title: &str) {}
    fn expect(&self, _total: u64, _unit: Unit) {}
    fn advance(&self, amount: u64) {
        let left = self.left.load(Ordering::Relaxed);
        self.left
            .store(left.saturating_sub(amount), Ordering::Relaxed);
        if left <= amount {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn finding(&self, _finding: &Finding) {}
}

#[test]
fn a_copy_that_was_stopped_goes_on_where_it_was() {
    let (here, there) = (TestLibrary::new(), TestLibrary::new());
    let disk = noise(1, 40 << 20);
    here.store("web", &disk);
    let stop = AtomicBool::new(false);
    let monitor = StopAfter {
        stop: &stop,
        left: AtomicU64::new(30 << 20),
    };
    let options = ReplicateOptions::default();
    let stopped = here
        .library
        .replicate(&there.library, &options, &monitor, &stop);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(there.library.images().expect("lists"), vec![]);
    let report = replicate(&here, &there);
    let sent = report.copied[0].new_bytes;
    assert!(sent <= 12 << 20, "{sent} bytes were sent again");
    let images = there.library.images().expect("lists");
    assert!(there.read(&images[0]) == disk);
}
