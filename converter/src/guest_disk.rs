// SPDX-License-Identifier: MIT OR Apache-2.0
//! One disk of a guest, as conversion is handed it.

use std::sync::Arc;

use disk::{ReadAt, SectorSize};
use image_library::DiskIndex;

/// One disk of a guest: a device of its original size that is only ever read.
#[derive(Debug, Clone)]
pub struct GuestDisk {
    /// Its place among the server's disks.
    pub index: DiskIndex,
    /// Its name on the server (`sda`, `nvme0n1`), where it is known; resolves `/dev/sda1`.
    pub name: Option<String>,
    /// The bytes.
    pub device: Arc<dyn ReadAt>,
    /// Logical sector size.
    pub sector_size: SectorSize,
}
