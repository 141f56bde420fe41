// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a running program takes of the machine, read from `/proc` until it has ended.
//!
//! CPU time is read last when the process is a zombie, so it is complete (with the children it waited
//! for) and exact to the kernel's clock tick. Peak memory is the kernel's own high-water mark, as of
//! the last look, at most 5 ms before the end.

use std::fs;
use std::time::Duration;

/// The kernel's clock tick for user space is 1/100 s on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time, elapsed time and peak memory of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time, children included.
    pub cpu: Duration,
    /// From start to end.
    pub wall: Duration,
    /// Most memory that was resident at a time.
    pub memory_max_bytes: u64,
}

impl Usage {
    /// The middle one of each figure; zeros of none.
    #[must_use]
    pub fn median(samples: &[Self]) -> Self {
        fn middle<T: Ord + Copy + Default>(samples: &[Usage], figure: impl Fn(&Usage) -> T) -> T {
            let mut figures: Vec<T> = samples.iter().map(figure).collect();
            figures.sort();
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        }
        Self {
            cpu: middle(samples, |usage| usage.cpu),
            wall: middle(samples, |usage| usage.wall),
            memory_max_bytes: middle(samples, |usage| usage.memory_max_bytes),
        }
    }

    /// Of two programs, one after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            cpu: self.cpu + next.cpu,
            wall: self.wall + next.wall,
            memory_max_bytes: self.memory_max_bytes.max(next.memory_max_bytes),
        }
    }

    /// Looks at a process, and tells whether it had ended: then this was its whole CPU time, if it was
    /// not waited for before.
    pub(crate) fn look(&mut self, process: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // A process that cannot be looked at keeps what was seen last.
        self.cpu = cpu_time(&stat).unwrap_or(self.cpu);
        if let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) {
            self.memory_max_bytes = memory_max(&status).unwrap_or(self.memory_max_bytes);
        }
        has_ended(&stat)
    }
}

/// The third field is the state: a zombie's is Z, and who was waited for has no fields.
fn has_ended(stat: &str) -> bool {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    matches!(fields.split_whitespace().next(), None | Some("Z" | "X"))
}

/// The user time of a process that runs, that of a guest on its processors included.
///
/// # Panics
/// When it does not run.
#[must_use]
pub fn user_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    time_of(&stat, 1).expect("the kernel writes these fields")
}

/// utime, stime, cutime and cstime: the 14th to 17th field.
fn cpu_time(stat: &str) -> Option<Duration> {
    time_of(stat, 4)
}

/// The sum of the first of the four; the second field may contain spaces.
fn time_of(stat: &str, fields: usize) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u32 = rest
        .split_whitespace()
        .skip(11)
        .take(fields)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Some(TICK * ticks)
}

fn memory_max(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_the_sum_of_four_fields_after_a_name_with_spaces() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 3 40 5 20 0 1 0 9 1 1";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(600)));
        assert_eq!(time_of(stat, 1), Some(Duration::from_millis(120)));
    }

    #[test]
    fn a_zombie_has_ended_and_so_has_who_is_gone() {
        assert!(!has_ended("7 (a) Z) S 1 7"));
        assert!(has_ended("7 (a) S) Z 1 7"));
        assert!(has_ended(""));
    }

    #[test]
    fn the_median_is_taken_of_each_figure() {
        let usage = |cpu, wall, memory_max_bytes| Usage {
            cpu: Duration::from_secs(cpu),
            wall: Duration::from_secs(wall),
            memory_max_bytes,
        };
        let samples = [usage(3, 1, 20), usage(1, 2, 10), usage(2, 9, 30)];
        assert_eq!(Usage::median(&samples), usage(2, 2, 20));
        assert_eq!(Usage::median(&[]), Usage::default());
        assert_eq!(usage(1, 2, 10).then(usage(3, 1, 20)), usage(4, 3, 20));
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(
            memory_max("Name:\tx\nVmHWM:\t    2048 kB\n"),
            Some(2_097_152)
        );
        assert_eq!(memory_max("Name:\tx\n"), None);
    }
}
