//! How the positions of an epoch are dealt to ranks.
//!
//! Fetches go round the ranks: fetch `k` of rank `r` is fetch `k * world_size + r` of all. So what is
//! consumed after `k` rounds does not depend on how many ranks there are. What is left after the last
//! complete round is cut evenly, and every rank cuts its share into the same number of minibatches.

use super::options::PlanOptions;
use std::ops::Range;

/// The rounds of an epoch that begins at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rounds {
    start: u64,
    fetch_size: u64,
    fetch_factor: u64,
    rank: u64,
    world_size: u64,
    drop_last: bool,
    batch_size: u64,
    /// Rounds in which every rank has a full fetch.
    full: u64,
    /// Where the last round begins.
    rest: u64,
    /// Cells of a rank's share of the last round; the first `more` ranks have one more.
    share: u64,
    more: u64,
    /// Minibatches that each rank makes of its share.
    minibatches: u64,
}

/// A fetch of a rank, in positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its number among the fetches of all ranks.
    pub(super) number: u64,
    pub(super) positions: Range<u64>,
    /// Cells that minibatches hold, the rest is dropped.
    pub(super) keep: u64,
    pub(super) minibatches: u64,
}

impl Rounds {
    /// Deals positions `start..end`; `start` is a multiple of the fetch size.
    pub(super) fn new(start: u64, end: u64, fetch_size: u64, options: &PlanOptions) -> Self {
        let (m, world_size) = (options.batch_size, options.world_size);
        // Positions are below 2^63: a round of 2^64 is never full.
        let round = fetch_size.saturating_mul(world_size);
        let mut full = (end - start) / round;
        let mut left = end - start - full * round;
        if !options.drop_last && left > 0 && left < world_size && full > 0 {
            // Too few for one cell each: the round before is dealt together with them.
            full -= 1;
            left += round;
        }
        let (share, more) = (left / world_size, left % world_size);
        let minibatches = if options.drop_last {
            share / m
        } else {
            // Shares of one cell cannot make more minibatches than the smallest has cells.
            (share + u64::from(more > 0)).div_ceil(m).min(share)
        };
        Self {
            start,
            fetch_size,
            fetch_factor: options.fetch_factor,
            rank: options.rank,
            world_size,
            drop_last: options.drop_last,
            batch_size: m,
            full,
            rest: end - left,
            share,
            more,
            minibatches,
        }
    }

    /// Fetches of each rank.
    pub(super) fn n_fetches(&self) -> u64 {
        self.full + u64::from(self.minibatches > 0)
    }

    /// Minibatches of each rank.
    pub(super) fn n_minibatches(&self) -> u64 {
        self.full * self.fetch_factor + self.minibatches
    }

    /// Cells that this rank yields.
    pub(super) fn n_cells(&self) -> u64 {
        self.full * self.fetch_size + if self.minibatches > 0 { self.keep() } else { 0 }
    }

    /// Cells that all ranks have yielded after so many rounds, if these were full.
    pub(super) fn position_after(&self, rounds: u64) -> Option<u64> {
        (rounds <= self.full).then(|| self.start + rounds * self.fetch_size * self.world_size)
    }

    /// The last minibatch after which only full rounds have been yielded.
    pub(super) fn last_boundary(&self) -> u64 {
        self.full * self.fetch_factor
    }

    fn my_share(&self) -> u64 {
        self.share + u64::from(self.rank < self.more)
    }

    fn keep(&self) -> u64 {
        if self.drop_last { self.minibatches * self.batch_size } else { self.my_share() }
    }

    /// Fetch `k` of this rank, which has it.
    pub(super) fn part(&self, k: u64) -> Part {
        let number = self.start / self.fetch_size + k * self.world_size + self.rank;
        if k < self.full {
            let first = number * self.fetch_size;
            let positions = first..first + self.fetch_size;
            return Part {
                number,
                positions,
                keep: self.fetch_size,
                minibatches: self.fetch_factor,
            };
        }
        let first = self.rest + self.rank * self.share + self.rank.min(self.more);
        let positions = first..first + self.my_share();
        Part { number, positions, keep: self.keep(), minibatches: self.minibatches }
    }
}
