// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo.toml`: where things are, when the command line does not say.
//!
//! ```toml
//! library = "/srv/library"          # directory or URL
//! replicas = ["https://second:8420"] # what is damaged in the library is read from there
//! state   = "/var/lib/relevo"       # journals, reports, runs
//! keys    = ["UUID=/etc/relevo/erp.key", "/etc/relevo/all.key"]  # of encrypted volumes, as --key
//! [cache]                           # chunks of images on the way from a library to a machine
//! directory = "/var/cache/relevo"   # left out: below the state, if the library is not a directory
//! disk      = "32GiB"
//! memory    = "192MiB"              # of each machine
//! [qemu]
//! binary        = "/usr/bin/qemu-system-x86_64"
//! accelerator   = "tcg"             # "kvm" or "tcg"; left out: what works is used
//! firmware_code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
//! firmware_vars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
//! ```
//!
//! Which directory is used: the command line, then the environment, then this file, then
//! `/var/lib/relevo` for root and the XDG directories for everybody else.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::file;
use crate::platform::qemu::Accelerator;

const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// What `relevo.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Directory, bucket or URL of the library.
    pub library: Option<String>,
    /// Other libraries that have copies of its images.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// Where a library in a bucket has what only this machine needs.
    pub workspace: Option<PathBuf>,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// Files with passphrases and keys of encrypted volumes, as [`crate::keys`] reads them.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The chunk cache.
    #[serde(default)]
    pub cache: CacheConfiguration,
    /// The QEMU platform.
    #[serde(default)]
    pub qemu: QemuConfiguration,
}

/// The table `[cache]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfiguration {
    /// Where chunks are kept; for a library in a directory nowhere, unless this says so.
    pub directory: Option<PathBuf>,
    /// What they may take on disk, as `32GiB`.
    pub disk: Option<String>,
    /// What each machine's keeper may hold in memory, as `192MiB`.
    pub memory: Option<String>,
}

/// The table `[qemu]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfiguration {
    /// The program.
    pub binary: Option<PathBuf>,
    /// What to run guests with, instead of trying.
    pub accelerator: Option<Accelerator>,
    /// UEFI firmware code.
    pub firmware_code: Option<PathBuf>,
    /// Its variables, copied for each machine.
    pub firmware_vars: Option<PathBuf>,
}

impl Configuration {
    /// Reads a configuration file.
    pub fn open(path: &Path) -> Result<Self> {
        let text = file::read_text(path, FILE_LIMIT_BYTES)?;
        toml::from_str(&text).map_err(|error| Error::Configuration {
            file: path.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })
    }

    /// The file that was named, or else the first of `candidates` that exists, or none at all.
    pub fn find(named: Option<&Path>, candidates: &[PathBuf]) -> Result<Self> {
        match named.or_else(|| {
            candidates
                .iter()
                .map(PathBuf::as_path)
                .find(|path| path.exists())
        }) {
            Some(path) => Self::open(path),
            None => Ok(Self::default()),
        }
    }
}

/// What the defaults depend on.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Whether the program runs as root.
    pub root: bool,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
}

impl Surroundings {
    /// The library when nothing names one.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        if self.root {
            return PathBuf::from("/var/lib/relevo/library");
        }
        self.under(self.data_home.as_deref(), ".local/share")
            .join("relevo/library")
    }

    /// The state directory when nothing names one.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        if self.root {
            return PathBuf::from("/var/lib/relevo");
        }
        self.under(self.state_home.as_deref(), ".local/state")
            .join("relevo")
    }

    /// The places where a configuration file is looked for.
    #[must_use]
    pub fn configurations(&self) -> Vec<PathBuf> {
        vec![
            PathBuf::from("relevo.toml"),
            PathBuf::from("/etc/relevo/relevo.toml"),
        ]
    }

    fn under(&self, named: Option<&Path>, below_home: &str) -> PathBuf {
        match (named, &self.home) {
            (Some(directory), _) => directory.to_owned(),
            (None, Some(home)) => home.join(below_home),
            (None, None) => PathBuf::from("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_others_have_their_own_places() {
        let root = Surroundings {
            root: true,
            home: Some("/root".into()),
            data_home: None,
            state_home: None,
        };
        assert_eq!(root.library(), Path::new("/var/lib/relevo/library"));
        assert_eq!(root.state(), Path::new("/var/lib/relevo"));
        let user = Surroundings {
            root: false,
            home: Some("/home/ana".into()),
            data_home: None,
            state_home: Some("/state".into()),
        };
        assert_eq!(
            user.library(),
            Path::new("/home/ana/.local/share/relevo/library")
        );
        assert_eq!(user.state(), Path::new("/state/relevo"));
    }

    #[test]
    fn an_unknown_key_of_the_configuration_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relevo.toml");
        std::fs::write(&path, "libary = \"/srv\"\n").unwrap();
        let error = Configuration::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("relevo.toml") && error.contains("libary"),
            "{error}"
        );
    }

    #[test]
    fn every_key_of_the_example_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relevo.toml");
        let text = "library = \"/srv/library\"\nstate = \"/s\"\n\
                    replicas = [\"/r\"]\nkeys = [\"/k\"]\n[cache]\ndirectory = \"/c\"\ndisk = \"1GiB\"\n\
                    memory = \"1MiB\"\n[qemu]\nbinary = \"/q\"\n\
                    accelerator = \"tcg\"\nfirmware_code = \"/c\"\nfirmware_vars = \"/v\"\n";
        std::fs::write(&path, text).unwrap();
        let configuration = Configuration::open(&path).unwrap();
        assert_eq!(configuration.qemu.accelerator, Some(Accelerator::Tcg));
    }
}
