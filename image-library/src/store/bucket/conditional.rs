// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compare-and-swap in a bucket: `If-None-Match: *` and `If-Match`, by ETag.
//!
//! An answer may be lost after the write was done, and the repetition finds its own content there.
//! Whatever is swapped is different with every write (documents have a random salt), so the same
//! bytes are one's own.

use object_store::{PutMode, UpdateVersion};

use super::attempts::Failed;
use super::{Bucket, Conditional, PART_LENGTH};
use crate::error::{BucketFailure, Error, Result};
use crate::store::conditional::Version;

const WHAT: &str = "the length of an object in bytes";

impl Bucket {
    /// Whether an object has this content: then the attempt whose answer was lost has written it.
    pub(super) fn is_ours(&self, name: &str, content: &[u8]) -> Result<bool> {
        Ok(self.version_of(name, content)?.is_some())
    }

    /// The version of an object, if it has this content.
    fn version_of(&self, name: &str, content: &[u8]) -> Result<Option<Version>> {
        let limit = (content.len() as u64).max(PART_LENGTH);
        match self.read_version(name, limit, WHAT) {
            Ok(Some((found, version))) => Ok((found == content).then_some(version)),
            Ok(None) | Err(Error::Limit { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Conditional for Bucket {
    fn read_version(
        &self,
        name: &str,
        limit: u64,
        what: &'static str,
    ) -> Result<Option<(Vec<u8>, Version)>> {
        let Some((bytes, version)) = self.read_whole(name, limit, what)? else {
            return Ok(None);
        };
        let version = version.ok_or_else(|| {
            let failed = Failed::Other {
                failure: BucketFailure::Answer,
                source: "the answer has no ETag".into(),
            };
            self.shared.error("read", name, failed)
        })?;
        Ok(Some((bytes, Version(version))))
    }

    fn swap(
        &self,
        name: &str,
        content: &[u8],
        expected: Option<&Version>,
    ) -> Result<Option<Version>> {
        let mode = expected.map_or(PutMode::Create, |version| {
            PutMode::Update(UpdateVersion {
                e_tag: Some(version.0.clone()),
                version: None,
            })
        });
        match self.put(name, content, mode) {
            Ok(Some(version)) => Ok(Some(Version(version))),
            // Written, by an answer without ETag or before an answer was lost.
            Ok(None) | Err(Failed::Condition { is_doubtful: true }) => {
                self.version_of(name, content)
            }
            Err(Failed::Condition { is_doubtful: false } | Failed::Missing) => Ok(None),
            Err(failed) => Err(self.shared.error("write", name, failed)),
        }
    }
}
