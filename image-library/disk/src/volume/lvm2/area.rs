// SPDX-License-Identifier: MIT OR Apache-2.0
//! A metadata area: a sector that says where in the ring behind it the volume group's text stands.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | checksum of the rest of the sector |
//! | 4 | 16 | magic |
//! | 20 | 4 | version, 1 |
//! | 24 | 8 | where this area begins on the device, in bytes |
//! | 32 | 8 | its size in bytes |
//! | 40 | 24 | the committed text: offset in the area, size (8 each), checksum, flags (4 each) |
//! | 64 | 24 | a text that is being committed, which does not count yet |
//!
//! A text that reaches the area's end goes on behind the header sector.
//! From lib/format_text/layout.h and lib/format_text/format-text.c of LVM2.
//!
//! **Limit:** a text of 64 MiB.

use std::ops::Range;

use crate::block::ReadAt;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_block};

use super::checksum;

const HEADER_BYTES: u64 = 512;
const MAGIC: &[u8; 16] = b"\x20LVM2\x20x[5A%r0N*>";
const FLAG_IGNORED: u32 = 1;
const TEXT_BYTES_MAX: u64 = 64 << 20;
const STRUCTURE: &str = "LVM2 metadata area";

/// The committed text of an area.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredText {
    pub(super) text: Vec<u8>,
    /// LVM does not keep this area up to date.
    pub(super) is_ignored: bool,
}

/// Reads the text of a metadata area; `None` where nothing was ever written to it.
pub(super) fn read(device: &dyn ReadAt, area: &Range<u64>) -> Result<Option<StoredText>> {
    let corrupt = |problem| Error::corrupt(STRUCTURE, area.start, problem);
    let Some(header) = read_block(device, area.start, HEADER_BYTES as usize)? else {
        let problem = format!("expected it before byte {:#x}", device.length_bytes());
        return Err(corrupt(problem));
    };
    let header = Header::from_bytes(&header, area.start)?;
    if header.text.start == 0 {
        return Ok(None);
    }
    let text = read_ring(device, area.start, &header)?;
    let found = checksum::of_lvm(&text);
    if found != header.checksum {
        let problem = format!(
            "expected text with checksum {:#x}, found {found:#x}",
            header.checksum
        );
        return Err(corrupt(problem));
    }
    Ok(Some(StoredText {
        text,
        is_ignored: header.is_ignored,
    }))
}

struct Header {
    size: u64,
    /// From the area's start; its end may lie behind the area's.
    text: Range<u64>,
    checksum: u32,
    is_ignored: bool,
}

impl Header {
    fn from_bytes(bytes: &[u8], start: u64) -> Result<Self> {
        let fields = Fields(bytes);
        let corrupt = |problem| Err(Error::corrupt(STRUCTURE, start, problem));
        let (expected, found) = (fields.u32(0), checksum::of_lvm(fields.bytes(4, 508)));
        if expected != found {
            return corrupt(format!("expected checksum {expected:#x}, found {found:#x}"));
        }
        if fields.bytes(4, 16) != MAGIC || fields.u32(20) != 1 {
            return corrupt("expected the magic of version 1".to_owned());
        }
        if fields.u64(24) != start {
            return corrupt(format!("expected an area of byte {:#x}", fields.u64(24)));
        }
        let (size, offset, length) = (fields.u64(32), fields.u64(40), fields.u64(48));
        let ring = HEADER_BYTES..size;
        let fits = ring.contains(&offset) && length <= size - HEADER_BYTES;
        if offset != 0 && !(fits && length <= TEXT_BYTES_MAX) {
            return corrupt(format!(
                "expected text within {size:#x} bytes, found {length:#x} bytes at {offset:#x}"
            ));
        }
        Ok(Self {
            size,
            text: offset..offset.saturating_add(length),
            checksum: fields.u32(56),
            is_ignored: fields.u32(60) & FLAG_IGNORED != 0,
        })
    }
}

fn read_ring(device: &dyn ReadAt, start: u64, header: &Header) -> Result<Vec<u8>> {
    let before_end = header.text.start..header.text.end.min(header.size);
    let behind_header = HEADER_BYTES..HEADER_BYTES + (header.text.end - before_end.end);
    let mut text = Vec::new();
    for part in [before_end, behind_header] {
        let at = start.saturating_add(part.start);
        let length = (part.end - part.start) as usize;
        let Some(bytes) = read_block(device, at, length)? else {
            let problem = format!("expected {length:#x} bytes of text, found the device's end");
            return Err(Error::corrupt(STRUCTURE, at, problem));
        };
        text.extend(bytes);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Disk};
    use super::*;
    use crate::block::MemoryDevice;

    const TEXT: &str = "vg { id = \"x\" }\n";

    fn read_it(bytes: Vec<u8>) -> Result<Option<StoredText>> {
        read(&MemoryDevice::from(bytes), &sample::AREA)
    }

    #[test]
    fn text_is_read_from_anywhere_in_the_ring_and_around_its_end() {
        let size = sample::AREA.end - sample::AREA.start;
        for at in [512, 1024, size - 3, size - 1] {
            let bytes = Disk::new('a', 1 << 20).text_at(TEXT, at).bytes();
            let stored = read_it(bytes).expect("it is sound").expect("it is there");
            assert_eq!(stored.text, format!("{TEXT}\0").as_bytes(), "at {at}");
            assert!(!stored.is_ignored);
        }
        assert_eq!(
            read_it(Disk::new('a', 1 << 20).bytes()).expect("sound"),
            None
        );
    }

    #[test]
    fn what_is_damaged_is_told() {
        let start = sample::AREA.start as usize;
        let sound = Disk::new('a', 1 << 20).text_at(TEXT, 512).bytes();
        let cases: [(usize, u8, &str); 6] = [
            (4, 0, "expected the magic"),
            (20, 2, "expected the magic"),
            (25, 0xff, "expected an area of byte"),
            (47, 1, "expected text within"),
            (52, 1, "expected text within"),
            (600, 0, "expected text with checksum"),
        ];
        for (at, value, expected) in cases {
            let mut bytes = sound.clone();
            let at = if at == 600 { 512 + 3 } else { at };
            bytes[start + at] = value;
            sample::seal_area(&mut bytes[start..start + 512]);
            let error = read_it(bytes).expect_err("it is damaged");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let mut bytes = sound.clone();
        bytes[start + 300] = 1;
        let error = read_it(bytes).expect_err("it is damaged");
        assert!(error.to_string().contains("expected checksum"), "{error}");
        assert!(read_it(sound[..start + 100].to_vec()).is_err());
        assert!(read_it(sound[..start + 515].to_vec()).is_err());
    }

    #[test]
    fn no_header_makes_the_parser_panic() {
        let start = sample::AREA.start as usize;
        let sound = Disk::new('a', 1 << 17).text_at(TEXT, 512).bytes();
        for at in start + 4..start + 100 {
            for value in [1, 0x7f, 0xff] {
                let mut bytes = sound.clone();
                bytes[at] = value;
                sample::seal_area(&mut bytes[start..start + 512]);
                let _ = read_it(bytes);
            }
        }
    }
}
