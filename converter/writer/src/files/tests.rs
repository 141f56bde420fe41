// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operations do, in a directory of this computer; owners need root and are tested in the VM.

use std::os::unix::fs::MetadataExt as _;

use super::*;

const NOW: i64 = 1_700_000_000;

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["root", "contents"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self(directory)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn carry_out(&self, path: &str, action: Action) -> io::Result<()> {
        let files = Files {
            root: &self.root(),
            contents: &self.0.path().join("contents"),
            now_unix_seconds: NOW,
        };
        files.carry_out(&Operation {
            mount: 0,
            path: path.to_owned(),
            action,
        })
    }

    fn content(&self, text: &str) -> String {
        fs::write(self.0.path().join("contents/0"), text).unwrap();
        "0".to_owned()
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let content = self.content(text);
        let attributes = None;
        self.carry_out(
            path,
            Action::Write {
                content,
                attributes,
            },
        )
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

#[test]
fn a_file_that_is_replaced_keeps_its_inode_mode_and_links() {
    let fixture = Fixture::new();
    let path = fixture.root().join("file");
    fs::write(&path, "something longer").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&path, fixture.root().join("link")).unwrap();
    let before = fs::metadata(&path).unwrap();
    fixture.write("/file", "short").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(fixture.text("link"), "short");
    assert_eq!(
        (before.ino(), before.mode(), NOW),
        (after.ino(), after.mode(), after.mtime())
    );
}

#[test]
fn files_are_appended_to_renamed_and_removed() {
    let fixture = Fixture::new();
    fs::write(fixture.root().join("a"), "one").unwrap();
    let content = fixture.content(" two");
    fixture.carry_out("/a", Action::Append { content }).unwrap();
    let to = "/b".to_owned();
    fixture.carry_out("/a", Action::Rename { to }).unwrap();
    assert_eq!(fixture.text("b"), "one two");
    let target = "b".to_owned();
    fixture
        .carry_out("/l", Action::CreateSymlink { target })
        .unwrap();
    assert_eq!(fixture.text("l"), "one two");
    fixture.carry_out("/b", Action::Remove).unwrap();
    assert!(!fixture.root().join("b").exists());
    let content = fixture.content("x");
    assert!(fixture.carry_out("/b", Action::Append { content }).is_err());
}

#[test]
fn a_link_is_not_followed_and_nothing_is_written_outside() {
    let fixture = Fixture::new();
    let outside = fixture.0.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    std::os::unix::fs::symlink(&outside, fixture.root().join("link")).unwrap();
    for path in ["/link", "/../outside", "outside", "/a//b", "/./a", "/"] {
        assert!(fixture.write(path, "yours").is_err(), "{path}");
    }
    assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
}
