// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unified kernel images: kernel, initramfs and command line as sections of one EFI program.
//!
//! | byte | PE/COFF field, little endian |
//! |---|---|
//! | 0, 0x3c | `MZ`, and where the PE header is |
//! | PE + 0 | `PE\0\0` |
//! | PE + 6, + 20 | number of sections (u16), size of the optional header (u16) |
//! | PE + 24 | optional header: 0x10b or 0x20b; data directory 4 (at 128 or 144) is the signature |
//! | behind it | sections of 40 bytes: name (8), virtual size, address, raw size, raw position |
//!
//! Sections: `.linux` `.initrd` `.cmdline` `.osrel` `.uname`. The signature covers all of them. Facts:
//! Microsoft's PE format; UAPI.5 Unified Kernel Image. Limit: 96 sections, as Windows has it.

use std::ops::Range;

use super::little_endian::{u16_at, u32_at};

const SECTIONS_MAX: usize = 96;
const SECTION_BYTES: usize = 40;

/// A unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uki<'a> {
    file: &'a [u8],
    sections: Vec<(String, Range<usize>)>,
    /// Whether a signature is attached.
    pub is_signed: bool,
}

impl<'a> Uki<'a> {
    /// Reads an EFI program; `None` where it is none, or has no kernel inside.
    #[must_use]
    pub fn parse(file: &'a [u8]) -> Option<Self> {
        if !file.starts_with(b"MZ") {
            return None;
        }
        let header = usize::try_from(u32_at(file, 0x3c)?).ok()?;
        let header = file.get(header..)?;
        if !header.starts_with(b"PE\0\0") {
            return None;
        }
        let count = usize::from(u16_at(header, 6)?).min(SECTIONS_MAX);
        let optional_bytes = usize::from(u16_at(header, 20)?);
        let optional = header.get(24..24 + optional_bytes)?;
        let table = header.get(24 + optional_bytes..)?;
        let mut sections = Vec::new();
        for entry in table.chunks_exact(SECTION_BYTES).take(count) {
            sections.extend(section(entry, file.len()));
        }
        let found = Self {
            file,
            sections,
            is_signed: is_signed(optional),
        };
        found.section(".linux").is_some().then_some(found)
    }

    /// The first section of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let mut sections = self.sections.iter();
        let (_, range) = sections.find(|(known, _)| known == name)?;
        self.file.get(range.clone())
    }

    /// A section of text, without zeros and blanks at its end.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(self.section(name)?).into_owned();
        Some(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
    }
}

/// Name and place of a section; `None` where it is not inside the file.
fn section(entry: &[u8], length: usize) -> Option<(String, Range<usize>)> {
    let name = entry.get(..8)?;
    let name = name.split(|byte| *byte == 0).next()?;
    let position = |offset| usize::try_from(u32_at(entry, offset)?).ok();
    let (virtual_size, raw_size, start) = (position(8)?, position(16)?, position(20)?);
    // The file's part is padded; the virtual size is what counts.
    let end = start.checked_add(virtual_size.min(raw_size))?;
    let name = String::from_utf8_lossy(name).into_owned();
    (end <= length).then_some((name, start..end))
}

fn is_signed(optional: &[u8]) -> bool {
    let directories = match u16_at(optional, 0) {
        Some(0x10b) => 96,
        Some(0x20b) => 112,
        _ => return false,
    };
    u32_at(optional, directories + 4 * 8 + 4).is_some_and(|size| size > 0)
}

/// An image with these sections, for tests.
#[cfg(test)]
pub(crate) fn build(sections: &[(&str, &[u8])], is_signed: bool) -> Vec<u8> {
    const ALIGNMENT: usize = 512;
    let mut file = vec![0; ALIGNMENT * 2];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x80;
    file[0x80..0x84].copy_from_slice(b"PE\0\0");
    file[0x86] = u8::try_from(sections.len()).unwrap();
    file[0x94] = 240;
    file[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
    file[0x98 + 112 + 36] = u8::from(is_signed);
    for (number, (name, content)) in sections.iter().enumerate() {
        let entry = 0x98 + 240 + number * SECTION_BYTES;
        let start = file.len();
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        let raw = file.len() - start;
        let mut put = |offset: usize, value: usize| {
            let value = u32::try_from(value).unwrap();
            file[entry + offset..entry + offset + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(8, content.len());
        put(16, raw);
        put(20, start);
        file[entry..entry + name.len()].copy_from_slice(name.as_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_by_their_names() {
        let file = build(
            &[
                (".osrel", b"ID=fedora\n"),
                (".cmdline", b"root=UUID=1 ro \0"),
                (".linux", b"kernel"),
                (".initrd", b"archive"),
            ],
            true,
        );
        let uki = Uki::parse(&file).unwrap();
        assert!(uki.is_signed);
        assert_eq!(uki.section(".initrd"), Some(&b"archive"[..]));
        assert_eq!(uki.text(".cmdline").as_deref(), Some("root=UUID=1 ro"));
        assert_eq!(uki.section(".uname"), None);
    }

    #[test]
    fn a_program_without_kernel_is_no_image() {
        assert_eq!(Uki::parse(&build(&[(".text", b"x")], false)), None);
        assert_eq!(Uki::parse(b"MZ"), None);
        assert_eq!(Uki::parse(b""), None);
    }

    #[test]
    fn damage_gives_another_content_or_none() {
        let file = build(&[(".linux", b"kernel"), (".cmdline", b"ro")], false);
        for position in 0..0x1c0 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[position] = value;
                if let Some(uki) = Uki::parse(&damaged) {
                    let _text = uki.text(".cmdline");
                }
            }
        }
        for length in 0..file.len() {
            let _uki = Uki::parse(&file[..length]);
        }
    }
}
