// SPDX-License-Identifier: MIT OR Apache-2.0
//! One disk of a guest, as conversion is handed it.

use std::sync::Arc;

use disk::block::{Meter, Reads};
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

/// The same disks, with a count of what is read of them.
#[derive(Debug)]
pub struct MeteredDisks {
    disks: Vec<GuestDisk>,
    meters: Vec<Arc<Meter>>,
}

impl MeteredDisks {
    /// Counts what is read from now on.
    #[must_use]
    pub fn new(disks: &[GuestDisk]) -> Self {
        let meter = |disk: &GuestDisk| Arc::new(Meter::new(Arc::clone(&disk.device)));
        let meters: Vec<Arc<Meter>> = disks.iter().map(meter).collect();
        let counted = disks.iter().zip(&meters).map(|(disk, meter)| {
            let device: Arc<dyn ReadAt> = Arc::clone(meter) as Arc<dyn ReadAt>;
            GuestDisk {
                device,
                ..disk.clone()
            }
        });
        Self {
            disks: counted.collect(),
            meters,
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
