// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library of server images: an image is stored once, checked for ever, read as a disk.
#![forbid(unsafe_code)]

mod access;
pub mod client;
mod document;
mod error;
mod id;
pub mod machine;
mod protocol;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "terminal")]
pub mod terminal;

pub use access::{
    ChunkState, ChunkUpload, ImageReader, ImageWriter, Library, Upload, UploadTarget,
};
pub use document::{Consistency, DiskDraft, Image, ImageDisk, ImageDraft};
pub use error::{Error, Result};
pub use id::{ContentHash, DiskIndex, ImageId, ServerName};
