// SPDX-License-Identifier: MIT OR Apache-2.0
//! The binary index of kmod (`modules.*.bin`): a radix tree from keys to values.
//!
//! ```text
//! file := magic 0xB007F457, version 0x00020001, reference to the root; then nodes
//! node := [prefix, NUL] [first, last, reference to the child of each byte first..=last]
//!         [number of values, {priority, value, NUL} each]
//! reference := offset in the file, with flags in the upper 4 bits that say which of the three
//!              parts the node has: 8 prefix, 4 values, 2 children; 0 for no child
//! ```
//! Numbers have 32 bits, most significant byte first. Keys are ASCII. A node's children stand
//! before it, in the order of their bytes, so the same keys give the same file. The root has no
//! prefix. Values stand in the order of their priority, equal ones last added first.
//!
//! Limits: 256 MiB of file, as offsets have 28 bits; 64 MiB of keys when reading.

use std::collections::BTreeMap;

use disk::{Error, Result};

const STRUCTURE: &str = "kmod index";
const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const HEADER_LENGTH: usize = 12;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET_MASK: u32 = 0x0FFF_FFFF;
/// The largest index of a distribution (modules.alias.bin) has 2 MiB of keys.
const KEY_BYTES_MAX: usize = 64 << 20;

/// A value and its priority: the lower one comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Priority.
    pub priority: u32,
    /// Value.
    pub value: String,
}

/// Keys with their values, to be written as one index or read from one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trie {
    keys: BTreeMap<Vec<u8>, Vec<Value>>,
}

impl Trie {
    /// Adds a value to a key. A key that is not ASCII is ignored: the format has no place for it.
    pub fn insert(&mut self, key: &str, value: &str, priority: u32) {
        if !key.is_ascii() || key.contains('\0') {
            return;
        }
        let values = self.keys.entry(key.as_bytes().to_vec()).or_default();
        let position = values.partition_point(|value| value.priority < priority);
        values.insert(
            position,
            Value {
                priority,
                value: value.replace('\0', ""),
            },
        );
    }

    /// The keys in order, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.keys.iter().filter_map(|(key, values)| {
            // Only ASCII was let in.
            Some((std::str::from_utf8(key).ok()?, values.as_slice()))
        })
    }

    /// The values of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> &[Value] {
        self.keys.get(key.as_bytes()).map_or(&[], Vec::as_slice)
    }

    /// The index as a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let entries: Vec<Entry<'_>> = self.keys.iter().collect();
        let root = write_nodes(&entries, &mut bytes)?;
        bytes[8..HEADER_LENGTH].copy_from_slice(&root.to_be_bytes());
        Ok(bytes)
    }

    /// Reads an index.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        for (offset, expected) in [(0, MAGIC), (4, VERSION)] {
            let found = number(bytes, offset)?;
            if found != expected {
                let problem = format!("expected {expected:#x}, found {found:#x}");
                return Err(Error::corrupt(STRUCTURE, offset as u64, problem));
            }
        }
        let mut trie = Self::default();
        // Each visit of a node uses up some of the file's length, so a hostile file that shares
        // nodes between many parents is no longer to read than an honest one.
        let mut bytes_left = bytes.len();
        let mut key_bytes_left = KEY_BYTES_MAX;
        let mut pending = vec![(number(bytes, 8)?, Vec::new(), u32::MAX)];
        while let Some((reference, key, parent)) = pending.pop() {
            let node = read_node(bytes, reference, parent)?;
            bytes_left = bytes_left.checked_sub(node.length).ok_or_else(|| {
                corrupt(
                    reference & OFFSET_MASK,
                    "nodes overlap: more is read than the file has",
                )
            })?;
            let key = [key.as_slice(), node.prefix].concat();
            key_bytes_left = key_bytes_left.checked_sub(key.len()).ok_or(Error::Limit {
                what: "length of all keys of a kmod index in bytes",
                limit: KEY_BYTES_MAX as u64,
            })?;
            if !node.values.is_empty() {
                trie.keys.insert(key.clone(), node.values);
            }
            for (byte, child) in node.children {
                pending.push((
                    child,
                    [key.as_slice(), &[byte]].concat(),
                    reference & OFFSET_MASK,
                ));
            }
        }
        Ok(trie)
    }
}

type Entry<'a> = (&'a Vec<u8>, &'a Vec<Value>);

