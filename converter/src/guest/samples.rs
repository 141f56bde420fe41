// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests take from outside: real configuration files, the archives of `../shared/testdata`, and
//! programs of this machine, where they are.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::compression::{Compression, decompress};

/// Name and contents of each file in an archive of `testdata/linux`; `None`, with the reason
/// printed, where the archive is absent.
pub(super) fn linux_samples(archive: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata/linux");
    let Ok(packed) = std::fs::read(directory.join(archive)) else {
        skip(&format!("the test data {archive} is not here"));
        return None;
    };
    let (tar, _) = decompress(&packed, Compression::Xz, 16 << 20).unwrap();
    Some(tar_files(&tar))
}

/// Prints why a test does nothing; fails where all tests are required.
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "a required test was skipped: {reason}"
    );
}

/// What a program makes of these bytes; `None`, with the reason printed, where it is absent.
pub(super) fn run(program: &str, arguments: &[&str], input: Vec<u8>) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skip(&format!("needs {program}"));
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

fn tar_files(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut rest = tar;
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, data) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            let field = String::from_utf8_lossy(&header[range]).into_owned();
            field.split('\0').next().unwrap_or_default().to_owned()
        };
        let length = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        if matches!(header[156], b'0' | 0) {
            files.push((text(0..100), data[..length].to_vec()));
        }
        rest = &data[length.next_multiple_of(512)..];
    }
    files
}
