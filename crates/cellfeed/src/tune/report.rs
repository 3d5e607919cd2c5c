//! What tuning found.

use super::options::{PageCache, Target};
use cellfeed_core::Strategy;
use std::fmt;

/// How cells are chosen, of the ways that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sampler {
    /// [`Strategy::BlockShuffling`].
    BlockShuffling,
    /// [`Strategy::StratifiedBlockShuffling`], by position: needs no labels.
    Stratified,
    /// The same by the label, with [`Plan::stratified`](cellfeed_core::Plan::stratified): stretches are
    /// of the blocks sorted by it.
    StratifiedByLabel,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BlockShuffling, Self::Stratified, Self::StratifiedByLabel];

    /// A name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockShuffling => "block-shuffling",
            Self::Stratified => "stratified",
            Self::StratifiedByLabel => "stratified-by-label",
        }
    }

    /// The strategy with blocks of a size.
    #[must_use]
    pub fn strategy(self, block_size: u64) -> Strategy {
        match self {
            Self::BlockShuffling => Strategy::BlockShuffling { block_size },
            Self::Stratified | Self::StratifiedByLabel => {
                Strategy::StratifiedBlockShuffling { block_size }
            }
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tuning found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TuneReport {
    /// Where the store is.
    pub location: String,
    /// Its format.
    pub format: String,
    /// Its cells.
    pub n_cells: u64,
    /// Bytes of its files.
    pub store_bytes: u64,
    /// Cells in a minibatch.
    pub batch_size: u64,
    /// How the label lies on disk.
    pub label: LabelFacts,
    /// What was aimed at.
    pub target: Target,
    /// Minibatches of the window of the design effect.
    pub window: u64,
    /// The loader's memory limit.
    pub memory: u64,
    /// The state of the page cache that decides.
    pub page_cache: PageCache,
    /// Why that state.
    pub page_cache_reason: String,
    /// Why there are no cold figures, if there are none; or what they are worth.
    pub cold_note: Option<String>,
    /// Every setting that was looked at.
    pub candidates: Vec<Candidate>,
    /// The best of them, by place in `candidates`.
    pub recommended: usize,
    /// Whether it meets the target; else nothing within the memory does, and it is the most diverse.
    pub meets: bool,
    /// If it does not: the setting that needs the least memory of those that would, if there is one.
    pub would_meet: Option<usize>,
    /// The recommended setting, run and held against what was predicted.
    pub check: Check,
    /// Fetches to read ahead.
    pub read_ahead: usize,
    /// What was measured for that: fetches ahead and cells a second.
    pub read_ahead_trials: Vec<(usize, f64)>,
    /// Threads.
    pub threads: usize,
    /// What was measured for that: threads and cells a second.
    pub thread_trials: Vec<(usize, f64)>,
    /// How good the predictions of speed are.
    pub model: ModelFacts,
    /// How much was done.
    pub effort: Effort,
}

impl TuneReport {
    /// The recommended setting.
    #[must_use]
    pub fn best(&self) -> &Candidate {
        // Tuning makes no report without candidates.
        &self.candidates[self.recommended]
    }
}

/// How a label lies on disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LabelFacts {
    /// The obs column.
    pub column: String,
    /// How many labels.
    pub n_labels: usize,
    /// Cells without one; they count as one more label.
    pub n_missing: u64,
    /// The share of the most frequent label.
    pub largest_share: f64,
    /// Entropy of the label in the store, in bits.
    pub entropy: f64,
    /// The expected entropy of a minibatch of true random sampling, in bits.
    pub entropy_random: f64,
    /// Runs of neighbouring cells with one label.
    pub n_runs: u64,
    /// Cells of the run in which a cell is, on average over cells.
    pub mean_run_of_a_cell: f64,
    /// The longest run.
    pub longest_run: u64,
}

/// A setting: what it gives and what it costs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// How cells are chosen.
    pub sampler: Sampler,
    /// Cells that stay together.
    pub block_size: u64,
    /// Minibatches that are read together.
    pub fetch_factor: u64,
    /// Memory limit that the loader needs for it, with one fetch read ahead.
    pub memory: u64,
    /// Memory that one fetch more, read ahead, takes of the limit.
    pub memory_ahead: u64,
    /// Whether that is within the limit.
    pub fits: bool,
    /// Diversity, from the plan over the label alone.
    pub diversity: Diversity,
    /// What theory expects, where it knows the strategy.
    pub theory: Option<Theory>,
    /// Whether it meets the target.
    pub meets: bool,
    /// Cells a second from the page cache.
    pub warm: Option<Speed>,
    /// Cells a second from disk.
    pub cold: Option<Speed>,
    /// Whether no other setting that fits is both faster and more diverse.
    pub frontier: bool,
}

