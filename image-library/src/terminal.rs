// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the programs talk to a person: stages and progress on stderr, errors with their hint; and
//! data on stdout.
//!
//! On a terminal a stage has a clock, or a bar when it is known how much there is to do; elsewhere
//! (a log, a pipe) it is one line when it begins and one about every ten seconds while it lasts.
//! No colour is needed to read any of it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use disk::{Finding, Level, Monitor, Unit};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use zeroize::Zeroizing;

use crate::client::{ServerAccess, TokenSource};
use crate::error::Error;
pub use crate::error::chain_text;
use crate::file_error::FileError;
use crate::key_file::{KeyAccess, Passphrase, PassphraseSource};
use crate::location::LibraryAccess;
use crate::store::BucketAccess;

/// How long nothing is said about a stage in a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Stages, progress and findings.
    Normal,
    /// Findings that are warnings or errors only.
    Quiet,
}

/// Tells a person on stderr what goes on.
#[derive(Debug)]
pub struct Terminal {
    verbosity: Verbosity,
    is_terminal: bool,
    stage: Mutex<Stage>,
}

#[derive(Debug, Default)]
struct Stage {
    title: String,
    bar: Option<ProgressBar>,
    unit: Option<Unit>,
    total: u64,
    done: u64,
    last_line: Option<Instant>,
}

impl Terminal {
    /// Talks to stderr, whatever it is.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            is_terminal: io::stderr().is_terminal(),
            stage: Mutex::default(),
        }
    }

    /// Ends the bar of the last stage; also done when dropped.
    pub fn finish(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = stage.bar.take() {
            bar.finish_and_clear();
            if stage.unit.is_some() {
                say(&summary(&stage));
            }
        }
        *stage = Stage::default();
    }

    /// Until it is known how much there is to do: for how long it has been going on.
    fn show_clock(stage: &mut Stage) {
        let style = ProgressStyle::with_template("  {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let target = ProgressDrawTarget::stderr_with_hz(5);
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        bar.enable_steady_tick(Duration::from_secs(1));
        stage.bar = Some(bar);
    }

    fn show_bar(stage: &mut Stage) {
        let template = match stage.unit {
            Some(Unit::Bytes) => {
                "  [{bar:16}] {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left"
            }
            Some(Unit::Items) | None => "  [{bar:16}] {percent:>3} %  {pos} of {len}  {eta} left",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let target = ProgressDrawTarget::stderr_with_hz(5);
        stage.bar =
            Some(ProgressBar::with_draw_target(Some(stage.total), target).with_style(style));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Monitor for Terminal {
    fn stage(&self, title: &str) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        self.finish();
        say(title);
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        title.clone_into(&mut stage.title);
        stage.last_line = Some(Instant::now());
        if self.is_terminal {
            Self::show_clock(&mut stage);
        }
    }

    fn expect(&self, total: u64, unit: Unit) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.total = total;
        stage.unit = Some(unit);
        if let Some(clock) = stage.bar.take() {
            clock.finish_and_clear();
        }
        if self.is_terminal {
            Self::show_bar(&mut stage);
        }
    }

    fn advance(&self, amount: u64) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.done = stage.done.saturating_add(amount);
        if let Some(bar) = &stage.bar {
            bar.set_position(stage.done);
        } else if stage
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_INTERVAL)
        {
            stage.last_line = Some(Instant::now());
            say(&summary(&stage));
        }
    }

    fn finding(&self, finding: &Finding) {
        if self.verbosity == Verbosity::Quiet && finding.level == Level::Note {
            return;
        }
        let text = finding_text(finding);
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match &stage.bar {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }
}

/// One finding as lines: level, place, problem, code; the remedy below.
#[must_use]
pub fn finding_text(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let Finding {
        code,
        place,
        problem,
        remedy,
        ..
    } = finding;
    let mut text = format!("{level}: {place}: {problem} [{code}]");
    if let Some(remedy) = remedy {
        let _ = write!(text, "\n  remedy: {remedy}");
    }
    text
}

/// Bytes for people: `1.5 GiB`.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 5] = [
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => {
            let tenths = (u128::from(bytes) * 10 + u128::from(size / 2)) / u128::from(*size);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// An error with its sources in one line, then its hint: what every program prints before it
/// ends with exit code 2.
#[must_use]
pub fn error_text(error: &(dyn std::error::Error + 'static), hint: Option<&str>) -> String {
    let mut text = format!("error: {}", chain_text(error));
    if let Some(hint) = hint {
        let _ = write!(text, "\n\nhint: {hint}");
    }
    text
}

/// Prints [`error_text`] to stderr.
pub(crate) fn report_error(error: &(dyn std::error::Error + 'static), hint: Option<&str>) {
    say(&error_text(error, hint));
}

fn summary(stage: &Stage) -> String {
    let amount = |count: u64| match stage.unit {
        Some(Unit::Bytes) => bytes_text(count),
        Some(Unit::Items) | None => count.to_string(),
    };
    if stage.total == 0 {
        format!("  {}", amount(stage.done))
    } else {
        format!("  {} of {}", amount(stage.done), amount(stage.total))
    }
}

/// The first error of stdout, so that whoever prints need not hand it on.
static PRINT_ERROR: Mutex<Option<FileError>> = Mutex::new(None);

/// Writes data to stdout. A reader that went away (`| head`) is not an error.
pub(crate) fn write_data(data: &[u8]) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let mut first = PRINT_ERROR.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| FileError::on("write to", "standard output")(error));
        }
        _ => {}
    }
}

