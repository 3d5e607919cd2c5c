//! Sizes, seed and rank of a plan.

use crate::{Error, Result};

/// Sizes, seed and rank of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    pub(super) batch_size: u64,
    pub(super) fetch_factor: u64,
    pub(super) drop_last: bool,
    pub(super) seed: u64,
    pub(super) rank: u64,
    pub(super) world_size: u64,
}

impl Default for PlanOptions {
    /// Minibatches of 64 cells, fetches of 256 minibatches, nothing dropped, seed 0, one rank.
    fn default() -> Self {
        Self {
            batch_size: 64,
            fetch_factor: 256,
            drop_last: false,
            seed: 0,
            rank: 0,
            world_size: 1,
        }
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

    /// Whether every minibatch must be full: the cells that would be left over are dropped, fewer
    /// than `batch_size` for each rank's share of the last fetches.
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

    /// Which training process of how many this plan is for. All ranks together visit what one alone
    /// would; each yields the same number of minibatches.
    #[must_use]
    pub fn with_rank(mut self, rank: u64, world_size: u64) -> Self {
        self.rank = rank;
        self.world_size = world_size;
        self
    }

    /// Refuses blocks, all of whose draws are made at once, that are out of proportion to a fetch.
    pub(super) fn check_drawn_blocks(&self, block_size: u64) -> Result<()> {
        let cells = self.fetch_size(Some(block_size))?;
        if block_size > cells.max(1 << 20) {
            return Err(Error::invalid_input(format!(
                "blocks of {block_size} cells are larger than a fetch, of {cells}; lower block_size"
            )));
        }
        Ok(())
    }

    /// Checks the sizes and gives the cells of a fetch.
    pub(super) fn fetch_size(&self, block_size: Option<u64>) -> Result<u64> {
        positive(self.batch_size, "batch_size")?;
        positive(self.fetch_factor, "fetch_factor")?;
        positive(block_size.unwrap_or(1), "block_size")?;
        positive(self.world_size, "world_size")?;
        if self.rank >= self.world_size {
            return Err(Error::invalid_input(format!(
                "rank {} does not exist in a world of {}; ranks count from 0",
                self.rank, self.world_size
            )));
        }
        // With several ranks a fetch may get one cell more.
        let limit = u64::from(u32::MAX) - u64::from(self.world_size > 1);
        self.batch_size.checked_mul(self.fetch_factor).filter(|&cells| cells <= limit).ok_or_else(
            || {
                Error::invalid_input(format!(
                    "a fetch of {} x {} cells is too large; batch_size x fetch_factor must be \
                     below 2^32",
                    self.batch_size, self.fetch_factor
                ))
            },
        )
    }
}

fn positive(value: u64, name: &str) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::invalid_input(format!("{name} is 0; it must be at least 1")))
}
