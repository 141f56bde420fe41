// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the command line, the environment and the configuration file say together.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use converter::Secrets;
use image_library::client::Patience;
use image_library::terminal::{
    AccessPaths, Terminal, Verbosity, ask_secret, library_access, say, typed_environment,
};
use image_library::{
    FileError, Image, ImageReader, ImageRef, InitOptions, Library, LibraryAccess, LocalLibrary,
    open_library, open_library_with,
};
use recovery_orchestrator::config::{Configuration, Surroundings};
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::keeper::{CacheOrder, KeeperProgram, Open, Source};
use recovery_orchestrator::keys::read_all;
use recovery_orchestrator::platform::qemu::{Qemu, SmallVm};
use recovery_orchestrator::runbook::parse_bytes;
use recovery_orchestrator::state::StateDirectory;
use recovery_orchestrator::{Error, Result};

use super::Global;

/// The program that writes in a guest.
const GUEST_WRITER: &str = "relevo-guest-writer";

/// How long a keeper waits for an answer before it asks again.
const KEEPER_PATIENCE: Patience = Patience {
    connect_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(30),
    give_up_after: Duration::ZERO,
};

/// What every command works with.
#[derive(Debug)]
pub(super) struct Context {
    /// Directory, bucket or URL of the library.
    pub(super) library: String,
    /// Whether somebody named it.
    pub(super) library_is_named: bool,
    /// When the command began.
    pub(super) started: Instant,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    configuration: Configuration,
    state: PathBuf,
    workspace: Option<PathBuf>,
    /// Other libraries with the same images.
    replicas: Vec<String>,
    quiet: bool,
    /// What the command line says of keys.
    keys: Vec<String>,
}

impl Context {
    pub(super) fn new(global: &Global) -> Result<Self> {
        let surroundings = surroundings();
        let configuration =
            Configuration::find(global.config.as_deref(), &surroundings.configurations())?;
        let named = global
            .library
            .clone()
            .or_else(|| configuration.library.clone());
        let state = global.state.clone().or_else(|| configuration.state.clone());
        Ok(Self {
            library_is_named: named.is_some(),
            library: named.unwrap_or_else(|| surroundings.library().display().to_string()),
            started: Instant::now(),
            state: state.unwrap_or_else(|| surroundings.state()),
            token_file: global.token_file.clone(),
            ca_file: global.ca_file.clone(),
            workspace: global
                .workspace
                .clone()
                .or_else(|| configuration.workspace.clone()),
            replicas: match &*global.replica {
                [] => configuration.replicas.clone(),
                named => named.to_vec(),
            },
            configuration,
            keys: global.key.clone(),
            quiet: global.quiet,
        })
    }

    /// Tells a person what goes on.
    pub(super) fn monitor(&self) -> Terminal {
        Terminal::new(if self.quiet {
            Verbosity::Quiet
        } else {
            Verbosity::Normal
        })
    }

