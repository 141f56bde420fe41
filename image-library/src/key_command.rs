// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library key`: the passphrase of a library's key, and its recovery sheet.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use image_library::program::{Verdict, print, print_line};
use image_library::terminal::{ask_new_passphrase, say};
use image_library::{Error, LibraryAccess, LocalLibrary, Location, Passphrase, Result};

/// A sheet is a page of text.
const SHEET_LENGTH_MAX: u64 = 64 << 10;

const ENVIRONMENT: &str = "RELEVO_KEY_FILE names a key file outside the library; \
    RELEVO_PASSPHRASE_FILE or RELEVO_PASSPHRASE gives the present passphrase, which is asked for \
    otherwise.";

#[derive(Debug, Subcommand)]
#[command(after_help = ENVIRONMENT)]
pub(crate) enum KeyCommand {
    /// Seal the key under a new passphrase, in place of the present one if there is one.
    ///
    /// Only the key file is written; images stay as they are. Whoever has a copy of the old key
    /// file opens it with the old passphrase still.
    SetPassphrase {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// A file whose first line is the new passphrase; without it the passphrase is asked for.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Keep the key without a passphrase.
    RemovePassphrase {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
    },
    /// Print the recovery sheet: the key on paper, for the safe.
    Export {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
    },
    /// Make the key file again from the recovery sheet.
    ///
    /// The key on the sheet, or the whole sheet, is read from standard input.
    Restore {
        /// A directory, or s3://BUCKET[/PREFIX].
        library: Location,
        /// Read it from this file instead.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

impl KeyCommand {
    pub(crate) fn run(&self, access: &LibraryAccess) -> Result<Verdict> {
        match self {
            Self::SetPassphrase { library, from } => {
                let passphrase = match from {
                    Some(path) => Passphrase::read(path)?,
                    None => ask_new_passphrase()?,
                };
                LocalLibrary::set_passphrase(library, access, Some(&passphrase))?;
                print_line("the key is sealed under the new passphrase");
            }
            Self::RemovePassphrase { library } => {
                LocalLibrary::set_passphrase(library, access, None)?;
                print_line("the key has no passphrase any more");
            }
            Self::Export { library } => {
                print(LocalLibrary::recovery_sheet(library, access)?);
            }
            Self::Restore { library, from } => {
                let sheet = read_sheet(from.as_deref())?;
                LocalLibrary::restore_key(library, access, &sheet, None)?;
                print_line("the key file is there again, without a passphrase");
            }
        }
        Ok(Verdict::Done)
    }
}

fn read_sheet(from: Option<&Path>) -> Result<String> {
    let place = from.unwrap_or(Path::new("standard input"));
    let failed = |source| Error::File {
        action: "read",
        path: place.to_owned(),
        source,
    };
    let mut text = String::new();
    match from {
        Some(path) => fs::File::open(path)
            .map_err(failed)?
            .take(SHEET_LENGTH_MAX)
            .read_to_string(&mut text),
        None => {
            if io::stdin().is_terminal() {
                say("Type the four lines of the key, then Ctrl-D:");
            }
            io::stdin()
                .lock()
                .take(SHEET_LENGTH_MAX)
                .read_to_string(&mut text)
        }
    }
    .map_err(failed)?;
    Ok(text)
}
