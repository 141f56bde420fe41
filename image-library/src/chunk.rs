// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks: their keyed names, and how their bytes are packed into zstd frames and checked.
//!
//! Limits: a chunk is 16 KiB to 4 MiB; a frame is decompressed into a buffer of the length that
//! was announced, which is checked against the library's chunk size first, so a frame that
//! expands without end costs nothing.

use std::cell::RefCell;
use std::fmt;

use zstd::bulk::{Compressor, Decompressor};

use crate::access::ChunkUpload;
use crate::error::{Error, Result};
use crate::id::ContentHash;

/// Smallest chunk size in bytes.
pub const CHUNK_SIZE_MIN: u32 = 16 << 10;
/// Largest chunk size in bytes.
pub const CHUNK_SIZE_MAX: u32 = 4 << 20;
/// Chunk size of a library that asks for no other, in bytes.
pub const CHUNK_SIZE_DEFAULT: u32 = 64 << 10;
/// The zstd level of what this program compresses.
const COMPRESSION_LEVEL: i32 = 1;

/// The name of a chunk in the store: the content hash under the library's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkId([u8; 32]);

impl ChunkId {
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as a number that sorts as the ids do.
    pub(crate) fn prefix(&self) -> u64 {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(prefix)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// What the libraries have that tests make of hundreds of millions of chunks, and no other.
#[cfg(test)]
pub(crate) const CATALOGUE_CHUNK_SIZE: u32 = 1 << 10;

/// Whether a chunk size is one that a library may have.
pub(crate) const fn chunk_size_is_legal(bytes: u32) -> bool {
    #[cfg(test)]
    if bytes == CATALOGUE_CHUNK_SIZE {
        return true;
    }
    bytes.is_power_of_two() && bytes >= CHUNK_SIZE_MIN && bytes <= CHUNK_SIZE_MAX
}

thread_local! {
    // A context is some 100 KiB and dear to make: one for each thread, not for each chunk.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Compresses bytes to one zstd frame.
pub(crate) fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(COMPRESSION_LEVEL).map_err(compressing_failed)?),
        };
        // A frame is made where the longest one has room, and kept in no more than it needs: many
        // wait for their turn.
        FRAME.with_borrow_mut(|frame| {
            frame.clear();
            frame.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            compressor
                .compress_to_buffer(plain, frame)
                .map_err(compressing_failed)?;
            Ok(frame.as_slice().to_vec())
        })
    })
}

fn compressing_failed(source: std::io::Error) -> Error {
    Error::File {
        action: "compress",
        path: "a chunk".into(),
        source,
    }
}

/// Decompresses one zstd frame that must give exactly `plain.len()` bytes; says what is wrong.
pub(crate) fn decompress(frame: &[u8], plain: &mut [u8]) -> Result<(), String> {
    match zstd::zstd_safe::find_frame_compressed_size(frame) {
        Ok(length) if length == frame.len() => {}
        Ok(length) => {
            return Err(format!(
                "expected one zstd frame of {} bytes, found one of {length}",
                frame.len()
            ));
        }
        Err(_) => return Err("expected a zstd frame, found other bytes".to_owned()),
    }
    let written = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(frame, plain)
    });
    match written {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(length) => Err(format!("expected {} bytes, found {length}", plain.len())),
        Err(error) => Err(format!("expected {} bytes: {error}", plain.len())),
    }
}

/// Checks an uploaded chunk against its hash. Gives the bytes to store: the frame as it came, or
/// the plain bytes where the frame is not shorter.
pub(crate) fn check_upload(chunk: ChunkUpload, chunk_size: u32) -> Result<CheckedChunk> {
    check_length(chunk.length, chunk_size)?;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(chunk.length as usize, 0);
        decompress(&chunk.compressed, scratch).map_err(refuse)?;
        let found = ContentHash::of(scratch);
        if found != chunk.hash {
            let expected = chunk.hash;
            return Err(refuse(format!(
                "its bytes do not have the hash that it names: expected {expected:?}, found \
                 {found:?}"
            )));
        }
        let shrinks = chunk.compressed.len() < scratch.len();
        Ok(CheckedChunk {
            hash: chunk.hash,
            length: chunk.length,
            encoding: if shrinks {
                Encoding::Zstd
            } else {
                Encoding::Raw
            },
            body: if shrinks {
                chunk.compressed
            } else {
                scratch.clone()
            },
        })
    })
}

