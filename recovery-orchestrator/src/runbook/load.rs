// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a runbook: every problem names file, line and column, and what was probably meant.

use std::path::Path;

use serde_saphyr::{Location, Spanned};

use super::{LoadedRunbook, Runbook, Step};
use crate::error::{Error, Result};
use crate::file;

const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// More letters than this may not differ for a hint.
const DISTANCE_MAX: usize = 3;

/// Reads a runbook from a file.
pub fn load(file: &Path) -> Result<LoadedRunbook> {
    let text = file::read_text(file, FILE_LIMIT_BYTES)?;
    let runbook = parse(file, &text)?;
    Ok(LoadedRunbook {
        runbook,
        file: file.to_owned(),
        text,
    })
}

/// Reads a runbook from its text; the file is only named in errors.
pub fn parse(file: &Path, text: &str) -> Result<Runbook> {
    let reader = Reader { file };
    let runbook: Runbook = serde_saphyr::from_str(text).map_err(|error| reader.syntax(&error))?;
    reader.check(&runbook)?;
    Ok(runbook)
}

struct Reader<'a> {
    file: &'a Path,
}

impl Reader<'_> {
    fn syntax(&self, error: &serde_saphyr::Error) -> Error {
        let error = error.without_snippet();
        let (problem, hint) = describe(error);
        self.error(error.location().unwrap_or(Location::UNKNOWN), problem, hint)
    }

    fn error(&self, place: Location, problem: String, hint: Option<String>) -> Error {
        Error::Runbook {
            file: self.file.to_owned(),
            line: place.line().max(1),
            column: place.column().max(1),
            problem,
            hint,
        }
    }

    fn check(&self, runbook: &Runbook) -> Result<()> {
        if runbook.version.value != 1 {
            return Err(self.error(
                runbook.version.referenced,
                format!(
                    "version {} of the format is not known",
                    runbook.version.value
                ),
                Some("this program knows version 1".to_owned()),
            ));
        }
        self.check_names(runbook)?;
        self.check_networks(runbook)?;
        self.check_plan(runbook)?;
        self.check_schedule(runbook)
    }

    fn check_names(&self, runbook: &Runbook) -> Result<()> {
        let name = &runbook.name;
        let illegal = |place, text: &str| {
            self.error(
                place,
                format!("not a name: {text:?}"),
                Some("a name is 1 to 63 letters, digits, `.`, `_` or `-`, the first a letter or digit".to_owned()),
            )
        };
        if image_library::ServerName::try_from(name.value.clone()).is_err() {
            return Err(illegal(name.referenced, &name.value));
        }
        if runbook.servers.is_empty() {
            return Err(self.error(
                name.referenced,
                "the runbook has no servers".to_owned(),
                None,
            ));
        }
        for server in runbook.servers.keys() {
            if image_library::ServerName::try_from(server.clone()).is_err() {
                return Err(illegal(Location::UNKNOWN, server));
            }
        }
        Ok(())
    }

    fn check_networks(&self, runbook: &Runbook) -> Result<()> {
        for network in runbook.servers.values().flat_map(|server| &server.network) {
            self.known("network", network, runbook.networks.keys())?;
        }
        Ok(())
    }

    fn check_plan(&self, runbook: &Runbook) -> Result<()> {
        let mut started: Vec<&str> = Vec::new();
        for step in &runbook.plan {
            let Step::Start(servers) = step else { continue };
            for server in servers {
                self.known("server", server, runbook.servers.keys())?;
                if started.contains(&server.value.as_str()) {
                    let problem = format!("the server {:?} is started twice", server.value);
                    return Err(self.error(server.referenced, problem, None));
                }
                started.push(&server.value);
            }
        }
        let forgotten = runbook
            .servers
            .keys()
            .find(|server| !started.contains(&server.as_str()));
        match forgotten {
            Some(server) if !started.is_empty() => Err(self.error(
                runbook.name.referenced,
                format!("the server {server:?} is never started by the plan"),
                Some(
                    "add it to a `start` step, or leave out `plan`: then all servers start at once"
                        .to_owned(),
                ),
            )),
            _ => Ok(()),
        }
    }

    fn check_schedule(&self, runbook: &Runbook) -> Result<()> {
        let Some(schedule) = &runbook.schedule else {
            return Ok(());
        };
        let legal = |field: &str| {
            field
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "*/,-".contains(c))
        };
        let fields: Vec<&str> = schedule.value.split_whitespace().collect();
        if fields.len() == 5 && fields.iter().all(|field| legal(field)) {
            return Ok(());
        }
        Err(self.error(
            schedule.referenced,
            format!("not a schedule: {:?}", schedule.value),
            Some("write five fields as in crontab(5): minute hour day month weekday".to_owned()),
        ))
    }

    fn known<'k>(
        &self,
        kind: &str,
        name: &Spanned<String>,
        names: impl Iterator<Item = &'k String> + Clone,
    ) -> Result<()> {
        if names.clone().any(|known| *known == name.value) {
            return Ok(());
        }
        let names: Vec<&str> = names.map(String::as_str).collect();
        Err(self.error(
            name.referenced,
            format!("no {kind} is called {:?}", name.value),
            Some(suggestion(&name.value, &names)),
        ))
    }
}

