// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library verify`: reads a library again, all or some of it.

use clap::Args;
use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::{Terminal, bytes_text};
use image_library::{
    ImageRef, LibraryAccess, LocalLibrary, Location, Result, Share, VerifyOptions, VerifyReport,
    VerifyScope,
};

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// A directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// Only these images, each chunk of them: SERVER, SERVER@ID or SERVER@TIME.
    images: Vec<ImageRef>,
    /// All documents and manifests, but of the packs only this share, chosen anew each time: 5%.
    #[arg(long, value_name = "SHARE", conflicts_with = "images")]
    sample: Option<Share>,
    /// Say what is damaged, and write nothing down: it is not taken again then.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl VerifyArguments {
    pub(crate) fn run(&self, access: &LibraryAccess, terminal: &Terminal) -> Result<Verdict> {
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let options = VerifyOptions {
            scope: self.scope(&library)?,
            dry_run: self.dry_run,
        };
        let report = library.verify_with(&options, terminal)?;
        terminal.finish();
        if self.json {
            print_json(&report);
        } else {
            print_line(&report_text(&options.scope, &report));
        }
        Ok(Verdict::of(report.is_sound()))
    }

    fn scope(&self, library: &LocalLibrary) -> Result<VerifyScope> {
        if let Some(share) = self.sample {
            return Ok(VerifyScope::Sample(share));
        }
        if self.images.is_empty() {
            return Ok(VerifyScope::Everything);
        }
        let found = self
            .images
            .iter()
            .map(|image| Ok(image.resolve(library)?.id));
        found.collect::<Result<_>>().map(VerifyScope::Images)
    }
}

fn report_text(scope: &VerifyScope, report: &VerifyReport) -> String {
    let read = bytes_text(report.bytes_read);
    let what = match scope {
        VerifyScope::Everything => format!("{} packs with {} chunks", report.packs, report.chunks),
        VerifyScope::Sample(_) => format!(
            "{} of {} packs with {} chunks",
            report.packs, report.packs_in_library, report.chunks
        ),
        VerifyScope::Images(_) => "the disks".to_owned(),
    };
    format!(
        "{what} ({read}), {} images: {} findings, {} images damaged",
        report.images,
        report.finding_count,
        report.damaged_images.len()
    )
}
