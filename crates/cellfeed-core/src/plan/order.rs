//! The order of cells in an epoch: which stand at a span of positions.

use super::permutation::Permutation;
use super::random::{Purpose, Stream};
use super::strata::Strata;
use super::stratified::Stratified;
use std::ops::Range;

/// The order of full blocks: which stands in each slot.
pub(super) enum Slots<'a> {
    /// Any, with equal probability.
    Uniform(Permutation),
    /// One from each stretch of the list for each fetch.
    Stratified(Stratified),
    /// The same with the list sorted by a label.
    ByLabel(Stratified, &'a Strata),
}

impl Slots<'_> {
    fn block(&self, slot: u64) -> u64 {
        match self {
            Self::Uniform(permutation) => permutation.apply(slot),
            Self::Stratified(stretches) => stretches.block(slot),
            Self::ByLabel(stretches, strata) => strata.block(stretches.block(slot)),
        }
    }
}

/// The order of cells in an epoch of block shuffling. Positions `0..full * b` hold the full blocks,
/// permuted; the tail, the `n mod b` cells that fill no block, is at the end, and then changes
/// places with as many cells at the start of a random block. So the tail has no fixed place, and
/// blocks stay aligned with fetches.
pub(super) struct BlockOrder<'a> {
    b: u64,
    full: u64,
    tail: u64,
    slots: Slots<'a>,
    /// The block position whose first cells the tail takes; `full` if it stays at the end.
    swap: u64,
}

impl<'a> BlockOrder<'a> {
    pub(super) fn new(n: u64, b: u64, seed: u64, epoch: u64, slots: Slots<'a>) -> Self {
        let (full, tail) = (n / b, n % b);
        let swap = if tail == 0 {
            full
        } else {
            Stream::new(seed, epoch, Purpose::TailPlace, 0).below(full + 1)
        };
        Self { b, full, tail, slots, swap }
    }

    /// Appends the row ranges of a span of positions, in the order of the positions.
    pub(super) fn ranges(&self, span: Range<u64>, out: &mut Vec<Range<u64>>) {
        let end_of_full = self.full * self.b;
        let mut at = span.start;
        while at < span.end {
            if at >= end_of_full {
                // Positions of the tail: the tail itself, or the cells it changed places with.
                let offset = at - end_of_full;
                let len = span.end - at;
                let start = if self.swap < self.full {
                    self.slots.block(self.swap) * self.b
                } else {
                    end_of_full
                };
                out.push(start + offset..start + offset + len);
                return;
            }
            let (position, offset) = (at / self.b, at % self.b);
            let stop = ((position + 1) * self.b).min(span.end) - position * self.b;
            let start = self.slots.block(position) * self.b;
            let mut first = offset;
            if position == self.swap && offset < self.tail {
                let cut = stop.min(self.tail);
                out.push(end_of_full + offset..end_of_full + cut);
                first = cut;
            }
            if first < stop {
                out.push(start + first..start + stop);
            }
            at = position * self.b + stop;
        }
    }
}
