// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees of files as text, so that a guest can be read as what it is: its files.
//!
//! ```text
//! == /etc/hostname          a file, whose lines follow
//! web01
//! == /boot/                 a directory
//! == /lib -> usr/lib        a link
//! == /EFI/BOOT/X.EFI shim   a file with this content, without an end of line
//! ```

use std::collections::BTreeSet;

use super::memory::Node;
use crate::guest::cpio::Writer;

/// What tells that systemd is there, with an udev that reads `.link` files.
pub(crate) const SYSTEMD: &str = "
== /usr/lib/systemd/systemd
== /usr/lib/udev/rules.d/80-net-setup-link.rules
";

/// What tells that udev writes rules for cards by itself.
pub(crate) const GENERATOR: &str = "
== /lib/udev/rules.d/75-persistent-net-generator.rules
";

/// Every node of a text, in its order.
pub(crate) fn nodes(text: &str) -> impl Iterator<Item = (&str, Node)> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split("\n== ").skip(1).map(|entry| {
        let (head, lines) = entry.split_once('\n').unwrap_or((entry, ""));
        if let Some(path) = head.strip_suffix('/') {
            return (path, Node::Directory);
        }
        let Some((path, content)) = head.split_once(' ') else {
            let end = if lines.is_empty() { "" } else { "\n" };
            return (head, file(format!("{lines}{end}")));
        };
        match content.strip_prefix("-> ") {
            Some(target) => (path, Node::Symlink(target.to_owned())),
            None => (path, file(content.to_owned())),
        }
    })
}

/// A cpio archive of these nodes, each behind the directories above it.
pub(crate) fn archive(nodes: impl IntoIterator<Item = (String, Node)>) -> Vec<u8> {
    let mut writer = Writer::new(0);
    let mut made = BTreeSet::new();
    for (path, node) in nodes {
        for (end, _) in path.match_indices('/') {
            if made.insert(path[..end].to_owned()) {
                writer.directory(&path[..end], 0o755).expect("a name fits");
            }
        }
        match node {
            Node::Symlink(target) => writer.symlink(&path, &target),
            Node::File(content, mode) => writer.file(&path, mode, &content),
            Node::Directory => writer.directory(&path, 0o755),
        }
        .expect("a name fits");
    }
    writer.finish()
}

fn file(content: String) -> Node {
    Node::File(content.into_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_lists_files_directories_and_links() {
        let text = "\n== /a\none\n\ntwo\n== /b/\n== /c -> b\n== /d elf\n== /e\n== /f\nend\n\n== /g\nlast\n";
        let file = |text: &str| file(text.to_owned());
        let expected = [
            ("/a", file("one\n\ntwo\n")),
            ("/b", Node::Directory),
            ("/c", Node::Symlink("b".to_owned())),
            ("/d", file("elf")),
            ("/e", file("")),
            ("/f", file("end\n\n")),
            ("/g", file("last\n")),
        ];
        assert_eq!(nodes(text).collect::<Vec<_>>(), expected);
    }
}
