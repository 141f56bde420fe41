// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which format a disk file has, by its first and last bytes.
//!
//! A raw disk has no mark of its own: it is what nothing else claims. Files that people name by
//! mistake (archives, texts, memory dumps) are told apart, so that they are not taken for a raw
//! disk without partitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::array_at;

/// The format of a disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DiskFormat {
    /// The bytes of the disk, or a block device.
    Raw,
    /// QEMU's qcow2, version 2 or 3.
    Qcow2,
    /// VMware: a sparse extent or a descriptor.
    Vmdk,
    /// Virtual PC and Hyper-V, generation 1.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// An older or foreign format of QEMU's list: qcow, qed, parallels.
    Other,
}

impl DiskFormat {
    /// The name that `qemu-img` uses for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Other => "an uncommon disk format",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How many bytes of the beginning [`detect`] looks at.
pub(super) const HEAD_BYTES: usize = 512;

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Detected {
    Disk(DiskFormat),
    /// Something else, and what to do with it.
    NotADisk {
        is: &'static str,
        hint: &'static str,
    },
}

/// Detects by the first [`HEAD_BYTES`] and the last 512 bytes, less where the file is shorter.
pub(super) fn detect(head: &[u8], tail: &[u8]) -> Detected {
    const UNPACK: &str = "unpack it first";
    let disks: [(usize, &[u8], DiskFormat); 11] = [
        (0, b"QFI\xfb\0\0\0\x01", DiskFormat::Other),
        (0, b"QFI\xfb", DiskFormat::Qcow2),
        (0, b"KDMV", DiskFormat::Vmdk),
        (0, b"COWD", DiskFormat::Vmdk),
        (0, b"# Disk DescriptorFile", DiskFormat::Vmdk),
        (0, b"vhdxfile", DiskFormat::Vhdx),
        (0, b"conectix", DiskFormat::Vhd),
        (0x40, b"\x7f\x10\xda\xbe", DiskFormat::Vdi),
        (0, b"QED\0", DiskFormat::Other),
        (0, b"WithoutFreeSpace", DiskFormat::Other),
        (0, b"WithouFreSpacExt", DiskFormat::Other),
    ];
    let others: [(usize, &[u8], &str, &str); 10] = [
        (0, b"\x1f\x8b", "gzip-compressed file", UNPACK),
        (0, b"\xfd7zXZ\0", "xz-compressed file", UNPACK),
        (0, b"\x28\xb5\x2f\xfd", "zstd-compressed file", UNPACK),
        (0, b"BZh", "bzip2-compressed file", UNPACK),
        (0, b"PK\x03\x04", "zip archive", UNPACK),
        (0, b"7z\xbc\xaf\x27\x1c", "7-zip archive", UNPACK),
        (
            257,
            b"ustar",
            "tar or OVA archive",
            "unpack it, convert the disk inside with \
             `qemu-img convert -O qcow2 DISK.vmdk DISK.qcow2`, and use that",
        ),
        (
            0,
            b"EVF\x09\x0d\x0a\xff\0",
            "EWF (EnCase) image",
            "extract the raw disk with `ewfexport` first",
        ),
        (0, b"\x7fELF", "program", "name a disk image or device"),
        (0, b"%PDF", "PDF document", "name a disk image or device"),
    ];
    let marked = |at: usize, mark: &[u8]| head.get(at..at + mark.len()) == Some(mark);
    if let Some((.., format)) = disks.iter().find(|(at, mark, _)| marked(*at, mark)) {
        return Detected::Disk(*format);
    }
    if let Some((.., is, hint)) = others.iter().find(|(at, mark, ..)| marked(*at, mark)) {
        return Detected::NotADisk { is, hint };
    }
    // A VHD of fixed size is the raw disk with a footer behind it.
    if array_at(tail, tail.len().saturating_sub(512)) == *b"conectix" {
        return Detected::Disk(DiskFormat::Vhd);
    }
    if is_text(head) {
        return Detected::NotADisk {
            is: "text file",
            hint: "name a disk image or device",
        };
    }
    Detected::Disk(DiskFormat::Raw)
}

/// Whether every byte is printable or white space; sector 0 of a disk has zeros, or code.
fn is_text(head: &[u8]) -> bool {
    let printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    !head.is_empty() && head.iter().all(printable) && std::str::from_utf8(head).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"QFI\xfb\0\0\0\x03", DiskFormat::Qcow2)]
    #[case(b"QFI\xfb\0\0\0\x01", DiskFormat::Other)]
    #[case(b"KDMV\x01\0\0\0", DiskFormat::Vmdk)]
    #[case(b"# Disk DescriptorFile\nversion=1\n", DiskFormat::Vmdk)]
    #[case(b"vhdxfile", DiskFormat::Vhdx)]
    #[case(b"conectix", DiskFormat::Vhd)]
    #[case(b"\0\0\0\0", DiskFormat::Raw)]
    #[case(b"\xeb\x63\x90", DiskFormat::Raw)]
    #[case(b"", DiskFormat::Raw)]
    fn a_disk_is_detected_by_its_first_bytes(#[case] head: &[u8], #[case] format: DiskFormat) {
        assert_eq!(detect(head, head), Detected::Disk(format));
    }

    #[test]
    fn a_fixed_vhd_is_detected_by_its_footer_and_vdi_by_its_signature() {
        let mut tail = vec![0; 512];
        tail[..8].copy_from_slice(b"conectix");
        assert_eq!(detect(&[0; 512], &tail), Detected::Disk(DiskFormat::Vhd));
        let mut head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        head.resize(512, 0);
        head[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert_eq!(detect(&head, &[]), Detected::Disk(DiskFormat::Vdi));
    }

    #[rstest]
    #[case(b"\x1f\x8b\x08", "gzip-compressed file")]
    #[case("Dear disk,\n\tgrüße\n".as_bytes(), "text file")]
    #[case(b"EVF\x09\x0d\x0a\xff\0", "EWF (EnCase) image")]
    fn what_is_no_disk_is_named(#[case] head: &[u8], #[case] name: &str) {
        match detect(head, head) {
            Detected::NotADisk { is, .. } => assert_eq!(is, name),
            disk @ Detected::Disk(_) => panic!("{disk:?}"),
        }
    }
}
