// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo convert`: the plan, the prepared overlay, or whole converted disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use converter::apply::{ApplyOptions, Work};
use converter::export::{GuestFacts, Hardware, Networks, Target};
use converter::inspect::{Inspection, inspect};
use converter::plan::{Plan, plan};
use converter::prepare::{PrepareOptions, convert_disks, open_disks, prepare};
use converter::verify::checker;
use converter::vm::{DirectBoot, KernelFiles, VmDefinition};
use converter::{GuestDisk, MeteredDisks, Secrets};
use disk::block::Reads;
use disk::{Finding, Level, Monitor as _, ReadAt};
use image_library::program::{Verdict, print_json, print_line};
use image_library::terminal::Terminal;
use image_library::{DiskIndex, FileError, Image, ImageReader, ImageRef};
use recovery_orchestrator::export::{Disks, ExportFile, ExportMachine, ExportPlan, Writing};
use recovery_orchestrator::guest::prepare_options;
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::{Error, Result};
use serde::Serialize;

use super::context::{Context, create_directory};
use super::output::{DryRun, Format, reads_text};

const NOTES: &str = "\
Each document begins with a comment that says how to use it. Disks are written by this program, in
the formats of VMware, Hyper-V and VirtualBox by qemu-img. Nothing that exists is overwritten.";

#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct ConvertArguments {
    /// Which image
    image: ImageRef,
    /// Only print the plan: every edit with its reasons and a diff
    #[arg(long)]
    plan: bool,
    /// Run each written filesystem's own checker (e2fsck, fsck.fat, xfs_repair, btrfs) on the result
    #[arg(long, conflicts_with = "plan")]
    check: bool,
    /// Convert anew, even if a prepared overlay is kept beside the image
    #[arg(long, conflicts_with = "plan")]
    again: bool,
    /// Leave services of the physical server's hardware on
    #[arg(long)]
    keep_services: bool,
    /// What for: the format of the disks, or the platform
    #[arg(long, value_enum, default_value = "qcow2", requires = "output")]
    to: To,
    /// Write whole converted disks, the platform's document and machine.json into this directory
    #[arg(long, short, value_name = "DIR", conflicts_with = "plan")]
    output: Option<PathBuf>,
    /// The platform's network of all network cards, or of one by its name in the guest; repeatable
    #[arg(long, value_name = "[CARD=]NETWORK", requires = "output")]
    network: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    format: Format,
}

/// What an image can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Disks for QEMU
    Qcow2,
    /// Disks as they are; holes stay holes
    Raw,
    /// Disks to be imported into VMware (stream-optimised)
    Vmdk,
    /// One file for VMware and VirtualBox
    Ova,
    /// A machine of VMware Workstation or Player
    Vmx,
    /// A machine of Hyper-V, with a script that makes it
    Vhdx,
    /// Disks for Hyper-V generation 1, Azure or XCP-ng
    Vhd,
    /// Disks for VirtualBox
    Vdi,
    /// A domain of libvirt
    Libvirt,
    /// A machine of Proxmox VE
    Proxmox,
    /// A virtual machine of KubeVirt
    Kubevirt,
    /// A domain of Xen
    Xen,
}

impl From<To> for Target {
    fn from(to: To) -> Self {
        match to {
            To::Qcow2 => Self::Qcow2,
            To::Raw => Self::Raw,
            To::Vmdk => Self::Vmdk,
            To::Ova => Self::Ova,
            To::Vmx => Self::Vmx,
            To::Vhdx => Self::Vhdx,
            To::Vhd => Self::Vhd,
            To::Vdi => Self::Vdi,
            To::Libvirt => Self::Libvirt,
            To::Proxmox => Self::Proxmox,
            To::Kubevirt => Self::Kubevirt,
            To::Xen => Self::Xen,
        }
    }
}

impl ConvertArguments {
    /// As every command prepares images, but for what was asked here.
    fn options(&self, image: &Image, secrets: &Secrets) -> PrepareOptions {
        let mut options = prepare_options(image, self.again, secrets);
        options.plan.keep_services = self.keep_services;
        options
    }
}

pub(super) fn run(context: &Context, arguments: &ConvertArguments) -> Result<Verdict> {
    let networks = networks(arguments)?;
    let (library, image) = context.open_image(&arguments.image)?;
    if arguments.plan || arguments.dry_run.dry_run {
        return show_plan(context, arguments, networks, (&*library, &image));
    }
    let options = arguments.options(&image, &context.secrets()?);
    let monitor = context.monitor();
    let interrupt = Interrupt::install(super::end_at_once)?;
    let small_vm = context.small_vm(&interrupt);
    let work = Work {
        machine: &small_vm,
        monitor: &monitor,
    };
    let prepared = prepare(&*library, &image, &options, work)?;
    interrupt.check()?;
    monitor.finish();
    if !prepared.plan.verdict.is_ready() {
        return Err(not_ready(&image, &prepared.plan));
    }
    let mut verdict = Verdict::Done;
    if arguments.check {
        verdict = check(&*library, &image, &options, work)?;
        monitor.finish();
    }
    let mut shown = None;
    if let Some(directory) = &arguments.output {
        let machine = machine(&image, &prepared.vm, &prepared.inspection, networks);
        let directory = absolute(directory)?;
        let plan = ExportPlan::new(arguments.to.into(), &machine, &directory);
        let disks = prepared.converted_disks(&*library, &image, &options.secrets)?;
        let disks = ConvertedDisks(disks);
        let writing = Writing {
            disks: &disks,
            interrupt: &interrupt,
        };
        write(&plan, writing, &directory, arguments.format, &monitor)?;
        shown = Some(ShownExport::of(&plan));
    }
    if arguments.format.json {
        print_json(&ShownPlan {
            plan: &prepared.plan,
            reads: prepared.reads,
            export: shown,
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

fn networks(arguments: &ConvertArguments) -> Result<Networks> {
    Networks::parse(&arguments.network).map_err(|problem| Error::Request {
        problem: format!("--network {problem}"),
        hint: None,
    })
}

fn machine<'a>(
    image: &Image,
    vm: &'a VmDefinition,
    inspection: &Inspection,
    networks: Networks,
) -> ExportMachine<'a> {
    ExportMachine {
        vm,
        guest: GuestFacts::of(inspection),
        networks,
        unix_seconds: u64::try_from(image.taken_at.as_second()).unwrap_or_default(),
    }
}

/// Documents name the directory, and are read from elsewhere.
fn absolute(directory: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(directory).map_err(FileError::on("find", directory))?)
}

/// A plan as JSON.
#[derive(Serialize)]
struct ShownPlan<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// What was read of the image's disks for it.
    reads: Reads,
    /// What is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<ShownExport>,
}

