// SPDX-License-Identifier: MIT OR Apache-2.0
//! `openapi.json` says what the server does: the same routes and roles, and answers of its shapes.

use std::collections::{BTreeMap, BTreeSet};

use disk::Silent;
use serde_json::{Value, json};

use super::{Site, agent};
use crate::server::routes::ROUTES;
use crate::store::{list_packs, names};
use crate::tests::{sample_disk, store};
use crate::tokens::Grant;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../openapi.json")).unwrap()
}

#[test]
fn the_description_has_the_routes_of_the_table_with_their_roles() {
    let document = document();
    let mut described = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            let roles: Vec<String> = operation["x-roles"]
                .as_array()
                .unwrap()
                .iter()
                .map(|role| role.as_str().unwrap().to_owned())
                .collect();
            let is_for_anybody = operation["security"].as_array().unwrap().is_empty();
            assert_eq!(is_for_anybody, roles.is_empty(), "{verb} {path}");
            described.insert((path.clone(), verb.clone()), roles);
        }
    }
    let table: BTreeMap<_, _> = ROUTES
        .iter()
        .map(|route| {
            let verb = format!("{:?}", route.verb).to_lowercase();
            let roles: Vec<String> = route.roles.iter().map(ToString::to_string).collect();
            ((route.path.to_owned(), verb), roles)
        })
        .collect();
    assert_eq!(described, table);
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.insert(target.clone());
                }
                members
                    .values()
                    .for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for target in found {
        assert!(resolve(&document, &target).is_object(), "{target}");
    }
}

fn resolve<'a>(document: &'a Value, target: &str) -> &'a Value {
    let pointer = target.strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap_or(&Value::Null)
}

/// The part of JSON Schema that the description uses, and no more: an unknown keyword is an error.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$ref" => {
                let target = resolve(document, wanted.as_str().unwrap());
                check(document, target, value, place);
            }
            "type" => {
                let types = match wanted {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                assert!(
                    types.iter().any(|kind| is_of(kind, value)),
                    "{place}: {value}"
                );
            }
            "enum" => assert!(
                wanted.as_array().unwrap().contains(value),
                "{place}: {value}"
            ),
            "minimum" => assert!(value.as_u64() >= wanted.as_u64(), "{place}: {value}"),
            "required" => {
                for name in wanted.as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    assert!(value.get(name).is_some(), "{place} without {name}: {value}");
                }
            }
            "properties" => {
                let known = wanted.as_object().unwrap();
                for (name, member) in value.as_object().unwrap() {
                    let schema = known.get(name);
                    let schema = schema.unwrap_or_else(|| panic!("{place}: {name} is not told"));
                    check(document, schema, member, &format!("{place}.{name}"));
                }
            }
            "items" => {
                for item in value.as_array().unwrap() {
                    check(document, wanted, item, &format!("{place}[]"));
                }
            }
            "pattern" if wanted.as_str() == Some("^[0-9a-f]{64}$") => {
                let text = value.as_str().unwrap();
                assert!(blake3::Hash::from_hex(text).is_ok(), "{place}: {text}");
            }
            "pattern" | "description" => {}
            "format" if value.is_null() => {}
            "format" => match wanted.as_str().unwrap() {
                "uuid" => drop(value.as_str().unwrap().parse::<uuid::Uuid>().unwrap()),
                "date-time" => {
                    let _: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                }
                other => panic!("{place}: format {other}"),
            },
            other => panic!("{place}: the keyword {other}"),
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    }
}

/// The schema of an answer: of its status, or of `default`.
fn answer_schema(document: &Value, path: &str, verb: &str, status: u16) -> Value {
    let responses = &document["paths"][path][verb]["responses"];
    let status = status.to_string();
    let response = responses.get(&status).unwrap_or(&responses["default"]);
    let response = match response.get("$ref") {
        Some(target) => resolve(document, target.as_str().unwrap()),
        None => response,
    };
    response["content"]["application/json"]["schema"].clone()
}

