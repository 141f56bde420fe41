// SPDX-License-Identifier: MIT OR Apache-2.0
//! A filter of a run: tells for most ids that a run does not have that it does not have them,
//! without reading the run. A library asks every run for every new chunk.
//!
//! A blocked Bloom filter (Putze, Sanders and Singler, 2007): an id sets six bits of one line of
//! 512, so a question costs one line of memory. Ids are keyed hashes, so their own bytes choose line
//! and bits. With one line for 64 entries, about 3 of 100 ids that are not there pass.

use crate::chunk::ChunkId;

/// Bytes of a line.
pub(super) const LINE_LENGTH: usize = 64;
/// Entries for which there is a line.
const ENTRIES_PER_LINE: u64 = 64;
/// Bits that an id sets in its line, 9 bits of the id for each.
const BITS: u32 = 6;

/// Lines of a piece, which is 1 MiB: filters come and go, and in one piece each they would leave
/// holes in the heap that the next, larger one does not fit into.
pub(super) const PIECE_LINES: usize = 1 << 14;

/// The ids of a run, some others among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// Each of [`PIECE_LINES`] lines, but for the last.
    pieces: Vec<Vec<[u64; 8]>>,
    lines: usize,
}

impl Filter {
    /// For so many entries.
    pub(super) fn new(entries: u64) -> Self {
        let lines = usize::try_from(entries.div_ceil(ENTRIES_PER_LINE)).unwrap_or(usize::MAX);
        let lines = lines.max(1);
        let firsts = (0..lines).step_by(PIECE_LINES);
        Self {
            pieces: firsts
                .map(|first| vec![[0; 8]; PIECE_LINES.min(lines - first)])
                .collect(),
            lines,
        }
    }

    /// For any entries: tells nothing, and takes no memory.
    pub(super) const fn of_everything() -> Self {
        Self {
            pieces: Vec::new(),
            lines: 0,
        }
    }

    /// The line of an id and the bits that are set in it. The first eight bytes of an id decide
    /// where it stands in a run; these are others.
    fn place(&self, id: &ChunkId) -> (usize, [u64; 8]) {
        let bytes = id.as_bytes();
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        // The high half of the product is evenly spread over the lines, and below their number.
        let line = (u128::from(number(8)) * self.lines as u128) >> 64;
        let (mut bits, mut line_bits) = (number(16), [0; 8]);
        for _ in 0..BITS {
            let bit = (bits & 511) as usize;
            line_bits[bit / 64] |= 1 << (bit % 64);
            bits >>= 9;
        }
        (line as usize, line_bits)
    }

    /// Adds an id.
    pub(super) fn add(&mut self, id: &ChunkId) {
        let (line, bits) = self.place(id);
        let line = &mut self.pieces[line / PIECE_LINES][line % PIECE_LINES];
        for (word, bits) in line.iter_mut().zip(bits) {
            *word |= bits;
        }
    }

    /// `false` when the id was not added; `true` when it was, and sometimes when it was not.
    pub(super) fn may_have(&self, id: &ChunkId) -> bool {
        if self.lines == 0 {
            return true;
        }
        let (line, bits) = self.place(id);
        let line = &self.pieces[line / PIECE_LINES][line % PIECE_LINES];
        let words = line.iter().zip(bits);
        words.fold(0, |missing, (word, bits)| missing | (bits & !word)) == 0
    }

    /// How many lines there are.
    pub(super) const fn line_count(&self) -> usize {
        self.lines
    }

    /// As it stands in a run's file, in pieces.
    pub(super) fn pieces(&self) -> &[Vec<[u64; 8]>] {
        &self.pieces
    }

    /// Adds what follows in a file: [`PIECE_LINES`] lines, or the last ones.
    pub(super) fn push_piece(&mut self, piece: Vec<[u64; 8]>) {
        self.lines += piece.len();
        self.pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ChunkId {
        ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn what_was_added_passes_and_most_else_does_not() {
        let count = 100_000;
        let mut filter = Filter::new(count);
        for number in 0..count {
            filter.add(&id(number));
        }
        assert!((0..count).all(|number| filter.may_have(&id(number))));
        let passed = (count..2 * count)
            .filter(|number| filter.may_have(&id(*number)))
            .count();
        assert!((1000..4000).contains(&passed), "{passed} of {count}");
        assert_eq!(filter.line_count(), 1563);
    }

    #[test]
    fn a_filter_of_nothing_has_a_line() {
        let filter = Filter::new(0);
        assert_eq!(filter.line_count(), 1);
        assert!(!filter.may_have(&id(1)));
    }
}
