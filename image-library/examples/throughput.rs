// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what storing and giving back a disk costs, beside a plain loop over the same bytes.
//!
//! `cargo run --release -p image-library --example throughput -- DISK DIRECTORY`
//!
//! The loop does what nobody can do without: BLAKE3, zstd -1 and AES-256-GCM of every chunk of
//! 64 KiB that is not zeros. CPU seconds are what to compare on a busy machine.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use disk::{ReadAt, SectorSize, Silent};
use image_library::{
    Consistency, DiskDraft, DiskIndex, ImageDraft, ImageReader, IngestDisk, InitOptions,
    LocalLibrary, UploadTarget, ingest,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const CHUNK: u64 = 64 << 10;

#[derive(Debug)]
struct RawDisk {
    file: File,
    length: u64,
}

impl ReadAt for RawDisk {
    fn length_bytes(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| disk::Error::File {
                action: "read",
                path: "the disk".into(),
                source,
            })
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn measure<T>(
    what: &str,
    bytes: u64,
    work: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let result = work()?;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let megabytes = bytes as f64 / 1e6;
    println!(
        "{what:24} {wall:7.2} s wall, {:6.0} MB/s; {cpu:6.2} s CPU, {:6.0} MB per CPU second",
        megabytes / wall,
        megabytes / cpu,
    );
    Ok(result)
}

/// User and system time of this process, from `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

/// What every program of this kind must at least do; gives the bytes that are not zeros.
fn plain_loop(disk: &RawDisk) -> Result<u64, Box<dyn Error>> {
    let key = UnboundKey::new(&AES_256_GCM, &[1; 32]).map_err(|_| "no key")?;
    let key = LessSafeKey::new(key);
    let (next, data) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> Result<(), String> {
        let mut zstd = zstd::bulk::Compressor::new(1).map_err(|e| e.to_string())?;
        let mut chunk = vec![0; CHUNK as usize];
        loop {
            let offset = next.fetch_add(CHUNK, Ordering::Relaxed);
            if offset + CHUNK > disk.length {
                return Ok(());
            }
            disk.read_exact_at(offset, &mut chunk)
                .map_err(|e| e.to_string())?;
            if is_zero(&chunk) {
                continue;
            }
            data.fetch_add(CHUNK, Ordering::Relaxed);
            std::hint::black_box(blake3::hash(&chunk));
            let mut sealed = zstd.compress(&chunk).map_err(|e| e.to_string())?;
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&offset.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
                .map_err(|_| "does not seal")?;
            std::hint::black_box(sealed);
        }
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(data.load(Ordering::Relaxed))
}

/// As fast as the library's own scan, so that zeros cost both the same.
fn is_zero(bytes: &[u8]) -> bool {
    let is_clear = |word: &[u8]| word.iter().fold(0, |all, byte| all | byte) == 0;
    bytes.chunks(128).all(is_clear)
}

/// Writes what is data to a sparse file with two readers, and makes it durable.
fn restore(device: &Arc<dyn ReadAt>, path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::create(path)?;
    file.set_len(device.length_bytes())?;
    let next = AtomicU64::new(0);
    let work = || -> Result<(), String> {
        let mut buffer = vec![0; 4 << 20];
        loop {
            let start = next.fetch_add(4 << 20, Ordering::Relaxed);
            let end = (start + (4 << 20)).min(device.length_bytes());
            let mut at = start;
            while at < end {
                let extent = device.extent_at(at).map_err(|e| e.to_string())?;
                let length = extent.length.min(end - at);
                if extent.kind == disk::block::ExtentKind::Data {
                    let target = &mut buffer[..length as usize];
                    device
                        .read_exact_at(at, target)
                        .map_err(|e| e.to_string())?;
                    file.write_all_at(target, at).map_err(|e| e.to_string())?;
                }
                at += length;
            }
            if start >= device.length_bytes() {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    file.sync_all()?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, directory] = &arguments[..] else {
        return Err("usage: throughput DISK DIRECTORY".into());
    };
    let open = || -> Result<RawDisk, Box<dyn Error>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(RawDisk { file, length })
    };
    let disk = open()?;
    let length = disk.length;
    plain_loop(&disk)?;
    let data = plain_loop(&disk)?;
    measure("plain loop", data, || plain_loop(&disk))?;
    let library = LocalLibrary::init(
        &Path::new(directory).join("library"),
        &InitOptions::default(),
    )?;
    let target = UploadTarget {
        server: "bench".parse()?,
    };
    let draft = ImageDraft {
        taken_at: "2026-01-01T00:00:00Z".parse()?,
        consistency: Consistency::Cold,
        machine: None,
    };
    let take = || -> Result<_, Box<dyn Error>> {
        let disks = [IngestDisk {
            draft: DiskDraft {
                name: "sda".to_owned(),
                size_bytes: length,
                sector_size: SectorSize::B512,
            },
            device: Arc::new(open()?),
            used: None,
            known: None,
        }];
        Ok(ingest(&library, &target, &disks, &draft, &Silent)?)
    };
    let (image, stats) = measure("first ingest", data, take)?;
    println!("{stats:?}, {} bytes stored", image.stored_bytes);
    measure("unchanged ingest", data, take)?;
    measure("verify", data, || Ok(library.verify(&Silent)?))?;
    let device = library.open_disk(image.id, DiskIndex(0))?;
    let restored = Path::new(directory).join("restored.raw");
    measure("restore", data, || restore(&device, &restored))?;
    let peak = std::fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or_default());
    Ok(())
}
