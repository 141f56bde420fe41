// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which boot loader the first sector of a disk or partition belongs to: what a BIOS starts.
//!
//! | code | told by |
//! |---|---|
//! | GRUB, both | `GRUB ` and `Geom` among its messages (boot.S, stage1.S) |
//! | LILO | `LILO` from byte 2 or 6 (first.S) |
//! | Syslinux of a partition | `EXTLINUX` or `SYSLINUX` as the system's name, from byte 3 |
//! | Syslinux of a disk | `Missing operating system.` with `Operating system load error.`, or with several active partitions |
//! | Windows, DOS | `Invalid partition table`, or `BOOTMGR`, `NTLDR` |

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose code a boot sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootCode {
    /// GRUB 2 or GRUB legacy.
    Grub,
    /// LILO.
    Lilo,
    /// extlinux or another of Syslinux's.
    Syslinux,
    /// Windows or DOS, which start the active partition too.
    Windows,
}

impl fmt::Display for BootCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grub => "GRUB",
            Self::Lilo => "LILO",
            Self::Syslinux => "Syslinux",
            Self::Windows => "Windows",
        })
    }
}

/// Whose code this sector holds; `None` where that is not known.
#[must_use]
pub fn boot_code(sector: &[u8]) -> Option<BootCode> {
    let sector = sector.get(..512)?;
    let has = |text: &[u8]| sector.windows(text.len()).any(|window| window == text);
    let starts = |offset: usize, text: &[u8]| sector[offset..].starts_with(text);
    if has(b"GRUB ") && has(b"Geom") {
        return Some(BootCode::Grub);
    }
    if starts(2, b"LILO") || starts(6, b"LILO") {
        return Some(BootCode::Lilo);
    }
    let is_of_partition = starts(3, b"EXTLINUX") || starts(3, b"SYSLINUX");
    let is_of_disk = has(b"Operating system load error.") || has(b"Multiple active partitions");
    if is_of_partition || is_of_disk {
        return Some(BootCode::Syslinux);
    }
    let windows: [&[u8]; 3] = [b"Invalid partition table", b"BOOTMGR", b"NTLDR"];
    windows.into_iter().any(has).then_some(BootCode::Windows)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::guest::samples::skip;

    fn sector(offset: usize, text: &[u8]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[offset..offset + text.len()].copy_from_slice(text);
        sector
    }

    #[test]
    fn code_is_told_by_its_messages() {
        let grub = b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n";
        assert_eq!(boot_code(&sector(0x180, grub)), Some(BootCode::Grub));
        assert_eq!(boot_code(&sector(6, b"LILO")), Some(BootCode::Lilo));
        assert_eq!(boot_code(&sector(3, b"EXTLINUX")), Some(BootCode::Syslinux));
        assert_eq!(
            boot_code(&sector(0x163, b"Invalid partition table")),
            Some(BootCode::Windows)
        );
        assert_eq!(boot_code(&sector(3, b"mkfs.fat")), None);
        assert_eq!(boot_code(b"GRUB "), None);
    }

    #[test]
    fn the_sectors_of_real_packages_are_known() {
        let known = [
            ("/usr/lib/grub/i386-pc/boot.img", BootCode::Grub),
            ("/usr/lib/syslinux/mbr/mbr.bin", BootCode::Syslinux),
            ("/usr/lib/syslinux/mbr/gptmbr.bin", BootCode::Syslinux),
            ("/usr/lib/syslinux/mbr/altmbr.bin", BootCode::Syslinux),
        ];
        for (path, expected) in known {
            if !Path::new(path).exists() {
                skip(&format!("{path} is not installed"));
                continue;
            }
            let mut code = std::fs::read(path).unwrap();
            code.resize(512, 0);
            assert_eq!(boot_code(&code), Some(expected), "{path}");
        }
    }
}
