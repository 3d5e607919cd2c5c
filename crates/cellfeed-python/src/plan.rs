//! Subsets and plans.

use crate::errors::raise;
use crate::store::Store;
use crate::wait::blocking;
use cellfeed::{Error, PlanOptions, PlanState, Strategy, StrategyColumns, Weights};
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
pub(crate) struct Plan(pub(crate) cellfeed::Plan);

#[pymethods]
impl Plan {
    /// Plans over cells of a store. What weights or labels a strategy goes by is in `by`: obs columns;
    /// or in `weights`, one a cell of the store; or in `classes`, the class of each cell, -1 where it has
    /// none.
    #[new]
    #[pyo3(signature = (store, subset, strategy, *, block_size, shuffle, draws, replacement, by, weights,
                        classes, batch_size, fetch_factor, drop_last, seed, rank, world_size))]
    fn new(
        py: Python<'_>,
        store: &Store,
        subset: &Subset,
        strategy: &str,
        block_size: u64,
        shuffle: bool,
        draws: Option<u64>,
        replacement: bool,
        by: Vec<String>,
        weights: Option<PyReadonlyArray1<'_, f64>>,
        classes: Option<PyReadonlyArray1<'_, i64>>,
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
        let weights = weights.map(|w| w.as_array().to_vec());
        let classes = classes.map(|classes| {
            let class = |c: &i64| u32::try_from(*c).ok();
            classes.as_array().iter().map(class).collect::<Vec<Option<u32>>>()
        });
        let store = store.get()?.clone();
        let plan = blocking(py, move || match (weights, classes) {
            (Some(weights), _) => {
                cellfeed::Plan::weighted(subset, Weights::of_cells(weights)?, strategy, &options)
            }
            (None, Some(classes)) => {
                let weights = Weights::balanced(&classes, &subset)?;
                cellfeed::Plan::weighted(subset, weights, strategy, &options)
            }
            (None, None) => {
                let columns = StrategyColumns::default();
                let columns = match (strategy, by.first()) {
                    (Strategy::BlockWeighted { .. }, Some(column)) => {
                        columns.with_weights(Some(column.clone()))
                    }
                    _ => columns.with_by(by),
                };
                store.plan(Arc::unwrap_or_clone(subset), strategy, &columns, &options)
            }
        });
        plan.map(Self)
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

    fn n_fetches_of(&self, epoch: u64) -> u64 {
        self.0.n_fetches_of(epoch)
    }

    /// Minibatches of each fetch of a worker, in order.
    fn worker_minibatches(&self, epoch: u64, worker: u64, n_workers: u64) -> PyResult<u64> {
        let fetches = self.0.worker_fetches(worker, n_workers).map_err(raise)?;
        let (n, f) = (self.0.n_fetches_of(epoch), self.0.fetch_factor());
        let all = self.0.n_minibatches_of(epoch);
        // The last may have another number than the others.
        Ok(fetches.map(|k| if k + 1 == n { all.saturating_sub(k * f) } else { f }).sum())
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
        self.0.resume(&state).map(Self).map_err(raise)
    }
}
