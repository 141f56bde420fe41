// SPDX-License-Identifier: MIT OR Apache-2.0
//! qcow2 images, versions 2 and 3, as QEMU's `docs/interop/qcow2.txt` describes them.
//!
//! All numbers are big-endian. The file is divided into clusters (512 bytes to 2 MiB):
//!
//! ```text
//! cluster 0        header, extensions, name of the backing file
//! L1 table         one offset of an L2 table per run of the disk
//! L2 tables        one cluster each: an offset and flags per cluster of the disk
//! refcount table   offsets of refcount blocks; one count per cluster of the file
//! ```
//!
//! Reading needs no refcounts. Writing only makes new files, front to back. Not here: encrypted
//! images, external data files, snapshots inside an image; the first two are refused.

mod cache;
mod compressed;
mod empty;
mod header;
mod reader;
mod table;
mod writer;

pub use empty::create_empty_qcow2;
pub(super) use header::Header;
pub(super) use reader::{Qcow2Image, read_header};
pub use writer::Backing;
pub(super) use writer::{CLUSTER_SIZE, Qcow2Writer};
