// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo image serve` and the programs that it is for: those of libnbd and of QEMU, on unix
//! sockets, on TCP and within TLS.

mod site;
mod tls;

use std::fs;
use std::os::unix::net::UnixListener;

use e2e::{Outcome, Program, free_port, have_tool, noise, raw_disk};
use site::{Site, json};

const COULD_NOT: i32 = 2;
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 << 10;

fn have_tools(names: &[&str]) -> bool {
    names.iter().all(|name| have_tool(name))
}

#[test]
fn it_says_where_its_disks_are_until_ctrl_c() {
    let site = Site::new();
    let socket = site.path("nbd.sock");
    let served = site.serve("");
    let ended = served.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    let uris: Vec<String> = (0..2)
        .map(|disk| format!("nbd+unix:///disk{disk}?socket={}", socket.display()))
        .collect();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), uris);
    assert!(!socket.exists(), "the socket goes with the server");

    let told = json(&site.serve("--json --writable").end());
    assert_eq!(told["writable"], true);
    assert_eq!(told["disks"][0]["uri"], uris[0]);
    assert_eq!(told["disks"][0]["name"], "a.raw");
    assert_eq!(told["disks"][1]["export"], "disk1");
    assert_eq!(told["disks"][1]["size_bytes"], 3 * MIB);
}

#[test]
fn nbdinfo_sees_the_disks_and_what_they_can_do() {
    if !have_tool("nbdinfo") {
        return;
    }
    let site = Site::new();
    let served = site.serve("");
    let list = Program::tool("nbdinfo").args("--list --json");
    let list = json(&list.arg(served.uri.replace("disk0", "")).succeeds());
    let sizes: Vec<_> = list["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| {
            (
                export["export-name"].as_str(),
                export["export-size"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        sizes,
        [
            (Some("disk0"), Some(40 * MIB)),
            (Some("disk1"), Some(3 * MIB))
        ]
    );
    let info = Program::tool("nbdinfo").arg("--json").arg(&served.uri);
    let info = json(&info.succeeds());
    let export = &info["exports"][0];
    assert_eq!(info["structured"], true);
    for (what, can) in [
        ("is_read_only", true),
        ("can_flush", true),
        ("can_multi_conn", true),
        ("can_cache", true),
        ("can_df", true),
        ("can_trim", false),
        ("can_zero", false),
        ("can_fua", false),
    ] {
        assert_eq!(export[what], can, "{what} of {export:#}");
    }
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    served.end();

    let served = site.serve("--writable");
    let info = Program::tool("nbdinfo").arg("--json").arg(&served.uri);
    let info = json(&info.succeeds());
    for what in [
        "can_trim",
        "can_zero",
        "can_fua",
        "can_fast_zero",
        "can_multi_conn",
    ] {
        assert_eq!(info["exports"][0][what], true, "{what} of {info:#}");
    }
    assert_eq!(info["exports"][0]["is_read_only"], false);
}

/// Offset, length and type of each run that `nbdinfo --map` prints.
fn map_of(uri: &str) -> Vec<(u64, u64, u64)> {
    let map = Program::tool("nbdinfo").args("--map --json").arg(uri);
    let map = json(&map.succeeds());
    let number =
        |run: &serde_json::Value, key: &str| run[key].as_u64().expect("the tool writes this form");
    let runs = map.as_array().expect("the tool writes this form").iter();
    runs.map(|run| {
        (
            number(run, "offset"),
            number(run, "length"),
            number(run, "type"),
        )
    })
    .collect()
}

#[test]
fn nbdinfo_and_qemu_img_see_the_holes() {
    if !have_tools(&["nbdinfo", "qemu-img"]) {
        return;
    }
    let site = Site::new();
    let served = site.serve("");
    let runs = [
        (0, 3 * MIB, 0),
        (3 * MIB, 17 * MIB, 3),
        (20 * MIB, CHUNK, 0),
        (20 * MIB + CHUNK, 20 * MIB - 2 * CHUNK, 3),
        (40 * MIB - CHUNK, CHUNK, 0),
    ];
    assert_eq!(map_of(&served.uri), runs);
    assert_eq!(
        map_of(&served.uri.replace("disk0", "disk1")),
        [(0, 3 * MIB, 3)]
    );
    let map = Program::tool("qemu-img").args("map --output=json -f raw");
    let map = json(&map.arg(&served.uri).succeeds());
    let seen: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["start"].as_u64().unwrap(),
                run["length"].as_u64().unwrap(),
                if run["zero"] == true { 3 } else { 0 },
            )
        })
        .collect();
    assert_eq!(seen, runs);
}

