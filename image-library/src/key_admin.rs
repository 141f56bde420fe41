// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done with a library's key itself: its passphrase, its recovery sheet.

use std::path::Path;

use crate::config::Config;
use crate::crypto::LibraryKey;
use crate::error::{Error, Result};
use crate::key_file::{self, Passphrase};
use crate::local::LocalLibrary;
use crate::location::{self, LibraryAccess, Location};
use crate::sheet;
use crate::store::{Store, file, names};

impl LocalLibrary {
    /// Seals the key of the library at `location` under another passphrase, or under none. Only
    /// the key file is written, as a whole: a crash leaves the old or the new one.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open_with_key`]; [`Error::File`] when the key file cannot be written.
    pub fn set_passphrase(
        location: impl Into<Location>,
        access: impl Into<LibraryAccess>,
        passphrase: Option<&Passphrase>,
    ) -> Result<()> {
        let access = access.into();
        let store = location::store(&location.into(), &access)?;
        let config = Config::read(&*store)?;
        let key = key_file::read(&config, &*store, &access.key)?;
        let path = access.key.file.as_deref();
        write_key(&*store, &config, &key, path, passphrase)
    }

    /// The recovery sheet of the library at `location`: its key, to be kept on paper.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open_with_key`].
    pub fn recovery_sheet(
        location: impl Into<Location>,
        access: impl Into<LibraryAccess>,
    ) -> Result<String> {
        let access = access.into();
        let store = location::store(&location.into(), &access)?;
        let config = Config::read(&*store)?;
        let key = key_file::read(&config, &*store, &access.key)?;
        let created = config.created_at.strftime("%Y-%m-%d").to_string();
        let place = store.place("");
        Ok(sheet::to_text(key.secret(), config.id, &place, &created))
    }

    /// Writes the key file of the library at `location` again from its recovery sheet, or from the
    /// four lines of key on it. It goes where `access` says that the key is kept.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] says in which line a mistake is; [`Error::WrongKey`] when it is the
    /// sheet of another library.
    pub fn restore_key(
        location: impl Into<Location>,
        access: impl Into<LibraryAccess>,
        sheet: &str,
        passphrase: Option<&Passphrase>,
    ) -> Result<()> {
        let access = access.into();
        let store = location::store(&location.into(), &access)?;
        let config = Config::read(&*store)?;
        let key = LibraryKey::from_secret(sheet::parse(sheet)?);
        if !config.is_key(&key) {
            return Err(Error::WrongKey {
                path: "on the recovery sheet".into(),
            });
        }
        let path = access.key.file.as_deref();
        write_key(&*store, &config, &key, path, passphrase)
    }
}

fn write_key(
    store: &dyn Store,
    config: &Config,
    key: &LibraryKey,
    key_file: Option<&Path>,
    passphrase: Option<&Passphrase>,
) -> Result<()> {
    let bytes = key_file::to_bytes(key.secret(), config.id, passphrase)?;
    let Some(path) = key_file else {
        return store.replace(names::KEY, &bytes);
    };
    let temporary = path.with_extension("new");
    file::remove(&temporary)?;
    file::write_durably(&temporary, &bytes)?;
    file::rename(&temporary, path)?;
    file::sync_directory(match file::parent(path) {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    })
}
