// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is let in where: every route with every role, and with tokens that are no good.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Site, agent, refusal};
use crate::access::ImageReader;
use crate::audit::{AuditAction, AuditActor, AuditEvent, AuditOutcome};
use crate::server::Limits;
use crate::server::routes::ROUTES;
use crate::tests::{sample_disk, store};
use crate::token::Token;
use crate::tokens::{Grant, Role};

/// Every route, and who may use it: `-` everybody, `a` agents, `o` operators, `A` administrators.
const EXPECTED: [(&str, &str, &str); 24] = [
    ("GET", "/v1", "aoA"),
    ("GET", "/v1/authority", "-"),
    ("GET", "/v1/openapi.json", "-"),
    ("GET", "/metrics", "oA"),
    ("GET", "/v1/images", "oA"),
    ("GET", "/v1/images/{id}", "oA"),
    ("DELETE", "/v1/images/{id}", "A"),
    ("GET", "/v1/trash", "A"),
    ("POST", "/v1/trash/{id}/restore", "A"),
    ("GET", "/v1/images/{id}/disks/{disk}/data", "oA"),
    ("GET", "/v1/images/{id}/disks/{disk}/extents", "oA"),
    ("GET", "/v1/images/{id}/disks/{disk}/hashes", "oA"),
    ("GET", "/v1/images/{id}/files/{name}", "oA"),
    ("PUT", "/v1/images/{id}/files/{name}", "oA"),
    ("GET", "/v1/servers/{server}/hashes", "aoA"),
    ("GET", "/v1/servers/{server}/wanted", "aA"),
    ("POST", "/v1/uploads", "aA"),
    ("DELETE", "/v1/uploads/{upload}", "aA"),
    ("POST", "/v1/uploads/{upload}/states", "aA"),
    ("POST", "/v1/uploads/{upload}/chunks", "aA"),
    ("PUT", "/v1/uploads/{upload}/leaves/{number}", "aA"),
    ("PUT", "/v1/uploads/{upload}/disks", "aA"),
    ("POST", "/v1/uploads/{upload}/commit", "aA"),
    ("POST", "/v1/uploads/{upload}/copy", "A"),
];

/// With things that do not exist in it: who is let in gets 404, or 200 where nothing is needed.
fn concrete(path: &str) -> String {
    path.replace("{id}", "0192f0c1-2233-7aaa-8bbb-ccccddddeeee")
        .replace("{disk}", "0")
        .replace("{name}", "readiness.json")
        .replace("{server}", "web01")
        .replace("{upload}", "84cc2a2d-e051-43aa-85ab-a8c69ccef2a9")
}

#[test]
fn the_table_is_the_expected_one() {
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let letter = |role: &Role| match role {
                Role::Agent => 'a',
                Role::Operator => 'o',
                Role::Administrator => 'A',
            };
            let roles: String = route.roles.iter().map(letter).collect();
            let verb = format!("{:?}", route.verb).to_uppercase();
            let roles = if roles.is_empty() {
                "-".to_owned()
            } else {
                roles
            };
            (verb, route.path.to_owned(), roles)
        })
        .collect();
    let expected =
        EXPECTED.map(|(verb, path, roles)| (verb.to_owned(), path.to_owned(), roles.to_owned()));
    assert_eq!(routes, BTreeSet::from(expected));
}

/// Tokens that are no good: none, not a token, one with another secret, an expired, a revoked one.
fn no_good(site: &Site) -> Vec<(&'static str, Option<String>)> {
    let good = site.token(Grant::Administrator);
    let other = site.token(Grant::Administrator);
    let expired = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let expired = site.library.add_token(Grant::Administrator, expired, None);
    let revoked = site.token(Grant::Administrator);
    site.library.revoke_token(revoked.id()).unwrap();
    let stranger = Token::random(None).unwrap();
    let text = |token: &Token| Some(token.reveal().to_string());
    vec![
        ("none", None),
        ("garbage", Some("relevo_secret".to_owned())),
        ("forged", Some(forged(&good, &other))),
        ("of another library", text(&stranger)),
        ("expired", text(&expired.unwrap())),
        ("revoked", text(&revoked)),
    ]
}

/// The id of one token with the secret of another, and a checksum that fits: what a forger who
/// knows ids can make.
fn forged(good: &Token, other: &Token) -> String {
    good.with_secret_of(other).reveal().to_string()
}

