// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a disk's last image: kept by the agent, so that it need not ask for them.
//!
//! ```text
//! STATE/<server>/<disk>.hashes        <disk>: what is not a-z A-Z 0-9 . - is _hex_
//!    0  8  "RELEVOH2"
//!    8  4  chunk size in bytes, little-endian
//!   12  4  0
//!   16  8  number of chunks
//!   24 32  per chunk: BLAKE3 of its bytes, zeros for a chunk of zeros
//!    . 16  image id
//!    . 32  BLAKE3 of all before
//! ```
//!
//! A cache: one that is absent, damaged or of an image that the library does not have any more is
//! not used, and the library is asked. It is written under another name while the disk is read,
//! and renamed when the image is committed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use image_library::{ContentHash, DiskHashes, ImageId, LEAF_CHUNKS, ServerName};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"RELEVOH2";
const HEADER_BYTES: u64 = 24;
const IMAGE_BYTES: u64 = 16;
const HASH_BYTES: usize = 32;

/// The hashes of a disk's last image, from a file that was checked.
#[derive(Debug)]
pub(super) struct Notes {
    file: File,
    path: PathBuf,
    chunk_size_bytes: u32,
    chunk_count: u64,
    image: ImageId,
}

/// Where the hashes of one disk of one server are kept.
pub(super) fn path(state: &Path, server: &ServerName, disk: &str) -> PathBuf {
    let mut name = String::new();
    for byte in disk.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            other => name.push_str(&format!("_{other:02x}_")),
        }
    }
    state.join(server.as_str()).join(format!("{name}.hashes"))
}

impl Notes {
    /// Opens and checks a file; `None` when it is absent or not whole: whatever is wrong with a
    /// cache, the answer is to do without it.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        if !is_whole(&file, length).ok()? {
            return None;
        }
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0).ok()?;
        let (magic, rest) = header.split_first_chunk::<8>()?;
        let (chunk_size, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (count, _) = rest.split_first_chunk::<8>()?;
        let chunk_count = u64::from_le_bytes(*count);
        let image_at = chunk_count
            .checked_mul(HASH_BYTES as u64)?
            .checked_add(HEADER_BYTES)?;
        let end = image_at.checked_add(IMAGE_BYTES + HASH_BYTES as u64)?;
        let mut image = [0; IMAGE_BYTES as usize];
        file.read_exact_at(&mut image, image_at).ok()?;
        (magic == MAGIC && end == length).then(|| Self {
            file,
            path: path.to_owned(),
            chunk_size_bytes: u32::from_le_bytes(*chunk_size),
            chunk_count,
            image: image_id(image),
        })
    }
}

impl DiskHashes for Notes {
    fn image(&self) -> ImageId {
        self.image
    }

    fn chunk_size_bytes(&self) -> u32 {
        self.chunk_size_bytes
    }

    fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    fn leaf(&self, number: u64) -> image_library::Result<Vec<Option<ContentHash>>> {
        let first = number.saturating_mul(LEAF_CHUNKS as u64);
        let count = self
            .chunk_count
            .saturating_sub(first)
            .min(LEAF_CHUNKS as u64) as usize;
        let mut bytes = vec![0; count * HASH_BYTES];
        let at = first
            .saturating_mul(HASH_BYTES as u64)
            .saturating_add(HEADER_BYTES);
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|source| image_library::Error::File {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        let hash = |bytes: &[u8; HASH_BYTES]| {
            (*bytes != [0; HASH_BYTES]).then(|| ContentHash::from_bytes(*bytes))
        };
        Ok(hashes.iter().map(hash).collect())
    }
}

fn image_id(bytes: [u8; IMAGE_BYTES as usize]) -> ImageId {
    ImageId::from_uuid(uuid::Uuid::from_bytes(bytes))
}

/// Whether the hash at the end is that of all before.
fn is_whole(file: &File, length: u64) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut reader).take(length.saturating_sub(HASH_BYTES as u64)))?;
    let mut found = [0; HASH_BYTES];
    reader.read_exact(&mut found)?;
    Ok(hasher.finalize() == found)
}

/// Takes down the hashes of a disk while it is read. An error on the way is told at the end: it
/// must not keep the snapshot from being taken.
#[derive(Debug)]
pub(super) struct NotesWriter {
    path: PathBuf,
    new: PathBuf,
    writing: io::Result<Writing>,
    is_finished: bool,
}

#[derive(Debug)]
struct Writing {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Writing {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

impl NotesWriter {
    /// Begins the notes of a disk of so many chunks.
    pub(super) fn create(path: PathBuf, chunk_size_bytes: u32, chunk_count: u64) -> Self {
        let new = path.with_extension("new");
        let mut notes = Self {
            writing: create(&new),
            path,
            new,
            is_finished: false,
        };
        notes.put(MAGIC);
        notes.put(&chunk_size_bytes.to_le_bytes());
        notes.put(&[0; 4]);
        notes.put(&chunk_count.to_le_bytes());
        notes
    }

