// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architecture's invariants, enforced: every rule holds for the checkout, and every rule is
//! tripped by a sample that breaks it.

use std::path::{Path, PathBuf};

use e2e::tidy::{RULES, Tree, longest};
use rstest::rstest;

fn checkout() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the checkout")
        .to_owned()
}

#[test]
fn the_checkout_keeps_every_rule() {
    let tree = Tree::read(&checkout()).unwrap();
    let mut broken = Vec::new();
    for rule in RULES {
        for violation in (rule.find)(&tree) {
            broken.push(format!("{violation} [{}: {}]", rule.name, rule.reason));
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_longest_files_and_functions_are_shown() {
    let tree = Tree::read(&checkout()).unwrap();
    let longest = longest(&tree, 10);
    assert!(!longest.files.is_empty());
    for (title, list) in [("files", &longest.files), ("functions", &longest.functions)] {
        println!("longest {title}:");
        for (lines, place) in list {
            println!("{lines:6} {place}");
        }
    }
}

const HEADER: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0\n//! A sample.\n";

#[rstest]
#[case::arrow_up(
    "arrows-point-down",
    "image-library/disk/Cargo.toml",
    "converter.workspace = true\n"
)]
#[case::disk_opens_a_socket(
    "pure-packages",
    "image-library/disk/src/a.rs",
    "use std::net::TcpStream;\n"
)]
#[case::plan_reads_a_file("pure-packages", "converter/src/plan/a.rs", "std::fs::read(x)\n")]
#[case::plan_reads_the_clock("pure-packages", "converter/src/plan/a.rs", "Instant::now()\n")]
#[case::inspect_writes(
    "one-writer",
    "converter/src/inspect/a.rs",
    "filesystem::open_writable(x)\n"
)]
#[case::apply_starts_a_program(
    "who-starts-programs",
    "converter/src/apply/a.rs",
    "Command::new(x)\n"
)]
#[case::library_prints("who-prints", "image-library/src/a.rs", "println!()\n")]
#[case::library_reads_environment("who-prints", "converter/src/a.rs", "std::env::args()\n")]
#[case::unsafe_block("no-unsafe", "image-library/src/a.rs", "unsafe { x }\n")]
#[case::unsafe_not_forbidden("no-unsafe", "image-library/src/lib.rs", "mod a;\n")]
#[case::no_header("file-header", "image-library/src/a.rs", "mod a;\n")]
#[case::name_without_meaning("file-names", "image-library/src/util.rs", HEADER)]
#[case::unfinished("nothing-unfinished", "image-library/src/a.rs", "todo!()\n")]
#[case::dead_link("links-exist", "README.md", "See [it](docs/gone.md).\n")]
#[case::code_without_row(
    "codes-documented",
    "converter/src/a.rs",
    "finding(\n    Level::Error,\n    \"kernel.odd\",\n)\n"
)]
#[case::row_without_code(
    "codes-documented",
    "runbooks/docs/findings.md",
    "| code | level |\n|---|---|\n| `kernel.odd` | error |\n"
)]
#[case::code_that_nothing_says(
    "codes-tested",
    "converter/src/a.rs",
    "finding(Level::Error, \"kernel.odd\", x)\n"
)]
fn a_rule_finds_what_breaks_it(#[case] name: &str, #[case] path: &str, #[case] text: &str) {
    let rule = RULES.iter().find(|rule| rule.name == name).unwrap();
    let found = (rule.find)(&Tree::sample(&[(path, text)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, path);
}

#[test]
fn a_large_file_is_found() {
    let rule = RULES
        .iter()
        .find(|rule| rule.name == "small-files")
        .unwrap();
    let tree = Tree {
        sources: Vec::new(),
        entries: vec![("big.bin".to_owned(), (1 << 20) + 1)],
    };
    assert_eq!((rule.find)(&tree).len(), 1);
}

#[test]
fn what_the_rules_allow_is_not_found() {
    let fine = [
        (
            "README.md",
            "See [the map](converter/src/plan/a.rs#x) and [site](https://example.org).\n",
        ),
        ("converter/Cargo.toml", "disk.workspace = true\n"),
        ("converter/src/apply/a.rs", "filesystem::open_writable(x)\n"),
        ("converter/src/plan/a.rs", "// std::fs is not used here\n"),
        (
            "converter/src/plan/b.rs",
            "finding(Level::Error, \"kernel.none\", x)\n\"vmlinuz.old\"\n",
        ),
        ("converter/src/a.snap", "error kernel.none: /boot: none\n"),
        ("runbooks/docs/findings.md", "| `kernel.none` | error |\n"),
        ("recovery-orchestrator/src/main.rs", "println!()\n"),
        (
            "recovery-orchestrator/src/platform/a.rs",
            "Command::new(x)\n",
        ),
    ];
    let headed: Vec<_> = fine
        .iter()
        .map(|(path, text)| {
            if path.ends_with(".rs") {
                (*path, format!("{HEADER}{text}"))
            } else {
                (*path, (*text).to_owned())
            }
        })
        .collect();
    let borrowed: Vec<_> = headed
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    let tree = Tree::sample(&borrowed);
    for rule in RULES {
        assert_eq!((rule.find)(&tree), [], "{}", rule.name);
    }
}
