// SPDX-License-Identifier: MIT OR Apache-2.0
//! What client and server say to each other over HTTP, version 1.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1` | | [`ServiceDescription`] |
//! | `GET /v1/authority` | | the certificate of the library's authority as PEM |
//! | `GET /v1/openapi.json` | | what this table says, for programs |
//! | `GET /metrics` | | figures, as Prometheus reads them |
//! | `GET /v1/images` | | JSON list of images, oldest first |
//! | `GET /v1/images/{id}` | | JSON image |
//! | `DELETE /v1/images/{id}` | | 204: it is in the trash |
//! | `GET /v1/trash` | | JSON list of images with the time of their deletion |
//! | `POST /v1/trash/{id}/restore` | | 204 |
//! | `GET /v1/images/{id}/disks/{n}/data`, `Range: bytes=a-b` | | 206, the bytes or fewer of them |
//! | `GET /v1/images/{id}/disks/{n}/extents?from=a` | | [`ExtentPage`] |
//! | `GET /v1/images/{id}/disks/{n}/hashes?leaf=n&leaves=m` | | [`HashPage`] |
//! | `GET, PUT /v1/images/{id}/files/{name}` | bytes | bytes |
//! | `GET /v1/servers/{server}/hashes?disk=name&leaf=n` | | [`HashPage`], or 204 |
//! | `GET /v1/servers/{server}/wanted` | | [`WantedList`] |
//! | `POST /v1/uploads` | [`UploadRequest`] | [`UploadOpened`] |
//! | `POST /v1/uploads/{u}/states` | hashes | one byte each: 0 missing, 1 stored |
//! | `POST /v1/uploads/{u}/chunks` | frames | 204 |
//! | `PUT /v1/uploads/{u}/leaves/{n}?name&size_bytes&sector_size` | hashes of chunks | 204 |
//! | `PUT /v1/uploads/{u}/disks?name&size_bytes&sector_size` | hashes of leaves | 204 |
//! | `POST /v1/uploads/{u}/commit` | JSON draft | JSON image |
//! | `POST /v1/uploads/{u}/copy` | JSON image of another library | JSON image |
//! | `DELETE /v1/uploads/{u}` | | 204 |
//!
//! Every request but those for the authority and the description shows a token
//! (`Authorization: Bearer`); who may do what is in `server::routes`.
//!
//! *Hashes* are 32 bytes each, 32 zero bytes for a chunk of zeros or a leaf of such chunks; a leaf
//! is the hashes of 2048 chunks, fewer at a disk's end. A *frame* is one chunk:
//!
//! ```text
//!  0  32  BLAKE3 of the plain bytes
//! 32   4  length of the plain bytes, little-endian
//! 36   4  length of what follows, little-endian
//! 40   .  one zstd frame
//! ```
//!
//! Answers with bytes carry their BLAKE3 in the header [`HASH_HEADER`]. A failure is JSON
//! [`Failure`] with a stable code. Everything but `POST /v1/uploads` may be repeated without harm.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::ChunkUpload;
use crate::id::{ContentHash, ImageId, ServerName};
use crate::wanted::WantedRange;

/// The version of this protocol.
pub(crate) const API_VERSION: u32 = 1;
/// What the server calls itself in [`ServiceDescription`].
pub(crate) const SERVICE: &str = "image-library";
/// Header with the BLAKE3 of an answer's body, lower-case hexadecimal.
pub(crate) const HASH_HEADER: &str = "x-content-blake3";
/// The most bytes of a disk that one answer holds.
pub(crate) const READ_BYTES_MAX: u64 = 4 << 20;
/// The most bytes of frames in one request.
pub(crate) const FRAMES_BYTES_MAX: usize = 32 << 20;
/// The most bytes that the chunks of one request unpack to: chunks of one byte repeated are tiny,
/// and a body full of them would keep a server busy for minutes.
pub(crate) const PLAIN_BYTES_MAX: usize = 256 << 20;
/// The most hashes in one question for states.
pub(crate) const STATES_MAX: usize = 65_536;
/// The most extents in one page.
pub(crate) const PAGE_EXTENTS_MAX: usize = 8_192;
/// The most bytes of a side file.
pub(crate) const SIDE_FILE_BYTES_MAX: usize = 256 << 20;
/// The largest disk that is taken.
pub(crate) const DISK_BYTES_MAX: u64 = 64 << 40;
/// The most leaves in one page of hashes: 4 MiB, for 8 GiB of a disk in chunks of 64 KiB.
pub(crate) const PAGE_LEAVES_MAX: u64 = 64;
/// Bytes of a hash on the wire.
pub(crate) const HASH_BYTES: usize = 32;

const FRAME_HEADER_BYTES: usize = 40;

/// The first answer: who is there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceDescription {
    pub(crate) service: String,
    pub(crate) api: u32,
    pub(crate) chunk_size_bytes: u32,
}

