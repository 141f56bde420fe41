// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo drill`: rehearse, and look at earlier rehearsals.

use std::path::PathBuf;

use clap::Subcommand;
use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::finding_text;
use jiff::Timestamp;
use recovery_orchestrator::check::Outcome;
use recovery_orchestrator::drill::{Drill, Drilled};
use recovery_orchestrator::guest::Converting;
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::journal::{self, Event, RunId, RunKind, RunOutcome};
use recovery_orchestrator::report::{REPORT_HTML, REPORT_JSON, Report};
use recovery_orchestrator::runbook::{self, LoadedRunbook};
use recovery_orchestrator::state::StateDirectory;
use recovery_orchestrator::{Error, Result, select};
use serde::Serialize;

use super::context::Context;
use super::output::{DryRun, Format, reads_text, table};

#[derive(Debug, Subcommand)]
pub(super) enum DrillCommand {
    /// Recover the servers of a runbook on machines that are cut off, ask the checks, and clean up
    Run(RunArguments),
    /// List the drills of this computer
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show the report of a drill
    Show {
        /// Which, as `drill list` shows it; the end of its name is enough
        id: String,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// The runbook
    file: PathBuf,
    /// Where the report goes [default: the state directory's reports]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, command: DrillCommand) -> Result<Verdict> {
    match command {
        DrillCommand::Run(arguments) => rehearse(context, arguments),
        DrillCommand::List { format } => list(context, format),
        DrillCommand::Show { id, format } => show(context, &id, format),
    }
}

fn rehearse(context: &Context, arguments: RunArguments) -> Result<Verdict> {
    let runbook = runbook::load(&arguments.file)?;
    let library = context.open_library()?;
    if arguments.dry_run.dry_run {
        return dry_run(&*library, &runbook);
    }
    let interrupt = Interrupt::install(super::end_at_once)?;
    let monitor = context.monitor();
    let state = context.state()?;
    let qemu = context.qemu(&state)?;
    let keepers = context.keepers()?;
    let drill = Drill {
        runbook: &runbook,
        reader: &*library,
        guests: &Converting {
            reader: &*library,
            again: false,
            secrets: context.secrets()?,
            machine: &context.small_vm(&interrupt),
        },
        keepers: &keepers,
        platform: &qemu,
        state: &state,
        clock: Timestamp::now,
        command_started: context.started,
        monitor: &monitor,
        interrupt: &interrupt,
    };
    let Drilled { report, page } = drill.run(arguments.report)?;
    monitor.finish();
    if arguments.format.json {
        print_json(&report);
    } else {
        summary(&report);
        print_line(&format!("report       {}", page.display()));
    }
    Ok(Verdict::of(report.outcome == RunOutcome::Passed))
}

fn dry_run(library: &dyn image_library::ImageReader, loaded: &LoadedRunbook) -> Result<Verdict> {
    for (number, names) in loaded.runbook.waves().into_iter().enumerate() {
        for name in names {
            let server = &loaded.runbook.servers[name];
            let image = select::for_runbook(library, name, &server.image)?;
            print_line(&format!(
                "wave {}: would start {name} from {}@{}, taken {}, and ask {} checks",
                number + 1,
                image.server,
                image.id,
                image.taken_at,
                server.checks.len()
            ));
        }
    }
    print_line("would write a report, end the machines and remove everything they wrote");
    Ok(Verdict::Done)
}

fn summary(report: &Report) {
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    print_line(&format!(
        "drill        {} ({})",
        report.run, report.runbook.title
    ));
    print_line(&format!("outcome      {}", report.outcome));
    if let Some(problem) = &report.problem {
        print_line(&format!("problem      {problem}"));
    }
    if let Some(ms) = report.objectives.recovered_after_ms {
        print_line(&format!("recovered in {}", seconds(ms)));
    }
    for server in &report.servers {
        for attempt in &server.attempts {
            print_line(&format!(
                "{} on {}: {}",
                server.name, attempt.profile, attempt.outcome
            ));
            for check in &attempt.checks {
                let mark = if check.outcome == Outcome::Passed {
                    "ok  "
                } else {
                    "FAIL"
                };
                let reason = check.reason.as_ref().map(|reason| format!(" ({reason})"));
                let (name, after) = (&check.check, seconds(check.after_start_ms));
                print_line(&format!(
                    "  {mark} {name}, after {after}{}",
                    reason.unwrap_or_default()
                ));
            }
        }
        print_line(&format!("  {}", reads_text(server.reads)));
        let same = server.image.digest_after.as_ref() == Some(&server.image.digest_before);
        let same = if same { "unchanged" } else { "NOT CONFIRMED" };
        print_line(&format!("  image {} {same}", server.image.digest_before));
    }
    for finding in &report.findings {
        print_line(&finding_text(finding));
    }
    for proposal in &report.proposals {
        print_line(&format!(
            "proposed     {}: {} ({})",
            proposal.key, proposal.to, proposal.reason
        ));
    }
}

/// A drill of this computer, by its journal.
#[derive(Debug, Serialize)]
struct Listed {
    run: RunId,
    runbook: String,
    started_at: Timestamp,
    outcome: Option<RunOutcome>,
    report: Option<PathBuf>,
}

fn drills(state: &StateDirectory) -> Result<Vec<Listed>> {
    let mut drills = Vec::new();
    for run in journal::runs(state)? {
        let mut listed = None;
        for entry in journal::read(&state.journal(&run))? {
            match (entry.event, &mut listed) {
                (
                    Event::RunStarted {
                        kind: RunKind::Drill,
                        name,
                        ..
                    },
                    _,
                ) => {
                    let run = run.clone();
                    listed = Some(Listed {
                        run,
                        runbook: name,
                        started_at: entry.at,
                        outcome: None,
                        report: None,
                    });
                }
                (Event::RunFinished { outcome, report }, Some(listed)) => {
                    (listed.outcome, listed.report) = (Some(outcome), report);
                }
                _ => {}
            }
        }
        drills.extend(listed);
    }
    Ok(drills)
}

fn list(context: &Context, format: Format) -> Result<Verdict> {
    let drills = drills(&context.state()?)?;
    if format.json {
        print_json(&drills);
        return Ok(Verdict::Done);
    }
    let mut rows = vec![["DRILL", "RUNBOOK", "STARTED", "OUTCOME", "REPORT"].map(str::to_owned)];
    for drill in drills {
        rows.push([
            drill.run.to_string(),
            drill.runbook,
            drill.started_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            drill
                .outcome
                .map_or("not ended".to_owned(), |outcome| outcome.to_string()),
            drill.report.map_or_else(String::new, |path| {
                path.join(REPORT_HTML).display().to_string()
            }),
        ]);
    }
    table(&rows);
    Ok(Verdict::Done)
}

fn show(context: &Context, id: &str, format: Format) -> Result<Verdict> {
    let drills = drills(&context.state()?)?;
    let mut fitting = drills
        .into_iter()
        .filter(|drill| drill.run.as_str().ends_with(id));
    let problem = |problem: String| Error::Request {
        problem,
        hint: Some("`relevo drill list` shows all drills of this computer".to_owned()),
    };
    let drill = fitting
        .next()
        .ok_or_else(|| problem(format!("no drill {id}")))?;
    if fitting.next().is_some() {
        return Err(problem(format!("several drills end in {id}")));
    }
    let directory = drill
        .report
        .ok_or_else(|| problem(format!("{} has no report: it did not end", drill.run)))?;
    let report = Report::open(&directory.join(REPORT_JSON))?;
    if format.json {
        print_json(&report);
    } else {
        summary(&report);
        print_line(&format!(
            "report       {}",
            directory.join(REPORT_HTML).display()
        ));
    }
    Ok(Verdict::Done)
}
