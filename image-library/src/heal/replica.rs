// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same disk of the same image in the other library, opened when something of it is needed.

use std::ops::Range;
use std::sync::Arc;

use disk::ReadAt;
use disk::block::ExtentKind;

use crate::access::ImageReader;
use crate::document::ImageDisk;
use crate::error::{Error, Result, chain_text};
use crate::id::{ContentHash, ImageId};
use crate::manifest::{LEAF_CHUNKS, Root, chunk_length, leaf_count, leaf_entries, leaf_to_bytes};
use crate::protocol::NOT_FOUND;

/// Bytes that are read at once to compute hashes; at least one chunk.
const WINDOW_LENGTH: u64 = 4 << 20;

/// What of a disk could be read there: the value, or why not.
pub(super) type Answer<T> = std::result::Result<T, String>;

/// A disk in the other library.
pub(super) struct Replica<'a> {
    from: &'a dyn ImageReader,
    image: ImageId,
    disk: &'a ImageDisk,
    chunk_size: u32,
    device: Option<Answer<Arc<dyn ReadAt>>>,
}

impl<'a> Replica<'a> {
    pub(super) const fn new(
        from: &'a dyn ImageReader,
        image: ImageId,
        disk: &'a ImageDisk,
        chunk_size: u32,
    ) -> Self {
        Self {
            from,
            image,
            disk,
            chunk_size,
            device: None,
        }
    }

    /// The bytes of a chunk that has this hash.
    pub(super) fn chunk(&mut self, number: u64, hash: &ContentHash) -> Result<Answer<Vec<u8>>> {
        let length = chunk_length(self.disk.size_bytes, self.chunk_size, number);
        let mut bytes = vec![0; length as usize];
        let offset = number * u64::from(self.chunk_size);
        let device = match self.device()? {
            Ok(device) => device,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Err(error) = device.read_exact_at(offset, &mut bytes) {
            return Ok(Err(problem_there(error.into())?));
        }
        Ok(if ContentHash::of(&bytes) == *hash {
            Ok(bytes)
        } else {
            Err("the other library has other bytes at this place".to_owned())
        })
    }

    /// The entries of a leaf that has this hash.
    pub(super) fn leaf(
        &mut self,
        number: u64,
        hash: &ContentHash,
    ) -> Result<Answer<Vec<Option<ContentHash>>>> {
        let entries = match self.entries(number)? {
            Ok(entries) => entries,
            Err(problem) => return Ok(Err(problem)),
        };
        Ok(if ContentHash::of(&leaf_to_bytes(&entries)) == *hash {
            Ok(entries)
        } else {
            Err("the other library has other bytes in this part of the disk".to_owned())
        })
    }

    /// The root that has this hash. The whole disk is read.
    pub(super) fn root(
        &mut self,
        hash: &ContentHash,
        goes_on: &dyn Fn() -> Result<()>,
    ) -> Result<Answer<Root>> {
        let chunks = self.chunk_count();
        let mut root = Root {
            chunk_size: self.chunk_size,
            disk_size: self.disk.size_bytes,
            data_chunks: 0,
            leaves: Vec::new(),
        };
        for number in 0..leaf_count(chunks) {
            goes_on()?;
            let entries = match self.entries(number)? {
                Ok(entries) => entries,
                Err(problem) => return Ok(Err(problem)),
            };
            let data = entries.iter().flatten().count() as u64;
            root.data_chunks += data;
            let leaf = (data > 0).then(|| ContentHash::of(&leaf_to_bytes(&entries)));
            root.leaves.push(leaf);
        }
        Ok(if ContentHash::of(&root.to_bytes()) == *hash {
            Ok(root)
        } else {
            Err("the disk of the other library is another one".to_owned())
        })
    }

    const fn chunk_count(&self) -> u64 {
        self.disk.size_bytes.div_ceil(self.chunk_size as u64)
    }

    fn device(&mut self) -> Result<Answer<Arc<dyn ReadAt>>> {
        let device = match &self.device {
            Some(device) => device,
            None => {
                let device = match self.from.open_disk(self.image, self.disk.index) {
                    Ok(device) if device.length_bytes() == self.disk.size_bytes => Ok(device),
                    Ok(device) => {
                        let (expected, found) = (self.disk.size_bytes, device.length_bytes());
                        Err(format!(
                            "expected a disk of {expected} bytes in the other library, found {found}"
                        ))
                    }
                    Err(error) => Err(problem_there(error)?),
                };
                self.device.insert(device)
            }
        };
        Ok(device.clone())
    }

    /// The hashes of the chunks of a leaf, as the other library has them.
    fn entries(&mut self, leaf: u64) -> Result<Answer<Vec<Option<ContentHash>>>> {
        let device = match self.device()? {
            Ok(device) => device,
            Err(problem) => return Ok(Err(problem)),
        };
        let size = u64::from(self.chunk_size);
        let start = leaf * LEAF_CHUNKS as u64 * size;
        let covered = leaf_entries(self.chunk_count(), leaf) as u64 * size;
        let end = (start + covered).min(self.disk.size_bytes);
        let mut entries = Vec::with_capacity(LEAF_CHUNKS);
        let mut buffer = Vec::new();
        for at in (start..end).step_by(WINDOW_LENGTH.max(size) as usize) {
            let window = at..(at + WINDOW_LENGTH.max(size)).min(end);
            if let Err(error) = hash_window(&*device, window, size, &mut buffer, &mut entries) {
                return Ok(Err(problem_there(error.into())?));
            }
        }
        Ok(Ok(entries))
    }
}

fn hash_window(
    device: &dyn ReadAt,
    window: Range<u64>,
    chunk_size: u64,
    buffer: &mut Vec<u8>,
    entries: &mut Vec<Option<ContentHash>>,
) -> disk::Result<()> {
    let length = window.end - window.start;
    let extent = device.extent_at(window.start)?;
    if extent.kind == ExtentKind::Zero && extent.length >= length {
        let chunks = length.div_ceil(chunk_size) as usize;
        entries.extend(std::iter::repeat_n(None, chunks));
        return Ok(());
    }
    buffer.resize(length as usize, 0);
    device.read_exact_at(window.start, buffer)?;
    for chunk in buffer.chunks(chunk_size as usize) {
        let is_zero = chunk.iter().all(|byte| *byte == 0);
        entries.push((!is_zero).then(|| ContentHash::of(chunk)));
    }
    Ok(())
}

/// What is wrong with an image there. That the library itself cannot be used is an error: the rest
/// of it could not be read either.
fn problem_there(error: Error) -> Result<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if inner.downcast_ref().is_some_and(is_of_library) {
            return Err(error);
        }
        cause = inner.source();
    }
    Ok(format!("in the other library: {}", chain_text(&error)))
}

/// Whether an error is not one of a single image.
fn is_of_library(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. }
        | Error::Untrusted { .. }
        | Error::Protocol { .. }
        | Error::Bucket { .. } => true,
        // A server says so of what it has lost; anything else is about the token or the request.
        Error::ServerRefused { code, .. } => code != NOT_FOUND && code != "library",
        _ => false,
    }
}
