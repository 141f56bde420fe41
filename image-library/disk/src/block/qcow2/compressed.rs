// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compressed clusters: raw deflate or one zstd frame, followed by bytes that mean nothing.
//!
//! The stored length is rounded up to sectors, so the stream ends somewhere inside it. What comes
//! out is one cluster, never more: a bomb cannot grow.

use std::io::Read;

use flate2::{Decompress, FlushDecompress};

use super::header::Compression;

/// Decompresses one cluster of `cluster_size` bytes; the error says what was wrong.
pub(super) fn decompress(
    compression: Compression,
    stored: &[u8],
    cluster_size: usize,
) -> Result<Vec<u8>, String> {
    let mut cluster = vec![0; cluster_size];
    match compression {
        Compression::Deflate => inflate(stored, &mut cluster)?,
        Compression::Zstd => zstd::stream::read::Decoder::new(stored)
            .and_then(|decoder| decoder.single_frame().read_exact(&mut cluster))
            .map_err(|error| format!("expected a zstd frame of one cluster, found {error}"))?,
    }
    Ok(cluster)
}

fn inflate(stored: &[u8], cluster: &mut [u8]) -> Result<(), String> {
    let mut stream = Decompress::new(false);
    let status = stream
        .decompress(stored, cluster, FlushDecompress::Finish)
        .map_err(|error| format!("expected a deflate stream, found {error}"))?;
    let found = stream.total_out();
    if found == cluster.len() as u64 {
        return Ok(());
    }
    Err(format!(
        "expected a deflate stream of {} bytes, found {found} ({status:?})",
        cluster.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn a_cluster_is_decompressed_although_other_bytes_follow() {
        let cluster = [b"some".repeat(256), vec![0; 3072]].concat();
        let mut stored = deflate(&cluster);
        stored.extend([0xaa; 100]);
        let found = decompress(Compression::Deflate, &stored, 4096).expect("deflate");
        assert!(found == cluster);
        let mut stored = zstd::encode_all(&cluster[..], 3).expect("memory");
        stored.extend([0xaa; 100]);
        let found = decompress(Compression::Zstd, &stored, 4096).expect("zstd");
        assert!(found == cluster);
    }

    #[test]
    fn a_stream_that_is_short_or_wrong_is_an_error() {
        let half = [3; 2048];
        let found = decompress(Compression::Deflate, &deflate(&half), 4096);
        assert_eq!(
            found,
            Err("expected a deflate stream of 4096 bytes, found 2048 (StreamEnd)".to_owned())
        );
        let half = zstd::encode_all(&half[..], 3).expect("memory");
        assert!(decompress(Compression::Zstd, &half, 4096).is_err());
        assert!(decompress(Compression::Deflate, &[0xff; 64], 4096).is_err());
        assert!(decompress(Compression::Zstd, &[0xff; 64], 4096).is_err());
        assert!(decompress(Compression::Zstd, &[], 4096).is_err());
    }
}
