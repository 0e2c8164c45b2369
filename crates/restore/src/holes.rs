//! Arithmetic of address spaces: which ranges are taken, and where there is room.
//!
//! Knows no kernel: what is taken is told to it, and what it finds must still be asked for with `MAP_FIXED_NOREPLACE`.

use std::collections::BTreeMap;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// First address that x86-64 programs cannot have, with four levels of page tables and the guard page at the end.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Page tables move as a whole where source and destination have the same offset in this unit.
pub const TABLE: u64 = 2 << 20;

/// Where the search begins: far above programs and heaps, far below libraries and stacks, in most address spaces.
const SEARCH_FROM: u64 = 0x1000_0000_0000;

/// Nothing is placed below this: `vm.mmap_min_addr` at its usual value and more.
const LOWEST: u64 = 1 << 20;

/// A set of address ranges.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// Start to end; disjoint, never adjacent.
    taken: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `start..end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut low, mut high) = (start, end);
        while let Some((&s, &e)) = self.taken.range(..=high).next_back() {
            if e < low {
                break;
            }
            low = low.min(s);
            high = high.max(e);
            self.taken.remove(&s);
        }
        self.taken.insert(low, high);
    }

    /// Whether no address of `start..end` is taken.
    #[must_use]
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.taken.range(..end).next_back().is_none_or(|(_, &e)| e <= start)
    }

    /// What is not taken in `from..to`, by ascending address.
    #[must_use]
    pub fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        for (&start, &end) in self.taken.range(..to) {
            if start > at {
                gaps.push((at, start));
            }
            at = at.max(end);
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }

    /// An address with room for `len` bytes that is congruent to `like` modulo [`TABLE`]; a page on both sides stays free.
    #[must_use]
    pub fn find(&self, len: u64, like: u64) -> Option<u64> {
        let fits = |(start, end): (u64, u64)| {
            let first = start.checked_add(PAGE)?;
            let at = first.checked_add(like.wrapping_sub(first) % TABLE)?;
            (at.checked_add(len)?.checked_add(PAGE)? <= end).then_some(at)
        };
        let mut above = self.gaps(SEARCH_FROM, TASK_SIZE).into_iter();
        let mut below = self.gaps(LOWEST, SEARCH_FROM).into_iter();
        above.find_map(fits).or_else(|| below.find_map(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for &(start, end) in of {
            ranges.insert(start, end);
        }
        ranges
    }

    #[test]
    fn overlapping_and_adjacent_ranges_become_one() {
        let ranges = ranges(&[(0x1000, 0x3000), (0x5000, 0x6000), (0x2000, 0x4000), (0x4000, 0x5000)]);
        assert_eq!(ranges.gaps(0, 0x10000), [(0, 0x1000), (0x6000, 0x10000)]);
    }

    #[test]
    fn a_range_that_contains_others_swallows_them() {
        let ranges = ranges(&[(0x2000, 0x3000), (0x5000, 0x6000), (0x1000, 0x9000)]);
        assert_eq!(ranges.gaps(0, 0xa000), [(0, 0x1000), (0x9000, 0xa000)]);
    }

    #[test]
    fn freedom_is_of_every_address() {
        let ranges = ranges(&[(0x4000, 0x6000)]);
        assert!(ranges.is_free(0x2000, 0x4000));
        assert!(ranges.is_free(0x6000, 0x7000));
        assert!(!ranges.is_free(0x2000, 0x4001));
        assert!(!ranges.is_free(0x5000, 0x5001));
        assert!(!ranges.is_free(0x1000, 0x9000));
    }

    #[test]
    fn a_hole_is_congruent_and_free() {
        let mut space = ranges(&[(SEARCH_FROM, SEARCH_FROM + 0x5000)]);
        for like in [0x7fff_1234_5000, 0x5555_5555_4000, 0x1000, 0x20_0000] {
            let at = space.find(0x30_0000, like).unwrap();
            assert_eq!(at % TABLE, like % TABLE);
            assert!(space.is_free(at, at + 0x30_0000));
            space.insert(at, at + 0x30_0000);
        }
    }

    #[test]
    fn a_full_space_has_no_hole() {
        assert_eq!(ranges(&[(0, TASK_SIZE)]).find(PAGE, 0), None);
        assert_eq!(Ranges::default().find(u64::MAX - 10, 0), None);
        assert_eq!(Ranges::default().find(1 << 47, 0), None);
    }

    #[test]
    fn the_lower_part_serves_when_the_upper_is_taken() {
        let space = ranges(&[(SEARCH_FROM, TASK_SIZE)]);
        assert!(space.find(PAGE, 0).unwrap() < SEARCH_FROM);
    }
}