/// What became of [`write_data`], once.
pub(crate) fn take_print_error() -> Option<FileError> {
    let mut first = PRINT_ERROR.lock().unwrap_or_else(PoisonError::into_inner);
    first.take()
}

/// A line for a person, on stderr.
pub fn say(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// How this process opens keys: `RELEVO_KEY_FILE` names the key file, `RELEVO_PASSPHRASE_FILE` a
/// file whose first line is the passphrase, `RELEVO_PASSPHRASE` is the passphrase. What the
/// environment does not give is asked for on the terminal when it is needed.
///
/// # Errors
///
/// Those of [`Passphrase::read`].
pub fn key_access() -> crate::Result<KeyAccess> {
    key_access_by("RELEVO_")
}

fn key_access_by(prefix: &str) -> crate::Result<KeyAccess> {
    let passphrase = match given_passphrase(prefix)? {
        Some(passphrase) => PassphraseSource::Given(passphrase),
        None => PassphraseSource::Ask(ask_passphrase),
    };
    Ok(KeyAccess {
        file: variable(&format!("{prefix}KEY_FILE")).map(PathBuf::from),
        passphrase,
    })
}

/// The paths that a program's arguments give; each comes before the variable of the environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessPaths<'a> {
    /// A file with a server's token; else `RELEVO_TOKEN_FILE`.
    pub token_file: Option<&'a Path>,
    /// The authorities that are trusted; else `RELEVO_CA_FILE`.
    pub ca_file: Option<&'a Path>,
    /// Below which directory a library in a bucket has what this machine needs; else
    /// `RELEVO_WORKSPACE`, else the user's cache.
    pub workspace: Option<&'a Path>,
}

/// How this process opens libraries, wherever they are: keys as [`key_access`] says; a server's
/// token from a file or from `RELEVO_TOKEN`; buckets by the usual variables (`AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
/// `AWS_CA_BUNDLE`, ...).
///
/// # Errors
///
/// Those of [`key_access`]; [`Error::Token`] when `RELEVO_TOKEN` holds none.
pub fn library_access(given: AccessPaths<'_>) -> crate::Result<LibraryAccess> {
    access_by("RELEVO_", given)
}

/// The library at the other end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherLibrary {
    /// The one that is copied to: its variables begin with `RELEVO_TO_`.
    To,
    /// The one that is copied from: with `RELEVO_FROM_`.
    From,
}

/// The same for another library, which has variables of its own. The workspace and the variables of
/// buckets are the same.
///
/// # Errors
///
/// As [`library_access`].
pub fn other_library_access(
    other: OtherLibrary,
    given: AccessPaths<'_>,
) -> crate::Result<LibraryAccess> {
    let prefix = match other {
        OtherLibrary::To => "RELEVO_TO_",
        OtherLibrary::From => "RELEVO_FROM_",
    };
    access_by(prefix, given)
}

fn access_by(prefix: &str, given: AccessPaths<'_>) -> crate::Result<LibraryAccess> {
    let path = |given: Option<&Path>, name: &str| {
        let given = given.map(Path::to_owned);
        given.or_else(|| variable(name).map(PathBuf::from))
    };
    let token = match path(given.token_file, &format!("{prefix}TOKEN_FILE")) {
        Some(path) => TokenSource::File(path),
        None => given_token(prefix)?,
    };
    Ok(LibraryAccess {
        key: key_access_by(prefix)?,
        server: ServerAccess {
            token,
            ca_file: path(given.ca_file, &format!("{prefix}CA_FILE")),
        },
        bucket: bucket_access(),
        workspaces: path(given.workspace, "RELEVO_WORKSPACE").or_else(cache_directory),
    })
}

fn given_token(prefix: &str) -> crate::Result<TokenSource> {
    let Some(text) = variable(&format!("{prefix}TOKEN")) else {
        return Ok(TokenSource::None);
    };
    let token = text.to_str().unwrap_or_default().parse()?;
    Ok(TokenSource::Given(token))
}

