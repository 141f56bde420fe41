// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/init` of the small virtual machine: loads modules, mounts, writes, unmounts, ends the machine.
//!
//! It ends with a restart, which the hypervisor takes for the end: unlike switching off, that works
//! with every kernel.
#![forbid(unsafe_code)]

mod machine;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use guest_writer::files::Files;
use guest_writer::{ORDER, Order, Report};
use machine::Port;

fn main() {
    // There is nobody to tell before there is a port; the machine ends, and says so by its silence.
    if machine::is_first_process()
        && let Ok(mut port) = machine::set_up()
    {
        let outcome = read_order().and_then(|order| work(&order, &mut port));
        let last = match outcome {
            Ok(true) => Report::Finished,
            // What failed is reported.
            Ok(false) => return machine::end(&port),
            Err(error) => Report::Broken {
                problem: error.to_string(),
            },
        };
        port.say(&last);
        machine::end(&port);
    } else {
        let _ = writeln!(
            io::stderr(),
            "this program is started by relevo in a virtual machine, and does nothing elsewhere"
        );
    }
}

fn read_order() -> io::Result<Order> {
    let bytes = fs::read(Path::new("/").join(ORDER))?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// Whether all is done.
fn work(order: &Order, port: &mut Port) -> io::Result<bool> {
    port.say(&Report::Started);
    machine::panic_without_memory();
    machine::set_clock(order.now_unix_seconds)?;
    for path in &order.modules {
        let file = Path::new("/").join(path);
        let module = fs::read(&file)?;
        // Its memory is wanted, and there is only memory.
        fs::remove_file(&file)?;
        if let Err(error) = machine::load_module(&module) {
            port.say(&Report::Module {
                path: path.clone(),
                problem: error.to_string(),
            });
        }
    }
    let mut mounted = Vec::new();
    let mut is_done = mount_all(order, &mut mounted, port);
    is_done = is_done && carry_out_all(order, &mounted, port)?;
    for (mount, point) in mounted.iter().enumerate().rev() {
        if let Err(error) = unmount(point) {
            let problem = format!("it cannot be unmounted: {error}");
            port.say(&Report::MountFailed { mount, problem });
            is_done = false;
        }
    }
    Ok(is_done)
}

fn mount_all(order: &Order, mounted: &mut Vec<PathBuf>, port: &mut Port) -> bool {
    for (mount, wanted) in order.mounts.iter().enumerate() {
        let point = PathBuf::from(format!("/mnt/{mount}"));
        match machine::mount(wanted, &point) {
            Ok(()) => {
                mounted.push(point);
                port.say(&Report::Mounted { mount });
            }
            Err(error) => {
                let problem = error.to_string();
                port.say(&Report::MountFailed { mount, problem });
                return false;
            }
        }
    }
    true
}

fn carry_out_all(order: &Order, mounted: &[PathBuf], port: &mut Port) -> io::Result<bool> {
    for (number, operation) in order.operations.iter().enumerate() {
        let root = mounted.get(operation.mount);
        let files = Files {
            root: root.ok_or_else(|| io::Error::other("an operation in no filesystem"))?,
            contents: Path::new("/"),
            now_unix_seconds: order.now_unix_seconds,
        };
        if let Err(error) = files.carry_out(operation) {
            port.say(&Report::Failed {
                operation: number,
                problem: error.to_string(),
            });
            return Ok(false);
        }
        port.say(&Report::Done { operation: number });
    }
    Ok(true)
}

/// Everything reaches the disk first, so that an error of the disk is seen.
fn unmount(point: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(point)?)?;
    machine::unmount(point)
}
