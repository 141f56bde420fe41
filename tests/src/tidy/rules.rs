// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every rule: its name, why it exists, and the function that finds what breaks it.

use super::source::{Source, Tree};
use super::{Violation, codes};

/// A rule of the code base.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Short name.
    pub name: &'static str,
    /// Why it exists.
    pub reason: &'static str,
    /// Finds what breaks it.
    pub find: fn(&Tree) -> Vec<Violation>,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "arrows-point-down",
        reason: "orchestrator -> converter -> image-library -> disk; the agent uses the lower two",
        find: arrows_point_down,
    },
    Rule {
        name: "pure-packages",
        reason: "disk and converter::plan run on bytes in memory: no process, no network, no clock",
        find: pure_packages,
    },
    Rule {
        name: "one-writer",
        reason: "only converter::apply opens a guest's filesystem for writing",
        find: one_writer,
    },
    Rule {
        name: "who-starts-programs",
        reason: "nothing of a guest runs on the host; only platforms start VMs",
        find: who_starts_programs,
    },
    Rule {
        name: "who-prints",
        reason: "libraries report through Monitor; programs print, read the environment and exit",
        find: who_prints,
    },
    Rule {
        name: "no-unsafe",
        reason: "hostile bytes meet safe code only; the agent's platform module is the exception",
        find: no_unsafe,
    },
    Rule {
        name: "file-header",
        reason: "a file says its licence and what it is before anything else",
        find: file_header,
    },
    Rule {
        name: "file-names",
        reason: "a file is named after its main type or verb",
        find: file_names,
    },
    Rule {
        name: "nothing-unfinished",
        reason: "what is not done is not there",
        find: nothing_unfinished,
    },
    Rule {
        name: "links-exist",
        reason: "a document that names a file that is gone misleads",
        find: links_exist,
    },
    Rule {
        name: "small-files",
        reason: "fixtures come from scripts; the repository stays small",
        find: small_files,
    },
    Rule {
        name: "codes-documented",
        reason: "people look codes up, and programs decide by them",
        find: codes::documented,
    },
    Rule {
        name: "codes-tested",
        reason: "a verdict that nothing ever gave is a guess",
        find: codes::tested,
    },
];

/// Which of our packages each may depend on.
const ARROWS: [(&str, &[&str]); 6] = [
    ("image-library/disk/Cargo.toml", &[]),
    ("image-library/Cargo.toml", &["disk"]),
    (
        "p2v-agent/Cargo.toml",
        &["disk", "image-library", "converter"],
    ),
    ("converter/writer/Cargo.toml", &[]),
    (
        "converter/Cargo.toml",
        &["disk", "image-library", "guest-writer"],
    ),
    (
        "recovery-orchestrator/Cargo.toml",
        &["disk", "image-library", "converter", "guest-writer"],
    ),
];

const PACKAGES: [&str; 7] = [
    "disk",
    "guest-writer",
    "image-library",
    "p2v-agent",
    "converter",
    "recovery-orchestrator",
    "e2e",
];

fn arrows_point_down(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (manifest, allowed) in ARROWS {
        let Some(source) = tree.sources.iter().find(|source| source.path == manifest) else {
            continue;
        };
        for (index, line) in source.text.lines().enumerate() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if PACKAGES.contains(&name) && line.contains(['=']) && !allowed.contains(&name) {
                let problem = format!("may not depend on {name}; allowed: {}", allowed.join(", "));
                found.push(Violation {
                    path: manifest.to_owned(),
                    line: index + 1,
                    problem,
                });
            }
        }
    }
    found
}

/// Finds forbidden words in the shipped lines of the files that `applies` picks.
fn forbid(
    tree: &Tree,
    applies: impl Fn(&str) -> bool,
    words: &[&str],
    instead: &str,
) -> Vec<Violation> {
    let picked = tree
        .sources
        .iter()
        .filter(|s| s.is_shipped_rust() && applies(&s.path));
    picked
        .flat_map(|source| forbid_in(source, words, instead))
        .collect()
}

fn forbid_in(source: &Source, words: &[&str], instead: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, text) in source.shipped_lines() {
        if let Some(word) = words.iter().find(|word| text.contains(**word)) {
            let problem = format!("`{word}`: {instead}");
            found.push(Violation {
                path: source.path.clone(),
                line,
                problem,
            });
        }
    }
    found
}

fn pure_packages(tree: &Tree) -> Vec<Violation> {
    let in_disk = |path: &str| path.starts_with("image-library/disk/src/");
    let in_plan = |path: &str| path.starts_with("converter/src/plan");
    let outside = ["std::process", "std::net", "reqwest", "tokio::", "axum::"];
    let impure = [
        "std::fs",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "std::env",
    ];
    let mut found = forbid(
        tree,
        |p| in_disk(p) || in_plan(p),
        &outside,
        "this code runs on bytes in memory",
    );
    found.extend(forbid(
        tree,
        in_plan,
        &impure,
        "plan is a pure function: take it as a parameter",
    ));
    found
}

