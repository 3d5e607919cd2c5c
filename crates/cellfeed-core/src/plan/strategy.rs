//! How cells are chosen and ordered: the strategies, by name.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

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
    /// Block shuffling in which each fetch takes one random block from each of as many equal stretches
    /// of the file as it has blocks: every fetch is a sample of the whole file. With
    /// [`Plan::stratified`](crate::Plan::stratified) the stretches are those of the blocks sorted by a
    /// label.
    StratifiedBlockShuffling {
        /// Cells that stay together on disk and in a fetch.
        block_size: u64,
    },
    /// Each cell in proportion to its weight. With replacement a block is drawn by the sum of its weights,
    /// then cells within it by weight; without, each cell comes at most once in an epoch, and is in it
    /// with a probability in proportion to its weight, up to 1.
    BlockWeighted {
        /// Cells that stay together on disk and in a fetch.
        block_size: u64,
        /// Cells that an epoch draws. If not said, as many as the subset has with replacement; without,
        /// as many as can be drawn with every cell in proportion to its weight: all weights over the
        /// largest.
        draws: Option<u64>,
        /// Whether a cell may come more than once.
        replacement: bool,
    },
    /// The same with weights that give each class as many cells, about; see [`Weights::balanced`].
    /// Without replacement an epoch has by default as many cells of each class as the smallest has.
    ///
    /// [`Weights::balanced`]: crate::Weights::balanced
    ClassBalanced {
        /// Cells that stay together on disk and in a fetch.
        block_size: u64,
        /// Cells that an epoch draws; see [`BlockWeighted`](Self::BlockWeighted).
        draws: Option<u64>,
        /// Whether a cell may come more than once.
        replacement: bool,
    },
}

impl Strategy {
    /// What is drawn by weight, if anything is: how many cells, and whether with replacement.
    pub(super) fn drawn(self) -> Option<(Option<u64>, bool)> {
        match self {
            Self::BlockWeighted { draws, replacement, .. }
            | Self::ClassBalanced { draws, replacement, .. } => Some((draws, replacement)),
            _ => None,
        }
    }

    /// The block size: 1 for true random sampling, none for streaming.
    #[must_use]
    pub fn block_size(self) -> Option<u64> {
        match self {
            Self::Streaming { .. } => None,
            Self::BlockShuffling { block_size }
            | Self::StratifiedBlockShuffling { block_size }
            | Self::BlockWeighted { block_size, .. }
            | Self::ClassBalanced { block_size, .. } => Some(block_size),
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
            Self::StratifiedBlockShuffling { block_size } => {
                write!(f, "stratified block shuffling, blocks of {block_size} cells")
            }
            Self::BlockWeighted { block_size, replacement, .. } => {
                write!(f, "weighted{}, blocks of {block_size} cells", without(*replacement))
            }
            Self::ClassBalanced { block_size, replacement, .. } => {
                write!(f, "class-balanced{}, blocks of {block_size} cells", without(*replacement))
            }
        }
    }
}

fn without(replacement: bool) -> &'static str {
    if replacement { "" } else { " without replacement" }
}

/// `streaming`, `streaming-shuffled`, `true-random`; the others need a block size and have no name of
/// their own here.
impl FromStr for Strategy {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "streaming" => Ok(Self::Streaming { shuffle: false }),
            "streaming-shuffled" => Ok(Self::Streaming { shuffle: true }),
            "true-random" => Ok(Self::TrueRandom),
            _ => Err(Error::invalid_input(format!(
                "no strategy is called {s:?}; there are streaming, streaming-shuffled, true-random \
                 and, with a block size, block-shuffling and stratified"
            ))),
        }
    }
}
