// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the caller of a conversion has to bring: somebody to tell, and a machine that runs a kernel.
//!
//! Virtual machines are not started here; a caller that has none can still convert every guest whose
//! filesystems are written natively.

use std::fmt::{self, Debug};
use std::sync::Arc;

use disk::{Monitor, SectorSize, WriteAt};

use crate::error::{Error, Result};
use crate::vm::DiskController;

/// Runs one of the guest's kernels with our program, in a virtual machine that is gone afterwards.
pub trait WriterMachine: Debug + Send + Sync {
    /// The program: an executable for x86-64 that needs no library.
    ///
    /// # Errors
    ///
    /// [`Error::WriterUnavailable`], with a hint, where there is none.
    fn program(&self) -> Result<Vec<u8>>;

    /// Runs it until the machine ends. The order is given away, so that what the machine has taken
    /// from it need not be kept beside the machine.
    ///
    /// # Errors
    ///
    /// [`Error::WriterUnavailable`] where no machine can be run, or it does not end in time.
    fn run(&self, order: WriterOrder, monitor: &dyn Monitor) -> Result<WriterOutput>;
}

/// A machine that is to be run.
#[derive(Debug)]
pub struct WriterOrder {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its initramfs.
    pub initramfs: Vec<u8>,
    /// Its command line; console on the first serial port.
    pub command_line: String,
    /// What its disks hang on.
    pub controller: DiskController,
    /// Its disks, to be read and written.
    pub disks: Vec<WriterDisk>,
    /// How much memory it has at first, in bytes.
    pub memory_bytes: u64,
    /// How much it has in a second run, after a first whose work was not done: too little memory shows
    /// in many ways. What the first one wrote is dropped.
    pub memory_bytes_max: u64,
    /// Whether a report says that the work is done.
    pub is_done: fn(&[u8]) -> bool,
}

/// A disk of the machine. On PCI bus 0: of virtio and SATA each one has a controller of its own in
/// `slot`, of IDE they are the drives of the mainboard's, in this order.
#[derive(Debug, Clone)]
pub struct WriterDisk {
    /// The bytes.
    pub device: Arc<dyn WriteAt>,
    /// Logical sector size.
    pub sector_size: SectorSize,
    /// The PCI slot of its controller.
    pub slot: u8,
}

/// What a machine said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterOutput {
    /// On its second serial port: our program.
    pub report: Vec<u8>,
    /// On its first one, the last part: the kernel.
    pub console: Vec<u8>,
}

/// What a conversion works with.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Writes what only the guest's own kernel can write.
    pub machine: &'a dyn WriterMachine,
    /// Is told how it goes on.
    pub monitor: &'a dyn Monitor,
}

impl Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

/// No machine: a guest that needs one is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMachine;

impl WriterMachine for NoMachine {
    fn program(&self) -> Result<Vec<u8>> {
        Err(Error::WriterUnavailable {
            problem: "this program runs no virtual machines".to_owned(),
            hint: Some("use `relevo convert`".to_owned()),
        })
    }

    fn run(&self, _order: WriterOrder, _monitor: &dyn Monitor) -> Result<WriterOutput> {
        self.program().map(|_| WriterOutput::default())
    }
}
