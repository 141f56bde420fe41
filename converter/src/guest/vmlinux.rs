// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel proper, which a kernel's image holds packed behind a loader of its own.
//!
//! It is an ELF program that says where in memory it belongs, and in a note where its code begins for
//! who starts it without its loader: 32 bits, paging off. Unpacked here it starts earlier than by the
//! image's loader in an emulated processor.
//!
//! | at | ELF field, 64 bits, little endian |
//! |---|---|
//! | 0, 4, 5 | `\x7fELF`, class 2 (64 bits), data 1 (little endian) |
//! | 16, 18 | type 2 (executable), machine 62 (x86-64); 16 bits each |
//! | 32, 54, 56 | program headers: where (64 bits), size of each, how many (16 bits each) |
//! | header + 0 | type, 32 bits: 1 is loaded, 4 are notes |
//! | header + 8, + 24 | where in the file, and at which physical address; 64 bits each |
//! | header + 32, + 40 | length in the file and in memory; 64 bits each |
//! | note | length of the name, length of the text, type; 32 bits each; name and text, padded to 4 |
//!
//! Sources: the System V ABI's ELF-64; `XEN_ELFNOTE_PHYS32_ENTRY` in `xen/interface/elfnote.h` and the
//! PVH entry in `arch/x86/platform/pvh/head.S` of Linux, which has it for others than Xen since 5.0 where it
//! was built with `CONFIG_PVH`. Limits: 512 MiB unpacked, 16 program headers within the first 4 KiB, 64 KiB of notes.

use std::io::Read;
use std::ops::Range;

use disk::{Error, Result, WriteAt};

use super::boot_header::{BootHeader, major_minor};
use super::compression::{Compression, Decoder};
use super::little_endian::{u16_at, u32_at, u64_at};

/// Linux 4.11 to 4.20 have the note too, and start so under Xen only.
const SINCE: (u64, u64) = (5, 0);
const UNPACKED_BYTES_MAX: u64 = 512 << 20;
const HEAD_BYTES: usize = 4 << 10;
const HEADER_BYTES: usize = 56;
const HEADERS_MAX: usize = 16;
const NOTES_BYTES_MAX: u64 = 64 << 10;
const BLOCK_BYTES: u64 = 64 << 10;
/// Below it are the firmware and what it tells the kernel.
const LOWEST_ADDRESS: u64 = 1 << 20;

const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const LOADED: u32 = 1;
const NOTES: u32 = 4;
const XEN: &[u8] = b"Xen\0";
const XEN_PHYS32_ENTRY: u32 = 18;

/// Unpacks the kernel of a bzImage to where it belongs in `memory`, which starts at address 0 and
/// reads as zeros; gives the physical address at which it is entered.
///
/// # Errors
///
/// [`Error::Unsupported`] where the image holds no such kernel, [`Error::Corrupt`] where it is
/// damaged or has no room in this memory, and what `memory` says when it is written.
pub fn unpack(image: &[u8], memory: &dyn WriteAt) -> Result<u32> {
    let header = BootHeader::read(image).ok_or_else(|| unsupported("an image without a header"))?;
    if major_minor(header.release().unwrap_or_default()) < SINCE {
        return Err(unsupported("a kernel older than Linux 5.0"));
    }
    let payload = header
        .payload()
        .ok_or_else(|| unsupported("an image that does not say where its kernel is"))?;
    let mut unpacked = Decoder::new(payload, Compression::detect(payload))?;
    let mut block = next_block(&mut unpacked, BLOCK_BYTES)?;
    let program = Program::read(&block)?;
    program.check(memory.length_bytes())?;
    let mut notes = vec![0; program.notes.length()];
    let mut at = 0;
    while !block.is_empty() && at < program.end() {
        for segment in &program.segments {
            if let Some((within, bytes)) = segment.place.part_of(at, &block)
                && bytes.iter().any(|byte| *byte != 0)
            {
                memory.write_all_at(segment.address + within, bytes)?;
            }
        }
        if let Some((within, bytes)) = program.notes.part_of(at, &block) {
            let within = within as usize;
            notes[within..within + bytes.len()].copy_from_slice(bytes);
        }
        at += block.len() as u64;
        // Not further: behind some packed kernels stands their length, which is no part of the stream.
        block = next_block(
            &mut unpacked,
            program.end().saturating_sub(at).min(BLOCK_BYTES),
        )?;
    }
    if at < program.end() {
        return Err(corrupt(at, "it ends before its last segment does"));
    }
    program.entry(&notes)
}

/// The next `length` bytes; fewer at the end of the source.
fn next_block(source: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    let read = source.take(length).read_to_end(&mut block);
    read.map_err(|problem| corrupt(0, problem.to_string()))?;
    Ok(block)
}

/// A range of bytes of the program's file.
#[derive(Debug, Clone, Default)]
struct Place(Range<u64>);

impl Place {
    fn length(&self) -> usize {
        (self.0.end - self.0.start) as usize
    }

