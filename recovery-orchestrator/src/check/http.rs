// SPDX-License-Identifier: MIT OR Apache-2.0
//! One HTTP question, over a forwarded port.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::runbook::HttpCheck;

/// A guest under emulation may take its time over a page.
const TIMEOUT: Duration = Duration::from_secs(20);
/// So much of an answer is looked at.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Asks once; the error says what was answered instead.
pub(super) fn ask(endpoint: SocketAddr, check: &HttpCheck) -> Result<(), String> {
    image_library::use_ring();
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let url = format!("http://{endpoint}{}", check.path);
    let response = client.get(url).send().map_err(|error| no_answer(&error))?;
    let status = response.status().as_u16();
    if status != check.status {
        return Err(format!("the answer has status {status}"));
    }
    let Some(wanted) = &check.contains else {
        return Ok(());
    };
    let mut body = Vec::new();
    response
        .take(BODY_BYTES_MAX)
        .read_to_end(&mut body)
        .map_err(|error| error.to_string())?;
    if String::from_utf8_lossy(&body).contains(wanted.as_str()) {
        Ok(())
    } else {
        Err(format!("the answer does not contain {wanted:?}"))
    }
}

fn no_answer(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("no answer: {cause}")
}