fn bucket_access() -> BucketAccess {
    let settings = std::env::vars_os().filter_map(|(name, value)| {
        // What is not text cannot be one of them.
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        (name.starts_with("AWS_") && !value.is_empty()).then_some((name, value))
    });
    BucketAccess {
        settings: settings.collect(),
        certificates: variable("AWS_CA_BUNDLE").map(PathBuf::from),
        ..BucketAccess::default()
    }
}

/// Where this user's programs keep what can be made again.
fn cache_directory() -> Option<PathBuf> {
    let directory = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = directory("XDG_CACHE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".cache")))
        .or_else(|| {
            rustix::process::geteuid()
                .is_root()
                .then(|| "/var/cache".into())
        });
    cache.map(|cache| cache.join("relevo/libraries"))
}

/// The passphrase that the environment gives, else one that is asked for twice.
///
/// # Errors
///
/// Those of [`Passphrase::read`] and [`ask_new_passphrase`].
pub fn new_passphrase() -> crate::Result<Passphrase> {
    given_passphrase("RELEVO_")?.map_or_else(ask_new_passphrase, Ok)
}

fn given_passphrase(prefix: &str) -> crate::Result<Option<Passphrase>> {
    if let Some(path) = variable(&format!("{prefix}PASSPHRASE_FILE")) {
        return Passphrase::read(Path::new(&path)).map(Some);
    }
    let Some(text) = variable(&format!("{prefix}PASSPHRASE")) else {
        return Ok(None);
    };
    let text = text.into_string().map_err(|_| Error::InvalidName {
        kind: "passphrase in RELEVO_PASSPHRASE (text in UTF-8)",
        name: String::new(),
    })?;
    Passphrase::new(text).map(Some)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The passphrase that was typed, for programs that this one starts.
static TYPED: Mutex<Option<Passphrase>> = Mutex::new(None);

/// Asks the person at the terminal; nothing shows what is typed.
fn ask_passphrase(key_file: &str) -> crate::Result<Passphrase> {
    let typed = ask_hidden(&format!("Passphrase of {key_file}: "), key_file)?;
    *TYPED.lock().unwrap_or_else(PoisonError::into_inner) = Some(typed.clone());
    Ok(typed)
}

/// The environment that a program needs which is to open the same library as this one did, where
/// this one asked a person for the passphrase.
#[must_use]
pub fn typed_environment() -> Option<(&'static str, Zeroizing<String>)> {
    let typed = TYPED.lock().unwrap_or_else(PoisonError::into_inner);
    Some(("RELEVO_PASSPHRASE", typed.as_ref()?.reveal()))
}

/// Asks twice for a passphrase to be.
///
/// # Errors
///
/// [`Error::PassphraseNeeded`] when there is no terminal, [`Error::InvalidName`] when the two are
/// not the same.
pub fn ask_new_passphrase() -> crate::Result<Passphrase> {
    let first = ask_hidden("New passphrase: ", "to be")?;
    if ask_hidden("The same again: ", "to be")? == first {
        return Ok(first);
    }
    Err(Error::InvalidName {
        kind: "passphrase that was typed twice the same",
        name: "two different ones".to_owned(),
    })
}

/// Asks for something that nobody else is to see; `None` where there is no terminal.
#[must_use]
pub fn ask_secret(prompt: &str) -> Option<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return None;
    }
    rpassword::prompt_password(prompt).ok().map(Zeroizing::new)
}

fn ask_hidden(prompt: &str, key_file: &str) -> crate::Result<Passphrase> {
    let needed = || Error::PassphraseNeeded {
        path: key_file.into(),
    };
    if !io::stdin().is_terminal() {
        return Err(needed());
    }
    Passphrase::new(rpassword::prompt_password(prompt).map_err(|_| needed())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn bytes_are_rounded_to_a_tenth() {
        let texts = [0, 1023, 1024, 1536, 10_747_904, 1 << 40, u64::MAX].map(bytes_text);
        assert_eq!(
            texts,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "10.3 MiB",
                "1.0 TiB",
                "16384.0 PiB"
            ]
        );
    }

    #[test]
    fn an_error_is_one_line_and_its_hint_another() {
        let error = Error::Unreachable {
            location: "http://library:8080".to_owned(),
            source: "connection refused".into(),
        };
        assert_eq!(
            error_text(&error, Some("start it")),
            "error: the library at http://library:8080 is unreachable: connection refused\n\n\
             hint: start it"
        );
    }

    #[test]
    fn a_finding_names_place_code_and_remedy() {
        let finding = Finding {
            level: Level::Warning,
            code: "disk.gpt.backup-used".to_owned(),
            place: "sda".to_owned(),
            problem: "the primary partition table is damaged".to_owned(),
            remedy: Some("write it again".to_owned()),
        };
        assert_eq!(
            finding_text(&finding),
            "warning: sda: the primary partition table is damaged [disk.gpt.backup-used]\n  \
             remedy: write it again"
        );
    }
}
