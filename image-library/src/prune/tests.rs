// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prunes beside uploads: whatever is committed can be read, whatever is not needed goes.

use std::collections::BTreeMap;
use std::time::Duration;

use disk::Silent;
use proptest::prelude::{Strategy, prop, prop_oneof, proptest};

use super::{KeepPolicy, PruneOptions, PruneReport};
use crate::tests::{TestLibrary, begin, draft, noise, put_all, put_disk};
use crate::{Error, Image, ImageId, ImageReader, InitOptions, LocalLibrary, Upload};

const AT_ONCE: PruneOptions = PruneOptions {
    keep: None,
    grace: Duration::ZERO,
    dry_run: false,
    is_sole_pruner: false,
};

fn prune(library: &LocalLibrary, options: &PruneOptions) -> PruneReport {
    library.prune(options, &Silent).expect("prunes")
}

/// An upload with its one disk, ready to be committed.
fn put(library: &LocalLibrary, server: &str, disk: &[u8]) -> Box<dyn Upload> {
    let upload = begin(library, server);
    let hashes = put_all(library, &*upload, disk);
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts the disk");
    upload
}

fn pack_count(test: &TestLibrary) -> usize {
    let store = &test.library.core().store;
    crate::store::list_packs(&**store).expect("lists").len()
}

