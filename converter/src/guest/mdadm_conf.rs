// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/mdadm.conf` and `/etc/mdadm/mdadm.conf`: which devices md arrays are put together from.
//!
//! ```text
//! DEVICE /dev/sd[ab]1 partitions containers
//! ARRAY /dev/md0 metadata=1.2 UUID=... name=... super-minor=0 devices=/dev/sda1,/dev/sdb1
//! ```
//! A line that begins with a blank continues the one before; words may be shortened to three
//! letters, in any case (mdadm.conf(5)). Editing keeps every byte of what is not edited.

use std::ops::Range;

use super::table::split_lines;

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbound {
    /// The text in which no array depends on the names of disks.
    pub text: String,
    /// Arrays that nothing but the names of disks identifies; those stay.
    pub only_by_devices: Vec<String>,
}

/// What an `ARRAY` line says about an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayLine {
    /// Its device node, as it stands there: `/dev/md0`, `/dev/md/root`, `root`.
    pub device: String,
    /// Its UUID: four groups of eight digits.
    pub uuid: Option<String>,
    /// Its name, often `host:name`.
    pub name: Option<String>,
    /// Its number, of metadata 0.90.
    pub super_minor: Option<u32>,
}

impl ArrayLine {
    /// The names of its device node, below `/dev/`; none of an array that is left alone.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let node = match self.device.strip_prefix("/dev/") {
            Some(node) => node.to_owned(),
            None if self.device.contains(['/', '<']) => return Vec::new(),
            None if number(&self.device, "md").is_some() => self.device.clone(),
            None => format!("md/{}", self.device),
        };
        let other = match (number(&node, "md/"), number(&node, "md")) {
            (Some(number), _) => Some(format!("md{number}")),
            (None, Some(number)) => Some(format!("md/{number}")),
            (None, None) => None,
        };
        std::iter::once(node).chain(other).collect()
    }
}

fn number(node: &str, prefix: &str) -> Option<u32> {
    node.strip_prefix(prefix)?.parse().ok()
}

/// The arrays that a configuration names.
#[must_use]
pub fn arrays(text: &str) -> Vec<ArrayLine> {
    let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let statements = statements(&lines).into_iter();
    statements
        .filter_map(|statement| array(&all_words(statement)))
        .collect()
}

fn array(words: &[&str]) -> Option<ArrayLine> {
    if !is_keyword(words.first(), "array") {
        return None;
    }
    let value = |key: &str| {
        let mut values = words.iter().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            name.eq_ignore_ascii_case(key).then_some(value)
        });
        values.next()
    };
    // Without a device mdadm names it by its superblock.
    let device = words.get(1).filter(|word| !word.contains('='));
    Some(ArrayLine {
        device: device.map_or_else(|| "<none>".to_owned(), |&device| device.to_owned()),
        uuid: value("uuid").and_then(uuid),
        name: value("name").map(str::to_owned),
        super_minor: value("super-minor").and_then(|minor| minor.parse().ok()),
    })
}

/// Whatever stands between the digits.
fn uuid(text: &str) -> Option<String> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let groups = digits
        .chunks(8)
        .map(|group| group.iter().collect::<String>().to_ascii_lowercase());
    (digits.len() == 32).then(|| groups.collect::<Vec<_>>().join(":"))
}

/// Lets arrays be found by their superblocks, whatever their disks are called: `DEVICE` lines that
/// name disks also take `partitions`, and `ARRAY` lines lose `devices=` where they say more.
#[must_use]
pub fn unbind(text: &str) -> Unbound {
    let lines: Vec<String> = split_lines(text.as_bytes())
        .into_iter()
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect();
    let statements = statements(&lines);
    let mut after = String::with_capacity(text.len());
    let mut only_by_devices = Vec::new();
    let mut takes_all = statements.iter().any(|statement| {
        let words = all_words(statement);
        is_keyword(words.first(), "device") && words.contains(&"partitions")
    });
    for statement in statements {
        let all = all_words(statement);
        if is_keyword(all.first(), "device") && !takes_all && names_disks(&all) {
            takes_all = true;
            after.push_str(&with_partitions(statement));
        } else if is_keyword(all.first(), "array") && all.iter().any(|word| is_devices(word)) {
            if all.iter().any(|word| is_identity(word)) {
                let lines = statement.iter().map(|line| without_devices(line));
                after.extend(lines);
            } else {
                only_by_devices.extend(all.get(1).map(|&array| array.to_owned()));
                after.push_str(&statement.concat());
            }
        } else {
            after.push_str(&statement.concat());
        }
    }
    Unbound {
        text: after,
        only_by_devices,
    }
}

