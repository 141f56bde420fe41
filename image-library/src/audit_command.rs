// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library audit`: who did what with a library.

use std::time::Duration;

use clap::Args;
use image_library::program::{Verdict, print_line};
use image_library::{
    AuditActor, AuditEvent, AuditOutcome, LibraryAccess, LocalLibrary, Location, Result,
};
use jiff::Timestamp;

use crate::prune_command::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// The library: a directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// Only what was done since a time (2026-11-01T00:00:00Z), or in the last 12h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
}

impl AuditArguments {
    pub(crate) fn run(&self, access: &LibraryAccess) -> Result<Verdict> {
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let damaged = library.audit_events(self.since, &mut |event| {
            if self.json {
                // A struct with names for keys always can be written.
                print_line(&serde_json::to_string(event).unwrap_or_default());
            } else {
                print_line(&text(event));
            }
        })?;
        Ok(Verdict::of(damaged == 0))
    }
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Duration = parse_duration(text)?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|error| error.to_string())
}

fn text(event: &AuditEvent) -> String {
    let who = match &event.actor {
        AuditActor::Local => "local command".to_owned(),
        AuditActor::Token { id, role, peer } => format!("{role} {id} from {peer}"),
    };
    // The names of the JSON, without its quotes.
    let action = serde_json::to_value(event.action).unwrap_or_default();
    let action = action.as_str().unwrap_or_default().to_owned();
    let about = [
        event
            .server
            .as_ref()
            .map(|server| format!(" server {server}")),
        event.image.map(|image| format!(" image {image}")),
        event.disk.map(|disk| format!(" disk {disk}")),
        event.token.map(|token| format!(" token {token}")),
    ];
    let about: String = about.into_iter().flatten().collect();
    let outcome = match &event.outcome {
        AuditOutcome::Done => String::new(),
        AuditOutcome::Refused { problem } => format!("  refused: {problem}"),
    };
    format!("{:.0}  {who}  {action}{about}{outcome}", event.at)
}
