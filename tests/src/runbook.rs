// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runbooks that the tests write: one server, its web page, the time it may take.

use std::fs;
use std::path::{Path, PathBuf};

use crate::server::SampleServer;

/// A runbook in a file of the test's own.
#[derive(Debug)]
pub struct Runbook {
    text: String,
}

impl Runbook {
    /// Recovers one server on its own subnet and asks for its web page, and whether it says of
    /// itself there what it said on its own hardware.
    #[must_use]
    pub fn for_server(server: &SampleServer) -> Self {
        let SampleServer { name, page, .. } = server;
        let status: String = server
            .status
            .iter()
            .map(|line| status_checks(line))
            .collect();
        Self {
            text: format!(
                r#"version: 1
name: {name}
title: Recovery of {name}
objectives: {{ rpo: 24h, rto: 30m }}
platform: qemu
networks:
  lan: {{ mode: isolated, subnet: 10.20.0.0/24 }}
servers:
  {name}:
    image: latest
    hardware: {{ cpus: 2, memory: 512MiB, profile: auto }}
    network: [lan]
    checks:
      - http: {{ port: 80, path: /, status: 200, contains: "{page}", within: 8m }}
{status}plan:
  - start: [{name}]
"#
            ),
        }
    }

    /// The same with one piece of its text replaced.
    ///
    /// # Panics
    /// When the text does not have that piece: the test would prove nothing.
    #[must_use]
    pub fn replace(self, piece: &str, by: &str) -> Self {
        assert!(self.text.contains(piece), "the runbook has no `{piece}`");
        Self {
            text: self.text.replace(piece, by),
        }
    }

    /// Writes it into a folder.
    ///
    /// # Panics
    /// When the folder cannot be written to.
    #[must_use]
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("runbook.yaml");
        fs::write(&path, &self.text).expect("the work directory can be written to");
        path
    }
}

/// What only runs for a while after a start.
const PASSING_SERVICE: &str = "systemd-fsckd";

/// The checks of one line of the page that tells what the server is: that it is there; of the services,
/// that each of them runs. More may run: a console was added.
fn status_checks(line: &str) -> String {
    let Some(services) = line.strip_prefix("services:") else {
        return status_check(line);
    };
    services
        .trim_end_matches('.')
        .split_whitespace()
        .filter(|name| *name != PASSING_SERVICE)
        .map(|name| status_check(&format!(" {name}")))
        .collect()
}

fn status_check(text: &str) -> String {
    let quoted = serde_json::Value::from(text);
    format!(
        "      - http: {{ port: 80, path: /status.txt, status: 200, contains: {quoted}, within: 8m }}\n"
    )
}
