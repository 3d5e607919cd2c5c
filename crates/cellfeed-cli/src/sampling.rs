//! The options of a plan, shared by the commands that sample.

use cellfeed::{Plan, PlanOptions, Result, Strategy, Subset};

/// How cells are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StrategyName {
    /// Blocks of neighbouring cells in random order, cells shuffled in each fetch.
    BlockShuffling,
    /// The same, and each fetch takes one block from each of equal stretches of the file.
    Stratified,
    /// File order.
    Streaming,
    /// File order, cells shuffled in each fetch.
    StreamingShuffled,
    /// Single cells in random order.
    TrueRandom,
}

/// Sizes, strategy, seed and rank.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sampling {
    /// Cells in a minibatch.
    #[arg(long, value_name = "CELLS", default_value_t = 64)]
    pub(crate) batch_size: u64,
    /// Cells next to each other on disk that stay together.
    #[arg(long, value_name = "CELLS", default_value_t = 16)]
    pub(crate) block_size: u64,
    /// Minibatches that are read and shuffled together.
    #[arg(long, value_name = "MINIBATCHES", default_value_t = 256)]
    pub(crate) fetch_factor: u64,
    /// How cells are chosen.
    #[arg(long, value_enum, default_value = "block-shuffling")]
    pub(crate) strategy: StrategyName,
    /// Drop what is left over where minibatches would not be full.
    #[arg(long)]
    pub(crate) drop_last: bool,
    /// Seed of every random choice.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// The first epoch.
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    pub(crate) epoch: u64,
    /// Which training process this is, from 0.
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub(crate) rank: u64,
    /// How many training processes share an epoch.
    #[arg(long, value_name = "RANKS", default_value_t = 1)]
    pub(crate) world_size: u64,
}

impl Sampling {
    /// The plan over a subset.
    pub(crate) fn plan(&self, subset: Subset) -> Result<Plan> {
        let block_size = self.block_size;
        let strategy = match self.strategy {
            StrategyName::BlockShuffling => Strategy::BlockShuffling { block_size },
            StrategyName::Stratified => Strategy::StratifiedBlockShuffling { block_size },
            StrategyName::Streaming => Strategy::Streaming { shuffle: false },
            StrategyName::StreamingShuffled => Strategy::Streaming { shuffle: true },
            StrategyName::TrueRandom => Strategy::TrueRandom,
        };
        let options = PlanOptions::default()
            .with_batch_size(self.batch_size)
            .with_fetch_factor(self.fetch_factor)
            .with_drop_last(self.drop_last)
            .with_seed(self.seed)
            .with_rank(self.rank, self.world_size);
        Plan::over(subset, strategy, &options)
    }
}
