// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests whose filesystems only their own kernel writes, in a small virtual machine.

use e2e::results::{Table, promise};
use e2e::{Library, SampleServer, Usage, warm_memory, work_dir};

use crate::{MEMORY_MAX_BYTES, cells, reference};

/// The sample servers that are like that, and what there is to write to.
const SERVERS: [(&str, &str); 3] = [
    ("btrfs", "btrfs"),
    ("uefi-xfs", "XFS"),
    ("lvm-xfs", "XFS on logical volumes"),
];

/// So many times less than virt-v2v takes of the processors.
const LESS_THAN_REFERENCE: f64 = 10.0;

/// The section's part, with what was measured now.
pub(crate) fn part(rounds: usize) -> String {
    let mut table = Table::new(&["disk", "by", "CPU s", "wall s", "peak MiB", "promise"]);
    for (name, filesystem) in SERVERS {
        let disk = format!("{name}: {filesystem}");
        let Some(server) = SampleServer::find(name) else {
            table.row(&skipped(&disk, "", "the sample server is not built"));
            continue;
        };
        let ours = match ours(&server, rounds) {
            Some(usage) => usage,
            None => {
                table.row(&skipped(&disk, "relevo", "no process namespace"));
                continue;
            }
        };
        let kept = promise(ours.memory_max_bytes < MEMORY_MAX_BYTES);
        table.row(&cells(&disk, "relevo", &ours, format!("memory: {kept}")));
        match reference::virt_v2v(&server.disk()) {
            Ok(usage) => {
                let times = usage.cpu.as_secs_f64() / ours.cpu.as_secs_f64();
                let kept = promise(times >= LESS_THAN_REFERENCE);
                let told = format!("{times:.0} times our CPU: {kept}");
                table.row(&cells(&disk, &reference::version(), &usage, told));
            }
            Err(reason) => table.row(&skipped(&disk, &reference::version(), &reason)),
        }
    }
    format!(
        "### Guests that only their own kernel writes\n\n\
         The same command for guests with XFS or btrfs: their own kernel writes them, in a small virtual\n\
         machine whose processors are emulated here as virt-v2v's are; median of {rounds} runs of *first*. Both\n\
         with everything that they start, memory as the sum of the shares.\n\
         Promised: {LESS_THAN_REFERENCE} times less CPU than virt-v2v, and under {} MiB.\n\n{table}",
        MEMORY_MAX_BYTES >> 20,
    )
}

/// `None` where this user may make no process namespace to measure it in.
fn ours(server: &SampleServer, rounds: usize) -> Option<Usage> {
    let samples: Option<Vec<Usage>> = (0..rounds)
        .map(|_| {
            let _slot = e2e::one_machine_at_a_time();
            let work = work_dir();
            let library = Library::create(work.path());
            library.import("x", &server.disk());
            warm_memory(work.path());
            let program = library
                .relevo()
                .args("convert x --to qcow2 -o")
                .arg(work.path().join("out"));
            let outcome = program.run_with_family(|program| program)?;
            assert_eq!(outcome.code, Some(0), "{outcome}");
            Some(outcome.usage)
        })
        .collect();
    samples.map(|samples| Usage::median(&samples))
}

fn skipped(disk: &str, by: &str, reason: &str) -> [String; 6] {
    let [cpu, wall, peak] = [String::new(), String::new(), String::new()];
    let (disk, by) = (disk.to_owned(), by.to_owned());
    [disk, by, cpu, wall, peak, format!("skipped: {reason}")]
}
