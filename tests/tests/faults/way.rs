// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way to the library and to the sockets of a machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::guest::Habits;
use crate::site::Site;

/// How long the way to the library is, there and back.
const LATENCY: Duration = Duration::from_millis(700);

/// A port from which it is far to another one.
fn far_away(target: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", target)).unwrap();
            let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || pass_late(client, server));
            thread::spawn(move || pass_late(back, forth));
        }
    });
    port
}

/// Passes on what there is, half a round trip later, until either side has ended.
fn pass_late(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        thread::sleep(LATENCY / 2);
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

#[test]
fn a_slow_library_makes_a_machine_slow_and_nothing_else() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let (_serving, url) = site.library.serve();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let far = format!("https://127.0.0.1:{}", far_away(port));

    // A driver that gives up.
    let relevo = site
        .library
        .relevo_with(&far)
        .args("boot web --profile sata");
    let machine = site.start(relevo);

    machine.waits_for("its last fetch", |machine| machine.count('.') > 2 * 40);
    machine.goes_on();
    let status = machine.status();
    assert_eq!(status["findings"], serde_json::json!([]), "{status}");
    assert!(
        status["cache"]["fetched_bytes"].as_u64() >= Some(40 << 15),
        "{status}"
    );
    assert_eq!(machine.end().code, Some(0));
}

#[test]
fn a_directory_that_sockets_cannot_be_made_in_is_one_clear_error() {
    let Some(site) = Site::new(Habits::default()) else {
        return;
    };
    let long = site.path(&"long".repeat(20));
    fs::create_dir(&long).unwrap();
    let boot = |temporary: &Path| {
        let relevo = site.library.relevo().args("boot web");
        relevo.env("TMPDIR", temporary).run()
    };
    boot(&long).is_one_clear_error(2, &["socket", "TMPDIR"]);
    // One that has room for the first socket, but not for the longest.
    let length = |name: usize| site.path(&"l".repeat(name)).as_os_str().len();
    let nearly =
        site.path(&"l".repeat(107 - "/relevo-boot-20261121-031500-1a2b3c/0/nbd".len() - length(0)));
    fs::create_dir(&nearly).unwrap();
    boot(&nearly).is_one_clear_error(2, &["socket", "TMPDIR"]);
    boot(&site.path("missing")).is_one_clear_error(2, &["missing"]);
    assert_eq!(site.runs(), [""; 0]);
}
