// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo serve`: prepares images as they come into the library.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use converter::plan::Verdict as PlanVerdict;
use image_library::client::Patience;
use image_library::program::{Verdict, print_line};
use image_library::terminal::{finding_text, say};
use jiff::Timestamp;
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::readiness::{News, Readiness, Rounds, Service, State, Wanted};
use recovery_orchestrator::runbook::parse_duration;
use recovery_orchestrator::{Error, Result};
use serde::Serialize;

use super::context::Context;
use super::output::reads_text;

/// How long a library server that is restarted is waited for within a round.
const PATIENCE: Patience = Patience {
    connect_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(30),
    give_up_after: Duration::from_secs(5),
};

/// An image in work is waited for so long at the end. Nothing is lost when it takes longer.
const LAST_IMAGE_PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);

const NOTES: &str = "\
The newest image of each server is inspected and converted, and the result kept beside it: `relevo
boot` and `relevo drill run` then only attach it. A server that cannot be converted any more is told
here at once, and shown by `relevo status`. What failed is tried again by a newer version of this
program, or with --again. Ctrl-C ends it; any number of these may run at once.";

#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct ServeArguments {
    /// The pause between two looks at the library, as 30s, 5m or 1h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_interval)]
    interval: Duration,
    /// Look once; exit code 1 says that problems were found
    #[arg(long, conflicts_with = "interval")]
    once: bool,
    /// Prepare older images too, after the newest of each server
    #[arg(long)]
    all: bool,
    /// Try again what failed before
    #[arg(long)]
    again: bool,
    /// Print JSON, one line for each piece of news
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("the shortest is 1s".to_owned()),
        interval => Ok(interval),
    }
}

pub(super) fn run(context: &Context, arguments: &ServeArguments) -> Result<Verdict> {
    let interrupt = Interrupt::install(super::end_at_once)?;
    let mut service = Service {
        location: context.library.clone(),
        open: context.open_later(&context.library, PATIENCE),
        rounds: Rounds::new(Wanted {
            all: arguments.all,
            again: arguments.again,
        })
        .with_secrets(context.secrets()?),
        interval: (!arguments.once).then_some(arguments.interval),
        machine: Box::new(context.small_vm(&interrupt)),
        interrupt: interrupt.clone(),
    };
    if !arguments.once {
        let library = &context.library;
        context.say(&format!(
            "Preparing the images of {library} as they come in; Ctrl-C ends it"
        ));
    }
    let found = Arc::new(AtomicBool::new(false));
    let (note, json) = (Arc::clone(&found), arguments.json);
    // On a thread of its own: a library that hangs must not keep this program from ending.
    let worker = thread::Builder::new()
        .name("prepare".to_owned())
        .spawn(move || {
            service.run(&disk::Silent, &mut |news| {
                note.fetch_or(news.problem().is_some(), Ordering::Relaxed);
                tell(news, json);
            })
        })
        .map_err(|error| Error::Request {
            problem: format!("cannot start a thread: {error}"),
            hint: None,
        })?;
    match (wait(worker, &interrupt), arguments.once) {
        (Ok(()) | Err(Error::Interrupted), false) => {
            context.say("Ended.");
            return Ok(Verdict::Done);
        }
        (result, _) => result?,
    }
    Ok(Verdict::of(!found.load(Ordering::Relaxed)))
}

/// Waits for the worker's end; once the end is asked for, only a while.
fn wait(worker: JoinHandle<Result<()>>, interrupt: &Interrupt) -> Result<()> {
    let mut asked: Option<Instant> = None;
    while !worker.is_finished() {
        if interrupt.is_raised() {
            let since = asked.get_or_insert_with(Instant::now).elapsed();
            if since >= LAST_IMAGE_PATIENCE {
                // Side files are replaced whole: the next one to look finds this image undone.
                return Err(Error::Interrupted);
            }
        }
        thread::sleep(TICK);
    }
    match worker.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    news: &'a News,
}

fn tell(news: &News, json: bool) {
    if json {
        let time = Timestamp::now();
        // Structs with names for keys can always be written.
        print_line(&serde_json::to_string(&Line { time, news }).unwrap_or_default());
        return;
    }
    match (news, news.problem()) {
        (News::LibraryAway { .. }, Some(finding)) => say(&finding_text(finding)),
        (_, Some(finding)) => print_line(&finding_text(finding)),
        (News::Prepared(readiness), None) => print_line(&prepared(readiness)),
        (News::LibraryBack { library }, None) => say(&format!("{library} is back")),
        (_, None) => {}
    }
}

fn prepared(readiness: &Readiness) -> String {
    let reads = readiness
        .reads
        .map(|reads| format!("; {}", reads_text(reads)));
    let (name, outcome) = (readiness.name(), outcome(readiness));
    format!("{name}: {outcome}{}", reads.unwrap_or_default())
}

/// What came of a preparation, in a few words.
pub(super) fn outcome(readiness: &Readiness) -> String {
    let text = match (&readiness.state, readiness.verdict) {
        (State::No, _) => "not prepared yet",
        (State::Failed, _) => "could not be prepared",
        (State::ByLater(version), _) => return format!("prepared by version {version}"),
        (State::Yes, Some(PlanVerdict::NeedsInput)) => "needs a decision first",
        (State::Yes, Some(PlanVerdict::NotConvertible)) => "cannot be converted",
        (State::Yes, Some(PlanVerdict::Ready) | None) => "ready as it is",
        (State::Yes, Some(PlanVerdict::ReadyWithChanges)) => {
            return format!("ready with {} edits", readiness.edit_count.unwrap_or(0));
        }
    };
    text.to_owned()
}
