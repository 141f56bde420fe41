// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several machines on one bucket: uploads, commits and prunes of each beside those of the others,
//! and a prune that is stopped anywhere and goes on when all is different.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use disk::Silent;
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use proptest::prelude::{prop, proptest};
use tempfile::TempDir;

use super::lease::LEASE_TIME;
use super::tests::{Step, step};
use super::{PruneOptions, PruneReport};
use crate::local::write_new;
use crate::store::{
    Bucket, Conditional, Part, ReadAhead, Store, Stored, StoredObject, Version, Workspace,
};
use crate::tests::{begin, draft, noise, put_all, put_disk, read, store};
use crate::{
    Error, Image, ImageId, ImageReader, InitOptions, KeyAccess, LocalLibrary, Result, Upload,
};

const AT_ONCE: PruneOptions = PruneOptions {
    keep: None,
    grace: Duration::ZERO,
    dry_run: false,
    is_sole_pruner: false,
};

/// A bucket in memory with a library in it.
struct Site {
    client: Arc<InMemory>,
}

/// A machine that has the library of a site open.
struct Machine {
    _workspace: TempDir,
    library: LocalLibrary,
}

impl Site {
    fn new() -> Self {
        let client = Arc::new(InMemory::new());
        let options = InitOptions {
            chunk_size_bytes: 16 << 10,
            ..InitOptions::default()
        };
        write_new(&Bucket::in_memory(&client), &options, None, None).expect("creates");
        Self { client }
    }

    fn bucket(&self) -> Arc<dyn Store> {
        Arc::new(Bucket::in_memory(&self.client))
    }

    fn machine(&self, clock: fn() -> Timestamp) -> Machine {
        Self::machine_over(Arc::new(ReadAhead::new(self.bucket())), clock)
    }

    fn machine_over(store: Arc<dyn Store>, clock: fn() -> Timestamp) -> Machine {
        let directory = tempfile::tempdir().expect("a directory");
        let workspace = Workspace::new(directory.path());
        workspace.create().expect("creates");
        let library = LocalLibrary::over(store, workspace, &KeyAccess::default(), clock);
        Machine {
            _workspace: directory,
            library: library.expect("opens"),
        }
    }
}

/// A clock that is ahead by more than a lease.
fn later() -> Timestamp {
    let ahead = SignedDuration::try_from(LEASE_TIME * 2).expect("fits");
    Timestamp::now().checked_add(ahead).expect("fits")
}

fn prune(machine: &Machine) -> PruneReport {
    machine.library.prune(&AT_ONCE, &Silent).expect("prunes")
}

fn put(library: &LocalLibrary, server: &str, disk: &[u8]) -> Box<dyn Upload> {
    let upload = begin(library, server);
    let hashes = put_all(library, &*upload, disk);
    put_disk(&*upload, "sda", disk.len() as u64, &hashes).expect("puts the disk");
    upload
}

/// A store that stops before its n-th operation until it is told to go on.
#[derive(Debug)]
struct Stopping {
    inner: Arc<dyn Store>,
    operations: AtomicUsize,
    stop_before: AtomicUsize,
    stopped: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Stopping {
    fn step(&self) {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        if number == self.stop_before.load(Ordering::SeqCst) {
            self.stopped.send(()).expect("somebody waits");
            let go_on = self.go_on.lock().expect("nothing panics");
            go_on.recv().expect("somebody lets it go on");
        }
    }
}

impl Store for Stopping {
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }
    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        self.step();
        self.inner.read(name, limit, what)
    }
    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        self.step();
        self.inner.open(name)
    }
    fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Option<Part>> {
        self.step();
        self.inner.read_part(name, offset, length)
    }
    fn conditional(&self) -> Option<&dyn Conditional> {
        Some(self)
    }
    fn is_shared(&self) -> bool {
        true
    }
    fn exists(&self, name: &str) -> Result<bool> {
        self.step();
        self.inner.exists(name)
    }
    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        self.step();
        self.inner.create(name, content)
    }
    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        self.step();
        self.inner.replace(name, content)
    }
    fn adopt(&self, name: &str, file: &Path) -> Result<()> {
        self.step();
        self.inner.adopt(name, file)
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.step();
        self.inner.remove(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        self.step();
        self.inner.list(prefix)
    }
}

