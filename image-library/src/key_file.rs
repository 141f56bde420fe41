// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key file: the library's secret, as it is or sealed under a passphrase (FORMAT.md,
//! section 3).
//!
//! A passphrase only seals the secret. Changing it rewrites this one file; nothing else in the
//! library depends on it.

use std::fmt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::{Config, check_version, to_json};
use crate::crypto::{LibraryKey, TAG_LENGTH, random_bytes};
use crate::error::{Error, Result};
use crate::store::{Store, file, names};

const FORMAT: &str = "relevo image library key";
const VERSION: u32 = 1;
const LENGTH_MAX: u64 = 64 << 10;
const STRUCTURE: &str = "key file";

/// What a key file may ask for at most: a hostile one must not take the machine's memory or days.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;

/// What new files ask for: the second recommended option of RFC 9106, section 4 (64 MiB, 3 passes,
/// 4 lanes).
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// The words that open a key file. Overwritten in memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase; one without any character is refused.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] when it is empty.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() {
            return Err(Error::InvalidName {
                kind: "passphrase (at least one character)",
                name: String::new(),
            });
        }
        Ok(Self(text))
    }

    /// Its text.
    #[cfg(feature = "terminal")]
    pub(crate) fn reveal(&self) -> Zeroizing<String> {
        self.0.clone()
    }

    /// The first line of a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be read, [`Error::InvalidName`] when it is empty or not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let what = "the length of a passphrase file in bytes";
        let content = file::read(path, LENGTH_MAX, what)?.ok_or_else(|| {
            Error::file("open", path)(std::io::Error::from(std::io::ErrorKind::NotFound))
        })?;
        let content = Zeroizing::new(content);
        let line = content.split(|byte| matches!(byte, b'\n' | b'\r')).next();
        let text = str::from_utf8(line.unwrap_or_default()).map_err(|_| Error::InvalidName {
            kind: "passphrase (text in UTF-8)",
            name: path.display().to_string(),
        })?;
        Self::new(text)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Where a library's key is, and how it is opened.
#[derive(Debug, Clone, Default)]
pub struct KeyAccess {
    /// The key file, when it is not in the library itself.
    pub file: Option<PathBuf>,
    /// Opens a key file that has a passphrase.
    pub passphrase: PassphraseSource,
}

/// Where a passphrase comes from when one is needed.
#[derive(Debug, Clone, Default)]
pub enum PassphraseSource {
    /// There is none.
    #[default]
    None,
    /// It is known.
    Given(Passphrase),
    /// A person is asked; the argument names the key file.
    Ask(fn(&str) -> Result<Passphrase>),
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    format: String,
    version: u32,
    library: Uuid,
    #[serde(flatten)]
    protection: Protection,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "protection", rename_all = "kebab-case")]
enum Protection {
    /// The secret in hexadecimal digits.
    None { secret: String },
    /// The secret sealed under what Argon2id makes of a passphrase.
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        salt: String,
        sealed: String,
    },
}

/// The bytes of a key file for this secret.
pub(crate) fn to_bytes(
    secret: &[u8; 32],
    library: Uuid,
    passphrase: Option<&Passphrase>,
) -> Result<Vec<u8>> {
    let protection = match passphrase {
        None => Protection::None {
            secret: hex(secret),
        },
        Some(passphrase) => {
            let salt = random_bytes::<16>()?;
            let key = stretch(passphrase, &salt, MEMORY_KIB, PASSES, LANES)?;
            Protection::Argon2id {
                memory_kib: MEMORY_KIB,
                passes: PASSES,
                lanes: LANES,
                salt: hex(&salt),
                sealed: hex(&seal(&key, library, secret)?),
            }
        }
    };
    to_json(
        STRUCTURE,
        &KeyFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            library,
            protection,
        },
    )
}

/// Reads the key of a library, and checks that it is this library's.
pub(crate) fn read(config: &Config, store: &dyn Store, access: &KeyAccess) -> Result<LibraryKey> {
    let what = "the length of the key file in bytes";
    let (place, bytes) = match &access.file {
        Some(path) => (
            path.display().to_string(),
            file::read(path, LENGTH_MAX, what)?,
        ),
        None => (
            store.place(names::KEY),
            store.read(names::KEY, LENGTH_MAX, what)?,
        ),
    };
    let path = || PathBuf::from(&place);
    let bytes = Zeroizing::new(bytes.ok_or_else(|| Error::KeyMissing { path: path() })?);
    let (library, secret) = open(&bytes, &place, &access.passphrase)?;
    let key = LibraryKey::from_secret(*secret);
    if library != config.id || !config.is_key(&key) {
        return Err(Error::WrongKey { path: path() });
    }
    Ok(key)
}

fn open(
    bytes: &[u8],
    place: &str,
    passphrase: &PassphraseSource,
) -> Result<(Uuid, Zeroizing<[u8; 32]>)> {
    check_version(STRUCTURE, place, FORMAT, bytes)?;
    let corrupt = |problem: String| Error::corrupt(STRUCTURE, place, 0, problem);
    check_protection(bytes, place)?;
    let key_file: KeyFile =
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    let secret = match key_file.protection {
        Protection::None { secret } => unhex::<32>(&secret)
            .ok_or_else(|| corrupt("the secret is not 64 hexadecimal digits".to_owned()))?,
        Protection::Argon2id {
            memory_kib,
            passes,
            lanes,
            salt,
            sealed,
        } => {
            if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
                return Err(corrupt(format!(
                    "it asks for {memory_kib} KiB, {passes} passes and {lanes} lanes; the most is \
                     {MEMORY_KIB_MAX}, {PASSES_MAX} and {LANES_MAX}"
                )));
            }
            let salt = unhex::<16>(&salt)
                .ok_or_else(|| corrupt("the salt is not 32 hexadecimal digits".to_owned()))?;
            let mut sealed = unhex::<{ 32 + TAG_LENGTH }>(&sealed)
                .ok_or_else(|| corrupt("the secret is not 96 hexadecimal digits".to_owned()))?;
            let passphrase = match passphrase {
                PassphraseSource::Given(passphrase) => passphrase.clone(),
                PassphraseSource::Ask(ask) => ask(place)?,
                PassphraseSource::None => {
                    return Err(Error::PassphraseNeeded { path: place.into() });
                }
            };
            let key = stretch(&passphrase, &*salt, memory_kib, passes, lanes)?;
            unseal(&key, key_file.library, &mut *sealed)
                .ok_or_else(|| Error::WrongPassphrase { path: place.into() })?
        }
    };
    Ok((key_file.library, secret))
}