/// The problem in our words, with what was probably meant.
fn describe(error: &serde_saphyr::Error) -> (String, Option<String>) {
    match error {
        serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } => (
            format!("unknown key {field:?}"),
            Some(suggestion(field, expected)),
        ),
        serde_saphyr::Error::SerdeUnknownVariant {
            variant, expected, ..
        } => (
            format!("unknown value {variant:?}"),
            Some(suggestion(variant, expected)),
        ),
        serde_saphyr::Error::SerdeMissingField { field, .. } => (
            format!("the key {field:?} is missing"),
            Some(format!(
                "add `{field}:`; `relevo runbook new` prints an example of every key"
            )),
        ),
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            (format!("the key {key:?} is there twice"), None)
        }
        serde_saphyr::Error::Message { msg, .. } => (msg.clone(), None),
        other => {
            let text = other.to_string();
            let line = text.lines().next().unwrap_or("not YAML");
            // The place is said in front already.
            let line = line.strip_prefix("error: ").unwrap_or(line);
            (line.to_owned(), None)
        }
    }
}

/// The nearest of the names that are known, or all of them.
fn suggestion(found: &str, expected: &[&str]) -> String {
    let nearest = expected
        .iter()
        .map(|name| (distance(found, name), name))
        .min();
    match nearest {
        Some((distance, name)) if distance <= DISTANCE_MAX.min(name.len() / 2) => {
            format!("did you mean {name:?}?")
        }
        _ if expected.is_empty() => "there are none here".to_owned(),
        _ => format!("what can be here: {}", expected.join(", ")),
    }
}

/// How many letters must be added, removed or replaced to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runbook::{Check, ImageChoice, template};

    const SMALL: &str =
        "version: 1\nname: erp\nservers:\n  db01:\n    checks:\n      - tcp: { port: 22 }\n";

    fn problem(text: &str) -> (String, String) {
        let error = parse(Path::new("erp.yaml"), text).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn the_smallest_runbook_starts_everything_at_once() {
        let runbook = parse(Path::new("erp.yaml"), SMALL).unwrap();
        assert_eq!(runbook.waves(), [["db01"]]);
        assert_eq!(runbook.servers["db01"].image, ImageChoice::Latest);
        let Check::Tcp(check) = &runbook.servers["db01"].checks[0] else {
            panic!("not a tcp check")
        };
        assert_eq!((check.port, check.within), (22, Duration::from_secs(300)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        let text = SMALL.replace("checks:", "cheks:");
        assert_eq!(
            problem(&text),
            (
                "erp.yaml:5:5: unknown key \"cheks\"".to_owned(),
                "did you mean \"checks\"?".to_owned()
            )
        );
        let text = SMALL.replace("name: erp", "name: erp\nfrobnicate: yes");
        let (what, hint) = problem(&text);
        assert_eq!(what, "erp.yaml:3:1: unknown key \"frobnicate\"");
        assert!(
            hint.starts_with("what can be here: version, name"),
            "{hint}"
        );
    }

    #[test]
    fn a_server_that_is_missing_is_named_with_its_place() {
        let text = format!("{SMALL}plan:\n  - start: [db01, db02]\n");
        assert_eq!(
            problem(&text),
            (
                "erp.yaml:8:19: no server is called \"db02\"".to_owned(),
                "did you mean \"db01\"?".to_owned()
            )
        );
        let text = SMALL.replace("    checks", "    network: [lan]\n    checks");
        assert_eq!(
            problem(&text).0,
            "erp.yaml:5:15: no network is called \"lan\""
        );
    }

    #[test]
    fn a_server_that_is_never_or_twice_started_is_a_mistake() {
        let two = SMALL.replace("servers:", "servers:\n  app01: {}");
        let text = format!("{two}plan:\n  - start: [app01]\n");
        assert!(problem(&text).0.contains("\"db01\" is never started"));
        let text = format!("{two}plan:\n  - start: [app01, db01]\n  - start: [db01]\n");
        assert_eq!(
            problem(&text).0,
            "erp.yaml:10:13: the server \"db01\" is started twice"
        );
    }

    #[test]
    fn values_are_checked_where_they_stand() {
        for (from, to, expected) in [
            ("port: 22", "port: 0", "not a port"),
            ("port: 22", "port: 22, within: 5", "not a duration"),
            ("version: 1", "version: 2", "erp.yaml:1:10: version 2"),
            ("name: erp", "name: -erp", "not a name"),
            ("tcp: { port: 22 }", "console: { expect: \"/(/\" }", "regex"),
            (
                "tcp: { port: 22 }",
                "ftp: { port: 22 }",
                "unknown value \"ftp\"",
            ),
            (
                "    checks",
                "    image: { before: yesterday }\n    checks",
                "not a time",
            ),
            (
                "    checks",
                "    image: newest\n    checks",
                "not an image",
            ),
            (
                "    checks",
                "    hardware: { profile: floppy }\n    checks",
                "no profile",
            ),
            (
                "    checks",
                "    hardware: { memory: 2GB }\n    checks",
                "not a size",
            ),
            (
                "servers:",
                "networks: { lan: { mode: nat } }\nservers:",
                "unknown value \"nat\"",
            ),
            (
                "servers:",
                "networks: { lan: { mode: isolated, subnet: 10.0.0.1/24 } }\nservers:",
                "10.0.0.0/24",
            ),
            ("servers:", "schedule: often\nservers:", "not a schedule"),
            ("servers:", "name: twice\nservers:", "twice"),
            ("version: 1", "version: [", "erp.yaml:"),
        ] {
            let text = SMALL.replace(from, to);
            let (what, _) = problem(&text);
            assert!(what.contains(expected), "{to}: {what}");
        }
    }

    #[test]
    fn the_template_is_a_valid_runbook() {
        let runbook = parse(Path::new("new.yaml"), &template()).unwrap();
        assert!(runbook.servers.len() > 1);
    }

    #[test]
    fn distances_count_letters() {
        for (left, right, expected) in [
            ("", "abc", 3),
            ("cheks", "checks", 1),
            ("abc", "abc", 0),
            ("abc", "xbd", 2),
        ] {
            assert_eq!(distance(left, right), expected);
        }
    }
}
