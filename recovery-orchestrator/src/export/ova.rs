// SPDX-License-Identifier: MIT OR Apache-2.0
//! An OVA: a tar archive of an OVF descriptor, the disks and a manifest, in this order.
//!
//! ```text
//! NAME.ovf         with line ends behind it up to the length that was reserved
//! NAME-disk0.vmdk  stream-optimised; written beside the archive first, then moved in
//! ...
//! NAME.mf          SHA-256 of each
//! ```
//!
//! The descriptor comes first, as readers demand, and has the sizes of the files behind it: its place
//! is reserved for the longest that it can become. Headers are ustar; a size of 8 GiB or more, for which
//! ustar's octal digits do not suffice, is in base 256 as GNU and star write it. Beside the archive
//! there is never more than one disk file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use converter::export::{DiskFile, OvfFile, ovf, ovf_manifest};
use disk::{Monitor, Unit};
use ring::digest::{Context, SHA256};

use super::{ExportPlan, Writing};
use crate::error::{Error, Result};
use crate::file;
use crate::platform::qemu_img::{self, PartialDirectory};

const BLOCK: usize = 512;
const BUFFER_BYTES: usize = 1 << 20;
/// The first size that eleven octal digits cannot hold.
const OCTAL_SIZE_END: u64 = 1 << 33;

/// Writes the archive, durable and under its name only when it is whole.
pub(super) fn write(
    plan: &ExportPlan<'_>,
    writing: Writing<'_>,
    path: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let partial = PartialDirectory::create(path)?;
    let whole = partial.file();
    let file = File::create(&whole).map_err(Error::file("create", &whole))?;
    let mut archive = Archive {
        file,
        path: &whole,
        unix_seconds: plan.machine.unix_seconds,
    };
    fill(plan, writing, &mut archive, monitor)?;
    archive.finish()?;
    file::rename(&whole, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("write", directory))
}

fn fill(
    plan: &ExportPlan<'_>,
    writing: Writing<'_>,
    archive: &mut Archive<'_>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let name = &plan.machine.vm.name;
    let longest = descriptor(
        plan,
        &vec![
            OvfFile {
                file_bytes: u64::MAX
            };
            plan.disks.len()
        ],
    );
    archive.add(&format!("{name}.ovf"), longest.as_bytes())?;
    let (mut sizes, mut digests) = (Vec::new(), Vec::new());
    for disk in &plan.disks {
        let (file_bytes, digest) = add_disk(plan, writing, disk, archive, monitor)?;
        sizes.push(OvfFile { file_bytes });
        digests.push((disk.name.clone(), digest));
    }
    let mut text = descriptor(plan, &sizes);
    // Line ends behind the root element are nothing to a reader of XML.
    let room = longest.len().saturating_sub(text.len());
    text.extend(std::iter::repeat_n('\n', room));
    digests.insert(
        0,
        (format!("{name}.ovf"), hexadecimal(sha256(text.as_bytes()))),
    );
    archive.add(&format!("{name}.mf"), ovf_manifest(&digests).as_bytes())?;
    archive.replace_first(text.as_bytes())
}

fn descriptor(plan: &ExportPlan<'_>, files: &[OvfFile]) -> String {
    // Every platform has hardware.
    let hardware = plan.exported.hardware;
    plan.with_export(|export| hardware.map_or_else(String::new, |hw| ovf(export, &hw, files)))
}

/// Writes the disk to a file of its own, whose length and digest are not known before, and copies it.
fn add_disk(
    plan: &ExportPlan<'_>,
    writing: Writing<'_>,
    disk: &DiskFile,
    archive: &mut Archive<'_>,
    monitor: &dyn Monitor,
) -> Result<(u64, String)> {
    let device = writing.disks.open(disk.index)?;
    let watched = Arc::new(super::Watched::new(device, writing.interrupt));
    let path = archive.path.with_file_name(&disk.name);
    monitor.stage(&format!("Compressing disk {}", disk.index));
    let source = plan.source(&watched, disk, writing);
    qemu_img::convert(&source, disk.format, &path, monitor)
        .map_err(|error| watched.explain(error))?;
    monitor.stage(&format!("Packing {}", disk.name));
    let added = archive.add_file(&disk.name, &path, writing, monitor)?;
    file::remove_file(&path)?;
    Ok(added)
}

