// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tokens of a library: who may do what on its servers. One sealed record for each, below
//! `tokens/`; a record has a hash of the secret, never the secret (FORMAT.md, section 8).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::id::ServerName;
use crate::local::LocalLibrary;
use crate::store::names;
use crate::token::{Fingerprint, Token, TokenId};

/// Longest record of a token, in bytes.
const RECORD_LENGTH_MAX: u64 = 64 << 10;

/// What a token's holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The agent of one server: adds images of that server, and reads none.
    Agent,
    /// Reads every image and writes side files.
    Operator,
    /// May do everything.
    Administrator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Agent, Self::Operator, Self::Administrator]
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| "expected agent, operator or administrator".to_owned())
    }
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Grant {
    /// As [`Role::Agent`].
    Agent {
        /// Its one server.
        server: ServerName,
    },
    /// As [`Role::Operator`].
    Operator,
    /// As [`Role::Administrator`].
    Administrator,
}

impl Grant {
    /// Without the server.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Agent { .. } => Role::Agent,
            Self::Operator => Role::Operator,
            Self::Administrator => Role::Administrator,
        }
    }

    /// The one server of an agent.
    #[must_use]
    pub const fn server(&self) -> Option<&ServerName> {
        match self {
            Self::Agent { server } => Some(server),
            Self::Operator | Self::Administrator => None,
        }
    }
}

/// What a library keeps of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public name.
    pub id: TokenId,
    /// What it allows.
    #[serde(flatten)]
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
    /// 64 hexadecimal digits: a hash of its secret.
    secret_hash: String,
}

impl TokenRecord {
    /// Whether it is the record of this token, compared in constant time.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn is_of(&self, token: &Token) -> bool {
        blake3::Hash::from_hex(&self.secret_hash).is_ok_and(|known| known == token.secret_hash())
    }

    /// Whether it lets its holder in at a time.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl LocalLibrary {
    /// Makes a token. Its string is nowhere but in the answer: [`Token::reveal`] it once.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the store cannot be written.
    pub fn add_token(
        &self,
        grant: Grant,
        expires_at: Option<Timestamp>,
        authority: Option<Fingerprint>,
    ) -> Result<Token> {
        let core = self.core();
        let token = Token::random(authority)?;
        let record = TokenRecord {
            id: token.id(),
            grant,
            created_at: (core.clock)(),
            expires_at,
            revoked_at: None,
            secret_hash: token.secret_hash().to_hex().to_string(),
        };
        let name = names::token(&record.id);
        if core.create_record(&name, &to_json(&record)?)? {
            Ok(token)
        } else {
            // 80 random bits twice: the random source is broken.
            Err(Error::Refused {
                what: "the token",
                problem: format!("there is a token {} already", record.id),
            })
        }
    }

    /// Every token, revoked and expired ones included, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the store cannot be read, [`Error::Corrupt`] when a record is damaged.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>> {
        let core = self.core();
        let mut records = Vec::new();
        for stored in core.store.list(names::TOKENS)? {
            if let Some(id) = names::parse_token(&stored.name) {
                records.extend(core.token(&id)?);
            }
        }
        records.sort_by_key(|record| (record.created_at, record.id));
        Ok(records)
    }

    /// The record of a token; `None` when there is none.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>> {
        self.core().token(id)
    }

    /// The time of this library's clock.
    pub(crate) fn now(&self) -> Timestamp {
        (self.core().clock)()
    }

    /// Refuses a token from now on. One that is revoked already stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] when there is no such token.
    pub fn revoke_token(&self, id: TokenId) -> Result<TokenRecord> {
        let core = self.core();
        let mut record = core.token(&id)?.ok_or_else(|| Error::Token {
            problem: format!("this library has no token {id}"),
        })?;
        if record.revoked_at.is_none() {
            record.revoked_at = Some((core.clock)());
            core.replace_record(&names::token(&id), &to_json(&record)?)?;
        }
        Ok(record)
    }
}

impl Core {
    fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>> {
        let name = names::token(id);
        let Some(json) = self.record(&name, RECORD_LENGTH_MAX)? else {
            return Ok(None);
        };
        let corrupt = |problem| Error::corrupt("token", &*name, 64, problem);
        let record: TokenRecord =
            serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
        if record.id != *id {
            return Err(corrupt(format!("expected token {id}, found {}", record.id)));
        }
        Ok(Some(record))
    }
}

fn to_json(record: &TokenRecord) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Encode {
        what: "token",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InitOptions;

    #[test]
    fn a_token_lives_until_it_is_revoked_and_the_store_never_has_its_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let server: ServerName = "web01".parse().unwrap();
        let grant = Grant::Agent { server };
        let end = "2100-01-01T00:00:00Z".parse().unwrap();
        let token = library.add_token(grant.clone(), Some(end), None).unwrap();
        let other = library.add_token(Grant::Operator, None, None).unwrap();

        let record = library.token(&token.id()).unwrap().unwrap();
        assert!(record.is_of(&token) && !record.is_of(&other));
        assert_eq!(record.grant, grant);
        assert!(record.is_valid_at(library.now()) && !record.is_valid_at(end));
        assert_eq!(library.tokens().unwrap().len(), 2);

        library.revoke_token(token.id()).unwrap();
        let revoked = library.token(&token.id()).unwrap().unwrap();
        assert!(!revoked.is_valid_at(library.now()));
        assert_eq!(library.revoke_token(token.id()).unwrap(), revoked);
        let json = serde_json::to_string(&revoked).unwrap();
        assert!(
            json.contains(r#""role":"agent","server":"web01""#),
            "{json}"
        );
        assert!(
            library
                .revoke_token("aaaaaaaaaaaaaaaa".parse().unwrap())
                .is_err()
        );
    }
}