    /// A message for a person who wants them.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    pub(super) fn open_library(&self) -> Result<Box<dyn Library>> {
        Ok(open_library(&self.library, self.library_access()?)?)
    }

    /// How libraries are opened.
    pub(super) fn library_access(&self) -> Result<LibraryAccess> {
        Ok(library_access(AccessPaths {
            token_file: self.token_file.as_deref(),
            ca_file: self.ca_file.as_deref(),
            workspace: self.workspace.as_deref(),
        })?)
    }

    /// The library; a directory that is missing or empty becomes one.
    pub(super) fn open_or_create_library(&self) -> Result<Box<dyn Library>> {
        if self.library_is_new() {
            LocalLibrary::init(Path::new(&self.library), &InitOptions::default())?;
            self.say(&format!("Created a new library in {}", self.library));
        }
        self.open_library()
    }

    /// Whether the library is a directory that does not hold one yet, and could.
    pub(super) fn library_is_new(&self) -> bool {
        let path = Path::new(&self.library);
        let is_empty = |path: &Path| {
            path.read_dir()
                .is_ok_and(|mut entries| entries.next().is_none())
        };
        !self.library.contains("://") && (!path.exists() || is_empty(path))
    }

    /// What opens encrypted volumes: the command line's keys, then those of the configuration.
    pub(super) fn secrets(&self) -> Result<Secrets> {
        let texts = self.keys.iter().chain(&self.configuration.keys);
        read_all(texts, &ask_secret)
    }

    /// The library and the image in it that a command line names.
    pub(super) fn open_image(&self, wanted: &ImageRef) -> Result<(Box<dyn Library>, Image)> {
        let library = self.open_library()?;
        let image = wanted.choose(library.images()?)?;
        Ok((library, image))
    }

    pub(super) fn state(&self) -> Result<StateDirectory> {
        StateDirectory::open(&self.state, &env::temp_dir())
    }

    /// How keepers are started: this program again, with the same library.
    pub(super) fn keepers(&self) -> Result<KeeperProgram> {
        let program = env::current_exe().map_err(FileError::on("find", Path::new("relevo")))?;
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: Option<&Path>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value.into()]);
            }
        };
        let is_directory = !self.library.contains("://");
        let library = PathBuf::from(&self.library);
        let library = match is_directory {
            true => std::path::absolute(&library).unwrap_or(library),
            false => library,
        };
        add("--library", Some(&library));
        add("--token-file", self.token_file.as_deref());
        add("--ca-file", self.ca_file.as_deref());
        add("--workspace", self.workspace.as_deref());
        add("--state", Some(&self.state));
        for replica in &self.replicas {
            add("--replica", Some(Path::new(replica)));
        }
        arguments.push("keep".into());
        let cache = self.cache(is_directory)?;
        Ok(KeeperProgram {
            program,
            arguments,
            cache,
            environment: typed_environment().map(|(name, text)| (name, text.to_string())),
        })
    }

    /// The chunk cache that the configuration asks for.
    fn cache(&self, is_directory: bool) -> Result<CacheOrder> {
        let given = &self.configuration.cache;
        let bytes = |given: &Option<String>, or: u64| match given {
            Some(text) => parse_bytes(text).map_err(|problem| Error::Request {
                problem: format!("[cache] in the configuration: {problem}"),
                hint: None,
            }),
            None => Ok(or),
        };
        let usual = CacheOrder::default();
        // What is in a directory of this computer is here already.
        let below_state = (!is_directory).then(|| self.state.join("cache"));
        Ok(CacheOrder {
            directory: given.directory.clone().or(below_state),
            disk_bytes_max: bytes(&given.disk, usual.disk_bytes_max)?,
            memory_bytes_max: bytes(&given.memory, usual.memory_bytes_max)?,
            is_served: self.library.starts_with("http"),
        })
    }

    /// The library and its replicas, as a keeper reads them: it waits itself for one that is away.
    pub(super) fn sources(&self) -> Vec<Source> {
        let all = std::iter::once(&self.library).chain(&self.replicas);
        all.map(|location| {
            Source::new(location.clone(), self.open_later(location, KEEPER_PATIENCE))
        })
        .collect()
    }

    /// Opens a library when it is wanted, as often as it is wanted.
    pub(super) fn open_later(&self, location: &str, patience: Patience) -> Box<Open> {
        let (token, ca) = (self.token_file.clone(), self.ca_file.clone());
        let (workspace, place) = (self.workspace.clone(), location.to_owned());
        Box::new(move || {
            let access = library_access(AccessPaths {
                token_file: token.as_deref(),
                ca_file: ca.as_deref(),
                workspace: workspace.as_deref(),
            })?;
            let library = open_library_with(&place, access, patience)?;
            Ok(library as Box<dyn ImageReader>)
        })
    }

    /// The machine in which guests' own kernels write.
    pub(super) fn small_vm(&self, interrupt: &Interrupt) -> SmallVm {
        let (configuration, root) = (self.configuration.qemu.clone(), self.state.clone());
        let open = move || {
            let state = StateDirectory::open(&root, &env::temp_dir())?;
            Qemu::open(&configuration, &state.host())
        };
        SmallVm {
            open: Box::new(open),
            programs: guest_writers(),
            temporary: env::temp_dir(),
            interrupt: interrupt.clone(),
        }
    }

    pub(super) fn qemu(&self, state: &StateDirectory) -> Result<Qemu> {
        Qemu::open(&self.configuration.qemu, &state.host())
    }
}

/// Where the program that writes in a guest may be.
fn guest_writers() -> Vec<PathBuf> {
    if let Some(named) = env::var_os("RELEVO_GUEST_WRITER") {
        return vec![named.into()];
    }
    let program = env::current_exe().unwrap_or_default();
    let directory = program.parent().unwrap_or_else(|| Path::new("."));
    vec![
        directory.join(GUEST_WRITER),
        directory.join("../libexec/relevo").join(GUEST_WRITER),
    ]
}

fn surroundings() -> Surroundings {
    let directory = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    Surroundings {
        root: rustix::process::geteuid().is_root(),
        home: directory("HOME"),
        data_home: directory("XDG_DATA_HOME"),
        state_home: directory("XDG_STATE_HOME"),
    }
}

/// Creates a directory for results.
pub(super) fn create_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(FileError::on("create directory", path))?;
    Ok(())
}
