// SPDX-License-Identifier: MIT OR Apache-2.0
//! LUKS: encrypted devices, opened with a passphrase or the content of a key file.
//!
//! ```text
//! header (version1 | version2 + metadata) -> Luks: what it is, who can open it
//! secret -> derivation (PBKDF2, Argon2) -> key of a slot -> the slot's area, decrypted and merged
//!        -> volume key, checked by its digest -> EncryptedDevice
//! ```
//!
//! Sources: cryptsetup, "LUKS On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format
//! Specification" 1.1.
//!
//! **Not here:** detached headers, devices with checksums (dm-integrity), devices that are just
//! being encrypted, keys that a TPM or a token holds: those are told, see [`Token`].

mod cipher;
mod derivation;
mod device;
mod hash;
mod metadata;
mod split;
mod version1;
mod version2;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::block::WriteAt;
use crate::error::{Error, Result};
use crate::fields::read_block;
use crate::finding::Finding;

use cipher::CipherSpec;
use derivation::Derivation;
use device::EncryptedDevice;
use hash::Hash;

/// A slot that `cryptsetup` makes has 4000 stripes of at most 128 bytes.
const AREA_BYTES_MAX: usize = 8 << 20;
const SECTOR_BYTES: usize = 512;

/// An encrypted device: its header.
#[derive(Debug)]
pub struct Luks {
    /// 1 or 2.
    pub version: u16,
    /// The UUID as the header has it.
    pub uuid: Option<String>,
    /// The label (version 2).
    pub label: Option<String>,
    /// For example `aes-xts-plain64`.
    pub cipher: String,
    /// The length of the volume key.
    pub key_bits: u32,
    /// The unit of encryption, 512 to 4096.
    pub sector_bytes: u32,
    /// The slots that hold the volume key.
    pub keyslots: Vec<Keyslot>,
    /// Other ways to come by the secret of a slot (version 2).
    pub tokens: Vec<Token>,
    /// What somebody should know.
    pub findings: Vec<Finding>,
    /// Why it cannot be opened whatever the secret is, if so.
    pub obstacle: Option<String>,
    payload: Payload,
    device: Arc<dyn WriteAt>,
}

/// A copy of the volume key, encrypted.
#[derive(Debug)]
pub struct Keyslot {
    /// Its number.
    pub number: u32,
    /// How the secret becomes a key: `pbkdf2-sha256`, `argon2id`.
    pub derivation: String,
    /// How to open it, or why that is not possible.
    area: Result<Area, String>,
}

/// Something that can give the secret of slots without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number.
    pub number: u32,
    /// Whose it is: `systemd-tpm2`, `systemd-fido2`, `clevis`, `luks2-keyring`.
    pub kind: String,
    /// The slots it is for.
    pub keyslots: Vec<u32>,
}

impl Token {
    /// Whether a server on the network gives the secret (Tang).
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.kind == "clevis (tang)"
    }

    /// Whether the secret is sealed by the server's TPM, which a virtual machine does not have.
    /// Of Clevis that is known where its token says which pin it uses.
    #[must_use]
    pub fn is_tpm(&self) -> bool {
        matches!(self.kind.as_str(), "systemd-tpm2" | "clevis (tpm2)")
    }
}

/// The key of a device's bytes; wiped from memory at its end, and never shown.
#[derive(Clone)]
pub struct VolumeKey(Zeroizing<Vec<u8>>);

impl fmt::Debug for VolumeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("VolumeKey(..)")
    }
}

/// Where the encrypted bytes are.
#[derive(Debug, Clone, Default)]
struct Payload {
    offset: u64,
    /// To the end of the device where there is none.
    length: Option<u64>,
    iv_offset: u64,
}

/// Everything about a slot but the secret.
#[derive(Debug, Clone)]
struct Area {
    derivation: Derivation,
    cipher: CipherSpec,
    /// Of the key that decrypts the area.
    area_key_bytes: usize,
    offset: u64,
    stripes: usize,
    split_hash: Hash,
    volume_key_bytes: usize,
    digest: Digest,
}

/// How a volume key is recognised.
#[derive(Debug, Clone)]
struct Digest {
    hash: Hash,
    salt: Vec<u8>,
    iterations: u32,
    expected: Vec<u8>,
}

