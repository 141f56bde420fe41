// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where UEFI firmware is on this computer, and a machine's own copy of its variables.

use std::fs;
use std::path::PathBuf;

use converter::vm::Firmware;

use crate::config::QemuConfiguration;
use crate::error::{Error, Result};
use crate::platform::Order;

/// Code and variables, as distributions install them; without Secure Boot.
const KNOWN: [(&str, &str); 6] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/qemu/ovmf-x86_64-4m-code.bin",
        "/usr/share/qemu/ovmf-x86_64-4m-vars.bin",
    ),
    (
        "/usr/share/qemu/edk2-x86_64-code.fd",
        "/usr/share/qemu/edk2-i386-vars.fd",
    ),
];

/// Which firmware is used.
#[derive(Debug)]
pub(super) struct Choice {
    named: Option<(PathBuf, PathBuf)>,
}

/// The firmware of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uefi {
    /// Shared, only read.
    pub(super) code: PathBuf,
    /// The machine's own.
    pub(super) vars: PathBuf,
}

impl Choice {
    pub(super) fn new(configuration: &QemuConfiguration) -> Self {
        let code = configuration.firmware_code.clone();
        Self {
            named: code.zip(configuration.firmware_vars.clone()),
        }
    }

    /// What a machine needs: nothing with a BIOS, which QEMU brings along.
    pub(super) fn prepare(&self, order: &Order) -> Result<Option<Uefi>> {
        match order.definition.firmware {
            Firmware::Bios => Ok(None),
            Firmware::Uefi => {
                let (code, vars) = self.find()?;
                let own = order.directory.join("uefi-vars.fd");
                fs::copy(&vars, &own).map_err(Error::file("copy", vars))?;
                Ok(Some(Uefi { code, vars: own }))
            }
        }
    }

    fn find(&self) -> Result<(PathBuf, PathBuf)> {
        let known = KNOWN
            .iter()
            .map(|(code, vars)| (PathBuf::from(code), PathBuf::from(vars)));
        self.named
            .clone()
            .into_iter()
            .chain(known)
            .find(|(code, vars)| code.is_file() && vars.is_file())
            .ok_or_else(|| Error::Platform {
                platform: "qemu",
                problem: "the guest starts by UEFI, and no firmware for it was found".to_owned(),
                hint: "install it (Debian: apt-get install ovmf), or name it in relevo.toml: \
                       [qemu] firmware_code and firmware_vars"
                    .to_owned(),
            })
    }
}
