//! Sets of small numbers, made to find the next member fast.

/// Bits in a word.
const WORD_BITS: usize = 64;

/// A set of numbers below a size that is fixed.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// A bit for each word that is not zero: the search steps over 4,096 absent numbers at once.
    summary: Vec<u64>,
    len: usize,
}

impl Bits {
    /// An empty set of numbers below `size`.
    pub(super) fn new(size: usize) -> Self {
        let words = size.div_ceil(WORD_BITS);
        Self { words: vec![0; words], summary: vec![0; words.div_ceil(WORD_BITS)], len: 0 }
    }

    /// All numbers below `size`.
    pub(super) fn full(size: usize) -> Self {
        let ones = |bits: usize| {
            let mut words = vec![u64::MAX; bits.div_ceil(WORD_BITS)];
            if let (Some(last), rest @ 1..) = (words.last_mut(), bits % WORD_BITS) {
                *last = (1 << rest) - 1;
            }
            words
        };
        let words = ones(size);
        Self { summary: ones(words.len()), words, len: size }
    }

    /// The places in a list of which something holds. A word at a time: the list may be long, and most of it absent.
    pub(super) fn of<T>(list: &[T], holds: impl Fn(&T) -> bool) -> Self {
        let mut bits = Self::new(list.len());
        for (at, part) in list.chunks(WORD_BITS).enumerate() {
            let word = part.iter().rev().fold(0, |word, item| word << 1 | u64::from(holds(item)));
            if word != 0 {
                bits.words[at] = word;
                bits.summary[at / WORD_BITS] |= 1 << (at % WORD_BITS);
                bits.len += word.count_ones() as usize;
            }
        }
        bits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.words.get(number / WORD_BITS).is_some_and(|word| word & (1 << (number % WORD_BITS)) != 0)
    }

    pub(super) fn insert(&mut self, number: usize) {
        if !self.contains(number) {
            self.insert_new(number);
        }
    }

    /// Adds a number that is not in the set.
    pub(super) fn insert_new(&mut self, number: usize) {
        let word = number / WORD_BITS;
        self.len += 1;
        self.words[word] |= 1 << (number % WORD_BITS);
        self.summary[word / WORD_BITS] |= 1 << (word % WORD_BITS);
    }

    pub(super) fn remove(&mut self, number: usize) {
        let word = number / WORD_BITS;
        self.len -= usize::from(self.contains(number));
        self.words[word] &= !(1 << (number % WORD_BITS));
        if self.words[word] == 0 {
            self.summary[word / WORD_BITS] &= !(1 << (word % WORD_BITS));
        }
    }

    /// All members, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let first = self.next_in(0, &[], None);
        std::iter::successors(first, |last| self.next_in(last + 1, &[], None))
    }

    /// The least member from `from` on that is in all of the others, too, and is not to be left out.
    pub(super) fn next_in(&self, from: usize, others: &[Option<&Self>], but: Option<&Self>) -> Option<usize> {
        let left_out = |at: usize| but.and_then(|but| but.words.get(at)).copied().unwrap_or(0);
        let mut at = from / WORD_BITS;
        let mut keep = u64::MAX << (from % WORD_BITS);
        loop {
            let common = |word: u64, other: &Self| word & other.words[at];
            let word = others.iter().copied().flatten().fold(self.words.get(at)? & keep & !left_out(at), common);
            if word != 0 {
                return Some(at * WORD_BITS + word.trailing_zeros() as usize);
            }
            at = self.next_word(at + 1)?;
            keep = u64::MAX;
        }
    }

    /// The next word from `at` on that is not zero.
    fn next_word(&self, at: usize) -> Option<usize> {
        let mut block = at / WORD_BITS;
        let mut found = self.summary.get(block)? & (u64::MAX << (at % WORD_BITS));
        while found == 0 {
            block += 1;
            found = *self.summary.get(block)?;
        }
        Some(block * WORD_BITS + found.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_an_ordinary_set_finds(
            changes in prop::collection::vec((0..9_000_usize, any::<bool>()), 0..200),
            mask in prop::collection::btree_set(0..9_000_usize, 0..200),
            from in 0..9_000_usize,
        ) {
            let (mut bits, mut set) = (Bits::new(9_000), BTreeSet::new());
            for (number, add) in changes {
                if add {
                    bits.insert(number);
                    set.insert(number);
                } else {
                    bits.remove(number);
                    set.remove(&number);
                }
            }
            prop_assert_eq!(bits.is_empty(), set.is_empty());
            let listed = Bits::of(&(0..9_000).collect::<Vec<_>>(), |number| set.contains(number));
            prop_assert_eq!((&listed.words, &listed.summary, listed.len), (&bits.words, &bits.summary, bits.len));
            let full = Bits::full(from);
            prop_assert!((0..=from).all(|number| full.next_in(number, &[None], None) == (number < from).then_some(number)));
            prop_assert_eq!(bits.next_in(from, &[None], None), set.range(from..).next().copied());
            prop_assert!(bits.iter().eq(set.iter().copied()));
            let mut other = Bits::new(9_000);
            set.iter().step_by(2).chain(&mask).for_each(|number| other.insert(*number));
            let both = set.range(from..).find(|number| other.contains(**number)).copied();
            prop_assert_eq!(bits.next_in(from, &[Some(&other), None], None), both);
            let alone = set.range(from..).find(|number| !other.contains(**number)).copied();
            prop_assert_eq!(bits.next_in(from, &[], Some(&other)), alone);
            prop_assert_eq!(bits.next_in(from, &[], Some(&Bits::default())), set.range(from..).next().copied());
        }
    }
}
