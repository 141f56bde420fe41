// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts disk files without a library: prints the inspection and the plan, and writes one
//! overlay per changed disk, whose backing file is the disk.
//!
//! `convert_disk SERVER OUTPUT-DIRECTORY DISK...`
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use std::path::PathBuf;

use converter::apply::{ApplyOptions, NoMachine, Work};
use converter::plan::PlanOptions;
use converter::prepare::convert_disks;
use converter::verify::checker;
use converter::{GuestDisk, Secrets};
use disk::Silent;
use disk::block::{Backing, OpenOptions, open_disk};
use image_library::DiskIndex;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: convert_disk SERVER OUTPUT-DIRECTORY DISK...".into());
    };
    let output = PathBuf::from(output);
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let mut disks = Vec::new();
    for (index, path) in (0..).zip(&paths) {
        let opened = open_disk(path, &OpenOptions::default())?;
        disks.push(GuestDisk {
            index: DiskIndex(index),
            name: None,
            device: opened.device,
            sector_size: opened.sector_size,
            secrets: Secrets::default(),
        });
    }
    let apply = ApplyOptions {
        now_unix_seconds: 1_700_000_000,
    };
    let work = Work {
        machine: &NoMachine,
        monitor: &Silent,
    };
    let converted = convert_disks(&disks, None, &PlanOptions::new(server), &apply, work)?;
    println!("{}\n{}", converted.inspection, converted.plan);
    let Some(applied) = converted.applied else {
        return Err("the guest cannot be converted as it is".into());
    };
    for (index, overlay) in &applied.overlays {
        let path = output.join(format!("overlay-{index}.qcow2"));
        let backing = Backing {
            name: std::path::absolute(&paths[usize::from(index.0)])?
                .display()
                .to_string(),
            format: "raw".to_owned(),
        };
        let length = overlay.save_qcow2(&path, Some(backing))?;
        println!("{}: {length} bytes", path.display());
    }
    for finding in checker::check(&applied, &disks, &output, &Silent)? {
        println!("{}: {}", finding.code, finding.problem);
    }
    let vm = serde_json::to_string_pretty(&converted.plan.vm)?;
    std::fs::write(output.join("vm.json"), vm)?;
    Ok(())
}
