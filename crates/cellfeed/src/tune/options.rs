//! What is tuned for, and within what.

use crate::OpenOptions;
use cellfeed_core::{Error, Layout, MatrixKey, OutputType, Result};
use std::time::Duration;

/// How diverse minibatches must be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// The design effect of a window of minibatches is at most this; 1 is as good as random.
    Deff(f64),
    /// The mean entropy of a minibatch is at least this share of what true random sampling gives.
    Entropy(f64),
}

impl Target {
    fn check(self) -> Result<()> {
        match self {
            Self::Deff(d) if !(d.is_finite() && d > 0.0) => Err(Error::invalid_input(format!(
                "a design effect of {d} cannot be aimed at; it must be above 0, and 1 is as good \
                 as random"
            ))),
            Self::Entropy(share) if !(share > 0.0 && share <= 1.0) => {
                Err(Error::invalid_input(format!(
                    "an entropy of {share} cannot be aimed at; it is a share of what true random \
                     sampling gives, above 0 and at most 1"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Where the store's bytes are when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageCache {
    /// In the system's page cache, as after the first epoch of a store that fits in memory.
    Warm,
    /// On the disk, as always with a store that does not.
    Cold,
}

impl PageCache {
    /// The state in a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// What is tuned for, and within what.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    pub(super) matrix: MatrixKey,
    pub(super) batch_size: u64,
    pub(super) layout: Layout,
    pub(super) output: OutputType,
    pub(super) memory: u64,
    pub(super) target: Target,
    pub(super) window: u64,
    pub(super) seed: u64,
    pub(super) time_limit: Duration,
    pub(super) page_cache: Option<PageCache>,
    pub(super) open: OpenOptions,
}

impl Default for TuneOptions {
    /// `X` as CSR of `f32`, minibatches of 64 cells, 1 GiB, a design effect of 1.5 over 10 minibatches,
    /// about a minute.
    fn default() -> Self {
        Self {
            matrix: MatrixKey::X,
            batch_size: 64,
            layout: Layout::Csr,
            output: OutputType::F32,
            memory: 1 << 30,
            target: Target::Deff(1.5),
            window: 10,
            seed: 0,
            time_limit: Duration::from_secs(60),
            page_cache: None,
            open: OpenOptions::default(),
        }
    }
}

impl TuneOptions {
    /// The matrix to load.
    #[must_use]
    pub fn with_matrix(mut self, matrix: MatrixKey) -> Self {
        self.matrix = matrix;
        self
    }

    /// Cells in a minibatch.
    #[must_use]
    pub fn with_batch_size(mut self, cells: u64) -> Self {
        self.batch_size = cells;
        self
    }

    /// Sparse or dense minibatches.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The value type of minibatches.
    #[must_use]
    pub fn with_output(mut self, output: OutputType) -> Self {
        self.output = output;
        self
    }

    /// Bytes of memory that the loader may hold: its own limit, of
    /// [`LoaderOptions::with_memory`](cellfeed_core::LoaderOptions::with_memory).
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// How diverse minibatches must be.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Minibatches of the window of the design effect: about as many as an optimizer remembers.
    #[must_use]
    pub fn with_window(mut self, minibatches: u64) -> Self {
        self.window = minibatches;
        self
    }

    /// The seed of every plan.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How long tuning takes, about. Less time means fewer and shorter runs, and larger errors, which
    /// are reported.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Which state of the page cache decides. By default a store decides by its size: warm if it fits
    /// in the machine's memory, else cold. With `Warm` nothing is timed cold, and so the store is
    /// never thrown out of the page cache.
    #[must_use]
    pub fn with_page_cache(mut self, state: PageCache) -> Self {
        self.page_cache = Some(state);
        self
    }

    /// How the store is opened. Its threads are the most that are tried.
    #[must_use]
    pub fn with_open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        self.target.check()?;
        if self.batch_size == 0 {
            return Err(Error::invalid_input("batch_size is 0; it must be at least 1"));
        }
        if !(1..=1 << 20).contains(&self.window) {
            return Err(Error::invalid_input(format!(
                "a window of {} minibatches is not between 1 and 2^20",
                self.window
            )));
        }
        if self.time_limit < Duration::from_secs(1) {
            return Err(Error::invalid_input("the time limit is below one second"));
        }
        Ok(())
    }
}