/// The lines of each statement; a line that is blank, or a comment, is one of its own.
fn statements(lines: &[String]) -> Vec<&[String]> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < lines.len() {
        let more = lines.iter().skip(start + 1);
        let end = start + 1 + more.take_while(|line| continues(line)).count();
        found.extend(lines.get(start..end));
        start = end;
    }
    found
}

fn all_words(statement: &[String]) -> Vec<&str> {
    statement.iter().flat_map(|line| words(line)).collect()
}

fn continues(line: &str) -> bool {
    line.starts_with([' ', '\t']) && !words(line).is_empty()
}

/// The words of a line, up to a comment.
fn words(line: &str) -> Vec<&str> {
    let words = ranges(line).into_iter();
    words.filter_map(|range| line.get(range)).collect()
}

/// Where the words of a line stand; a `#` that begins a word begins a comment.
fn ranges(line: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut in_word = false;
    for (start, character) in line.char_indices() {
        let end = start + character.len_utf8();
        if character.is_whitespace() {
            in_word = false;
        } else if in_word {
            if let Some(last) = found.last_mut() {
                last.end = end;
            }
        } else if character == '#' {
            break;
        } else {
            found.push(start..end);
            in_word = true;
        }
    }
    found
}

fn is_keyword(word: Option<&&str>, keyword: &str) -> bool {
    let word = word
        .map(|word| word.to_ascii_lowercase())
        .unwrap_or_default();
    word.len() >= 3 && keyword.starts_with(&word)
}

fn names_disks(words: &[&str]) -> bool {
    words.iter().any(|word| word.starts_with("/dev/"))
}

fn is_devices(word: &str) -> bool {
    word.to_ascii_lowercase().starts_with("devices=")
}

fn is_identity(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let keys = ["uuid=", "name=", "super-minor=", "container=", "member="];
    keys.iter().any(|key| word.starts_with(key))
}

/// A statement with one more word behind its last one.
fn with_partitions(statement: &[String]) -> String {
    let last = statement.iter().rposition(|line| !words(line).is_empty());
    let lines = statement.iter().enumerate().map(|(number, line)| {
        let mut line = line.clone();
        let end = ranges(&line).last().map(|range| range.end);
        if let Some(end) = end.filter(|_| Some(number) == last) {
            line.insert_str(end, " partitions");
        }
        line
    });
    lines.collect()
}

