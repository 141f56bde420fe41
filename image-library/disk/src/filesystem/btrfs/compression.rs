// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three compressions of btrfs. One extent holds up to 128 KiB before it is compressed.
//!
//! zlib and zstd are one stream of that library each, with zeros up to the end of the last sector. LZO
//! has a frame of btrfs's own:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | bytes of all that follows, with this field |
//! | 4 | 4 | bytes of a segment |
//! | 8 | | the segment, of up to one sector before it was compressed; then the next |
//!
//! A segment's length never crosses the end of a sector: fewer than four bytes there are left out.
//!
//! **Limit:** never more comes out than the extent says it holds, and that is 128 KiB at most.
//!
//! Source: Linux, fs/btrfs/{zlib,lzo,zstd}.c; compression.h.

use std::io::Read;

use crate::error::{Error, Result};
use crate::fields::Fields;

/// `BTRFS_MAX_UNCOMPRESSED`, and `BTRFS_MAX_COMPRESSED`.
pub(super) const EXTENT_BYTES_MAX: u64 = 128 << 10;
const STRUCTURE: &str = "btrfs compressed extent";
/// The kernel's encoder uses windows of up to 128 KiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 17;

/// How an extent is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Zlib,
    Lzo,
    Zstd,
}

impl Compression {
    /// The bytes that `stored` holds: up to `length`, and zeros behind their end.
    ///
    /// `place` is for errors.
    pub(super) fn decompress(
        self,
        stored: &[u8],
        length: usize,
        sector_bytes: usize,
        place: u64,
    ) -> Result<Vec<u8>> {
        let mut bytes = match self {
            Self::Zlib => read(flate2::read::ZlibDecoder::new(stored), length),
            Self::Lzo => lzo(stored, length, sector_bytes),
            Self::Zstd => zstd(stored, length),
        }
        .map_err(|problem| Error::corrupt(STRUCTURE, place, format!("{self:?}: {problem}")))?;
        bytes.resize(length, 0);
        Ok(bytes)
    }
}

fn read(stream: impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(length);
    match stream.take(length as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn zstd(stored: &[u8], length: usize) -> Result<Vec<u8>, String> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)
        .map_err(|error| error.to_string())?
        .single_frame();
    decoder
        .window_log_max(ZSTD_WINDOW_LOG_MAX)
        .map_err(|error| error.to_string())?;
    read(decoder, length)
}

fn lzo(stored: &[u8], length: usize, sector_bytes: usize) -> Result<Vec<u8>, String> {
    const LENGTH_BYTES: usize = 4;
    let fields = Fields(stored);
    let total = fields.u32(0) as usize;
    if total < LENGTH_BYTES || total > stored.len() {
        return Err(format!(
            "expected up to {} bytes, found {total}",
            stored.len()
        ));
    }
    let mut bytes = Vec::with_capacity(length);
    let mut segment = vec![0; sector_bytes];
    let mut at = LENGTH_BYTES;
    while at < total && bytes.len() < length {
        let left = sector_bytes - at % sector_bytes;
        if left < LENGTH_BYTES {
            at += left;
        }
        let stored_length = fields.u32(at) as usize;
        at += LENGTH_BYTES;
        let stored_segment = fields.bytes(at, stored_length);
        if stored_segment.is_empty() || at + stored_length > total {
            return Err(format!("a segment of {stored_length} bytes does not fit"));
        }
        let found = lzokay::decompress::decompress(stored_segment, &mut segment)
            .map_err(|error| error.to_string())?;
        bytes.extend(segment.iter().take(found));
        at += stored_length;
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rstest::rstest;

    use super::Compression;

    const SECTOR: usize = 4096;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Literals only: at most 238 bytes, then the end of the stream.
    fn lzo_segment(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8 + 17], bytes, &[0x11, 0, 0]].concat()
    }

    /// As the kernel frames it.
    fn lzo(segments: &[&[u8]]) -> Vec<u8> {
        let mut stored = vec![0; 4];
        for segment in segments {
            let segment = lzo_segment(segment);
            let left = SECTOR - stored.len() % SECTOR;
            if left < 4 {
                stored.resize(stored.len() + left, 0);
            }
            stored.extend((segment.len() as u32).to_le_bytes());
            stored.extend(segment);
        }
        let total = (stored.len() as u32).to_le_bytes();
        stored[..4].copy_from_slice(&total);
        stored
    }

    #[rstest]
    fn what_is_compressed_comes_back_and_never_more_than_was_asked_for(
        #[values(Compression::Zlib, Compression::Zstd, Compression::Lzo)] compression: Compression,
        #[values(1, 100, 230, 5000)] length: usize,
    ) {
        let content: Vec<u8> = (0..230).collect();
        let mut stored = match compression {
            Compression::Zlib => zlib(&content),
            Compression::Zstd => zstd::bulk::compress(&content, 3).expect("memory"),
            Compression::Lzo => lzo(&[&content[..200], &content[200..]]),
        };
        stored.resize(SECTOR, 0);
        let found = compression
            .decompress(&stored, length, SECTOR, 0)
            .expect("sound");
        let mut expected = content;
        expected.resize(length, 0);
        assert_eq!(found, expected);
    }

    #[rstest]
    // 4 + 17 * (4 + 234) = 4050, and one that ends so that 0 to 4 bytes of the sector are left.
    fn the_length_of_a_segment_does_not_cross_a_sector(#[values(38, 37, 36, 35, 34)] last: usize) {
        let segment = [7; 230];
        let mut segments = vec![&segment[..]; 17];
        segments.push(&segment[..last]);
        segments.push(b"behind");
        let stored = lzo(&segments);
        let length = 17 * 230 + last + 6;
        let found = Compression::Lzo
            .decompress(&stored, length, SECTOR, 0)
            .expect("sound");
        assert!(found.ends_with(b"behind"));
    }

    #[rstest]
    fn streams_that_are_damaged_give_errors_or_other_bytes_and_never_panics(
        #[values(Compression::Zlib, Compression::Zstd, Compression::Lzo)] compression: Compression,
    ) {
        let content: Vec<u8> = (0..200).collect();
        let stored = match compression {
            Compression::Zlib => zlib(&content),
            Compression::Zstd => zstd::bulk::compress(&content, 3).expect("memory"),
            Compression::Lzo => lzo(&[&content, &content]),
        };
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(bytes) = compression.decompress(&damaged, 500, SECTOR, 0) {
                    assert_eq!(bytes.len(), 500);
                }
            }
            let cut = compression.decompress(&stored[..at], 500, SECTOR, 0x70);
            if let Err(error) = cut {
                let text = error.to_string();
                assert!(
                    text.starts_with("btrfs compressed extent at byte 0x70: "),
                    "{text}"
                );
            }
        }
    }
}
