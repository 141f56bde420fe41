// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo image`: into the library, out of it, and what is in it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use disk::Monitor as _;
use disk::block::{DiskFormat, OpenOptions, copy_to_qcow2, copy_to_raw, open_disk};
use disk::filesystem::FileType;
use image_library::program::{Verdict, print, print_json, print_line};
use image_library::terminal::{bytes_text, finding_text, say};
use image_library::{
    Consistency, DiskDraft, Image, ImageDraft, ImageRef, IngestDisk, LocalLibrary, Location,
    ServerName, UploadTarget, content_digest, ingest,
};
use jiff::Timestamp;
use recovery_orchestrator::browse::{Listed, Tree};
use recovery_orchestrator::{Error, Result};
use serde_json::json;

use super::context::{Context, create_directory};
use super::output::{DryRun, Format, table};
use super::serve;

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Take disks into the library as one image of a server: raw and qcow2 files, block devices
    Import(ImportArguments),
    /// List images, oldest first
    List {
        /// Only those of this server
        server: Option<ServerName>,
        #[command(flatten)]
        format: Format,
    },
    /// Show one image
    Show {
        /// Which image
        image: ImageRef,
        #[command(flatten)]
        format: Format,
    },
    /// Read everything again and check it
    Verify {
        /// Only this image [default: the whole library]
        image: Option<ImageRef>,
        #[command(flatten)]
        format: Format,
    },
    /// List a directory of an image
    Ls {
        /// Which image
        image: ImageRef,
        /// The path, as the server has it
        #[arg(default_value = "/")]
        path: String,
        #[command(flatten)]
        format: Format,
    },
    /// Print a file of an image
    Cat {
        /// Which image
        image: ImageRef,
        /// The path, as the server has it
        path: String,
    },
    /// Write the disks of an image to files, as they were
    Export(ExportArguments),
    /// Let other programs read the disks of an image over NBD, without copying them
    Serve(serve::ServeArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArguments {
    /// Whose image
    #[arg(long)]
    server: ServerName,
    /// When the disks were in use last, as 2026-11-01T10:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    taken_at: Option<Timestamp>,
    /// The disks, in the server's order
    #[arg(required = true, value_name = "DISK")]
    disks: Vec<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArguments {
    /// Which image
    image: ImageRef,
    /// Where to
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// The format of the files
    #[arg(long, value_enum, default_value_t)]
    to: FileFormat,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Formats of disk files that can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FileFormat {
    /// The bytes of the disk; holes stay holes
    #[default]
    Raw,
    /// QEMU's format
    Qcow2,
}

impl FileFormat {
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Writes a whole disk.
    pub(super) fn write(
        self,
        device: &dyn disk::ReadAt,
        path: &Path,
        monitor: &dyn disk::Monitor,
    ) -> Result<()> {
        match self {
            Self::Raw => copy_to_raw(device, path, monitor)?,
            Self::Qcow2 => copy_to_qcow2(device, path, monitor)?,
        };
        Ok(())
    }
}

pub(super) fn run(context: &Context, command: ImageCommand) -> Result<Verdict> {
    match command {
        ImageCommand::Import(arguments) => import(context, &arguments),
        ImageCommand::List { server, format } => list(context, server.as_ref(), format),
        ImageCommand::Show { image, format } => show(context, &image, format),
        ImageCommand::Verify { image, format } => verify(context, image.as_ref(), format),
        ImageCommand::Ls {
            image,
            path,
            format,
        } => ls(context, &image, &path, format),
        ImageCommand::Cat { image, path } => {
            print(&tree(context, &image)?.read(&path)?);
            Ok(Verdict::Done)
        }
        ImageCommand::Export(arguments) => export(context, &arguments),
        ImageCommand::Serve(arguments) => serve::run(context, &arguments),
    }
}

fn import(context: &Context, arguments: &ImportArguments) -> Result<Verdict> {
    let disks = open_disks(&arguments.disks)?;
    if arguments.dry_run.dry_run {
        for (disk, format) in &disks {
            let DiskDraft {
                name,
                size_bytes,
                sector_size,
            } = &disk.draft;
            let (size, sector) = (bytes_text(*size_bytes), sector_size.bytes());
            print_line(&format!(
                "would take in {name}: {format}, {size}, sectors of {sector} bytes"
            ));
        }
        print_line(&format!(
            "would commit them as an image of {} in {}",
            arguments.server, context.library
        ));
        return Ok(Verdict::Done);
    }
    let library = context.open_or_create_library()?;
    let monitor = context.monitor();
    let target = UploadTarget {
        server: arguments.server.clone(),
    };
    let draft = ImageDraft {
        taken_at: arguments.taken_at.unwrap_or_else(Timestamp::now),
        consistency: Consistency::Cold,
        machine: None,
    };
    let disks: Vec<IngestDisk> = disks.into_iter().map(|(disk, _)| disk).collect();
    let (image, stats) = ingest(&*library, &target, &disks, &draft, &monitor)?;
    monitor.finish();
    if arguments.format.json {
        print_json(&image);
    } else {
        context.say(&format!(
            "{} of disks, {} new, {} stored, {:.1} s",
            bytes_text(stats.disk_bytes),
            bytes_text(stats.new_bytes),
            bytes_text(stats.sent_bytes),
            stats.seconds
        ));
        print_line(&format!("{}@{}", image.server, image.id));
    }
    Ok(Verdict::Done)
}

/// Every byte of every disk: an exported image is the disk that was imported.
fn open_disks(paths: &[PathBuf]) -> Result<Vec<(IngestDisk, DiskFormat)>> {
    let mut disks: Vec<(IngestDisk, DiskFormat)> = Vec::new();
    for path in paths {
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if disks.iter().any(|(disk, _)| disk.draft.name == name) {
            return Err(Error::Request {
                problem: format!("two disks are called {name}"),
                hint: Some(
                    "rename one of the files: the name tells the disks of a server apart"
                        .to_owned(),
                ),
            });
        }
        let opened =
            open_disk(path, &OpenOptions::default()).map_err(|source| Error::DiskFile {
                path: path.clone(),
                source,
            })?;
        let draft = DiskDraft {
            name,
            size_bytes: opened.device.length_bytes(),
            sector_size: opened.sector_size,
        };
        disks.push((
            IngestDisk {
                draft,
                device: opened.device,
                used: None,
                known: None,
            },
            opened.format,
        ));
    }
    Ok(disks)
}

fn list(context: &Context, server: Option<&ServerName>, format: Format) -> Result<Verdict> {
    let images = context.open_library()?.images()?;
    let wanted = |image: &Image| server.is_none_or(|server| image.server == *server);
    let images: Vec<Image> = images.into_iter().filter(wanted).collect();
    if format.json {
        print_json(&images);
        return Ok(Verdict::Done);
    }
    let heading = [
        "SERVER",
        "TAKEN",
        "ID",
        "DISKS",
        "SIZE",
        "DATA",
        "CONSISTENCY",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for image in &images {
        let size: u64 = image.disks.iter().map(|disk| disk.size_bytes).sum();
        let data: u64 = image.disks.iter().map(|disk| disk.data_bytes).sum();
        rows.push([
            image.server.to_string(),
            image.taken_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            image.id.to_string(),
            image.disks.len().to_string(),
            bytes_text(size),
            bytes_text(data),
            consistency(image.consistency).to_owned(),
        ]);
    }
    table(&rows);
    Ok(Verdict::Done)
}

const fn consistency(level: Consistency) -> &'static str {
    match level {
        Consistency::Fuzzy => "fuzzy",
        Consistency::Crash => "crash",
        Consistency::Filesystem => "filesystem",
        Consistency::Application => "application",
        Consistency::Cold => "cold",
    }
}

fn show(context: &Context, wanted: &ImageRef, format: Format) -> Result<Verdict> {
    let (library, image) = context.open_image(wanted)?;
    if format.json {
        print_json(&image);
        return Ok(Verdict::Done);
    }
    let digest = image_library::image_digest(&*library, image.id)?;
    print_line(&format!("image        {}@{}", image.server, image.id));
    print_line(&format!("taken        {}", image.taken_at));
    print_line(&format!("received     {}", image.received_at));
    print_line(&format!("consistency  {}", consistency(image.consistency)));
    print_line(&format!("digest       {digest}"));
    if let Some(parent) = image.parent {
        print_line(&format!("increment of {parent}"));
    }
    for disk in &image.disks {
        print_line(&format!(
            "disk {}       {}: {}, {} of data, sectors of {} bytes",
            disk.index,
            disk.name,
            bytes_text(disk.size_bytes),
            bytes_text(disk.data_bytes),
            disk.sector_size.bytes()
        ));
    }
    if let Some(machine) = &image.machine {
        print_line(&format!(
            "machine      {}: {}, {} cores, {} of memory, {}",
            machine.hostname,
            machine.hardware.as_deref().unwrap_or("unknown hardware"),
            machine.cpu.cores,
            bytes_text(machine.memory_bytes),
            machine.os.name
        ));
    }
    Ok(Verdict::Done)
}

fn verify(context: &Context, wanted: Option<&ImageRef>, format: Format) -> Result<Verdict> {
    match (wanted, Location::parse(&context.library)?) {
        (None, Some(location)) => verify_library(context, &location, format),
        _ => verify_images(context, wanted, format),
    }
}

fn verify_library(context: &Context, location: &Location, format: Format) -> Result<Verdict> {
    let library = LocalLibrary::open_with_key(location, context.library_access()?)?;
    let monitor = context.monitor();
    let report = library.verify(&monitor)?;
    monitor.finish();
    if format.json {
        print_json(&report);
    } else {
        print_line(&format!(
            "{} images, {} packs, {} chunks, {} read, {} problems",
            report.images,
            report.packs,
            report.chunks,
            bytes_text(report.bytes_read),
            report.finding_count
        ));
    }
    Ok(Verdict::of(report.is_sound()))
}

/// Reads every byte of images, each chunk checked against its hash on the way.
fn verify_images(context: &Context, wanted: Option<&ImageRef>, format: Format) -> Result<Verdict> {
    let library = context.open_library()?;
    let images = match wanted {
        Some(wanted) => vec![wanted.choose(library.images()?)?],
        None => library.images()?,
    };
    let monitor = context.monitor();
    let mut results = Vec::new();
    let mut sound = true;
    for image in images {
        let name = format!("{}@{}", image.server, image.id);
        match content_digest(&*library, image.id, &monitor) {
            Ok(digest) => {
                results.push(json!({"image": name, "content_digest": digest.to_string()}));
            }
            Err(error @ image_library::Error::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                sound = false;
                say(&terminal_problem(&name, &error));
                results.push(json!({"image": name, "problem": error.to_string()}));
            }
        }
    }
    monitor.finish();
    if format.json {
        print_json(&results);
    } else {
        let damaged = results
            .iter()
            .filter(|result| result.get("problem").is_some())
            .count();
        print_line(&format!("{} images read, {damaged} damaged", results.len()));
    }
    Ok(Verdict::of(sound))
}

fn terminal_problem(place: &str, error: &dyn std::error::Error) -> String {
    finding_text(&disk::Finding {
        level: disk::Level::Error,
        code: "image.unreadable".to_owned(),
        place: place.to_owned(),
        problem: error.to_string(),
        remedy: Some("take a new image: it brings what is missing".to_owned()),
    })
}

fn tree(context: &Context, wanted: &ImageRef) -> Result<Tree> {
    let (library, image) = context.open_image(wanted)?;
    let disks = converter::prepare::open_disks(&*library, &image, &context.secrets()?)?;
    Tree::open(&disks, &disk::Silent)
}

fn ls(context: &Context, wanted: &ImageRef, path: &str, format: Format) -> Result<Verdict> {
    let listed = tree(context, wanted)?.list(path)?;
    if format.json {
        let value = |file: &Listed| {
            json!({
                "name": file.entry.name, "type": file.entry.file_type,
                "mode": format!("{:04o}", file.metadata.mode), "uid": file.metadata.uid,
                "gid": file.metadata.gid, "size_bytes": file.metadata.size_bytes,
                "target": file.target,
            })
        };
        print_json(&listed.iter().map(value).collect::<Vec<_>>());
        return Ok(Verdict::Done);
    }
    let rows: Vec<[String; 5]> = listed.iter().map(row).collect();
    table(&rows);
    Ok(Verdict::Done)
}

fn row(file: &Listed) -> [String; 5] {
    let kind = match file.entry.file_type {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Special => 's',
    };
    let target = file.target.as_ref().map(|target| format!(" -> {target}"));
    [
        format!("{kind}{:04o}", file.metadata.mode),
        file.metadata.uid.to_string(),
        file.metadata.gid.to_string(),
        format!("{:>12}", file.metadata.size_bytes),
        format!("{}{}", file.entry.name, target.unwrap_or_default()),
    ]
}

fn export(context: &Context, arguments: &ExportArguments) -> Result<Verdict> {
    let (library, image) = context.open_image(&arguments.image)?;
    let path = |disk: &image_library::ImageDisk| {
        arguments
            .output
            .join(format!("disk{}.{}", disk.index, arguments.to.ending()))
    };
    if arguments.dry_run.dry_run {
        for disk in &image.disks {
            print_line(&format!(
                "would write {} ({})",
                path(disk).display(),
                bytes_text(disk.size_bytes)
            ));
        }
        return Ok(Verdict::Done);
    }
    create_directory(&arguments.output)?;
    let monitor = context.monitor();
    for disk in &image.disks {
        let device = library.open_disk(image.id, disk.index)?;
        let path = path(disk);
        monitor.stage(&format!("Writing {}", path.display()));
        arguments.to.write(&*device, &path, &monitor)?;
        monitor.finish();
        print_line(&path.display().to_string());
    }
    Ok(Verdict::Done)
}
