// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store that is a bucket of S3: an object is an object, below the library's prefix.
//!
//! What is asked of the bucket is in FORMAT.md, section 13: an object is there whole or not at
//! all, durable when the write is answered, and seen by every read and listing that begins after.
//!
//! Memory: requests carry at most [`PART_LENGTH`] bytes; three of an upload go at once.

mod address;
mod attempts;
mod conditional;
mod upload;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Runtime;

use super::{Conditional, Part, Store, Stored, StoredObject, file};
use crate::error::{BucketFailure, Error, Result};
use attempts::{Failed, WrongLength, is_past_the_end, is_unsupported, repeat};

pub use address::{BucketAccess, BucketAddress};

/// The most bytes of one request.
const PART_LENGTH: u64 = 8 << 20;
/// What is read when an object is opened: the header of a pack and more.
const HEAD_LENGTH: u64 = 4 << 10;

/// A client of a bucket.
trait Client: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Client for T {}

/// A library's prefix in a bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    shared: Arc<Shared>,
}

/// What its requests share.
struct Shared {
    client: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    address: BucketAddress,
    time_limit: Duration,
    runtime: Threads,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        f.debug_struct("Shared").field("address", &address).finish()
    }
}

/// The threads on which the network is waited for.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for it would panic on a thread of another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    /// A bucket that is reached so; nothing is asked of it yet.
    pub(crate) fn connect(address: &BucketAddress, access: &BucketAccess) -> Result<Self> {
        let client = access.connect(address)?;
        Self::over(client, address, access.time_limit)
    }

    /// A bucket behind any client.
    fn over<C: Client>(
        client: Arc<C>,
        address: &BucketAddress,
        time_limit: Duration,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|source| Error::File {
                action: "start",
                path: "the threads of a bucket".into(),
                source,
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                parts: Arc::<C>::clone(&client),
                client,
                address: address.clone(),
                time_limit,
                runtime: Threads(Some(runtime)),
            }),
        })
    }

    /// A bucket in memory, for tests; clones of the client are the same bucket.
    #[cfg(test)]
    pub(crate) fn in_memory(client: &Arc<object_store::memory::InMemory>) -> Self {
        let address = "s3://memory/library".parse().expect("is an address");
        Self::over(Arc::clone(client), &address, Duration::from_secs(10)).expect("has threads")
    }

    /// An error unless nothing is below the prefix.
    pub(crate) fn require_empty(&self) -> Result<()> {
        let client = Arc::clone(&self.shared.client);
        let prefix = self.shared.key("");
        let first = self.ask("list", "", move |limit| async move {
            repeat(limit, || async {
                let prefix = (!prefix.as_ref().is_empty()).then_some(&prefix);
                client.list(prefix).next().await.transpose()
            })
            .await
        })?;
        match first.flatten() {
            None => Ok(()),
            Some(_) => Err(Error::NotEmpty {
                path: self.place("").into(),
            }),
        }
    }

    /// Carries out requests and waits for them; `None` when there is no such object. May be called
    /// from any thread, also one of another runtime.
    fn ask<T, F>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce(Duration) -> F,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        match self.try_ask(work) {
            Ok(value) => Ok(Some(value)),
            Err(Failed::Missing) => Ok(None),
            Err(failed) => Err(self.shared.error(action, name, failed)),
        }
    }

    fn try_ask<T, F>(&self, work: impl FnOnce(Duration) -> F) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        let work = work(self.shared.time_limit);
        if let Threads(Some(runtime)) = &self.shared.runtime {
            runtime.spawn(async move {
                // Whoever asked waits for it.
                let _ = sender.send(work.await);
            });
        }
        receiver.recv().unwrap_or_else(|_| {
            Err(Failed::Other {
                failure: BucketFailure::Answer,
                source: "the request was given up".into(),
            })
        })
    }

    fn put(&self, name: &str, content: &[u8], mode: PutMode) -> Result<Option<String>, Failed> {
        let payload = PutPayload::from(content.to_vec());
        let (client, key) = (Arc::clone(&self.shared.client), self.shared.key(name));
        self.try_ask(move |limit| async move {
            let put = || client.put_opts(&key, payload.clone(), mode.clone().into());
            Ok(repeat(limit, put).await?.e_tag)
        })
    }

    /// The whole content with its version, at most `limit` bytes.
    fn read_whole(
        &self,
        name: &str,
        limit: u64,
        what: &'static str,
    ) -> Result<Option<(Vec<u8>, Option<String>)>> {
        loop {
            let Some(first) = self.fetch(name, 0, PART_LENGTH, None)? else {
                return Ok(None);
            };
            if first.total > limit {
                return Err(Error::Limit { what, limit });
            }
            let mut bytes = first.bytes;
            let mut is_same = true;
            while is_same && (bytes.len() as u64) < first.total {
                let offset = bytes.len() as u64;
                let next = self.fetch(name, offset, PART_LENGTH, first.version.clone())?;
                // Gone or replaced meanwhile: parts of two contents are none.
                is_same = next.as_ref().is_some_and(|next| !next.bytes.is_empty());
                bytes.extend(next.map(|next| next.bytes).unwrap_or_default());
            }
            if is_same {
                return Ok(Some((bytes, first.version)));
            }
        }
    }

    /// A part of an object, if it has that version still; shorter where the object ends.
    fn fetch(
        &self,
        name: &str,
        offset: u64,
        length: u64,
        version: Option<String>,
    ) -> Result<Option<Fetched>> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(
                offset..offset.saturating_add(length.max(1)),
            )),
            if_match: version,
            ..GetOptions::default()
        };
        let shared = Arc::clone(&self.shared);
        let key = shared.key(name);
        let fetched = self.try_ask(move |limit| async move {
            repeat(limit, || fetch_once(&*shared.client, &key, options.clone())).await
        });
        match fetched {
            Ok(fetched) => Ok(Some(fetched)),
            Err(Failed::Missing | Failed::Condition { .. }) => Ok(None),
            Err(Failed::Other { source, .. }) if is_past_the_end(&*source) => self.length_of(name),
            Err(failed) => Err(self.shared.error("read", name, failed)),
        }
    }

    /// No bytes, and the length of an object: for those that have none where they were asked for.
    fn length_of(&self, name: &str) -> Result<Option<Fetched>> {
        let (client, key) = (Arc::clone(&self.shared.client), self.shared.key(name));
        self.ask("read", name, move |limit| async move {
            let head = repeat(limit, || client.head(&key)).await?;
            Ok(Fetched {
                bytes: Vec::new(),
                total: head.size,
                version: head.e_tag,
            })
        })
    }
}

