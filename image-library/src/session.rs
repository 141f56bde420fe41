// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an upload keeps on disk while it goes on, so that an interrupted one can be taken up.
//!
//! ```text
//! uploads/<owner tag, 32 hex>.<uuid>/
//!   lock           held by the upload while it lives
//!   <n>.pack-part  packs that have no name yet
//!   packs          the names of the packs that it finished, one per line
//!   proved/        index runs: chunks that it sent and that another server's pack holds
//!   latest/        index runs: the chunks of the server's latest image, where they were asked for
//! ```
//!
//! A directory whose lock is free belongs to an interrupted upload. The next upload of the same
//! server takes over what it proved, and removes it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::chunk::ChunkId;
use crate::crypto::OwnerTag;
use crate::error::{Error, Result};
use crate::index::{Adopted, Index, PackRecord};
use crate::pack::{Extent, PackId};
use crate::store::lock::FileLock;
use crate::store::{Workspace, file};

/// Entries of `proved` and `latest` that gather in memory: what at most is sent twice after a
/// kill is 4096 chunks that another server has too.
const SET_FLUSH_AT: usize = 4096;

/// Takes one chunk id.
pub(crate) type AddId<'a> = dyn FnMut(ChunkId) -> Result<()> + 'a;

/// The directory of one upload.
#[derive(Debug)]
pub(crate) struct Session {
    directory: PathBuf,
    proved: Mutex<Option<ChunkSet>>,
    latest: Mutex<Option<ChunkSet>>,
    /// Sets that interrupted uploads of the same server left, moved here.
    inherited: Vec<ChunkSet>,
    _lock: FileLock,
}

impl Session {
    /// Begins an upload; takes over what interrupted ones of the same server left.
    pub(crate) fn begin(workspace: &Workspace, owner: OwnerTag) -> Result<Self> {
        // No other upload begins meanwhile: a directory appears together with its lock.
        let _begin = FileLock::wait_exclusive(&workspace.lock("begin"))?;
        file::remove_stale(&workspace.temporary_directory(), "")?;
        file::remove_stale(&workspace.index(), ".tmp")?;
        let interrupted = interrupted(workspace, owner)?;
        let name = format!("{}.{}", owner.to_hex(), Uuid::now_v7());
        let directory = workspace.uploads().join(name);
        file::create_directory(&directory)?;
        let lock_path = directory.join("lock");
        let lock = FileLock::try_exclusive(&lock_path)?.ok_or(Error::Locked { path: lock_path })?;
        let inherited = inherit(&directory, &interrupted)?;
        Ok(Self {
            directory,
            proved: Mutex::new(None),
            latest: Mutex::new(None),
            inherited,
            _lock: lock,
        })
    }

    pub(crate) fn pack_path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.pack-part"))
    }

    pub(crate) fn pack_log(&self) -> PackLog {
        PackLog {
            path: self.directory.join("packs"),
        }
    }

    /// Notes that the server sent a chunk that stands in another server's pack.
    pub(crate) fn prove(&self, id: &ChunkId) -> Result<()> {
        let mut proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match &mut *proved {
            Some(set) => set,
            None => proved.insert(ChunkSet::open(&self.directory.join("proved"))?),
        };
        set.add(id)
    }

    /// Whether the server has sent this chunk.
    pub(crate) fn has_proved(&self, id: &ChunkId) -> Result<bool> {
        for set in &self.inherited {
            if set.contains(id)? {
                return Ok(true);
            }
        }
        let proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner);
        proved.as_ref().map_or(Ok(false), |set| set.contains(id))
    }

    /// Whether the server's latest image names this chunk; `each` gives all that it names and is
    /// called once, when this is asked for the first time.
    pub(crate) fn latest_names(
        &self,
        id: &ChunkId,
        each: &dyn Fn(&mut AddId<'_>) -> Result<()>,
    ) -> Result<bool> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = &*latest {
            return set.contains(id);
        }
        let set = ChunkSet::open(&self.directory.join("latest"))?;
        each(&mut |id| set.add(&id))?;
        let contains = set.contains(id);
        *latest = Some(set);
        contains
    }

    /// Removes the directory: the upload is committed.
    pub(crate) fn end(&self) {
        // The image is committed whatever happens here; what stays is removed by the next upload.
        let _ = file::remove_directory(&self.directory);
    }
}

/// The names of the packs that an upload finished.
#[derive(Debug)]
pub(crate) struct PackLog {
    path: PathBuf,
}

impl PackLog {
    pub(crate) fn append(&self, id: &PackId) -> Result<()> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| writeln!(file, "{id}"))
            .map_err(Error::file("write", &self.path))
    }
}

/// The directories of this owner whose upload does not live any more.
fn interrupted(workspace: &Workspace, owner: OwnerTag) -> Result<Vec<PathBuf>> {
    let prefix = format!("{}.", owner.to_hex());
    let mut found = Vec::new();
    for listed in file::list(&workspace.uploads())? {
        if listed.name.starts_with(&prefix)
            && FileLock::try_exclusive(&listed.path.join("lock"))?.is_some()
        {
            found.push(listed.path);
        }
    }
    Ok(found)
}

/// Moves what interrupted uploads proved below the new one, and removes the rest of them.
fn inherit(directory: &Path, interrupted: &[PathBuf]) -> Result<Vec<ChunkSet>> {
    let mut sets = Vec::new();
    for old in interrupted {
        let listed = file::list(old)?;
        let is_set = |name: &str| name == "proved" || name.starts_with("inherited-");
        for set in listed.iter().filter(|listed| is_set(&listed.name)) {
            let target = directory.join(format!("inherited-{}", Uuid::new_v4()));
            file::rename(&set.path, &target)?;
            sets.push(ChunkSet::open(&target)?);
        }
        if let Some(log) = listed.iter().find(|listed| listed.name == "packs") {
            append_file(&log.path, &directory.join("packs"))?;
        }
        file::remove_directory(old)?;
    }
    Ok(sets)
}

fn append_file(from: &Path, to: &Path) -> Result<()> {
    let limit = 1 << 30;
    let content = file::read(
        from,
        limit,
        "the length of an upload's list of packs in bytes",
    )?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(to)
        .and_then(|mut file| file.write_all(&content.unwrap_or_default()))
        .map_err(Error::file("write", to))
}

/// A set of chunk ids of any size in little memory: an index that names no packs.
#[derive(Debug)]
struct ChunkSet {
    index: Index,
}

impl ChunkSet {
    fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            index: Index::open(directory, SET_FLUSH_AT)?,
        })
    }

    fn add(&self, id: &ChunkId) -> Result<()> {
        let nowhere = Extent {
            offset: 0,
            length: 0,
            plain_length: 0,
        };
        self.index.add(&Adopted {
            record: PackRecord {
                id: PackId::from_bytes([0; 32]),
                length: 0,
                owner: OwnerTag([0; 16]),
            },
            entries: vec![(*id, nowhere)],
        })
    }

    fn contains(&self, id: &ChunkId) -> Result<bool> {
        match self.index.find(id) {
            // A set that cannot be read proves nothing: the chunk is sent again.
            Err(Error::Corrupt { .. }) => Ok(false),
            found => Ok(found?.is_some()),
        }
    }
}
