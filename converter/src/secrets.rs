// SPDX-License-Identifier: MIT OR Apache-2.0
//! What opens encrypted volumes: passphrases, and the content of key files.
//!
//! Secrets are in memory only, and wiped at their end. They are no part of an inspection, a plan, a
//! log or what is kept beside an image, and nothing shows them.
//!
//! Trying a secret takes seconds, as it does at the server's console, and a guest is looked at when
//! it is inspected, when it is changed and when the change is verified: what came of a header is
//! remembered as long as the secrets are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use disk::WriteAt;
use disk::volume::luks::{Luks, VolumeKey};
use zeroize::Zeroizing;

/// How many headers are remembered: a service sees many images.
const REMEMBERED_MAX: usize = 256;

/// A passphrase or the content of a key file.
#[derive(Clone)]
pub struct Secret {
    /// The UUID of the volume that it is for; `None`: for any.
    volume: Option<String>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// One that is tried for every volume.
    #[must_use]
    pub fn for_all(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            volume: None,
            bytes,
        }
    }

    /// One that is tried for the volume with that UUID of LUKS.
    #[must_use]
    pub fn for_volume(uuid: impl Into<String>, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            volume: Some(uuid.into()),
            bytes,
        }
    }

    fn fits(&self, uuid: Option<&str>) -> bool {
        match (&self.volume, uuid) {
            (None, _) => true,
            (Some(wanted), Some(uuid)) => wanted.eq_ignore_ascii_case(uuid),
            (Some(_), None) => false,
        }
    }

    /// As it is, and without the end of the line that editors and `echo` put behind a passphrase.
    fn readings(&self) -> impl Iterator<Item = &[u8]> {
        let bytes: &[u8] = &self.bytes;
        let line = bytes
            .strip_suffix(b"\r\n")
            .or_else(|| bytes.strip_suffix(b"\n"));
        std::iter::once(bytes).chain(line)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

/// The secrets that were given; a copy has the same ones.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    given: Arc<Vec<Secret>>,
    /// The keys of headers, by fingerprint; `None` where no secret opens it.
    found: Arc<Mutex<BTreeMap<String, Option<VolumeKey>>>>,
}

impl FromIterator<Secret> for Secrets {
    fn from_iter<I: IntoIterator<Item = Secret>>(secrets: I) -> Self {
        Self {
            given: Arc::new(secrets.into_iter().collect()),
            found: Arc::default(),
        }
    }
}

impl Secrets {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// How many are tried for the volume with that UUID.
    #[must_use]
    pub fn count_for(&self, uuid: Option<&str>) -> usize {
        self.given.iter().filter(|secret| secret.fits(uuid)).count()
    }

    /// The decrypted device; `None` where none of the secrets opens it.
    pub(crate) fn unlock(&self, luks: &Luks) -> disk::Result<Option<Arc<dyn WriteAt>>> {
        let fingerprint = luks.fingerprint();
        let known = self.lock().get(&fingerprint).cloned();
        let key = match known {
            Some(key) => key,
            None => {
                let key = self.find_key(luks)?;
                self.remember(fingerprint, key.clone());
                key
            }
        };
        key.map(|key| luks.open_with(&key)).transpose()
    }

    fn find_key(&self, luks: &Luks) -> disk::Result<Option<VolumeKey>> {
        let uuid = luks.uuid.as_deref();
        let mut problem = None;
        for secret in self.given.iter().filter(|secret| secret.fits(uuid)) {
            for reading in secret.readings() {
                match luks.find_key(reading) {
                    Ok(Some(key)) => return Ok(Some(key)),
                    Ok(None) => {}
                    // Another secret may be for a slot without the problem.
                    Err(error) => problem = problem.or(Some(error)),
                }
            }
        }
        problem.map_or(Ok(None), Err)
    }

    fn remember(&self, fingerprint: String, key: Option<VolumeKey>) {
        let mut found = self.lock();
        if found.len() >= REMEMBERED_MAX {
            found.clear();
        }
        found.insert(fingerprint, key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<VolumeKey>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secrets = Secrets::from_iter([
            Secret::for_all(bytes("correct horse")),
            Secret::for_volume("a-b", bytes("battery staple")),
        ]);
        let shown = format!("{secrets:?} {:?}", secrets.given);
        assert!(shown.contains("a-b"), "{shown}");
        // Neither as text nor as numbers of bytes.
        for part in ["correct", "battery", "99, 111", "98, 97"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_secret_is_for_its_volume_or_for_all() {
        let secrets = Secrets::from_iter([
            Secret::for_all(bytes("x")),
            Secret::for_volume("ABCD-1", bytes("y")),
        ]);
        assert_eq!(secrets.count_for(Some("abcd-1")), 2);
        assert_eq!(secrets.count_for(Some("abcd-2")), 1);
        assert_eq!(secrets.count_for(None), 1);
        assert_eq!(Secrets::default().count_for(None), 0);
    }

    #[test]
    fn a_passphrase_may_stand_in_a_file_with_the_end_of_its_line() {
        let readings = |text: &str| -> Vec<String> {
            let secret = Secret::for_all(bytes(text));
            let texts = secret.readings().map(String::from_utf8_lossy);
            texts.map(std::borrow::Cow::into_owned).collect()
        };
        assert_eq!(readings("word"), ["word"]);
        assert_eq!(readings("word\n"), ["word\n", "word"]);
        assert_eq!(readings("word\r\n"), ["word\r\n", "word"]);
    }
}
