// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real configuration files for tests: the archives of `../shared/testdata`, where they are.

use std::path::Path;

use super::compression::{Compression, decompress};

/// Name and contents of each file in an archive of `testdata/linux`; `None`, with the reason
/// printed, where the archive is absent.
pub(super) fn linux_samples(archive: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata/linux");
    let Ok(packed) = std::fs::read(directory.join(archive)) else {
        skip(&format!("the test data {archive} is not here"));
        return None;
    };
    let (tar, _) = decompress(&packed, Compression::Xz, 16 << 20).unwrap();
    Some(tar_files(&tar))
}

/// Prints why a test does nothing; fails where all tests are required.
pub(super) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "a required test was skipped: {reason}"
    );
}

fn tar_files(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut rest = tar;
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, data) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            let field = String::from_utf8_lossy(&header[range]).into_owned();
            field.split('\0').next().unwrap_or_default().to_owned()
        };
        let length = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        if matches!(header[156], b'0' | 0) {
            files.push((text(0..100), data[..length].to_vec()));
        }
        rest = &data[length.next_multiple_of(512)..];
    }
    files
}