/// Asks for an upload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UploadRequest {
    pub(crate) server: ServerName,
}

/// An upload was begun.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UploadOpened {
    pub(crate) upload: Uuid,
}

/// A run of extents that begins where it was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExtentPage {
    /// Size of the disk in bytes.
    pub(crate) disk_bytes: u64,
    /// One after the other; neighbours differ in kind.
    pub(crate) extents: Vec<WireExtent>,
}

/// One extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireExtent {
    pub(crate) length: u64,
    pub(crate) zero: bool,
}

/// What a library wants again of a server's latest image, in order of its disks; bounded, see
/// [`WantedRange`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WantedList {
    pub(crate) ranges: Vec<WantedRange>,
}

/// Why a request was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Stable: `not-found`, `unknown-upload`, `invalid`, `too-large`, `damaged-upload`, ...
    pub(crate) code: String,
    /// For people, with its sources.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// [`Failure::code`] of an upload that the server does not know, or not any more.
pub(crate) const UNKNOWN_UPLOAD: &str = "unknown-upload";
/// [`Failure::code`] of an image, disk or file that does not exist.
pub(crate) const NOT_FOUND: &str = "not-found";
/// The code of a refusal because something of the library is damaged, not because it is away.
pub(crate) const DAMAGED: &str = "damaged";

/// Hashes of a disk of an image, of some leaves that follow each other.
///
/// ```text
///  0  16  the image
/// 16   8  number of chunks of the disk, little-endian
/// 24   .  32 bytes for each chunk
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashPage {
    pub(crate) image: ImageId,
    pub(crate) chunk_count: u64,
    /// Whole hashes.
    pub(crate) hashes: Vec<u8>,
}

impl HashPage {
    const HEADER_BYTES: usize = 24;

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER_BYTES + self.hashes.len());
        bytes.extend_from_slice(self.image.as_uuid().as_bytes());
        bytes.extend_from_slice(&self.chunk_count.to_le_bytes());
        bytes.extend_from_slice(&self.hashes);
        bytes
    }

    /// `None` when the bytes are too few, or the last hash is cut off.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (image, rest) = bytes.split_first_chunk::<16>()?;
        let (chunk_count, hashes) = rest.split_first_chunk::<8>()?;
        hashes.len().is_multiple_of(HASH_BYTES).then(|| Self {
            image: ImageId::from_uuid(Uuid::from_bytes(*image)),
            chunk_count: u64::from_le_bytes(*chunk_count),
            hashes: hashes.to_vec(),
        })
    }
}

/// The bytes of one hash on the wire.
pub(crate) fn wire_hash(hash: Option<&ContentHash>) -> [u8; HASH_BYTES] {
    hash.map_or([0; HASH_BYTES], |hash| *hash.as_bytes())
}

/// Hashes from the wire; what is left of an incomplete one is returned with them.
pub(crate) fn hashes_from_bytes(bytes: &[u8]) -> (Vec<Option<ContentHash>>, &[u8]) {
    let (whole, rest) = bytes.as_chunks::<HASH_BYTES>();
    let hashes = whole
        .iter()
        .map(|hash| (*hash != [0; HASH_BYTES]).then(|| ContentHash::from_bytes(*hash)))
        .collect();
    (hashes, rest)
}

/// Appends a chunk as a frame.
pub(crate) fn append_frame(body: &mut Vec<u8>, chunk: &ChunkUpload) {
    let compressed_length = u32::try_from(chunk.compressed.len()).unwrap_or(u32::MAX);
    body.extend_from_slice(chunk.hash.as_bytes());
    body.extend_from_slice(&chunk.length.to_le_bytes());
    body.extend_from_slice(&compressed_length.to_le_bytes());
    body.extend_from_slice(&chunk.compressed);
}

/// Bytes of a chunk as a frame.
pub(crate) fn frame_length(chunk: &ChunkUpload) -> usize {
    FRAME_HEADER_BYTES.saturating_add(chunk.compressed.len())
}

/// Takes a body apart into chunks as it arrives; holds at most one frame and one piece.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    waiting: Vec<u8>,
    plain_bytes_max: u32,
}

impl FrameDecoder {
    /// For chunks of at most this size.
    pub(crate) const fn new(chunk_size_bytes: u32) -> Self {
        Self {
            waiting: Vec::new(),
            plain_bytes_max: chunk_size_bytes,
        }
    }

    /// Takes the next piece of the body and gives the chunks that are complete with it.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<ChunkUpload>, String> {
        self.waiting.extend_from_slice(piece);
        let mut chunks = Vec::new();
        let mut taken = 0_usize;
        while let Some((chunk, length)) = first_frame(
            self.waiting.get(taken..).unwrap_or_default(),
            self.plain_bytes_max,
        )? {
            chunks.push(chunk);
            taken = taken.saturating_add(length);
        }
        self.waiting.drain(..taken);
        Ok(chunks)
    }

    /// The body is over: nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.waiting.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "the last frame is cut off after {} bytes",
                self.waiting.len()
            ))
        }
    }
}

