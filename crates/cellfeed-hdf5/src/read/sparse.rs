//! Rows of a CSR matrix: offsets in memory, indices and values by exact element ranges.

use super::array::{Context, StoredArray};
use super::convert::Convert;
use arrow_buffer::ScalarBuffer;
use cellfeed_core::{
    CsrRows, CsrSegment, Error, Indices, ReadCost, Result, RowOffsets, RowRanges, ValueType,
    Values, typed,
};

/// Entries of `indptr` that are read at once.
const WINDOW: u64 = 1 << 20;

/// A matrix in CSR form.
#[derive(Debug)]
pub(crate) struct SparseMatrix {
    pub(crate) offsets: RowOffsets,
    pub(crate) indices: StoredArray,
    pub(crate) data: StoredArray,
    pub(crate) value_type: ValueType,
    pub(crate) n_vars: u64,
}

/// Reads and checks `indptr`.
pub(crate) async fn read_offsets(context: &Context, indptr: &StoredArray) -> Result<RowOffsets> {
    let mut builder = RowOffsets::builder();
    let mut start = 0;
    while start < indptr.len() {
        let end = (start + WINDOW).min(indptr.len());
        let window = start..end;
        let bytes = indptr.read(context, std::slice::from_ref(&window), Convert::Keep).await?;
        let entries = super::obs::integers(indptr.element(), &bytes)?;
        if let Some(negative) = entries.iter().find(|&&p| p < 0) {
            let error = Error::corrupt(format!("indptr holds a negative entry, {negative}"));
            return Err(context.blame(error, indptr.path()));
        }
        builder
            .extend(entries.into_iter().map(i64::unsigned_abs))
            .map_err(|e| context.blame(e, indptr.path()))?;
        start = end;
    }
    Ok(builder.finish())
}

impl SparseMatrix {
    /// What reading rows costs.
    pub(crate) fn cost(&self, rows: &RowRanges) -> ReadCost {
        let ranges = self.offsets.element_ranges(rows);
        let nnz: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let (index_read, index_decoded, index_raw) = self.indices.cost(&ranges, Convert::Index);
        let (data_read, data_decoded, data_raw) = self.data.cost(&ranges, Convert::Keep);
        let value = u64::try_from(self.value_type.size()).unwrap_or(8);
        let kept = nnz * (4 + value) + (rows.n_rows() + 1) * 8;
        ReadCost {
            bytes_read: index_read + data_read,
            bytes_decoded: index_decoded + data_decoded,
            bytes_held: kept + index_raw + data_raw,
            bytes_kept: kept,
            exact: self.indices.cost_is_exact() && self.data.cost_is_exact(),
        }
    }

    /// Reads rows as one segment.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<CsrRows> {
        let ranges = self.offsets.element_ranges(rows);
        let (indices, data) = futures::try_join!(
            self.indices.read(context, &ranges, Convert::Index),
            self.data.read(context, &ranges, Convert::Keep)
        )?;
        let indptr = self.offsets.relative(rows);
        let (value_type, n_vars, rows) = (self.value_type, self.n_vars, rows.clone());
        let segment = context.engine.compute(move || {
            let indices = typed::<u32>(indices)?;
            let values = Values::from_bytes(value_type, data)?;
            let indptr = ScalarBuffer::from(indptr);
            let found = Indices::U32(indices.clone());
            CsrSegment::try_new(indptr.clone(), found, values.clone(), n_vars)
                .or_else(|_| mend(indptr, &indices, &values, n_vars))
                .map_err(|e| name_row(e, &rows))
        });
        let segment = segment.await.map_err(|e| context.blame(e, self.indices.path()))?;
        Ok(CsrRows::new(vec![segment]))
    }
}

/// Sorts the rows that are not sorted. Repeated indices stay, and are refused by the check.
fn mend(
    indptr: ScalarBuffer<u64>,
    indices: &[u32],
    values: &Values,
    n_vars: u64,
) -> Result<CsrSegment> {
    let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
    let mut order: Vec<usize> = (0..indices.len()).collect();
    for w in indptr.windows(2) {
        let row = order.get_mut(at(w[0])..at(w[1])).unwrap_or_default();
        if row.windows(2).any(|p| indices[p[0]] >= indices[p[1]]) {
            row.sort_by_key(|&i| indices[i]);
        }
    }
    let sorted: Vec<u32> = order.iter().map(|&i| indices[i]).collect();
    CsrSegment::try_new(indptr, sorted.into(), values.take(&order), n_vars)
}

/// Turns the row within the answer, which errors carry, into the row in the store.
fn name_row(error: Error, rows: &RowRanges) -> Error {
    let row = error.context().find(|(key, _)| *key == "row").and_then(|(_, v)| v.parse().ok());
    let Some(row) = row.and_then(|row: usize| rows.iter_rows().nth(row)) else { return error };
    Error::new(error.kind(), error.message()).with("row", row)
}