fn check_length(found: u32, chunk_size: u32) -> Result<()> {
    if found == 0 || found > chunk_size {
        return Err(refuse(format!(
            "expected 1 to {chunk_size} bytes, found {found}"
        )));
    }
    Ok(())
}

const fn refuse(problem: String) -> Error {
    Error::Refused {
        what: "a chunk",
        problem,
    }
}

/// How a chunk's bytes are stored in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// A chunk that has the hash that it names.
#[derive(Debug)]
pub(crate) struct CheckedChunk {
    pub(crate) hash: ContentHash,
    pub(crate) length: u32,
    pub(crate) encoding: Encoding,
    pub(crate) body: Vec<u8>,
}

impl CheckedChunk {
    /// Of bytes that this program made itself.
    pub(crate) fn of(plain: Vec<u8>) -> Result<Self> {
        let hash = ContentHash::of(&plain);
        let length = length_of(&plain)?;
        let frame = compress(&plain)?;
        let (encoding, body) = if frame.len() < plain.len() {
            (Encoding::Zstd, frame)
        } else {
            (Encoding::Raw, plain)
        };
        Ok(Self {
            hash,
            length,
            encoding,
            body,
        })
    }

    /// Compresses bytes that have this hash. Of some frames it makes sure that they give the bytes
    /// back: a compressor or a memory that is at fault is found out before much is stored.
    pub(crate) fn compress(hash: ContentHash, plain: &[u8], chunk_size: u32) -> Result<Self> {
        let length = length_of(plain)?;
        check_length(length, chunk_size)?;
        let frame = compress(plain)?;
        let (encoding, body) = if frame.len() < plain.len() {
            if is_checked(&hash) {
                check_frame(&frame, plain)?;
            }
            (Encoding::Zstd, frame)
        } else {
            (Encoding::Raw, plain.to_vec())
        };
        Ok(Self {
            hash,
            length,
            encoding,
            body,
        })
    }

    /// As it is sent to another program.
    pub(crate) fn into_upload(self) -> Result<ChunkUpload> {
        Ok(ChunkUpload {
            hash: self.hash,
            length: self.length,
            compressed: match self.encoding {
                Encoding::Raw => compress(&self.body)?,
                Encoding::Zstd => self.body,
            },
        })
    }
}

/// The length of a chunk or blob.
pub(crate) fn length_of(plain: &[u8]) -> Result<u32> {
    u32::try_from(plain.len()).map_err(|_| Error::Limit {
        what: "the length in bytes of a chunk",
        limit: u64::from(u32::MAX),
    })
}

/// Whether the frame of a chunk is decompressed again: one of eight, and of the same bytes always
/// the same.
const fn is_checked(hash: &ContentHash) -> bool {
    hash.as_bytes()[0].is_multiple_of(8)
}