/// An export as JSON.
#[derive(Serialize)]
struct ShownExport {
    target: Target,
    hardware: Option<Hardware>,
    files: Vec<ExportFile>,
    findings: Vec<Finding>,
}

impl ShownExport {
    fn of(plan: &ExportPlan<'_>) -> Self {
        Self {
            target: plan.target,
            hardware: plan.exported.hardware,
            files: plan.files.clone(),
            findings: plan.exported.findings.clone(),
        }
    }
}

fn show_plan(
    context: &Context,
    arguments: &ConvertArguments,
    networks: Networks,
    (library, image): (&dyn ImageReader, &Image),
) -> Result<Verdict> {
    let options = arguments.options(image, &context.secrets()?);
    let monitor = context.monitor();
    let disks = MeteredDisks::new(&open_disks(library, image, &options.secrets)?);
    let inspection = inspect(disks.disks(), image.machine.as_ref(), &monitor)?;
    let plan = plan(&inspection, &options.plan);
    monitor.finish();
    let reads = disks.reads();
    let mut export = None;
    if let Some(directory) = arguments
        .output
        .as_deref()
        .filter(|_| plan.verdict.is_ready())
    {
        let machine = machine(image, &plan.vm, &inspection, networks);
        let files = ExportPlan::new(arguments.to.into(), &machine, &absolute(directory)?);
        export = Some(ShownExport::of(&files));
        for finding in &files.exported.findings {
            monitor.finding(finding);
        }
    }
    let fits = export
        .as_ref()
        .is_none_or(|export| !has_errors(&export.findings));
    if arguments.format.json {
        print_json(&ShownPlan {
            plan: &plan,
            reads,
            export,
        });
    } else {
        print_line(plan.to_string().trim_end());
        for file in export.iter().flat_map(|export| &export.files) {
            print_line(&format!("would write {}", file.path.display()));
        }
        context.say(&reads_text(reads));
    }
    Ok(Verdict::of(plan.verdict.is_ready() && fits))
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Error)
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
fn check(
    library: &dyn ImageReader,
    image: &Image,
    options: &PrepareOptions,
    work: Work<'_>,
) -> Result<Verdict> {
    let disks = open_disks(library, image, &options.secrets)?;
    let apply = ApplyOptions {
        now_unix_seconds: image.taken_at.as_second(),
    };
    let converted = convert_disks(
        &disks,
        image.machine.as_ref(),
        &options.plan,
        &apply,
        Work {
            monitor: &disk::Silent,
            ..work
        },
    )?;
    let Some(applied) = converted.applied else {
        return Ok(Verdict::Problems);
    };
    let directory = tempfile::tempdir()
        .map_err(FileError::on("create a directory in", std::env::temp_dir()))?;
    let monitor = work.monitor;
    monitor.stage("Checking the filesystems that were written");
    let findings = checker::check(&applied, &disks, directory.path(), &disk::Silent)?;
    for finding in &findings {
        monitor.finding(finding);
    }
    Ok(Verdict::of(
        findings.iter().all(|finding| finding.level != Level::Error),
    ))
}

fn write(
    plan: &ExportPlan<'_>,
    writing: Writing<'_>,
    directory: &Path,
    format: Format,
    monitor: &Terminal,
) -> Result<()> {
    let findings = plan.exported.findings.iter();
    // Those of an error are in the refusal.
    for finding in findings.filter(|finding| finding.level != Level::Error) {
        monitor.finding(finding);
    }
    plan.check()?;
    create_directory(directory)?;
    plan.write(writing, monitor, &mut |file| {
        monitor.finish();
        if !format.json {
            print_line(&file.path.display().to_string());
        }
    })
}

/// The disks of a prepared image.
#[derive(Debug)]
struct ConvertedDisks(Vec<GuestDisk>);

impl Disks for ConvertedDisks {
    fn open(&self, index: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        let mut disks = self.0.iter();
        let disk = disks.find(|disk| disk.index == index);
        let missing = || Error::Request {
            problem: format!("the image has no disk {index}"),
            hint: None,
        };
        disk.map(|disk| Arc::clone(&disk.device))
            .ok_or_else(missing)
    }

    fn read_kernel(&self, kernel: &DirectBoot) -> Result<KernelFiles> {
        Ok(kernel.read(&self.0)?)
    }
}
