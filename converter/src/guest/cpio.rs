// SPDX-License-Identifier: MIT OR Apache-2.0
//! cpio archives in the form that the kernel unpacks: newc, with or without checksum.
//!
//! ```text
//! "070701" (newc) or "070702" (crc), then 13 numbers of 8 hexadecimal digits:
//!   inode mode uid gid links mtime size dev_major dev_minor rdev_major rdev_minor name_size check
//! name, NUL, zeros to a multiple of 4, data, zeros to a multiple of 4
//! ```
//! (Documentation/driver-api/early-userspace/buffer-format.rst.) An archive ends with an entry
//! named `TRAILER!!!`; zeros and another archive may follow it. Multiples of 4 count from the
//! first byte of the stream.
//!
//! [`Reader`] works on a stream, so that an archive of 100 MB needs no memory. [`Writer`] gives
//! the same bytes for the same entries: inode numbers count from 1, owner is root, links are 1.
//!
//! Limits: names of [`NAME_LENGTH_MAX`] bytes, as the kernel has it.

use std::io::{self, BufRead};

use disk::{Error, Result};

const STRUCTURE: &str = "cpio archive";
const TRAILER: &str = "TRAILER!!!";
const HEADER_LENGTH: usize = 110;

/// The longest name that is read, as in the kernel (`PATH_MAX`).
pub const NAME_LENGTH_MAX: usize = 4096;

/// What kind of file a mode says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its data is the target.
    Symlink,
    /// A device node, FIFO or socket.
    Special,
}

/// One member of an archive, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as stored; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// The inode number; with the device, it tells hard links of one archive.
    pub inode: u32,
    /// The device of the inode.
    pub device: (u32, u32),
    /// How many names the inode has.
    pub link_count: u32,
    /// Time of modification, in seconds since 1970.
    pub mtime: u32,
    /// Where the data begins in the stream, in bytes.
    pub data_offset: u64,
    /// How long the data is, in bytes.
    pub data_length: u64,
}

impl Entry {
    /// The file type that [`Entry::mode`] says.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        kind_of_mode(self.mode)
    }
}

/// The file type in a mode.
#[must_use]
pub fn kind_of_mode(mode: u32) -> FileKind {
    match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Special,
    }
}

/// Reads the entries of the archives of one stream.
///
/// ```text
/// while reader.find_archive()? { while let Some(entry) = reader.next_entry()? { .. } }
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    position: u64,
    data_left: u64,
}