/// A node whose children are being written.
struct Open<'a> {
    /// Entries below this node, itself included.
    entries: &'a [Entry<'a>],
    /// Length of the key before the prefix, and with it.
    start: usize,
    end: usize,
    /// How many of the entries are already written.
    written: usize,
    children: Vec<(u8, u32)>,
}

impl<'a> Open<'a> {
    fn new(entries: &'a [Entry<'a>], start: usize, has_prefix: bool) -> Self {
        let end = match (has_prefix, entries) {
            (true, [first, .., last]) => start + common_length(&first.0[start..], &last.0[start..]),
            (true, [only]) => only.0.len(),
            _ => start,
        };
        let own = entries.first().is_some_and(|(key, _)| key.len() == end);
        Self {
            entries,
            start,
            end,
            written: usize::from(own),
            children: Vec::new(),
        }
    }

    fn values(&self) -> Option<&'a [Value]> {
        let (key, values) = self.entries.first()?;
        (key.len() == self.end).then_some(values)
    }

    /// The next child and the byte that leads to it.
    fn next_child(&mut self) -> Option<(u8, Self)> {
        let rest = &self.entries[self.written..];
        let byte = rest.first()?.0[self.end];
        let count = rest.partition_point(|(key, _)| key[self.end] == byte);
        self.written += count;
        Some((byte, Self::new(&rest[..count], self.end + 1, true)))
    }
}

/// Writes all nodes, children first, without recursion; gives the reference to the root.
fn write_nodes<'a>(entries: &'a [Entry<'a>], bytes: &mut Vec<u8>) -> Result<u32> {
    let mut path: Vec<(u8, Open<'a>)> = vec![(0, Open::new(entries, 0, false))];
    loop {
        let Some((_, node)) = path.last_mut() else {
            // Not reached: the root returns below.
            return Ok(0);
        };
        if let Some(child) = node.next_child() {
            path.push(child);
            continue;
        }
        let Some((byte, node)) = path.pop() else {
            return Ok(0);
        };
        let reference = write_node(&node, bytes)?;
        match path.last_mut() {
            Some((_, parent)) => parent.children.push((byte, reference)),
            None => return Ok(reference),
        }
    }
}

fn write_node(node: &Open<'_>, bytes: &mut Vec<u8>) -> Result<u32> {
    let mut reference = u32::try_from(bytes.len())
        .ok()
        .filter(|offset| *offset <= OFFSET_MASK)
        .ok_or(Error::Limit {
            what: "length of a kmod index in bytes",
            limit: u64::from(OFFSET_MASK),
        })?;
    if node.start < node.end {
        bytes.extend_from_slice(&node.entries[0].0[node.start..node.end]);
        bytes.push(0);
        reference |= HAS_PREFIX;
    }
    if let [first, ..] = node.children.as_slice() {
        let last = node.children.last().unwrap_or(first);
        bytes.extend_from_slice(&[first.0, last.0]);
        let mut children = node.children.iter().peekable();
        for byte in first.0..=last.0 {
            let child = children.next_if(|child| child.0 == byte);
            bytes.extend_from_slice(&child.map_or(0, |child| child.1).to_be_bytes());
        }
        reference |= HAS_CHILDREN;
    }
    if let Some(values) = node.values() {
        bytes.extend_from_slice(&(values.len() as u32).to_be_bytes());
        for value in values {
            bytes.extend_from_slice(&value.priority.to_be_bytes());
            bytes.extend_from_slice(value.value.as_bytes());
            bytes.push(0);
        }
        reference |= HAS_VALUES;
    }
    Ok(reference)
}

fn common_length(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

struct StoredNode<'a> {
    prefix: &'a [u8],
    children: Vec<(u8, u32)>,
    values: Vec<Value>,
    length: usize,
}

/// Reads one node; children must stand before their parent, which rules out circles.
fn read_node(bytes: &[u8], reference: u32, parent: u32) -> Result<StoredNode<'_>> {
    let start = reference & OFFSET_MASK;
    if start >= parent {
        return Err(corrupt(start, "a child does not stand before its parent"));
    }
    let mut cursor = Cursor {
        bytes,
        position: start as usize,
    };
    let mut node = StoredNode {
        prefix: &[],
        children: Vec::new(),
        values: Vec::new(),
        length: 0,
    };
    if reference & HAS_PREFIX != 0 {
        node.prefix = cursor.string()?;
    }
    if reference & HAS_CHILDREN != 0 {
        let (first, last) = (cursor.byte()?, cursor.byte()?);
        for byte in first..=last {
            let child = cursor.number()?;
            if child != 0 {
                node.children.push((byte, child));
            }
        }
    }
    if reference & HAS_VALUES != 0 {
        for _ in 0..cursor.number()? {
            let priority = cursor.number()?;
            let value = String::from_utf8_lossy(cursor.string()?).into_owned();
            node.values.push(Value { priority, value });
        }
    }
    // A reference without flags to nothing is still a visit.
    node.length = (cursor.position - start as usize).max(1);
    Ok(node)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn number(&mut self) -> Result<u32> {
        let value = number(self.bytes, self.position)?;
        self.position += 4;
        Ok(value)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.position).copied();
        self.position += 1;
        byte.ok_or_else(|| ends_early(self.position))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.position..).unwrap_or(&[]);
        let length = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| ends_early(self.position))?;
        self.position += length + 1;
        Ok(&rest[..length])
    }
}

