//! The options of a plan, shared by the commands that sample.

use cellfeed::{Error, Plan, PlanOptions, Result, Store, Strategy, StrategyColumns, Subset};

/// How cells are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StrategyName {
    /// Blocks of neighbouring cells in random order, cells shuffled in each fetch.
    BlockShuffling,
    /// The same, and each fetch takes one block from each of equal stretches of the file; with --by, of
    /// the blocks sorted by a label.
    Stratified,
    /// File order.
    Streaming,
    /// File order, cells shuffled in each fetch.
    StreamingShuffled,
    /// Single cells in random order.
    TrueRandom,
    /// Cells by the weights in --weights, block by block.
    Weighted,
    /// As many cells of each class in --by, block by block.
    ClassBalanced,
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
    #[arg(long, value_enum, default_value = "stratified")]
    pub(crate) strategy: StrategyName,
    /// An obs column of labels to stratify by (several may be given) or of classes to balance.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) by: Vec<String>,
    /// An obs column with the weight of each cell, for weighted.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) weights: Option<String>,
    /// Cells that an epoch draws, for weighted and class-balanced [default: as many as there are;
    /// without replacement, as many as keep every weight in proportion].
    #[arg(long, value_name = "CELLS")]
    pub(crate) draws: Option<u64>,
    /// Draw each cell at most once an epoch, for weighted and class-balanced.
    #[arg(long)]
    pub(crate) without_replacement: bool,
    /// Drop the last minibatch if it is not full.
    #[arg(long)]
    pub(crate) drop_last: bool,
    /// Seed of every random choice.
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = crate::people::parse_seed)]
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
    /// The strategy by itself.
    pub(crate) fn strategy(&self) -> Result<Strategy> {
        let block_size = self.block_size;
        let (draws, replacement) = (self.draws, !self.without_replacement);
        let strategy = match self.strategy {
            StrategyName::BlockShuffling => Strategy::BlockShuffling { block_size },
            StrategyName::Stratified => Strategy::StratifiedBlockShuffling { block_size },
            StrategyName::Streaming => Strategy::Streaming { shuffle: false },
            StrategyName::StreamingShuffled => Strategy::Streaming { shuffle: true },
            StrategyName::TrueRandom => Strategy::TrueRandom,
            StrategyName::Weighted => {
                return Ok(Strategy::BlockWeighted { block_size, draws, replacement });
            }
            StrategyName::ClassBalanced => {
                return Ok(Strategy::ClassBalanced { block_size, draws, replacement });
            }
        };
        if draws.is_some() || !replacement {
            return Err(Error::invalid_input(
                "--draws and --without-replacement are for --strategy weighted and class-balanced",
            ));
        }
        Ok(strategy)
    }

    /// Sizes, seed and rank.
    pub(crate) fn options(&self) -> PlanOptions {
        PlanOptions::default()
            .with_batch_size(self.batch_size)
            .with_fetch_factor(self.fetch_factor)
            .with_drop_last(self.drop_last)
            .with_seed(self.seed)
            .with_rank(self.rank, self.world_size)
    }

    fn columns(&self) -> StrategyColumns {
        StrategyColumns::default().with_by(self.by.iter()).with_weights(self.weights.clone())
    }

    /// Refuses options that the strategy lacks or has no use for, by their names here.
    fn check_columns(&self) -> Result<()> {
        use StrategyName::{ClassBalanced, Stratified, Weighted};
        let (by, weights) = (self.by.len(), self.weights.is_some());
        let what = match self.strategy {
            Weighted if !weights => {
                "--strategy weighted needs --weights COLUMN, the obs column that holds the weight of \
                 each cell"
            }
            ClassBalanced if by != 1 => {
                "--strategy class-balanced needs one --by COLUMN, the obs column with the class of \
                 each cell"
            }
            s if weights && s != Weighted => "--weights is for --strategy weighted",
            s if by > 0 && !matches!(s, Stratified | ClassBalanced) => {
                "--by is for --strategy stratified and class-balanced"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid_input(what))
    }

    /// The plan over a subset of a store.
    pub(crate) fn plan(&self, store: &Store, subset: Subset) -> Result<Plan> {
        self.check_columns()?;
        store.plan(subset, self.strategy()?, &self.columns(), &self.options())
    }

    /// The plan over so many cells, without a store.
    pub(crate) fn plan_of(&self, n_obs: u64) -> Result<Plan> {
        if !self.columns().is_empty() {
            return Err(Error::invalid_input(
                "--by and --weights name obs columns, and without a store there are none; use \
                 cellfeed stream or cellfeed entropy",
            ));
        }
        Plan::over(Subset::all(n_obs), self.strategy()?, &self.options())
    }
}