#[test]
fn nbdcopy_copies_a_disk_out_by_one_connection_and_by_four() {
    if !have_tool("nbdcopy") {
        return;
    }
    let site = Site::new();
    let served = site.serve("");
    for options in [
        "--connections=1",
        "--connections=4 --requests=64",
        "--synchronous",
    ] {
        let copy = site.path("copy.raw");
        let nbdcopy = Program::tool("nbdcopy").args(options).arg(&served.uri);
        nbdcopy.arg(&copy).succeeds();
        assert!(site.is_disk(&copy), "{options}");
        fs::remove_file(copy).unwrap();
    }
}

#[test]
fn nbdcopy_writes_a_disk_and_the_image_stays_what_it_was() {
    if !have_tool("nbdcopy") {
        return;
    }
    let site = Site::new();
    let served = site.serve("--writable");
    let other = site.path("other.raw");
    let mut bytes = noise(7, 40 * MIB);
    bytes[9 << 20..30 << 20].fill(0);
    fs::write(&other, &bytes).unwrap();
    for options in [
        "--connections=4 --flush",
        "--connections=1 --allocated --flush",
    ] {
        let nbdcopy = Program::tool("nbdcopy").args(options).arg(&other);
        nbdcopy.arg(&served.uri).succeeds();
        let back = site.path("back.raw");
        let nbdcopy = Program::tool("nbdcopy").arg(&served.uri);
        nbdcopy.arg(&back).succeeds();
        assert!(fs::read(&back).unwrap() == bytes, "{options}");
        fs::remove_file(back).unwrap();
    }
    served.end();

    let served = site.serve("");
    let again = site.path("again.raw");
    let nbdcopy = Program::tool("nbdcopy").arg(&served.uri);
    nbdcopy.arg(&again).succeeds();
    assert!(site.is_disk(&again), "nothing of it was kept");
    site.library.relevo().args("image verify").succeeds();
}

#[test]
fn qemu_img_reads_compares_and_converts_over_it() {
    if !have_tool("qemu-img") {
        return;
    }
    let site = Site::new();
    let served = site.serve("");
    let info = Program::tool("qemu-img").args("info --output=json -f raw");
    let info = json(&info.arg(&served.uri).succeeds());
    assert_eq!(info["virtual-size"], 40 * MIB);
    let compare = Program::tool("qemu-img").args("compare -f raw -F raw");
    compare.arg(&served.uri).arg(site.disk()).succeeds();
    let copy = site.path("copy.qcow2");
    let convert = Program::tool("qemu-img").args("convert -f raw -O qcow2");
    convert.arg(&served.uri).arg(&copy).succeeds();
    let compare = Program::tool("qemu-img").args("compare -f qcow2 -F raw");
    compare.arg(&copy).arg(site.disk()).succeeds();
    assert!(
        fs::metadata(&copy).unwrap().len() < 5 * MIB,
        "holes were copied"
    );
    served.end();

    let served = site.serve("--writable");
    let empty = raw_disk(site.work.path(), "empty.raw", 40);
    let convert = Program::tool("qemu-img").args("convert -n -f raw -O raw");
    convert.arg(&empty).arg(&served.uri).succeeds();
    let compare = Program::tool("qemu-img").args("compare -f raw -F raw");
    compare.arg(&served.uri).arg(&empty).succeeds();
}

