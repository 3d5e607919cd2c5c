//! Plans: what a seed, an epoch and the options determine, namely every fetch and every minibatch
//! in it.
//!
//! A plan is pure and random-access: fetch `k` of epoch `e` is computed from the seed alone, in time
//! and memory proportional to the fetch. It never depends on the backend, on threads or on timing.
//! `docs/sampling.md` states the algorithm to the letter.

mod columns;
mod condition;
mod fetch;
mod inclusion;
mod options;
mod order;
mod permutation;
mod random;
mod rounds;
mod state;
mod strata;
mod strategy;
mod stratified;
mod subset;
mod weighted;
mod workers;

pub use condition::Condition;
pub use fetch::FetchPlan;
pub use options::PlanOptions;
pub use state::PlanState;
pub use strata::{Strata, StrataBuilder};
pub use strategy::Strategy;
pub use subset::{Subset, SubsetBuilder};
pub use weighted::Weights;

use crate::rows::RowRanges;
use crate::{Error, Result};
use inclusion::Inclusion;
use order::{BlockOrder, Slots};
use permutation::Permutation;
use random::{Purpose, Stream};
use rounds::Rounds;
use state::Resumed;
use std::ops::Range;
use std::sync::Arc;
use stratified::Stratified;

/// The version of the sampling algorithm. Plans of one version never change.
pub const PLAN_VERSION: u32 = 1;

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
    subset: Arc<Subset>,
    strategy: Strategy,
    options: PlanOptions,
    /// Positions of an epoch.
    n: u64,
    fetch_size: u64,
    rounds: Rounds,
    resumed: Option<Resumed>,
    given: Given,
}

/// What a strategy needs beside sizes and a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Nothing,
    /// Blocks in another order than the file's.
    Strata(Strata),
    /// Weights to draw by, with replacement.
    Draws(weighted::Table),
    /// Which cells an epoch has: weights without replacement.
    Inclusion(Inclusion),
}

impl Plan {
    /// Plans over `n_obs` cells. Takes the same time and memory for any number of cells.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a size of zero, a fetch of
    /// 2^32 cells or more, more than 2^62 cells, a rank that the world does not have, or more
    /// ranks than there are minibatches.
    pub fn new(n_obs: u64, strategy: Strategy, options: &PlanOptions) -> Result<Self> {
        Self::over(Subset::all(n_obs), strategy, options)
    }

