// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hashes of a disk of an image, asked for in pages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access::DiskHashes;
use crate::client::connection::Connection;
use crate::error::{Error, Result};
use crate::id::{ContentHash, DiskIndex, ImageId, ServerName};
use crate::manifest::{CHUNKS_MAX, LEAF_CHUNKS, leaf_entries};
use crate::protocol::{HASH_BYTES, HashPage, PAGE_LEAVES_MAX, hashes_from_bytes};

/// Bytes of the hashes of a full leaf.
const LEAF_BYTES: usize = LEAF_CHUNKS * HASH_BYTES;

/// Beyond every disk: asks for a page without hashes.
const NO_LEAF: u64 = u64::MAX;

/// Whose hashes.
#[derive(Debug)]
pub(super) enum HashesOf {
    /// A disk of a server's latest image.
    Latest {
        /// The server.
        server: ServerName,
        /// The disk's name.
        disk: String,
    },
    /// A disk of any image.
    Image {
        /// The image.
        image: ImageId,
        /// The disk.
        disk: DiskIndex,
    },
}

impl HashesOf {
    pub(super) fn latest(server: &ServerName, disk: &str) -> Self {
        Self::Latest {
            server: server.clone(),
            disk: disk.to_owned(),
        }
    }

    /// How many leaves are worth asking for from `leaf` on, when the page before was `last`.
    ///
    /// Who takes the next snapshot reads all of them. Who reads a disk jumps: it gets what it needs
    /// at once, and more the longer it goes on in order.
    fn page_leaves(&self, leaf: u64, last: &Page) -> u64 {
        match self {
            Self::Latest { .. } => PAGE_LEAVES_MAX,
            Self::Image { .. } if leaf == last.end() => {
                last.leaves.saturating_mul(2).clamp(1, PAGE_LEAVES_MAX)
            }
            Self::Image { .. } => 1,
        }
    }

    /// One page; `None` when the server has no such disk in the latest image.
    fn ask(&self, connection: &Connection, leaf: u64, leaves: u64) -> Result<Option<HashPage>> {
        let (leaf, leaves) = (leaf.to_string(), leaves.to_string());
        let action = "list the hashes of a disk";
        let answer = match self {
            Self::Latest { server, disk } => {
                let path = ["v1", "servers", server.as_str(), "hashes"];
                let query = [("disk", disk.as_str()), ("leaf", &leaf)];
                connection.get_bytes(action, &path, &query, None)?
            }
            Self::Image { image, disk } => {
                let (image, disk) = (image.to_string(), disk.to_string());
                let path = ["v1", "images", &image, "disks", &disk, "hashes"];
                let query = [("leaf", leaf.as_str()), ("leaves", &leaves)];
                connection.get_bytes(action, &path, &query, None)?
            }
        };
        if answer.is_nothing {
            return Ok(None);
        }
        let found = answer.bytes.len();
        let page = HashPage::from_bytes(&answer.bytes);
        let page = page.ok_or_else(|| {
            connection.protocol(format!("a page of hashes of {found} bytes is cut off"))
        })?;
        self.check_image(connection, page.image)?;
        Ok(Some(page))
    }

    fn check_image(&self, connection: &Connection, found: ImageId) -> Result<()> {
        match self {
            Self::Image { image, .. } if *image != found => Err(connection.protocol(format!(
                "expected hashes of image {image}, found those of {found}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The hashes of one disk, of which one page is kept, 4 MiB at most.
#[derive(Debug)]
pub(super) struct RemoteHashes {
    connection: Arc<Connection>,
    of: HashesOf,
    image: ImageId,
    chunk_size_bytes: u32,
    chunk_count: u64,
    page: Mutex<Arc<Page>>,
}

#[derive(Debug)]
struct Page {
    first_leaf: u64,
    /// How many were asked for.
    leaves: u64,
    hashes: Vec<u8>,
}

impl Page {
    /// The hashes of a leaf, where the page has them.
    fn leaf(&self, number: u64, length: usize) -> Option<&[u8]> {
        let place = usize::try_from(number.checked_sub(self.first_leaf)?).ok()?;
        let start = place.checked_mul(LEAF_BYTES)?;
        self.hashes.get(start..start.checked_add(length)?)
    }

    /// The leaf after its last.
    const fn end(&self) -> u64 {
        self.first_leaf.saturating_add(self.leaves)
    }
}

impl RemoteHashes {
    /// Asks of which image they are and how many, for none of them yet; `None` when the server has
    /// no such disk in the latest image. An image that it does not have is an error.
    pub(super) fn open(
        connection: Arc<Connection>,
        of: HashesOf,
        chunk_size_bytes: u32,
    ) -> Result<Option<Self>> {
        let Some(page) = of.ask(&connection, NO_LEAF, PAGE_LEAVES_MAX)? else {
            return Ok(None);
        };
        if page.chunk_count > CHUNKS_MAX {
            return Err(connection.protocol(format!(
                "a disk of {} chunks, expected at most {CHUNKS_MAX}",
                page.chunk_count
            )));
        }
        let nothing = Page {
            first_leaf: 0,
            leaves: 0,
            hashes: Vec::new(),
        };
        Ok(Some(Self {
            connection,
            of,
            image: page.image,
            chunk_size_bytes,
            chunk_count: page.chunk_count,
            page: Mutex::new(Arc::new(nothing)),
        }))
    }

    fn page(&self) -> MutexGuard<'_, Arc<Page>> {
        // Nothing panics while it is held.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page is asked for without a lock: other leaves are given out or asked for meanwhile.
    fn fetch(&self, first_leaf: u64, last: &Page) -> Result<Arc<Page>> {
        let leaves = self.of.page_leaves(first_leaf, last);
        let page = self.of.ask(&self.connection, first_leaf, leaves)?;
        let page = page.filter(|page| page.image == self.image);
        let page = page.ok_or_else(|| Error::Refused {
            what: "the hashes of the latest image",
            problem: format!(
                "image {} is not the latest of its server any more",
                self.image
            ),
        })?;
        Ok(Arc::new(Page {
            first_leaf,
            leaves,
            hashes: page.hashes,
        }))
    }
}

impl DiskHashes for RemoteHashes {
    fn image(&self) -> ImageId {
        self.image
    }

    fn chunk_size_bytes(&self) -> u32 {
        self.chunk_size_bytes
    }

    fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    fn leaf(&self, number: u64) -> Result<Vec<Option<ContentHash>>> {
        let length = leaf_entries(self.chunk_count, number) * HASH_BYTES;
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut page = Arc::clone(&self.page());
        if page.leaf(number, length).is_none() {
            page = self.fetch(number, &page)?;
            *self.page() = Arc::clone(&page);
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