fn qemu_io(uri: &str, commands: &[&str]) -> Outcome {
    let mut program = Program::tool("qemu-io").args("-f raw --discard=unmap");
    for command in commands {
        program = program.arg("-c").arg(command);
    }
    program.arg(uri).run()
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    if !have_tools(&["qemu-io", "nbdinfo"]) {
        return;
    }
    let site = Site::new();
    let served = site.serve("--writable");
    let done = qemu_io(
        &served.uri,
        &[
            "write -P 0x5a 1000 5000",
            "write -f -P 0x5b 10M 4M",
            "write -z 1M 128k",
            "write -z -u 2M 128k",
            "write -z 100 300",
            "discard 2560k 256k",
            "flush",
            "aio_write -P 0x11 15M 1M",
            "aio_write -P 0x12 16M 1M",
            "aio_flush",
            "read -P 0x5a 1000 5000",
            "read -P 0x5b 10M 4M",
            "read -P 0 1M 128k",
            "read -P 0 2M 128k",
            "read -P 0 100 300",
            "read -P 0x11 15M 1M",
            "read -P 0x12 16M 1M",
        ],
    );
    assert_eq!(done.code, Some(0), "{done}");
    assert!(!done.stdout.contains("verification failed"), "{done}");
    let map = map_of(&served.uri);
    for hole in [(2 * MIB, 2 * CHUNK, 3), (2560 << 10, 4 * CHUNK, 3)] {
        assert!(map.contains(&hole), "{hole:?} is not in {map:?}");
    }
    served.end();

    let served = site.serve("");
    for command in ["write 0 512", "write -z 0 64k", "discard 0 64k"] {
        let refused = qemu_io(&served.uri, &[command]);
        assert_ne!(refused.code, Some(0), "{command}: {refused}");
    }
}

#[test]
fn what_is_in_the_way_of_the_socket_is_named_unless_it_is_dead() {
    let site = Site::new();
    let socket = site.path("nbd.sock");
    let start = || site.program().arg("--socket").arg(&socket).run();

    fs::write(&socket, "mine").unwrap();
    start().is_one_clear_error(COULD_NOT, &["nbd.sock", "not a socket"]);
    assert_eq!(fs::read(&socket).unwrap(), b"mine");
    fs::remove_file(&socket).unwrap();

    let listener = UnixListener::bind(&socket).unwrap();
    start().is_one_clear_error(COULD_NOT, &["nbd.sock", "another program listens"]);
    drop(listener);

    // Nobody listens on what is left of it; nor on that of a server that was killed.
    site.serve("").running.kill();
    assert!(socket.exists());
    let ended = site.serve("").end();
    assert_eq!(ended.code, Some(0), "{ended}");

    let missing = site.program().arg("--socket").arg(site.path("none/x"));
    missing.run().is_one_clear_error(COULD_NOT, &["none"]);
    let long = site.path(&"l".repeat(108));
    let long = site.program().arg("--socket").arg(long);
    long.run().is_one_clear_error(COULD_NOT, &["too long"]);
}

#[test]
fn the_network_gets_nothing_without_tls() {
    let site = Site::new();
    let refused = site.program().args("--listen 0.0.0.0:10809").run();
    refused.is_one_clear_error(COULD_NOT, &["without tls"]);
    let files = site
        .program()
        .args("--listen 127.0.0.1:0 --certificate a --private-key b");
    files
        .run()
        .is_one_clear_error(COULD_NOT, &["a: there is none"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = site.program().arg("--listen").arg(address).run();
    refused.is_one_clear_error(COULD_NOT, &["cannot listen"]);
    if have_tool("nbdinfo") {
        let served = site.serve_tcp(free_port(), |program| program);
        let size = Program::tool("nbdinfo").arg("--size").arg(&served.uri);
        assert_eq!(size.succeeds().stdout.trim(), (40 * MIB).to_string());
    }
}
