// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library prune`, `delete`, `undelete`, `deleted`: what is kept, and what goes.

use std::time::Duration;

use clap::Args;
use image_library::program::{Verdict, print, print_json, print_line};
use image_library::terminal::{Terminal, bytes_text};
use image_library::{
    AuditAction, AuditEvent, DeletedImage, Error, Image, ImageRef, KeepPolicy, LibraryAccess,
    LocalLibrary, Location, PruneOptions, PruneReport, Result, Which,
};
use jiff::{Span, SpanRelativeTo};
use serde_json::json;

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// A directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// Keep the newest N images of each server.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest image of each of the last N hours that have one, and so on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// The same for days.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// The same for ISO weeks.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// The same for months.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// The same for years.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// How long deleted images can be taken back, and unused packs stay before they are removed.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    grace: Duration,
    /// This machine alone prunes this library: needed for a bucket whose store does not honour
    /// conditions of writes, so that two prunes could not see each other.
    #[arg(long)]
    sole_pruner: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl PruneArguments {
    pub(crate) fn run(&self, access: &LibraryAccess, terminal: &Terminal) -> Result<Verdict> {
        let keep = KeepPolicy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
        };
        let options = PruneOptions {
            // Without a rule no image is deleted; what was deleted by hand is cleaned up.
            keep: (!keep.is_empty()).then_some(keep),
            grace: self.grace,
            dry_run: self.dry_run,
            is_sole_pruner: self.sole_pruner,
        };
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let report = library.prune(&options, terminal)?;
        for deleted in report
            .decisions
            .iter()
            .filter(|decision| decision.keep.is_empty())
        {
            if !self.dry_run {
                library.audit_local(AuditAction::DeleteImage, |event| AuditEvent {
                    server: Some(deleted.server.clone()),
                    image: Some(deleted.image),
                    ..event
                })?;
            }
        }
        terminal.finish();
        if self.json {
            print_json(&report);
        } else {
            print(report_text(&report, self.dry_run));
        }
        Ok(Verdict::Done)
    }
}

fn report_text(report: &PruneReport, dry_run: bool) -> String {
    let mut text = String::new();
    for decision in &report.decisions {
        let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
        let verdict = match (reasons.is_empty(), dry_run) {
            (false, _) => format!("keep    {}", reasons.join(", ")),
            (true, false) => "deleted".to_owned(),
            (true, true) => "delete".to_owned(),
        };
        let (server, time) = (&decision.server, decision.received_at);
        text.push_str(&format!(
            "{server}@{}  {time:.0}  {verdict}\n",
            decision.image
        ));
    }
    let would = if dry_run { "would be " } else { "" };
    let packs = |count: u64, bytes: u64, done: &str| {
        format!("{count} packs {would}{done} ({})\n", bytes_text(bytes))
    };
    text.push_str(&packs(
        report.removed_packs,
        report.removed_bytes,
        "removed",
    ));
    text.push_str(&packs(
        report.condemned_packs,
        report.condemned_bytes,
        "removed by a prune after the grace",
    ));
    for (count, what) in [
        (
            report.waiting_packs,
            "packs wait for the end of their grace",
        ),
        (report.spared_packs, "packs are in use again"),
        (
            report.purged.len() as u64,
            "deleted images cannot be taken back any more",
        ),
    ] {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    if report.unused_bytes > 0 {
        let unused = bytes_text(report.unused_bytes);
        text.push_str(&format!(
            "{unused} are unused in packs that are in use in part\n"
        ));
    }
    text
}

/// Moves one image into the trash.
pub(crate) fn delete(
    library: &Location,
    access: &LibraryAccess,
    image: &ImageRef,
) -> Result<Verdict> {
    if image.which == Which::Latest {
        return Err(Error::InvalidName {
            kind: "image to delete (SERVER@ID or SERVER@TIME, so that it is surely that one)",
            name: image.server.to_string(),
        });
    }
    let library = LocalLibrary::open_with_key(library, access)?;
    let found = image.resolve(&library)?;
    library.delete_image(found.id)?;
    audit(&library, AuditAction::DeleteImage, &found)?;
    print_line(&format!(
        "deleted {}@{}; until a prune after the grace, `image-library undelete` takes it back",
        found.server, found.id
    ));
    Ok(Verdict::Done)
}

/// Takes one image back from the trash.
pub(crate) fn undelete(
    library: &Location,
    access: &LibraryAccess,
    image: &ImageRef,
) -> Result<Verdict> {
    let library = LocalLibrary::open_with_key(library, access)?;
    let deleted = library.deleted_images()?.into_iter();
    let found = image.choose(deleted.map(|deleted| deleted.image).collect())?;
    library.undelete_image(found.id)?;
    audit(&library, AuditAction::UndeleteImage, &found)?;
    print_line(&format!("took back {}@{}", found.server, found.id));
    Ok(Verdict::Done)
}

fn audit(library: &LocalLibrary, action: AuditAction, image: &Image) -> Result<()> {
    library.audit_local(action, |event| AuditEvent {
        server: Some(image.server.clone()),
        image: Some(image.id),
        ..event
    })
}

/// Lists the trash.
pub(crate) fn deleted(library: &Location, access: &LibraryAccess, json: bool) -> Result<Verdict> {
    let library = LocalLibrary::open_with_key(library, access)?;
    let deleted = library.deleted_images()?;
    if json {
        let rows: Vec<_> = deleted.iter().map(row).collect();
        print_json(&rows);
        return Ok(Verdict::Done);
    }
    for DeletedImage { image, deleted_at } in &deleted {
        print_line(&format!(
            "{}@{}  received {:.0}  deleted {deleted_at:.0}",
            image.server, image.id, image.received_at
        ));
    }
    Ok(Verdict::Done)
}

fn row(deleted: &DeletedImage) -> serde_json::Value {
    json!({
        "id": deleted.image.id,
        "server": deleted.image.server,
        "received_at": deleted.image.received_at,
        "deleted_at": deleted.deleted_at,
    })
}

/// `90m`, `7d`, `2w`: a day has 24 hours.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("not a duration: {text:?}; write it as 90m, 12h, 7d or 2w");
    let span: Span = text.parse().map_err(wrong)?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(wrong)?;
    Duration::try_from(duration).map_err(wrong)
}
