// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that the platform loads itself, because no boot loader on the machine's disks can.
//!
//! The files are the guest's own as they are after the conversion, so the initramfs has the drivers. A
//! kernel is told by its [header](BootHeader).
//!
//! A hypervisor tries other loaders (Multiboot, PVH) on a file without it. Those are for nothing that a
//! guest of ours starts, and would read what somebody else may have made up.
//!
//! **Limits:** a kernel of 64 MiB, an initramfs of 512 MiB, a command line of 2047 bytes.

use std::sync::Arc;

use disk::ReadAt;
use disk::volume::ReadOnly;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guest::boot_header::BootHeader;
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::{FilePlace, VolumeId};
use crate::stack::{Devices, Part};

/// The name of the file with a [`DirectBoot`]'s kernel, wherever it is written.
pub const KERNEL_NAME: &str = "kernel";
/// The name of the file with its initramfs.
pub const INITRAMFS_NAME: &str = "initramfs";

const KERNEL_BYTES_MAX: u64 = 64 << 20;
const INITRAMFS_BYTES_MAX: u64 = 512 << 20;
/// `COMMAND_LINE_SIZE` of Linux on x86 is 2048 with the zero at the end; older kernels have less.
const COMMAND_LINE_BYTES_MAX: usize = 2047;

/// A kernel that a platform loads itself, from files of the guest as they are after the conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectBoot {
    /// The kernel.
    pub kernel: FilePlace,
    /// Its initramfs.
    pub initramfs: Option<FilePlace>,
    /// Its command line.
    pub command_line: String,
}

/// The files that a platform loads.
#[derive(Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its initramfs.
    pub initramfs: Option<Vec<u8>>,
}

impl std::fmt::Debug for KernelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelFiles")
            .field("kernel_bytes", &self.kernel.len())
            .field("initramfs_bytes", &self.initramfs.as_ref().map(Vec::len))
            .finish()
    }
}

impl DirectBoot {
    /// Reads the files from converted disks.
    ///
    /// # Errors
    ///
    /// When one is not there, is too large, or the kernel is none of Linux for a PC.
    pub fn read(&self, disks: &[GuestDisk]) -> Result<KernelFiles> {
        let whole = disks.iter().map(|disk| Part {
            id: VolumeId::on_disk(disk.index, None),
            device: Arc::new(ReadOnly::new(Arc::clone(&disk.device) as Arc<dyn ReadAt>)),
            sector_size: disk.sector_size,
        });
        // What is encrypted is slow to open, and no loader that needs this reads it.
        let mut places = std::iter::once(&self.kernel).chain(&self.initramfs);
        let is_stacked = places.any(|place| place.volume.disk().is_none());
        let devices = Devices::new(whole.collect(), &secrets_of(disks), is_stacked)?;
        self.read_from(&devices)
    }

    /// Reads the files from volumes.
    pub(crate) fn read_from(&self, devices: &Devices) -> Result<KernelFiles> {
        let read = |place: &FilePlace, limit_bytes| {
            let filesystem = devices.filesystem(place.volume)?;
            let read = filesystem.read(&place.path, limit_bytes);
            read.map_err(Error::guest(&place.guest_path))
        };
        let kernel = read(&self.kernel, KERNEL_BYTES_MAX)?;
        if BootHeader::read(&kernel).is_none() {
            return Err(Error::File {
                place: self.kernel.guest_path.clone(),
                problem: "it has not the header of a Linux kernel for PCs".to_owned(),
            });
        }
        let initramfs = self.initramfs.as_ref();
        Ok(KernelFiles {
            kernel,
            initramfs: initramfs
                .map(|place| read(place, INITRAMFS_BYTES_MAX))
                .transpose()?,
        })
    }
}

/// Whether a kernel can be given this command line: it is one line, and not too long.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_command_line(line: &str) -> Result<(), String> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("its command line has characters that end one".to_owned());
    }
    if line.len() > COMMAND_LINE_BYTES_MAX {
        let length = line.len();
        return Err(format!(
            "its command line has {length} bytes, a kernel takes {COMMAND_LINE_BYTES_MAX}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_not_there_is_an_error() {
        let direct = DirectBoot {
            kernel: FilePlace {
                volume: VolumeId::on_disk(image_library::DiskIndex(0), None),
                path: "/vmlinuz".to_owned(),
                guest_path: "/boot/vmlinuz".to_owned(),
            },
            initramfs: None,
            command_line: "ro".to_owned(),
        };
        let error = direct.read(&[]).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }

    #[test]
    fn a_command_line_is_one_line_that_a_kernel_takes() {
        for (line, problem) in [
            ("root=/dev/vda1\tro a=\"b, c\"", None),
            ("", None),
            ("ro\nquiet", Some("end one")),
            ("ro\rquiet", Some("end one")),
            ("ro\0quiet", Some("end one")),
            (&"x".repeat(2047), None),
            (&"x".repeat(2048), Some("2048 bytes, a kernel takes 2047")),
        ] {
            let found = check_command_line(line).err();
            assert_eq!(found.is_some(), problem.is_some(), "{line:.20}");
            let found = found.unwrap_or_default();
            assert!(found.contains(problem.unwrap_or_default()), "{found}");
        }
    }
}