/// Decompresses what was just compressed and compares.
fn check_frame(frame: &[u8], plain: &[u8]) -> Result<()> {
    let is_right = SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(plain.len(), 0);
        decompress(frame, scratch).is_ok() && scratch == plain
    });
    if is_right {
        return Ok(());
    }
    let problem = "the frame does not give the bytes back; is the memory sound?";
    Err(compressing_failed(std::io::Error::other(problem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(plain: &[u8]) -> ChunkUpload {
        ChunkUpload {
            hash: ContentHash::of(plain),
            length: plain.len() as u32,
            compressed: compress(plain).expect("compresses"),
        }
    }

    #[test]
    fn a_frame_that_shrinks_is_kept_as_it_came() {
        let chunk = upload(&[7; 4096]);
        let frame = chunk.compressed.clone();
        let checked = check_upload(chunk, CHUNK_SIZE_MIN).expect("is right");
        assert_eq!(checked.encoding, Encoding::Zstd);
        assert_eq!(checked.body, frame);
    }

    #[test]
    fn bytes_that_do_not_shrink_are_kept_plain() {
        let plain: Vec<u8> = blake3::Hasher::new()
            .finalize_xof()
            .fill_into(CHUNK_SIZE_MIN as usize);
        let checked = check_upload(upload(&plain), CHUNK_SIZE_MIN).expect("is right");
        assert_eq!(checked.encoding, Encoding::Raw);
        assert_eq!(checked.body, plain);
    }

    trait FillInto {
        fn fill_into(self, length: usize) -> Vec<u8>;
    }

    impl FillInto for blake3::OutputReader {
        fn fill_into(mut self, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.fill(&mut bytes);
            bytes
        }
    }

    #[test]
    fn what_is_compressed_here_is_stored_as_if_it_had_been_uploaded() {
        let noise = blake3::Hasher::new().finalize_xof().fill_into(4096);
        for plain in [vec![7; 4096], noise] {
            let hash = ContentHash::of(&plain);
            let made = CheckedChunk::compress(hash, &plain, CHUNK_SIZE_MIN).expect("is right");
            let sent = check_upload(upload(&plain), CHUNK_SIZE_MIN).expect("is right");
            assert_eq!((made.encoding, &made.body), (sent.encoding, &sent.body));
            let again = made.into_upload().expect("compresses");
            let again = check_upload(again, CHUNK_SIZE_MIN).expect("is right");
            assert_eq!((again.encoding, again.body), (sent.encoding, sent.body));
        }
        for plain in [vec![], vec![1; CHUNK_SIZE_MIN as usize + 1]] {
            let hash = ContentHash::of(&plain);
            assert!(CheckedChunk::compress(hash, &plain, CHUNK_SIZE_MIN).is_err());
        }
    }

    #[test]
    fn a_frame_of_other_bytes_is_noticed_before_it_is_stored() {
        let frame = compress(&[1; 5000]).expect("compresses");
        assert!(check_frame(&frame, &[1; 5000]).is_ok());
        assert!(check_frame(&frame, &[2; 5000]).is_err());
        assert!(check_frame(&frame, &[1; 4999]).is_err());
    }

    #[test]
    fn a_forged_chunk_is_refused() {
        let mut wrong_hash = upload(b"true bytes");
        wrong_hash.hash = ContentHash::of(b"other bytes");
        let mut too_long = upload(&vec![1; CHUNK_SIZE_MIN as usize + 1]);
        let mut two_frames = upload(b"true bytes");
        two_frames.compressed.extend(compress(b"more").expect("ok"));
        let mut cut = upload(&[9; 1000]);
        cut.compressed.truncate(10);
        let mut empty = upload(b"x");
        empty.length = 0;
        let mut understated = upload(&[3; 1000]);
        understated.length = 10;
        for chunk in [wrong_hash, two_frames, cut, empty, understated] {
            assert!(check_upload(chunk, CHUNK_SIZE_MIN).is_err());
        }
        assert!(check_upload(too_long.clone(), CHUNK_SIZE_MIN).is_err());
        too_long.length = u32::MAX;
        assert!(check_upload(too_long, CHUNK_SIZE_MIN).is_err());
    }

    #[test]
    fn a_frame_that_expands_without_end_costs_only_the_announced_length() {
        let bomb = ChunkUpload {
            hash: ContentHash::of(b""),
            length: CHUNK_SIZE_MIN,
            compressed: compress(&vec![0; 64 << 20]).expect("compresses"),
        };
        assert!(bomb.compressed.len() < 16 << 10);
        let error = check_upload(bomb, CHUNK_SIZE_MIN).expect_err("too long");
        assert!(
            error.to_string().contains("expected 16384 bytes"),
            "{error}"
        );
    }
}
