// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo inspect`: what is in an image, and whether it will boot.

use converter::MeteredDisks;
use converter::inspect::inspect;
use converter::plan::{Report, plan};
use converter::prepare::open_disks;
use image_library::ImageRef;
use image_library::program::{Verdict, print_json, print_line};
use recovery_orchestrator::Result;
use recovery_orchestrator::guest::prepare_options;

use super::context::Context;
use super::output::{Format, reads_text};

#[derive(Debug, clap::Args)]
pub(super) struct InspectArguments {
    /// Which image
    image: ImageRef,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, arguments: &InspectArguments) -> Result<Verdict> {
    let (library, image) = context.open_image(&arguments.image)?;
    let secrets = context.secrets()?;
    let monitor = context.monitor();
    let disks = MeteredDisks::new(&open_disks(&*library, &image, &secrets)?);
    let inspection = inspect(disks.disks(), image.machine.as_ref(), &monitor)?;
    let plan = plan(&inspection, &prepare_options(&image, false, &secrets).plan);
    monitor.finish();
    if arguments.format.json {
        print_json(&Report::new(&inspection, &plan, disks.reads()));
    } else {
        print_line(inspection.to_string().trim_end());
        print_line(&format!(
            "verdict: {} ({} edits)",
            plan.verdict,
            plan.edits.len()
        ));
        for finding in &plan.findings {
            print_line(&image_library::terminal::finding_text(finding));
        }
        context.say(&reads_text(disks.reads()));
    }
    Ok(Verdict::of(plan.verdict.is_ready()))
}
