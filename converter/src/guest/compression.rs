// SPDX-License-Identifier: MIT OR Apache-2.0
//! How initramfs archives and kernel modules are compressed, in both directions.
//!
//! | form | magic | read | written |
//! |---|---|---|---|
//! | gzip | `1f 8b` | yes | yes |
//! | bzip2 | `BZh` | yes | no |
//! | lzma (alone) | `5d 00 00` | yes | no |
//! | xz | `fd 7zXZ 00` | yes | yes, CRC32 and 1 MiB of dictionary: what the kernel's decoder needs |
//! | zstd | `28 b5 2f fd` | yes | yes |
//! | lz4, the legacy frame | `02 21 4c 18` | yes | yes |
//! | lzop | `89 LZO` | yes | no |
//!
//! The legacy lz4 frame (`lz4 -l`) is the magic and then blocks of {length, 32 bits; data}, each at
//! most 8 MiB when unpacked. It has no end mark: it ends with its input, and since Linux 5.14 with a
//! length of zero. The magic may stand again in place of a length.
//!
//! One call reads one stream (one gzip member, one xz stream, one zstd frame), as the kernel does,
//! and says where it ended. Memory is bounded: 64 MiB blocks, windows up to 128 MiB.

mod lzop;

use std::fmt;
use std::io::{self, Read, Write};

use disk::{Error, Result};

const LZ4_LEGACY_MAGIC: u32 = 0x184C_2102;
const LZ4_BLOCK_LENGTH_MAX: usize = 8 << 20;
/// A block that does not shrink grows by this much at most (LZ4_COMPRESSBOUND).
const LZ4_BLOCK_GROWTH_MAX: usize = LZ4_BLOCK_LENGTH_MAX / 255 + 16;
const LZMA_MEMORY_MAX: u64 = 192 << 20;
const XZ_DICTIONARY_LENGTH: u32 = 1 << 20;

/// A way to compress bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Stored as it is.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The older lzma format, with a header of 13 bytes.
    Lzma,
    /// xz.
    Xz,
    /// lzop.
    Lzo,
    /// The legacy frame of lz4.
    Lz4Legacy,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What the first bytes of a stream say; [`Compression::None`] when they say nothing.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Self {
        const MAGIC: [(&[u8], Compression); 7] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a], Compression::Lzo),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4Legacy),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        ];
        MAGIC
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic))
            .map_or(Self::None, |(_, compression)| *compression)
    }

    /// True where [`compress`] can write it.
    #[must_use]
    pub fn can_compress(self) -> bool {
        matches!(
            self,
            Self::None | Self::Gzip | Self::Xz | Self::Lz4Legacy | Self::Zstd
        )
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "no compression",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzop",
            Self::Lz4Legacy => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Unpacks one stream; gives its bytes and how many bytes of `source` it took.
///
/// Bytes after the stream are left alone. More than `limit` bytes are an error.
pub fn decompress(source: &[u8], compression: Compression, limit: u64) -> Result<(Vec<u8>, usize)> {
    let mut decoder = Decoder::new(source, compression)?;
    let mut target = Vec::new();
    let corrupt = |problem: io::Error| Error::corrupt("compressed stream", 0, problem.to_string());
    (&mut decoder)
        .take(limit.saturating_add(1))
        .read_to_end(&mut target)
        .map_err(corrupt)?;
    if target.len() as u64 > limit {
        return Err(Error::Limit {
            what: "unpacked length in bytes",
            limit,
        });
    }
    let left = decoder.into_remaining().len();
    Ok((target, source.len() - left))
}

/// Packs `source` into one stream that the kernel can unpack.
pub fn compress(source: &[u8], compression: Compression) -> Result<Vec<u8>> {
    let packed = match compression {
        Compression::None => Ok(source.to_vec()),
        Compression::Gzip => gzip(source),
        Compression::Xz => xz(source),
        Compression::Zstd => zstd::stream::encode_all(source, 9),
        Compression::Lz4Legacy => Ok(lz4_legacy(source)),
        Compression::Bzip2 | Compression::Lzma | Compression::Lzo => {
            return Err(Error::unsupported(
                "compression",
                format!("writing {compression}"),
            ));
        }
    };
    packed.map_err(|problem| Error::unsupported("compression", problem.to_string()))
}

fn gzip(source: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(source)?;
    encoder.finish()
}

fn xz(source: &[u8]) -> io::Result<Vec<u8>> {
    let mut options = liblzma::stream::LzmaOptions::new_preset(6)?;
    options.dict_size(XZ_DICTIONARY_LENGTH);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32)?;
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(source)?;
    encoder.finish()
}

fn lz4_legacy(source: &[u8]) -> Vec<u8> {
    let mut target = LZ4_LEGACY_MAGIC.to_le_bytes().to_vec();
    for chunk in source.chunks(LZ4_BLOCK_LENGTH_MAX) {
        let block = lz4_flex::block::compress(chunk);
        // A block of at most 8 MiB grows by less than 1 per cent: its length fits.
        target.extend_from_slice(&(block.len() as u32).to_le_bytes());
        target.extend_from_slice(&block);
    }
    target
}

