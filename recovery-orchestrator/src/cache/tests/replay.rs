// SPDX-License-Identifier: MIT OR Apache-2.0
//! A benchmark: the reads of a boot replayed over a slow way to the image.
//!
//! `cargo test -p recovery-orchestrator --lib cache::tests::replay -- --ignored --nocapture`

use std::thread;
use std::time::Instant;

use super::*;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 256 * MIB;
const READERS: usize = 4;
const NO_TIME: Duration = Duration::ZERO;
/// What a guest does with what it read.
const THINK: Duration = Duration::from_millis(3);
/// What the way to the image carries: 1 Gbit/s.
const BYTES_PER_SECOND: f64 = 125e6;

/// An image behind a network: each request takes a while, and all share what it carries.
#[derive(Debug)]
struct Remote {
    image: Arc<Image>,
    delay: Duration,
    wire: Mutex<()>,
}

impl ReadAt for Remote {
    fn length_bytes(&self) -> u64 {
        self.image.length_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
            let wire = self.wire.lock().unwrap();
            thread::sleep(Duration::from_secs_f64(
                buffer.len() as f64 / BYTES_PER_SECOND,
            ));
            drop(wire);
        }
        self.image.read_exact_at(offset, buffer)
    }
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Files of 4 KiB to 1 MiB, scattered over the disk in clusters of 4 MiB as a filesystem lays them
/// out; each is read in pieces of 4 to 32 KiB, some only in part.
fn boot_reads() -> Vec<(u64, usize)> {
    let mut random = Random(88_172_645_463_325_252);
    let clusters: Vec<u64> = (0..24)
        .map(|_| random.below(DISK_BYTES / MIB - 4))
        .collect();
    let mut reads = Vec::new();
    while reads.len() < 1500 {
        let cluster = clusters[random.below(24) as usize] * MIB;
        let start = cluster + random.below(1024) * 4096;
        let pieces_max = 1 << random.below(6);
        let pieces = 1 + random.below(pieces_max);
        let mut at = start;
        for _ in 0..pieces {
            let length = (1 + random.below(8)) * 4096;
            if at + length <= DISK_BYTES {
                reads.push((at, length as usize));
            }
            at += length;
        }
    }
    reads
}

/// All reads by several readers, who think a while before each; the time of each in order, and of
/// all.
fn replay(disk: &dyn ReadAt, reads: &[(u64, usize)], think: Duration) -> (Vec<Duration>, Duration) {
    let next = AtomicU64::new(0);
    let times = Mutex::new(Vec::new());
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some((offset, length)) = reads.get(number) else {
                        break;
                    };
                    thread::sleep(think);
                    let began = Instant::now();
                    disk.read_exact_at(*offset, &mut buffer[..*length]).unwrap();
                    times.lock().unwrap().push(began.elapsed());
                }
            });
        }
    });
    let total = started.elapsed();
    let mut times = times.into_inner().unwrap();
    times.sort();
    (times, total)
}

fn show(name: &str, (times, total): &(Vec<Duration>, Duration), fetched: CacheLine) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |percent: usize| ms(times[times.len() * percent / 100]);
    println!(
        "{name:42} p50 {:8.3} ms  p99 {:8.3} ms  total {:8.0} ms  {:5} fetches {:6.1} MiB",
        at(50),
        at(99),
        ms(*total),
        fetched.0,
        fetched.1 as f64 / MIB as f64
    );
}

/// Requests and bytes.
#[derive(Clone, Copy)]
struct CacheLine(u64, u64);