#[test]
fn every_route_lets_in_its_roles_and_nobody_else() {
    let site = Site::bearing(Limits {
        failed_authentications: 10_000,
        ..Limits::default()
    });
    let no_good = no_good(&site);
    let roles = [
        ('a', site.token(agent("web01"))),
        ('o', site.token(Grant::Operator)),
        ('A', site.token(Grant::Administrator)),
    ];
    for (method, path, allowed) in EXPECTED {
        let url = concrete(path);
        let status = |token: Option<&str>| {
            let request = site.ask(method, &url, token);
            let body = r#"{"server":"web01"}"#;
            let request = request
                .header("content-type", "application/json")
                .body(body);
            request.send().unwrap().status().as_u16()
        };
        for (kind, token) in &no_good {
            let got = status(token.as_deref());
            if allowed == "-" {
                assert!(
                    ![401, 403].contains(&got),
                    "{method} {path}, token {kind}: {got}"
                );
            } else {
                assert_eq!(got, 401, "{method} {path}, token {kind}");
            }
        }
        for (letter, token) in &roles {
            let got = status(Some(&token.reveal()));
            if allowed == "-" || allowed.contains(*letter) {
                assert!(
                    ![401, 403].contains(&got),
                    "{method} {path} as {letter}: {got}"
                );
            } else {
                assert_eq!(got, 403, "{method} {path} as {letter}");
            }
        }
    }
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let site = Site::new();
    for (kind, token) in no_good(&site) {
        let refused = site.ask("GET", "/v1", token.as_deref()).send().unwrap();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let failure: serde_json::Value = refused.json().unwrap();
        let expected = match kind {
            "none" => "a token is needed",
            "expired" => "the token has expired",
            "revoked" => "the token was revoked",
            _ => "the token is not one of this library",
        };
        assert_eq!(failure["message"], expected, "{kind}");
        assert!(failure["hint"].is_string(), "{kind}");
    }
}

#[test]
fn an_agent_learns_nothing_of_other_servers() {
    let site = Site::new();
    let web = site.token(agent("web01"));
    let db = site.token(agent("db01"));
    assert_eq!(site.begin("db01", &db).status().as_u16(), 200);
    assert_eq!(
        refusal(site.begin("db01", &web)),
        (403, "forbidden".to_owned())
    );
    for (question, status) in [("hashes?disk=sda&leaf=0", 204), ("wanted", 200)] {
        let answers: BTreeSet<String> = ["db01", "not-there"]
            .iter()
            .map(|server| {
                let refused = site.get(&format!("/v1/servers/{server}/{question}"), &web);
                assert_eq!(refused.status().as_u16(), 403);
                refused.text().unwrap()
            })
            .collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let own = site.get(&format!("/v1/servers/web01/{question}"), &web);
        assert_eq!(own.status().as_u16(), status);
    }
}

