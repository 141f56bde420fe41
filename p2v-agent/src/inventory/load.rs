// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load over a short time: two looks at the kernel's counters.

use std::time::Duration;

use image_library::machine::Load;

use crate::inventory::disks;
use crate::inventory::machine::memory_line;
use crate::inventory::root::Root;

/// Counters at one moment; all only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    cpu_busy: u64,
    cpu_total: u64,
    disk_read: u64,
    disk_written: u64,
    network_received: u64,
    network_sent: u64,
}

/// Measures over `interval`, waiting with `pause`.
pub(crate) fn measure(
    root: &Root,
    interval: Duration,
    pause: impl FnOnce(Duration),
) -> Option<Load> {
    let before = counters(root)?;
    pause(interval);
    let after = counters(root)?;
    let interval_ms = u64::try_from(interval.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let rate =
        |later: u64, earlier: u64| later.saturating_sub(earlier).saturating_mul(1000) / interval_ms;
    let total = after.cpu_total.saturating_sub(before.cpu_total).max(1);
    let busy = after.cpu_busy.saturating_sub(before.cpu_busy);
    let memory = memory_line(root, "MemTotal")?;
    Some(Load {
        interval_ms,
        cpu_permille: u32::try_from(busy.saturating_mul(1000) / total).unwrap_or(1000),
        memory_used_bytes: memory.saturating_sub(memory_line(root, "MemAvailable").unwrap_or(0)),
        disk_read_bytes_per_second: rate(after.disk_read, before.disk_read),
        disk_write_bytes_per_second: rate(after.disk_written, before.disk_written),
        network_receive_bytes_per_second: rate(after.network_received, before.network_received),
        network_send_bytes_per_second: rate(after.network_sent, before.network_sent),
    })
}

fn counters(root: &Root) -> Option<Counters> {
    let mut counters = Counters::default();
    let stat = root.text("/proc/stat")?;
    let times: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        // user nice system idle iowait irq softirq steal; guest times are in user already.
        .take(8)
        .filter_map(|time| time.parse().ok())
        .collect();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    counters.cpu_total = times.iter().sum();
    counters.cpu_busy = counters.cpu_total.saturating_sub(idle);
    for disk in disks::disks(root) {
        let text = root.line(&format!("/sys/block/{}/stat", disk.name));
        let text = text.unwrap_or_default();
        let mut columns = text
            .split_whitespace()
            .map(|column| column.parse().unwrap_or(0_u64));
        counters.disk_read += columns.nth(2).unwrap_or(0).saturating_mul(512);
        counters.disk_written += columns.nth(3).unwrap_or(0).saturating_mul(512);
    }
    for name in root.names("/sys/class/net") {
        let file = |file: &str| format!("/sys/class/net/{name}/{file}");
        if root.exists(&file("device")) {
            let number = |name: &str| root.number(&file(name)).unwrap_or(0);
            counters.network_received += number("statistics/rx_bytes");
            counters.network_sent += number("statistics/tx_bytes");
        }
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    #[test]
    fn load_is_the_difference_of_two_looks() {
        let server = PhonyServer::new();
        server.sata_disk("sda", 2048);
        server.write("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\n");
        server.write("/sys/class/net/eno1/device/x", "");
        let look = |cpu: &str, disk: &str, network: &str| {
            server.write("/proc/stat", cpu);
            server.write("/sys/block/sda/stat", disk);
            server.write("/sys/class/net/eno1/statistics/rx_bytes", network);
        };
        look(
            "cpu 100 0 100 800 0 0 0 0 0 0\n",
            "1 0 10 0 5 0 20 0",
            "1000\n",
        );
        let load = measure(&server.root(), Duration::from_millis(500), |_| {
            look(
                "cpu 150 0 125 925 0 0 0 0 0 0\n",
                "1 0 30 0 5 0 120 0",
                "3000\n",
            );
        })
        .unwrap();
        assert_eq!(load.cpu_permille, 375);
        assert_eq!(load.memory_used_bytes, 614_400);
        assert_eq!(load.disk_read_bytes_per_second, 20_480);
        assert_eq!(load.disk_write_bytes_per_second, 102_400);
        assert_eq!(load.network_receive_bytes_per_second, 4000);
    }
}
