//! Sets of signals, as the kernel has them: bit `n - 1` stands for signal `n`, from 1 to 64 (arch/x86/include/uapi/asm/signal.h).

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, Not, Sub};

/// The largest number of a signal (`_NSIG`).
pub const MOST: i32 = 64;

/// A set of signals; laid out as the kernel's `sigset_t` of 8 bytes.
///
/// A number that no signal has is in no set: it is not found, and adding it changes nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of one signal.
    #[must_use]
    pub const fn of(signal: i32) -> Self {
        Self(if 1 <= signal && signal <= MOST { 1 << (signal - 1) } else { 0 })
    }

    /// The set of several signals.
    #[must_use]
    pub const fn of_all(signals: &[i32]) -> Self {
        let (mut set, mut at) = (Self::EMPTY, 0);
        while at < signals.len() {
            set.insert(signals[at]);
            at += 1;
        }
        set
    }

    /// The set that the kernel writes as these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set as the kernel takes it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the set has no signal.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a signal is in the set.
    #[must_use]
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & Self::of(signal).0 != 0
    }

    /// Whether every signal of `other` is in the set.
    #[must_use]
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds a signal.
    pub const fn insert(&mut self, signal: i32) {
        self.0 |= Self::of(signal).0;
    }

    /// Removes a signal.
    pub const fn remove(&mut self, signal: i32) {
        self.0 &= !Self::of(signal).0;
    }

    /// The set with a signal added.
    #[must_use]
    pub const fn with(mut self, signal: i32) -> Self {
        self.insert(signal);
        self
    }

    /// The set with a signal removed.
    #[must_use]
    pub const fn without(mut self, signal: i32) -> Self {
        self.remove(signal);
        self
    }

    /// The signals, in ascending order.
    #[must_use]
    pub const fn iter(self) -> Iter {
        Iter(self)
    }

    /// Where the set lies in memory, for system calls.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u64 {
        &raw const self.0
    }

    /// Where the set lies in memory, for system calls that write it.
    #[must_use]
    pub const fn as_mut_ptr(&mut self) -> *mut u64 {
        &raw mut self.0
    }
}

impl BitOr for SignalSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for SignalSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for SignalSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The signals of the first set that are not in the second.
impl Sub for SignalSet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Not for SignalSet {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl FromIterator<i32> for SignalSet {
    fn from_iter<I: IntoIterator<Item = i32>>(signals: I) -> Self {
        signals.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl IntoIterator for SignalSet {
    type Item = i32;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(*self).finish()
    }
}

/// The signals of a set, in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Iter(SignalSet);

impl Iterator for Iter {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        if self.0.is_empty() {
            return None;
        }
        let signal = self.0.0.trailing_zeros().cast_signed() + 1;
        self.0.remove(signal);
        Some(signal)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn signal_n_is_bit_n_minus_1() {
        const SET: SignalSet = SignalSet::of_all(&[1, 10, 64]);
        assert_eq!(SET.bits(), 1 | 1 << 9 | 1 << 63);
        assert_eq!(SET, SignalSet::from_bits(SET.bits()));
        assert_eq!(SET.iter().collect::<Vec<_>>(), [1, 10, 64]);
        assert_eq!(SET.into_iter().collect::<SignalSet>(), SET);
        assert_eq!(SignalSet::ALL.iter().collect::<Vec<_>>(), (1..=MOST).collect::<Vec<_>>());
        assert!(SignalSet::EMPTY.is_empty() && SignalSet::default().iter().next().is_none());
        assert_eq!(format!("{SET:?}"), "{1, 10, 64}");
    }

    #[test]
    fn signals_come_and_go() {
        let mut set = SignalSet::of(17);
        set.insert(62);
        assert!(set.contains(17) && set.contains(62) && !set.contains(18));
        set.remove(17);
        assert_eq!(set, SignalSet::of(62));
        assert_eq!(set.with(1).without(62), SignalSet::of(1));
    }

    #[test]
    fn sets_are_joined_and_taken_apart() {
        let (low, high) = (SignalSet::of_all(&[1, 2]), SignalSet::of_all(&[2, 3]));
        assert_eq!(low | high, SignalSet::of_all(&[1, 2, 3]));
        assert_eq!(low & high, SignalSet::of(2));
        assert_eq!(low - high, SignalSet::of(1));
        assert_eq!(!SignalSet::ALL, SignalSet::EMPTY);
        assert!((low | high).contains_all(low) && !low.contains_all(high));
    }

    #[test]
    fn numbers_that_no_signal_has_are_in_no_set() {
        for number in [i32::MIN, -1, 0, 65, i32::MAX] {
            assert!(!SignalSet::ALL.contains(number) && SignalSet::of(number).is_empty(), "{number}");
            assert_eq!(SignalSet::ALL.without(number), SignalSet::ALL);
        }
    }
}
