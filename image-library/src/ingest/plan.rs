// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a stretch of disk must be read: not what is unused, not what is known to be zeros.

use std::ops::Range;

use disk::ReadAt;
use disk::block::ExtentKind;

use crate::error::Result;

/// The parts of `range` that must be read, in order; `used` is sorted, `None` is everything.
pub(super) fn parts_to_read(
    device: &dyn ReadAt,
    used: Option<&[Range<u64>]>,
    range: Range<u64>,
) -> Result<Vec<Range<u64>>> {
    let mut parts = Vec::new();
    match used {
        None => push_data(device, range, &mut parts)?,
        Some(used) => {
            let first = used.partition_point(|extent| extent.end <= range.start);
            for extent in &used[first..] {
                if extent.start >= range.end {
                    break;
                }
                let part = extent.start.max(range.start)..extent.end.min(range.end);
                push_data(device, part, &mut parts)?;
            }
        }
    }
    Ok(parts)
}

fn push_data(device: &dyn ReadAt, range: Range<u64>, parts: &mut Vec<Range<u64>>) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let extent = device.extent_at(at)?;
        // `length` is never 0; a device that breaks this must not hold us for ever.
        let end = at.saturating_add(extent.length.max(1)).min(range.end);
        if extent.kind == ExtentKind::Data {
            match parts.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = end,
                None => parts.push(at..end),
            }
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use disk::block::Extent;

    use super::{ExtentKind, ReadAt, parts_to_read};

    /// 100 bytes of data, 100 of holes, and so on.
    #[derive(Debug)]
    struct Striped;

    impl ReadAt for Striped {
        fn length_bytes(&self) -> u64 {
            1000
        }

        fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
            buffer.fill(1);
            Ok(())
        }

        fn extent_at(&self, offset: u64) -> disk::Result<Extent> {
            let kind = if (offset / 100).is_multiple_of(2) {
                ExtentKind::Data
            } else {
                ExtentKind::Zero
            };
            let length = 100 - offset % 100;
            Ok(Extent { length, kind })
        }
    }

    #[test]
    fn holes_are_left_out() {
        let parts = parts_to_read(&Striped, None, 50..430).expect("reads");
        assert_eq!(parts, [50..100, 200..300, 400..430]);
    }

    #[test]
    fn unused_space_is_left_out() {
        let used = [0..10, 60..70, 90..250, 420..600];
        let parts = parts_to_read(&Striped, Some(&used), 50..430).expect("reads");
        assert_eq!(parts, [60..70, 90..100, 200..250, 420..430]);
        let none = parts_to_read(&Striped, Some(&[]), 50..430).expect("reads");
        assert_eq!(none, []);
    }
}
