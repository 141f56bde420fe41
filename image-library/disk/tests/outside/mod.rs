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

/// Says why a test does not run; where everything is required, that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "a skip is shown to whoever runs the tests"
)]
pub(crate) fn skip(reason: &str) {
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
pub(crate) fn program_path(program: &str) -> PathBuf {
    let system = Path::new("/usr/sbin").join(program);
    if system.exists() {
        return system;
    }
    program.into()
}
