// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetches ahead what the next boot of a server will read, as far as an earlier one tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::cached::Exported;
use super::source::KeptImage;
use super::trace::{Run, Trace};

/// Fetches what an earlier boot of the server read, in the order in which it did.
pub(super) struct Ahead {
    pub(super) image: Arc<KeptImage>,
    pub(super) disks: Vec<Arc<Exported>>,
    pub(super) replayed: Arc<OnceLock<Trace>>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Ahead {
    pub(super) fn run(self) {
        let Some(library) = self.image.library() else {
            return;
        };
        let Some(trace) = library
            .image(self.image.id())
            .ok()
            .and_then(|image| Trace::find(&*library, &image))
        else {
            return;
        };
        let trace = self.replayed.get_or_init(|| trace);
        for runs in trace.runs.chunk_by(|left, right| left.0 == right.0) {
            let disk = runs.first().and_then(|run| self.disks.get(run.0));
            let ranges: Vec<_> = runs.iter().map(Run::bytes).collect();
            match disk {
                Some(disk) if !self.stop.load(Ordering::Relaxed) => {
                    disk.fetch_ahead(&ranges, &self.stop);
                }
                _ => {}
            }
        }
    }
}