    /// Adds the hashes of the chunks that follow.
    pub(super) fn push(&mut self, hashes: &[Option<ContentHash>]) {
        for hash in hashes {
            let hash = hash
                .as_ref()
                .map_or(&[0; HASH_BYTES], ContentHash::as_bytes);
            self.put(hash);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Ok(writing) = &mut self.writing
            && let Err(error) = writing.put(bytes)
        {
            self.writing = Err(error);
        }
    }

    /// Where they will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The image was committed: from now on the notes are those of it.
    pub(super) fn finish(mut self, image: ImageId) -> Result<()> {
        self.put(image.as_uuid().as_bytes());
        let writing = std::mem::replace(&mut self.writing, Err(io::ErrorKind::Other.into()));
        writing
            .and_then(|Writing { mut file, hasher }| {
                file.write_all(hasher.finalize().as_bytes())?;
                file.into_inner()
                    .map_err(io::IntoInnerError::into_error)?
                    .sync_all()
            })
            .map_err(Error::file("write", &self.new))?;
        fs::rename(&self.new, &self.path).map_err(Error::file("rename", &self.path))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for NotesWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // What stays is overwritten by the next snapshot.
            let _ = fs::remove_file(&self.new);
        }
    }
}

fn create(path: &Path) -> io::Result<Writing> {
    let parent = path.parent().unwrap_or(Path::new("."));
    // Hashes tell whether a known content is on the disk: they are nobody else's business.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)?;
    Ok(Writing {
        file: BufWriter::with_capacity(1 << 20, File::create(path)?),
        hasher: blake3::Hasher::new(),
    })
}

/// Forgets what is kept of a disk; absent is as good.
pub(super) fn forget(path: &Path) {
    // What cannot be removed is overwritten by the next image, or found not to fit.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageId {
        "0192f0c1-2233-7aaa-8bbb-ccccddddeeee".parse().unwrap()
    }

    /// One leaf and a bit.
    fn hashes() -> Vec<Option<ContentHash>> {
        let hash = |number: u32| {
            (!number.is_multiple_of(3)).then(|| ContentHash::of(&number.to_le_bytes()))
        };
        (0..2050).map(hash).collect()
    }

    fn write(path: &Path) {
        let hashes = hashes();
        let mut notes = NotesWriter::create(path.to_owned(), 65_536, 2050);
        notes.push(&hashes[..1000]);
        notes.push(&hashes[1000..]);
        notes.finish(image()).unwrap();
    }

    #[test]
    fn what_was_written_is_read_leaf_by_leaf() {
        let state = tempfile::TempDir::new().unwrap();
        let path = path(state.path(), &"web01".parse().unwrap(), "sda");
        assert_eq!(path, state.path().join("web01/sda.hashes"));
        write(&path);
        let notes = Notes::open(&path).unwrap();
        assert_eq!((notes.image(), notes.chunk_count()), (image(), 2050));
        assert_eq!(notes.chunk_size_bytes(), 65_536);
        assert_eq!(notes.leaf(0).unwrap(), hashes()[..2048]);
        assert_eq!(notes.leaf(1).unwrap(), hashes()[2048..]);
        assert_eq!(notes.leaf(2).unwrap(), []);
    }

    #[test]
    fn notes_of_an_image_that_was_not_committed_are_gone() {
        let state = tempfile::TempDir::new().unwrap();
        let path = state.path().join("web01/sda.hashes");
        write(&path);
        let mut notes = NotesWriter::create(path.clone(), 65_536, 1);
        notes.push(&[None]);
        drop(notes);
        assert_eq!(Notes::open(&path).unwrap().chunk_count(), 2050);
        assert_eq!(fs::read_dir(state.path().join("web01")).unwrap().count(), 1);
    }

    #[test]
    fn notes_that_cannot_be_written_are_told_at_the_end() {
        let state = tempfile::TempDir::new().unwrap();
        fs::write(state.path().join("web01"), "a file").unwrap();
        let mut notes = NotesWriter::create(state.path().join("web01/sda.hashes"), 65_536, 1);
        notes.push(&[None]);
        assert!(notes.finish(image()).is_err());
    }

    #[test]
    fn a_damaged_or_cut_off_file_is_not_used() {
        let state = tempfile::TempDir::new().unwrap();
        let path = state.path().join("sda.hashes");
        let mut notes = NotesWriter::create(path.clone(), 65_536, 3);
        notes.push(&hashes()[..3]);
        notes.finish(image()).unwrap();
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(Notes::open(&path).is_none(), "byte {position} changed");
        }
        for length in [0, 8, 23, 24, 72, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(Notes::open(&path).is_none(), "cut after {length} bytes");
        }
    }

    #[test]
    fn a_disk_name_cannot_leave_the_state_directory() {
        let path = path(Path::new("/state"), &"web01".parse().unwrap(), "../a b");
        assert_eq!(path, Path::new("/state/web01/.._2f_a_20_b.hashes"));
    }
}