/// A part of an object, with the version of the whole.
struct Fetched {
    bytes: Vec<u8>,
    total: u64,
    version: Option<String>,
}

async fn fetch_once(
    client: &dyn ObjectStore,
    key: &Key,
    options: GetOptions,
) -> object_store::Result<Fetched> {
    let answer = client.get_opts(key, options).await?;
    let expected = answer.range.end.saturating_sub(answer.range.start);
    let total = answer.meta.size;
    let version = answer.meta.e_tag.clone();
    let mut bytes = Vec::with_capacity(expected.min(PART_LENGTH) as usize);
    let mut stream = answer.into_stream();
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > expected {
            break;
        }
    }
    if bytes.len() as u64 != expected {
        let found = bytes.len() as u64;
        return Err(object_store::Error::Generic {
            store: "S3",
            source: Box::new(WrongLength { expected, found }),
        });
    }
    Ok(Fetched {
        bytes,
        total,
        version,
    })
}

impl Shared {
    fn key(&self, name: &str) -> Key {
        match (self.address.prefix(), name) {
            ("", name) => Key::from(name),
            (prefix, "") => Key::from(prefix),
            (prefix, name) => Key::from(format!("{prefix}/{name}")),
        }
    }

    fn place(&self, name: &str) -> String {
        if name.is_empty() {
            return self.address.to_string();
        }
        format!("{}/{name}", self.address)
    }

    fn error(&self, action: &'static str, name: &str, failed: Failed) -> Error {
        let (failure, source) = match failed {
            Failed::Other { failure, source } => (failure, source),
            Failed::Missing => (BucketFailure::Answer, "there is no such object".into()),
            Failed::Condition { .. } => (
                BucketFailure::Answer,
                "another program wrote it meanwhile".into(),
            ),
        };
        Error::Bucket {
            action,
            place: self.place(name),
            failure,
            source,
        }
    }
}

