// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arithmetic of RAID6: bytes as elements of GF(2^8) with the polynomial 0x11d.
//!
//! P is the sum (XOR) of the data, Q the sum of `g^slot * data` with the generator g = 2. Source:
//! H. Peter Anvin, "The mathematics of RAID-6".

/// Powers of the generator; twice over, so that a sum of two logarithms needs no reduction.
const POWERS: [u8; 510] = powers();
const LOGARITHMS: [u8; 256] = logarithms();

const fn powers() -> [u8; 510] {
    let mut table = [0; 510];
    let mut value = 1_u16;
    let mut index = 0;
    while index < 255 {
        table[index] = value as u8;
        table[index + 255] = value as u8;
        value <<= 1;
        if value & 0x100 != 0 {
            value ^= 0x11d;
        }
        index += 1;
    }
    table
}

const fn logarithms() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 255 {
        table[POWERS[index] as usize] = index as u8;
        index += 1;
    }
    table
}

/// The generator to a power.
pub(super) fn power(exponent: usize) -> u8 {
    POWERS[exponent % 255]
}

pub(super) fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    POWERS[usize::from(LOGARITHMS[usize::from(a)]) + usize::from(LOGARITHMS[usize::from(b)])]
}

/// The inverse; of 0, which has none, it is 1.
pub(super) fn inverse(a: u8) -> u8 {
    POWERS[255 - usize::from(LOGARITHMS[usize::from(a)])]
}

/// `sum += bytes`
pub(super) fn add(sum: &mut [u8], bytes: &[u8]) {
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        *sum ^= byte;
    }
}

/// `sum += factor * bytes`
pub(super) fn add_product(sum: &mut [u8], factor: u8, bytes: &[u8]) {
    let products: [u8; 256] = std::array::from_fn(|byte| multiply(factor, byte as u8));
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        *sum ^= products[usize::from(*byte)];
    }
}

/// `bytes *= factor`
pub(super) fn scale(bytes: &mut [u8], factor: u8) {
    for byte in bytes {
        *byte = multiply(factor, *byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
        assert_eq!(multiply(0x80, 2), 0x1d);
        assert_eq!(power(8), 0x1d);
        assert_eq!(power(255), 1);
    }
}
