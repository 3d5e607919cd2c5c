//! Plans whose strategy goes by obs columns of a store.

use crate::Store;
use cellfeed_core::{Error, Plan, PlanOptions, Result, Strata, Strategy, Subset, Weights};

/// Which obs columns a strategy goes by.
///
/// - [`Strategy::StratifiedBlockShuffling`]: with columns in `by` the strata are those of these labels,
///   else those of the position, which need no column.
/// - [`Strategy::ClassBalanced`]: one column in `by`, the class.
/// - [`Strategy::BlockWeighted`]: the column `weights`, of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StrategyColumns {
    by: Vec<String>,
    weights: Option<String>,
}

impl StrategyColumns {
    /// The columns of labels to stratify by, or of the classes to balance.
    #[must_use]
    pub fn with_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The column of weights.
    #[must_use]
    pub fn with_weights(mut self, column: Option<String>) -> Self {
        self.weights = column;
        self
    }

    /// Whether no column is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by.is_empty() && self.weights.is_none()
    }
}

impl Store {
    /// A plan over a subset of this store's cells. Reads the obs columns that the strategy goes by, and
    /// waits for them.
    ///
    /// # Errors
    /// As [`Plan::over`], [`Plan::stratified`] and [`Plan::weighted`]; as [`Strata::read`],
    /// [`Weights::read`] and [`Weights::read_balanced`]; if the strategy lacks a column that it needs or
    /// has no use for one that is named.
    pub fn plan(
        &self,
        subset: Subset,
        strategy: Strategy,
        columns: &StrategyColumns,
        options: &PlanOptions,
    ) -> Result<Plan> {
        let backend = self.backend().as_ref();
        let refuse = |what: &str| Err(Error::invalid_input(format!("{strategy}: {what}")));
        if columns.weights.is_some() && !matches!(strategy, Strategy::BlockWeighted { .. }) {
            return refuse("weights are for the weighted strategy only");
        }
        match strategy {
            Strategy::StratifiedBlockShuffling { block_size } if !columns.by.is_empty() => {
                let strata = Strata::read(backend, &subset, block_size, &columns.by)?;
                Plan::stratified(subset, strata, strategy, options)
            }
            Strategy::ClassBalanced { .. } => {
                let [class] = &columns.by[..] else {
                    return refuse("name one obs column, the class of each cell, to balance by");
                };
                let weights = Weights::read_balanced(backend, &subset, class)?;
                Plan::weighted(subset, weights, strategy, options)
            }
            _ if !columns.by.is_empty() => {
                refuse("only stratified and class-balanced sampling go by labels")
            }
            Strategy::BlockWeighted { .. } => {
                let Some(column) = &columns.weights else {
                    return refuse("name the obs column that holds the weight of each cell");
                };
                let weights = Weights::read(backend, column)?;
                Plan::weighted(subset, weights, strategy, options)
            }
            _ => Plan::over(subset, strategy, options),
        }
    }
}
