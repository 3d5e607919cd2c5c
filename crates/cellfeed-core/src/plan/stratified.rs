//! Stratified block order: each fetch takes one random block from each of as many equal stretches of
//! the block list as it has blocks, so that it is a sample of the whole list.
//!
//! Groups of `B` slots are what fetches hold. With `n` blocks there are `n div B` full groups, and each
//! stretch has a block for each; `n mod B` blocks are left for the last group, so that as many
//! stretches have one block more. The ring of blocks is cut into stretches from a random block on:
//! so each block has the same chance to be in a longer stretch, and its place is uniform.

use super::permutation::Permutation;
use super::random::{Purpose, Stream};

/// The blocks of an epoch, stretch by stretch.
pub(super) struct Stratified {
    n: u64,
    /// Stretches, and slots of a full group.
    stretches: u64,
    /// Full groups.
    groups: u64,
    /// Blocks in the last group, which is not full.
    rest: u64,
    seed: u64,
    epoch: u64,
    first: u64,
}

impl Stratified {
    /// Over `n` blocks, `per_fetch` of them in a fetch.
    pub(super) fn new(n: u64, per_fetch: u64, seed: u64, epoch: u64) -> Self {
        let stretches = per_fetch.max(1);
        let first =
            if n == 0 { 0 } else { Stream::new(seed, epoch, Purpose::StretchStart, 0).below(n) };
        let (groups, rest) = (n / stretches, n % stretches);
        Self { n, stretches, groups, rest, seed, epoch, first }
    }

    /// The block in a slot, which must be below `n`.
    pub(super) fn block(&self, slot: u64) -> u64 {
        let (group, place) = (slot / self.stretches, slot % self.stretches);
        let stretch = if group < self.groups {
            spread(place, self.stretches)
        } else {
            // The stretch that has one more block for the `i`-th time.
            let i = spread(place, self.rest);
            ((i + 1) * self.stretches).div_ceil(self.rest) - 1
        };
        let start = self.start(stretch);
        let len = self.start(stretch + 1) - start;
        let within = if len == 1 {
            0
        } else {
            let keys = Stream::new(self.seed, self.epoch, Purpose::StretchOrder, stretch);
            Permutation::of(len, keys).apply(group)
        };
        // Both are below n, at most 2^62.
        (self.first + start + within) % self.n
    }

    /// How many blocks come before a stretch: `stretch * n / stretches`, without overflow.
    fn start(&self, stretch: u64) -> u64 {
        stretch * self.groups + stretch * self.rest / self.stretches
    }
}

/// A permutation of `0..n` in which any few neighbours are spread evenly: steps of about the golden
/// ratio. So where a fetch is cut, its parts are samples of the whole list too.
fn spread(i: u64, n: u64) -> u64 {
    // n is below 2^32.
    let mut step = (n * 610 / 987).max(1);
    while gcd(step, n) != 1 {
        step -= 1;
    }
    i * step % n
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
