// SPDX-License-Identifier: MIT OR Apache-2.0
//! One disk of a guest, as conversion is handed it.

use std::sync::Arc;

use disk::block::{CachedDevice, Meter, Reads};
use disk::{ReadAt, SectorSize};
use image_library::DiskIndex;

use crate::secrets::Secrets;

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
    /// What opens encrypted volumes: the same for all disks of a guest.
    pub secrets: Secrets,
}

/// The secrets of a guest's disks.
pub(crate) fn secrets_of(disks: &[GuestDisk]) -> Secrets {
    let first = disks.first();
    first.map(|disk| disk.secrets.clone()).unwrap_or_default()
}

/// What is kept of all disks while they are converted, in bytes: an initramfs or two. It is looked at
/// when the guest is inspected, when it is changed, and when the change is verified, each time by a
/// reader of its own.
const KEPT_BYTES: u64 = 64 << 20;
/// And from the start of a machine on, which needs the memory.
const KEPT_BYTES_LEAST: u64 = 4 << 20;

/// The same disks, each block read once if possible, with a count of what is read of the image.
#[derive(Debug)]
pub struct MeteredDisks {
    disks: Vec<GuestDisk>,
    meters: Vec<Arc<Meter>>,
    caches: Vec<Arc<CachedDevice>>,
}

impl MeteredDisks {
    /// Counts what is read from now on.
    #[must_use]
    pub fn new(disks: &[GuestDisk]) -> Self {
        let meter = |disk: &GuestDisk| Arc::new(Meter::new(Arc::clone(&disk.device)));
        let meters: Vec<Arc<Meter>> = disks.iter().map(meter).collect();
        let cache = |meter: &Arc<Meter>| {
            let device = Arc::clone(meter) as Arc<dyn ReadAt>;
            Arc::new(CachedDevice::new(device, share(KEPT_BYTES, disks)))
        };
        let caches: Vec<Arc<CachedDevice>> = meters.iter().map(cache).collect();
        let counted = disks.iter().zip(&caches).map(|(disk, cache)| GuestDisk {
            device: Arc::clone(cache) as Arc<dyn ReadAt>,
            ..disk.clone()
        });
        Self {
            disks: counted.collect(),
            meters,
            caches,
        }
    }

    /// Keeps next to nothing from now on.
    pub(crate) fn keep_least(&self) {
        for cache in &self.caches {
            cache.resize(share(KEPT_BYTES_LEAST, &self.disks));
        }
    }

    /// The disks, to be read.
    #[must_use]
    pub fn disks(&self) -> &[GuestDisk] {
        &self.disks
    }

    /// What was read of all of them so far.
    #[must_use]
    pub fn reads(&self) -> Reads {
        let each = self.meters.iter().map(|meter| meter.reads());
        each.fold(Reads::default(), Reads::plus)
    }
}

/// What there is for each disk.
fn share(bytes: u64, disks: &[GuestDisk]) -> u64 {
    bytes / disks.len().max(1) as u64
}
