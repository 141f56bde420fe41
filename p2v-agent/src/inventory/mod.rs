// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inventory: what conversion and sizing need to know about this server, from `/sys`, `/proc`,
//! `/etc` and `/boot`. Nothing is changed and no program is started.
//!
//! Every reader takes the root of a tree, so another server's tree, or a phony one, can be read.

mod disks;
mod load;
mod machine;
mod mounts;
mod network;
mod os;
#[cfg(test)]
pub(crate) mod phony;
pub(crate) mod root;
mod table;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use image_library::machine::MachineDescription;

use crate::inventory::root::Root;

pub use table::inventory_table;

/// What to take an inventory of.
#[derive(Debug, Clone)]
pub struct InventoryOptions {
    /// The root of the tree; `/` for this server.
    pub root: PathBuf,
    /// How long load is measured; zero leaves it out.
    pub load_interval: Duration,
}

impl Default for InventoryOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            load_interval: Duration::from_secs(1),
        }
    }
}

/// Takes the inventory. What the server does not tell is left out; nothing fails.
#[must_use]
pub fn take_inventory(options: &InventoryOptions) -> MachineDescription {
    let root = &Root::new(&options.root);
    let addresses = if root.is_this_server() {
        network::addresses_of_this_server()
    } else {
        Vec::new()
    };
    let load = (!options.load_interval.is_zero())
        .then(|| load::measure(root, options.load_interval, thread::sleep))
        .flatten();
    MachineDescription {
        hostname: os::hostname(root),
        machine_id: root.line("/etc/machine-id"),
        hardware: machine::hardware(root),
        firmware: machine::firmware(root),
        secure_boot: machine::secure_boot(root),
        tpm: machine::tpm(root),
        cpu: machine::cpu(root, std::env::consts::ARCH),
        memory_bytes: machine::memory_bytes(root),
        disks: disks::disks(root),
        interfaces: network::interfaces(root, &addresses),
        routes: network::routes(root),
        mounts: mounts::mounts(root),
        swaps: mounts::swaps(root),
        os: os::operating_system(root),
        enabled_services: os::enabled_services(root),
        load,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_computer_can_be_read() {
        let machine = take_inventory(&InventoryOptions {
            load_interval: Duration::from_millis(10),
            ..InventoryOptions::default()
        });
        assert!(machine.memory_bytes > 0);
        assert!(machine.cpu.threads > 0);
        assert!(!machine.os.kernel.is_empty());
        assert!(machine.load.is_some());
    }

    #[test]
    fn an_empty_tree_gives_an_empty_machine() {
        let server = phony::PhonyServer::new();
        let machine = take_inventory(&InventoryOptions {
            root: server.root().path("/"),
            load_interval: Duration::ZERO,
        });
        assert_eq!(machine.hostname, "localhost");
        assert!(machine.disks.is_empty() && machine.interfaces.is_empty());
        assert_eq!(machine.load, None);
    }
}
