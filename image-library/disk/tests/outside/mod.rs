// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tools and files from outside: run, or skipped with the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether all these programs are here; prints the skip, or fails where skips are failures.
pub(crate) fn have(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::env::var_os("PATH")
            .into_iter()
            .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|directory| directory.join(program).exists());
        if !found {
            skip(&format!("{program} is not installed"));
            return false;
        }
    }
    true
}

/// The bytes of a file of the shared test data, unpacked; `None`, and a skip, where it is absent.
pub(crate) fn testdata(name: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/testdata")
        .join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        skip(&format!("the test data has no {name}"));
        return None;
    };
    let mut bytes = Vec::new();
    let mut reader: Box<dyn Read> = match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        _ => Box::new(file),
    };
    reader
        .read_to_end(&mut bytes)
        .expect("the test data is sound");
    Some(bytes)
}

#[expect(
    clippy::print_stderr,
    reason = "a skip is shown to whoever runs the tests"
)]
fn skip(reason: &str) {
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "required: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Runs a program in a directory; gives what it printed, fails when it fails.
pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> String {
    feed(directory, program, arguments, "")
}

/// Like [`run`], with input.
pub(crate) fn feed(directory: &Path, program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program_path(program))
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    let mut pipe = child.stdin.take().expect("it was asked for");
    pipe.write_all(input.as_bytes())
        .expect("it reads its input");
    drop(pipe);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Partition tools are in `/usr/sbin`, which ordinary users do not have in their path.
fn program_path(program: &str) -> PathBuf {
    let system = Path::new("/usr/sbin").join(program);
    if system.exists() {
        return system;
    }
    program.into()
}
