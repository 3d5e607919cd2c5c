//! One batch of a conversion: which rows it has, in which order, and their reading.

use super::spill::Spill;
use super::{Chosen, Selection, Transposed};
use crate::Store;
use cellfeed_core::io::as_limit;
use cellfeed_core::{
    CellBatch, CsrRows, Error, ErrorKind, MatrixKey, NewStore, Plan, PlanOptions, ReadCost, Result,
    RowRanges, Strategy, take,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A shuffled order is planned in steps of this many cells; it must not depend on the memory.
const STEP: u64 = 4096;
/// No batch has more cells.
pub(super) const MOST_ROWS: u64 = 1 << 16;

/// The order in which cells are written.
#[derive(Debug)]
pub(super) struct Order {
    n_obs: u64,
    plan: Option<Plan>,
}

/// The rows of a batch in file order, and where each written cell lies among them, if not so.
#[derive(Debug)]
pub(super) struct BatchRows {
    pub(super) rows: RowRanges,
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

    /// Whether cells leave their file order.
    pub(super) fn is_shuffled(&self) -> bool {
        self.plan.is_some()
    }

    /// How many cells.
    pub(super) fn n_obs(&self) -> u64 {
        self.n_obs
    }

    /// The `n` cells from `start` on, or as many as there are.
    pub(super) fn rows(&self, start: u64, n: u64) -> Result<BatchRows> {
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
        let skipped = usize::try_from(start % STEP).unwrap_or(0);
        written.drain(..skipped.min(written.len()));
        written.truncate(usize::try_from(end - start).unwrap_or(usize::MAX));
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
    matrices: Vec<Part>,
    obs: Vec<String>,
    has_index: bool,
    memory: u64,
    /// Rows of the last batch: about what the next one will have.
    fitted: AtomicU64,
    spill: Option<Spill>,
}

/// A matrix that is carried over, and how its rows are had.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) key: MatrixKey,
    /// Of a matrix by columns.
    pub(super) transposed: Option<Transposed>,
    selection: Option<Selection>,
}

impl Part {
    /// Reads rows of the store, and of them the genes that were asked for.
    pub(super) async fn read(&self, store: &Store, rows: &RowRanges) -> Result<CsrRows> {
        let found = match &self.transposed {
            Some(t) => t.read(store, rows).await?,
            None => store.backend().read_rows(&self.key, rows).await?,
        };
        self.select(found)
    }

    /// Of rows the genes that were asked for.
    pub(super) fn select(&self, found: CsrRows) -> Result<CsrRows> {
        match &self.selection {
            Some(selection) => selection.rows(&found),
            None => Ok(found),
        }
    }

    /// How many genes are carried over, of `all`.
    pub(super) fn n_vars(&self, all: u64) -> u64 {
        self.selection.as_ref().map_or(all, Selection::n_vars)
    }

    /// Bytes that reading rows holds, and the answer's copies.
    pub(super) fn held(&self, store: &Store, rows: &RowRanges, shuffled: bool) -> Result<u64> {
        let copied = shuffled || self.selection.is_some();
        Ok(match &self.transposed {
            Some(t) => t.bytes(rows),
            None => {
                let cost = store.backend().cost(&self.key, rows)?;
                cost.bytes_held.saturating_add(if copied { cost.bytes_kept } else { 0 })
            }
        })
    }
}

/// Bytes that each cell of a batch takes besides its values.
pub(super) const CELL_BYTES: u64 = 64;

/// Cells from `start` on, at most `most`, as many as hold no more than `memory`; `held` says what they
/// would. No cell is taken to hold less than [`CELL_BYTES`].
pub(super) fn fit(
    order: &Order,
    start: u64,
    most: u64,
    memory: u64,
    held: impl Fn(&BatchRows) -> Result<u64>,
) -> Result<BatchRows> {
    // Before their numbers are made, which of a hundred million takes gigabytes.
    let mut n = most.min(memory / CELL_BYTES).max(1);
    loop {
        let batch = order.rows(start, n)?;
        let bytes = held(&batch)?;
        if bytes <= memory {
            return Ok(batch);
        }
        if n == 1 {
            return Err(Error::new(
                ErrorKind::OverBudget,
                format!(
                    "one cell takes {}, more than a quarter of the memory of {}; raise the memory to {}",
                    as_limit(bytes),
                    as_limit(memory.saturating_mul(4)),
                    as_limit(bytes.saturating_mul(4))
                ),
            ));
        }
        // Straight to what should fit; a little less, since rows differ.
        let fits = u128::from(n) * u128::from(memory) / u128::from(bytes.max(1));
        let fits = u64::try_from(fits * 9 / 10).unwrap_or(n);
        n = fits.clamp(1, n - 1);
    }
}

impl Reader {
    pub(super) fn new(
        source: &Store,
        matrices: Vec<Chosen>,
        new: &NewStore,
        selection: Option<&Selection>,
        memory: u64,
    ) -> Result<Self> {
        let opened = matrices.into_iter().map(|chosen| {
            let transposed =
                chosen.by_columns.then(|| Transposed::open(source, &chosen.key, memory / 4));
            let selection = selection.filter(|_| chosen.key != MatrixKey::Raw).cloned();
            Ok(Part { transposed: transposed.transpose()?, selection, key: chosen.key })
        });
        let matrices = opened.collect::<Result<Vec<_>>>()?;
        let mut obs: Vec<String> = new.obs.iter().map(|c| c.name.clone()).collect();
        obs.extend(new.obs_index.clone());
        Ok(Self {
            store: source.clone(),
            matrices,
            obs,
            has_index: new.obs_index.is_some(),
            memory,
            fitted: AtomicU64::new(0),
            spill: None,
        })
    }

    /// Sets the rows aside on the disk beside `destination`, sorted by batch, if the source would
    /// otherwise be read several times over. `progress` is told of cells, and answers whether to go
    /// on.
    pub(super) async fn spill(
        &mut self,
        order: &Order,
        destination: &Path,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        if order.n_obs() > 0 && self.reads_again(order)? {
            let spill =
                Spill::fill(&self.store, &self.matrices, order, destination, self.memory, progress);
            self.spill = Some(spill.await?);
        }
        Ok(())
    }

    /// Whether batches read straight from the source would read it more than twice, about.
    fn reads_again(&self, order: &Order) -> Result<bool> {
        let first = match self.fit(order, 0) {
            Ok(batch) => batch.rows,
            // Rows from all over the source may take more than the same number in a row.
            Err(e) if e.kind() == ErrorKind::OverBudget && order.is_shuffled() => return Ok(true),
            Err(e) => return Err(e),
        };
        let share = order.n_obs() as f64 / first.n_rows().max(1) as f64;
        if self.matrices.iter().any(|p| p.transposed.is_some()) && share > 2.0 {
            return Ok(true);
        }
        if !order.is_shuffled() {
            return Ok(false);
        }
        let all = RowRanges::single(0..order.n_obs());
        let (mut once, mut batches) = (0.0, 0.0);
        for part in self.matrices.iter().filter(|p| p.transposed.is_none()) {
            let cost = |rows| self.store.backend().cost(&part.key, rows);
            let work = |c: ReadCost| (c.bytes_read + c.bytes_decoded) as f64;
            once += work(cost(&all)?);
            batches += work(cost(&first)?) * share;
        }
        Ok(batches > 2.0 * once)
    }

    /// As many rows from `start` as fit half of the memory: two batches are in memory, one of them
    /// being read.
    fn fit(&self, order: &Order, start: u64) -> Result<BatchRows> {
        // Rows made of columns cost a pass over the whole matrix each time: the more at once the
        // better.
        let by_columns = self.matrices.iter().any(|p| p.transposed.is_some());
        let many = by_columns || order.is_shuffled();
        let most = if many { order.n_obs() - start } else { MOST_ROWS };
        // Planning rows that will not fit costs as much as planning those that will.
        let last = self.fitted.load(Relaxed);
        let guess = if last == 0 { most } else { most.min(last.saturating_add(last / 4)) };
        let batch = fit(order, start, guess, self.memory / 2, |batch| {
            let mut held = batch.rows.n_rows().saturating_mul(CELL_BYTES);
            for part in &self.matrices {
                let part = part.held(&self.store, &batch.rows, batch.order.is_some())?;
                held = held.saturating_add(part);
            }
            Ok(held)
        })?;
        self.fitted.store(batch.rows.n_rows(), Relaxed);
        Ok(batch)
    }

    /// Reads the batch that starts at cell `start` of the order.
    pub(super) async fn read(&self, order: &Order, start: u64) -> Result<CellBatch> {
        let batch = match &self.spill {
            Some(spill) => spill.batch(order, start)?,
            None => self.fit(order, start)?,
        };
        let rows = &batch.rows;
        let mut matrices = Vec::with_capacity(self.matrices.len());
        for (i, part) in self.matrices.iter().enumerate() {
            let mut found = match &self.spill {
                Some(spill) => spill.read(i, part, start, rows).await?,
                None => part.read(&self.store, rows).await?,
            };
            if let Some(order) = &batch.order {
                found = found.gather(order)?;
            }
            matrices.push(found);
        }
        let mut obs = if self.obs.is_empty() {
            Vec::new()
        } else {
            self.store.backend().read_obs(&self.obs, rows).await?
        };
        if let Some(order) = &batch.order {
            obs = obs.iter().map(|array| take(array, order)).collect::<Result<_>>()?;
        }
        let obs_index = if self.has_index { obs.pop() } else { None };
        Ok(CellBatch { n_rows: rows.n_rows(), matrices, obs_index, obs })
    }
}
