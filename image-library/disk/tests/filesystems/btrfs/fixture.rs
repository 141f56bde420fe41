// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that a kernel wrote, and what it showed of them: `fixtures/btrfs/build.sh`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::filesystem::{FileType, Filesystem};
use disk::{Error, ReadAt, Result};
use sha2::{Digest, Sha256};

const PAGE: usize = 4096;

/// A device in memory that keeps nothing of what is zeros.
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    pub(super) length: u64,
    pub(super) pages: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    fn empty(length: u64) -> Self {
        Self {
            length,
            pages: BTreeMap::new(),
        }
    }

    pub(super) fn unpack(name: &str) -> Self {
        let file = std::fs::File::open(folder().join(format!("{name}.img.zst")));
        let mut stream = zstd::Decoder::new(file.expect("a fixture")).expect("zstd");
        let mut device = Self::empty(0);
        let mut page = vec![0; PAGE];
        while let Ok(()) = stream.read_exact(&mut page) {
            if page != [0; PAGE] {
                device
                    .pages
                    .insert(device.length / PAGE as u64, page.clone());
            }
            device.length += PAGE as u64;
        }
        device
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let page = self.pages.entry(at / PAGE as u64);
            page.or_insert_with(|| vec![0; PAGE])[at as usize % PAGE] = *byte;
        }
    }

    pub(super) fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_exact_at(offset, &mut bytes).expect("inside");
        bytes
    }

    /// What is left when everything else reads as zeros.
    pub(super) fn reduced(&self, used: &[std::ops::Range<u64>]) -> Self {
        let mut reduced = Self::empty(self.length);
        for range in used {
            assert!(range.end <= self.length, "{range:?}");
            for (page, bytes) in self.pages.range(range.start / PAGE as u64..) {
                let start = page * PAGE as u64;
                if start >= range.end {
                    break;
                }
                let from = range.start.max(start) - start;
                let to = range.end.min(start + PAGE as u64) - start;
                reduced.write(start + from, &bytes[from as usize..to as usize]);
            }
        }
        reduced
    }

    pub(super) fn shared(&self) -> Arc<dyn ReadAt> {
        Arc::new(self.clone())
    }

    /// As a file that tools can read.
    pub(super) fn save(&self, path: &Path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path).expect("a new file");
        file.set_len(self.length).expect("a sparse file");
        for (page, bytes) in &self.pages {
            file.write_all_at(bytes, page * PAGE as u64).expect("room");
        }
    }
}

impl ReadAt for Sparse {
    fn length_bytes(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(Error::corrupt(
                "image",
                offset,
                "expected bytes, found its end",
            ));
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at as usize % PAGE;
            let count = (PAGE - within).min(buffer.len() - done);
            let target = &mut buffer[done..done + count];
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => target.copy_from_slice(&page[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
        Ok(())
    }
}

/// All devices of a fixture.
pub(super) fn devices(name: &str, count: usize) -> Vec<Sparse> {
    (1..=count)
        .map(|number| Sparse::unpack(&format!("{name}.{number}")))
        .collect()
}

pub(super) fn shared(devices: &[Sparse]) -> Vec<Arc<dyn ReadAt>> {
    devices.iter().map(Sparse::shared).collect()
}

/// The lines of one kind of what the kernel showed, cut at tabs, without the kind.
pub(super) fn shown(name: &str, kind: &str) -> Vec<Vec<String>> {
    let packed = std::fs::read(folder().join(format!("{name}.tree.zst"))).expect("a fixture");
    let text = String::from_utf8(zstd::decode_all(&*packed).expect("zstd")).expect("text");
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('\t').map(str::to_owned);
        (words.next().as_deref() == Some(kind)).then(|| words.collect())
    });
    lines.collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/btrfs")
}

/// Everything below `/` as the fixture's script writes it: path, mode, owner, group, size, content.
pub(super) fn walk(filesystem: &dyn Filesystem) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec!["/".to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = filesystem.metadata(&path).expect("it was listed");
        let mut children = Vec::new();
        let (kind, content) = match metadata.file_type {
            FileType::Directory => {
                children = filesystem.read_directory(&path).expect("a directory");
                (0o040_000, "-".to_owned())
            }
            FileType::File => {
                let content = filesystem.read(&path, 1 << 24);
                let content = content.unwrap_or_else(|error| panic!("{path}: {error}"));
                (0o100_000, hexadecimal(&Sha256::digest(content)))
            }
            FileType::Symlink => (0o120_000, filesystem.read_link(&path).expect("a link")),
            FileType::Special => (0, "-".to_owned()),
        };
        found.push(vec![
            path.clone(),
            format!("0o{:o}", kind | metadata.mode),
            metadata.uid.to_string(),
            metadata.gid.to_string(),
            metadata.size_bytes.to_string(),
            content,
        ]);
        for child in children {
            let path = format!("{}/{}", path.trim_end_matches('/'), child.name);
            let file_type = filesystem.metadata(&path).expect("it was listed").file_type;
            assert_eq!(file_type, child.file_type, "{path}");
            pending.push(path);
        }
    }
    found.sort();
    found
}

/// What the kernel showed below a folder, as [`walk`] gives it from there.
pub(super) fn shown_below(name: &str, folder: &str) -> Vec<Vec<String>> {
    let below = shown(name, "entry").into_iter().filter_map(|mut entry| {
        let path = match entry[0].as_str() {
            path if path == folder => "/",
            path if folder == "/" => path,
            path => path.strip_prefix(folder)?,
        };
        if !path.starts_with('/') {
            return None;
        }
        entry[0] = path.to_owned();
        // What kind of special file it is, is not told.
        let mode = u32::from_str_radix(&entry[1][2..], 8).expect("octal");
        if !matches!(mode >> 12, 0o4 | 0o10 | 0o12) {
            entry[1] = format!("0o{:o}", mode & 0o7777);
        }
        Some(entry)
    });
    let mut below: Vec<_> = below.collect();
    below.sort();
    below
}

pub(super) fn assert_same(found: &[Vec<String>], expected: &[Vec<String>], context: &str) {
    let differs = found
        .iter()
        .zip(expected)
        .find(|(found, expected)| found != expected);
    assert_eq!(differs, None, "{context}: found, expected");
    assert_eq!(found.len(), expected.len(), "{context}");
    assert!(!found.is_empty(), "{context}");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory");
        text
    })
}
