// SPDX-License-Identifier: MIT OR Apache-2.0
//! The jobs and block nodes of a machine whose disks are moved, as its monitor knows them.

use std::path::Path;

use serde_json::{Value, json};

use crate::platform::qemu::Qmp;

/// What QEMU says of the disks that are moved.
pub(super) struct Found {
    jobs: Value,
    devices: Value,
}

impl Found {
    pub(super) fn ask(qmp: &mut Qmp) -> Result<Self, String> {
        Ok(Self {
            jobs: qmp.execute("query-block-jobs", &json!({}))?,
            devices: qmp.execute("query-block", &json!({}))?,
        })
    }

    pub(super) fn job(&self, disk: usize) -> Option<&Value> {
        let jobs = self.jobs.as_array()?;
        jobs.iter().find(|found| found["device"] == *job(disk))
    }

    /// Whether the guest's disk is the local file by now.
    pub(super) fn is_changed(&self, disk: usize) -> bool {
        let devices = self.devices.as_array().map(Vec::as_slice);
        let target = format!("target{disk}");
        let mut devices = devices.unwrap_or_default().iter();
        devices.any(|device| device["inserted"]["node-name"] == *target)
    }
}

pub(super) fn job(disk: usize) -> String {
    format!("move{disk}")
}

pub(super) fn remove_nodes(qmp: &mut Qmp, disk: usize, nodes: &[&str]) {
    for node in nodes {
        // One that stays costs a file handle.
        let name = json!({"node-name": format!("{node}{disk}")});
        if let Err(problem) = qmp.execute("blockdev-del", &name) {
            tracing::debug!(problem, "a node that is not used stays");
        }
    }
}

pub(super) fn add_target(qmp: &mut Qmp, disk: usize, target: &Path) -> Result<(), String> {
    let nodes = [
        json!({
            "driver": "file", "node-name": format!("target-file{disk}"),
            "filename": target, "discard": "unmap",
        }),
        json!({
            "driver": "qcow2", "node-name": format!("target{disk}"),
            "file": format!("target-file{disk}"), "discard": "unmap",
        }),
    ];
    for node in nodes {
        qmp.execute("blockdev-add", &node)?;
    }
    Ok(())
}
