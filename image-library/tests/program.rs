// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `image-library` as an operator uses it.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use image_library::client::{Patience, RemoteLibrary, ServerAccess};
use image_library::{
    ChunkUpload, ContentHash, Error, Image, ImageReader, ImageWriter, Token, UploadTarget,
};
use tempfile::TempDir;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_image-library"))
}

fn run(arguments: &[&str], path: &Path) -> Output {
    program().args(arguments).arg(path).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server as a process of its own, ended with the value.
struct Served {
    child: Child,
    url: String,
    token: Token,
}

impl Served {
    fn start(library: &Path) -> Self {
        let mut child = program()
            .arg("serve")
            .arg(library)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        let token = token(library, &["--role", "administrator"]);
        Self { child, url, token }
    }

    fn connect(&self) -> RemoteLibrary {
        let patience = Patience {
            give_up_after: Duration::from_millis(300),
            ..Patience::default()
        };
        let access = ServerAccess::with_token(self.token.clone());
        RemoteLibrary::connect_with(&self.url, &access, patience).unwrap()
    }
}

/// What `token add` prints.
fn token(library: &Path, arguments: &[&str]) -> Token {
    let added = program()
        .args(["token", "add"])
        .arg(library)
        .args(arguments)
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", stderr(&added));
    String::from_utf8(added.stdout).unwrap().parse().unwrap()
}

impl Drop for Served {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chunk(fill: u8) -> ChunkUpload {
    let plain = vec![fill; 65_536];
    ChunkUpload {
        hash: ContentHash::of(&plain),
        length: 65_536,
        compressed: zstd::bulk::compress(&plain, 1).unwrap(),
    }
}

#[test]
fn a_killed_server_is_told_in_mid_upload_and_its_library_is_well() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    let mut served = Served::start(&path);
    let library = served.connect();
    let target = UploadTarget {
        server: "web01".parse().unwrap(),
    };
    let upload = library.begin(&target).unwrap();
    upload.put_chunks(vec![chunk(1)]).unwrap();
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    let error = upload.put_chunks(vec![chunk(2)]).unwrap_err();
    assert!(matches!(error, Error::UploadLost { .. }), "{error}");
    let again = Served::start(&path);
    let library = again.connect();
    assert!(library.images().unwrap().is_empty());
    let upload = library.begin(&target).unwrap();
    upload.put_chunks(vec![chunk(1), chunk(2)]).unwrap();
}

#[test]
fn sigterm_ends_the_server_with_exit_code_0() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    let mut served = Served::start(&path);
    served.connect();
    let pid = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_done_is_exit_code_2_with_a_hint() {
    let directory = TempDir::new().unwrap();
    let output = run(&["serve"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("error: ") && text.contains("\n\nhint: "),
        "{text}"
    );
    std::fs::write(directory.path().join("something"), "x").unwrap();
    let output = run(&["init"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("is not empty"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_address_in_use_is_told() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address], &path);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains(&format!("error: listen on {address}: ")),
        "{text}"
    );
    assert!(
        text.contains("hint: another program listens there"),
        "{text}"
    );
}

#[test]
fn a_passphrase_and_a_sheet_are_all_that_opens_a_library() {
    let directory = TempDir::new().unwrap();
    let library = directory.path().join("library");
    let words = directory.path().join("words");
    std::fs::write(&words, "four words of mine\n").unwrap();
    let with = |passphrase_file: Option<&Path>, arguments: &[&str], input: &str| {
        let mut command = program();
        if let Some(file) = passphrase_file {
            command.env("RELEVO_PASSPHRASE_FILE", file);
        }
        command
            .args(arguments)
            .arg(&library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that does not read its input has ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    assert!(
        with(Some(&words), &["init", "--passphrase"], "")
            .status
            .success()
    );

    let refused = with(None, &["stats"], "");
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(
        said.contains("needs its passphrase") && said.contains("hint: "),
        "{said}"
    );
    std::fs::write(directory.path().join("wrong"), "other words\n").unwrap();
    let refused = with(Some(&directory.path().join("wrong")), &["stats"], "");
    assert!(stderr(&refused).contains("does not open the key"));
    assert!(with(Some(&words), &["stats"], "").status.success());

    let sheet = with(Some(&words), &["key", "export"], "");
    assert!(sheet.status.success());
    std::fs::remove_file(library.join("keys/library.key")).unwrap();
    assert!(stderr(&with(None, &["stats"], "")).contains("key of the library is missing"));
    let sheet = String::from_utf8(sheet.stdout).unwrap();
    let restored = with(None, &["key", "restore"], &sheet);
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert!(with(None, &["stats"], "").status.success());
    let mistyped = with(
        None,
        &["key", "restore"],
        &sheet.replacen("Key       1  ", "Key       1  0", 1),
    );
    assert_eq!(mistyped.status.code(), Some(2));
}

#[test]
fn images_are_kept_by_rules_and_taken_back_by_name() {
    let directory = TempDir::new().unwrap();
    let library = directory.path().join("library");
    assert!(run(&["init"], &library).status.success());
    let opened = image_library::LocalLibrary::open(&library).unwrap();
    let (first, second) = (store(&library, "web", 1), store(&library, "web", 2));
    let text = |arguments: &[&str]| {
        let output = run(arguments, &library);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };

    let plan = text(&["prune", "--keep-last", "1", "--dry-run"]);
    assert!(
        plan.contains(&format!("{}  ", first.id)) && plan.contains("  delete\n"),
        "{plan}"
    );
    assert_eq!(opened.images().unwrap().len(), 2);
    let done = text(&["prune", "--keep-last", "1"]);
    assert!(
        done.contains("  deleted\n") && done.contains("keep    last\n"),
        "{done}"
    );
    assert_eq!(opened.images().unwrap(), std::slice::from_ref(&second));
    assert!(text(&["deleted"]).contains(&first.id.to_string()));

    let by_name = |command: &str, image: &str| {
        program()
            .arg(command)
            .arg(&library)
            .arg(image)
            .output()
            .unwrap()
    };
    let back = by_name("undelete", &format!("web@{}", first.id));
    assert!(back.status.success(), "{}", stderr(&back));
    assert_eq!(opened.images().unwrap().len(), 2);
    let vague = by_name("delete", "web");
    assert_eq!(vague.status.code(), Some(2));
    assert!(stderr(&vague).contains("SERVER@ID"), "{}", stderr(&vague));
    assert!(
        by_name("delete", &format!("web@{}", first.id))
            .status
            .success()
    );

    text(&["prune", "--grace", "0s"]);
    let removed = text(&["prune", "--grace", "0s", "--json"]);
    let removed: serde_json::Value = serde_json::from_str(&removed).unwrap();
    assert_eq!(removed["removed_packs"], 1);
    assert_eq!(opened.images().unwrap(), [second]);
}

#[test]
fn a_token_is_shown_once_listed_and_revoked_and_the_trail_tells_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    let made = token(
        &path,
        &["--role", "agent", "--server", "web01", "--expires", "90d"],
    );
    let served = Served::start(&path);
    let access = ServerAccess::with_token(made.clone());
    let connect = || RemoteLibrary::connect_with(&served.url, &access, Patience::default());
    assert!(served.url.starts_with("https://"), "{}", served.url);
    connect().unwrap();

    let list = || String::from_utf8(run(&["token", "list"], &path).stdout).unwrap();
    let secret = made.reveal();
    assert!(list().contains(&format!("{}  agent of web01  made ", made.id())));
    assert!(list().contains("  good until ") && !list().contains(&secret[30..60]));
    let revoke = program()
        .args(["token", "revoke"])
        .arg(&path)
        .arg(made.id().to_string())
        .output()
        .unwrap();
    assert!(revoke.status.success(), "{}", stderr(&revoke));
    assert!(list().contains("  revoked "), "{}", list());
    // Longer than a server remembers a token.
    std::thread::sleep(Duration::from_millis(2500));
    let refused = connect().unwrap_err();
    assert!(
        refused.to_string().contains("the token was revoked"),
        "{refused}"
    );

    let audit = run(&["audit", "--json", "--since", "1h"], &path);
    let lines: Vec<serde_json::Value> = String::from_utf8(audit.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let actions: Vec<_> = lines
        .iter()
        .map(|line| line["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["add-token", "add-token", "revoke-token"]);
    assert_eq!(lines[2]["token"], made.id().to_string());
    assert_eq!(lines[2]["server"], "web01");
}

#[test]
fn tokens_that_make_no_sense_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    for arguments in [
        &["token", "add", "--role", "agent"][..],
        &["token", "add", "--role", "operator", "--server", "web01"],
        &["token", "add", "--role", "king"],
        &["token", "add", "--role", "operator", "--expires", "soon"],
    ] {
        let output = run(arguments, &path);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
    let file = directory.path().join("token");
    let into = file.to_str().unwrap();
    let write = ["token", "add", "--role", "operator", "--output", into];
    let output = run(&write, &path);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(Token::read(&file).is_ok());
    assert_eq!(
        run(&write, &path).status.code(),
        Some(2),
        "it never writes over a file"
    );
}

#[test]
fn http_without_tls_is_served_on_loopback_only() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("library");
    assert!(run(&["init"], &path).status.success());
    let output = run(&["serve", "--plain-http", "--listen", "0.0.0.0:0"], &path);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("needs TLS and tokens"),
        "{}",
        stderr(&output)
    );
}

/// Stores a disk of one sector as an image of a server, in this program.
fn store(library: &Path, server: &str, content: u8) -> Image {
    let library = image_library::LocalLibrary::open(library).unwrap();
    let server = server.parse().unwrap();
    let upload = library.begin(&UploadTarget { server }).unwrap();
    let bytes = [content; 512];
    let hash = ContentHash::of(&bytes);
    upload
        .put_chunks(vec![ChunkUpload {
            hash,
            length: 512,
            compressed: zstd::encode_all(&bytes[..], 1).unwrap(),
        }])
        .unwrap();
    let disk = image_library::DiskDraft {
        name: "sda".to_owned(),
        size_bytes: 512,
        sector_size: disk::SectorSize::B512,
    };
    let mut writer = image_library::DiskWriter::new(&*upload, &disk);
    writer.push(&[Some(hash)]).unwrap();
    writer.finish().unwrap();
    let draft = image_library::ImageDraft {
        taken_at: jiff::Timestamp::now(),
        consistency: image_library::Consistency::Cold,
        machine: None,
    };
    upload.commit(&draft).unwrap()
}

#[test]
fn a_far_library_is_filled_by_a_disk_that_is_sent_and_then_over_the_network() {
    let site = TempDir::new().unwrap();
    let (here, shipped, far) = (
        site.path().join("here"),
        site.path().join("shipped"),
        site.path().join("far"),
    );
    for library in [&here, &shipped, &far] {
        assert!(run(&["init"], library).status.success());
    }
    store(&here, "web", 1);
    store(&here, "mail", 2);
    let replicate = |from: &Path, to: &str| {
        let mut command = program();
        command
            .arg("replicate")
            .arg(from)
            .args(["--to", to, "--json"]);
        command
    };
    let report = |output: Output| {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let first = report(
        replicate(&here, shipped.to_str().unwrap())
            .output()
            .unwrap(),
    );
    assert_eq!(first["copied"].as_array().unwrap().len(), 2);
    let unpacked = report(replicate(&shipped, far.to_str().unwrap()).output().unwrap());
    assert_eq!(unpacked["copied"].as_array().unwrap().len(), 2);

    store(&here, "web", 3);
    let served = Served::start(&far);
    let mut command = replicate(&here, &served.url);
    let token_file = site.path().join("token");
    std::fs::write(&token_file, served.token.reveal()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token_file, private).unwrap();
    let update = report(
        command
            .arg("--to-token-file")
            .arg(&token_file)
            .output()
            .unwrap(),
    );
    assert_eq!(
        (
            update["present"].as_u64(),
            update["copied"][0]["server"].as_str()
        ),
        (Some(2), Some("web"))
    );
    let ids = |path: &Path| {
        let images = image_library::LocalLibrary::open(path)
            .unwrap()
            .images()
            .unwrap();
        images.iter().map(|image| image.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&far), ids(&here));
    // An agent's or operator's token copies nothing.
    let operator = token(&far, &["--role", "operator"]);
    std::fs::write(&token_file, operator.reveal()).unwrap();
    store(&here, "web", 4);
    let mut command = replicate(&here, &served.url);
    let refused = command
        .arg("--to-token-file")
        .arg(&token_file)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));

    for scope in [&["verify"][..], &["verify", "--sample", "100%"]] {
        let output = run(scope, &far);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("3 images: 0 findings"), "{text}");
    }
    let output = program()
        .arg("verify")
        .arg(&far)
        .arg("web")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 images: 0 findings"), "{text}");
    let output = program()
        .arg("verify")
        .arg(&far)
        .arg("db")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
