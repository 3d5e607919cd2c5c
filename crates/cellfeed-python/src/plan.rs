//! Subsets and plans.

use crate::errors::raise;
use crate::store::Store;
use crate::wait::blocking;
use arrow_array::{ArrayRef, Int64Array};
use cellfeed::diversity::Labels;
use cellfeed::{
    Error, PlanOptions, PlanState, Result, Strata, StrataBuilder, Strategy, StrategyColumns,
    Weights,
};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use std::sync::Arc;

/// Cells of a store that a plan chooses from.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Subset(pub(crate) Arc<cellfeed::Subset>);

#[pymethods]
impl Subset {
    /// Every cell.
    #[staticmethod]
    fn all(n_obs: u64) -> Self {
        Self(Arc::new(cellfeed::Subset::all(n_obs)))
    }

    /// The cells where a mask over all cells is true.
    #[staticmethod]
    fn of_mask(mask: PyReadonlyArray1<'_, bool>) -> PyResult<Self> {
        let mask = mask.as_array();
        let subset = cellfeed::Subset::from_mask(mask.iter().copied()).map_err(raise)?;
        Ok(Self(Arc::new(subset)))
    }

    /// The cells of these rows, in any order.
    #[staticmethod]
    fn of_rows(n_obs: u64, rows: PyReadonlyArray1<'_, u64>) -> PyResult<Self> {
        let rows = rows.as_array().to_vec();
        let subset = cellfeed::Subset::from_rows(n_obs, &rows).map_err(raise)?;
        Ok(Self(Arc::new(subset)))
    }

    #[getter]
    fn n_cells(&self) -> u64 {
        self.0.n_cells()
    }
}

/// Which cells are in which minibatch.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Plan(pub(crate) cellfeed::Plan, pub(crate) Option<Strata>);

/// Labels of all cells, of codes that are negative where there is none.
pub(crate) fn labels_of(codes: &[i64]) -> Result<Labels> {
    let code = |c: &i64| (*c >= 0).then_some(*c);
    let array: ArrayRef = Arc::new(codes.iter().map(code).collect::<Int64Array>());
    let mut labels = Labels::new();
    labels.extend(&array)?;
    Ok(labels)
}

