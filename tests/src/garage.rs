// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bucket of the test's own: three nodes of Garage on the loopback address, each object on all
//! of them, so that one may stop. They go with the value.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::program::Program;
use crate::toolbox::{cache_dir, free_port, skip};
use crate::waiting::wait_until;

const NODES: usize = 3;
const BUCKET: &str = "images";
/// Any digits do: the nodes listen on the loopback address and live as long as the test.
const KEY_ID: &str = "GK000102030405060708090a0b";
const SECRET: &str = "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f";

/// A store with one bucket.
#[derive(Debug)]
pub struct Garage {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    configuration: PathBuf,
    s3_port: u16,
    /// `None` when it was stopped.
    process: Option<Child>,
}

impl Garage {
    /// Starts one in a test's folder; says `skipped` where Garage was not built.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(work: &Path) -> Option<Self> {
        if !program().is_file() {
            skip("Garage is not built; tests/fixtures/build/garage.sh builds it");
            return None;
        }
        let nodes: Vec<Node> = (0..NODES).map(|number| Node::start(work, number)).collect();
        for node in &nodes {
            let address = format!("127.0.0.1:{}", node.s3_port);
            wait_until("Garage listens", || TcpStream::connect(&address).is_ok());
        }
        let store = Self { nodes };
        store.join();
        store.make_bucket();
        Some(store)
    }

    /// Makes one cluster of the nodes.
    fn join(&self) {
        let first = &self.nodes[0];
        let ids: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.administer(&["node", "id", "-q"]).trim().to_owned())
            .collect();
        for id in &ids[1..] {
            first.administer(&["node", "connect", id]);
        }
        for id in &ids {
            let (id, _) = id
                .split_once('@')
                .expect("an id is followed by its address");
            first.administer(&["layout", "assign", id, "-z", "here", "-c", "1G"]);
        }
        first.administer(&["layout", "apply", "--version", "1"]);
    }

    fn make_bucket(&self) {
        let first = &self.nodes[0];
        first.administer(&["key", "import", "--yes", "-n", "test", KEY_ID, SECRET]);
        first.administer(&["bucket", "create", BUCKET]);
        first.administer(&[
            "bucket", "allow", "--read", "--write", BUCKET, "--key", "test",
        ]);
    }

    /// A library's place in the bucket.
    #[must_use]
    pub fn place(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// A program that reaches the bucket through the first node, with its own workspaces.
    #[must_use]
    pub fn reached_by(&self, program: Program, workspaces: &Path) -> Program {
        program
            .env(
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.nodes[0].s3_port),
            )
            .env("AWS_REGION", "garage")
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("RELEVO_WORKSPACE", workspaces)
    }

    /// Kills the last node, as a power cut would.
    ///
    /// # Panics
    /// When it was killed already.
    pub fn stop_a_node(&mut self) {
        let node = self.nodes.last_mut().expect("there are three");
        drop(node.process.take().map(ended).expect("it runs still"));
    }
}

impl Node {
    fn start(work: &Path, number: usize) -> Self {
        let folder = work.join(format!("garage-{number}"));
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        let (rpc_port, s3_port) = (free_port(), free_port());
        let configuration = folder.join("garage.toml");
        let text = format!(
            "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"lmdb\"\n\
             lmdb_map_size = \"256M\"\nreplication_factor = {NODES}\n\
             rpc_bind_addr = \"127.0.0.1:{rpc_port}\"\nrpc_public_addr = \"127.0.0.1:{rpc_port}\"\n\
             rpc_secret = \"{SECRET}\"\n[s3_api]\ns3_region = \"garage\"\n\
             api_bind_addr = \"127.0.0.1:{s3_port}\"\n",
            folder.join("meta"),
            folder.join("data"),
        );
        fs::write(&configuration, text).expect("the test's folder can be written to");
        fs::set_permissions(&configuration, fs::Permissions::from_mode(0o600))
            .expect("it is the test's own");
        let log =
            fs::File::create(folder.join("log")).expect("the test's folder can be written to");
        let process = Command::new(program())
            .arg("-c")
            .arg(&configuration)
            .arg("server")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Garage can be started");
        Self {
            configuration,
            s3_port,
            process: Some(process),
        }
    }

    fn administer(&self, arguments: &[&str]) -> String {
        let output = Command::new(program())
            .arg("-c")
            .arg(&self.configuration)
            .args(arguments)
            .output()
            .expect("Garage can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "garage {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.take().map(ended));
    }
}

/// A process that has ended.
fn ended(mut process: Child) -> Child {
    // Both fail when it has ended already, which is what is wanted.
    let _ = process.kill();
    let _ = process.wait();
    process
}

fn program() -> PathBuf {
    cache_dir().join("tools/bin/garage")
}