impl Conditional for Stopping {
    fn read_version(
        &self,
        name: &str,
        limit: u64,
        what: &'static str,
    ) -> Result<Option<(Vec<u8>, Version)>> {
        self.step();
        let inner = self.inner.conditional().expect("a bucket");
        inner.read_version(name, limit, what)
    }
    fn swap(
        &self,
        name: &str,
        content: &[u8],
        expected: Option<&Version>,
    ) -> Result<Option<Version>> {
        self.step();
        let inner = self.inner.conditional().expect("a bucket");
        inner.swap(name, content, expected)
    }
}

/// Images that must be readable, with their disks.
type Expected = Vec<(Image, Vec<u8>)>;

fn check(machine: &Machine, expected: &Expected) {
    let listed = machine.library.images().expect("lists");
    let mut ids: Vec<ImageId> = listed.iter().map(|image| image.id).collect();
    let mut wanted: Vec<ImageId> = expected.iter().map(|(image, _)| image.id).collect();
    ids.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    for (image, disk) in expected {
        assert!(read(&machine.library, image) == *disk, "image {}", image.id);
    }
    let report = machine.library.verify(&Silent).expect("verifies");
    assert!(report.is_sound(), "{report:?}");
}

/// What is commited at last, if it is.
fn commit(upload: Box<dyn Upload>, disk: Vec<u8>, expected: &mut Expected) {
    match upload.commit(&draft()) {
        Ok(image) => expected.push((image, disk)),
        Err(Error::Refused { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What happens on another machine while a prune is stopped: it takes over, all that is condemned
/// is removed, and uploads begin and end.
fn go_past(other: &Machine, gone: &[u8], expected: &mut Expected) -> Box<dyn Upload> {
    prune(other);
    expected.push((store(&other.library, "web", gone), gone.to_vec()));
    prune(other);
    let unfinished = put(&other.library, "mail", gone);
    let short_lived = store(&other.library, "x", &noise(70, 40_000));
    other.library.delete_image(short_lived.id).expect("deletes");
    prune(other);
    prune(other);
    unfinished
}

/// One prune that is stopped before its n-th operation. `false` when it has fewer.
fn stop_at(number: usize) -> bool {
    let site = Site::new();
    let (gone, second) = (noise(1, 60_000), noise(2, 60_000));
    let other = site.machine(later);
    // Something to remove, something to condemn, and an upload that relies on both.
    let (stopped, is_stopped) = channel();
    let (go_on, may_go_on) = channel();
    let stopping = Arc::new(Stopping {
        inner: site.bucket(),
        operations: AtomicUsize::new(0),
        stop_before: AtomicUsize::new(usize::MAX),
        stopped,
        go_on: Mutex::new(may_go_on),
    });
    let slow = Site::machine_over(Arc::<Stopping>::clone(&stopping), Timestamp::now);
    let kept = store(&slow.library, "db", &noise(3, 60_000));
    let mut expected = vec![(kept, noise(3, 60_000))];
    let first = store(&slow.library, "web", &gone);
    let old_upload = put(&other.library, "web", &gone);
    slow.library.delete_image(first.id).expect("deletes");
    assert_eq!(prune(&slow).condemned_packs, 1);
    let image = store(&slow.library, "app", &second);
    let younger_upload = put(&other.library, "app", &second);
    slow.library.delete_image(image.id).expect("deletes");

    stopping.operations.store(0, Ordering::SeqCst);
    stopping.stop_before.store(number, Ordering::SeqCst);
    let was_stopped = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| slow.library.prune(&AT_ONCE, &Silent));
        let was_stopped = loop {
            if is_stopped.recv_timeout(Duration::from_millis(5)).is_ok() {
                break true;
            }
            if pruning.is_finished() {
                break is_stopped.try_recv().is_ok();
            }
        };
        let mut unfinished = None;
        if was_stopped {
            unfinished = Some(go_past(&other, &gone, &mut expected));
            go_on.send(()).expect("it waits");
        }
        match pruning.join().expect("does not panic") {
            Ok(_) | Err(Error::Refused { .. } | Error::Locked { .. }) => {}
            Err(error) => panic!("stopped before operation {number}: {error}"),
        }
        if let Some(upload) = unfinished {
            commit(upload, gone.clone(), &mut expected);
        }
        was_stopped
    });
    commit(old_upload, gone.clone(), &mut expected);
    commit(younger_upload, second, &mut expected);
    check(&other, &expected);
    for _ in 0..4 {
        prune(&other);
    }
    // Whatever was left half-way: nothing is kept that no image needs, nothing is lost.
    assert_eq!(prune(&other), PruneReport::default());
    let left = site.bucket().list("prune/").expect("lists");
    assert_eq!(left.len(), 1, "stopped before operation {number}: {left:?}");
    check(&other, &expected);
    check(&site.machine(Timestamp::now), &expected);
    was_stopped
}

#[test]
fn a_prune_that_is_stopped_anywhere_does_no_harm_when_it_goes_on() {
    let mut number = 0;
    while stop_at(number) {
        number += 1;
    }
    assert!(number > 30, "{number} operations");
}

#[test]
fn a_second_prune_waits_until_the_lease_has_run_out() {
    let site = Site::new();
    let (one, two) = (site.machine(Timestamp::now), site.machine(Timestamp::now));
    let core = one.library.core();
    let store = core.conditional().expect("is honoured");
    let lease = super::Lease::take(core, store).expect("is free");
    let error = two.library.prune(&AT_ONCE, &Silent).expect_err("is held");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("s3://memory/library/leases/prune"),
        "{error}"
    );
    // Whoever has another time takes it; the first holder finds out.
    prune(&site.machine(later));
    assert!(matches!(lease.give_back(), Err(Error::Refused { .. })));
    assert_eq!(prune(&two), PruneReport::default());
}

