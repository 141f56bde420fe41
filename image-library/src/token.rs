// SPDX-License-Identifier: MIT OR Apache-2.0
//! A token: what a program shows a library server to be let in, as one printable string.
//!
//! ```text
//! relevo_ + base 32 (RFC 4648, lower case) of
//!  0   1  version, 1
//!  1  10  id
//! 11  32  secret
//! 43  32  SHA-256 of the certificate of the library's authority, zeros when the token carries none
//! 75   5  the first bytes of BLAKE3 of everything before: tells typing errors
//! ```
//!
//! The prefix and the fixed length let programs that look for leaked secrets know it:
//! `relevo_[a-z2-7]{128}`. Neither `Debug` nor any error shows the secret.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::random_bytes;
use crate::error::{Error, Result};
use crate::store::file;

const PREFIX: &str = "relevo_";
const VERSION: u8 = 1;
const BODY_BYTES: usize = 75;
const TOKEN_BYTES: usize = 80;
const FILE_LENGTH_MAX: u64 = 64 << 10;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const CONTEXT_SECRET: &str = "relevo image-library 2026-11 v1 token secret";

/// The public name of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId([u8; 10]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32(&self.0))
    }
}

impl FromStr for TokenId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        from_base32(text)
            .map(Self)
            .ok_or_else(|| Error::InvalidName {
                kind: "token id",
                name: text.chars().take(32).collect(),
            })
    }
}

impl TryFrom<String> for TokenId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.to_string()
    }
}

/// SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A token with its secret.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
    authority: Option<Fingerprint>,
}

impl Token {
    /// A new one; `authority` is whom its holder is to trust.
    pub(crate) fn random(authority: Option<Fingerprint>) -> Result<Self> {
        Ok(Self {
            id: TokenId(random_bytes()?),
            secret: Zeroizing::new(random_bytes()?),
            authority,
        })
    }

    /// The token in a file: its first line.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be read, [`Error::Token`] when it is no token or others than
    /// the file's owner may read it.
    pub fn read(path: &Path) -> Result<Self> {
        let what = "the length of a token file in bytes";
        let content = file::read(path, FILE_LENGTH_MAX, what)?.ok_or_else(|| {
            Error::file("open", path)(std::io::Error::from(std::io::ErrorKind::NotFound))
        })?;
        let content = Zeroizing::new(content);
        if file::mode(path)? & 0o077 != 0 {
            return Err(Error::Token {
                problem: format!("others than its owner may read {}", path.display()),
            });
        }
        let line = content.split(|byte| matches!(byte, b'\n' | b'\r')).next();
        str::from_utf8(line.unwrap_or_default())
            .map_err(|_| not_a_token("it is not text"))?
            .parse()
    }

    /// Its public name.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The authority that its holder is to trust, if it says one.
    #[must_use]
    pub const fn authority(&self) -> Option<Fingerprint> {
        self.authority
    }

    /// The whole string, secret included.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        bytes[0] = VERSION;
        bytes[1..11].copy_from_slice(&self.id.0);
        bytes[11..43].copy_from_slice(&*self.secret);
        bytes[43..75].copy_from_slice(&self.authority.map_or([0; 32], |known| known.0));
        let checksum = blake3::hash(&bytes[..BODY_BYTES]);
        bytes[BODY_BYTES..].copy_from_slice(&checksum.as_bytes()[..TOKEN_BYTES - BODY_BYTES]);
        let mut body = base32(&*bytes);
        let text = Zeroizing::new(format!("{PREFIX}{body}"));
        body.zeroize();
        text
    }

    /// This id with the secret of another token.
    #[cfg(test)]
    pub(crate) fn with_secret_of(&self, other: &Self) -> Self {
        Self {
            secret: other.secret.clone(),
            ..self.clone()
        }
    }

    /// What a library keeps of the secret. Comparing these takes the same time whatever they are.
    pub(crate) fn secret_hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(blake3::derive_key(CONTEXT_SECRET, &*self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| not_a_token("it does not begin with relevo_"))?;
        let bytes: [u8; TOKEN_BYTES] = from_base32(body).ok_or_else(|| {
            not_a_token("expected 128 of a-z and 2-7 after relevo_: a part is missing, or too much")
        })?;
        let bytes = Zeroizing::new(bytes);
        let checksum = blake3::hash(&bytes[..BODY_BYTES]);
        if bytes[BODY_BYTES..] != checksum.as_bytes()[..TOKEN_BYTES - BODY_BYTES] {
            return Err(not_a_token(
                "a character is wrong: its checksum does not fit",
            ));
        }
        if bytes[0] != VERSION {
            return Err(not_a_token(
                "it is of a version that this program does not know",
            ));
        }
        let (mut id, mut secret, mut authority) = ([0; 10], [0; 32], [0; 32]);
        id.copy_from_slice(&bytes[1..11]);
        secret.copy_from_slice(&bytes[11..43]);
        authority.copy_from_slice(&bytes[43..75]);
        Ok(Self {
            id: TokenId(id),
            secret: Zeroizing::new(secret),
            authority: (authority != [0; 32]).then_some(Fingerprint(authority)),
        })
    }
}

fn not_a_token(problem: &str) -> Error {
    Error::Token {
        problem: problem.to_owned(),
    }
}

/// Of whole groups of five bytes, so without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 5 * 8);
    for group in bytes.chunks(5) {
        let value = group
            .iter()
            .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        for position in (0..8).rev() {
            let digit = (value >> (position * 5)) & 31;
            text.push(char::from(ALPHABET[digit as usize]));
        }
    }
    text
}

fn from_base32<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N / 5 * 8 {
        return None;
    }
    let mut bytes = [0; N];
    for (group, digits) in bytes.chunks_mut(5).zip(text.as_bytes().chunks(8)) {
        let mut value = 0_u64;
        for digit in digits {
            let position = ALPHABET.iter().position(|known| known == digit)?;
            value = value << 5 | position as u64;
        }
        group.copy_from_slice(&value.to_be_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_read_back_as_it_was_printed() {
        let authority = Some(Fingerprint::of(b"certificate"));
        for authority in [None, authority] {
            let token = Token::random(authority).unwrap();
            let text = token.reveal();
            assert_eq!(text.len(), 7 + 128);
            let again: Token = text.parse().unwrap();
            assert_eq!(again.id(), token.id());
            assert_eq!(again.authority(), authority);
            assert_eq!(again.secret_hash(), token.secret_hash());
            assert_eq!(
                token.id().to_string().parse::<TokenId>().unwrap(),
                token.id()
            );
        }
    }

    #[test]
    fn every_wrong_character_is_noticed_and_no_error_shows_the_token() {
        let text = Token::random(None).unwrap().reveal();
        for at in 0..text.len() {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let error = str::from_utf8(&wrong)
                .unwrap()
                .parse::<Token>()
                .unwrap_err();
            assert!(!error.to_string().contains(&text[20..40]), "{error}");
        }
        for wrong in [
            &text[1..],
            &text[..text.len() - 1],
            "",
            "relevo_",
            "relevo_ä",
        ] {
            wrong.parse::<Token>().unwrap_err();
        }
        assert!(!format!("{:?}", text.parse::<Token>().unwrap()).contains(&text[30..60]));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::random(None).unwrap();
        std::fs::write(&path, format!("{}\n", *token.reveal())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = Token::read(&path).unwrap_err();
        assert!(
            error.to_string().contains("others than its owner may read"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("chmod 600"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(Token::read(&path).unwrap().id(), token.id());
    }
}