#[test]
fn real_answers_have_the_described_shapes() {
    let site = Site::new();
    let document = document();
    let image = store(&site.library, "web01", &sample_disk(1, 300_000));
    let deleted = store(&site.library, "web02", &sample_disk(2, 50_000));
    site.library.delete_image(deleted.id).unwrap();
    let reader = site.token(Grant::Administrator);
    let missing = "0192f0c1-2233-7aaa-8bbb-ccccddddeeee";
    let image_path = format!("/v1/images/{}", image.id);
    let extents = format!("{image_path}/disks/0/extents?from=0");
    let questions = [
        ("/v1", "/v1".to_owned(), 200),
        ("/v1/images", "/v1/images".to_owned(), 200),
        ("/v1/images/{id}", image_path, 200),
        ("/v1/images/{id}", format!("/v1/images/{missing}"), 404),
        ("/v1/images/{id}", "/v1/images/x".to_owned(), 400),
        ("/v1/images/{id}/disks/{disk}/extents", extents, 200),
        (
            "/v1/images/{id}/disks/{disk}/extents",
            format!("/v1/images/{missing}/disks/0/extents"),
            400,
        ),
        ("/v1/trash", "/v1/trash".to_owned(), 200),
        ("/v1/openapi.json", "/v1/openapi.json".to_owned(), 200),
    ];
    for (path, url, status) in questions {
        let answer = site.get(&url, &reader);
        assert_eq!(answer.status().as_u16(), status, "{url}");
        assert!(answer.headers().contains_key("x-request-id"), "{url}");
        let schema = answer_schema(&document, path, "get", status);
        check(&document, &schema, &answer.json().unwrap(), &url);
    }

    let refused = site.begin("web01", &site.token(Grant::Operator));
    let schema = answer_schema(&document, "/v1/uploads", "post", 403);
    check(&document, &schema, &refused.json().unwrap(), "a refusal");
    let writer = site.token(agent("web01"));
    let begun: Value = site.begin("web01", &writer).json().unwrap();
    let schema = answer_schema(&document, "/v1/uploads", "post", 200);
    check(&document, &schema, &begun, "an upload");
    let broken = site.ask("POST", "/v1/uploads", Some(&writer.reveal()));
    let broken = broken.json(&json!({ "server": "../etc" })).send().unwrap();
    assert!(broken.status().is_client_error());
    let schema = answer_schema(&document, "/v1/uploads", "post", broken.status().as_u16());
    check(
        &document,
        &schema,
        &broken.json().unwrap(),
        "a broken request",
    );
}

#[test]
fn what_is_wanted_again_has_the_described_shape() {
    let site = Site::new();
    let token = site.token(agent("web01"));
    let ask = || -> Value { site.get("/v1/servers/web01/wanted", &token).json().unwrap() };
    store(&site.library, "web01", &sample_disk(1, 300_000));
    assert_eq!(ask(), json!({ "ranges": [] }));

    let store = &site.library.core().store;
    for pack in list_packs(&**store).unwrap() {
        store.remove(&names::pack(&pack.id)).unwrap();
    }
    assert!(!site.library.verify(&Silent).unwrap().is_sound());
    let answer = ask();
    let document = document();
    let schema = answer_schema(&document, "/v1/servers/{server}/wanted", "get", 200);
    check(&document, &schema, &answer, "what is wanted");
    let all = json!({ "disk": "sda", "first_chunk": 0, "chunk_count": 5 });
    assert_eq!(answer, json!({ "ranges": [all] }));
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let site = Site::new();
    let reader = site.token(Grant::Operator);
    site.get("/v1/images", &reader);
    let answer = site.get("/metrics", &reader);
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = answer.text().unwrap();
    assert!(
        text.contains("relevo_library_requests_total{status=\"2xx\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("relevo_library_requests_under_way 1\n"),
        "{text}"
    );
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<u64>().is_ok(), "{line}");
    }
}
