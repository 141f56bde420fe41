// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where RAID4, RAID5 and RAID6 put data and parity, of md and of LVM, whose dm-raid is md's.
//!
//! Every row of chunks has one chunk of parity P, with RAID6 another one Q. The layout says which
//! members have them, and in which order the data chunks follow:
//!
//! | layout | P of row r, of n members | data begins |
//! |---|---|---|
//! | 0, 1 left, right asymmetric | n-1 - r mod n, r mod n | at member 0 |
//! | 2, 3 left, right symmetric | the same | after the parity |
//! | 4, 5 parity first, last | member 0, the last | after it, at member 0 |
//! | 8, 9, 10 DDF's | as 1, 0 and 2, see [`Rows::row`] | as 1, 0 and 2 |
//! | 16 to 20 | as 0 to 4 of RAID5 without the last member | the last member has Q |
//!
//! Q of RAID6 follows P. Each data chunk has a power of the generator in Q: counted from the member
//! after Q, or with DDF's layouts the number of the member. Source: Linux, `drivers/md/raid5.c`,
//! `raid5_compute_sector`.

/// The geometry of a volume with parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    disks: usize,
    layout: u32,
    has_q: bool,
}

/// The members of one row of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) p: usize,
    pub(super) q: Option<usize>,
    /// Position in the array and power of the generator, for each data chunk in its order.
    pub(super) data: Vec<(usize, usize)>,
}

impl Rows {
    /// `None` for a layout that is not known, or too few members for it.
    pub(super) fn new(disks: usize, layout: u32, has_q: bool) -> Option<Self> {
        let is_known = match has_q {
            true => matches!(layout, 0..=5 | 8..=10 | 16..=20) && disks >= 3,
            false => matches!(layout, 0..=5) && disks >= 2,
        };
        is_known.then_some(Self {
            disks,
            layout,
            has_q,
        })
    }

    /// Whether there are two parities.
    pub(super) fn has_q(self) -> bool {
        self.has_q
    }

    /// How many chunks of a row hold data.
    pub(super) fn data_disks(self) -> usize {
        self.disks - if self.has_q { 2 } else { 1 }
    }

    /// The members of row `number`.
    pub(super) fn row(self, number: u64) -> Row {
        if !self.has_q {
            return row_of_one_parity(number, self.layout, self.disks);
        }
        if self.layout >= 16 {
            let last = self.disks - 1;
            let row = row_of_one_parity(number, self.layout - 16, last);
            return Row {
                q: Some(last),
                data: with_powers(row.data.iter().map(|d| d.0), self.disks, last),
                ..row
            };
        }
        self.row_of_two(number)
    }

    fn row_of_two(self, number: u64) -> Row {
        let disks = self.disks;
        let turn = (number % disks as u64) as usize;
        let p = match self.layout {
            0 | 2 | 10 => disks - 1 - turn,
            1 | 3 | 8 => turn,
            // As layout 0, one row ahead.
            9 => disks - 1 - (turn + 1) % disks,
            4 => 0,
            _ => disks - 2,
        };
        let q = match self.layout {
            // Q before P.
            10 => (p + disks - 1) % disks,
            _ => (p + 1) % disks,
        };
        let first = match self.layout {
            2 | 3 => p + 2,
            10 => p + 1,
            _ => 0,
        };
        let in_order = (0..disks).map(|step| (first + step) % disks);
        let members = in_order.filter(|member| *member != p && *member != q);
        let data = match self.layout {
            8..=10 => members.map(|member| (member, member)).collect(),
            _ => with_powers(members, disks, q),
        };
        Row {
            p,
            q: Some(q),
            data,
        }
    }
}

fn row_of_one_parity(number: u64, layout: u32, disks: usize) -> Row {
    let turn = (number % disks as u64) as usize;
    let p = match layout {
        0 | 2 => disks - 1 - turn,
        1 | 3 => turn,
        4 => 0,
        _ => disks - 1,
    };
    let first = if matches!(layout, 2 | 3) { p + 1 } else { 0 };
    let in_order = (0..disks).map(|step| (first + step) % disks);
    Row {
        p,
        q: None,
        data: in_order
            .filter(|member| *member != p)
            .map(|member| (member, 0))
            .collect(),
    }
}

/// The powers of members in Q, counted from the member after Q without the one of P.
fn with_powers(
    members: impl Iterator<Item = usize> + Clone,
    disks: usize,
    q: usize,
) -> Vec<(usize, usize)> {
    let mut in_turn: Vec<usize> = members.clone().collect();
    in_turn.sort_unstable_by_key(|member| (member + disks - q - 1) % disks);
    let power = |member| in_turn.iter().position(|m| *m == member).unwrap_or(0);
    members.map(|member| (member, power(member))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_of_no_kernel_are_refused() {
        for layout in [6, 8, 16, u32::MAX] {
            assert_eq!(Rows::new(4, layout, false), None, "raid5 {layout}");
        }
        for layout in [6, 7, 11, 15, 21, u32::MAX] {
            assert_eq!(Rows::new(5, layout, true), None, "raid6 {layout}");
        }
        assert_eq!(Rows::new(1, 2, false), None);
        assert_eq!(Rows::new(2, 2, true), None);
    }

    #[test]
    fn every_row_has_every_member_once() {
        for layout in (0..=5).chain(8..=10).chain(16..=20) {
            let rows = Rows::new(5, layout, true).expect("known");
            for number in 0..20 {
                let row = rows.row(number);
                let mut all: Vec<usize> = row.data.iter().map(|data| data.0).collect();
                all.extend([row.p, row.q.expect("RAID6")]);
                all.sort_unstable();
                assert_eq!(all, [0, 1, 2, 3, 4], "layout {layout}, row {number}");
            }
        }
    }
}
