// SPDX-License-Identifier: MIT OR Apache-2.0
//! LUKS in the stack: what the secrets open becomes a volume, what they do not is told.

use std::sync::Arc;

use disk::filesystem::FilesystemKind;
use disk::volume::luks::{Luks, Token};
use disk::{Finding, Level, WriteAt};

use super::{Assembled, Builder, Part, unusable};
use crate::error::Result;
use crate::inspect::findings::{LUKS_LOCKED, LUKS_TOKEN, WithRemedy, finding};
use crate::inspect::volume_facts::AssembledKind;

const UNUSABLE: &str = "storage.luks.unusable";

impl Builder<'_> {
    /// Opens the encrypted volumes on what is free.
    pub(super) fn encrypted(&mut self) -> Result<()> {
        for part in self.of_kind(FilesystemKind::Luks)? {
            // Nothing else is on it, whether it is opened or not.
            self.free.retain(|free| free.id != part.id);
            let place = self.name(&part);
            match Luks::open(&part.device) {
                Ok(luks) => self.add_encrypted(&luks, &part, &place)?,
                Err(error) => {
                    let unusable = unusable(UNUSABLE, &place, error, DAMAGED)?;
                    self.tell(&[part.id], unusable);
                }
            }
        }
        Ok(())
    }

    fn add_encrypted(&mut self, luks: &Luks, part: &Part, place: &str) -> Result<()> {
        let mut tell = |found: Finding| self.stack.findings.push((part.id, found));
        for found in &luks.findings {
            let place = place.to_owned();
            let found = found.clone();
            tell(Finding { place, ..found });
        }
        if let Some(obstacle) = &luks.obstacle {
            let found = finding(Level::Warning, UNUSABLE, place, obstacle.as_str());
            tell(found.remedy(NOT_KNOWN));
            return Ok(());
        }
        let device = match self.secrets.unlock(luks) {
            Ok(Some(device)) => device,
            Ok(None) => {
                let given = self.secrets.count_for(luks.uuid.as_deref());
                tell(locked(luks, place, given));
                return Ok(());
            }
            Err(error) => {
                tell(unusable(UNUSABLE, place, error, NOT_KNOWN)?);
                return Ok(());
            }
        };
        if let Some(found) = at_start(luks, place) {
            tell(found);
        }
        self.add_opened(luks, part, device)
    }

    fn add_opened(&mut self, luks: &Luks, part: &Part, device: Arc<dyn WriteAt>) -> Result<()> {
        let uuid = luks.uuid.clone().unwrap_or_default();
        // As systemd and dracut call it where nobody has named it.
        let name = format!("luks-{uuid}");
        let volume = Assembled {
            part: self.part(device, part.sector_size)?,
            kind: AssembledKind::Encrypted,
            nodes: vec![
                format!("mapper/{name}"),
                format!("disk/by-id/dm-name-{name}"),
                format!(
                    "disk/by-id/dm-uuid-CRYPT-LUKS{}-{}-{name}",
                    luks.version,
                    uuid.replace('-', "")
                ),
            ],
            name,
            parts: vec![part.id],
        };
        self.add(volume);
        Ok(())
    }

    /// What people call what is on top of nothing yet.
    fn name(&self, part: &Part) -> String {
        let mut volumes = self.stack.volumes.iter();
        volumes
            .find(|volume| volume.part.id == part.id)
            .map_or_else(|| part.id.to_string(), |volume| volume.name.clone())
    }
}

const DAMAGED: &str = "`cryptsetup repair DEVICE` on the server, and a new image";
const NOT_KNOWN: &str = "the image stays complete in the library: what is on this volume can be read \
                         with cryptsetup from an export";

/// Whether that stands in the way of the rest is weighed when it is known where the system is.
fn locked(luks: &Luks, place: &str, given: usize) -> Finding {
    let uuid = luks.uuid.as_deref().unwrap_or("-");
    let tried = match given {
        0 => "no passphrase or key file was given for it".to_owned(),
        1 => "the one passphrase or key file that was given does not open it".to_owned(),
        many => format!("none of the {many} passphrases or key files that were given opens it"),
    };
    let problem = format!("encrypted ({luks}, UUID {uuid}), and {tried}");
    finding(Level::Warning, LUKS_LOCKED, place, problem).remedy(match only_tokens(luks) {
        Some(holder) => format!(
            "only {holder} opens it: add a passphrase on the server (cryptsetup luksAddKey), and take \
             a new image"
        ),
        None => format!(
            "give its key: `--key {uuid}=FILE`, `--key ask`, or `keys` in relevo.toml; FILE has the \
             passphrase or is the key file"
        ),
    })
}

/// Who holds the secrets, where no slot is for a person or a file.
fn only_tokens(luks: &Luks) -> Option<String> {
    let is_held = |number: u32| {
        let mut tokens = luks.tokens.iter().filter(|token| holder(token).is_some());
        tokens.any(|token| token.keyslots.contains(&number))
    };
    let all = luks.keyslots.iter().all(|slot| is_held(slot.number));
    let first = luks.tokens.iter().find_map(holder);
    first.filter(|_| all).map(str::to_owned)
}

/// What opens a volume at the guest's start, and is not there in a virtual machine.
fn at_start(luks: &Luks, place: &str) -> Option<Finding> {
    let holder = luks.tokens.iter().find_map(holder)?;
    let remedy = match only_tokens(luks) {
        Some(_) => "add a passphrase on the server (cryptsetup luksAddKey), and take a new image",
        None => "have the passphrase at hand: it is asked for on the console",
    };
    let problem = format!("{holder} opens it at the start, which a virtual machine does not have");
    Some(finding(Level::Warning, LUKS_TOKEN, place, problem).remedy(remedy))
}

/// Who gives the secret of a token, where that is not the kernel's keyring.
fn holder(token: &Token) -> Option<&'static str> {
    if token.is_tpm() {
        return Some("the server's TPM");
    }
    if token.is_network() {
        return Some("a Tang server on its network");
    }
    match token.kind.as_str() {
        "systemd-fido2" => Some("a FIDO2 token"),
        "systemd-pkcs11" => Some("a smart card"),
        kind if kind.starts_with("clevis") => Some("Clevis"),
        _ => None,
    }
}

#[cfg(test)]
mod array_tests;
#[cfg(test)]
mod tests;
