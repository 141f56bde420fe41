// SPDX-License-Identifier: MIT OR Apache-2.0
//! The course of a drill, from the leftovers of earlier ones to the report.

use std::path::{Path, PathBuf};

use disk::{Finding, Level};
use image_library::{Image, ImageReader, image_digest};
use jiff::Timestamp;

use super::advice::{age_seconds, notes, too_old};
use super::scratch::{Scratch, begin, clean_up_leftovers};
use super::wave::{ServerRun, run_wave};
use super::{Drill, Drilled};
use crate::capacity::Memory;
use crate::check::milliseconds;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::journal::{CleanedUp, Event, RunKind, RunOutcome, Scope};
use crate::report::{
    ImageRecord, ObjectivesRecord, Proposal, Report, RunbookRecord, ServerReport, Timeline,
};
use crate::runbook::Server;
use crate::select;

/// What a server of the runbook is to be made of.
struct Chosen<'a> {
    wave: usize,
    name: String,
    server: &'a Server,
    image: Image,
}

pub(super) fn run(drill: &Drill<'_>, directory: Option<PathBuf>) -> Result<Drilled> {
    let runbook = &drill.runbook.runbook;
    let started_at = (drill.clock)();
    let cleaned = clean_up_leftovers(drill.state, Scope::Forgotten, drill.clock)?;
    drill.monitor.stage("Choosing images");
    let chosen = choose(drill)?;
    let scratch = begin(
        drill.state,
        RunKind::Drill,
        &runbook.name.value,
        drill.clock,
    )?;
    let mut findings = notes(runbook);
    findings.extend(cleaned.iter().map(cleaned_finding));
    let servers = prepare(drill, &scratch, chosen, started_at)?;
    findings.extend(capacity(&servers)?);
    let old = |server: &ServerRun<'_>| too_old(runbook, &server.name, server.image.age_seconds);
    findings.extend(servers.iter().filter_map(old));
    let mut course = Course {
        drill,
        scratch: &scratch,
        servers,
        findings,
    };
    let result = course.waves();
    course.compare_digests();
    let report = course.report(result, started_at);
    let directory = directory.unwrap_or_else(|| drill.state.reports().join(scratch.run.as_str()));
    let page = report.write(&directory)?;
    scratch.journal.record(Event::RunFinished {
        outcome: report.outcome,
        report: Some(absolute(&directory)),
    })?;
    Ok(Drilled { report, page })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Which image each server gets; all or nothing.
fn choose<'a>(drill: &Drill<'a>) -> Result<Vec<Chosen<'a>>> {
    let runbook = &drill.runbook.runbook;
    let mut chosen = Vec::new();
    for (index, names) in runbook.waves().into_iter().enumerate() {
        for name in names {
            let server = &runbook.servers[name];
            let image = select::for_runbook(drill.reader, name, &server.image)?;
            chosen.push(Chosen {
                wave: index + 1,
                name: name.to_owned(),
                server,
                image,
            });
        }
    }
    Ok(chosen)
}

fn prepare<'a>(
    drill: &Drill<'a>,
    scratch: &Scratch,
    chosen: Vec<Chosen<'a>>,
    started_at: Timestamp,
) -> Result<Vec<ServerRun<'a>>> {
    let mut servers = Vec::new();
    for (
        number,
        Chosen {
            wave,
            name,
            server,
            image,
        },
    ) in chosen.into_iter().enumerate()
    {
        drill.interrupt.check()?;
        let title = format!("Preparing {name}");
        drill.monitor.stage(&title);
        scratch.journal.record(Event::Step { title })?;
        let prepare_started_ms = milliseconds(drill.command_started.elapsed());
        let guest = resized(drill.guests.prepare(&image, drill.monitor)?, server);
        let timeline = Timeline {
            prepare_started_ms,
            prepare_ended_ms: milliseconds(drill.command_started.elapsed()),
        };
        let image = image_record(drill.reader, &image, started_at)?;
        servers.push(ServerRun::new(
            number, wave, name, server, guest, image, timeline,
        ));
    }
    Ok(servers)
}

/// The guest with the hardware that the runbook gives it.
fn resized(mut guest: Guest, server: &Server) -> Guest {
    let definition = &mut guest.definition;
    definition.cpus = server.hardware.cpus.unwrap_or(definition.cpus);
    definition.memory_bytes = server.hardware.memory.unwrap_or(definition.memory_bytes);
    guest
}

fn image_record(
    reader: &dyn ImageReader,
    image: &Image,
    started_at: Timestamp,
) -> Result<ImageRecord> {
    Ok(ImageRecord {
        id: image.id,
        taken_at: image.taken_at,
        consistency: image.consistency,
        age_seconds: age_seconds(image.taken_at, started_at),
        digest_before: image_digest(reader, image.id)?.to_string(),
        digest_after: None,
    })
}

