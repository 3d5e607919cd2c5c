//! Plans: what a seed, an epoch and the options determine, namely every fetch and every minibatch
//! in it.
//!
//! A plan is pure and random-access: fetch `k` of epoch `e` is computed from the seed alone, in time
//! and memory proportional to the fetch. It never depends on the backend, on threads or on timing.
//! `docs/sampling.md` states the algorithm to the letter.

mod permutation;
mod random;

use crate::rows::RowRanges;
use crate::{Error, Result};
use permutation::Permutation;
use random::{Purpose, Stream};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The version of the sampling algorithm. Plans of one version never change.
pub const PLAN_VERSION: u32 = 1;

/// How cells are chosen and ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// In file order; with `shuffle`, cells change places inside each fetch.
    Streaming {
        /// Whether to shuffle inside the fetch.
        shuffle: bool,
    },
    /// Blocks of contiguous cells in random order; cells shuffled inside each fetch.
    BlockShuffling {
        /// Cells that stay together on disk and in a fetch.
        block_size: u64,
    },
    /// Single cells in random order: what block shuffling with blocks of one cell is.
    TrueRandom,
}

impl Strategy {
    /// The block size: 1 for true random sampling, none for streaming.
    #[must_use]
    pub fn block_size(self) -> Option<u64> {
        match self {
            Self::Streaming { .. } => None,
            Self::BlockShuffling { block_size } => Some(block_size),
            Self::TrueRandom => Some(1),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streaming { shuffle: false } => f.write_str("streaming"),
            Self::Streaming { shuffle: true } => f.write_str("streaming, shuffled in each fetch"),
            Self::BlockShuffling { block_size } => {
                write!(f, "block shuffling, blocks of {block_size} cells")
            }
            Self::TrueRandom => f.write_str("true random"),
        }
    }
}

/// Sizes and seed of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    batch_size: u64,
    fetch_factor: u64,
    drop_last: bool,
    seed: u64,
}

impl Default for PlanOptions {
    /// Minibatches of 64 cells, fetches of 256 minibatches, nothing dropped, seed 0.
    fn default() -> Self {
        Self { batch_size: 64, fetch_factor: 256, drop_last: false, seed: 0 }
    }
}

impl PlanOptions {
    /// Cells in a minibatch.
    #[must_use]
    pub fn with_batch_size(mut self, cells: u64) -> Self {
        self.batch_size = cells;
        self
    }

    /// Minibatches that are read and shuffled together.
    #[must_use]
    pub fn with_fetch_factor(mut self, minibatches: u64) -> Self {
        self.fetch_factor = minibatches;
        self
    }

    /// Whether to drop the last minibatch of an epoch if it is not full.
    #[must_use]
    pub fn with_drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The seed of every random choice.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What is read when: every fetch and minibatch of every epoch.
///
/// ```
/// use cellfeed_core::{Plan, PlanOptions, Strategy};
///
/// let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(7);
/// let plan = Plan::new(1_000_000_000_000, Strategy::BlockShuffling { block_size: 4 }, &options)?;
/// let fetch = plan.fetch(0, 100_000_000_000)?;
/// assert_eq!(fetch.rows().n_rows(), 8);
/// assert_eq!(fetch.minibatches().count(), 2);
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    n_obs: u64,
    strategy: Strategy,
    options: PlanOptions,
    /// Cells that an epoch yields: all, or all but a dropped partial minibatch.
    n_cells: u64,
    fetch_size: u64,
}

impl Plan {
    /// Plans over `n_obs` cells. Takes the same time and memory for any number of cells.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a size of zero, a fetch of
    /// 2^32 cells or more, or more than 2^62 cells.
    pub fn new(n_obs: u64, strategy: Strategy, options: &PlanOptions) -> Result<Self> {
        let positive = |value: u64, name: &str| {
            if value > 0 {
                return Ok(());
            }
            Err(Error::invalid_input(format!("{name} is 0; it must be at least 1")))
        };
        positive(options.batch_size, "batch_size")?;
        positive(options.fetch_factor, "fetch_factor")?;
        positive(strategy.block_size().unwrap_or(1), "block_size")?;
        if n_obs > 1 << 62 {
            return Err(Error::invalid_input(format!("{n_obs} cells are more than 2^62")));
        }
        let fetch_size = options
            .batch_size
            .checked_mul(options.fetch_factor)
            .filter(|&cells| cells <= u64::from(u32::MAX))
            .ok_or_else(|| {
                Error::invalid_input(format!(
                    "a fetch of {} x {} cells is too large; batch_size x fetch_factor must be \
                     below 2^32",
                    options.batch_size, options.fetch_factor
                ))
            })?;
        let n_cells = if options.drop_last { n_obs - n_obs % options.batch_size } else { n_obs };
        Ok(Self { n_obs, strategy, options: options.clone(), n_cells, fetch_size })
    }

    /// Cells that the plan chooses from.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.n_obs
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Cells in a minibatch.
    #[must_use]
    pub fn batch_size(&self) -> u64 {
        self.options.batch_size
    }

    /// Cells in a fetch; the last of an epoch may have fewer.
    #[must_use]
    pub fn fetch_size(&self) -> u64 {
        self.fetch_size
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.options.seed
    }

    /// Cells that an epoch yields.
    #[must_use]
    pub fn n_cells(&self) -> u64 {
        self.n_cells
    }

