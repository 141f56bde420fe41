// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON schema of runbooks, for editors: made from the types, kept in `runbooks/schema.json`.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::Runbook;

/// The schema as pretty JSON.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(Runbook);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"const": 1})
}

pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^([0-9]+[dhms])+$", "examples": ["5m", "1h30m"]})
}

pub(super) fn bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[0-9]+ ?(KiB|MiB|GiB|TiB)$", "examples": ["2GiB"]})
}

pub(super) fn profile(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^(auto|(virtio|virtio-scsi|sata|ide|scsi-lsi)(/(virtio|e1000e|e1000|rtl8139))?)$",
        "default": "auto",
    })
}

pub(super) fn image(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "default": "latest",
        "anyOf": [
            {"type": "string", "description": "`latest`, or the id of an image"},
            {
                "type": "object",
                "properties": {"before": {"type": "string", "format": "date-time"}},
                "required": ["before"],
                "additionalProperties": false,
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To write it anew: `RELEVO_WRITE_SCHEMA=1 cargo test -p recovery-orchestrator schema`.
    #[test]
    fn the_schema_beside_the_runbooks_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/schema.json");
        if std::env::var_os("RELEVO_WRITE_SCHEMA").is_some() {
            std::fs::write(path, schema()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == schema(),
            "runbooks/schema.json is not current"
        );
    }
}