#[test]
fn where_conditions_are_not_honoured_only_the_one_that_was_chosen_prunes() {
    let site = Site::new();
    let machine = site.machine(Timestamp::now);
    let image = store(&machine.library, "web", &noise(1, 60_000));
    // As if the probe had found so.
    let bucket = site.bucket();
    let config = bucket
        .read("library.json", 1 << 16, "x")
        .expect("reads")
        .expect("is there");
    let config = String::from_utf8(config).expect("is JSON");
    let without = config.replace(
        "\"conditional_writes\": true",
        "\"conditional_writes\": false",
    );
    assert_ne!(config, without);
    bucket
        .replace("library.json", without.as_bytes())
        .expect("writes");
    let machine = site.machine(Timestamp::now);
    machine.library.delete_image(image.id).expect("deletes");
    let error = machine
        .library
        .prune(&AT_ONCE, &Silent)
        .expect_err("is refused");
    assert!(error.to_string().contains("--sole-pruner"), "{error}");
    let sole = PruneOptions {
        is_sole_pruner: true,
        ..AT_ONCE
    };
    let prune = || machine.library.prune(&sole, &Silent).expect("prunes");
    assert_eq!(prune().condemned_packs, 1);
    assert_eq!(prune().removed_packs, 1);
    assert!(bucket.list("packs/").expect("lists").is_empty());
}

/// Two machines, and what must be there.
struct History {
    site: Site,
    machines: [Machine; 2],
    /// Uploads that began on them go on.
    retired: Vec<Machine>,
    open: Vec<(Box<dyn Upload>, u64)>,
    images: BTreeMap<ImageId, (Image, u64)>,
    deleted: BTreeMap<ImageId, (Image, u64)>,
}

