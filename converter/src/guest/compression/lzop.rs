// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what lzop packs: its file format, and LZO1X inside.
//!
//! ```text
//! magic (9 bytes)  version (2)  library (2)  [version needed (2)]  method (1)  [level (1)]
//! flags (4)  [filter (4)]  mode (4)  mtime (4)  [mtime, high half (4)]  name length (1)  name
//! check of the header (4)
//! block*: unpacked length (4)  packed length (4)  checks (4 each)  data
//! end: unpacked length 0
//! ```
//! All numbers are big-endian; what is in brackets is there from version 0x0940, the filter where a
//! flag says so. A block whose lengths are equal is stored. The instructions of LZO1X are those of
//! Documentation/staging/lzo.rst in the kernel; the file format is what lib/decompress_unlzo.c reads.
//!
//! Limits: blocks of 64 MiB, lzop's own limit.

use std::io::{self, Read};

const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];
const BLOCK_LENGTH_MAX: usize = 64 << 20;
const VERSION_WITH_LEVEL: u16 = 0x0940;
const HAS_FILTER: u32 = 0x800;
const HAS_EXTRA_FIELD: u32 = 0x40;
const CHECKS_OF_UNPACKED: [u32; 2] = [0x001, 0x100];
const CHECKS_OF_PACKED: [u32; 2] = [0x002, 0x200];
const ADLER32_OF_UNPACKED: u32 = 0x001;
/// Where the third form of a match begins to count distances, and the end mark's distance.
const FAR_DISTANCE: usize = 16384;

/// Reads one lzop stream.
pub(super) struct Lzop<'a> {
    source: &'a [u8],
    flags: Option<u32>,
    block: Vec<u8>,
    position: usize,
    ended: bool,
}

impl<'a> Lzop<'a> {
    pub(super) const fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            flags: None,
            block: Vec::new(),
            position: 0,
            ended: false,
        }
    }

    /// The bytes after the stream, once it was read to its end.
    pub(super) fn into_remaining(self) -> &'a [u8] {
        self.source
    }

    /// Unpacks the next block; false where the stream ends.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut input = Input(self.source);
        let flags = match self.flags {
            Some(flags) => flags,
            None => header(&mut input)?,
        };
        self.flags = Some(flags);
        let unpacked = input.number()? as usize;
        if unpacked == 0 {
            self.source = input.0;
            self.ended = true;
            return Ok(false);
        }
        let packed = input.number()? as usize;
        if unpacked > BLOCK_LENGTH_MAX || packed > unpacked {
            return Err(invalid("lzop block with impossible lengths"));
        }
        let adler = read_checks(&mut input, flags, packed < unpacked)?;
        let data = input.take(packed)?;
        self.block = if packed == unpacked {
            data.to_vec()
        } else {
            lzo1x(data, unpacked)?
        };
        if adler.is_some_and(|adler| adler != adler32(&self.block)) {
            return Err(invalid("lzop block whose checksum is wrong"));
        }
        self.position = 0;
        self.source = input.0;
        Ok(true)
    }
}

impl Read for Lzop<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if self.ended || !self.next_block()? {
                return Ok(0);
            }
        }
        let mut rest = &self.block[self.position..];
        let length = rest.read(target)?;
        self.position += length;
        Ok(length)
    }
}

/// The header; gives its flags.
fn header(input: &mut Input<'_>) -> io::Result<u32> {
    if input.take(MAGIC.len())? != MAGIC {
        return Err(invalid("no lzop header"));
    }
    let version = input.short()?;
    let has_level = version >= VERSION_WITH_LEVEL;
    input.take(if has_level { 6 } else { 3 })?;
    let flags = input.number()?;
    if flags & HAS_EXTRA_FIELD != 0 {
        return Err(invalid("lzop header with an extra field"));
    }
    let filter = if flags & HAS_FILTER != 0 { 4 } else { 0 };
    input.take(filter + if has_level { 12 } else { 8 })?;
    let name_length = input.byte()?;
    input.take(usize::from(name_length) + 4)?;
    Ok(flags)
}

/// The checks of a block; gives the Adler-32 of what is unpacked, where there is one.
fn read_checks(input: &mut Input<'_>, flags: u32, is_packed: bool) -> io::Result<Option<u32>> {
    let mut adler = None;
    for check in CHECKS_OF_UNPACKED {
        if flags & check != 0 {
            let value = input.number()?;
            if check == ADLER32_OF_UNPACKED {
                adler = Some(value);
            }
        }
    }
    // A stored block has no second pair.
    for check in CHECKS_OF_PACKED {
        if is_packed && flags & check != 0 {
            input.number()?;
        }
    }
    Ok(adler)
}

/// RFC 1950.
fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1_u32, 0_u32);
    // As many bytes as fit before the sums must be reduced.
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            low += u32::from(*byte);
            high += low;
        }
        low %= 65521;
        high %= 65521;
    }
    high << 16 | low
}

