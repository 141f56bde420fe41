// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that the kernel gives to disks and partitions: `sda1`, `nvme0n1p1`, `cciss/c0d0p1`.

/// A kernel's name of a disk or partition, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KernelName<'a> {
    /// The disk's part: `sda`, `nvme0n1`.
    pub(super) disk: &'a str,
    /// The disk's place among its like, from 0.
    pub(super) order: usize,
    /// The partition's number.
    pub(super) partition: Option<u32>,
}

impl<'a> KernelName<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        for prefix in ["xvd", "sd", "hd", "vd", "emcpower", "i2o/hd"] {
            if let Some(rest) = name.strip_prefix(prefix) {
                return Self::lettered(name, prefix.len(), rest);
            }
        }
        for prefix in ["nvme", "mmcblk", "cciss/c", "ida/c", "rd/c", "pmem"] {
            if name.starts_with(prefix) {
                return Self::numbered(name, prefix);
            }
        }
        None
    }

    fn lettered(name: &'a str, prefix: usize, rest: &str) -> Option<Self> {
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        if letters == 0 || letters > 3 {
            return None;
        }
        let order = rest.bytes().take(letters).fold(0_usize, |order, letter| {
            order * 26 + usize::from(letter - b'a') + 1
        }) - 1;
        let (disk, number) = name.split_at_checked(prefix + letters)?;
        let partition = partition_number(number)?;
        Some(Self {
            disk,
            order,
            partition,
        })
    }

    /// `nvme0n1p2`, `mmcblk0p1`, `cciss/c0d0p1`: the partition follows a `p` after a digit.
    fn numbered(name: &'a str, prefix: &str) -> Option<Self> {
        let rest = name.strip_prefix(prefix)?;
        let (disk, number) = match name.rsplit_once('p') {
            Some((disk, number))
                if disk.len() > prefix.len()
                    && disk.ends_with(|c: char| c.is_ascii_digit())
                    && !number.is_empty() =>
            {
                (disk, number)
            }
            _ => (name, ""),
        };
        let partition = partition_number(number)?;
        let digits = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let first: usize = digits(rest).parse().ok()?;
        let drive = rest.split_once('d').map(|(_, drive)| digits(drive));
        let order = match (prefix, drive) {
            ("cciss/c" | "ida/c" | "rd/c", Some(drive)) => drive.parse().ok()?,
            _ => first,
        };
        Some(Self {
            disk,
            order,
            partition,
        })
    }
}

fn partition_number(text: &str) -> Option<Option<u32>> {
    if text.is_empty() {
        return Some(None);
    }
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok().map(Some)).flatten()
}
