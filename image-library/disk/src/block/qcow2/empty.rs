// SPDX-License-Identifier: MIT OR Apache-2.0
//! A qcow2 file without any data, for a hypervisor to fill.
//!
//! Clusters of 2 MiB, each divided into 32 of 64 KiB (extended L2 entries, QEMU 5.2 and later): a table
//! describes 256 GiB, so what copies a large disk with few data writes hardly any tables, and still
//! takes room for 64 KiB at a time.
//!
//! ```text
//! cluster 0   header
//! cluster 1   L1 table, all zeros
//! cluster 2   refcount block: 1 for each of these clusters
//! cluster 3   refcount table: cluster 2
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::header::{INCOMPATIBLE_EXTENDED_L2, MAGIC};
use super::writer::failed;
use crate::block::copy::NewFile;
use crate::error::{Error, Result};

const CLUSTER_BITS: u32 = 21;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// An extended entry is twice as long as a usual one.
const ENTRY_BYTES: u64 = 16;
const BYTES_PER_TABLE: u64 = CLUSTER_BYTES / ENTRY_BYTES * CLUSTER_BYTES;
/// 16 bits per count, QEMU's default.
const REFCOUNT_ORDER: u32 = 4;
const HEADER_LENGTH: u32 = 104;

/// Creates a qcow2 file of a disk of zeros, for a writer other than us.
///
/// # Errors
///
/// Those of a file that cannot be written or is there already; [`Error::Unsupported`] for a size that
/// is no multiple of 512, [`Error::Limit`] for one beyond 64 PiB.
pub fn create_empty_qcow2(path: &Path, size_bytes: u64) -> Result<()> {
    if !size_bytes.is_multiple_of(512) {
        let problem = format!("a disk of {size_bytes} bytes, no multiple of 512,");
        return Err(Error::unsupported("qcow2", problem));
    }
    // The L1 table is one cluster here, which is less than what QEMU takes.
    let entries = size_bytes.div_ceil(BYTES_PER_TABLE).max(1);
    let limit = CLUSTER_BYTES / 8;
    if entries > limit {
        let what = "the entries of the image's L1 table";
        return Err(Error::Limit { what, limit });
    }
    let mut file = NewFile::create(path)?;
    file.write(|file: &mut File| {
        let write = |offset: u64, bytes: &[u8]| {
            let written = file.write_all_at(bytes, offset);
            written.map_err(|error| failed(offset, bytes.len() as u64, error))
        };
        write(2 * CLUSTER_BYTES, &[0, 1, 0, 1, 0, 1, 0, 1])?;
        write(3 * CLUSTER_BYTES, &(2 * CLUSTER_BYTES).to_be_bytes())?;
        // The rest of the last cluster.
        write(4 * CLUSTER_BYTES - 1, &[0])?;
        write(0, &header(size_bytes, entries as u32))
    })?;
    file.finish()
}

fn header(size_bytes: u64, l1_entries: u32) -> Vec<u8> {
    let mut header = Vec::from(MAGIC);
    header.extend(3_u32.to_be_bytes());
    header.extend([0; 8 + 4]); // no backing file
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size_bytes.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // no encryption
    header.extend(l1_entries.to_be_bytes());
    header.extend(CLUSTER_BYTES.to_be_bytes());
    header.extend((3 * CLUSTER_BYTES).to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    header.extend([0; 4 + 8]); // no snapshots
    header.extend(INCOMPATIBLE_EXTENDED_L2.to_be_bytes());
    header.extend([0; 2 * 8]); // no other features
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    header.extend(HEADER_LENGTH.to_be_bytes());
    header.extend([0; 8]); // no extensions
    header
}
