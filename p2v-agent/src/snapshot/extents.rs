// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a source is worth reading, in bytes and in chunks.

use std::ops::Range;

use disk::{DiskToRead, Monitor};

use crate::source::Source;

/// Ascending, merged ranges of bytes of the disk.
pub(super) fn worth_reading(source: &Source, monitor: &dyn Monitor) -> Vec<Range<u64>> {
    let disk = DiskToRead {
        device: &source.device,
        sector_size: source.sector_size,
        name: &source.name,
        busy_partitions: &source.busy_partitions,
    };
    disk::worth_reading(disk, monitor)
}

/// Ascending byte ranges as runs of chunks: a chunk of which any byte is needed is read whole.
pub(super) fn chunk_runs(ranges: &[Range<u64>], chunk_bytes: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let run = range.start / chunk_bytes..range.end.div_ceil(chunk_bytes);
        match runs.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => runs.push(run),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::chunk_runs;

    #[test]
    fn ranges_become_runs_of_whole_chunks() {
        let ranges = [0..1, 65_535..65_537, 300_000..300_001, 300_002..300_003];
        assert_eq!(chunk_runs(&ranges, 65_536), [0..2, 4..5]);
    }
}
