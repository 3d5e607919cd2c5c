//! One fetch: what is read, and how it is cut into minibatches.

use crate::rows::RowRanges;

/// One fetch: the rows to read, and the minibatches they are cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPlan {
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) rows: RowRanges,
    pub(super) order: Vec<u32>,
    pub(super) batch_size: usize,
    pub(super) n_minibatches: usize,
    pub(super) first_minibatch: u64,
}

impl FetchPlan {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The fetch's number in its epoch, among those of its rank.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The rows to read.
    #[must_use]
    pub fn rows(&self) -> &RowRanges {
        &self.rows
    }

    /// The number of the first minibatch in its epoch, among those of its rank.
    #[must_use]
    pub fn first_minibatch(&self) -> u64 {
        self.first_minibatch
    }

    /// How many minibatches.
    #[must_use]
    pub fn n_minibatches(&self) -> usize {
        self.n_minibatches
    }

    /// The minibatches, each as positions in [`rows`](Self::rows): 5 means the sixth row read.
    pub fn minibatches(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.n_minibatches).map(|j| self.minibatch(j))
    }

    /// Minibatch `j` of this fetch, as positions in [`rows`](Self::rows); empty past the last.
    #[must_use]
    pub fn minibatch(&self, j: usize) -> &[u32] {
        if j >= self.n_minibatches {
            return &[];
        }
        self.order.get(self.bound(j)..self.bound(j + 1)).unwrap_or_default()
    }

    /// Where minibatch `j` begins: full ones first, but one cell at least is left for each that
    /// follows.
    fn bound(&self, j: usize) -> usize {
        if j == self.n_minibatches {
            return self.order.len();
        }
        let left = self.n_minibatches - j;
        j.saturating_mul(self.batch_size).min(self.order.len().saturating_sub(left))
    }
}