fn number(bytes: &[u8], offset: usize) -> Result<u32> {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or_else(|| ends_early(offset))
}

fn ends_early(offset: usize) -> Error {
    Error::corrupt(STRUCTURE, offset as u64, "the file ends early")
}

fn corrupt(offset: u32, problem: &str) -> Error {
    Error::corrupt(STRUCTURE, u64::from(offset), problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn a_small_index_has_these_bytes() {
        let mut trie = Trie::default();
        trie.insert("ab", "x", 1);
        trie.insert("abcd", "y", 0);
        trie.insert("abce", "z", 0);
        trie.insert("abce", "w", 0);
        let expected = [
            &[0xb0, 7, 0xf4, 0x57, 0, 2, 0, 1, 0x20, 0, 0, 73][..],
            // 12: "abcd"; 22: "abce" with the value added last in front.
            &[0, 0, 0, 1, 0, 0, 0, 0, b'y', 0],
            &[0, 0, 0, 2, 0, 0, 0, 0, b'w', 0, 0, 0, 0, 0, b'z', 0],
            // 38: "abc"; its children d and e.
            b"de",
            &[0x40, 0, 0, 12, 0x40, 0, 0, 22],
            // 48: "ab": prefix "b", child c, value.
            b"b\0cc",
            &[0x20, 0, 0, 38, 0, 0, 0, 1, 0, 0, 0, 1, b'x', 0],
            &[],
        ]
        .concat();
        let bytes = trie.to_bytes().unwrap();
        assert_eq!(bytes[12..expected.len()], expected[12..]);
        assert_eq!(Trie::from_bytes(&bytes).unwrap(), trie);
        assert_eq!(trie.get("abce").len(), 2);
    }

    #[test]
    fn circles_and_foreign_files_are_errors() {
        let mut bytes = Trie::default().to_bytes().unwrap();
        assert_eq!(Trie::from_bytes(&bytes).unwrap(), Trie::default());
        // A root that is its own child.
        bytes[8..12].copy_from_slice(&[0x20, 0, 0, 12]);
        bytes.extend([b'a', b'a', 0x20, 0, 0, 12]);
        assert_eq!(
            Trie::from_bytes(&bytes).unwrap_err().to_string(),
            "kmod index at byte 0xc: a child does not stand before its parent"
        );
        assert!(Trie::from_bytes(b"\xb0\x07\xf4\x56\0\x02\0\x01\0\0\0\0").is_err());
        assert!(Trie::from_bytes(&bytes[..11]).is_err());
    }

    proptest! {
        #[test]
        fn an_index_is_read_as_it_was_written(
            keys in proptest::collection::vec(("[a-c]{0,6}", "[x-z]{0,2}", 0..3_u32), 0..40),
        ) {
            let mut trie = Trie::default();
            for (key, value, priority) in keys {
                trie.insert(&key, &value, priority);
            }
            assert_eq!(Trie::from_bytes(&trie.to_bytes().unwrap()).unwrap(), trie);
        }

        #[test]
        fn damage_never_panics(damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
            let mut trie = Trie::default();
            for key in ["a", "abc", "abd", "symbol:x", "symbol:yy"] {
                trie.insert(key, "value", 3);
            }
            let mut bytes = trie.to_bytes().unwrap();
            for (position, value) in damage {
                let position = usize::from(position) % bytes.len();
                bytes[position] = value;
            }
            let _either = Trie::from_bytes(&bytes);
        }
    }
}
