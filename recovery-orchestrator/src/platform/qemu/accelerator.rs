// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs the guest's code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself, through the kernel.
    Kvm,
    /// Translation in QEMU.
    Tcg,
}

impl Accelerator {
    /// QEMU's options for the accelerator.
    pub(super) const fn options(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// The processor model. TCG's `max` has five-level paging, which a kernel that knows it then
    /// uses at every memory access; nobody gains by that.
    pub(super) const fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max,la57=off",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}