impl History {
    fn new() -> Self {
        let site = Site::new();
        let machines = [site.machine(Timestamp::now), site.machine(Timestamp::now)];
        Self {
            site,
            machines,
            retired: Vec::new(),
            open: Vec::new(),
            images: BTreeMap::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// Disks share chunks with the next one.
    fn disk(number: u64) -> Vec<u8> {
        let mut disk = noise(number, 64 << 10);
        disk.extend(noise(number + 1, 32 << 10));
        disk
    }

    fn run(&mut self, machine: usize, step: &Step) {
        let library = self.machines[machine].library.clone();
        let nth = |map: &BTreeMap<ImageId, (Image, u64)>, n: usize| {
            let key = map.keys().nth(n % map.len().max(1));
            key.copied()
        };
        match step {
            Step::Begin { server, disk } => {
                let upload = put(&library, ["a", "b"][*server], &Self::disk(*disk));
                self.open.push((upload, *disk));
            }
            Step::Commit(n) if !self.open.is_empty() => {
                let (upload, disk) = self.open.remove(n % self.open.len());
                match upload.commit(&draft()) {
                    Ok(image) => drop(self.images.insert(image.id, (image, disk))),
                    Err(Error::Refused { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Abandon(n) if !self.open.is_empty() => {
                drop(self.open.remove(n % self.open.len()));
            }
            Step::Commit(_) | Step::Abandon(_) => {}
            Step::Delete(n) => {
                if let Some(id) = nth(&self.images, *n) {
                    library.delete_image(id).expect("deletes");
                    let image = self.images.remove(&id).expect("is there");
                    self.deleted.insert(id, image);
                }
            }
            Step::Undelete(n) => {
                if let Some(id) = nth(&self.deleted, *n) {
                    library.undelete_image(id).expect("takes it back");
                    let image = self.deleted.remove(&id).expect("is there");
                    self.images.insert(id, image);
                }
            }
            Step::Prune => {
                for id in prune(&self.machines[machine]).purged {
                    self.deleted.remove(&id).expect("was deleted");
                }
            }
            Step::Reopen => {
                let fresh = self.site.machine(Timestamp::now);
                let old = std::mem::replace(&mut self.machines[machine], fresh);
                self.retired.push(old);
            }
        }
    }

    fn check(&self) {
        let images = self.images.values();
        let expected = images.map(|(image, disk)| (image.clone(), Self::disk(*disk)));
        let expected = expected.collect();
        for machine in &self.machines {
            check(machine, &expected);
        }
    }
}

#[test]
fn what_stands_elsewhere_since_another_machine_pruned_is_found() {
    let site = Site::new();
    let [here, there] = [site.machine(Timestamp::now), site.machine(Timestamp::now)];
    let disk = noise(80, 100_000);
    let first = store(&here.library, "one", &disk);
    there.library.delete_image(first.id).expect("deletes");
    let prunes = |is_enough: fn(&PruneReport) -> bool| (0..6).any(|_| is_enough(&prune(&there)));
    assert!(prunes(|report| report.condemned_packs > 0));
    let second = store(&there.library, "two", &disk);
    assert!(prunes(|report| report.removed_packs > 0));
    // This machine knows the chunks in a pack that is gone, and has not looked since.
    assert!(read(&here.library, &second) == disk);
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn two_servers_on_one_bucket_lose_nothing_and_keep_nothing_too_much(
        steps in prop::collection::vec((0usize..2, step()), 1..30)
    ) {
        let mut history = History::new();
        for (machine, step) in &steps {
            history.run(*machine, step);
        }
        history.check();
        history.open.clear();
        for machine in [0, 1, 0] {
            history.run(machine, &Step::Prune);
        }
        history.check();
        let rest = prune(&history.machines[1]);
        assert_eq!((rest.condemned_packs, rest.removed_packs, rest.waiting_packs), (0, 0, 0));
    }
}
