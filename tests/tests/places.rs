// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same drill of the same server, wherever the library is: behind a server, over TLS with
//! tokens; in a bucket whose store lost one of its three nodes. (In a directory: `recover.rs`.)

use std::fs;
use std::path::Path;

use e2e::{
    Garage, Library, Outcome, Program, Runbook, SampleServer, files_ending, have_tool,
    one_machine_at_a_time, work_dir,
};

/// The server that every machine with sample servers has.
const SERVER: &str = "sample";

/// Runs the drill with a `relevo` that knows the library; asserts that its report says so.
fn passes_its_drill(relevo: Program, server: &SampleServer, work: &Path) {
    let report = work.join("report");
    let drill: Outcome = relevo
        .args("drill run")
        .arg(Runbook::for_server(server).write(work))
        .arg("--report")
        .arg(&report)
        .run();
    assert_eq!(drill.code, Some(0), "the drill did not pass\n{drill}");
    let documents = files_ending(&report, ".json");
    let [document] = &*documents else {
        panic!("expected one report, found {documents:?}");
    };
    let text = fs::read_to_string(document).expect("the report can be read");
    let report: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(report["outcome"], "passed", "{text}");
}

/// The sample server where it was built and virtual machines can be started.
fn sample() -> Option<SampleServer> {
    let server = SampleServer::find(SERVER)?;
    have_tool("qemu-system-x86_64").then_some(server)
}

#[test]
fn a_drill_passes_from_a_server_over_tls() {
    let Some(server) = sample() else {
        return;
    };
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let library = Library::create(work.path());
    let (running, address) = library.serve();
    library
        .snapshot_of(SERVER, &address, &server.disk())
        .succeeds();

    passes_its_drill(library.relevo_with(&address), &server, work.path());

    drop(running);
}

#[test]
fn a_drill_passes_from_a_bucket_that_lost_a_node() {
    let Some(server) = sample() else {
        return;
    };
    let _slot = one_machine_at_a_time();
    let work = work_dir();
    let Some(mut store) = Garage::start(work.path()) else {
        return;
    };
    let place = store.place("site/a");
    let at_home = work.path().join("workspaces");
    let init = Program::library().args("init").arg(&place);
    store.reached_by(init, &at_home).succeeds();
    let agent = Program::agent()
        .args("snapshot --server")
        .arg(SERVER)
        .arg("--library")
        .arg(&place)
        .arg("--state")
        .arg(work.path().join("agent"))
        .arg("--disk")
        .arg(server.disk());
    store.reached_by(agent, &at_home).succeeds();
    store.stop_a_node();

    // Another machine than the one that took the snapshot: it has the key and nothing else.
    let configuration = work.path().join("relevo.toml");
    let state = format!("state = {:?}\n", work.path().join("state"));
    fs::write(&configuration, state).expect("the work directory can be written to");
    let relevo = Program::relevo()
        .arg("--config")
        .arg(&configuration)
        .arg("--library")
        .arg(&place);
    let elsewhere = work.path().join("elsewhere");
    passes_its_drill(store.reached_by(relevo, &elsewhere), &server, work.path());
}
