// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo convert`: the plan, the prepared overlay, or whole converted disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use converter::MeteredDisks;
use converter::apply::ApplyOptions;
use converter::inspect::inspect;
use converter::plan::{Plan, plan};
use converter::prepare::{convert_disks, open_disks, prepare};
use converter::verify::checker;
use disk::block::{MemoryDevice, Overlay, OverlayOptions, Reads};
use disk::{Level, Monitor, ReadAt};
use image_library::program::{Verdict, print_json, print_line};
use image_library::{FileError, Image, ImageReader, ImageRef};
use recovery_orchestrator::guest::prepare_options;
use recovery_orchestrator::{Error, Result};
use serde::Serialize;

use super::context::{Context, create_directory};
use super::image::FileFormat;
use super::output::{DryRun, Format, reads_text};

#[derive(Debug, clap::Args)]
pub(super) struct ConvertArguments {
    /// Which image
    image: ImageRef,
    /// Only print the plan: every edit with its reasons and a diff
    #[arg(long)]
    plan: bool,
    /// Run each written filesystem's own checker (e2fsck, fsck.fat) on the result
    #[arg(long, conflicts_with = "plan")]
    check: bool,
    /// Convert anew, even if a prepared overlay is kept beside the image
    #[arg(long, conflicts_with = "plan")]
    again: bool,
    /// The format of the disks that are written
    #[arg(long, value_enum, default_value = "qcow2", requires = "output")]
    to: FileFormat,
    /// Write whole converted disks, and machine.json, into this directory
    #[arg(long, short, value_name = "DIR", conflicts_with = "plan")]
    output: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, arguments: &ConvertArguments) -> Result<Verdict> {
    let (library, image) = context.open_image(&arguments.image)?;
    if arguments.plan || arguments.dry_run.dry_run {
        return show_plan(context, &*library, &image, arguments.format);
    }
    let monitor = context.monitor();
    let prepared = prepare(
        &*library,
        &image,
        &prepare_options(&image, arguments.again),
        &monitor,
    )?;
    monitor.finish();
    if !prepared.plan.verdict.is_ready() {
        return Err(not_ready(&image, &prepared.plan));
    }
    let mut verdict = Verdict::Done;
    if arguments.check {
        verdict = check(&*library, &image, &monitor)?;
        monitor.finish();
    }
    if let Some(directory) = &arguments.output {
        write_disks(
            &*library,
            &image,
            &prepared,
            (directory, arguments.to),
            &monitor,
        )?;
    }
    if arguments.format.json {
        print_json(&ShownPlan {
            plan: &prepared.plan,
            reads: prepared.reads,
        });
    } else if arguments.output.is_none() {
        let how = if prepared.reused {
            "was kept"
        } else {
            "is kept"
        };
        print_line(&format!(
            "{}: {}; the overlay {how} beside the image",
            image.server, prepared.plan.verdict
        ));
    }
    Ok(verdict)
}

/// A plan as JSON.
#[derive(Serialize)]
struct ShownPlan<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// What was read of the image's disks for it.
    reads: Reads,
}

fn show_plan(
    context: &Context,
    library: &dyn ImageReader,
    image: &Image,
    format: Format,
) -> Result<Verdict> {
    let monitor = context.monitor();
    let disks = MeteredDisks::new(&open_disks(library, image)?);
    let inspection = inspect(disks.disks(), image.machine.as_ref(), &monitor)?;
    let plan = plan(&inspection, &prepare_options(image, false).plan);
    monitor.finish();
    let reads = disks.reads();
    if format.json {
        print_json(&ShownPlan { plan: &plan, reads });
    } else {
        print_line(plan.to_string().trim_end());
        context.say(&reads_text(reads));
    }
    Ok(Verdict::of(plan.verdict.is_ready()))
}

fn errors(plan: &Plan) -> impl Iterator<Item = &disk::Finding> {
    plan.findings
        .iter()
        .filter(|finding| finding.level == Level::Error)
}

fn not_ready(image: &Image, plan: &Plan) -> Error {
    let problems: Vec<String> = errors(plan)
        .map(|finding| format!("{}: {}", finding.place, finding.problem))
        .collect();
    let remedy = errors(plan).find_map(|finding| finding.remedy.clone());
    Error::Request {
        problem: format!(
            "{}@{} {}: {}",
            image.server,
            image.id,
            plan.verdict,
            problems.join("; ")
        ),
        hint: Some(
            remedy.unwrap_or_else(|| format!("`relevo inspect {}` says more", image.server)),
        ),
    }
}

/// Converts once more in memory and lets the checkers look at the result.
fn check(library: &dyn ImageReader, image: &Image, monitor: &dyn Monitor) -> Result<Verdict> {
    let disks = open_disks(library, image)?;
    let options = prepare_options(image, true).plan;
    let apply = ApplyOptions {
        now_unix_seconds: image.taken_at.as_second(),
    };
    let converted = convert_disks(
        &disks,
        image.machine.as_ref(),
        &options,
        &apply,
        &disk::Silent,
    )?;
    let Some(applied) = converted.applied else {
        return Ok(Verdict::Problems);
    };
    let directory = tempfile::tempdir()
        .map_err(FileError::on("create a directory in", std::env::temp_dir()))?;
    monitor.stage("Checking the filesystems that were written");
    let findings = checker::check(&applied, &disks, directory.path(), &disk::Silent)?;
    for finding in &findings {
        monitor.finding(finding);
    }
    Ok(Verdict::of(
        findings.iter().all(|finding| finding.level != Level::Error),
    ))
}

fn write_disks(
    library: &dyn ImageReader,
    image: &Image,
    prepared: &converter::prepare::Prepared,
    (directory, format): (&Path, FileFormat),
    monitor: &image_library::terminal::Terminal,
) -> Result<()> {
    create_directory(directory)?;
    for disk in &image.disks {
        let base = library.open_disk(image.id, disk.index)?;
        let overlay = prepared
            .overlays
            .iter()
            .find(|(index, _)| *index == disk.index);
        let device: Arc<dyn ReadAt> = match overlay {
            Some((_, bytes)) => merged(base, bytes)?,
            None => base,
        };
        let path = directory.join(format!("disk{}.{}", disk.index, format.ending()));
        monitor.stage(&format!("Writing {}", path.display()));
        format.write(&*device, &path, monitor)?;
        monitor.finish();
        print_line(&path.display().to_string());
    }
    let path = directory.join("machine.json");
    let machine = serde_json::to_vec_pretty(&prepared.vm).unwrap_or_default();
    std::fs::write(&path, machine).map_err(FileError::on("write", path.as_path()))?;
    Ok(())
}

fn merged(base: Arc<dyn ReadAt>, overlay: &[u8]) -> Result<Arc<dyn ReadAt>> {
    let image = MemoryDevice::from(overlay.to_vec());
    let options = OverlayOptions {
        limit_bytes: u64::MAX,
    };
    Ok(Arc::new(Overlay::from_qcow2(
        Arc::new(image),
        base,
        options,
    )?))
}
