// SPDX-License-Identifier: MIT OR Apache-2.0
//! What hinders that an initramfs gets a module: how it was made, a script that somebody changed, a
//! signature.

use disk::{Finding, Level};

use crate::guest::initramfs::{Generator, nash, suse_mkinitrd};
use crate::inspect::InitramfsFacts;
use crate::inspect::findings::{WithRemedy, finding};

pub(super) const SUSE_SCRIPT: &str = "run_all.sh";
pub(super) const NASH_SCRIPT: &str = "init";

/// Why an initramfs cannot be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// We do not know how it loads modules.
    Generator,
    /// Its script is not as we know such scripts.
    Script,
    /// A signature is beside it, which would not fit any more.
    Signature,
}

/// What hinders that an initramfs gets a module.
pub(crate) fn obstacle(initramfs: &InitramfsFacts) -> Option<Obstacle> {
    let text = |path| initramfs.file(path).map_or("", |file| file.text.as_str());
    let is_known = match initramfs.generator {
        Generator::Nash => nash::with_modules(text(NASH_SCRIPT), &[]).is_some(),
        Generator::SuseMkinitrd => suse_mkinitrd::with_modules(text(SUSE_SCRIPT), &[]).is_some(),
        _ => true,
    };
    if !initramfs.generator.is_extensible() {
        Some(Obstacle::Generator)
    } else if initramfs.signed {
        Some(Obstacle::Signature)
    } else {
        (!is_known).then_some(Obstacle::Script)
    }
}

/// The finding of an initramfs that must change and cannot.
pub(super) fn hindered(initramfs: &InitramfsFacts, obstacle: Obstacle, level: Level) -> Finding {
    let place = initramfs.file.guest_path.clone();
    let generator = initramfs.generator;
    let (code, problem) = match obstacle {
        Obstacle::Generator => (
            "initramfs.generator.unsupported",
            format!("it lacks virtio drivers, and was made by {generator}, which we cannot extend"),
        ),
        Obstacle::Script => (
            "initramfs.init.unknown",
            format!(
                "it lacks virtio drivers, and the script of {generator} inside does not start \
                 as we know it"
            ),
        ),
        Obstacle::Signature => (
            "initramfs.signed",
            "it lacks virtio drivers, and its signature would not fit once they are added"
                .to_owned(),
        ),
    };
    finding(level, code, place, problem)
        .remedy("add the virtio drivers to it on the server and take a new image")
}
