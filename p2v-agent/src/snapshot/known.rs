// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a disk's last image: kept by the agent, so that it need not ask for them.
//!
//! ```text
//! STATE/<server>/<disk>.hashes        <disk>: what is not a-z A-Z 0-9 . - is _hex_
//!    0  8  "RELEVOH1"
//!    8  4  chunk size in bytes, little-endian
//!   12  4  0
//!   16  8  number of chunks
//!   24 16  image id
//!   40 32  per chunk: BLAKE3 of its bytes, zeros for a chunk of zeros
//!    . 32  BLAKE3 of all before
//! ```
//!
//! A cache: one that is absent, damaged or of an image that the library does not have any more is
//! not used, and the library is asked. It is written to another name first and then renamed.

use std::fs::{self, DirBuilder, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use image_library::{ContentHash, ImageId, ServerName};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"RELEVOH1";
const HEADER_BYTES: usize = 40;
const HASH_BYTES: usize = 32;

/// Hashes of a disk's last image, one after the other.
#[derive(Debug)]
pub(super) enum Known {
    /// None are known.
    Nothing,
    /// From the agent's own file.
    File {
        /// Positioned at the next hash.
        reader: BufReader<File>,
        /// How many are left.
        left: u64,
    },
    /// From the library.
    Library(std::vec::IntoIter<Option<ContentHash>>),
}

impl Known {
    /// The next `count` hashes; `None` for zeros, and for what is not known.
    pub(super) fn next(&mut self, count: usize) -> Vec<Option<ContentHash>> {
        (0..count).map(|_| self.next_one()).collect()
    }

    /// Leaves out the next `count`.
    pub(super) fn skip(&mut self, count: u64) {
        for _ in 0..count {
            self.next_one();
        }
    }

    fn next_one(&mut self) -> Option<ContentHash> {
        match self {
            Self::Nothing => None,
            Self::Library(hashes) => hashes.next().flatten(),
            Self::File { reader, left } => {
                let mut hash = [0; HASH_BYTES];
                if *left == 0 || reader.read_exact(&mut hash).is_err() {
                    *left = 0;
                    return None;
                }
                *left -= 1;
                (hash != [0; HASH_BYTES]).then(|| ContentHash::from_bytes(hash))
            }
        }
    }
}

/// What a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownHeader {
    pub(super) chunk_size_bytes: u32,
    pub(super) chunk_count: u64,
    pub(super) image: ImageId,
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

/// Opens and checks a file; `None` when it is absent or not whole.
pub(super) fn open(path: &Path) -> Option<(KnownHeader, Known)> {
    // Whatever is wrong with a cache, the answer is to do without it.
    let mut file = BufReader::new(File::open(path).ok()?);
    let header = read_header(&mut file)?;
    let body_bytes = header.chunk_count.checked_mul(HASH_BYTES as u64)?;
    let expected = body_bytes.checked_add((HEADER_BYTES + HASH_BYTES) as u64)?;
    if fs::metadata(path).ok()?.len() != expected || !is_whole(path, expected).ok()? {
        return None;
    }
    let known = Known::File {
        reader: file,
        left: header.chunk_count,
    };
    Some((header, known))
}

fn read_header(file: &mut impl Read) -> Option<KnownHeader> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let (chunk_size, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (count, image) = rest.split_first_chunk::<8>()?;
    let hexadecimal = image
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    (magic == MAGIC).then_some(KnownHeader {
        chunk_size_bytes: u32::from_le_bytes(*chunk_size),
        chunk_count: u64::from_le_bytes(*count),
        image: hexadecimal.parse().ok()?,
    })
}

/// Whether the hash at the end is that of all before.
fn is_whole(path: &Path, length: u64) -> std::io::Result<bool> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut file).take(length.saturating_sub(HASH_BYTES as u64)))?;
    let mut found = [0; HASH_BYTES];
    file.read_exact(&mut found)?;
    Ok(hasher.finalize() == found)
}

/// Writes the hashes of a disk of an image that was committed.
pub(super) fn write(
    path: &Path,
    header: &KnownHeader,
    hashes: &[Option<ContentHash>],
) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    // Hashes tell whether a known content is on the disk: they are nobody else's business.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(Error::file("create", parent))?;
    let new = path.with_extension("new");
    write_all(&new, header, hashes).map_err(Error::file("write", &new))?;
    fs::rename(&new, path).map_err(Error::file("rename", path))
}

fn write_all(
    path: &Path,
    header: &KnownHeader,
    hashes: &[Option<ContentHash>],
) -> std::io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC)?;
    put(&header.chunk_size_bytes.to_le_bytes())?;
    put(&[0; 4])?;
    put(&header.chunk_count.to_le_bytes())?;
    put(header.image.as_uuid().as_bytes())?;
    for hash in hashes {
        put(&hash.map_or([0; HASH_BYTES], |hash| *hash.as_bytes()))?;
    }
    let hash = hasher.finalize();
    file.write_all(hash.as_bytes())?;
    file.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()
}

/// Forgets what is kept of a disk; absent is as good.
pub(super) fn forget(path: &Path) {
    // What cannot be removed is overwritten by the next image, or found not to fit.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> KnownHeader {
        KnownHeader {
            chunk_size_bytes: 65_536,
            chunk_count: 3,
            image: "0192f0c1-2233-7aaa-8bbb-ccccddddeeee".parse().unwrap(),
        }
    }

    fn hashes() -> Vec<Option<ContentHash>> {
        vec![
            Some(ContentHash::of(b"a")),
            None,
            Some(ContentHash::of(b"b")),
        ]
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        let state = tempfile::TempDir::new().unwrap();
        let path = path(state.path(), &"web01".parse().unwrap(), "sda");
        write(&path, &header(), &hashes()).unwrap();
        assert_eq!(path, state.path().join("web01/sda.hashes"));
        let (found, mut known) = open(&path).unwrap();
        assert_eq!(found, header());
        assert_eq!(known.next(2), hashes()[..2]);
        assert_eq!(known.next(3), [hashes()[2], None, None]);
        let (_, mut known) = open(&path).unwrap();
        known.skip(2);
        assert_eq!(known.next(1), hashes()[2..]);
    }

    #[test]
    fn a_damaged_or_cut_off_file_is_not_used() {
        let state = tempfile::TempDir::new().unwrap();
        let path = state.path().join("sda.hashes");
        write(&path, &header(), &hashes()).unwrap();
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(open(&path).is_none(), "byte {position} changed");
        }
        for length in [0, 8, 39, 40, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(open(&path).is_none(), "cut after {length} bytes");
        }
    }

    #[test]
    fn a_disk_name_cannot_leave_the_state_directory() {
        let path = path(Path::new("/state"), &"web01".parse().unwrap(), "../a b");
        assert_eq!(path, Path::new("/state/web01/.._2f_a_20_b.hashes"));
    }
}
