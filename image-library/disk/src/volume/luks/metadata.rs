// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON of version 2: slots, tokens, segments, digests.
//!
//! Places and sizes are texts with numbers, bytes are base64. A list is an object whose keys are
//! numbers. The JSON is as long as its area, at most 4 MiB, and ends with zeros.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::block::WriteAt;
use crate::error::{Error, Result};

use super::derivation::Derivation;
use super::{Area, Digest, Keyslot, Luks, Payload, Token, corrupt};

/// What `cryptsetup` allows of each.
const ENTRIES_MAX: usize = 32;

#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<u32, KeyslotJson>,
    #[serde(default)]
    tokens: BTreeMap<u32, Value>,
    segments: BTreeMap<u32, SegmentJson>,
    digests: BTreeMap<u32, DigestJson>,
    #[serde(default)]
    config: ConfigJson,
}

#[derive(Deserialize)]
struct KeyslotJson {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    key_size: usize,
    area: Option<AreaJson>,
    kdf: Option<KdfJson>,
    af: Option<SplitJson>,
}

#[derive(Deserialize)]
struct AreaJson {
    offset: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    key_size: usize,
}

#[derive(Deserialize)]
struct KdfJson {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    iterations: u32,
    #[serde(default)]
    time: u32,
    #[serde(default)]
    memory: u32,
    #[serde(default)]
    cpus: u32,
    salt: String,
}

#[derive(Deserialize)]
struct SplitJson {
    stripes: usize,
    hash: String,
}

#[derive(Deserialize)]
struct SegmentJson {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    #[serde(default)]
    iv_tweak: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    sector_size: u32,
    integrity: Option<Value>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Deserialize)]