/// A line without its `devices=`, and without the line where nothing else stands on it.
fn without_devices(line: &str) -> String {
    let mut after = String::with_capacity(line.len());
    let mut position = 0;
    let all = ranges(line);
    for (number, range) in all.iter().enumerate() {
        if !line.get(range.clone()).is_some_and(is_devices) {
            continue;
        }
        // With the blanks before it; those in front of the first word stay, as they continue the
        // line above, so the blanks behind it go.
        let previous = number.checked_sub(1).and_then(|before| all.get(before));
        let (start, end) = match (previous, all.get(number + 1)) {
            (Some(previous), _) => (previous.end, range.end),
            (None, Some(next)) => (range.start, next.start),
            (None, None) => (range.start, range.end),
        };
        after.push_str(line.get(position..start).unwrap_or_default());
        position = end.max(position);
    }
    after.push_str(line.get(position..).unwrap_or_default());
    match after.trim().is_empty() {
        true => String::new(),
        false => after,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    #[test]
    fn arrays_with_an_identity_lose_the_names_of_their_disks() {
        let unbound = unbind(
            "# mdadm.conf\nDEVICE /dev/sda1 /dev/sdb1 # both\n\
             ARRAY /dev/md0 UUID=1:2:3:4 devices=/dev/sda1,/dev/sdb1\n\
             ARRAY /dev/md1 level=raid1\n   devices=/dev/sda2,/dev/sdb2 super-minor=1\n\
             MAILADDR root\n",
        );
        assert_eq!(
            unbound.text,
            "# mdadm.conf\nDEVICE /dev/sda1 /dev/sdb1 partitions # both\n\
             ARRAY /dev/md0 UUID=1:2:3:4\n\
             ARRAY /dev/md1 level=raid1\n   super-minor=1\n\
             MAILADDR root\n"
        );
        assert_eq!(unbound.only_by_devices, [""; 0]);
        assert_eq!(unbind(&unbound.text).text, unbound.text);
    }

    #[test]
    fn an_array_without_identity_stays_and_is_told() {
        let text = "dev /dev/sd*\narray /dev/md3 devices=/dev/sda3,/dev/sdb3";
        let unbound = unbind(text);
        assert_eq!(unbound.only_by_devices, ["/dev/md3"]);
        assert_eq!(unbound.text, text.replace("sd*\n", "sd* partitions\n"));
    }

    #[test]
    fn what_debian_installs_needs_no_change() {
        let text = "#DEVICE partitions containers\nCREATE owner=root group=disk mode=0660 auto=yes\n\
                    HOMEHOST <system>\nMAILADDR root\n\
                    ARRAY /dev/md/0  metadata=1.2 UUID=a:b:c:d name=host:0\n";
        assert_eq!(unbind(text).text, text);
        let text = "DEVICE partitions\nDEVICE /dev/sda1\n";
        assert_eq!(unbind(text).text, text);
    }

    #[test]
    fn an_array_has_the_names_of_its_line() {
        let found = arrays(
            "MAILADDR root\narr /dev/md/0 metadata=1.2\n  UUID=0A1B2C3D:4e5f6071:8293a4b5-c6d7e8f9 \
             name=host:0\nARRAY /dev/md3 super-minor=3\nARRAY <ignore> UUID=1\nARRAY home name=x:home\n\
             ARRAY name=x:y\n",
        );
        let uuid = "0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9";
        assert_eq!(found[0].uuid.as_deref(), Some(uuid));
        assert_eq!(found[0].name.as_deref(), Some("host:0"));
        assert_eq!(found[1].super_minor, Some(3));
        let nodes: Vec<_> = found.iter().map(ArrayLine::nodes).collect();
        assert_eq!(nodes[0], ["md/0", "md0"]);
        assert_eq!(nodes[1], ["md3", "md/3"]);
        assert_eq!(nodes[2], [""; 0]);
        assert_eq!(nodes[3], ["md/home"]);
        assert_eq!(nodes[4], [""; 0]);
    }

    #[test]
    fn words_that_only_look_alike_stay() {
        let text =
            "ARRAY /dev/md0 xdevices=/a devices=/a devices=/b UUID=1 devices=/c#d # devices=/e\n";
        assert_eq!(
            unbind(text).text,
            "ARRAY /dev/md0 xdevices=/a UUID=1 # devices=/e\n"
        );
        let text = "ARRAY /dev/md0 UUID=1\n  devices=/a\n  name=x\n";
        assert_eq!(unbind(text).text, "ARRAY /dev/md0 UUID=1\n  name=x\n");
        let text = "DEVICE /dev/sda1#x #y\n";
        assert_eq!(unbind(text).text, "DEVICE /dev/sda1#x partitions #y\n");
    }

    proptest! {
        #[test]
        fn what_was_unbound_once_stays(text in "(DEVICE|ARRAY|#| |/dev/sda1|devices=/x|devices=\u{e9}|UUID=1|\n|partitions){0,20}") {
            let once = unbind(&text).text;
            assert_eq!(unbind(&once).text, once);
        }
    }
}