#[test]
#[ignore = "a benchmark of a minute"]
fn boots_over_a_slow_way() {
    let image = Arc::new(Image::new(noise(1, DISK_BYTES as usize), 65_536));
    let hashes = Arc::new(Known::of(&image));
    let reads = boot_reads();
    for delay_ms in [0, 1, 10, 50] {
        let remote = Arc::new(Remote {
            image: Arc::clone(&image),
            delay: Duration::from_millis(delay_ms),
            wire: Mutex::default(),
        });
        let bare = replay(&*remote, &reads, NO_TIME);
        let bytes: usize = reads.iter().map(|(_, length)| length).sum();
        let line = CacheLine(reads.len() as u64, bytes as u64);
        show(&format!("{delay_ms} ms, no cache"), &bare, line);
        for random_kib in [64, 256, 512, 1024] {
            let options = FetchOptions {
                random_bytes: random_kib << 10,
                ..FetchOptions::default()
            };
            let name = format!("{delay_ms} ms, cold, {random_kib} KiB");
            measure(&name, &remote, &hashes, (options, NO_TIME), &reads);
        }
        let name = format!("{delay_ms} ms, thinking guest, cold");
        let options = (FetchOptions::default(), THINK);
        measure(&name, &remote, &hashes, options, &reads);
        second_boot(delay_ms, &remote, &hashes, &reads);
    }
}

fn measure(
    name: &str,
    remote: &Arc<Remote>,
    hashes: &Arc<Known>,
    (options, think): (FetchOptions, Duration),
    reads: &[(u64, usize)],
) {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&large(directory.path()));
    let disk = CachedDisk::new(
        cache,
        Arc::clone(remote) as _,
        Arc::clone(hashes) as _,
        options,
    );
    let disk = disk.unwrap();
    let times = replay(&disk, reads, think);
    let counters = disk.counters();
    let line = CacheLine(counters.fetch_count, counters.fetched_bytes);
    show(name, &times, line);
}

/// A boot with the list of the one before, fetched ahead while it runs; and one from files.
fn second_boot(delay_ms: u64, remote: &Arc<Remote>, hashes: &Arc<Known>, reads: &[(u64, usize)]) {
    let directory = tempfile::tempdir().unwrap();
    let list: Vec<_> = reads.iter().map(|(at, n)| *at..*at + *n as u64).collect();
    let stop = AtomicBool::new(false);
    for name in ["thinking guest, list ahead", "thinking guest, from files"] {
        let cache = open(&large(directory.path()));
        let options = FetchOptions::default();
        let disk = CachedDisk::new(
            cache,
            Arc::clone(remote) as _,
            Arc::clone(hashes) as _,
            options,
        );
        let disk = disk.unwrap();
        let times = thread::scope(|scope| {
            scope.spawn(|| disk.prefetch(&list, &stop));
            replay(&disk, reads, THINK)
        });
        let counters = disk.counters();
        let line = CacheLine(counters.fetch_count, counters.fetched_bytes);
        show(&format!("{delay_ms} ms, {name}"), &times, line);
    }
}

fn large(directory: &Path) -> CacheOptions {
    CacheOptions {
        disk_bytes_max: 1 << 30,
        memory_bytes_max: 64 << 20,
        ..on_disk(directory)
    }
}

/// Hashes that are worked out once.
#[derive(Debug)]
struct Known {
    leaves: Vec<Vec<Option<ContentHash>>>,
    count: u64,
}

impl Known {
    fn of(image: &Image) -> Self {
        let count = image.chunk_count();
        let numbers = 0..count.div_ceil(LEAF_CHUNKS as u64);
        Self {
            leaves: numbers.map(|number| image.leaf(number).unwrap()).collect(),
            count,
        }
    }
}

impl DiskHashes for Known {
    fn image(&self) -> ImageId {
        "0192f0c1-2233-7aaa-8bbb-ccccddddeeee".parse().unwrap()
    }

    fn chunk_size_bytes(&self) -> u32 {
        65_536
    }

    fn chunk_count(&self) -> u64 {
        self.count
    }

    fn leaf(&self, number: u64) -> image_library::Result<Vec<Option<ContentHash>>> {
        let number = usize::try_from(number).unwrap();
        Ok(self.leaves.get(number).cloned().unwrap_or_default())
    }
}
