// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checksums of LVM2 and of device mapper's metadata, as their writers use them: without the
//! final inversion, and LVM with a first value of its own.

/// LVM's first value (`INITIAL_CRC` in lib/misc/crc.h).
const LVM_FIRST: u32 = 0xf597_a6cf;

static CRC32: [u32; 256] = table(0xedb8_8320);
static CRC32C: [u32; 256] = table(0x82f6_3b78);

/// The sum of a label, of a metadata area's header, or of metadata.
pub(super) fn of_lvm(bytes: &[u8]) -> u32 {
    update(&CRC32, LVM_FIRST, bytes)
}

/// The sum of a block of device mapper's metadata, which differs by the kind of block.
pub(super) fn of_block(bytes: &[u8], kind: u32) -> u32 {
    update(&CRC32C, u32::MAX, bytes) ^ kind
}

fn update(table: &[u32; 256], first: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(first, |sum, byte| {
        table[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8)
    })
}

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { polynomial } else { 0 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_both_polynomials_come_out() {
        let text = b"123456789";
        assert_eq!(!update(&CRC32, u32::MAX, text), 0xcbf4_3926);
        assert_eq!(!update(&CRC32C, u32::MAX, text), 0xe306_9283);
        assert_eq!(of_lvm(b""), LVM_FIRST);
    }
}
