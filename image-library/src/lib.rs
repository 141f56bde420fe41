// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library of server images: an image is stored once, checked for ever, read as a disk.
//!
//! ```text
//! disk -> ingest -> chunks -> packs + manifests -> image -> device (ReadAt)
//! ```
//!
//! [`LocalLibrary`] is a library in a directory, opened with its key. What stored bytes look like,
//! what is durable when and who may do what beside whom is in FORMAT.md.
#![forbid(unsafe_code)]

mod access;
mod cache;
mod catalog;
mod check;
mod chunk;
pub mod client;
mod config;
mod core;
mod crypto;
mod digest;
mod document;
mod error;
mod file_error;
mod id;
mod image;
mod index;
mod ingest;
mod key_admin;
mod key_file;
mod local;
mod location;
pub mod machine;
mod manifest;
mod pack;
#[cfg(feature = "terminal")]
pub mod program;
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "half of the protocol is the server's")
)]
mod protocol;
mod prune;
mod reference;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod sheet;
mod statistics;
mod store;
mod surroundings;
#[cfg(feature = "terminal")]
pub mod terminal;
mod upload;

pub use access::{
    ChunkState, ChunkUpload, ImageReader, ImageWriter, Library, Upload, UploadTarget,
};
pub use check::VerifyReport;
pub use chunk::{CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
pub use config::InitOptions;
pub use crypto::Cipher;
pub use digest::{Digest, content_digest, image_digest};
pub use document::{Consistency, DiskDraft, Image, ImageDisk, ImageDraft};
pub use error::{Error, Result};
pub use file_error::FileError;
pub use id::{ContentHash, DiskIndex, ImageId, ServerName};
pub use ingest::{IngestDisk, IngestStats, ingest};
pub use key_file::{KeyAccess, Passphrase, PassphraseSource};
pub use local::LocalLibrary;
pub use location::{open_library, open_library_with};
pub use prune::{Decision, DeletedImage, KeepPolicy, KeepReason, PruneOptions, PruneReport};
pub use reference::{ImageRef, Which};
pub use statistics::{ServerStatistics, Statistics};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