#[test]
fn what_no_image_needs_goes_after_two_prunes_and_the_rest_stays() {
    let test = TestLibrary::new();
    let old = test.store("web", &noise(1, 300_000));
    let kept = test.store("db", &noise(2, 300_000));
    test.library.delete_image(old.id).expect("deletes");
    assert_eq!(
        test.library.images().expect("lists"),
        std::slice::from_ref(&kept)
    );
    assert_eq!(test.library.deleted_images().expect("lists").len(), 1);

    let first = prune(&test.library, &AT_ONCE);
    assert_eq!(
        (first.purged.as_slice(), first.condemned_packs),
        (&[old.id][..], 1)
    );
    assert_eq!(pack_count(&test), 2);
    let second = prune(&test.library, &AT_ONCE);
    assert_eq!((second.removed_packs, second.condemned_packs), (1, 0));
    assert_eq!(pack_count(&test), 1);
    assert_eq!(prune(&test.library, &AT_ONCE), PruneReport::default());
    assert_eq!(test.read(&kept), noise(2, 300_000));
    let report = test.library.verify(&Silent).expect("verifies");
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_deleted_image_can_be_taken_back_within_its_grace() {
    let test = TestLibrary::new();
    let image = test.store("web", &noise(1, 300_000));
    test.library.delete_image(image.id).expect("deletes");
    let week = PruneOptions {
        grace: Duration::from_secs(7 * 86_400),
        ..AT_ONCE
    };
    for _ in 0..3 {
        assert_eq!(prune(&test.library, &week), PruneReport::default());
    }
    test.library
        .undelete_image(image.id)
        .expect("takes it back");
    assert_eq!(
        test.library.images().expect("lists"),
        std::slice::from_ref(&image)
    );
    assert_eq!(test.read(&image), noise(1, 300_000));
    let again = test
        .library
        .undelete_image(image.id)
        .expect_err("is not there");
    assert!(matches!(again, Error::NoSuchImage { .. }), "{again}");
}

#[test]
fn a_dry_run_says_the_same_and_does_nothing() {
    let test = TestLibrary::new();
    let old = test.store("web", &noise(1, 300_000));
    let new = test.store("web", &noise(2, 300_000));
    let keep = KeepPolicy {
        last: 1,
        ..KeepPolicy::default()
    };
    let dry = PruneOptions {
        keep: Some(keep),
        dry_run: true,
        ..AT_ONCE
    };
    let would = prune(&test.library, &dry);
    assert_eq!(
        would.decisions.iter().filter(|d| d.keep.is_empty()).count(),
        1
    );
    assert_eq!(test.library.images().expect("lists"), [old, new.clone()]);
    assert_eq!(test.library.deleted_images().expect("lists"), []);
    let wet = PruneOptions {
        dry_run: false,
        ..dry
    };
    assert_eq!(prune(&test.library, &wet).decisions, would.decisions);
    assert_eq!(test.library.images().expect("lists"), [new]);
}

#[test]
fn a_commit_that_was_pruned_past_is_refused_and_leaves_nothing() {
    let test = TestLibrary::new();
    let disk = noise(1, 300_000);
    let old = test.store("web", &disk);
    // It is deduplicated against the old image, and then sleeps while that one goes.
    let upload = put(&test.library, "web", &disk);
    test.library.delete_image(old.id).expect("deletes");
    assert_eq!(prune(&test.library, &AT_ONCE).condemned_packs, 1);
    assert_eq!(prune(&test.library, &AT_ONCE).removed_packs, 1);
    let error = upload.commit(&draft()).expect_err("was pruned past");
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(test.library.images().expect("lists"), []);
    let again = test.store("web", &disk);
    assert_eq!(test.read(&again), disk);
}

#[test]
fn a_commit_between_condemning_and_removing_saves_its_packs() {
    let test = TestLibrary::new();
    let disk = noise(1, 300_000);
    let old = test.store("web", &disk);
    let upload = put(&test.library, "web", &disk);
    test.library.delete_image(old.id).expect("deletes");
    assert_eq!(prune(&test.library, &AT_ONCE).condemned_packs, 1);
    let image = upload.commit(&draft()).expect("commits");
    assert_eq!(prune(&test.library, &AT_ONCE).spared_packs, 1);
    assert_eq!(prune(&test.library, &AT_ONCE).removed_packs, 0);
    assert_eq!(test.read(&image), disk);
}

#[test]
fn nothing_is_deduplicated_against_what_is_condemned() {
    let test = TestLibrary::new();
    let disk = noise(1, 300_000);
    let old = test.store("web", &disk);
    test.library.delete_image(old.id).expect("deletes");
    assert_eq!(prune(&test.library, &AT_ONCE).condemned_packs, 1);
    let new = test.store("web", &disk);
    assert_eq!(pack_count(&test), 2);
    assert_eq!(prune(&test.library, &AT_ONCE).removed_packs, 1);
    assert_eq!(test.read(&new), disk);
}

#[test]
fn a_protected_image_is_deleted_by_nobody() {
    let test = TestLibrary::with(&InitOptions {
        chunk_size_bytes: 16 << 10,
        immutable_for: Duration::from_secs(14 * 86_400),
        ..InitOptions::default()
    });
    let first = test.store("web", &noise(1, 100_000));
    let second = test.store("web", &noise(2, 100_000));
    let error = test
        .library
        .delete_image(first.id)
        .expect_err("is protected");
    assert!(error.to_string().contains("until"), "{error}");
    let keep = KeepPolicy {
        last: 1,
        ..KeepPolicy::default()
    };
    let options = PruneOptions {
        keep: Some(keep),
        ..AT_ONCE
    };
    prune(&test.library, &options);
    assert_eq!(test.library.images().expect("lists"), [first, second]);
}

#[test]
fn a_damaged_manifest_stops_a_prune_before_it_removes_anything() {
    let test = TestLibrary::new();
    let image = test.store("web", &noise(1, 300_000));
    let old = test.store("web", &noise(2, 300_000));
    test.library.delete_image(old.id).expect("deletes");
    let path = test
        .library
        .core()
        .store
        .place(&crate::store::names::image(image.id));
    std::fs::write(path, b"not a document").expect("writes");
    let error = test
        .library
        .prune(&AT_ONCE, &Silent)
        .expect_err("cannot know");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(pack_count(&test), 2);
}

/// What happens in a history, on one machine or on several.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A server's upload begins, and puts its chunks.
    Begin {
        server: usize,
        disk: u64,
    },
    /// The n-th open upload is committed.
    Commit(usize),
    /// The n-th open upload is given up.
    Abandon(usize),
    /// The n-th image is deleted.
    Delete(usize),
    /// The n-th deleted image is taken back.
    Undelete(usize),
    Prune,
    /// The library is opened again, by another process as it were.
    Reopen,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, 0u64..5).prop_map(|(server, disk)| Step::Begin { server, disk }),
        4 => (0usize..4).prop_map(Step::Commit),
        1 => (0usize..4).prop_map(Step::Abandon),
        2 => (0usize..4).prop_map(Step::Delete),
        1 => (0usize..4).prop_map(Step::Undelete),
        3 => prop::strategy::Just(Step::Prune),
        1 => prop::strategy::Just(Step::Reopen),
    ]
}