    /// Plans over a subset of a store's cells. Blocks are formed of the subset's cells in file order.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn over(
        subset: impl Into<Arc<Subset>>,
        strategy: Strategy,
        options: &PlanOptions,
    ) -> Result<Self> {
        let subset = subset.into();
        if strategy.drawn().is_some() {
            return Err(Error::invalid_input(format!(
                "the strategy, {strategy}, needs weights; use Plan::weighted"
            )));
        }
        let n = subset.n_cells();
        Self::of(subset, strategy, options, n, Given::Nothing)
    }

    /// Plans with stretches of the blocks sorted by a label in place of stretches of the file: each fetch
    /// then has of every label about what the whole subset has of it.
    ///
    /// # Errors
    /// As [`new`](Self::new); for strata of another subset or block size, and for a strategy other than
    /// [`Strategy::StratifiedBlockShuffling`].
    pub fn stratified(
        subset: impl Into<Arc<Subset>>,
        strata: Strata,
        strategy: Strategy,
        options: &PlanOptions,
    ) -> Result<Self> {
        let subset = subset.into();
        let Strategy::StratifiedBlockShuffling { block_size } = strategy else {
            return Err(Error::invalid_input(format!(
                "the strategy, {strategy}, has no strata; use stratified block shuffling"
            )));
        };
        strata.check(&subset, block_size)?;
        let n = subset.n_cells();
        Self::of(subset, strategy, options, n, Given::Strata(strata))
    }

    /// Plans that draw cells in proportion to their weights, with or without replacement as the strategy
    /// says. Takes 8 bytes of memory a block beside the weights, and passes over these.
    ///
    /// # Errors
    /// As [`new`](Self::new); if the weights are not one for each cell of the store, or add up to 0
    /// over the subset; for no draws, and without replacement for more than there are cells to draw; for
    /// a strategy that has no weights.
    pub fn weighted(
        subset: impl Into<Arc<Subset>>,
        weights: Weights,
        strategy: Strategy,
        options: &PlanOptions,
    ) -> Result<Self> {
        let subset = subset.into();
        let (Some((draws, replacement)), Some(b)) = (strategy.drawn(), strategy.block_size())
        else {
            return Err(Error::invalid_input(format!(
                "the strategy, {strategy}, takes no weights; use Plan::over"
            )));
        };
        if draws == Some(0) {
            return Err(Error::invalid_input("an epoch of no draws; draw at least one cell"));
        }
        // Sizes are checked before the table is made.
        options.fetch_size(Some(b))?;
        let (n, given) = if replacement {
            options.check_drawn_blocks(b)?;
            let table = weighted::Table::new(weights, &subset, b)?;
            (draws.unwrap_or(subset.n_cells()), Given::Draws(table))
        } else {
            let line = Inclusion::new(weights, &subset, b, draws)?;
            (line.draws(), Given::Inclusion(line))
        };
        Self::of(subset, strategy, options, n, given)
    }

    /// A plan whose epochs have `n` positions.
    fn of(
        subset: Arc<Subset>,
        strategy: Strategy,
        options: &PlanOptions,
        n: u64,
        given: Given,
    ) -> Result<Self> {
        let fetch_size = options.fetch_size(strategy.block_size())?;
        if n > 1 << 62 {
            return Err(Error::invalid_input(format!("{n} cells are more than 2^62")));
        }
        let minibatches =
            if options.drop_last { n / options.batch_size } else { n.div_ceil(options.batch_size) };
        if options.world_size > 1 && minibatches < options.world_size {
            return Err(Error::invalid_input(format!(
                "{n} cells make {minibatches} minibatches of {}, too few for {} ranks; lower \
                 batch_size or the number of ranks",
                options.batch_size, options.world_size
            )));
        }
        let rounds = Rounds::new(0, n, fetch_size, options);
        Ok(Self {
            subset,
            strategy,
            options: options.clone(),
            n,
            fetch_size,
            rounds,
            resumed: None,
            given,
        })
    }

    /// Cells of the store.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.subset.n_obs()
    }

    /// The cells that the plan chooses from.
    #[must_use]
    pub fn subset(&self) -> &Arc<Subset> {
        &self.subset
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

    /// Minibatches in a fetch.
    #[must_use]
    pub fn fetch_factor(&self) -> u64 {
        self.options.fetch_factor
    }

    /// Cells in a fetch; the last of an epoch may have fewer, or with several ranks one more.
    #[must_use]
    pub fn fetch_size(&self) -> u64 {
        self.fetch_size
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.options.seed
    }

    /// The rank that the plan is for.
    #[must_use]
    pub fn rank(&self) -> u64 {
        self.options.rank
    }

    /// How many ranks share the epoch.
    #[must_use]
    pub fn world_size(&self) -> u64 {
        self.options.world_size
    }

    /// Cells that an epoch of this rank yields.
    #[must_use]
    pub fn n_cells(&self) -> u64 {
        self.rounds.n_cells()
    }

    /// Minibatches in an epoch of each rank.
    #[must_use]
    pub fn n_minibatches(&self) -> u64 {
        self.rounds.n_minibatches()
    }

    /// Fetches in an epoch of each rank.
    #[must_use]
    pub fn n_fetches(&self) -> u64 {
        self.rounds.n_fetches()
    }

    /// Fetch `k` of an epoch of this rank.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) if the epoch has no fetch `k`.
    pub fn fetch(&self, epoch: u64, k: u64) -> Result<FetchPlan> {
        let rounds = self.rounds_of(epoch);
        if k >= rounds.n_fetches() {
            return Err(Error::out_of_bounds(format!(
                "fetch {k} was asked for; an epoch of this plan has {}, counted from 0",
                rounds.n_fetches()
            )));
        }
        let part = rounds.part(k);
        let (rows, mut order) = if let Given::Draws(table) = &self.given {
            let stream = Stream::new(self.options.seed, epoch, Purpose::Draws, part.number);
            let count = part.positions.end - part.positions.start;
            self.drawn(&table.draw(&self.subset, count, stream))
        } else {
            let rows = self.rows(epoch, part.positions);
            let n = u32::try_from(rows.n_rows()).unwrap_or(u32::MAX);
            (rows, (0..n).collect())
        };
        if !matches!(self.strategy, Strategy::Streaming { shuffle: false }) {
            Stream::new(self.options.seed, epoch, Purpose::FetchOrder, part.number)
                .shuffle(&mut order);
        }
        // A partial minibatch that is dropped is read with the last fetch, where the shuffle decides
        // which cells go; unless it would be a fetch of its own, which then is none.
        let usize_of = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        order.truncate(usize_of(part.keep));
        Ok(FetchPlan {
            epoch,
            number: k,
            rows,
            order,
            batch_size: usize_of(self.options.batch_size),
            n_minibatches: usize_of(part.minibatches),
            first_minibatch: k * self.options.fetch_factor,
        })
    }

    /// The rows of cells that were drawn, sorted, with repeats; and for each cell its place in them.
    fn drawn(&self, cells: &[u64]) -> (RowRanges, Vec<u32>) {
        let mut rows = RowRanges::empty();
        let mut order = Vec::with_capacity(cells.len());
        let mut place = 0;
        let mut before = None;
        for &cell in cells {
            if before != Some(cell) {
                place = u32::try_from(rows.n_rows()).unwrap_or(u32::MAX);
                self.subset.rows(cell..cell + 1, &mut rows);
                before = Some(cell);
            }
            order.push(place);
        }
        (rows, order)
    }

    /// A hash of the subset, and of the labels or weights, in hexadecimal.
    fn cells_digest(&self) -> String {
        let subset = self.subset.digest();
        let given = match &self.given {
            Given::Nothing => return format!("{subset:016x}"),
            Given::Strata(strata) => strata.digest(),
            Given::Draws(table) => table.digest(),
            Given::Inclusion(line) => line.digest(),
        };
        format!("{subset:016x}-{given:016x}")
    }

    /// What the strategy is, in words, with the labels that it goes by.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.given {
            Given::Strata(strata) => format!("{}, by {}", self.strategy, strata.name()),
            _ => self.strategy.to_string(),
        }
    }

    /// The rows at positions `span` of the epoch's order, sorted.
    fn rows(&self, epoch: u64, span: Range<u64>) -> RowRanges {
        let mut rows = RowRanges::empty();
        let Some(b) = self.strategy.block_size() else {
            self.subset.rows(span, &mut rows);
            return rows;
        };
        let (blocks, seed) = (self.n / b, self.options.seed);
        let slots = match (&self.given, self.strategy) {
            (Given::Strata(strata), _) => Slots::ByLabel(self.stretches(b, epoch), strata),
            (_, Strategy::StratifiedBlockShuffling { .. }) => {
                Slots::Stratified(self.stretches(b, epoch))
            }
            _ => Slots::Uniform(Permutation::new(blocks, seed, epoch)),
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        BlockOrder::new(self.n, b, seed, epoch, slots).ranges(span, &mut ranges);
        ranges.sort_unstable_by_key(|r| r.start);
        if let Given::Inclusion(line) = &self.given {
            let chosen = line.epoch(&self.subset, seed, epoch);
            ranges.into_iter().for_each(|range| chosen.rows(range, &mut rows));
        } else {
            ranges.into_iter().for_each(|range| self.subset.rows(range, &mut rows));
        }
        rows
    }

    fn stretches(&self, b: u64, epoch: u64) -> Stratified {
        Stratified::new(self.n / b, self.fetch_size / b, self.options.seed, epoch)
    }
}

#[cfg(test)]
mod tests;
