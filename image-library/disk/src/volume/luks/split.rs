// SPDX-License-Identifier: MIT OR Apache-2.0
//! The anti-forensic splitter: a key is spread over thousands of stripes, and is gone when any of
//! them is overwritten.
//!
//! The sum (XOR) of all stripes but the last is diffused after each one; with the last it is the
//! key. To diffuse is to replace each piece of the hash's length by the hash of its number
//! (big-endian, 32 bits) and itself.

use zeroize::Zeroizing;

use super::hash::Hash;

/// The key in `bytes`, which are `stripes` of equal length.
pub(super) fn merge(bytes: &[u8], stripes: usize, hash: Hash) -> Zeroizing<Vec<u8>> {
    let length = bytes.len() / stripes.max(1);
    let mut key = Zeroizing::new(vec![0; length]);
    for (index, stripe) in bytes.chunks_exact(length.max(1)).take(stripes).enumerate() {
        for (sum, byte) in key.iter_mut().zip(stripe) {
            *sum ^= byte;
        }
        if index + 1 < stripes {
            diffuse(&mut key, hash);
        }
    }
    key
}

fn diffuse(key: &mut [u8], hash: Hash) {
    let piece_length = hash.digest(&[]).len();
    for (number, piece) in (0_u32..).zip(key.chunks_mut(piece_length)) {
        let mut input = Zeroizing::new(number.to_be_bytes().to_vec());
        input.extend_from_slice(piece);
        let digest = Zeroizing::new(hash.digest(&input));
        piece.copy_from_slice(&digest[..piece.len()]);
    }
}
