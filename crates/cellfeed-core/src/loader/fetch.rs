//! One fetch in memory: its plan, its rows in file order, and where each row lies.

use super::gather::RowRef;
use super::minibatch::{Layout, OutputType};
use crate::backend::Backend;
use crate::csr::{Row, RowBuffer, StoredRows};
use crate::io::Permit;
use crate::obs;
use crate::plan::FetchPlan;
use crate::schema::MatrixKey;
use crate::{Error, Result};
use arrow_array::{Array, ArrayRef};
use std::sync::Arc;

/// Bytes of minibatches that one task gathers, about.
pub(super) const TASK_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) plan: FetchPlan,
    /// Genes of minibatches.
    pub(super) n_vars: u64,
    pub(super) x: StoredRows,
    /// Row numbers in the store, in file order.
    pub(super) rows: Vec<u64>,
    /// Where each row lies, in file order.
    pub(super) refs: Vec<RowRef>,
    obs: Vec<(Arc<str>, ArrayRef)>,
    _permits: Permits,
}

/// What a fetch holds until its last minibatch is gathered.
#[derive(Debug)]
pub(super) struct Permits {
    /// Bytes of the loader's budget.
    pub(super) memory: Permit,
    /// One of the places for fetches in flight.
    pub(super) _place: Permit,
}

impl Fetch {
    /// Reads what a plan wants.
    pub(super) async fn read(
        backend: &dyn Backend,
        matrix: &MatrixKey,
        columns: &[String],
        plan: FetchPlan,
        mut permits: Permits,
        n_vars: u64,
    ) -> Result<Self> {
        let x = backend.read_stored(matrix, plan.rows());
        let obs = async {
            if columns.is_empty() {
                return Ok(Vec::new());
            }
            backend.read_obs(columns, plan.rows()).await
        };
        let (x, obs) = futures::try_join!(x, obs)?;
        let n_rows = usize::try_from(plan.rows().n_rows()).unwrap_or(usize::MAX);
        if x.n_rows() != n_rows || obs.len() != columns.len() {
            return Err(Error::internal(format!(
                "the backend answered {} rows and {} columns for {n_rows} and {}",
                x.n_rows(),
                obs.len(),
                columns.len()
            )));
        }
        if let Some(short) = obs.iter().find(|array| array.len() != n_rows) {
            return Err(Error::internal(format!(
                "the backend answered {} obs values for {n_rows} rows",
                short.len()
            )));
        }
        permits.memory.shrink_to(u64::try_from(x.n_bytes()).unwrap_or(u64::MAX));
        let refs = row_refs(&x)?;
        let obs = columns.iter().map(|name| Arc::from(name.as_str())).zip(obs).collect();
        let rows = plan.rows().iter_rows().collect();
        Ok(Self { plan, n_vars, x, rows, refs, obs, _permits: permits })
    }

    /// How many minibatches one task gathers: small ones several at once, since waking a thread takes as
    /// long as gathering some hundred kilobytes, but not so many that threads are left without.
    pub(super) fn gathered_together(
        &self,
        layout: Layout,
        output: OutputType,
        threads: usize,
    ) -> usize {
        let n = self.plan.n_minibatches().max(1);
        let values = match layout {
            Layout::Csr => self.x.nnz(),
            Layout::Dense => {
                let width = usize::try_from(self.n_vars).unwrap_or(usize::MAX);
                self.refs.len().saturating_mul(width)
            }
        };
        let bytes = values.saturating_mul(output.size() + 4) / n;
        (TASK_BYTES / bytes.max(1)).min(n / (4 * threads)).max(1)
    }

    /// A row in canonical form; `number` is its number in the store.
    #[inline]
    pub(super) fn row<'a>(
        &'a self,
        row: RowRef,
        number: u64,
        buffer: &'a mut RowBuffer,
    ) -> Result<Row<'a>> {
        let segment = &self.x.segments()[row.segment as usize];
        segment.row(row.place, row.len as usize, number, buffer)
    }

    /// Tells the processor which row is copied after another. One that lies right behind it is no news.
    #[inline]
    pub(super) fn prefetch(&self, next: RowRef, after: RowRef) {
        let follows = next.segment == after.segment
            && next.place == after.place.wrapping_add(after.len as usize);
        if !follows {
            self.x.segments()[next.segment as usize].prefetch(next.place, next.len as usize);
        }
    }

    /// Obs values of the cells at `positions`.
    pub(super) fn take_obs(&self, positions: &[u32]) -> Result<Vec<(Arc<str>, ArrayRef)>> {
        if self.obs.is_empty() {
            return Ok(Vec::new());
        }
        let take = |(name, array): &(Arc<str>, ArrayRef)| {
            Ok((Arc::clone(name), obs::take(array, positions)?))
        };
        self.obs.iter().map(take).collect()
    }
}

fn row_refs(x: &StoredRows) -> Result<Vec<RowRef>> {
    let too_large = |_| Error::invalid_input("a fetch is too large for 32-bit offsets");
    let mut refs = Vec::with_capacity(x.n_rows());
    for (i, segment) in x.segments().iter().enumerate() {
        let i = u32::try_from(i).map_err(too_large)?;
        for (place, len) in segment.places() {
            refs.push(RowRef {
                segment: i,
                place: usize::try_from(place).map_err(too_large)?,
                len: u32::try_from(len).map_err(too_large)?,
            });
        }
    }
    Ok(refs)
}
