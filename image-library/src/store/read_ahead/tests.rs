// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks over a store that counts its requests and takes its time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

/// One object of a few MiB; a request for the block with number `fails` fails once.
#[derive(Debug)]
struct Slow {
    content: Vec<u8>,
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    fails: AtomicUsize,
}

impl Slow {
    fn new() -> Arc<Self> {
        let content = (0..(10 << 20) + 77).map(|i: u32| (i / 3) as u8).collect();
        Arc::new(Self {
            content,
            requests: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            fails: AtomicUsize::new(usize::MAX),
        })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Store for Slow {
    fn place(&self, name: &str) -> String {
        name.to_owned()
    }

    fn read(&self, _: &str, _: u64, _: &'static str) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.content.clone()))
    }

    fn open(&self, _: &str) -> Result<Option<Box<dyn StoredObject>>> {
        Ok(None)
    }

    fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Option<Part>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let number = (offset / BLOCK_LENGTH) as usize;
        let failing =
            self.fails
                .compare_exchange(number, usize::MAX, Ordering::SeqCst, Ordering::SeqCst);
        if failing.is_ok() {
            return Err(Error::Refused {
                what: "a block",
                problem: "once".to_owned(),
            });
        }
        if name == "gone" {
            return Ok(None);
        }
        let end = (offset + length).min(self.content.len() as u64) as usize;
        Ok(Some(Part {
            bytes: self.content[(offset as usize).min(end)..end].to_vec(),
            total: self.content.len() as u64,
        }))
    }

    fn exists(&self, _: &str) -> Result<bool> {
        Ok(true)
    }

    fn create(&self, _: &str, _: &[u8]) -> Result<bool> {
        Ok(false)
    }

    fn replace(&self, _: &str, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, _: &str, _: &Path) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &str) -> Result<Vec<Stored>> {
        Ok(Vec::new())
    }
}

fn open(store: &ReadAhead) -> Box<dyn StoredObject> {
    store.open("pack").expect("works").expect("is there")
}

#[test]
fn a_long_read_fetches_its_blocks_at_once_and_gives_the_right_bytes() {
    let slow = Slow::new();
    let store = ReadAhead::new(Arc::<Slow>::clone(&slow));
    let object = open(&store);
    assert_eq!(object.length(), slow.content.len() as u64);
    let mut bytes = vec![0; 6 << 20];
    object.read_exact_at(&mut bytes, 500_000).expect("reads");
    assert_eq!(bytes, slow.content[500_000..500_000 + (6 << 20)]);
    // The head and seven blocks.
    assert_eq!(slow.requests(), 8);
    assert!(slow.most_at_once.load(Ordering::SeqCst) > 3);
    // All of it is kept.
    object.read_exact_at(&mut bytes, 500_000).expect("reads");
    assert_eq!(slow.requests(), 8);
}

#[test]
fn readers_of_the_same_block_share_one_request() {
    let slow = Slow::new();
    let store = ReadAhead::new(Arc::<Slow>::clone(&slow));
    let object = open(&store);
    std::thread::scope(|scope| {
        for reader in 0..12u64 {
            let object = &object;
            let slow = &slow;
            scope.spawn(move || {
                let at = (3 << 20) + reader * 1000;
                let mut bytes = vec![0; 5000];
                object.read_exact_at(&mut bytes, at).expect("reads");
                assert_eq!(bytes, slow.content[at as usize..at as usize + 5000]);
            });
        }
    });
    assert_eq!(slow.requests(), 2);
}

#[test]
fn what_was_announced_is_there_when_it_is_wanted() {
    let slow = Slow::new();
    let store = ReadAhead::new(Arc::<Slow>::clone(&slow));
    store.will_read("pack", 2 << 20, 4 << 20);
    // Told twice, fetched once.
    store.will_read("pack", 2 << 20, 4 << 20);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(slow.requests(), 5);
    let object = open(&store);
    let mut bytes = vec![0; 4 << 20];
    object.read_exact_at(&mut bytes, 2 << 20).expect("reads");
    assert_eq!(bytes, slow.content[2 << 20..6 << 20]);
    assert_eq!(slow.requests(), 5);
}

#[test]
fn announcements_are_bounded() {
    let slow = Slow::new();
    let store = ReadAhead::new(Arc::<Slow>::clone(&slow));
    store.will_read("pack", 0, u64::MAX / 2);
    let state = store.shared.lock();
    assert!(state.queue.len() + state.on_the_way <= WAITING_MAX);
    assert!(state.fetchers <= FETCHERS_MAX);
}

#[test]
fn a_failed_guess_is_asked_for_again_by_who_needs_it() {
    let slow = Slow::new();
    slow.fails.store(4, Ordering::SeqCst);
    let store = ReadAhead::new(Arc::<Slow>::clone(&slow));
    store.will_read("pack", 4 << 20, 10);
    std::thread::sleep(Duration::from_millis(200));
    let object = open(&store);
    let mut bytes = [0; 10];
    object.read_exact_at(&mut bytes, 4 << 20).expect("reads");
    assert_eq!(bytes, slow.content[4 << 20..(4 << 20) + 10]);
}

#[test]
fn what_is_gone_or_cut_off_is_an_error() {
    let store = ReadAhead::new(Slow::new());
    assert!(store.open("gone").expect("works").is_none());
    let object = open(&store);
    let mut bytes = [0; 100];
    let error = object.read_exact_at(&mut bytes, object.length() - 50);
    assert!(matches!(error, Err(Error::Corrupt { .. })), "{error:?}");
}
