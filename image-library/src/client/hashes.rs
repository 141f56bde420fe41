// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a disk of a server's latest image, asked for in pages.

use std::sync::{Arc, Mutex, PoisonError};

use crate::access::DiskHashes;
use crate::client::connection::Connection;
use crate::error::{Error, Result};
use crate::id::{ContentHash, ImageId, ServerName};
use crate::manifest::{CHUNKS_MAX, LEAF_CHUNKS, leaf_entries};
use crate::protocol::{HASH_BYTES, HashPage, hashes_from_bytes};

/// Bytes of the hashes of a full leaf.
const LEAF_BYTES: usize = LEAF_CHUNKS * HASH_BYTES;

/// Beyond every disk: asks for a page without hashes.
const NO_LEAF: u64 = u64::MAX;

/// The hashes of one disk, of which one page is kept, 4 MiB at most.
#[derive(Debug)]
pub(super) struct RemoteHashes {
    connection: Arc<Connection>,
    server: ServerName,
    disk: String,
    image: ImageId,
    chunk_count: u64,
    page: Mutex<Page>,
}

#[derive(Debug)]
struct Page {
    first_leaf: u64,
    hashes: Vec<u8>,
}

impl Page {
    /// The hashes of a leaf, where the page has them.
    fn leaf(&self, number: u64, length: usize) -> Option<&[u8]> {
        let place = usize::try_from(number.checked_sub(self.first_leaf)?).ok()?;
        let start = place.checked_mul(LEAF_BYTES)?;
        self.hashes.get(start..start.checked_add(length)?)
    }
}

impl RemoteHashes {
    /// Asks of which image they are and how many, for none of them yet; `None` when the server has
    /// no such disk in its latest image.
    pub(super) fn open(
        connection: Arc<Connection>,
        server: &ServerName,
        disk: &str,
    ) -> Result<Option<Self>> {
        let Some(page) = ask(&connection, server, disk, NO_LEAF)? else {
            return Ok(None);
        };
        if page.chunk_count > CHUNKS_MAX {
            return Err(connection.protocol(format!(
                "a disk of {} chunks, expected at most {CHUNKS_MAX}",
                page.chunk_count
            )));
        }
        Ok(Some(Self {
            connection,
            server: server.clone(),
            disk: disk.to_owned(),
            image: page.image,
            chunk_count: page.chunk_count,
            page: Mutex::new(Page {
                first_leaf: 0,
                hashes: page.hashes,
            }),
        }))
    }

    fn fetch(&self, first_leaf: u64) -> Result<Page> {
        let page = ask(&self.connection, &self.server, &self.disk, first_leaf)?;
        let page = page.filter(|page| page.image == self.image);
        let page = page.ok_or_else(|| Error::Refused {
            what: "the hashes of the latest image",
            problem: format!(
                "image {} is not the latest of its server any more",
                self.image
            ),
        })?;
        Ok(Page {
            first_leaf,
            hashes: page.hashes,
        })
    }
}

impl DiskHashes for RemoteHashes {
    fn image(&self) -> ImageId {
        self.image
    }

    fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    fn leaf(&self, number: u64) -> Result<Vec<Option<ContentHash>>> {
        let length = leaf_entries(self.chunk_count, number) * HASH_BYTES;
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if page.leaf(number, length).is_none() {
            *page = self.fetch(number)?;
        }
        let bytes = page.leaf(number, length).ok_or_else(|| {
            let found = page.hashes.len();
            self.connection.protocol(format!(
                "expected {length} or more bytes of hashes, found {found}"
            ))
        })?;
        Ok(hashes_from_bytes(bytes).0)
    }
}

fn ask(
    connection: &Connection,
    server: &ServerName,
    disk: &str,
    first_leaf: u64,
) -> Result<Option<HashPage>> {
    let path = ["v1", "servers", server.as_str(), "hashes"];
    let leaf = first_leaf.to_string();
    let query = [("disk", disk), ("leaf", &leaf)];
    let answer = connection.get_bytes("list the hashes of a disk", &path, &query, None)?;
    if answer.is_nothing {
        return Ok(None);
    }
    let found = answer.bytes.len();
    let page = HashPage::from_bytes(&answer.bytes);
    page.map(Some)
        .ok_or_else(|| connection.protocol(format!("a page of hashes of {found} bytes is cut off")))
}