/// Reads what one compressed stream holds.
pub struct Decoder<'a> {
    kind: Kind<'a>,
}

enum Kind<'a> {
    Stored(&'a [u8]),
    Gzip(Box<flate2::bufread::GzDecoder<&'a [u8]>>),
    Bzip2(bzip2::bufread::BzDecoder<&'a [u8]>),
    Xz(liblzma::bufread::XzDecoder<&'a [u8]>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
    Lz4(Lz4Legacy<'a>),
    Lzop(lzop::Lzop<'a>),
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte of `source`.
    pub fn new(source: &'a [u8], compression: Compression) -> Result<Self> {
        let refused = |problem: String| Error::unsupported("compression", problem);
        let kind = match compression {
            Compression::None => Kind::Stored(source),
            Compression::Gzip => Kind::Gzip(Box::new(flate2::bufread::GzDecoder::new(source))),
            Compression::Bzip2 => Kind::Bzip2(bzip2::bufread::BzDecoder::new(source)),
            Compression::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY_MAX)
                    .map_err(|problem| refused(problem.to_string()))?;
                Kind::Xz(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
            Compression::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY_MAX, 0)
                    .map_err(|problem| refused(problem.to_string()))?;
                Kind::Xz(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
            Compression::Zstd => Kind::Zstd(
                zstd::stream::read::Decoder::with_buffer(source)
                    .map_err(|problem| refused(problem.to_string()))?
                    .single_frame(),
            ),
            Compression::Lz4Legacy => Kind::Lz4(Lz4Legacy::new(source)),
            Compression::Lzo => Kind::Lzop(lzop::Lzop::new(source)),
        };
        Ok(Self { kind })
    }

    /// The bytes after the stream, once it was read to its end.
    #[must_use]
    pub fn into_remaining(self) -> &'a [u8] {
        match self.kind {
            Kind::Stored(rest) => rest,
            Kind::Gzip(decoder) => decoder.into_inner(),
            Kind::Bzip2(decoder) => decoder.into_inner(),
            Kind::Xz(decoder) => decoder.into_inner(),
            Kind::Zstd(decoder) => decoder.finish(),
            Kind::Lz4(decoder) => decoder.source,
            Kind::Lzop(decoder) => decoder.into_remaining(),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Stored(rest) => rest.read(target),
            Kind::Gzip(decoder) => decoder.read(target),
            Kind::Bzip2(decoder) => decoder.read(target),
            Kind::Xz(decoder) => decoder.read(target),
            Kind::Zstd(decoder) => decoder.read(target),
            Kind::Lz4(decoder) => decoder.read(target),
            Kind::Lzop(decoder) => decoder.read(target),
        }
    }
}

struct Lz4Legacy<'a> {
    source: &'a [u8],
    block: Vec<u8>,
    position: usize,
}

impl<'a> Lz4Legacy<'a> {
    fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            block: Vec::new(),
            position: 0,
        }
    }

    /// Unpacks the next block; false where the stream ends.
    fn next_block(&mut self) -> io::Result<bool> {
        loop {
            let Some((length, rest)) = self.source.split_first_chunk() else {
                return Ok(false);
            };
            let length = u32::from_le_bytes(*length);
            if length == LZ4_LEGACY_MAGIC {
                self.source = rest;
                continue;
            }
            // Padding after the stream; before Linux 5.14 the kernel stopped here with an error.
            if length == 0 {
                return Ok(false);
            }
            return self.unpack(length as usize, rest).map(|()| true);
        }
    }

    fn unpack(&mut self, length: usize, rest: &'a [u8]) -> io::Result<()> {
        let invalid = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
        if length > LZ4_BLOCK_LENGTH_MAX + LZ4_BLOCK_GROWTH_MAX {
            return Err(invalid(format!("lz4 block of {length} bytes is too long")));
        }
        let packed = rest
            .get(..length)
            .ok_or_else(|| invalid(format!("lz4 block of {length} bytes ends early")))?;
        self.block.resize(LZ4_BLOCK_LENGTH_MAX, 0);
        let unpacked = lz4_flex::block::decompress_into(packed, &mut self.block)
            .map_err(|problem| invalid(problem.to_string()))?;
        self.block.truncate(unpacked);
        self.position = 0;
        self.source = &rest[length..];
        Ok(())
    }
}

impl Read for Lz4Legacy<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let mut block = &self.block[self.position..];
        let length = block.read(target)?;
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::samples::run;

    const PACKED: [Compression; 4] = [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Lz4Legacy,
    ];

    fn text() -> Vec<u8> {
        (0..60_000_u32)
            .flat_map(|number| (number / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn what_is_packed_is_unpacked_and_the_rest_left_alone() {
        for compression in PACKED {
            let packed = compress(&text(), compression).unwrap();
            assert_eq!(Compression::detect(&packed), compression);
            let padded = [packed.as_slice(), &[0; 5]].concat();
            let (unpacked, taken) = decompress(&padded, compression, 1 << 20).unwrap();
            assert_eq!(unpacked, text());
            assert_eq!(taken, packed.len(), "{compression}");
        }
    }

    #[test]
    fn what_the_programs_pack_is_unpacked() {
        let programs: [(Compression, &str, &[&str]); 7] = [
            (Compression::Gzip, "gzip", &["-c"]),
            (Compression::Bzip2, "bzip2", &["-c"]),
            (Compression::Lzma, "xz", &["--format=lzma", "-c"]),
            (Compression::Xz, "xz", &["--check=crc32", "-c"]),
            (Compression::Zstd, "zstd", &["-19", "-c"]),
            (Compression::Lz4Legacy, "lz4", &["-l", "-c"]),
            (Compression::Lzo, "lzop", &["-9", "-c"]),
        ];
        for (compression, program, arguments) in programs {
            let Some(packed) = run(program, arguments, text()) else {
                continue;
            };
            assert_eq!(Compression::detect(&packed), compression);
            let padded = [packed.as_slice(), &[0; 4]].concat();
            let (unpacked, taken) = decompress(&padded, compression, 1 << 20).unwrap();
            assert_eq!(unpacked, text(), "{compression}");
            assert_eq!(taken, packed.len(), "{compression}");
        }
    }

    #[test]
    fn what_lzop_packs_is_unpacked_whatever_it_is() {
        let random = |seed: u32| {
            let mut state = seed;
            std::iter::repeat_with(move || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
        };
        let sparse = random(7).enumerate();
        let sparse = sparse.map(|(place, byte)| if place % 97 < 9 { byte } else { 0 });
        let samples: [Vec<u8>; 4] = [
            random(1).take(300_000).collect(),
            sparse.take(700_000).collect(),
            std::fs::read(std::env::current_exe().unwrap()).unwrap()[..3 << 20].to_vec(),
            b"x".to_vec(),
        ];
        for sample in samples {
            for level in ["-1", "-6", "-9"] {
                let Some(packed) = run("lzop", &[level, "-c"], sample.clone()) else {
                    return;
                };
                let (unpacked, taken) = decompress(&packed, Compression::Lzo, 8 << 20).unwrap();
                assert!(unpacked == sample, "{level} {}", sample.len());
                assert_eq!(taken, packed.len());
            }
        }
    }

    #[test]
    fn damage_of_an_lzop_stream_is_an_error_or_found_by_its_checksum() {
        let sample = text()[..4000].to_vec();
        let Some(packed) = run("lzop", &["-c"], sample.clone()) else {
            return;
        };
        for position in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[position] ^= 0x41;
            if let Ok((unpacked, _)) = decompress(&damaged, Compression::Lzo, 1 << 20) {
                // Names, times and the check of the packed bytes are not looked at.
                assert!(unpacked == sample || unpacked.is_empty(), "{position}");
            }
            let _either = decompress(&packed[..position], Compression::Lzo, 1 << 20);
        }
    }

    #[test]
    fn the_programs_unpack_what_we_pack() {
        for (compression, program) in PACKED.into_iter().zip(["gzip", "xz", "zstd", "lz4"]) {
            let packed = compress(&text(), compression).unwrap();
            if let Some(unpacked) = run(program, &["-dc"], packed) {
                assert_eq!(unpacked, text(), "{compression}");
            }
        }
    }

    #[test]
    fn an_lz4_stream_goes_on_at_its_magic_and_ends_at_zeros() {
        let first = compress(b"first", Compression::Lz4Legacy).unwrap();
        let second = compress(b"second", Compression::Lz4Legacy).unwrap();
        let stream = [first.as_slice(), &second, &[0; 4], &second].concat();
        let (unpacked, taken) = decompress(&stream, Compression::Lz4Legacy, 100).unwrap();
        assert_eq!(unpacked, b"firstsecond");
        assert_eq!(taken, first.len() + second.len());
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        for compression in PACKED {
            let packed = compress(&vec![0; 1 << 20], compression).unwrap();
            assert_eq!(
                decompress(&packed, compression, 1000)
                    .unwrap_err()
                    .to_string(),
                "unpacked length in bytes would exceed the limit of 1000"
            );
        }
        assert!(decompress(b"\x89LZO", Compression::Lzo, 10).is_err());
        assert!(compress(b"", Compression::Lzo).is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            form in 0..4_usize,
            damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
        ) {
            let mut packed = compress(&text()[..2000], PACKED[form]).unwrap();
            for (position, value) in damage {
                let position = usize::from(position) % packed.len();
                packed[position] = value;
            }
            let _either = decompress(&packed, PACKED[form], 1 << 20);
        }
    }
}
