// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the keys of encrypted volumes are: `--key`, and `keys` of the configuration.
//!
//! ```text
//! FILE          the passphrase or the key, tried for every encrypted volume
//! UUID=FILE     for the volume with that UUID of LUKS alone
//! ask, UUID=ask the person at the terminal types it
//! ```
//! A file is taken as it is, as `cryptsetup --key-file` does it; where that opens nothing, without
//! the end of its last line. `./ask` is a file of that name. Programs that nobody watches have key files
//! in the configuration: a runbook, which is printed and handed around, names none.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use converter::{Secret, Secrets};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// As `cryptsetup` has it.
const KEY_BYTES_MAX: u64 = 8 << 20;

/// Asks a person for something that nobody else is to see; `None` where nobody is there.
pub type Ask = dyn Fn(&str) -> Option<Zeroizing<String>>;

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    /// The volume that it is for; `None`: any.
    volume: Option<Uuid>,
    /// `None`: somebody is asked.
    file: Option<PathBuf>,
}

impl KeySource {
    /// Reads `[UUID=]FILE|ask`.
    pub fn parse(text: &str) -> Result<Self> {
        let named = text
            .split_once('=')
            .and_then(|(uuid, file)| Some((Uuid::try_parse(uuid).ok()?, file)));
        let (volume, file) = match named {
            Some((uuid, file)) => (Some(uuid), file),
            None => (None, text),
        };
        if file.is_empty() {
            return Err(Error::Request {
                problem: format!("no file is named in the key `{text}`"),
                hint: Some("write FILE, UUID=FILE, ask or UUID=ask".to_owned()),
            });
        }
        Ok(Self {
            volume,
            file: (file != "ask").then(|| PathBuf::from(file)),
        })
    }

    /// The key.
    pub fn read(&self, ask: &Ask) -> Result<Secret> {
        let bytes = match &self.file {
            Some(file) => read(file)?,
            None => self.typed(ask)?,
        };
        Ok(match self.volume {
            Some(volume) => Secret::for_volume(volume.to_string(), bytes),
            None => Secret::for_all(bytes),
        })
    }

    fn typed(&self, ask: &Ask) -> Result<Zeroizing<Vec<u8>>> {
        let prompt = match self.volume {
            Some(volume) => format!("Passphrase of the encrypted volume {volume}: "),
            None => "Passphrase of the encrypted volumes: ".to_owned(),
        };
        let typed = ask(&prompt).ok_or_else(|| Error::Request {
            problem: "there is no terminal to ask for the passphrase of an encrypted volume"
                .to_owned(),
            hint: Some("name a file that has it: --key FILE".to_owned()),
        })?;
        Ok(Zeroizing::new(typed.as_bytes().to_vec()))
    }
}

/// All keys.
pub fn read_all<'a>(texts: impl Iterator<Item = &'a String>, ask: &Ask) -> Result<Secrets> {
    // What is written wrong is told before somebody is asked.
    let sources: Vec<KeySource> = texts
        .map(|text| KeySource::parse(text))
        .collect::<Result<_>>()?;
    sources.iter().map(|source| source.read(ask)).collect()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let length = file.metadata().map_err(Error::file("read", path))?.len();
    let too_large = || Error::Request {
        problem: format!("{} is too large for a key", path.display()),
        hint: None,
    };
    if length > KEY_BYTES_MAX {
        return Err(too_large());
    }
    // A buffer that grows leaves copies of what it had behind.
    let room = usize::try_from(length).unwrap_or(0).max(64 << 10);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(room as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", path))?;
    if bytes.len() > room {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b11";

    fn nobody(_: &str) -> Option<Zeroizing<String>> {
        None
    }

    #[test]
    fn a_key_is_for_a_volume_or_for_all_and_in_a_file_or_asked_for() {
        let parse = |text: &str| {
            let source = KeySource::parse(text).unwrap();
            let file = source.file.map(|file| file.display().to_string());
            (source.volume.map(|uuid| uuid.to_string()), file)
        };
        let uuid = Some(UUID.to_owned());
        assert_eq!(parse("/k"), (None, Some("/k".to_owned())));
        assert_eq!(parse("a=b"), (None, Some("a=b".to_owned())));
        assert_eq!(parse("ask"), (None, None));
        assert_eq!(parse("./ask"), (None, Some("./ask".to_owned())));
        let named = |file: &str| parse(&format!("{UUID}={file}"));
        assert_eq!(named("/k=1"), (uuid.clone(), Some("/k=1".to_owned())));
        assert_eq!(named("ask"), (uuid, None));
        for wrong in ["", &format!("{UUID}=")] {
            let error = KeySource::parse(wrong).unwrap_err();
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn keys_are_read_from_files_and_from_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, [0, 1, 2, b'\n']).unwrap();
        assert_eq!(**read(&path).unwrap(), [0, 1, 2, b'\n']);
        let texts = [path.display().to_string(), format!("{UUID}=ask")];
        let asked = |prompt: &str| {
            assert!(prompt.contains(UUID), "{prompt}");
            Some(Zeroizing::new("word".to_owned()))
        };
        let secrets = read_all(texts.iter(), &asked).unwrap();
        assert_eq!(secrets.count_for(Some(UUID)), 2);
        assert_eq!(secrets.count_for(Some("another")), 1);
        let error = read_all(texts.iter(), &nobody).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("--key FILE")));
    }

    #[test]
    fn a_file_that_is_missing_or_too_large_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(read(&path).is_err());
        let file = File::create(&path).unwrap();
        file.set_len(KEY_BYTES_MAX + 1).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("key is too large"), "{error}");
    }
}