impl Candidate {
    /// Its speed in a state of the page cache.
    #[must_use]
    pub fn speed(&self, state: PageCache) -> Option<Speed> {
        match state {
            PageCache::Warm => self.warm,
            PageCache::Cold => self.cold,
        }
    }

    /// Cells of a fetch.
    #[must_use]
    pub fn fetch_size(&self, batch_size: u64) -> u64 {
        batch_size.saturating_mul(self.fetch_factor)
    }
}

/// Diversity of minibatches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Diversity {
    /// Mean entropy of a minibatch, in bits.
    pub entropy: f64,
    /// The design effect of one minibatch; `None` for a label with one value.
    pub deff_1: Option<f64>,
    /// The design effect of the window.
    pub deff_w: Option<f64>,
    /// The standard error of that.
    pub deff_w_error: Option<f64>,
    /// Minibatches that were looked at.
    pub n_minibatches: u64,
}

/// What theory expects.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Theory {
    /// Entropy of a minibatch, in bits.
    pub entropy: f64,
    /// The design effect of the window.
    pub deff_w: Option<f64>,
}

/// Cells a second.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Speed {
    /// What the model says.
    pub predicted: f64,
    /// What was measured, if it was: the median of the runs.
    pub measured: Option<f64>,
    /// Runs.
    pub runs: usize,
    /// The fastest less the slowest run, over the median; 0 for one run.
    pub spread: f64,
}

impl Speed {
    /// What was measured, else what is predicted.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.measured.unwrap_or(self.predicted)
    }
}

/// The recommended setting, run for longer, against what was predicted before that.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// Cells a second that the model said before this setting was run for the check.
    pub predicted: f64,
    /// The median of the runs.
    pub measured: f64,
    /// The slowest and the fastest of them.
    pub range: (f64, f64),
    /// How many.
    pub runs: usize,
    /// Cells that were timed.
    pub cells: u64,
    /// Diversity as simulated.
    pub expected: Diversity,
    /// Diversity of the minibatches that the loader handed out.
    pub seen: Diversity,
}

/// How good the predictions of speed are.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelFacts {
    /// Settings that were timed for it.
    pub n_points: usize,
    /// How far each of these was off when predicted from the others: the root mean square, as a share.
    pub error: Option<f64>,
    /// The furthest.
    pub worst: Option<f64>,
    /// What the seconds of a cell are made of: names, and seconds a unit.
    pub terms: Vec<(&'static str, f64)>,
}

/// How much was done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Effort {
    /// How long it took.
    pub seconds: f64,
    /// Runs of the loader that were timed.
    pub runs: u64,
    /// Cells that they read.
    pub cells: u64,
    /// The median, over settings, of what repeats differ by, as a share.
    pub spread: Option<f64>,
    /// The most.
    pub worst_spread: Option<f64>,
    /// The share of the store in the page cache before warm runs, as far as samples tell.
    pub warm_share: Option<f64>,
    /// The same before cold runs, once the store was thrown out.
    pub cold_share: Option<f64>,
}