fn one_writer(tree: &Tree) -> Vec<Violation> {
    let allowed = ["converter/src/apply", "image-library/disk/src/filesystem"];
    let applies = |path: &str| !allowed.iter().any(|start| path.starts_with(start));
    let words = ["open_writable(", "dyn WritableFilesystem"];
    let exported = |violation: &Violation| violation.path != "image-library/disk/src/lib.rs";
    let mut found = forbid(
        tree,
        applies,
        &words,
        "only converter::apply writes to a guest",
    );
    found.retain(exported);
    found
}

fn who_starts_programs(tree: &Tree) -> Vec<Violation> {
    // The platform starts hypervisors, with keepers by the one function of `process`; `verify`
    // starts filesystem checkers on a copy.
    let allowed = [
        "recovery-orchestrator/src/platform",
        "recovery-orchestrator/src/process.rs",
        "converter/src/verify",
    ];
    let applies = |path: &str| !allowed.iter().any(|start| path.starts_with(start));
    let words = ["Command::new", "process::Command"];
    forbid(
        tree,
        applies,
        &words,
        "only platforms and checkers start programs",
    )
}

/// Whether a file is a program's own: its main file, its command line or its terminal.
fn is_program(path: &str) -> bool {
    path.ends_with("/main.rs") || path.contains("/src/cli/") || path.ends_with("/terminal.rs")
}

fn who_prints(tree: &Tree) -> Vec<Violation> {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "std::env::",
        "env::var",
        "process::exit",
    ];
    let mut found = forbid(
        tree,
        |path| !is_program(path),
        &words,
        "only main.rs, cli/ and terminal.rs print, read the environment or exit",
    );
    found.retain(|violation| {
        !violation.problem.contains("`std::env::`") || !is_constant(violation, tree)
    });
    found
}

/// `std::env::consts` is what the compiler knows, not the environment.
fn is_constant(violation: &Violation, tree: &Tree) -> bool {
    let source = tree
        .sources
        .iter()
        .find(|source| source.path == violation.path);
    let line = source.and_then(|s| s.text.lines().nth(violation.line.saturating_sub(1)));
    line.is_some_and(|line| line.contains("std::env::consts"))
}

fn no_unsafe(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in tree
        .sources
        .iter()
        .filter(|s| s.path.ends_with("/src/lib.rs"))
    {
        let agent = source.path.starts_with("p2v-agent/");
        if !agent && !source.text.contains("#![forbid(unsafe_code)]") {
            let problem = "add #![forbid(unsafe_code)]".to_owned();
            found.push(Violation {
                path: source.path.clone(),
                line: 0,
                problem,
            });
        }
    }
    let applies = |path: &str| !path.starts_with("p2v-agent/src/platform");
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"];
    found.extend(forbid(
        tree,
        applies,
        &words,
        "unsafe code lives in the agent's platform module",
    ));
    found
}

fn file_header(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in tree.sources.iter().filter(|source| source.is_rust()) {
        let mut lines = source.text.lines();
        let licence = lines.next() == Some("// SPDX-License-Identifier: MIT OR Apache-2.0");
        let purpose = lines.next().is_some_and(|line| line.starts_with("//! "));
        if !licence || !purpose {
            let problem = "begin with the SPDX line and a `//!` sentence".to_owned();
            found.push(Violation {
                path: source.path.clone(),
                line: 1,
                problem,
            });
        }
    }
    found
}

fn file_names(tree: &Tree) -> Vec<Violation> {
    let banned = [
        "util.rs",
        "utils.rs",
        "helpers.rs",
        "common.rs",
        "misc.rs",
        "manager.rs",
    ];
    let mut found = Vec::new();
    for (path, _) in &tree.entries {
        let name = path.rsplit('/').next().unwrap_or_default();
        if banned.contains(&name) {
            let problem = format!("{name} says nothing: name the file after what it holds");
            found.push(Violation {
                path: path.clone(),
                line: 0,
                problem,
            });
        }
    }
    found
}

fn nothing_unfinished(tree: &Tree) -> Vec<Violation> {
    let words = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    forbid(tree, |_| true, &words, "finish it, or leave it out")
}

fn links_exist(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in tree
        .sources
        .iter()
        .filter(|source| source.path.ends_with(".md"))
    {
        for (index, line) in source.text.lines().enumerate() {
            for target in links_in(line) {
                if !tree.contains(&resolve(&source.path, target)) {
                    let problem = format!("link to {target}, which does not exist");
                    let path = source.path.clone();
                    found.push(Violation {
                        path,
                        line: index + 1,
                        problem,
                    });
                }
            }
        }
    }
    found
}

/// The targets of Markdown links to files of the checkout.
fn links_in(line: &str) -> Vec<&str> {
    let parts = line.split("](").skip(1);
    let targets = parts.filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// Resolves `../a/b` against the folder of `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Largest file that may be committed, in bytes.
const FILE_SIZE_MAX: u64 = 1 << 20;

fn small_files(tree: &Tree) -> Vec<Violation> {
    let large = tree
        .entries
        .iter()
        .filter(|(_, size)| *size > FILE_SIZE_MAX);
    large
        .map(|(path, size)| Violation {
            path: path.clone(),
            line: 0,
            problem: format!("{size} bytes: build it by a script, or compress it"),
        })
        .collect()
}
