// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `/etc/crypttab` lets open encrypted volumes at the start, and a virtual machine does not have: the
//! server's TPM, a FIDO2 token, a smart card.
//!
//! The header of a LUKS2 volume may say the same by its tokens, and then has been told already. Without
//! the device systemd waits half a minute (`token-timeout=`) and asks for a passphrase, unless the entry
//! is `headless`. Source: crypttab(5).

use disk::{Finding, Level};

use crate::error::Result;
use crate::guest::crypttab::{Crypttab, Entry, KeyDevice};
use crate::inspect::LUKS_TOKEN;
use crate::inspect::device_names::DeviceNames;
use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::inspection::{VolumeId, Volumes};
use crate::inspect::tree::GuestTree;

const CRYPTTAB: &str = "/etc/crypttab";

/// Tells of each volume that is opened so.
pub(super) fn told(
    tree: &GuestTree,
    volumes: Volumes<'_>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(file) = tree.text(CRYPTTAB)? else {
        return Ok(());
    };
    let names = DeviceNames::new(volumes, None);
    for entry in Crypttab::parse(file.text.as_bytes()).entries() {
        let Some(device) = entry.key_device() else {
            continue;
        };
        let volume = names.resolve(&entry.device);
        if !volume.is_some_and(|volume| is_told(volume, volumes, findings)) {
            findings.push(absent(&entry, device));
        }
    }
    Ok(())
}

/// Whether the tokens of the volume's header were told.
fn is_told(volume: VolumeId, volumes: Volumes<'_>, findings: &[Finding]) -> bool {
    let mut assembled = volumes.assembled.iter();
    let name = assembled
        .find(|assembled| assembled.id == volume)
        .map_or_else(|| volume.to_string(), |assembled| assembled.name.clone());
    let mut findings = findings.iter();
    findings.any(|found| found.code == LUKS_TOKEN && found.place == name)
}

fn absent(entry: &Entry, device: KeyDevice) -> Finding {
    let holder = match device {
        KeyDevice::Tpm => "the server's TPM",
        KeyDevice::Fido2 => "a FIDO2 token",
        KeyDevice::SmartCard => "a smart card",
    };
    let mut problem =
        format!("{holder} opens it at the start, which a virtual machine does not have");
    let remedy = if is_headless(entry) {
        problem.push_str(", and nobody is asked for a passphrase instead (headless)");
        "on the server add a passphrase (cryptsetup luksAddKey) and take `headless` from the line, and take \
         a new image"
    } else {
        "have its passphrase at hand: it is asked for on the console; where there is none, add one on the \
         server (cryptsetup luksAddKey) and take a new image"
    };
    let place = format!("{CRYPTTAB}: {}", entry.name);
    finding(Level::Warning, LUKS_TOKEN, place, problem).remedy(remedy)
}

fn is_headless(entry: &Entry) -> bool {
    let value = entry.option("headless").unwrap_or_default();
    entry.has_option("headless") || ["1", "yes", "true", "on"].contains(&value)
}