/// A tar archive that is being written.
#[derive(Debug)]
struct Archive<'a> {
    file: File,
    path: &'a Path,
    unix_seconds: u64,
}

impl Archive<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::file("write", self.path))
    }

    fn pad(&mut self, length: u64) -> Result<()> {
        let over = usize::try_from(length % BLOCK as u64).unwrap_or_default();
        match over {
            0 => Ok(()),
            over => self.put(&[0; BLOCK][over..]),
        }
    }

    fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.put(&header(name, length, self.unix_seconds))?;
        self.put(content)?;
        self.pad(length)
    }

    /// Another content of the same length for the first file.
    fn replace_first(&mut self, content: &[u8]) -> Result<()> {
        let sought = self.file.seek(SeekFrom::Start(BLOCK as u64));
        sought.map_err(Error::file("write", self.path))?;
        self.put(content)?;
        let sought = self.file.seek(SeekFrom::End(0));
        sought.map(drop).map_err(Error::file("write", self.path))
    }

    /// Copies a file in; gives its length and its digest.
    fn add_file(
        &mut self,
        name: &str,
        path: &Path,
        writing: Writing<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(u64, String)> {
        let mut source = File::open(path).map_err(Error::file("open", path))?;
        let metadata = source.metadata().map_err(Error::file("read", path))?;
        let length = metadata.len();
        monitor.expect(length, Unit::Bytes);
        self.put(&header(name, length, self.unix_seconds))?;
        let mut digest = Context::new(&SHA256);
        let (mut buffer, mut copied) = (vec![0; BUFFER_BYTES], 0);
        loop {
            writing.interrupt.check()?;
            let read = source.read(&mut buffer);
            let read = read.map_err(Error::file("read", path))?;
            if read == 0 {
                break;
            }
            let bytes = &buffer[..read];
            digest.update(bytes);
            self.put(bytes)?;
            copied += read as u64;
            monitor.advance(read as u64);
        }
        if copied != length {
            return Err(Error::Request {
                problem: format!("{} has changed while it was read", path.display()),
                hint: None,
            });
        }
        self.pad(length)?;
        Ok((length, hexadecimal(digest.finish())))
    }

    fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        let synced = self.file.sync_all();
        synced.map_err(Error::file("write", self.path))
    }
}

fn sha256(bytes: &[u8]) -> ring::digest::Digest {
    ring::digest::digest(&SHA256, bytes)
}

fn hexadecimal(digest: ring::digest::Digest) -> String {
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// A header of ustar: name, mode, owner, group, size, time, checksum, type, magic.
fn header(name: &str, size_bytes: u64, unix_seconds: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    // Shorter than its field: a server's name has 63 characters at most.
    put(0, name.get(..99).unwrap_or(name).as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, &size_field(size_bytes));
    put(
        136,
        format!("{:011o}\0", unix_seconds % OCTAL_SIZE_END).as_bytes(),
    );
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    header
}

fn size_field(size_bytes: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if size_bytes < OCTAL_SIZE_END {
        field.copy_from_slice(format!("{size_bytes:011o}\0").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&size_bytes.to_be_bytes());
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_eight_gib_are_in_base_256() {
        assert_eq!(&size_field(0), b"00000000000\0");
        assert_eq!(&size_field(OCTAL_SIZE_END - 1), b"77777777777\0");
        let large = [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(size_field(OCTAL_SIZE_END), large);
    }

    #[test]
    fn tar_reads_a_header_with_a_large_size() {
        use std::process::{Command, Stdio};
        let started = Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else {
            return super::super::tests::skip("tar is not installed");
        };
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(&header("web01-disk0.vmdk", 9 << 33, 86_400))
            .unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let size = (9_u64 << 33).to_string();
        assert!(
            text.contains(&size) && text.contains("web01-disk0.vmdk"),
            "{text:?}"
        );
    }
}
