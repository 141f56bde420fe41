// SPDX-License-Identifier: MIT OR Apache-2.0
//! The harness of the whole-path tests: they run the programs as a user does, on servers that were
//! built by script, and read as prose.
//!
//! A test that this machine cannot run says `skipped: <reason>` and ends; `E2E_REQUIRE=all` turns
//! that into a failure. The runner script counts the lines and lists them.
//!
//! Nothing here looks into the programs: what a test knows, it knows from their output, their exit
//! codes and the files they leave.
#![forbid(unsafe_code)]

mod block_device;
mod damage;
mod disks;
mod distance;
mod family;
mod files;
mod garage;
mod grown;
mod library;
mod nbd;
mod page_cache;
mod program;
mod relay;
pub mod results;
mod runbook;
mod server;
mod spoken;
pub mod tidy;
mod toolbox;
mod usage;
mod waiting;

pub use block_device::{LoopDevice, Mounted};
pub use damage::{overwrite, scatter_writes, scatter_writes_over_data, truncate_to_half};
pub use disks::{PhonyServer, noise, raw_disk, raw_ext4};
pub use distance::Distance;
pub use files::{bytes_below, disks_in, files_called, files_ending, the_only_disk};
pub use garage::Garage;
pub use grown::{DISK_SIZES, DiskSize, grown_disk};
pub use library::{Library, differing_blocks};
pub use nbd::NbdClient;
pub use page_cache::{forget, read_into_memory, warm_memory};
pub use program::{Outcome, Program, Running, Signal, signal};
pub use relay::Relay;
pub use runbook::Runbook;
pub use server::{PROJECT_DIR, SampleServer};
pub use spoken::Spoken;
pub use toolbox::{
    cache_dir, can_mount, free_port, have_tool, one_machine_at_a_time, skip, work_dir,
};
pub use usage::{Usage, user_time};
pub use waiting::{CleanUp, page, shows_page, wait_for_guest, wait_until};
