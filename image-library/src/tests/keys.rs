// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key of a library: passphrase, recovery sheet, a key kept elsewhere.

use std::fs;

use super::{TestLibrary, sample_disk};
use crate::{
    Error, ImageReader, KeyAccess, LibraryAccess, LocalLibrary, Passphrase, PassphraseSource,
};

fn given(text: &str) -> KeyAccess {
    KeyAccess {
        file: None,
        passphrase: PassphraseSource::Given(Passphrase::new(text).expect("works")),
    }
}

#[test]
fn a_passphrase_is_set_changed_and_taken_away_without_rewriting_anything_else() {
    let test = TestLibrary::new();
    let image = test.store("web", &sample_disk(9, 100_000));
    let directory = test.directory.path();
    let before = everything_but_the_key(directory);
    let first = Passphrase::new("first").expect("works");
    let second = Passphrase::new("second").expect("works");
    let plain = KeyAccess::default();

    LocalLibrary::set_passphrase(directory, &plain, Some(&first)).expect("works");
    let refused = LocalLibrary::open(directory).expect_err("is refused");
    assert!(
        matches!(refused, Error::PassphraseNeeded { .. }),
        "{refused}"
    );
    LocalLibrary::set_passphrase(directory, given("first"), Some(&second)).expect("works");
    let old = LocalLibrary::open_with_key(directory, given("first")).expect_err("is refused");
    assert!(matches!(old, Error::WrongPassphrase { .. }), "{old}");
    let library = LocalLibrary::open_with_key(directory, given("second")).expect("works");
    assert_eq!(library.images().expect("works"), [image]);
    LocalLibrary::set_passphrase(directory, given("second"), None).expect("works");
    LocalLibrary::open(directory).expect("works");
    assert_eq!(everything_but_the_key(directory), before);
}

#[test]
fn the_recovery_sheet_opens_the_library_when_key_and_passphrase_are_lost() {
    let test = TestLibrary::new();
    let image = test.store("web", &sample_disk(9, 100_000));
    let directory = test.directory.path();
    let sheet = LocalLibrary::recovery_sheet(directory, KeyAccess::default()).expect("works");
    fs::remove_file(directory.join("keys/library.key")).expect("works");
    LocalLibrary::restore_key(directory, LibraryAccess::default(), &sheet, None).expect("works");
    let library = LocalLibrary::open(directory).expect("works");
    assert_eq!(library.images().expect("works"), [image]);

    let other = TestLibrary::new();
    let error = LocalLibrary::restore_key(
        other.directory.path(),
        LibraryAccess::default(),
        &sheet,
        None,
    )
    .expect_err("is refused");
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
}

#[test]
fn the_key_may_be_kept_outside_the_library() {
    let test = TestLibrary::new();
    let directory = test.directory.path();
    let elsewhere = tempfile::tempdir().expect("works");
    let file = elsewhere.path().join("x.key");
    let inside = directory.join("keys/library.key");
    fs::copy(&inside, &file).expect("works");
    fs::remove_file(&inside).expect("works");
    let access = KeyAccess {
        file: Some(file.clone()),
        passphrase: PassphraseSource::None,
    };
    LocalLibrary::open_with_key(directory, &access).expect("works");
    let words = Passphrase::new("words").expect("works");
    LocalLibrary::set_passphrase(directory, &access, Some(&words)).expect("works");
    assert!(!inside.exists());
    let error = LocalLibrary::open_with_key(directory, &access).expect_err("is refused");
    assert!(matches!(error, Error::PassphraseNeeded { .. }), "{error}");
}

/// Every file of the library with its content, but the key and what only this machine needs.
fn everything_but_the_key(directory: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).expect("works") {
            let path = entry.expect("works").path();
            if path.is_dir() {
                todo.push(path);
            } else if !path.ends_with("keys/library.key") {
                found.push((path.clone(), fs::read(&path).expect("works")));
            }
        }
    }
    found.sort();
    found
}
