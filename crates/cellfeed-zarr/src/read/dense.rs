//! Rows of a dense matrix, turned into CSR one band of chunks at a time.

use super::array::Array;
use super::locate::Located;
use super::{Context, as_u64, to_usize};
use bytes::Bytes;
use cellfeed_core::{CsrRows, CsrSegment, Error, ReadCost, Result, RowRanges, ValueType, Values};
use rayon::prelude::*;
use std::sync::Arc;

/// A matrix of which every value is stored.
#[derive(Debug)]
pub(crate) struct DenseMatrix {
    pub(crate) array: Arc<Array>,
    pub(crate) value_type: ValueType,
}

impl DenseMatrix {
    fn bands(&self, rows: &RowRanges) -> Vec<(u64, Vec<u64>)> {
        let mut out: Vec<(u64, Vec<u64>)> = Vec::new();
        let height = self.array.meta.inner[0];
        for row in rows.iter_rows() {
            match out.last_mut() {
                Some((band, list)) if *band == row / height => list.push(row % height),
                _ => out.push((row / height, vec![row % height])),
            }
        }
        out
    }

    /// What reading rows costs, as if no value were zero.
    pub(crate) fn cost(&self, rows: &RowRanges) -> ReadCost {
        let meta = &self.array.meta;
        let band = meta.grid()[1].saturating_mul(as_u64(meta.chunk_bytes().unwrap_or(0)));
        let n = as_u64(self.bands(rows).len());
        let values = rows.n_rows().saturating_mul(meta.shape[1]);
        let kept = values.saturating_mul(4 + as_u64(self.value_type.size()));
        let kept = kept.saturating_add((rows.n_rows() + 1) * 8);
        ReadCost {
            bytes_read: self.array.stored_estimate(meta.grid()[1].saturating_mul(n)),
            bytes_decoded: band.saturating_mul(n),
            bytes_held: kept.saturating_mul(2).saturating_add(band.saturating_mul(3)),
            bytes_kept: kept,
            exact: false,
        }
    }

    /// Reads rows, a segment a band.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<CsrRows> {
        let mut segments = Vec::new();
        for (band, list) in self.bands(rows) {
            let columns = self.array.meta.grid()[1];
            let chunks = (0..columns).map(|c| vec![band, c]).collect();
            let located = Located::find(&self.array, context, chunks).await?;
            let stored = located.read(0..to_usize(columns)).await?;
            let (array, value_type) = (Arc::clone(&self.array), self.value_type);
            let stats = Arc::clone(context.engine.stats());
            let work = move || {
                let decoded = stored
                    .par_iter()
                    .enumerate()
                    .map(|(i, s)| array.decode(s.as_deref()).map_err(|e| located.blame(i, e)))
                    .collect::<Result<Vec<_>>>()?;
                stats.add_decoded(decoded.iter().map(|d| as_u64(d.len())).sum());
                let (width, n_vars) = (array.meta.inner[1], array.meta.shape[1]);
                let size = value_type.size();
                let (mut indptr, mut indices, mut data) = (vec![0u64], Vec::new(), Vec::new());
                for row in list {
                    for (c, bytes) in decoded.iter().enumerate() {
                        let first = as_u64(c) * width;
                        let n = to_usize(width.min(n_vars - first));
                        let at = to_usize(row * width) * size;
                        let line = bytes.get(at..at + n * size).unwrap_or_default();
                        keep(line, value_type, first, &mut indices, &mut data)?;
                    }
                    indptr.push(as_u64(indices.len()));
                }
                let values = Values::from_bytes(value_type, Bytes::from(data))?;
                CsrSegment::try_new(indptr.into(), indices.into(), values, n_vars)
            };
            let segment = context.engine.compute(work).await;
            segments.push(segment.map_err(|e| self.array.blame(e))?);
        }
        Ok(CsrRows::new(segments))
    }
}

/// Keeps what is not zero; a zero of either sign is none.
fn keep(
    line: &[u8],
    value_type: ValueType,
    first: u64,
    indices: &mut Vec<u32>,
    data: &mut Vec<u8>,
) -> Result<()> {
    let size = value_type.size();
    let float = matches!(value_type, ValueType::F16 | ValueType::F32 | ValueType::F64);
    for (gene, item) in (first..).zip(line.chunks_exact(size)) {
        let Some((top, low)) = item.split_last() else { continue };
        let top = if float && cfg!(target_endian = "little") { top & 0x7f } else { *top };
        if top == 0 && low.iter().all(|b| *b == 0) {
            continue;
        }
        indices.push(
            u32::try_from(gene)
                .map_err(|_| Error::unsupported("more than 2^32 genes are not read"))?,
        );
        data.extend_from_slice(item);
    }
    Ok(())
}