impl<R: BufRead> Reader<R> {
    /// Starts at the first byte of `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            position: 0,
            data_left: 0,
        }
    }

    /// How many bytes of the stream were used.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives the source back, at [`Reader::position`].
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Skips zeros; true if an archive follows, false at the end or before foreign bytes.
    pub fn find_archive(&mut self) -> Result<bool> {
        loop {
            let buffer = fill(&mut self.source, self.position)?;
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            let next = buffer.get(zeros).copied();
            self.source.consume(zeros);
            self.position += zeros as u64;
            match next {
                Some(byte) => return Ok(byte == b'0' && self.position.is_multiple_of(4)),
                None if zeros == 0 => return Ok(false),
                None => {}
            }
        }
    }

    /// The next entry of this archive; `None` after its trailer.
    ///
    /// Data of the entry before that was not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.data_left)?;
        self.skip(padding(self.position))?;
        let header_offset = self.position;
        let mut header = [0; HEADER_LENGTH];
        self.read_exact(&mut header)?;
        let fields = fields(&header, header_offset)?;
        let name = self.read_name(fields.name_size, header_offset)?;
        self.skip(padding(self.position))?;
        self.data_left = u64::from(fields.file_size);
        if name == TRAILER {
            self.skip(self.data_left)?;
            self.data_left = 0;
            // The kernel looks for the next archive at multiples of 4 only.
            return Ok(None);
        }
        Ok(Some(Entry {
            name,
            mode: fields.mode,
            inode: fields.inode,
            device: fields.device,
            link_count: fields.link_count,
            mtime: fields.mtime,
            data_offset: self.position,
            data_length: self.data_left,
        }))
    }

    /// The data of the entry that [`Reader::next_entry`] gave last, at most `limit` bytes of it.
    pub fn read_data(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.data_left > limit {
            return Err(Error::Limit {
                what: "length of one file in a cpio archive in bytes",
                limit,
            });
        }
        let mut data = Vec::new();
        while self.data_left > 0 {
            let chunk = self.chunk()?;
            data.extend_from_slice(chunk);
            let length = chunk.len();
            self.consume(length);
        }
        Ok(data)
    }

    fn read_name(&mut self, name_size: u32, header_offset: u64) -> Result<String> {
        if name_size == 0 || name_size as usize > NAME_LENGTH_MAX {
            return Err(Error::corrupt(
                STRUCTURE,
                header_offset,
                format!("expected a name of 1 to {NAME_LENGTH_MAX} bytes, found {name_size}"),
            ));
        }
        let mut name = vec![0; name_size as usize];
        self.read_exact(&mut name)?;
        let end = name.iter().position(|byte| *byte == 0);
        Ok(String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned())
    }

    fn read_exact(&mut self, target: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < target.len() {
            let buffer = fill(&mut self.source, self.position)?;
            if buffer.is_empty() {
                return Err(ends_early(self.position));
            }
            let length = buffer.len().min(target.len() - filled);
            target[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.source.consume(length);
            self.position += length as u64;
            filled += length;
        }
        Ok(())
    }

    /// Some bytes of the current entry's data, at least one.
    fn chunk(&mut self) -> Result<&[u8]> {
        let buffer = fill(&mut self.source, self.position)?;
        if buffer.is_empty() {
            return Err(ends_early(self.position));
        }
        let length =
            usize::try_from(self.data_left).map_or(buffer.len(), |left| left.min(buffer.len()));
        Ok(&buffer[..length])
    }

    fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.position += length as u64;
        self.data_left -= length as u64;
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.data_left = length;
        while self.data_left > 0 {
            let length = self.chunk()?.len();
            self.consume(length);
        }
        Ok(())
    }
}

struct Fields {
    inode: u32,
    mode: u32,
    link_count: u32,
    mtime: u32,
    file_size: u32,
    device: (u32, u32),
    name_size: u32,
}

fn fields(header: &[u8; HEADER_LENGTH], offset: u64) -> Result<Fields> {
    let (magic, numbers) = header.split_at(6);
    if magic != b"070701" && magic != b"070702" {
        return Err(Error::corrupt(
            STRUCTURE,
            offset,
            format!(
                "expected \"070701\" or \"070702\", found \"{}\"",
                magic.escape_ascii()
            ),
        ));
    }
    let mut values = [0; 13];
    for (value, digits) in values.iter_mut().zip(numbers.chunks_exact(8)) {
        *value = hexadecimal(digits).ok_or_else(|| {
            Error::corrupt(
                STRUCTURE,
                offset,
                format!(
                    "expected hexadecimal digits, found \"{}\"",
                    digits.escape_ascii()
                ),
            )
        })?;
    }
    let [
        inode,
        mode,
        _uid,
        _gid,
        link_count,
        mtime,
        file_size,
        major,
        minor,
        _,
        _,
        name_size,
        _,
    ] = values;
    Ok(Fields {
        inode,
        mode,
        link_count,
        mtime,
        file_size,
        device: (major, minor),
        name_size,
    })
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

fn fill<R: BufRead>(source: &mut R, position: u64) -> Result<&[u8]> {
    // A source that is interrupted says so once; `fill_buf` is asked again.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(stream_error(position, error)),
        }
    }
    source
        .fill_buf()
        .map_err(|error| stream_error(position, error))
}

/// What a decoder under the archive said; a limit stays a limit.
fn stream_error(position: u64, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::corrupt(STRUCTURE, position, format!("cannot decompress: {error}")),
    }
}

fn ends_early(position: u64) -> Error {
    Error::corrupt(STRUCTURE, position, "ends in the middle of an entry")
}

fn padding(position: u64) -> u64 {
    position.wrapping_neg() % 4
}

/// Writes one archive, deterministically.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    inode: u32,
    mtime: u32,
}