struct History {
    test: TestLibrary,
    open: Vec<(Box<dyn Upload>, u64)>,
    committed: BTreeMap<ImageId, (Image, u64)>,
    deleted: BTreeMap<ImageId, (Image, u64)>,
}

impl History {
    /// Disks share chunks: a quarter of each is of the next one too.
    fn disk(number: u64) -> Vec<u8> {
        let mut disk = noise(number, 64 << 10);
        disk.extend(noise(number + 1, 32 << 10));
        disk
    }

    fn run(&mut self, step: &Step) {
        let nth = |length: usize, n: usize| (length > 0).then(|| n % length);
        match step {
            Step::Begin { server, disk } => {
                let server = ["a", "b"][*server];
                let upload = put(&self.test.library, server, &Self::disk(*disk));
                self.open.push((upload, *disk));
            }
            Step::Commit(n) => {
                let Some(n) = nth(self.open.len(), *n) else {
                    return;
                };
                let (upload, disk) = self.open.remove(n);
                match upload.commit(&draft()) {
                    Ok(image) => drop(self.committed.insert(image.id, (image, disk))),
                    Err(Error::Refused { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Abandon(n) => {
                if let Some(n) = nth(self.open.len(), *n) {
                    drop(self.open.remove(n));
                }
            }
            Step::Delete(n) => {
                let Some(n) = nth(self.committed.len(), *n) else {
                    return;
                };
                let id = *self.committed.keys().nth(n).expect("is there");
                self.test.library.delete_image(id).expect("deletes");
                let image = self.committed.remove(&id).expect("is there");
                self.deleted.insert(id, image);
            }
            Step::Undelete(n) => {
                let Some(n) = nth(self.deleted.len(), *n) else {
                    return;
                };
                let id = *self.deleted.keys().nth(n).expect("is there");
                self.test.library.undelete_image(id).expect("takes it back");
                let image = self.deleted.remove(&id).expect("is there");
                self.committed.insert(id, image);
            }
            Step::Prune => {
                for id in prune(&self.test.library, &AT_ONCE).purged {
                    self.deleted.remove(&id).expect("was deleted");
                }
            }
            Step::Reopen => {
                let directory = self.test.directory.path();
                self.test.library = LocalLibrary::open(directory).expect("opens");
            }
        }
    }

    fn check(&self) {
        let listed = self.test.library.images().expect("lists");
        assert_eq!(listed.len(), self.committed.len());
        for image in &listed {
            let (known, disk) = &self.committed[&image.id];
            assert_eq!(image, known);
            assert_eq!(self.test.read(image), Self::disk(*disk));
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn every_committed_image_reads_back_whatever_is_pruned_beside_it(
        steps in prop::collection::vec(step(), 1..30)
    ) {
        let mut history = History {
            test: TestLibrary::new(),
            open: Vec::new(),
            committed: BTreeMap::new(),
            deleted: BTreeMap::new(),
        };
        for step in &steps {
            history.run(step);
        }
        history.check();
        // In the end nothing is left that no image needs.
        history.open.clear();
        for _ in 0..3 {
            history.run(&Step::Prune);
        }
        history.check();
        let rest = prune(&history.test.library, &AT_ONCE);
        assert_eq!((rest.condemned_packs, rest.removed_packs, rest.waiting_packs), (0, 0, 0));
    }
}