impl Digest {
    fn matches(&self, key: &[u8]) -> Result<bool> {
        let derivation = Derivation::Pbkdf2 {
            hash: self.hash,
            iterations: self.iterations,
            salt: self.salt.clone(),
        };
        let found = derivation.derive(key, self.expected.len())?;
        Ok(!self.expected.is_empty() && *found == *self.expected)
    }
}

impl Luks {
    /// Reads the header; an error where there is none.
    pub fn open(device: &Arc<dyn WriteAt>) -> Result<Self> {
        match version1::open(device)? {
            Some(luks) => Ok(luks),
            None => version2::open(device),
        }
    }

    /// The decrypted device; `None` where the secret opens no slot.
    pub fn unlock(&self, secret: &[u8]) -> Result<Option<Arc<dyn WriteAt>>> {
        match self.find_key(secret)? {
            Some(key) => self.open_with(&key).map(Some),
            None => Ok(None),
        }
    }

    /// The key of the device's bytes; `None` where the secret opens no slot.
    ///
    /// The secret is taken as it is: a passphrase without the end of its line, a key file as
    /// a whole. This takes as long as it takes at the server's console: seconds for each slot.
    pub fn find_key(&self, secret: &[u8]) -> Result<Option<VolumeKey>> {
        self.check_obstacle()?;
        let mut problem = None;
        for keyslot in &self.keyslots {
            match self.volume_key(keyslot, secret) {
                Ok(Some(key)) => return Ok(Some(VolumeKey(key))),
                Ok(None) => {}
                // Another slot may be the right one.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// The decrypted device, by a key that was found for a header of the same
    /// [fingerprint](Self::fingerprint).
    pub fn open_with(&self, key: &VolumeKey) -> Result<Arc<dyn WriteAt>> {
        self.check_obstacle()?;
        self.decrypted(&key.0)
    }

    /// Tells headers apart that are opened by other secrets, or with other keys: the same only where
    /// all slots are the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let slots = format!("{:?} {:?} {:?}", self.uuid, self.cipher, self.keyslots);
        let digest = Hash::Sha256.digest(slots.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check_obstacle(&self) -> Result<()> {
        match &self.obstacle {
            Some(obstacle) => Err(Error::unsupported("LUKS", obstacle.clone())),
            None => Ok(()),
        }
    }

    fn volume_key(&self, keyslot: &Keyslot, secret: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let area = match &keyslot.area {
            Ok(area) => area,
            Err(feature) => return Err(Error::unsupported("LUKS", feature.clone())),
        };
        let length = area.volume_key_bytes.saturating_mul(area.stripes);
        if length == 0 || length > AREA_BYTES_MAX {
            let problem =
                format!("expected a slot of up to {AREA_BYTES_MAX} bytes, found {length}");
            return Err(corrupt(area.offset, problem));
        }
        let padded = length.next_multiple_of(SECTOR_BYTES);
        let Some(bytes) = read_block(&*self.device, area.offset, padded)? else {
            return Err(corrupt(
                area.offset,
                "expected the slot's key on the device",
            ));
        };
        let mut bytes = Zeroizing::new(bytes);
        let key = area.derivation.derive(secret, area.area_key_bytes)?;
        area.cipher.open(&key)?.decrypt(0, SECTOR_BYTES, &mut bytes);
        let key = split::merge(&bytes[..length], area.stripes, area.split_hash);
        Ok(area.digest.matches(&key)?.then_some(key))
    }

    fn decrypted(&self, key: &[u8]) -> Result<Arc<dyn WriteAt>> {
        let cipher = self.cipher.parse::<CipherSpec>()?.open(key)?;
        let device = EncryptedDevice::new(
            Arc::clone(&self.device),
            cipher,
            self.sector_bytes,
            &self.payload,
        )?;
        Ok(Arc::new(device))
    }
}

fn corrupt(offset: u64, problem: impl Into<String>) -> Error {
    Error::corrupt("LUKS header", offset, problem)
}

impl fmt::Display for Luks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LUKS{} {}", self.version, self.cipher)
    }
}
