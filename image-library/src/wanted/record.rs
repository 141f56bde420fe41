// SPDX-License-Identifier: MIT OR Apache-2.0
//! One record of `wanted/` (FORMAT.md, section 14): copies of chunks in a pack that are damaged, or
//! chunks that images name and no pack has.
//!
//! The name of a record is made of the pack and of its content. Whoever finds the same writes the
//! same record, and of one that cannot be read the name still says which pack not to rely on.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::chunk::ChunkId;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::pack::PackId;
use crate::store::names;

/// The most chunks of one record: as many as a pack has records.
pub(super) const CHUNKS_MAX: usize = 16384;
/// Longest content in bytes; 67 for each chunk.
const LENGTH_MAX: u64 = 2 << 20;

/// Where chunks were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// Their copies in this pack.
    Pack(PackId),
    /// No pack has them any more.
    Nowhere,
}

/// What was lost there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing in that pack is to be relied on.
    All,
    /// These chunks.
    Chunks(BTreeSet<ChunkId>),
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(super) place: Place,
    pub(super) lost: Lost,
}

/// A record as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    pack: Option<String>,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    chunks: Vec<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack(pack) => pack.fmt(f),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

impl Record {
    fn to_json(&self) -> Result<Vec<u8>> {
        let chunks = match &self.lost {
            Lost::All => Vec::new(),
            Lost::Chunks(chunks) => chunks.iter().map(ToString::to_string).collect(),
        };
        let document = Document {
            pack: match self.place {
                Place::Pack(pack) => Some(pack.to_string()),
                Place::Nowhere => None,
            },
            whole: self.lost == Lost::All,
            chunks,
        };
        serde_json::to_vec(&document).map_err(|source| Error::Encode {
            what: "record",
            source,
        })
    }

    /// Reads a record that stands under the name of this place.
    fn from_json(place: Place, json: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let found = match &document.pack {
            None => Place::Nowhere,
            Some(pack) => {
                Place::Pack(PackId::from_hex(pack).ok_or_else(|| format!("no pack: {pack:?}"))?)
            }
        };
        if found != place {
            return Err(format!("expected pack {place}, found {found}"));
        }
        if document.whole {
            let lost = Lost::All;
            return match place {
                Place::Pack(_) => Ok(Self { place, lost }),
                Place::Nowhere => Err("expected a pack that is lost as a whole".to_owned()),
            };
        }
        let count = document.chunks.len();
        if count > CHUNKS_MAX {
            return Err(format!(
                "expected at most {CHUNKS_MAX} chunks, found {count}"
            ));
        }
        let chunk = |text: &String| {
            let hash = blake3::Hash::from_hex(text).map_err(|_| format!("no chunk: {text:?}"))?;
            Ok(ChunkId::from_bytes(*hash.as_bytes()))
        };
        let chunks = document.chunks.iter().map(chunk);
        let lost = Lost::Chunks(chunks.collect::<Result<_, String>>()?);
        Ok(Self { place, lost })
    }
}

impl Core {
    /// Reads a record; `None` when it was removed since it was listed.
    pub(super) fn read_wanted(&self, name: &str, place: Place) -> Result<Option<Record>> {
        let Some(json) = self.record(name, LENGTH_MAX)? else {
            return Ok(None);
        };
        Record::from_json(place, &json)
            .map(Some)
            .map_err(|problem| Error::corrupt("record", name, 64, problem))
    }

    /// Writes a record unless it is there; gives its name.
    pub(super) fn write_wanted(&self, record: &Record) -> Result<String> {
        let json = record.to_json()?;
        let name = names::wanted(record.place, &json);
        match self.read_wanted(&name, record.place) {
            // The name is made of the content.
            Ok(Some(_)) => {}
            Ok(None) => drop(self.create_record(&name, &json)?),
            Err(_) => self.replace_record(&name, &json)?,
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let chunks = [[1; 32], [2; 32]].map(ChunkId::from_bytes).into();
        Record {
            place: Place::Pack(PackId::from_bytes([7; 32])),
            lost: Lost::Chunks(chunks),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let whole = Record {
            lost: Lost::All,
            ..record()
        };
        let nowhere = Record {
            place: Place::Nowhere,
            ..record()
        };
        for record in [record(), whole, nowhere] {
            let json = record.to_json().unwrap();
            assert_eq!(Record::from_json(record.place, &json), Ok(record));
        }
    }

    #[test]
    fn a_record_that_was_made_up_is_refused() {
        let pack = PackId::from_bytes([7; 32]);
        let place = Place::Pack(pack);
        let chunk = "ab".repeat(32);
        let many = vec![format!("{chunk:?}"); CHUNKS_MAX + 1].join(",");
        for json in [
            String::new(),
            "[]".to_owned(),
            r#"{"chunks":[]}"#.to_owned(),
            r#"{"pack":"07","chunks":[]}"#.to_owned(),
            format!(r#"{{"pack":"{chunk}","chunks":[]}}"#),
            format!(r#"{{"pack":"{pack}","chunks":["07"]}}"#),
            format!(r#"{{"pack":"{pack}","chunks":[7]}}"#),
            format!(r#"{{"pack":"{pack}","chunks":[{many}]}}"#),
        ] {
            assert!(Record::from_json(place, json.as_bytes()).is_err(), "{json}");
        }
        let whole = br#"{"pack":null,"whole":true}"#;
        assert!(Record::from_json(Place::Nowhere, whole).is_err());
    }
}
