// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the frozen library: shared by the test that reads it and the program that made it.

/// Opens its key.
pub(crate) const PASSPHRASE: &str = "a relief who takes over a shift";
/// The side file of `web`'s latest image.
pub(crate) const SIDE_FILE: (&str, &[u8]) = ("notes.txt", b"kept beside the image");

/// Bytes that no compression makes smaller.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The disk of `web`: chunks of noise, chunks of zeros, text, an end within a chunk.
pub(crate) fn web_disk() -> Vec<u8> {
    let mut disk = noise(1, 32 << 10);
    disk.resize(96 << 10, 0);
    disk.extend(
        "a line of a log that is much like the next\n"
            .bytes()
            .cycle()
            .take(30_000),
    );
    disk
}

/// The same, later: a few bytes were written among the zeros.
pub(crate) fn web_disk_later() -> Vec<u8> {
    let mut disk = web_disk();
    disk[70_000..70_100].fill(7);
    disk
}

/// The second disk of `db`; the first is a clone of `web`'s.
pub(crate) fn db_disk() -> Vec<u8> {
    noise(2, 20 << 10)
}

/// The disk of the image that was deleted.
pub(crate) fn deleted_disk() -> Vec<u8> {
    noise(3, 12 << 10)
}
