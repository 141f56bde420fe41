// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encrypted volumes of `cryptsetup`, opened by the key that the command line or the configuration
//! names, and told where there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Library, Outcome, have_tool, work_dir};

const UUID: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b11";
const SECRET: &str = "correct horse";

/// A disk that is a LUKS volume of nothing.
fn encrypted_disk(work: &Path) -> PathBuf {
    let (disk, secret) = (work.join("disk.raw"), work.join("secret"));
    fs::write(&secret, SECRET).expect("room for a file");
    let file = fs::File::create(&disk).expect("room for a file");
    file.set_len(24 << 20).expect("a sparse file");
    let made = Command::new("cryptsetup")
        .args("luksFormat -q --type luks2 --pbkdf argon2id --pbkdf-memory 64".split(' '))
        .args("--pbkdf-force-iterations 4 --pbkdf-parallel 1 --uuid".split(' '))
        .args([UUID, "--key-file"])
        .args([&secret, &disk])
        .output()
        .expect("cryptsetup is installed");
    let text = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{text}");
    disk
}

fn codes(outcome: &Outcome) -> Vec<String> {
    let json = outcome.json();
    let findings = json["findings"].as_array().expect("a list");
    let codes = findings.iter().map(|found| found["code"].as_str());
    codes.flatten().map(str::to_owned).collect()
}

#[test]
fn a_key_opens_what_is_encrypted_and_without_one_it_is_told() {
    if !have_tool("cryptsetup") {
        return;
    }
    let work = work_dir();
    let library = Library::create(work.path());
    library.import("erp01", &encrypted_disk(work.path()));
    let file = |name: &str, content: &str| {
        let path = work.path().join(name);
        fs::write(&path, content).expect("room for a file");
        path.display().to_string()
    };
    let (right, wrong) = (
        file("right", &format!("{SECRET}\n")),
        file("wrong", "staple"),
    );
    let inspect = |options: &str| {
        let command = format!("{options} inspect erp01 --json");
        let outcome = library.relevo().args(command.trim()).run();
        assert_eq!(outcome.code, Some(1), "{outcome}");
        let shown = format!("{} {}", outcome.stdout, outcome.stderr);
        assert!(!shown.contains(SECRET), "{outcome}");
        outcome
    };
    for options in [
        "",
        &format!("--key {wrong}"),
        &format!("--key {UUID}={wrong}"),
    ] {
        let locked = inspect(options);
        assert_eq!(locked.json()["verdict"], "needs-input", "{locked}");
        assert_eq!(codes(&locked), ["storage.luks.locked"], "{locked}");
        assert!(
            locked.stdout.contains(&format!("--key {UUID}=FILE")),
            "{locked}"
        );
    }
    for options in [
        format!("--key {right}"),
        format!("--key {wrong} --key {UUID}={right}"),
        String::new(),
    ] {
        if options.is_empty() {
            let configuration = work.path().join("relevo.toml");
            let before = fs::read_to_string(&configuration).expect("it is ours");
            let with_key = format!("{before}keys = [\"{UUID}={right}\"]\n");
            fs::write(&configuration, with_key).expect("room for a file");
        }
        let opened = inspect(&options);
        assert!(
            !codes(&opened).contains(&"storage.luks.locked".to_owned()),
            "{opened}"
        );
        let volume = &opened.json()["inspection"]["assembled"][0];
        assert_eq!(volume["kind"], "encrypted", "{opened}");
        assert_eq!(volume["name"], format!("luks-{UUID}"), "{opened}");
    }
    // Nobody is there to be asked, and a file that is not there is named.
    let asked = library.relevo().args("--key ask inspect erp01").run();
    asked.is_one_clear_error(2, &["terminal", "--key FILE"]);
    let missing = library.relevo().args("--key /nowhere inspect erp01").run();
    missing.is_one_clear_error(2, &["/nowhere"]);
}
