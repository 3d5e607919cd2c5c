//! One batch of a conversion: which rows it has, in which order, and their reading.

use super::{Chosen, Selection, Transposed};
use crate::Store;
use cellfeed_core::{
    CellBatch, Error, ErrorKind, MatrixKey, NewStore, Plan, PlanOptions, Result, RowRanges,
    Strategy, take,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Cells that a shuffled order keeps together when it is cut into batches: the order itself must not
/// depend on the memory, so it is made in steps of this many, and batches are whole steps.
const STEP: u64 = 4096;
/// No batch has more cells.
const MOST_ROWS: u64 = 1 << 16;

/// The order in which cells are written.
#[derive(Debug)]
pub(super) struct Order {
    n_obs: u64,
    plan: Option<Plan>,
}

/// The rows of a batch in file order, and where each written cell lies among them, if not so.
#[derive(Debug)]
pub(super) struct BatchRows {
    rows: RowRanges,
    order: Option<Vec<u32>>,
}

impl Order {
    /// File order, or one that a seed gives.
    pub(super) fn new(n_obs: u64, seed: Option<u64>) -> Result<Self> {
        let options = |seed| {
            PlanOptions::default().with_batch_size(STEP).with_fetch_factor(1).with_seed(seed)
        };
        let plan = seed.map(|s| Plan::new(n_obs, Strategy::TrueRandom, &options(s))).transpose()?;
        Ok(Self { n_obs, plan })
    }

    /// The smallest number of cells by which batches may differ.
    fn step(&self) -> u64 {
        if self.plan.is_some() { STEP } else { 1 }
    }

    /// The cells at `start` and after; `start` is at a step's border.
    fn rows(&self, start: u64, n: u64) -> Result<BatchRows> {
        let end = start.saturating_add(n).min(self.n_obs);
        let Some(plan) = &self.plan else {
            return Ok(BatchRows { rows: RowRanges::single(start..end), order: None });
        };
        let mut written = Vec::new();
        for k in start / STEP..end.div_ceil(STEP) {
            let fetch = plan.fetch(0, k)?;
            let rows: Vec<u64> = fetch.rows().iter_rows().collect();
            let at = |&p: &u32| usize::try_from(p).ok().and_then(|p| rows.get(p).copied());
            written.extend(fetch.minibatch(0).iter().filter_map(at));
        }
        let mut sorted = written.clone();
        sorted.sort_unstable();
        let place = |row: &u64| {
            let found = sorted.binary_search(row).ok().and_then(|i| u32::try_from(i).ok());
            found.ok_or_else(|| Error::internal("a shuffled row is lost"))
        };
        let order = written.iter().map(place).collect::<Result<_>>()?;
        Ok(BatchRows { rows: RowRanges::try_from_rows(&sorted)?, order: Some(order) })
    }
}

/// What reads batches.
#[derive(Debug)]
pub(super) struct Reader {
    store: Store,
    matrices: Vec<(MatrixKey, Option<Transposed>)>,
    obs: Vec<String>,
    has_index: bool,
    selection: Option<Selection>,
    memory: u64,
    /// Rows of the last batch: about what the next one will have.
    fitted: AtomicU64,
}

impl Reader {
    pub(super) fn new(
        source: &Store,
        matrices: Vec<Chosen>,
        new: &NewStore,
        selection: Option<Selection>,
        memory: u64,
    ) -> Result<Self> {
        let opened = matrices.into_iter().map(|chosen| {
            let transposed =
                chosen.by_columns.then(|| Transposed::open(source, &chosen.key, memory / 4));
            Ok((chosen.key, transposed.transpose()?))
        });
        let matrices = opened.collect::<Result<Vec<_>>>()?;
        let mut obs: Vec<String> = new.obs.iter().map(|c| c.name.clone()).collect();
        obs.extend(new.obs_index.clone());
        let has_index = new.obs_index.is_some();
        let fitted = AtomicU64::new(0);
        Ok(Self { store: source.clone(), matrices, obs, has_index, selection, memory, fitted })
    }

    /// Bytes that reading rows takes: two batches are in memory, one of them read, and a shuffled or
    /// selected one is copied once.
    fn held(&self, rows: &RowRanges, copied: bool) -> Result<u64> {
        let mut held = rows.n_rows().saturating_mul(64);
        for (key, transposed) in &self.matrices {
            let cost = match transposed {
                Some(t) => t.bytes(rows),
                None => {
                    let cost = self.store.backend().cost(key, rows)?;
                    cost.bytes_held + if copied { cost.bytes_kept } else { 0 }
                }
            };
            held = held.saturating_add(cost);
        }
        Ok(held)
    }

    /// As many rows from `start` as fit half of the memory.
    fn fit(&self, order: &Order, start: u64) -> Result<BatchRows> {
        let step = order.step();
        // Rows made of columns cost a pass over the whole matrix each time: the more at once the
        // better.
        let by_columns = self.matrices.iter().any(|(_, t)| t.is_some());
        let many = by_columns || order.plan.is_some();
        let most = if many { order.n_obs - start } else { MOST_ROWS };
        // Planning rows that will not fit costs as much as planning those that will.
        let last = self.fitted.load(Relaxed);
        let guess = if last == 0 { most } else { most.min(last.saturating_add(last / 4)) };
        let mut n = guess.next_multiple_of(step);
        loop {
            let batch = order.rows(start, n)?;
            let copied = batch.order.is_some() || self.selection.is_some();
            let held = self.held(&batch.rows, copied)?;
            if held <= self.memory / 2 {
                self.fitted.store(batch.rows.n_rows(), Relaxed);
                return Ok(batch);
            }
            if n <= step {
                return Err(Error::new(
                    ErrorKind::OverBudget,
                    format!(
                        "{} cells take {} MiB, more than a quarter of the memory of {} MiB; raise the \
                         memory to {} MiB",
                        batch.rows.n_rows(),
                        held >> 20,
                        self.memory >> 19,
                        (held >> 18) + 4
                    ),
                ));
            }
            // Straight to what should fit; a little less, since rows differ.
            let fits = u128::from(n) * u128::from(self.memory / 2) / u128::from(held.max(1));
            let fits = u64::try_from(fits * 9 / 10).unwrap_or(n);
            n = (fits / step * step).clamp(step, (n - 1).max(step));
        }
    }

    /// Reads the batch that starts at cell `start` of the order.
    pub(super) async fn read(&self, order: &Order, start: u64) -> Result<CellBatch> {
        let batch = self.fit(order, start)?;
        let (rows, backend) = (&batch.rows, self.store.backend());
        let mut matrices = Vec::with_capacity(self.matrices.len());
        for (key, transposed) in &self.matrices {
            let mut found = match transposed {
                Some(t) => t.read(&self.store, rows).await?,
                None => backend.read_rows(key, rows).await?,
            };
            if let (Some(selection), false) = (&self.selection, *key == MatrixKey::Raw) {
                found = selection.rows(&found)?;
            }
            if let Some(order) = &batch.order {
                found = found.gather(order)?;
            }
            matrices.push(found);
        }
        let mut obs = if self.obs.is_empty() {
            Vec::new()
        } else {
            backend.read_obs(&self.obs, rows).await?
        };
        if let Some(order) = &batch.order {
            obs = obs.iter().map(|array| take(array, order)).collect::<Result<_>>()?;
        }
        let obs_index = if self.has_index { obs.pop() } else { None };
        Ok(CellBatch { n_rows: rows.n_rows(), matrices, obs_index, obs })
    }
}
