// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden plans of whole servers, and what must hold for every phony guest.

use disk::block::Reads;
use disk::{Finding, Level};

use crate::guest::samples::skip;
use crate::inspect::Inspection;
use crate::phony::PhonyGuest;
use crate::phony::catalogue::{RACKS, all};
use crate::plan::{Change, DECIDABLE, Plan, PlanOptions, Report, Verdict, plan};

fn planned(guest: &PhonyGuest) -> Plan {
    plan(&guest.inspect(), &PlanOptions::new("server"))
}

#[test]
fn whole_servers_are_planned() {
    for (name, make) in RACKS {
        insta::assert_snapshot!(*name, planned(&make()));
    }
}

#[test]
fn the_same_guest_gets_the_same_answer_twice() {
    for (name, make) in all() {
        let (first, second) = (make().inspect(), make().inspect());
        assert_eq!(first, second, "{name}");
        let options = PlanOptions::new("server");
        assert_eq!(plan(&first, &options), plan(&second, &options), "{name}");
        let text = serde_json::to_string(&first).unwrap();
        let read: Inspection = serde_json::from_str(&text).unwrap();
        assert_eq!(plan(&read, &options), plan(&first, &options), "{name}");
    }
}

#[test]
fn a_plan_that_is_applied_twice_is_applied_once() {
    for (name, make) in all() {
        let guest = make();
        let first = planned(&guest);
        if !first.verdict.is_ready() {
            assert_eq!(first.edits, [], "{name}");
            continue;
        }
        guest.apply(&first).unwrap();
        let second = planned(&guest);
        assert_eq!(second.edits, [], "{name}");
        assert_eq!(second.verdict, Verdict::Ready, "{name}");
        assert_eq!(second.vm, first.vm, "{name}");
    }
}

#[test]
fn a_verdict_follows_from_the_findings_and_says_what_to_do() {
    for (name, make) in all() {
        let plan = planned(&make());
        let errors = plan.findings.iter().filter(|f| f.level == Level::Error);
        assert_eq!(errors.count() == 0, plan.verdict.is_ready(), "{name}");
        if plan.verdict.is_ready() {
            assert!(!plan.vm.profiles.is_empty(), "{name}");
        }
    }
}

#[test]
fn every_file_is_changed_by_one_edit() {
    for (name, make) in all() {
        let plan = planned(&make());
        let mut places: Vec<_> = plan.edits.iter().map(|edit| &edit.place).collect();
        let count = places.len();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), count, "{name}");
        for edit in &plan.edits {
            assert!(!edit.reasons.is_empty(), "{name}: {}", edit.place);
            if let Change::Rewrite { before, after, .. } = &edit.change {
                assert_ne!(before, after, "{name}: {}", edit.place);
            }
        }
    }
}

fn page(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn what_somebody_can_decide_about_is_marked_in_the_list_of_codes() {
    let page = page("runbooks/docs/findings.md");
    let rows = page.lines().filter_map(|line| {
        let mut columns = line.split('|').skip(1);
        Some((columns.next()?, columns.next()?))
    });
    let marked = rows.filter(|(_, level)| level.contains("decision"));
    let mut marked: Vec<&str> = marked
        .map(|(code, _)| code.trim().trim_matches('`'))
        .collect();
    marked.sort_unstable();
    let mut decidable = DECIDABLE.to_vec();
    decidable.sort_unstable();
    assert_eq!(marked, decidable);
}

/// Rows of `supported.md`: what is supported, how, and by what that is shown.
fn supported() -> Vec<(String, String, Vec<String>)> {
    let page = page("runbooks/docs/supported.md");
    let rows = page.lines().filter_map(|line| {
        let columns: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
        let [what, .., how, shown_by, ""] = columns.as_slice() else {
            return None;
        };
        let names = shown_by.split('`').skip(1).step_by(2);
        let is_row = matches!(*how, "booted" | "golden only" | "refused");
        is_row.then(|| {
            let names = names.map(str::to_owned).collect();
            ((*what).to_owned(), (*how).to_owned(), names)
        })
    });
    rows.collect()
}

#[test]
fn what_is_said_to_be_supported_is_shown_by_a_guest() {
    let servers = page("tests/fixtures/build/servers");
    let servers: Vec<&str> = servers
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let rows = supported();
    assert!(rows.len() > 60, "{}", rows.len());
    for (what, how, names) in rows {
        assert!(!names.is_empty(), "{what}");
        let guests: Vec<Plan> = all()
            .filter(|(name, _)| names.iter().any(|wanted| wanted == name))
            .map(|(_, make)| planned(&make()))
            .collect();
        match how.as_str() {
            "booted" => {
                for name in &names {
                    assert!(servers.contains(&name.as_str()), "{what}: {name}");
                }
            }
            "golden only" => {
                assert_eq!(guests.len(), names.len(), "{what}: {names:?}");
                let is_ready = guests.iter().all(|plan| plan.verdict.is_ready());
                assert!(is_ready, "{what}: {names:?}");
            }
            _ => {
                let [code, guest @ ..] = names.as_slice() else {
                    unreachable!("there are names");
                };
                assert_eq!((guests.len(), guest.len()), (1, 1), "{what}: {names:?}");
                let mut findings = guests[0].findings.iter();
                let is_it = |f: &Finding| f.level == Level::Error && f.code == *code;
                assert!(findings.any(is_it), "{what}: {code}");
            }
        }
    }
}

#[test]
fn every_guest_that_is_planned_stands_in_the_list_of_what_is_supported() {
    let page = page("runbooks/docs/supported.md");
    let absent: Vec<&str> = all()
        .map(|(name, _)| name)
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert_eq!(absent, Vec::<&str>::new());
}

#[test]
fn the_report_of_every_guest_is_valid_by_its_schema() {
    let schema = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../runbooks/inspection.schema.json"
    );
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("jsonschema");
    for (name, make) in all() {
        let inspection = make().inspect();
        let plan = plan(&inspection, &PlanOptions::new("server"));
        let report = Report::new(&inspection, &plan, Reads::default());
        let file = directory.path().join(name);
        std::fs::write(&file, serde_json::to_string(&report).unwrap()).unwrap();
        command.arg("-i").arg(file);
    }
    let Ok(output) = command.arg(schema).env("PYTHONWARNINGS", "ignore").output() else {
        return skip("jsonschema (python3-jsonschema) is not installed");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let start: String = said.chars().take(2000).collect();
    assert!(output.status.success(), "{start}");
}
