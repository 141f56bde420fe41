// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a secret to a key. What a header asks for is bounded: it may come from anybody.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

use super::hash::Hash;

/// `cryptsetup` measures how many take two seconds: some millions.
const ITERATIONS_MAX: u32 = 100_000_000;
/// `cryptsetup` never asks for more than 4 GiB.
const MEMORY_KIB_MAX: u32 = 4 << 20;
/// Passes over memory, in KiB: 1 GiB is passed over about four times.
const MEMORY_PASSES_KIB_MAX: u64 = 64 << 20;
const LANES_MAX: u32 = 16;
const KEY_BYTES_MAX: usize = 512;

/// How a slot makes a key of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Derivation {
    Pbkdf2 {
        hash: Hash,
        iterations: u32,
        salt: Vec<u8>,
    },
    Argon2 {
        /// Argon2id, otherwise Argon2i.
        is_id: bool,
        passes: u32,
        memory_kib: u32,
        lanes: u32,
        salt: Vec<u8>,
    },
}

impl Derivation {
    /// The key, or an error where that would cost more than it ever should.
    pub(super) fn derive(&self, secret: &[u8], length: usize) -> Result<Zeroizing<Vec<u8>>> {
        if length > KEY_BYTES_MAX {
            return Err(limit("bytes of a LUKS key", KEY_BYTES_MAX as u64));
        }
        let mut key = Zeroizing::new(vec![0; length]);
        match self {
            Self::Pbkdf2 {
                hash,
                iterations,
                salt,
            } => {
                if *iterations > ITERATIONS_MAX {
                    let limit_iterations = u64::from(ITERATIONS_MAX);
                    return Err(limit("iterations of a LUKS key slot", limit_iterations));
                }
                hash.pbkdf2(secret, salt, (*iterations).max(1), &mut key);
            }
            Self::Argon2 {
                is_id,
                passes,
                memory_kib,
                lanes,
                salt,
            } => {
                let argon2 = argon2(*is_id, *passes, *memory_kib, *lanes, length)?;
                argon2
                    .hash_password_into(secret, salt, &mut key)
                    .map_err(impossible)?;
            }
        }
        Ok(key)
    }
}

fn argon2(
    is_id: bool,
    passes: u32,
    memory_kib: u32,
    lanes: u32,
    length: usize,
) -> Result<Argon2<'static>> {
    if memory_kib > MEMORY_KIB_MAX {
        let most = u64::from(MEMORY_KIB_MAX);
        return Err(limit("KiB of memory of a LUKS key slot", most));
    }
    if lanes > LANES_MAX {
        return Err(limit("threads of a LUKS key slot", u64::from(LANES_MAX)));
    }
    if u64::from(memory_kib).saturating_mul(u64::from(passes)) > MEMORY_PASSES_KIB_MAX {
        return Err(limit(
            "KiB times passes of a LUKS key slot",
            MEMORY_PASSES_KIB_MAX,
        ));
    }
    let params = Params::new(memory_kib, passes, lanes, Some(length)).map_err(impossible)?;
    let algorithm = match is_id {
        true => Algorithm::Argon2id,
        false => Algorithm::Argon2i,
    };
    Ok(Argon2::new(algorithm, Version::V0x13, params))
}

fn limit(what: &'static str, limit: u64) -> Error {
    Error::Limit { what, limit }
}

fn impossible(problem: argon2::Error) -> Error {
    Error::unsupported("LUKS", format!("a key slot of Argon2 ({problem})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argon2_of(passes: u32, memory_kib: u32, lanes: u32) -> Result<Zeroizing<Vec<u8>>> {
        let salt = vec![7; 32];
        let derivation = Derivation::Argon2 {
            is_id: true,
            passes,
            memory_kib,
            lanes,
            salt,
        };
        derivation.derive(b"secret", 32)
    }

    #[test]
    fn silly_costs_are_refused_at_once() {
        for (passes, memory_kib, lanes) in [
            (1, u32::MAX, 1),
            (u32::MAX, 1 << 20, 1),
            (u32::MAX, 64, 1),
            (1, 64, 1000),
        ] {
            let error = argon2_of(passes, memory_kib, lanes).expect_err("silly");
            assert!(matches!(error, Error::Limit { .. }), "{error}");
        }
        assert!(argon2_of(1, 32, 4).is_ok());
        assert!(argon2_of(0, 32, 4).is_err());
        let pbkdf2 = Derivation::Pbkdf2 {
            hash: Hash::Sha256,
            iterations: u32::MAX,
            salt: Vec::new(),
        };
        assert!(pbkdf2.derive(b"secret", 32).is_err());
        assert!(pbkdf2.derive(b"secret", 1 << 40).is_err());
    }
}
