// SPDX-License-Identifier: MIT OR Apache-2.0
//! What real readers say, and readers of our own where there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{Target, guests};
use crate::guest::samples::skip;

/// Runs a reader on a document; what it says when it does not like it.
fn read_by(program: &str, arguments: &[&str], text: &str) -> Option<Result<(), String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    match command.arg(&file).args(arguments).output() {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(format!(
            "{}{}\n{text}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))),
        Err(_) => None,
    }
}

#[test]
fn domains_are_valid_by_the_schema_of_libvirt() {
    for guest in guests() {
        let text = guest.text(Target::Libvirt);
        match read_by("virt-xml-validate", &["domain"], &text) {
            Some(result) => assert_eq!(result, Ok(())),
            None => return skip("virt-xml-validate (libvirt-clients) is not installed"),
        }
    }
}

#[test]
fn descriptors_are_well_formed_and_what_they_refer_to_is_there() {
    for guest in guests() {
        let text = guest.text(Target::Ova);
        let values = |attribute: &str| -> Vec<&str> {
            let start = format!("{attribute}=\"");
            let parts = text.split(&start).skip(1);
            parts.filter_map(|rest| rest.split('"').next()).collect()
        };
        let elements = |name: &str| -> Vec<&str> {
            let start = format!("<{name}>");
            let parts = text.split(&start).skip(1);
            parts.filter_map(|rest| rest.split('<').next()).collect()
        };
        let files: Vec<&str> = values("<File ovf:id");
        assert_eq!(values("ovf:fileRef"), files);
        let hosts = elements("rasd:HostResource");
        let disks = values("ovf:diskId");
        let expected: Vec<String> = disks.iter().map(|id| format!("ovf:/disk/{id}")).collect();
        assert_eq!(hosts, expected);
        let instances = elements("rasd:InstanceID");
        let distinct: BTreeSet<&&str> = instances.iter().collect();
        assert_eq!(distinct.len(), instances.len());
        assert!(
            elements("rasd:Parent")
                .iter()
                .all(|parent| distinct.contains(parent))
        );
        let networks = values("<Network ovf:name");
        let connections = elements("rasd:Connection");
        assert!(
            connections
                .iter()
                .all(|connection| networks.contains(connection))
        );
        match read_by("xmllint", &["--noout"], &text) {
            Some(result) => assert_eq!(result, Ok(())),
            None => skip("xmllint (libxml2-utils) is not installed"),
        }
    }
}

/// What xl understands: `key = value`, where a value is a number, a string, or a list of strings.
fn parse_xl(text: &str) -> Option<BTreeMap<String, Value>> {
    let mut keys = BTreeMap::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    while let Some(line) = lines.next() {
        let (key, value) = line.split_once(" = ")?;
        let value = match value {
            "[" => {
                let items = lines.by_ref().take_while(|line| *line != "]");
                let items =
                    items.map(|item| serde_json::from_str(item.trim().strip_suffix(',')?).ok());
                Value::Array(items.collect::<Option<_>>()?)
            }
            value => serde_json::from_str(value).ok()?,
        };
        keys.insert(key.to_owned(), value);
    }
    Some(keys)
}

#[test]
fn xl_understands_every_line() {
    for guest in guests() {
        let text = guest.text(Target::Xen);
        let keys = parse_xl(&text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(keys["name"], Value::from(guest.vm.name.clone()));
        let disks = keys["disk"].as_array().unwrap();
        assert_eq!(disks.len(), guest.vm.disks.len());
        for disk in disks {
            let (_, target) = disk.as_str().unwrap().split_once("target=").unwrap();
            assert!(target.starts_with("/var/lib/relevo/out/disk"));
        }
        assert_eq!(keys["vif"].as_array().unwrap().len(), guest.vm.nics.len());
    }
}

#[test]
fn each_key_of_a_line_oriented_document_is_there_once() {
    for guest in guests() {
        for (target, separator) in [(Target::Vmx, " = "), (Target::Proxmox, ": ")] {
            let text = guest.text(target);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let keys: Vec<&str> = lines
                .map(|line| line.split_once(separator).unwrap().0)
                .collect();
            let distinct: BTreeSet<&&str> = keys.iter().collect();
            assert_eq!(distinct.len(), keys.len(), "{text}");
        }
    }
}
