// SPDX-License-Identifier: MIT OR Apache-2.0
//! An array with parity: RAID4, RAID5, RAID6, by what its superblock says.

use super::super::parity_rows::Rows;
use super::Level;
use crate::error::{Error, Result};

/// The geometry of an array with parity.
#[derive(Debug, Clone)]
pub(super) struct Parity {
    pub(super) chunk_bytes: u64,
    pub(super) length_bytes: u64,
    pub(super) rows: Rows,
}

impl Parity {
    pub(super) fn new(
        level: Level,
        layout: u32,
        disks: u32,
        chunk_bytes: u64,
        component_bytes: u64,
    ) -> Result<Self> {
        let has_q = level == Level::Raid6;
        // RAID4 is the RAID5 whose parity is on the last member.
        let layout = if level == Level::Raid4 { 5 } else { layout };
        // md makes no RAID6 of three.
        let rows = Rows::new(disks as usize, layout, has_q).filter(|_| !has_q || disks >= 4);
        let Some(rows) = rows else {
            let feature = format!("the {level} layout {layout} of {disks} members");
            return Err(Error::unsupported("md array", feature));
        };
        let chunks = (component_bytes / chunk_bytes).saturating_mul(rows.data_disks() as u64);
        Ok(Self {
            chunk_bytes,
            length_bytes: chunks.saturating_mul(chunk_bytes),
            rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_of_no_kernel_are_refused() {
        let new = |level, layout, disks| Parity::new(level, layout, disks, 4096, 1 << 20);
        assert!(new(Level::Raid5, 6, 4).is_err());
        assert!(new(Level::Raid5, 2, 1).is_err());
        assert!(new(Level::Raid6, 2, 3).is_err());
        assert_eq!(new(Level::Raid4, 0, 3).expect("known").rows.row(7).p, 2);
    }
}
