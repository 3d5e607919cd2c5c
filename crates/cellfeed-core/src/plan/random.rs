//! Random words from a key. Version 1 of the sampling algorithm, see `docs/sampling.md`: what is
//! written here decides the order of every run, so it changes only with a new version.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream of random words is for. Streams of different purposes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Keys of the permutation of blocks; one stream an epoch.
    BlockOrder = 1,
    /// The place of the short tail block; one stream an epoch.
    TailPlace = 2,
    /// The order of cells within a fetch; one stream a fetch.
    FetchOrder = 3,
    /// Where the first stretch of stratified shuffling begins; one stream an epoch.
    StretchStart = 4,
    /// Keys of the permutation of the blocks in a stretch; one stream a stretch.
    StretchOrder = 5,
    /// Blocks and cells of weighted sampling; one stream a fetch.
    Draws = 6,
    /// Where the first point of weighted sampling without replacement is; one stream an epoch.
    FirstPoint = 7,
    /// The order of a block's cells on the line of points; one stream a block.
    PieceOrder = 8,
}

/// A stream of random 64-bit words.
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `(seed, epoch, purpose, number)`. The four integers are the ChaCha key itself,
    /// 64 bits each, little-endian: different arguments give different keys, always.
    pub(super) fn new(seed: u64, epoch: u64, purpose: Purpose, number: u64) -> Self {
        let mut key = [0u8; 32];
        for (slot, word) in key.chunks_exact_mut(8).zip([seed, epoch, purpose as u64, number]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform float from 0 to below 1: the high 53 bits of a word.
    pub(super) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform integer below `bound`, which is at least 1: the high half of the product of a word
    /// and the bound, words that would bias it rejected (Lemire, arXiv 1805.10941).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0);
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.word()) * u128::from(bound);
            // The low half decides on rejection, the high half is the answer.
            let (high, low) = halves(product);
            if low >= threshold {
                return high;
            }
        }
    }

    /// A uniform permutation in place (Fisher and Yates, from the end).
    pub(super) fn shuffle(&mut self, items: &mut [u32]) {
        let mut bound = u64::try_from(items.len()).unwrap_or(u64::MAX);
        for i in (1..items.len()).rev() {
            let j = usize::try_from(self.below(bound)).unwrap_or(0);
            bound -= 1;
            items.swap(i, j);
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // the halves are what is wanted
fn halves(product: u128) -> (u64, u64) {
    ((product >> 64) as u64, product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_integers_are_uniform_and_frozen() {
        let mut stream = Stream::new(0, 0, Purpose::FetchOrder, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[usize::try_from(stream.below(7)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert_eq!(stream.below(1), 0);
        let mut stream = Stream::new(1, 2, Purpose::BlockOrder, 3);
        let first: Vec<u64> = (0..3).map(|_| stream.word()).collect();
        assert_eq!(first, GOLDEN_WORDS);
    }

    /// From `testdata/plan_reference.py`.
    const GOLDEN_WORDS: [u64; 3] =
        [2960007554547416723, 17788602122329646298, 17192272945946031580];
}