/// Unpacks one block, which must give exactly this many bytes.
fn lzo1x(packed: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut input = Input(packed);
    let mut output = Output {
        bytes: Vec::with_capacity(length),
        limit: length,
    };
    // How many literals the last instruction copied; 4 stands for 4 and more.
    let mut literals = 0;
    if let Some(&first) = packed.first().filter(|first| **first > 17) {
        input.byte()?;
        let count = usize::from(first) - 17;
        output.literals(&mut input, count)?;
        literals = count.min(4);
    }
    loop {
        let instruction = usize::from(input.byte()?);
        if instruction < 16 && literals == 0 {
            let count = 3 + input.length(instruction, 15)?;
            output.literals(&mut input, count)?;
            literals = 4;
            continue;
        }
        let (distance, count, following) = copy(instruction, literals, &mut input)?;
        if distance == FAR_DISTANCE && (16..32).contains(&instruction) {
            break;
        }
        output.copy(distance, count)?;
        output.literals(&mut input, following)?;
        literals = following;
    }
    if output.bytes.len() != length {
        return Err(invalid("LZO block of another length than announced"));
    }
    Ok(output.bytes)
}

/// Distance and length of a copy, and how many literals follow it.
fn copy(
    instruction: usize,
    literals: usize,
    input: &mut Input<'_>,
) -> io::Result<(usize, usize, usize)> {
    let near = instruction >> 2;
    Ok(match instruction {
        64.. => {
            let distance = (usize::from(input.byte()?) << 3) + (near & 7) + 1;
            (distance, (instruction >> 5) + 1, instruction & 3)
        }
        32..64 => {
            let count = 2 + input.length(instruction & 31, 31)?;
            let word = input.little()?;
            ((word >> 2) + 1, count, word & 3)
        }
        16..32 => {
            let count = 2 + input.length(instruction & 7, 7)?;
            let word = input.little()?;
            let high = (instruction & 8) << 11;
            (FAR_DISTANCE + high + (word >> 2), count, word & 3)
        }
        _ => {
            let (base, count) = if literals == 4 { (2049, 3) } else { (1, 2) };
            let distance = (usize::from(input.byte()?) << 2) + (near & 3) + base;
            (distance, count, instruction & 3)
        }
    })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| invalid("lzop stream ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn number(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn little(&mut self) -> io::Result<usize> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    /// A length that goes on, where its bits are 0, in zeros of 255 each and a last byte.
    fn length(&mut self, bits: usize, base: usize) -> io::Result<usize> {
        if bits != 0 {
            return Ok(bits);
        }
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + usize::from(last)),
            }
        }
    }
}

struct Output {
    bytes: Vec<u8>,
    limit: usize,
}

impl Output {
    fn literals(&mut self, input: &mut Input<'_>, count: usize) -> io::Result<()> {
        self.check(count)?;
        self.bytes.extend_from_slice(input.take(count)?);
        Ok(())
    }

    /// Repeats what was written `distance` bytes ago; the two may overlap.
    fn copy(&mut self, distance: usize, count: usize) -> io::Result<()> {
        self.check(count)?;
        let start = self
            .bytes
            .len()
            .checked_sub(distance)
            .ok_or_else(|| invalid("LZO copy from before the block"))?;
        for index in start..start + count {
            let byte = self.bytes[index];
            self.bytes.push(byte);
        }
        Ok(())
    }

    fn check(&self, count: usize) -> io::Result<()> {
        if count > self.limit - self.bytes.len() {
            return Err(invalid("LZO block longer than announced"));
        }
        Ok(())
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each kind of instruction gives, by the document's words.
    #[test]
    fn every_instruction_does_what_the_document_says() {
        let unpack = |packed: &[u8], length| lzo1x(packed, length).unwrap();
        let end = [17, 0, 0];
        let with_end = |start: &[u8]| [start, &end].concat();
        // 4 literals at the start, then two bytes from 3 before, and one literal.
        assert_eq!(
            unpack(&with_end(b"\x15abcd\x49\x00e"), 8),
            b"abcdbcde".to_vec()
        );
        // A long run of literals: 0, then 15 + 3 + 2 bytes.
        let run = [&[0, 2][..], b"ABCDEFGHIJKLMNOPQRST"].concat();
        assert_eq!(
            unpack(&with_end(&run), 20),
            b"ABCDEFGHIJKLMNOPQRST".to_vec()
        );
        // 0 0 1 L: 2 + 31 + 2 bytes from one before, an overlapping copy.
        let fill = [&[18, b'x'][..], &[32, 2, 0, 0]].concat();
        assert_eq!(unpack(&with_end(&fill), 36), vec![b'x'; 36]);
        // After one literal, a copy of two bytes.
        let two = [&[0x15][..], b"abcd", &[0x41, 0, b'-'], &[0b1000, 0]].concat();
        assert_eq!(unpack(&with_end(&two), 10), b"abcdddd-dd".to_vec());
    }

    #[test]
    fn copies_and_lengths_that_cannot_be_are_errors() {
        for packed in [
            &b"\x15abcd\x49\xff"[..],
            b"\x15abcd",
            b"\x00",
            b"\x00\x00\x00",
            b"",
            b"\x20\x01\x00\x00\x11\x00\x00",
        ] {
            assert!(lzo1x(packed, 8).is_err(), "{packed:?}");
        }
    }

    #[test]
    fn the_checksum_is_adler_32() {
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
        assert_eq!(adler32(b""), 1);
    }
}