struct DigestJson {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

#[derive(Deserialize, Default)]
struct ConfigJson {
    #[serde(default)]
    requirements: RequirementsJson,
}

#[derive(Deserialize, Default)]
struct RequirementsJson {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// What the JSON of a header says.
pub(super) fn read(json: &[u8], device: &Arc<dyn WriteAt>) -> Result<Luks> {
    let end = json.iter().position(|byte| *byte == 0);
    let json = &json[..end.unwrap_or(json.len())];
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|error| corrupt(4096, format!("expected JSON of LUKS2: {error}")))?;
    let most = [
        metadata.keyslots.len(),
        metadata.tokens.len(),
        metadata.segments.len(),
        metadata.digests.len(),
    ];
    if most.iter().any(|count| *count > ENTRIES_MAX) {
        return Err(Error::Limit {
            what: "slots, tokens, segments or digests of LUKS",
            limit: ENTRIES_MAX as u64,
        });
    }
    let mut obstacle = requirement(&metadata);
    let segments: Vec<_> = metadata
        .segments
        .iter()
        .filter(|(_, segment)| !segment.flags.iter().any(|f| f.starts_with("backup-")))
        .collect();
    let [(segment_number, segment)] = segments[..] else {
        return Err(Error::unsupported(
            "LUKS",
            format!("a device of {} segments", segments.len()),
        ));
    };
    obstacle = obstacle.or_else(|| segment_obstacle(segment));
    let keyslots = metadata.keyslots.iter();
    let keyslots: Vec<Keyslot> = keyslots
        .filter(|(_, slot)| slot.kind == "luks2")
        .map(|(number, slot)| keyslot(*number, slot, *segment_number, &metadata))
        .collect();
    Ok(Luks {
        version: 2,
        uuid: None,
        label: None,
        cipher: segment.encryption.clone(),
        key_bits: key_bits(&metadata, *segment_number),
        sector_bytes: segment.sector_size,
        keyslots,
        tokens: metadata.tokens.iter().map(|(n, t)| token(*n, t)).collect(),
        findings: Vec::new(),
        obstacle,
        payload: Payload {
            offset: number(&segment.offset)?,
            length: match segment.size.as_str() {
                "dynamic" => None,
                size => Some(number(size)?),
            },
            iv_offset: match segment.iv_tweak.as_str() {
                "" => 0,
                tweak => number(tweak)?,
            },
        },
        device: Arc::clone(device),
    })
}

fn requirement(metadata: &Metadata) -> Option<String> {
    let requirements = metadata.config.requirements.mandatory.join(", ");
    match requirements.as_str() {
        "" => None,
        list if list.contains("reencrypt") => {
            Some("a device that is just being encrypted, decrypted or encrypted anew".to_owned())
        }
        list => Some(format!("the requirement {}", list.escape_debug())),
    }
}

fn segment_obstacle(segment: &SegmentJson) -> Option<String> {
    if segment.kind != "crypt" {
        return Some(format!(
            "a segment of the type {}",
            segment.kind.escape_debug()
        ));
    }
    if segment.integrity.is_some() {
        return Some("a device with checksums of its data (integrity)".to_owned());
    }
    if segment.offset == "0" {
        return Some("a header without its device (detached)".to_owned());
    }
    let cipher = segment.encryption.parse::<super::cipher::CipherSpec>();
    cipher.err().map(feature_of)
}

/// The length of the keys of the slots that open a segment.
fn key_bits(metadata: &Metadata, segment: u32) -> u32 {
    let digest = digest_of(metadata, |digest| names(&digest.segments, segment));
    let slots = metadata.keyslots.iter();
    let mut sizes = slots
        .filter_map(|(number, slot)| names(&digest?.keyslots, *number).then_some(slot.key_size));
    sizes.next().map_or(0, |bytes| {
        u32::try_from(bytes.saturating_mul(8)).unwrap_or(0)
    })
}

fn names(list: &[String], number: u32) -> bool {
    list.iter().any(|name| name.parse() == Ok(number))
}

fn digest_of(
    metadata: &Metadata,
    mut is_it: impl FnMut(&DigestJson) -> bool,
) -> Option<&DigestJson> {
    metadata.digests.values().find(|digest| is_it(digest))
}

fn keyslot(slot_number: u32, slot: &KeyslotJson, segment: u32, metadata: &Metadata) -> Keyslot {
    let derivation = match &slot.kdf {
        Some(kdf) if kdf.kind == "pbkdf2" => format!("pbkdf2-{}", kdf.hash),
        Some(kdf) => kdf.kind.clone(),
        None => String::new(),
    };
    Keyslot {
        number: slot_number,
        derivation,
        area: area(slot_number, slot, segment, metadata).map_err(feature_of),
    }
}

fn area(slot_number: u32, slot: &KeyslotJson, segment: u32, metadata: &Metadata) -> Result<Area> {
    let incomplete = || corrupt(4096, format!("expected all of key slot {slot_number}"));
    let digest = digest_of(metadata, |digest| {
        names(&digest.keyslots, slot_number) && names(&digest.segments, segment)
    });
    let area = slot.area.as_ref().ok_or_else(incomplete)?;
    let split = slot.af.as_ref().ok_or_else(incomplete)?;
    Ok(Area {
        derivation: derivation(slot.kdf.as_ref().ok_or_else(incomplete)?)?,
        cipher: area.encryption.parse()?,
        area_key_bytes: area.key_size,
        offset: number(&area.offset)?,
        stripes: split.stripes,
        split_hash: split.hash.parse()?,
        volume_key_bytes: slot.key_size,
        digest: digest_from(digest.ok_or_else(incomplete)?)?,
    })
}

fn derivation(kdf: &KdfJson) -> Result<Derivation> {
    let salt = bytes(&kdf.salt)?;
    match kdf.kind.as_str() {
        "pbkdf2" => Ok(Derivation::Pbkdf2 {
            hash: kdf.hash.parse()?,
            iterations: kdf.iterations,
            salt,
        }),
        kind @ ("argon2i" | "argon2id") => Ok(Derivation::Argon2 {
            is_id: kind == "argon2id",
            passes: kdf.time,
            memory_kib: kdf.memory,
            lanes: kdf.cpus,
            salt,
        }),
        other => {
            let feature = format!("the key derivation {}", other.escape_debug());
            Err(Error::unsupported("LUKS", feature))
        }
    }
}

fn digest_from(digest: &DigestJson) -> Result<Digest> {
    if digest.kind != "pbkdf2" {
        let feature = format!("the digest {}", digest.kind.escape_debug());
        return Err(Error::unsupported("LUKS", feature));
    }
    Ok(Digest {
        hash: digest.hash.parse()?,
        salt: bytes(&digest.salt)?,
        iterations: digest.iterations,
        expected: bytes(&digest.digest)?,
    })
}

fn token(number: u32, token: &Value) -> Token {
    let kind = token.get("type").and_then(Value::as_str).unwrap_or("");
    // Clevis says in the unprotected part of its JWE which of its pins the secret is bound to.
    let pin = token.pointer("/jwe/protected").and_then(clevis_pin);
    let slots = token.get("keyslots").and_then(Value::as_array);
    Token {
        number,
        kind: match pin {
            Some(pin) if kind == "clevis" => format!("clevis ({pin})"),
            _ => kind.to_owned(),
        },
        keyslots: slots
            .into_iter()
            .flatten()
            .filter_map(|slot| slot.as_str()?.parse().ok())
            .collect(),
    }
}

/// The pin in the header of a JWE: an object, or base64 of one.
fn clevis_pin(protected: &Value) -> Option<String> {
    let decoded = protected.as_str().and_then(|text| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
        serde_json::from_slice::<Value>(&bytes.ok()?).ok()
    });
    let header = decoded.as_ref().unwrap_or(protected);
    header.pointer("/clevis/pin")?.as_str().map(str::to_owned)
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        let problem = format!("expected a number, found {}", text.escape_debug());
        corrupt(4096, problem)
    })
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|_| corrupt(4096, "expected base64"))
}

/// What an error says that is kept for later.
pub(super) fn feature_of(error: Error) -> String {
    match error {
        Error::Unsupported { feature, .. } => feature,
        other => other.to_string(),
    }
}