/// Refuses a protection of a later version by its name, rather than as bytes that make no sense.
fn check_protection(bytes: &[u8], place: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Named {
        protection: String,
    }
    let named: Named = serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(STRUCTURE, place, 0, error.to_string()))?;
    if matches!(&*named.protection, "none" | "argon2id") {
        return Ok(());
    }
    Err(Error::Unsupported {
        structure: STRUCTURE,
        place: place.to_owned(),
        feature: format!("protection {:?}", named.protection),
    })
}

fn stretch(
    passphrase: &Passphrase,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; 32]>> {
    let refused =
        |problem: String| Error::corrupt(STRUCTURE, "its Argon2id parameters", 0, problem);
    let parameters = Params::new(memory_kib, passes, lanes, Some(32))
        .map_err(|error| refused(error.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.0.as_bytes(), salt, &mut *key)
        .map_err(|error| refused(error.to_string()))?;
    Ok(key)
}

// The salt is new with every file, so is the key: a nonce of zeros is used once under it.
fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
    Some(LessSafeKey::new(unbound))
}

fn seal(key: &[u8; 32], library: Uuid, secret: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>> {
    let mut sealed = Zeroizing::new(secret.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = cipher(key)
        .and_then(|cipher| {
            let associated = Aad::from(library.as_bytes());
            cipher
                .seal_in_place_separate_tag(nonce, associated, &mut sealed)
                .ok()
        })
        .ok_or(Error::Limit {
            what: "the length in bytes of a secret",
            limit: 32,
        })?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn unseal(key: &[u8; 32], library: Uuid, sealed: &mut [u8]) -> Option<Zeroizing<[u8; 32]>> {
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let associated = Aad::from(library.as_bytes());
    let plain = cipher(key)?.open_in_place(nonce, associated, sealed).ok()?;
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(plain);
    Some(secret)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (position, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * position..2 * position + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn passphrase(text: &str) -> PassphraseSource {
        PassphraseSource::Given(Passphrase::new(text).expect("is not empty"))
    }

    fn sealed() -> Vec<u8> {
        let words = Passphrase::new("four words of mine").expect("is not empty");
        to_bytes(&SECRET, Uuid::nil(), Some(&words)).expect("seals")
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
        let bytes = sealed();
        assert!(!String::from_utf8_lossy(&bytes).contains(&hex(&SECRET)));
        let (library, secret) =
            open(&bytes, "key", &passphrase("four words of mine")).expect("opens");
        assert_eq!((library, *secret), (Uuid::nil(), SECRET));
        let wrong = open(&bytes, "key", &passphrase("four words of yours")).unwrap_err();
        assert!(matches!(wrong, Error::WrongPassphrase { .. }), "{wrong}");
        let none = open(&bytes, "key", &PassphraseSource::None).unwrap_err();
        assert!(matches!(none, Error::PassphraseNeeded { .. }), "{none}");
    }

    #[test]
    fn the_sealed_secret_belongs_to_one_library() {
        let other = Uuid::from_u128(1).to_string();
        let moved = String::from_utf8(sealed())
            .expect("is JSON")
            .replace(&Uuid::nil().to_string(), &other);
        let error = open(moved.as_bytes(), "key", &passphrase("four words of mine")).unwrap_err();
        assert!(matches!(error, Error::WrongPassphrase { .. }), "{error}");
    }

    #[test]
    fn a_hostile_key_file_takes_neither_memory_nor_time() {
        let hostile = String::from_utf8(sealed()).expect("is JSON").replace(
            &format!("\"memory_kib\": {MEMORY_KIB}"),
            "\"memory_kib\": 4294967295",
        );
        let error = open(hostile.as_bytes(), "key", &passphrase("x")).unwrap_err();
        assert!(error.to_string().contains("4294967295 KiB"), "{error}");
        for text in ["", "{}", "[]", "{\"format\":1}"] {
            assert!(open(text.as_bytes(), "key", &passphrase("x")).is_err());
        }
    }

    #[test]
    fn a_later_protection_is_refused_by_its_name() {
        let later = String::from_utf8(sealed())
            .expect("is JSON")
            .replace("argon2id", "tpm");
        let error = open(later.as_bytes(), "key", &PassphraseSource::None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "key file in key: protection \"tpm\" is not supported"
        );
    }

    #[test]
    fn the_parameters_are_the_second_recommendation_of_rfc_9106() {
        // Known answer of RFC 9106 itself is in the crate's tests; this one guards ours.
        let words = Passphrase::new("words").expect("is not empty");
        let key = stretch(&words, &[1; 16], 8, 1, 1).expect("stretches");
        let again = stretch(&words, &[1; 16], 8, 1, 1).expect("stretches");
        let other = stretch(&words, &[2; 16], 8, 1, 1).expect("stretches");
        assert_eq!(*key, *again);
        assert_ne!(*key, *other);
        assert_eq!((MEMORY_KIB, PASSES, LANES), (65_536, 3, 4));
    }
}
