// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this computer can carry a runbook's machines: they all run at the same time in the end.

use disk::{Finding, Level};

use crate::runbook::bytes_text;

/// Memory of a computer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What can be given to new processes.
    pub available_bytes: u64,
}

impl Memory {
    /// This computer's.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            kilobytes.checked_mul(1024)
        };
        Some(Self {
            total_bytes: field("MemTotal:")?,
            available_bytes: field("MemAvailable:")?,
        })
    }

    /// What is to be said about machines that need so much together.
    #[must_use]
    pub fn judge(&self, needed_bytes: u64) -> Option<Finding> {
        let (level, has, bytes) = if needed_bytes > self.total_bytes {
            (Level::Error, "has", self.total_bytes)
        } else if needed_bytes > self.available_bytes {
            (Level::Warning, "has free", self.available_bytes)
        } else {
            return None;
        };
        let mebibytes = |bytes: u64| bytes_text(bytes & !((1 << 20) - 1));
        Some(Finding {
            level,
            code: "capacity.memory".to_owned(),
            place: "this computer".to_owned(),
            problem: format!(
                "the machines need {} of memory together, and this computer {has} {}",
                mebibytes(needed_bytes),
                mebibytes(bytes)
            ),
            remedy: Some("give the servers less memory in the runbook (hardware: memory), or use a larger computer".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_is_free_is_a_warning_and_more_than_there_is_an_error() {
        let memory = Memory::parse(
            "MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n",
        )
        .unwrap();
        assert_eq!(memory.judge(4 << 30), None);
        assert_eq!(memory.judge(5 << 30).unwrap().level, Level::Warning);
        let error = memory.judge(9 << 30).unwrap();
        assert_eq!(
            error.problem,
            "the machines need 9GiB of memory together, and this computer has 8GiB"
        );
        assert_eq!(error.level, Level::Error);
    }
}