impl Store for Bucket {
    fn place(&self, name: &str) -> String {
        self.shared.place(name)
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
        let whole = self.read_whole(name, limit, what)?;
        Ok(whole.map(|(bytes, _)| bytes))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn StoredObject>>> {
        let Some(head) = self.fetch(name, 0, HEAD_LENGTH, None)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(BucketObject {
            bucket: Self {
                shared: Arc::clone(&self.shared),
            },
            name: name.to_owned(),
            head: head.bytes,
            length: head.total,
        })))
    }

    fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Option<Part>> {
        let fetched = self.fetch(name, offset, length, None)?;
        Ok(fetched.map(|fetched| Part {
            bytes: fetched.bytes,
            total: fetched.total,
        }))
    }

    fn conditional(&self) -> Option<&dyn Conditional> {
        Some(self)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn exists(&self, name: &str) -> Result<bool> {
        // Not by HEAD, whose failures have no body that says why.
        Ok(self.fetch(name, 0, 1, None)?.is_some())
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        match self.put(name, content, PutMode::Create) {
            Ok(_) => Ok(true),
            Err(Failed::Condition { is_doubtful: false }) => Ok(false),
            Err(Failed::Condition { is_doubtful: true }) => self.is_ours(name, content),
            // Names that are unique need no condition; the others are written under a lease.
            Err(Failed::Other {
                failure: BucketFailure::Answer,
                source,
            }) if is_unsupported(&*source) => {
                if self.exists(name)? {
                    return Ok(false);
                }
                self.replace(name, content).map(|()| true)
            }
            Err(failed) => Err(self.shared.error("create", name, failed)),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        if content.len() as u64 > PART_LENGTH {
            return self.upload(name, upload::Source::Bytes(content.to_vec().into()));
        }
        let put = self.put(name, content, PutMode::Overwrite);
        put.map_err(|failed| self.shared.error("write", name, failed))?;
        Ok(())
    }

    fn adopt(&self, name: &str, path: &Path) -> Result<()> {
        let source = upload::Source::open(path)?;
        if source.length() > PART_LENGTH {
            self.upload(name, source)?;
        } else {
            let what = "the length of a pack in bytes";
            let content = file::read(path, PART_LENGTH, what)?.unwrap_or_default();
            self.replace(name, &content)?;
        }
        file::remove(path)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let (client, key) = (Arc::clone(&self.shared.client), self.shared.key(name));
        // That there is none is no error.
        self.ask("remove", name, move |limit| async move {
            repeat(limit, || client.delete(&key)).await
        })?;
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        let (client, key) = (Arc::clone(&self.shared.client), self.shared.key(prefix));
        let listed = self.ask("list", prefix, move |limit| async move {
            repeat(limit, || client.list(Some(&key)).try_collect::<Vec<_>>()).await
        })?;
        let root = match self.shared.address.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let mut found: Vec<Stored> = listed
            .unwrap_or_default()
            .into_iter()
            .filter_map(|object| {
                let name = object.location.as_ref().strip_prefix(&root)?.to_owned();
                name.starts_with(prefix).then_some(Stored {
                    name,
                    length: object.size,
                    modified: SystemTime::from(object.last_modified),
                })
            })
            .collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // Pages of a listing may overlap.
        found.dedup_by(|a, b| a.name == b.name);
        Ok(found)
    }
}

/// An object of a bucket that never changes.
#[derive(Debug)]
struct BucketObject {
    bucket: Bucket,
    name: String,
    /// Its first bytes, which came with its length.
    head: Vec<u8>,
    length: u64,
}

impl StoredObject for BucketObject {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        if let Some(head) = self.head.get(start..end) {
            buffer.copy_from_slice(head);
            return Ok(());
        }
        let mut at = offset;
        for piece in buffer.chunks_mut(PART_LENGTH as usize) {
            let length = piece.len() as u64;
            let fetched = self.bucket.fetch(&self.name, at, length, None)?;
            let fetched = fetched.ok_or_else(|| Error::PackMissing {
                place: self.bucket.place(&self.name),
            })?;
            if fetched.bytes.len() != piece.len() {
                let problem = format!("expected {length} bytes, found {}", fetched.bytes.len());
                return Err(Error::corrupt(
                    "object",
                    self.bucket.place(&self.name),
                    at,
                    problem,
                ));
            }
            piece.copy_from_slice(&fetched.bytes);
            at += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
