// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ciphers that headers name, for whole sectors.
//!
//! | part of `aes-cbc-essiv:sha256` | known |
//! |---|---|
//! | cipher | aes, serpent, twofish: blocks of 128 bits |
//! | mode | xts (half of the key is for the tweak), cbc |
//! | initial vector | plain, plain64: the sector's number, little-endian, 32 or 64 bits |
//! | | plain64be: big-endian; essiv:sha256: plain64, encrypted with the key's hash |
//!
//! Source: Linux, `drivers/md/dm-crypt.c`. Sectors are counted in units of 512 bytes, whatever the
//! unit of encryption is.

use std::fmt;
use std::str::FromStr;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit,
};
use aes::{Aes128, Aes192, Aes256};
use serpent::Serpent;
use twofish::Twofish;
use xts_mode::Xts128;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

use super::hash::Hash;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Aes,
    Serpent,
    Twofish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Xts,
    Cbc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vector {
    Plain,
    Plain64,
    Plain64Be,
    Essiv,
}

/// A cipher by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CipherSpec {
    algorithm: Algorithm,
    mode: Mode,
    vector: Vector,
}

impl FromStr for CipherSpec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unsupported = || {
            let feature = format!("the cipher {}", name.escape_debug());
            Error::unsupported("LUKS", feature)
        };
        let mut parts = name.splitn(3, '-');
        let algorithm = match parts.next() {
            Some("aes") => Algorithm::Aes,
            Some("serpent") => Algorithm::Serpent,
            Some("twofish") => Algorithm::Twofish,
            _ => return Err(unsupported()),
        };
        let mode = match parts.next() {
            Some("xts") => Mode::Xts,
            Some("cbc") => Mode::Cbc,
            _ => return Err(unsupported()),
        };
        let vector = match parts.next() {
            Some("plain") => Vector::Plain,
            Some("plain64") => Vector::Plain64,
            Some("plain64be") => Vector::Plain64Be,
            Some("essiv:sha256") => Vector::Essiv,
            _ => return Err(unsupported()),
        };
        Ok(Self {
            algorithm,
            mode,
            vector,
        })
    }
}

impl CipherSpec {
    /// The cipher with its key.
    pub(super) fn open(self, key: &[u8]) -> Result<SectorCipher> {
        let blocks = self.blocks(key);
        let mut essiv = None;
        if self.vector == Vector::Essiv {
            let salt = Zeroizing::new(Hash::Sha256.digest(key));
            essiv = Some(self.single(&salt).ok_or_else(|| self.wrong_key(key))?);
        }
        Ok(SectorCipher {
            blocks: blocks.ok_or_else(|| self.wrong_key(key))?,
            vector: self.vector,
            essiv,
        })
    }

    fn wrong_key(self, key: &[u8]) -> Error {
        let bits = key.len() * 8;
        let feature = format!(
            "{:?} in {:?} mode with a key of {bits} bits",
            self.algorithm, self.mode
        );
        Error::unsupported("LUKS", feature)
    }

    fn blocks(self, key: &[u8]) -> Option<Box<dyn Blocks>> {
        let halves = match self.mode {
            Mode::Xts => 2,
            Mode::Cbc => 1,
        };
        match (self.algorithm, key.len() / halves) {
            (Algorithm::Aes, 16) => self.mode_of::<Aes128>(key),
            (Algorithm::Aes, 24) => self.mode_of::<Aes192>(key),
            (Algorithm::Aes, 32) => self.mode_of::<Aes256>(key),
            (Algorithm::Serpent, 16 | 24 | 32) => self.mode_of::<Serpent>(key),
            (Algorithm::Twofish, 16 | 24 | 32) => self.mode_of::<Twofish>(key),
            _ => None,
        }
    }

    fn mode_of<C: BlockCipher>(self, key: &[u8]) -> Option<Box<dyn Blocks>> {
        match self.mode {
            Mode::Cbc => Some(Box::new(Cbc(C::new_from_slice(key).ok()?))),
            Mode::Xts => {
                let (data, tweak) = key.split_at(key.len() / 2);
                let data = C::new_from_slice(data).ok()?;
                let tweak = C::new_from_slice(tweak).ok()?;
                Some(Box::new(Xts(Xts128::new(data, tweak))))
            }
        }
    }

    /// The cipher for one block with a key of 32 bytes.
    fn single(self, key: &[u8]) -> Option<Box<dyn Blocks>> {
        let cbc = Self {
            mode: Mode::Cbc,
            ..self
        };
        cbc.blocks(key)
    }
}

/// Whole sectors of one key.
pub(super) struct SectorCipher {
    blocks: Box<dyn Blocks>,
    vector: Vector,
    essiv: Option<Box<dyn Blocks>>,
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SectorCipher(..)")
    }
}

impl SectorCipher {
    /// Decrypts units of `unit_bytes`; the first one begins at `sector` (of 512 bytes).
    pub(super) fn decrypt(&self, sector: u64, unit_bytes: usize, bytes: &mut [u8]) {
        for (vector, unit) in self.units(sector, unit_bytes, bytes) {
            self.blocks.decrypt(vector, unit);
        }
    }

    /// Encrypts, likewise.
    pub(super) fn encrypt(&self, sector: u64, unit_bytes: usize, bytes: &mut [u8]) {
        for (vector, unit) in self.units(sector, unit_bytes, bytes) {
            self.blocks.encrypt(vector, unit);
        }
    }