#[test]
fn an_upload_belongs_to_who_began_it() {
    let site = Site::new();
    let web = site.token(agent("web01"));
    let renewed = site.token(agent("web01"));
    let strangers = [site.token(agent("db01")), site.token(Grant::Administrator)];
    let begun: serde_json::Value = site.begin("web01", &web).json().unwrap();
    let upload = begun["upload"].as_str().unwrap();
    let unknown = "84cc2a2d-e051-43aa-85ab-a8c69ccef2a9";
    let states = |upload: &str, token: &Token| {
        let path = format!("/v1/uploads/{upload}/states");
        let request = site.ask("POST", &path, Some(&token.reveal()));
        let answer = request.body(vec![7; 32]).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    for stranger in &strangers {
        let refused = states(upload, stranger);
        assert_eq!(refused.0, 404);
        assert_eq!(refused, states(unknown, stranger));
        let path = format!("/v1/uploads/{upload}");
        let text = stranger.reveal();
        let ended = site.ask("DELETE", &path, Some(&text)).send().unwrap();
        assert_eq!(ended.status().as_u16(), 204);
    }
    assert_eq!(states(upload, &web).0, 200);
    assert_eq!(states(upload, &renewed).0, 200);
}

#[test]
fn a_revoked_token_is_refused_within_seconds() {
    let site = Site::bearing(Limits {
        token_lifetime: Duration::from_millis(300),
        ..Limits::default()
    });
    let token = site.token(Grant::Operator);
    assert_eq!(site.get("/v1", &token).status().as_u16(), 200);
    site.library.revoke_token(token.id()).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(
        refusal(site.get("/v1", &token)),
        (401, "token-over".to_owned())
    );
    assert!(Limits::default().token_lifetime <= Duration::from_secs(5));
}

#[test]
fn who_guesses_tokens_is_not_looked_at_any_more() {
    let site = Site::bearing(Limits {
        failed_authentications: 5,
        ..Limits::default()
    });
    let token = site.token(Grant::Operator);
    assert_eq!(site.get("/v1", &token).status().as_u16(), 200);
    for _ in 0..5 {
        let guess = Token::random(None).unwrap();
        assert_eq!(site.get("/v1", &guess).status().as_u16(), 401);
    }
    let guess = Token::random(None).unwrap();
    let refused = site.get("/v1", &guess);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(refusal(refused), (429, "too-many-failures".to_owned()));
    // A token of the same address that was good a moment ago is good still.
    assert_eq!(site.get("/v1", &token).status().as_u16(), 200);
}

fn events(site: &Site) -> Vec<AuditEvent> {
    let mut events = Vec::new();
    let mut keep = |event: &AuditEvent| events.push(event.clone());
    assert_eq!(site.library.audit_events(None, &mut keep).unwrap(), 0);
    events
}

#[test]
fn what_holders_of_tokens_do_is_in_the_audit_trail_and_noise_is_not() {
    let site = Site::new();
    let web = site.token(agent("web01"));
    let begun: serde_json::Value = site.begin("web01", &web).json().unwrap();
    let path = format!("/v1/uploads/{}/commit", begun["upload"].as_str().unwrap());
    let draft = serde_json::json!({
        "taken_at": "2026-11-01T10:00:00Z", "consistency": "cold", "machine": null,
    });
    let request = site.ask("POST", &path, Some(&web.reveal())).json(&draft);
    assert!(
        request.send().unwrap().status().is_client_error(),
        "it has no disk"
    );
    for _ in 0..3 {
        let stranger = Token::random(None).unwrap();
        assert_eq!(site.begin("web01", &stranger).status().as_u16(), 401);
    }

    let events = events(&site);
    let told: Vec<AuditAction> = events.iter().map(|event| event.action).collect();
    assert_eq!(told, [AuditAction::BeginUpload, AuditAction::Commit]);
    for event in &events {
        let actor = AuditActor::Token {
            id: web.id(),
            role: Role::Agent,
            peer: "127.0.0.1".parse().unwrap(),
        };
        assert_eq!(event.actor, actor);
        assert_eq!(event.server, Some("web01".parse().unwrap()));
    }
    assert_eq!(events[0].outcome, AuditOutcome::Done);
    assert!(matches!(events[1].outcome, AuditOutcome::Refused { .. }));
}

#[test]
fn an_administrator_deletes_and_takes_back_and_the_trail_tells_it() {
    let site = Site::new();
    let image = store(&site.library, "web01", &sample_disk(1, 100_000));
    let token = site.token(Grant::Administrator);
    let send = |method: &str, path: String| {
        let request = site.ask(method, &path, Some(&token.reveal()));
        request.send().unwrap().status().as_u16()
    };
    let listed = || -> serde_json::Value { site.get("/v1/trash", &token).json().unwrap() };
    assert_eq!(listed(), serde_json::json!([]));
    assert_eq!(send("DELETE", format!("/v1/images/{}", image.id)), 204);
    assert_eq!(send("DELETE", format!("/v1/images/{}", image.id)), 404);
    assert_eq!(listed()[0]["image"]["id"], image.id.to_string());
    assert!(site.library.images().unwrap().is_empty());
    assert_eq!(send("POST", format!("/v1/trash/{}/restore", image.id)), 204);
    assert_eq!(site.library.images().unwrap(), [image]);

    let told: Vec<_> = events(&site)
        .into_iter()
        .map(|event| (event.action, event.outcome == AuditOutcome::Done))
        .collect();
    assert_eq!(
        told,
        [
            (AuditAction::DeleteImage, true),
            (AuditAction::DeleteImage, false),
            (AuditAction::UndeleteImage, true),
        ]
    );
}