/// The first frame of `bytes` and its length, `None` while it is not complete.
fn first_frame(bytes: &[u8], plain_bytes_max: u32) -> Result<Option<(ChunkUpload, usize)>, String> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&header[..32]);
    let length = u32::from_le_bytes([header[32], header[33], header[34], header[35]]);
    let compressed_length = u32::from_le_bytes([header[36], header[37], header[38], header[39]]);
    if length == 0 || length > plain_bytes_max {
        return Err(format!(
            "a chunk of {length} bytes, expected 1 to {plain_bytes_max}"
        ));
    }
    let compressed_max = compressed_bytes_max(plain_bytes_max);
    if compressed_length == 0 || compressed_length > compressed_max {
        return Err(format!(
            "a compressed chunk of {compressed_length} bytes, expected 1 to {compressed_max}"
        ));
    }
    let compressed_length = usize::try_from(compressed_length).unwrap_or(usize::MAX);
    let Some(compressed) = rest.get(..compressed_length) else {
        return Ok(None);
    };
    let chunk = ChunkUpload {
        hash: ContentHash::from_bytes(hash),
        length,
        compressed: compressed.to_vec(),
    };
    Ok(Some((
        chunk,
        FRAME_HEADER_BYTES.saturating_add(compressed_length),
    )))
}

/// No zstd frame of so many plain bytes is longer (its worst case is 1/256 and 64 bytes more).
const fn compressed_bytes_max(plain_bytes: u32) -> u32 {
    plain_bytes
        .saturating_add(plain_bytes / 128)
        .saturating_add(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(fill: u8) -> ChunkUpload {
        let plain = vec![fill; 4096];
        ChunkUpload {
            hash: ContentHash::of(&plain),
            length: 4096,
            compressed: zstd::bulk::compress(&plain, 3).unwrap(),
        }
    }

    #[test]
    fn frames_arrive_whole_however_the_body_is_cut() {
        let mut body = Vec::new();
        for fill in 1..=5 {
            append_frame(&mut body, &chunk(fill));
        }
        for step in [1, 7, 40, 41, body.len()] {
            let mut decoder = FrameDecoder::new(65_536);
            let mut fills = Vec::new();
            for piece in body.chunks(step) {
                for chunk in decoder.push(piece).unwrap() {
                    fills.push(zstd::bulk::decompress(&chunk.compressed, 4096).unwrap()[0]);
                }
            }
            decoder.finish().unwrap();
            assert_eq!(fills, [1, 2, 3, 4, 5], "cut every {step} bytes");
        }
    }

    #[test]
    fn a_cut_off_frame_is_told() {
        let mut body = Vec::new();
        append_frame(&mut body, &chunk(1));
        let mut decoder = FrameDecoder::new(65_536);
        assert!(decoder.push(&body[..body.len() - 1]).unwrap().is_empty());
        let problem = decoder.finish().unwrap_err();
        assert!(problem.contains("cut off"), "{problem}");
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_anything_is_kept() {
        let mut header = [0_u8; 40];
        header[32..36].copy_from_slice(&70_000_u32.to_le_bytes());
        let problem = FrameDecoder::new(65_536).push(&header).unwrap_err();
        assert_eq!(problem, "a chunk of 70000 bytes, expected 1 to 65536");
        header[32..36].copy_from_slice(&4096_u32.to_le_bytes());
        header[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
        let problem = FrameDecoder::new(65_536).push(&header).unwrap_err();
        assert_eq!(
            problem,
            "a compressed chunk of 4294967295 bytes, expected 1 to 67072"
        );
    }

    #[test]
    fn a_page_of_hashes_is_read_back_and_a_cut_one_is_not() {
        let page = HashPage {
            image: "0192f0c1-2233-7aaa-8bbb-ccccddddeeee".parse().unwrap(),
            chunk_count: 5000,
            hashes: vec![7; 64],
        };
        let bytes = page.to_bytes();
        assert_eq!(HashPage::from_bytes(&bytes), Some(page));
        for length in [0, 23, 25, bytes.len() - 1] {
            assert_eq!(HashPage::from_bytes(&bytes[..length]), None);
        }
    }

    #[test]
    fn zero_chunks_are_zero_hashes_on_the_wire() {
        let hash = ContentHash::of(b"x");
        let mut bytes = wire_hash(None).to_vec();
        bytes.extend_from_slice(&wire_hash(Some(&hash)));
        bytes.push(9);
        let (hashes, rest) = hashes_from_bytes(&bytes);
        assert_eq!(hashes, [None, Some(hash)]);
        assert_eq!(rest, [9]);
    }
}