    /// What of `block`, which stands at `at` in the file, belongs here, and where within this place.
    fn part_of<'a>(&self, at: u64, block: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let start = self.0.start.max(at);
        let end = self.0.end.min(at + block.len() as u64);
        // A place that ends before the block starts gives no range at all.
        let bytes = block.get(start.checked_sub(at)? as usize..end.checked_sub(at)? as usize)?;
        (!bytes.is_empty()).then_some((start - self.0.start, bytes))
    }
}

#[derive(Debug)]
struct Segment {
    place: Place,
    /// Physical.
    address: u64,
    memory_bytes: u64,
}

/// What is loaded of a program, and its notes.
#[derive(Debug, Default)]
struct Program {
    segments: Vec<Segment>,
    notes: Place,
}

impl Program {
    fn read(head: &[u8]) -> Result<Self> {
        let head = head.get(..HEAD_BYTES).unwrap_or(head);
        let is_known = head.starts_with(b"\x7fELF\x02\x01")
            && u16_at(head, 16) == Some(EXECUTABLE)
            && u16_at(head, 18) == Some(X86_64)
            && u16_at(head, 54).map(usize::from) == Some(HEADER_BYTES);
        if !is_known {
            return Err(unsupported("a kernel that is no program for x86-64"));
        }
        let headers = || {
            let start = usize::try_from(u64_at(head, 32)?).ok()?;
            let count = usize::from(u16_at(head, 56)?);
            let length = count.checked_mul(HEADER_BYTES)?;
            head.get(start..start.checked_add(length)?)
        };
        let headers = headers().ok_or_else(|| corrupt(32, "its headers are not in its head"))?;
        if headers.len() > HEADERS_MAX * HEADER_BYTES {
            return Err(corrupt(56, format!("more than {HEADERS_MAX} headers")));
        }
        let mut program = Self::default();
        for header in headers.chunks_exact(HEADER_BYTES) {
            program
                .add(header)
                .ok_or_else(|| corrupt(32, "a segment is larger than any file"))?;
        }
        Ok(program)
    }

    fn add(&mut self, header: &[u8]) -> Option<()> {
        let kind = u32_at(header, 0)?;
        let (start, length) = (u64_at(header, 8)?, u64_at(header, 32)?);
        let place = Place(start..start.checked_add(length)?);
        match kind {
            LOADED => self.segments.push(Segment {
                place,
                address: u64_at(header, 24)?,
                memory_bytes: u64_at(header, 40)?.max(length),
            }),
            NOTES => self.notes = place,
            _ => {}
        }
        Some(())
    }

    /// Refuses what would be unpacked for ever, or would not fit.
    fn check(&self, memory_bytes: u64) -> Result<()> {
        if self.end() > UNPACKED_BYTES_MAX {
            return Err(Error::Limit {
                what: "unpacked length in bytes",
                limit: UNPACKED_BYTES_MAX,
            });
        }
        if self.notes.length() as u64 > NOTES_BYTES_MAX {
            return Err(Error::Limit {
                what: "length of a kernel's notes in bytes",
                limit: NOTES_BYTES_MAX,
            });
        }
        for segment in &self.segments {
            let end = segment.address.checked_add(segment.memory_bytes);
            let fits = segment.address >= LOWEST_ADDRESS && end.is_some_and(|e| e <= memory_bytes);
            if !fits {
                let problem = format!("no room for a segment at {:#x}", segment.address);
                return Err(corrupt(segment.place.0.start, problem));
            }
        }
        Ok(())
    }

    /// Where the last byte ends that is wanted.
    fn end(&self) -> u64 {
        let places = self.segments.iter().map(|segment| &segment.place);
        let ends = places.chain([&self.notes]).map(|place| place.0.end);
        ends.max().unwrap_or(0)
    }

    fn entry(&self, notes: &[u8]) -> Result<u32> {
        let entry = phys32_entry(notes)
            .ok_or_else(|| unsupported("a kernel that starts with its loader only"))?;
        let is_code = |segment: &Segment| {
            let within = u64::from(entry).checked_sub(segment.address);
            within.is_some_and(|within| within < segment.place.length() as u64)
        };
        if self.segments.iter().any(is_code) {
            Ok(entry)
        } else {
            Err(corrupt(self.notes.0.start, "it begins outside of itself"))
        }
    }
}

fn phys32_entry(mut notes: &[u8]) -> Option<u32> {
    loop {
        let name_length = usize::try_from(u32_at(notes, 0)?).ok()?;
        let text_length = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let text_at = 12_usize.checked_add(name_length.checked_next_multiple_of(4)?)?;
        let name = notes.get(12..12 + name_length)?;
        if name == XEN && kind == XEN_PHYS32_ENTRY && text_length >= 4 {
            return u32_at(notes, text_at);
        }
        let next = text_at.checked_add(text_length.checked_next_multiple_of(4)?)?;
        notes = notes.get(next..)?;
    }
}

fn unsupported(feature: &str) -> Error {
    Error::unsupported("kernel", feature)
}

fn corrupt(offset: u64, problem: impl Into<String>) -> Error {
    Error::corrupt("kernel", offset, problem)
}

#[cfg(test)]
mod tests;
