// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library of server images: an image is stored once, checked for ever, read as a disk.
//!
//! ```text
//! disk -> ingest -> chunks -> packs + manifests -> image -> device (ReadAt)
//! ```
//!
//! [`LocalLibrary`] is a library in a directory or a bucket, opened with its key. What stored bytes look like,
//! what is durable when and who may do what beside whom is in FORMAT.md.
#![forbid(unsafe_code)]

mod access;
mod ahead;
mod audit;
#[cfg(feature = "server")]
mod authority;
mod cache;
mod catalog;
mod check;
mod chunk;
pub mod client;
mod config;
mod core;
mod crypto;
mod digest;
mod disk_writer;
mod document;
mod error;
mod file_error;
mod heal;
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
mod replicate;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod sheet;
mod statistics;
mod store;
mod stored_hashes;
mod surroundings;
#[cfg(feature = "terminal")]
pub mod terminal;
mod tls;
mod token;
mod tokens;
mod upload;
mod wanted;

pub use access::{
    ChunkState, ChunkUpload, DiskHashes, ImageReader, ImageWriter, Library, PreparedChunk, Upload,
    UploadTarget,
};
pub use audit::{AuditAction, AuditActor, AuditEvent, AuditOutcome};
#[cfg(feature = "server")]
pub use authority::Authority;
pub use check::{Share, VerifyOptions, VerifyReport, VerifyScope};
pub use chunk::{CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
pub use config::InitOptions;
pub use crypto::Cipher;
pub use digest::{Digest, content_digest, image_digest};
pub use disk_writer::DiskWriter;
pub use document::{Consistency, DiskDraft, Image, ImageDisk, ImageDraft};
pub use error::{BucketFailure, Error, Result, chain_text};
pub use file_error::FileError;
pub use heal::{HealOptions, HealReport};
pub use id::{ContentHash, DiskIndex, ImageId, ServerName};
pub use ingest::{Ingest, IngestDisk, IngestStats, NoteHashes, ingest};
pub use key_file::{KeyAccess, Passphrase, PassphraseSource};
pub use local::LocalLibrary;
pub use location::{LibraryAccess, Location, open_library, open_library_with};
pub use manifest::LEAF_CHUNKS;
pub use prune::{Decision, DeletedImage, KeepPolicy, KeepReason, PruneOptions, PruneReport};
pub use reference::{ImageRef, Which};
pub use replicate::{CopiedImage, FailedImage, ReplicateOptions, ReplicateReport};
pub use statistics::{ServerStatistics, Statistics};
pub use store::{BucketAccess, BucketAddress};
pub use tls::{TlsFiles, use_ring};
pub use token::{Fingerprint, Token, TokenId};
pub use tokens::{Grant, Role, TokenRecord};
pub use wanted::{WantedRange, read_again};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
