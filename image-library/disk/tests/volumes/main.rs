// SPDX-License-Identifier: MIT OR Apache-2.0
//! Volumes that are made of other devices, made by their own tools and drivers.

mod luks;
mod lvm2;
mod md;
#[path = "../outside/mod.rs"]
mod outside;
mod used;

/// xorshift64*: what follows depends on the seed alone.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