/// Machines that do not fit at all are not started.
fn capacity(servers: &[ServerRun<'_>]) -> Result<Option<Finding>> {
    let needed = servers
        .iter()
        .map(|server| server.guest.definition.memory_bytes);
    let needed = needed.fold(0, u64::saturating_add);
    match Memory::of_host().and_then(|memory| memory.judge(needed)) {
        Some(Finding {
            level: Level::Error,
            problem,
            remedy,
            ..
        }) => Err(Error::Request {
            problem,
            hint: remedy,
        }),
        other => Ok(other),
    }
}

/// How the waves went, and why not well.
type WaveResult = (RunOutcome, Option<String>);

struct Course<'a, 'd> {
    drill: &'a Drill<'d>,
    scratch: &'a Scratch,
    servers: Vec<ServerRun<'d>>,
    findings: Vec<Finding>,
}

impl Course<'_, '_> {
    /// Runs wave after wave, as long as all goes well. All machines end with this.
    fn waves(&mut self) -> WaveResult {
        let wave_count = self
            .servers
            .iter()
            .map(|server| server.wave)
            .max()
            .unwrap_or(0);
        let mut result = (RunOutcome::Passed, None);
        for wave in 1..=wave_count {
            result = self.wave(wave);
            if result.0 != RunOutcome::Passed {
                break;
            }
        }
        self.drill.monitor.stage("Ending the machines");
        for server in &mut self.servers {
            self.findings.extend(server.end(self.scratch));
        }
        result
    }

    fn wave(&mut self, wave: usize) -> WaveResult {
        let of_wave = self.servers.iter_mut().filter(|server| server.wave == wave);
        if let Err(error) = run_wave(self.drill, self.scratch, of_wave.collect()) {
            return match error {
                Error::Interrupted => (RunOutcome::Interrupted, Some(error.to_string())),
                other => (RunOutcome::Failed, Some(with_sources(&other))),
            };
        }
        if self.drill.interrupt.is_raised() {
            return (RunOutcome::Interrupted, Some("interrupted".to_owned()));
        }
        match self.servers.iter().find_map(ServerRun::problem) {
            Some(problem) => (RunOutcome::Failed, Some(problem)),
            None => (RunOutcome::Passed, None),
        }
    }

    /// Reads every image again and compares.
    fn compare_digests(&mut self) {
        for server in &mut self.servers {
            let place = format!("server {}", server.name);
            let after = match image_digest(self.drill.reader, server.image.id) {
                Ok(digest) => digest.to_string(),
                Err(error) => {
                    let problem =
                        format!("its image cannot be read again after the drill: {error}");
                    self.findings
                        .push(image_finding("drill.image.unreadable", place, problem));
                    continue;
                }
            };
            if after != server.image.digest_before {
                let problem = "its image is not what it was before the drill".to_owned();
                self.findings
                    .push(image_finding("drill.image.changed", place, problem));
            }
            server.image.digest_after = Some(after);
        }
    }

    fn report(self, (outcome, problem): WaveResult, started_at: Timestamp) -> Report {
        let runbook = &self.drill.runbook.runbook;
        let proposals: Vec<Proposal> = self
            .servers
            .iter()
            .filter_map(ServerRun::proposal)
            .collect();
        let servers: Vec<ServerReport> = self.servers.into_iter().map(ServerRun::report).collect();
        let mut report = Report {
            version: 1,
            run: self.scratch.run.clone(),
            program: format!("relevo {}", env!("CARGO_PKG_VERSION")),
            runbook: RunbookRecord {
                name: runbook.name.value.clone(),
                title: runbook.title().to_owned(),
                file: self.drill.runbook.file.clone(),
                hash: self.drill.runbook.hash(),
            },
            started_at,
            duration_ms: milliseconds(self.drill.command_started.elapsed()),
            outcome,
            problem,
            platform: self.drill.platform.description(),
            objectives: objectives(self.drill, &servers),
            servers,
            confirmations: runbook
                .confirmations()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            findings: self.findings,
            proposals,
        };
        judge(&mut report);
        report
    }
}

fn image_finding(code: &str, place: String, problem: String) -> Finding {
    Finding {
        level: Level::Error,
        code: code.to_owned(),
        place,
        problem,
        remedy: Some("relevo image verify".to_owned()),
    }
}

fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn cleaned_finding(cleaned: &CleanedUp) -> Finding {
    let leftover = &cleaned.leftover;
    Finding {
        level: if cleaned.complete {
            Level::Note
        } else {
            Level::Warning
        },
        code: "drill.leftover".to_owned(),
        place: leftover.run.to_string(),
        problem: format!(
            "this earlier run had not ended in order; machines ended: {}, directories removed: {}",
            leftover.machines.len(),
            leftover.directories.len()
        ),
        remedy: (!cleaned.complete).then(|| "relevo cleanup".to_owned()),
    }
}

fn objectives(drill: &Drill<'_>, servers: &[ServerReport]) -> ObjectivesRecord {
    let wanted = &drill.runbook.runbook.objectives;
    let recovered: Option<Vec<u64>> = servers.iter().map(recovered_after_ms).collect();
    ObjectivesRecord {
        rto_seconds: wanted.rto.map(|rto| rto.as_secs()),
        recovered_after_ms: recovered.and_then(|times| times.into_iter().max()),
        rpo_seconds: wanted.rpo.map(|rpo| rpo.as_secs()),
        data_age_seconds: servers.iter().map(|server| server.image.age_seconds).max(),
    }
}

/// When the last check of a server had passed; when its processors ran, if it has none.
fn recovered_after_ms(server: &ServerReport) -> Option<u64> {
    let attempt = server.attempts.last().filter(|_| server.passed())?;
    let last = attempt
        .checks
        .iter()
        .map(|check| check.after_command_ms)
        .max();
    Some(last.unwrap_or(attempt.running_ms))
}

/// A drill whose checks pass can still have missed what it was to show.
fn judge(report: &mut Report) {
    if report.outcome != RunOutcome::Passed {
        return;
    }
    if let Some(finding) = report
        .findings
        .iter()
        .find(|finding| finding.level == Level::Error)
    {
        report.outcome = RunOutcome::Failed;
        report.problem = Some(format!("{}: {}", finding.place, finding.problem));
    } else if report.objectives.rto_met() == Some(false) {
        report.outcome = RunOutcome::Failed;
        report.problem = Some("recovery took longer than its objective (RTO)".to_owned());
    } else if report.objectives.rpo_met() == Some(false) {
        report.outcome = RunOutcome::Failed;
        report.problem = Some("the data is older than its objective (RPO)".to_owned());
    }
}