    fn units<'a>(
        &'a self,
        sector: u64,
        unit_bytes: usize,
        bytes: &'a mut [u8],
    ) -> impl Iterator<Item = ([u8; 16], &'a mut [u8])> {
        let step = (unit_bytes / 512) as u64;
        let units = bytes.chunks_exact_mut(unit_bytes);
        (0_u64..).zip(units).map(move |(index, unit)| {
            let number = sector.wrapping_add(index.wrapping_mul(step));
            (self.vector(number), unit)
        })
    }

    fn vector(&self, sector: u64) -> [u8; 16] {
        let mut vector = [0; 16];
        match self.vector {
            Vector::Plain => vector[..4].copy_from_slice(&(sector as u32).to_le_bytes()),
            Vector::Plain64 | Vector::Essiv => vector[..8].copy_from_slice(&sector.to_le_bytes()),
            Vector::Plain64Be => vector[8..].copy_from_slice(&sector.to_be_bytes()),
        }
        if let Some(essiv) = &self.essiv {
            essiv.encrypt([0; 16], &mut vector);
        }
        vector
    }
}

trait BlockCipher:
    BlockCipherEncrypt
    + BlockCipherDecrypt
    + BlockSizeUser<BlockSize = U16>
    + KeyInit
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> BlockCipher for C where
    C: BlockCipherEncrypt
        + BlockCipherDecrypt
        + BlockSizeUser<BlockSize = U16>
        + KeyInit
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A cipher in a mode, for one unit with its initial vector.
trait Blocks: Send + Sync {
    fn encrypt(&self, vector: [u8; 16], unit: &mut [u8]);
    fn decrypt(&self, vector: [u8; 16], unit: &mut [u8]);
}

struct Xts<C: BlockCipher>(Xts128<C>);

impl<C: BlockCipher> Blocks for Xts<C> {
    fn encrypt(&self, vector: [u8; 16], unit: &mut [u8]) {
        self.0.encrypt_sector(unit, Array(vector));
    }

    fn decrypt(&self, vector: [u8; 16], unit: &mut [u8]) {
        self.0.decrypt_sector(unit, Array(vector));
    }
}

struct Cbc<C>(C);

impl<C: BlockCipher> Blocks for Cbc<C> {
    fn encrypt(&self, vector: [u8; 16], unit: &mut [u8]) {
        let mut mode = cbc::Encryptor::inner_iv_init(self.0.clone(), &Array(vector));
        mode.encrypt_blocks(Array::slice_as_chunks_mut(unit).0);
    }

    fn decrypt(&self, vector: [u8; 16], unit: &mut [u8]) {
        let mut mode = cbc::Decryptor::inner_iv_init(self.0.clone(), &Array(vector));
        mode.decrypt_blocks(Array::slice_as_chunks_mut(unit).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_that_are_not_known_are_named() {
        for name in [
            "aes-ecb",
            "aes-lrw-benbi",
            "camellia-xts-plain64",
            "aes-cbc-essiv:sha1",
            "",
        ] {
            let error = name.parse::<CipherSpec>().expect_err("not known");
            assert!(error.to_string().contains(name), "{error}");
        }
        let spec: CipherSpec = "aes-xts-plain64".parse().expect("known");
        for length in [0, 15, 16, 31, 33, 63, 65] {
            assert!(spec.open(&vec![1; length]).is_err(), "{length}");
        }
        let opened = spec.open(&[0x55; 64]).expect("512 bits");
        assert_eq!(format!("{opened:?}"), "SectorCipher(..)");
    }

    #[test]
    fn what_is_encrypted_is_decrypted_with_every_cipher() {
        for algorithm in ["aes", "serpent", "twofish"] {
            for mode in [
                "xts-plain",
                "xts-plain64",
                "xts-plain64be",
                "cbc-plain64",
                "cbc-essiv:sha256",
            ] {
                let name = format!("{algorithm}-{mode}");
                let spec: CipherSpec = name.parse().expect("known");
                let length = if mode.starts_with("xts") { 64 } else { 32 };
                let cipher = spec.open(&vec![3; length]).expect("a fitting key");
                let mut bytes = vec![9; 2048];
                cipher.encrypt(7, 512, &mut bytes);
                assert_ne!(bytes[..512], bytes[512..1024], "{name}");
                let mut second = bytes[512..1024].to_vec();
                cipher.decrypt(8, 512, &mut second);
                assert_eq!(second, [9; 512], "{name}");
            }
        }
    }

    /// IEEE 1619-2018, annex B, vector 4: AES-128, the sector 0.
    #[test]
    fn xts_is_the_one_of_its_standard() {
        let key: Vec<u8> = [
            "27182818284590452353602874713526",
            "31415926535897932384626433832795",
        ]
        .concat()
        .as_bytes()
        .chunks(2)
        .map(|digits| {
            u8::from_str_radix(std::str::from_utf8(digits).expect("text"), 16).expect("hex")
        })
        .collect();
        let spec: CipherSpec = "aes-xts-plain64".parse().expect("known");
        let cipher = spec.open(&key).expect("256 bits");
        let mut bytes: Vec<u8> = (0..512).map(|at| at as u8).collect();
        cipher.encrypt(0, 512, &mut bytes);
        assert_eq!(bytes[..8], [0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76]);
    }
}
