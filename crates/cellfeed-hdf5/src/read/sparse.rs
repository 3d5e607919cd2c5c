//! Rows of a CSR matrix: offsets in memory, indices and values by exact element ranges.

use super::array::{Context, StoredArray};
use super::as_u64;
use super::convert::Convert;
use super::mapped::SEGMENT_ROWS;
use arrow_buffer::ScalarBuffer;
use cellfeed_core::io::Access;
use cellfeed_core::{
    Error, Indices, ReadCost, Result, RowCheck, RowOffsets, RowRanges, StoredRows, StoredSegment,
    ValueType, Values, typed,
};
use std::sync::Arc;

/// Entries of `indptr` that are read at once.
const WINDOW: u64 = 1 << 20;

/// A matrix in CSR form.
#[derive(Debug)]
pub(crate) struct SparseMatrix {
    pub(crate) offsets: RowOffsets,
    pub(crate) indices: StoredArray,
    pub(crate) data: StoredArray,
    pub(crate) value_type: ValueType,
    pub(crate) check: Arc<RowCheck>,
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
    pub(crate) fn cost(&self, rows: &RowRanges) -> Result<ReadCost> {
        let ranges = self.offsets.element_ranges(rows)?;
        let nnz: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let (index_read, index_decoded, index_raw) = self.indices.cost(&ranges, Convert::Index);
        let (data_read, data_decoded, data_raw) = self.data.cost(&ranges, Convert::Keep);
        let value = u64::try_from(self.value_type.size()).unwrap_or(8);
        // Views of a map are a segment for each range, or several.
        let segments = as_u64(rows.as_slice().len()) + rows.n_rows() / SEGMENT_ROWS;
        let kept = nnz * (4 + value) + (rows.n_rows() + segments + 1) * 8;
        Ok(ReadCost {
            bytes_read: index_read + data_read,
            bytes_decoded: index_decoded + data_decoded,
            bytes_held: kept + index_raw + data_raw,
            bytes_kept: kept,
            exact: self.indices.cost_is_exact() && self.data.cost_is_exact(),
        })
    }

    /// Tells the disk which bytes come next.
    pub(crate) async fn will_read(&self, context: &Context, rows: &RowRanges) {
        let Ok(ranges) = self.offsets.element_ranges(rows) else { return };
        for array in [&self.indices, &self.data] {
            context.source.will_need(array.stored_ranges(&ranges)).await;
        }
    }

    /// Reads rows, whose gene indices are not looked at yet: as views of the map where there is one and
    /// they are stored as they are wanted, else as one segment.
    pub(crate) async fn read(
        &self,
        context: &Context,
        rows: &RowRanges,
        access: Access,
    ) -> Result<StoredRows> {
        let ranges = self.offsets.element_ranges(rows)?;
        if access != Access::Read
            && let Some(map) = &context.map
            && let Some(views) = self.read_mapped(context, access, map, rows, &ranges).await?
        {
            return Ok(views);
        }
        let (indices, data) = futures::try_join!(
            self.indices.read(context, &ranges, Convert::Index),
            self.data.read(context, &ranges, Convert::Keep)
        )?;
        let segment = || {
            let indices = Indices::U32(typed::<u32>(indices)?);
            let values = Values::from_bytes(self.value_type, data)?;
            let indptr = ScalarBuffer::from(self.offsets.relative(rows)?);
            StoredSegment::unchecked(indptr, indices, values, &self.check)
        };
        let segment = segment().map_err(|e| context.blame(e, self.indices.path()))?;
        Ok(StoredRows::new(vec![segment]))
    }
}