/// The blocks of a subset sorted by labels of all cells of the store, as if these were obs columns.
fn strata_of(subset: &cellfeed::Subset, block_size: u64, columns: &[Vec<i64>]) -> Result<Strata> {
    let mut builder = StrataBuilder::new(subset, block_size, "labels")?;
    let codes = columns.iter().map(|column| {
        // Numbered anew, in the order in which labels first occur in the subset.
        let labels = labels_of(column)?.of_subset(subset)?;
        let codes: Vec<i64> = labels.codes().iter().map(|&c| i64::from(c)).collect();
        Ok(labels_of(&codes)?.codes().to_vec())
    });
    let codes = codes.collect::<Result<Vec<_>>>()?;
    builder.push(&codes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    builder.finish()
}

/// What weights or labels a strategy goes by.
enum Given {
    Nothing,
    Columns(cellfeed::Store, Vec<String>),
    Weights(Vec<f64>),
    Labels(Vec<Vec<i64>>),
}

impl Given {
    fn plan(
        self,
        subset: Arc<cellfeed::Subset>,
        strategy: Strategy,
        options: &PlanOptions,
    ) -> Result<(cellfeed::Plan, Option<Strata>)> {
        let stratified = |subset, strata: Strata| {
            let plan = cellfeed::Plan::stratified(subset, strata.clone(), strategy, options)?;
            Ok((plan, Some(strata)))
        };
        let plan = match (self, strategy) {
            (Self::Weights(weights), _) => {
                cellfeed::Plan::weighted(subset, Weights::of_cells(weights)?, strategy, options)
            }
            (Self::Labels(columns), Strategy::StratifiedBlockShuffling { block_size }) => {
                let strata = strata_of(&subset, block_size, &columns)?;
                return stratified(subset, strata);
            }
            (Self::Labels(columns), _) => {
                let class = |c: &i64| u32::try_from(*c).ok();
                let classes: Vec<_> = columns.iter().flatten().map(class).collect();
                let weights = Weights::balanced(&classes, &subset)?;
                cellfeed::Plan::weighted(subset, weights, strategy, options)
            }
            (Self::Columns(store, by), Strategy::StratifiedBlockShuffling { block_size }) => {
                let strata = Strata::read(store.backend().as_ref(), &subset, block_size, &by)?;
                return stratified(subset, strata);
            }
            (Self::Columns(store, by), _) => {
                let columns = StrategyColumns::default();
                let columns = match strategy {
                    Strategy::BlockWeighted { .. } => columns.with_weights(by.into_iter().next()),
                    _ => columns.with_by(by),
                };
                store.plan(Arc::unwrap_or_clone(subset), strategy, &columns, options)
            }
            (Self::Nothing, _) => cellfeed::Plan::over(subset, strategy, options),
        };
        Ok((plan?, None))
    }
}

#[pymethods]
impl Plan {
    /// Plans over a subset. What weights or labels a strategy goes by is in `by`: obs columns of the
    /// store; or in `weights`, one a cell of the store; or in `labels`, codes of each cell, -1 where it
    /// has none. Without obs columns no store is needed.
    #[new]
    #[pyo3(signature = (store, subset, strategy, *, block_size, shuffle, draws, replacement, by, weights,
                        labels, batch_size, fetch_factor, drop_last, seed, rank, world_size))]
    fn new(
        py: Python<'_>,
        store: Option<PyRef<'_, Store>>,
        subset: &Subset,
        strategy: &str,
        block_size: u64,
        shuffle: bool,
        draws: Option<u64>,
        replacement: bool,
        by: Vec<String>,
        weights: Option<PyReadonlyArray1<'_, f64>>,
        labels: Vec<PyReadonlyArray1<'_, i64>>,
        batch_size: u64,
        fetch_factor: u64,
        drop_last: bool,
        seed: u64,
        rank: u64,
        world_size: u64,
    ) -> PyResult<Self> {
        let options = PlanOptions::default()
            .with_batch_size(batch_size)
            .with_fetch_factor(fetch_factor)
            .with_drop_last(drop_last)
            .with_seed(seed)
            .with_rank(rank, world_size);
        let strategy = match strategy {
            "streaming" => Strategy::Streaming { shuffle },
            "block_shuffling" => Strategy::BlockShuffling { block_size },
            "true_random" => Strategy::TrueRandom,
            "stratified" => Strategy::StratifiedBlockShuffling { block_size },
            "block_weighted" => Strategy::BlockWeighted { block_size, draws, replacement },
            "class_balanced" => Strategy::ClassBalanced { block_size, draws, replacement },
            other => {
                let what = format!("no strategy is called {other:?}");
                return Err(raise(Error::invalid_input(what)));
            }
        };
        let subset = Arc::clone(&subset.0);
        let given = match (weights, store) {
            (Some(weights), _) => Given::Weights(weights.as_array().to_vec()),
            (None, _) if !labels.is_empty() => {
                Given::Labels(labels.iter().map(|codes| codes.as_array().to_vec()).collect())
            }
            (None, Some(store)) if !by.is_empty() => Given::Columns(store.get()?.clone(), by),
            (None, None) if !by.is_empty() => {
                let what = "a collection has no obs columns; give labels or weights as an array";
                return Err(raise(Error::invalid_input(what)));
            }
            _ => Given::Nothing,
        };
        let plan = blocking(py, move || given.plan(subset, strategy, &options));
        plan.map(|(plan, strata)| Self(plan, strata))
    }

    #[getter]
    fn n_obs(&self) -> u64 {
        self.0.n_obs()
    }

    #[getter]
    fn n_cells(&self) -> u64 {
        self.0.n_cells()
    }

    #[getter]
    fn n_minibatches(&self) -> u64 {
        self.0.n_minibatches()
    }

    #[getter]
    fn n_fetches(&self) -> u64 {
        self.0.n_fetches()
    }

    #[getter]
    fn strategy(&self) -> String {
        self.0.describe()
    }

    /// Minibatches of an epoch, those before `first_minibatch` included.
    fn n_minibatches_of(&self, epoch: u64) -> u64 {
        self.0.n_minibatches_of(epoch)
    }

    /// The first minibatch of an epoch that is still to come.
    fn first_minibatch(&self, epoch: u64) -> u64 {
        self.0.first_minibatch(epoch)
    }

    /// The fetch that the first minibatch to come is in.
    fn first_fetch(&self, epoch: u64) -> u64 {
        self.0.first_fetch(epoch)
    }

    fn n_fetches_of(&self, epoch: u64) -> u64 {
        self.0.n_fetches_of(epoch)
    }

    /// The fetch and the minibatch that a worker begins with when it has yielded `skip` of its share.
    fn worker_first(
        &self,
        epoch: u64,
        worker: u64,
        n_workers: u64,
        skip: u64,
    ) -> PyResult<(u64, u64)> {
        self.0.worker_first(epoch, worker, n_workers, skip).map_err(raise)
    }

    /// The rows of each minibatch of a fetch, in order.
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        epoch: u64,
        number: u64,
    ) -> PyResult<Vec<Bound<'py, PyArray1<i64>>>> {
        let plan = self.0.clone();
        let minibatches = blocking(py, move || {
            let fetch = plan.fetch(epoch, number)?;
            // Below 2^62: a plan has no more cells.
            let rows: Vec<i64> = fetch.rows().iter_rows().map(u64::cast_signed).collect();
            let row = |p: &u32| usize::try_from(*p).ok().and_then(|p| rows.get(p)).copied();
            Ok(fetch
                .minibatches()
                .map(|positions| positions.iter().filter_map(row).collect::<Vec<i64>>())
                .collect::<Vec<_>>())
        })?;
        Ok(minibatches.into_iter().map(|rows| PyArray1::from_vec(py, rows)).collect())
    }

    /// The state after `minibatch` minibatches of an epoch, as JSON.
    fn state(&self, epoch: u64, minibatch: u64) -> PyResult<String> {
        let state = self.0.state(epoch, minibatch).map_err(raise)?;
        serde_json::to_string(&state)
            .map_err(|e| raise(Error::internal("cannot write the state").caused_by(e)))
    }

    /// This plan, going on from a state.
    fn resume(&self, state: &str) -> PyResult<Self> {
        let state: PlanState = serde_json::from_str(state).map_err(|e| {
            raise(Error::invalid_input(format!("this is no state of a cellfeed loader: {e}")))
        })?;
        let plan = self.0.resume(&state).map_err(raise)?;
        Ok(Self(plan, self.1.clone()))
    }
}
