// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads in parts: a part that is lost is sent again alone, and memory is bounded by the parts
//! that are on their way. Nothing has the object's name before the last request.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutPayload};

use super::attempts::{Failed, repeat};
use super::{Bucket, PART_LENGTH, Shared};
use crate::error::{BucketFailure, Error, Result};

/// How many parts of an upload are on their way at once.
const PARTS_AT_ONCE: usize = 3;

/// What is uploaded.
#[derive(Debug)]
pub(super) enum Source {
    File { file: File, length: u64 },
    Bytes(Bytes),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let length = file.metadata().map_err(Error::file("read", path))?.len();
        Ok(Self::File { file, length })
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn part(&self, number: u64) -> Result<Bytes, Failed> {
        let offset = number * PART_LENGTH;
        let length = PART_LENGTH.min(self.length() - offset) as usize;
        match self {
            Self::Bytes(bytes) => Ok(bytes.slice(offset as usize..offset as usize + length)),
            Self::File { file, .. } => {
                let mut part = vec![0; length];
                let read = file.read_exact_at(&mut part, offset);
                read.map(|()| part.into()).map_err(|source| Failed::Other {
                    failure: BucketFailure::Answer,
                    source: Box::new(source),
                })
            }
        }
    }
}

impl Bucket {
    /// Uploads in parts; the object is there when all of it is.
    pub(super) fn upload(&self, name: &str, source: Source) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let key = shared.key(name);
        let uploaded = self.try_ask(move |limit| upload(shared, key, source, limit));
        uploaded.map_err(|failed| self.shared.error("write", name, failed))
    }
}

async fn upload(
    shared: Arc<Shared>,
    key: Key,
    source: Source,
    limit: Duration,
) -> Result<(), Failed> {
    let upload = repeat(limit, || shared.parts.create_multipart(&key)).await?;
    let sent = send(&shared, &key, &upload, &source, limit).await;
    if sent.is_err() {
        // What could not be finished must not stay and be paid for; what went wrong first is what
        // is reported.
        let _ = repeat(limit / 10, || shared.parts.abort_multipart(&key, &upload)).await;
    }
    sent
}

async fn send(
    shared: &Shared,
    key: &Key,
    upload: &String,
    source: &Source,
    limit: Duration,
) -> Result<(), Failed> {
    let count = source.length().div_ceil(PART_LENGTH);
    let parts: Vec<_> = stream::iter(0..count)
        .map(|number| async move {
            let part = source.part(number)?;
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let put = || {
                let payload = PutPayload::from_bytes(part.clone());
                shared.parts.put_part(key, upload, index, payload)
            };
            repeat(limit, put).await
        })
        .buffered(PARTS_AT_ONCE)
        .try_collect()
        .await?;
    let complete = || shared.parts.complete_multipart(key, upload, parts.clone());
    match repeat(limit, complete).await {
        Ok(_) => Ok(()),
        // The upload is not known any more: it was completed, and the answer was lost.
        Err(Failed::Missing) => {
            let head = repeat(limit, || shared.client.head(key)).await?;
            if head.size == source.length() {
                return Ok(());
            }
            Err(Failed::Other {
                failure: BucketFailure::Answer,
                source: format!("expected {} bytes, found {}", source.length(), head.size).into(),
            })
        }
        Err(failed) => Err(failed),
    }
}
