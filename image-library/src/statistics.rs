// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a library and what it takes, in numbers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::document::Image;
use crate::id::ServerName;

/// What is in a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// How many images there are.
    pub images: u64,
    /// Bytes of the disks of all images.
    pub disk_bytes: u64,
    /// Of these, bytes that are not zeros.
    pub data_bytes: u64,
    /// What the library's packs take for them.
    pub stored_bytes: u64,
    /// The servers, by name.
    pub servers: Vec<ServerStatistics>,
}

/// What is in a library of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStatistics {
    /// Its name.
    pub server: ServerName,
    /// How many images there are.
    pub images: u64,
    /// When the snapshot of the latest one was taken.
    pub latest: Timestamp,
    /// Bytes of the disks of the latest one.
    pub disk_bytes: u64,
    /// What its images added to the packs.
    pub stored_bytes: u64,
}

impl Statistics {
    /// Counts, from images in the order of [`crate::ImageReader::images`]: oldest first.
    #[must_use]
    pub fn of(images: &[Image]) -> Self {
        let mut servers: BTreeMap<&ServerName, ServerStatistics> = BTreeMap::new();
        let mut total = Self {
            images: images.len() as u64,
            disk_bytes: 0,
            data_bytes: 0,
            stored_bytes: 0,
            servers: Vec::new(),
        };
        for image in images {
            let disk_bytes: u64 = image.disks.iter().map(|disk| disk.size_bytes).sum();
            total.disk_bytes += disk_bytes;
            total.data_bytes += image.disks.iter().map(|disk| disk.data_bytes).sum::<u64>();
            total.stored_bytes += image.stored_bytes;
            let server = servers
                .entry(&image.server)
                .or_insert_with(|| ServerStatistics {
                    server: image.server.clone(),
                    images: 0,
                    latest: image.taken_at,
                    disk_bytes: 0,
                    stored_bytes: 0,
                });
            server.images += 1;
            server.latest = image.taken_at;
            server.disk_bytes = disk_bytes;
            server.stored_bytes += image.stored_bytes;
        }
        total.servers = servers.into_values().collect();
        total
    }
}