impl Writer {
    /// An empty archive whose entries all get this time of modification.
    #[must_use]
    pub fn new(mtime: u32) -> Self {
        Self {
            bytes: Vec::new(),
            inode: 0,
            mtime,
        }
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: &str, permissions: u32) -> Result<()> {
        self.entry(name, 0o040_000 | permissions & 0o7777, &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> Result<()> {
        self.entry(name, 0o100_000 | permissions & 0o7777, data)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, 0o120_777, target.as_bytes())
    }

    /// Adds the trailer and gives the archive; its length is a multiple of 4.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.header(&[0; 13], TRAILER);
        self.pad();
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() >= NAME_LENGTH_MAX || name.contains('\0') {
            return Err(Error::unsupported(STRUCTURE, format!("the name {name:?}")));
        }
        let length = u32::try_from(data.len()).map_err(|_too_long| Error::Limit {
            what: "length of one file in a cpio archive in bytes",
            limit: u64::from(u32::MAX),
        })?;
        self.inode += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let values = [
            self.inode, mode, 0, 0, links, self.mtime, length, 0, 0, 0, 0, 0, 0,
        ];
        self.header(&values, name);
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn header(&mut self, values: &[u32; 13], name: &str) {
        let mut values = *values;
        // Checked by `entry` to be short.
        values[11] = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        for value in values {
            self.bytes
                .extend_from_slice(format!("{value:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::guest::samples::run;

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(1_700_000_000);
        writer.directory("etc", 0o755).unwrap();
        writer.file("etc/hosts", 0o644, b"127.0.0.1").unwrap();
        writer.symlink("lib", "usr/lib").unwrap();
        writer.finish()
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(String, u32, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while reader.find_archive()? {
            while let Some(entry) = reader.next_entry()? {
                found.push((entry.name, entry.mode, reader.read_data(100)?));
            }
        }
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let expected = [
            ("etc".to_owned(), 0o040_755, Vec::new()),
            ("etc/hosts".to_owned(), 0o100_644, b"127.0.0.1".to_vec()),
            ("lib".to_owned(), 0o120_777, b"usr/lib".to_vec()),
        ];
        assert_eq!(read_all(&archive()).unwrap(), expected);
        // Another archive behind zeros is read too.
        let twice = [archive(), vec![0; 512], archive()].concat();
        assert_eq!(read_all(&twice).unwrap().len(), 6);
    }

    #[test]
    fn the_first_header_has_these_bytes() {
        let expected = [
            "070701 00000001 000041ED 00000000 00000000 00000002 6553F100 00000000",
            "00000000 00000000 00000000 00000000 00000004 00000000 etc\0\0\0",
        ];
        let expected = expected.concat().replace(' ', "");
        assert_eq!(&archive()[..116], expected.as_bytes());
        assert_eq!(archive().len() % 4, 0);
    }

    #[test]
    fn the_cpio_program_reads_it() {
        let Some(listing) = run("cpio", &["-itv", "--quiet"], archive()) else {
            return;
        };
        let listing = String::from_utf8(listing).unwrap();
        let names: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split(" 2023 ").nth(1))
            .collect();
        assert_eq!(names, ["etc", "etc/hosts", "lib -> usr/lib"]);
    }

    #[test]
    fn broken_archives_are_errors_that_say_where() {
        let mut bytes = archive();
        bytes[116 + 3] = b'x';
        assert_eq!(
            read_all(&bytes).unwrap_err().to_string(),
            "cpio archive at byte 0x74: expected \"070701\" or \"070702\", found \"070x01\""
        );
        let mut bytes = archive();
        bytes[94..102].copy_from_slice(b"FFFFFFFF");
        assert_eq!(
            read_all(&bytes).unwrap_err().to_string(),
            "cpio archive at byte 0x0: expected a name of 1 to 4096 bytes, found 4294967295"
        );
        for length in 1..archive().len() {
            assert!(read_all(&archive()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn names_that_the_kernel_cannot_unpack_are_refused() {
        let mut writer = Writer::new(0);
        assert!(writer.file("", 0, b"").is_err());
        assert!(writer.file(&"a".repeat(4096), 0, b"").is_err());
        assert!(writer.file("a\0b", 0, b"").is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
            let mut bytes = archive();
            for (position, value) in damage {
                let position = usize::from(position) % bytes.len();
                bytes[position] = value;
            }
            let _either = read_all(&bytes);
        }
    }
}
