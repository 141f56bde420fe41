// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library in a bucket of a real store: made, filled by an agent, verified, read back and pruned,
//! one of the store's three nodes being gone.

use std::fs;
use std::path::Path;

use e2e::{Garage, Outcome, Program, the_only_disk, work_dir};

const MIB: usize = 1 << 20;

/// A disk file: 24 MiB of bytes that no compression makes smaller, some zeros, an end of its own.
fn disk(path: &Path, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(32 * MIB);
    while content.len() < 24 * MIB {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.resize(31 * MIB, 0);
    content.resize(32 * MIB, seed as u8);
    fs::write(path, content).expect("the test's folder can be written to");
}

/// A library in the store, and the folder in which its programs work.
struct Site<'a> {
    store: &'a Garage,
    work: &'a Path,
    place: String,
}

impl<'a> Site<'a> {
    fn new(store: &'a Garage, work: &'a Path) -> Self {
        let place = store.place("site/a");
        Self { store, work, place }
    }

    fn reached_by(&self, program: Program) -> Program {
        self.store
            .reached_by(program, &self.work.join("workspaces"))
    }

    fn library(&self, verb: &str) -> Program {
        self.reached_by(Program::library().args(verb).arg(&self.place))
    }

    fn relevo(&self, words: &str) -> Program {
        let relevo = Program::relevo().arg("--library").arg(&self.place);
        self.reached_by(relevo.args(words))
    }

    fn snapshot(&self, server: &str, disk: &Path) -> Outcome {
        let agent = Program::agent().args("snapshot --server").arg(server);
        let agent = agent.arg("--library").arg(&self.place);
        let state = self.work.join("agent");
        let agent = agent.arg("--state").arg(state).arg("--disk").arg(disk);
        self.reached_by(agent).succeeds()
    }

    /// Asserts that the library is sound and gives the disk back to a machine that never saw it.
    fn gives_back(&self, server: &str, disk: &Path, name: &str) {
        self.library("verify").succeeds();
        let exported = self.work.join(name);
        let relevo = Program::relevo().arg("--library").arg(&self.place);
        let relevo = relevo
            .args("image export")
            .arg(server)
            .arg("-o")
            .arg(&exported);
        let elsewhere = self.work.join(format!("{name}-workspaces"));
        self.store.reached_by(relevo, &elsewhere).succeeds();
        let read = |path: &Path| fs::read(path).expect("the disks of a test can be read");
        assert!(
            read(&the_only_disk(&exported)) == read(disk),
            "the disk is another one"
        );
    }
}

#[test]
fn a_library_in_a_bucket_outlives_one_of_the_stores_nodes() {
    let work = work_dir();
    let Some(mut store) = Garage::start(work.path()) else {
        return;
    };
    let (first, second) = (
        work.path().join("first.raw"),
        work.path().join("second.raw"),
    );
    disk(&first, 1);
    disk(&second, 2);

    {
        let site = Site::new(&store, work.path());
        let said = site.library("init").succeeds();
        assert!(said.stderr.contains("RELEVO_KEY_FILE"), "{said}");
        let again = site.library("init").run();
        again.is_one_clear_error(2, &["s3://images/site/a", "not empty"]);
        site.snapshot("x", &first);
        site.gives_back("x", &first, "before");
    }
    store.stop_a_node();
    let site = Site::new(&store, work.path());
    site.gives_back("x", &first, "without-a-node");
    site.snapshot("x", &second);
    site.snapshot("y", &second);

    // This store honours no conditions of writes, so one machine has to be chosen for prunes.
    let refused = site.library("prune --keep-last 1 --grace 0s").run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("--sole-pruner"), "{refused}");
    let prune = || {
        let words = "prune --sole-pruner --keep-last 1 --grace 0s --json";
        site.library(words).succeeds().json()
    };
    // The store's clock says when an image was deleted: a little after the prune that did it began.
    let deleted = prune();
    assert_eq!(
        deleted["decisions"].as_array().map(Vec::len),
        Some(3),
        "{deleted}"
    );
    let condemned = prune();
    assert_eq!(
        condemned["purged"].as_array().map(Vec::len),
        Some(1),
        "{condemned}"
    );
    assert_ne!(condemned["condemned_packs"], 0, "{condemned}");
    let removed = prune();
    assert_eq!(
        removed["removed_packs"], condemned["condemned_packs"],
        "{removed}"
    );
    site.gives_back("x", &second, "pruned-x");
    site.gives_back("y", &second, "pruned-y");
    let listed = site.relevo("image list").succeeds();
    let of_x = listed.stdout.lines().filter(|line| line.starts_with("x "));
    assert_eq!(of_x.count(), 1, "{listed}");
}

#[test]
fn a_bucket_that_cannot_be_used_is_said_to_be_so() {
    let work = work_dir();
    let Some(store) = Garage::start(work.path()) else {
        return;
    };
    let verify = |place: &str| Program::library().arg("verify").arg(place);
    let reached = |program| store.reached_by(program, work.path());
    reached(verify("s3://nowhere"))
        .run()
        .is_one_clear_error(2, &["s3://nowhere"]);
    reached(verify(&store.place("empty")))
        .run()
        .is_one_clear_error(2, &["s3://images/empty", "library.json"]);
    reached(verify(&store.place("x")))
        .env("AWS_SECRET_ACCESS_KEY", "another")
        .run()
        .is_one_clear_error(2, &["s3://images/x", "AWS_SECRET_ACCESS_KEY"]);
    reached(verify(&store.place("x")))
        .env("AWS_REGION", "elsewhere")
        .run()
        .is_one_clear_error(2, &["s3://images/x", "AWS_REGION"]);
}
