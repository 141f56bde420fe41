// SPDX-License-Identifier: MIT OR Apache-2.0
//! The least that a program of this kind can do, to compare with: no library, no index, no checks.
//!
//! `cargo run --release -p image-library --example plain_pipeline -- DISK OUTPUT [BEFORE]`
//!
//! Every chunk of 64 KiB that is not zeros is hashed (BLAKE3), compressed (zstd -1), sealed
//! (AES-256-GCM) and written to one file, which is durable at the end; one thread for each
//! processor. Holes are not read. With BEFORE, an earlier state of the disk, only chunks that
//! differ from it: what they come to is what a snapshot of the change has to send.
//!
//! Prints a JSON object: `chunks`, their `plain_bytes` and `compressed_bytes`, and
//! `written_bytes`, which has the tags too.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use disk::ReadAt;
use disk::block::{DiskFile, ExtentKind};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zstd::bulk::Compressor;

const CHUNK: usize = 64 << 10;
/// What a thread claims and reads at a time.
const BATCH: u64 = 2 << 20;

struct Pipeline {
    disk: DiskFile,
    before: Option<DiskFile>,
    output: File,
    key: LessSafeKey,
    next: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    chunks: AtomicU64,
    plain_bytes: AtomicU64,
    compressed_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Pipeline {
    fn work(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut zstd = Compressor::new(1)?;
        let (mut now, mut before) = (vec![0; BATCH as usize], vec![0; BATCH as usize]);
        loop {
            let start = self.next.fetch_add(BATCH, Ordering::Relaxed);
            let end = (start + BATCH).min(self.disk.length_bytes());
            if start >= end {
                return Ok(());
            }
            let length = (end - start) as usize;
            if !read_data(&self.disk, start, &mut now[..length])? {
                continue;
            }
            if let Some(device) = &self.before {
                read_data(device, start, &mut before[..length])?;
            }
            let mut sealed = Vec::new();
            let chunks = now[..length].chunks(CHUNK).zip(before.chunks(CHUNK));
            for (number, (chunk, before)) in chunks.enumerate() {
                let is_as_before = self.before.is_some() && chunk == &before[..chunk.len()];
                if !is_as_before && !is_zero(chunk) {
                    let at = start + (number * CHUNK) as u64;
                    self.seal(chunk, at, &mut zstd, &mut sealed)?;
                }
            }
            let length = sealed.len() as u64;
            let at = self
                .counts
                .written_bytes
                .fetch_add(length, Ordering::Relaxed);
            self.output.write_all_at(&sealed, at)?;
        }
    }

    fn seal(
        &self,
        chunk: &[u8],
        at: u64,
        zstd: &mut Compressor<'_>,
        sealed: &mut Vec<u8>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        std::hint::black_box(blake3::hash(chunk));
        let mut body = zstd.compress(chunk)?;
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&at.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let counts = &self.counts;
        counts.chunks.fetch_add(1, Ordering::Relaxed);
        let plain_bytes = chunk.len() as u64;
        counts.plain_bytes.fetch_add(plain_bytes, Ordering::Relaxed);
        let compressed_bytes = body.len() as u64;
        counts
            .compressed_bytes
            .fetch_add(compressed_bytes, Ordering::Relaxed);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut body)
            .map_err(|_| "a chunk cannot be sealed")?;
        sealed.extend_from_slice(&body);
        Ok(())
    }
}

/// Fills a buffer with a part of the disk, holes unread; `false` when all of it is a hole.
fn read_data(disk: &DiskFile, start: u64, buffer: &mut [u8]) -> disk::Result<bool> {
    let mut is_data = false;
    let mut done = 0;
    while done < buffer.len() {
        let extent = disk.extent_at(start + done as u64)?;
        let length =
            (buffer.len() - done).min(usize::try_from(extent.length).unwrap_or(usize::MAX));
        let target = &mut buffer[done..done + length];
        if extent.kind == ExtentKind::Data {
            disk.read_exact_at(start + done as u64, target)?;
            is_data = true;
        } else {
            target.fill(0);
        }
        done += length;
    }
    Ok(is_data)
}

/// As fast as the library's own scan, so that zeros cost both the same.
fn is_zero(bytes: &[u8]) -> bool {
    let is_clear = |word: &[u8]| word.iter().fold(0, |all, byte| all | byte) == 0;
    bytes.chunks(128).all(is_clear)
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (disk, output, before) = match &arguments[..] {
        [disk, output] => (disk, output, None),
        [disk, output, before] => (disk, output, Some(DiskFile::open(Path::new(before))?)),
        _ => return Err("usage: plain_pipeline DISK OUTPUT [BEFORE]".into()),
    };
    let key = UnboundKey::new(&AES_256_GCM, &[1; 32]).map_err(|_| "the key has a wrong length")?;
    let pipeline = Pipeline {
        disk: DiskFile::open(Path::new(disk))?,
        before,
        output: File::create(output)?,
        key: LessSafeKey::new(key),
        next: AtomicU64::new(0),
        counts: Counts::default(),
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let work = || pipeline.work().map_err(|error| error.to_string());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    pipeline.output.sync_all()?;
    let Counts {
        chunks,
        plain_bytes,
        compressed_bytes,
        written_bytes,
    } = pipeline.counts;
    println!(
        "{{\"chunks\": {}, \"plain_bytes\": {}, \"compressed_bytes\": {}, \"written_bytes\": {}}}",
        chunks.into_inner(),
        plain_bytes.into_inner(),
        compressed_bytes.into_inner(),
        written_bytes.into_inner(),
    );
    Ok(())
}