    /// Minibatches in an epoch.
    #[must_use]
    pub fn n_minibatches(&self) -> u64 {
        self.n_cells.div_ceil(self.options.batch_size)
    }

    /// Fetches in an epoch.
    #[must_use]
    pub fn n_fetches(&self) -> u64 {
        self.n_cells.div_ceil(self.fetch_size)
    }

    /// Fetch `k` of an epoch.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) if the epoch has no fetch `k`.
    pub fn fetch(&self, epoch: u64, k: u64) -> Result<FetchPlan> {
        if k >= self.n_fetches() {
            return Err(Error::out_of_bounds(format!(
                "fetch {k} was asked for, but an epoch has {}",
                self.n_fetches()
            )));
        }
        let start = k * self.fetch_size;
        // A partial minibatch that is dropped is read with the last fetch, where the shuffle decides
        // which cells go; unless it would be a fetch of its own, which then is none.
        let end = (start + self.fetch_size).min(self.n_obs);
        let keep = (start + self.fetch_size).min(self.n_cells) - start;
        let rows = self.rows(epoch, start..end);
        let n = u32::try_from(rows.n_rows()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..n).collect();
        if !matches!(self.strategy, Strategy::Streaming { shuffle: false }) {
            Stream::new(self.options.seed, epoch, Purpose::FetchOrder, k).shuffle(&mut order);
        }
        order.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        Ok(FetchPlan {
            epoch,
            number: k,
            rows,
            order,
            batch_size: usize::try_from(self.options.batch_size).unwrap_or(usize::MAX),
            first_minibatch: k * self.options.fetch_factor,
        })
    }

    /// The rows at positions `span` of the epoch's order, sorted.
    fn rows(&self, epoch: u64, span: Range<u64>) -> RowRanges {
        let Some(b) = self.strategy.block_size() else { return RowRanges::single(span) };
        let order = BlockOrder::new(self.n_obs, b, self.options.seed, epoch);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        order.ranges(span, &mut ranges);
        ranges.sort_unstable_by_key(|r| r.start);
        let mut rows = RowRanges::empty();
        for range in ranges {
            rows.push(range);
        }
        rows
    }
}

/// The order of cells in an epoch of block shuffling. Positions `0..full * b` hold the full blocks,
/// permuted; the tail, the `n mod b` cells that fill no block, is at the end, and then changes
/// places with as many cells at the start of a random block. So the tail has no fixed place, and
/// blocks stay aligned with fetches.
struct BlockOrder {
    b: u64,
    full: u64,
    tail: u64,
    permutation: Permutation,
    /// The block position whose first cells the tail takes; `full` if it stays at the end.
    swap: u64,
}

impl BlockOrder {
    fn new(n: u64, b: u64, seed: u64, epoch: u64) -> Self {
        let (full, tail) = (n / b, n % b);
        let swap = if tail == 0 {
            full
        } else {
            Stream::new(seed, epoch, Purpose::TailPlace, 0).below(full + 1)
        };
        Self { b, full, tail, permutation: Permutation::new(full, seed, epoch), swap }
    }

    /// Appends the row ranges of a span of positions, in the order of the positions.
    fn ranges(&self, span: Range<u64>, out: &mut Vec<Range<u64>>) {
        let end_of_full = self.full * self.b;
        let mut at = span.start;
        while at < span.end {
            if at >= end_of_full {
                // Positions of the tail: the tail itself, or the cells it changed places with.
                let offset = at - end_of_full;
                let len = span.end - at;
                let start = if self.swap < self.full {
                    self.permutation.apply(self.swap) * self.b
                } else {
                    end_of_full
                };
                out.push(start + offset..start + offset + len);
                return;
            }
            let (position, offset) = (at / self.b, at % self.b);
            let stop = ((position + 1) * self.b).min(span.end) - position * self.b;
            let start = self.permutation.apply(position) * self.b;
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

/// One fetch: the rows to read, and the minibatches they are cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPlan {
    epoch: u64,
    number: u64,
    rows: RowRanges,
    order: Vec<u32>,
    batch_size: usize,
    first_minibatch: u64,
}

impl FetchPlan {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The fetch's number in its epoch.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The rows to read.
    #[must_use]
    pub fn rows(&self) -> &RowRanges {
        &self.rows
    }

    /// The epoch's number of the first minibatch.
    #[must_use]
    pub fn first_minibatch(&self) -> u64 {
        self.first_minibatch
    }

    /// How many minibatches.
    #[must_use]
    pub fn n_minibatches(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// The minibatches, each as positions in [`rows`](Self::rows): 5 means the sixth row read.
    pub fn minibatches(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.order.chunks(self.batch_size)
    }

    /// Minibatch `j` of this fetch, as positions in [`rows`](Self::rows); empty past the last.
    #[must_use]
    pub fn minibatch(&self, j: usize) -> &[u32] {
        self.order.chunks(self.batch_size).nth(j).unwrap_or_default()
    }
}

/// `streaming`, `streaming-shuffled`, `true-random`; block shuffling needs its size and has no name
/// of its own here.
impl FromStr for Strategy {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "streaming" => Ok(Self::Streaming { shuffle: false }),
            "streaming-shuffled" => Ok(Self::Streaming { shuffle: true }),
            "true-random" => Ok(Self::TrueRandom),
            _ => Err(Error::invalid_input(format!(
                "no strategy is called {s:?}; there are streaming, streaming-shuffled, true-random \
                 and block-shuffling (which has a block size)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
