//! Rows of a sparse matrix: offsets in memory; of indices and values the inner chunks that hold wanted
//! rows, each decoded once into scratch and its wanted part copied once to the answer.

use super::array::{Array, integers};
use super::{Context, as_u64, to_usize};
use crate::meta::dtype::Kind;
use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use cellfeed_core::{
    CsrRows, CsrSegment, Error, Indices, ReadCost, Result, RowOffsets, RowRanges, ValueType,
    Values, typed,
};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A matrix whose rows (or genes, if it is stored by columns) are contiguous.
#[derive(Debug)]
pub(crate) struct SparseMatrix {
    pub(crate) offsets: RowOffsets,
    pub(crate) indices: Arc<Array>,
    pub(crate) data: Arc<Array>,
    pub(crate) value_type: ValueType,
    /// What indices must be below.
    pub(crate) n_indices: u64,
}

/// The wanted elements of a chunk, and how many they are.
struct Piece {
    chunk: u64,
    parts: Vec<Range<usize>>,
    length: usize,
}

/// Cuts ascending ranges of elements at the borders of chunks.
fn pieces(ranges: &[Range<u64>], chunk_len: u64) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let chunk = at / chunk_len;
            let end = range.end.min((chunk + 1) * chunk_len);
            let first = chunk * chunk_len;
            let part = to_usize(at - first)..to_usize(end - first);
            match out.last_mut() {
                Some(piece) if piece.chunk == chunk => {
                    piece.length += part.len();
                    piece.parts.push(part);
                }
                _ => out.push(Piece { chunk, length: part.len(), parts: vec![part] }),
            }
            at = end;
        }
    }
    out
}

/// Elements of a one-dimensional array at ascending ranges. Gene indices come as `u32`.
async fn read(
    context: &Context,
    array: &Arc<Array>,
    ranges: &[Range<u64>],
    as_index: bool,
) -> Result<Bytes> {
    let pieces = pieces(ranges, as_u64(array.meta.chunk_len()));
    let item = if as_index { 4 } else { array.meta.kind.size().unwrap_or(0) };
    let total: usize = pieces.iter().map(|p| p.length).sum();
    let stored = array.fetch(context, pieces.iter().map(|p| vec![p.chunk]).collect()).await?;
    let (array, mut buffer) = (Arc::clone(array), context.engine.buffers().take(total * item));
    let stats = Arc::clone(context.engine.stats());
    let work = move || {
        let mut jobs = Vec::with_capacity(pieces.len());
        let mut rest = buffer.as_mut_slice();
        for (piece, stored) in pieces.iter().zip(stored) {
            let (to, tail) = rest.split_at_mut(piece.length * item);
            rest = tail;
            jobs.push((piece, stored, to));
        }
        jobs.into_par_iter().try_for_each(|(piece, stored, mut to)| {
            let bytes = array.decode(stored.as_deref())?;
            stats.add_decoded(as_u64(bytes.len()));
            let size = array.meta.kind.size().unwrap_or(0);
            for part in &piece.parts {
                let from = bytes.get(part.start * size..part.end * size).unwrap_or_default();
                let (here, tail) = to.split_at_mut(part.len() * item);
                to = tail;
                if as_index {
                    widen(array.meta.kind, from, here).map_err(|e| array.blame(e))?;
                } else {
                    here.copy_from_slice(from);
                }
            }
            Ok::<_, Error>(())
        })?;
        Ok(buffer.freeze())
    };
    context.engine.compute(work).await
}

/// Gene indices of any integer type as `u32`.
fn widen(kind: Kind, from: &[u8], to: &mut [u8]) -> Result<()> {
    let outside = |i: i64| Error::corrupt(format!("the gene index {i} is outside of 0 to 2^32"));
    match kind {
        Kind::Number(ValueType::U32) => to.copy_from_slice(from),
        Kind::Number(ValueType::I32) => {
            // A sign bit in any of them: one test for all, which the compiler vectorises.
            let (words, _) = from.as_chunks::<4>();
            let any = words.iter().fold(0, |a, w| a | i32::from_ne_bytes(*w));
            if any < 0 {
                let found = words.iter().map(|w| i32::from_ne_bytes(*w)).find(|i| *i < 0);
                return Err(outside(found.unwrap_or(-1).into()));
            }
            to.copy_from_slice(from);
        }
        _ => {
            let all = integers(kind, from)?;
            for (i, to) in all.into_iter().zip(to.chunks_exact_mut(4)) {
                let index = u32::try_from(i).map_err(|_| outside(i))?;
                to.copy_from_slice(&index.to_ne_bytes());
            }
        }
    }
    Ok(())
}

impl SparseMatrix {
    /// What reading rows costs.
    pub(crate) fn cost(&self, rows: &RowRanges) -> ReadCost {
        let ranges = self.offsets.element_ranges(rows);
        let nnz: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let decoded = |array: &Array| {
            let n = as_u64(pieces(&ranges, as_u64(array.meta.chunk_len())).len());
            n * as_u64(array.meta.chunk_bytes().unwrap_or(0))
        };
        let all = decoded(&self.indices) + decoded(&self.data);
        let kept = nnz * (4 + as_u64(self.value_type.size())) + (rows.n_rows() + 1) * 8;
        // Stored chunks are hardly ever larger than decoded ones.
        ReadCost {
            bytes_read: all,
            bytes_decoded: all,
            bytes_held: kept + all + all / 8,
            bytes_kept: kept,
            exact: false,
        }
    }

    /// Reads rows as one segment.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<CsrRows> {
        if rows.is_empty() {
            return Ok(CsrRows::default());
        }
        let ranges = self.offsets.element_ranges(rows);
        let (indices, data) = futures::try_join!(
            read(context, &self.indices, &ranges, true),
            read(context, &self.data, &ranges, false)
        )?;
        let indptr = self.offsets.relative(rows);
        let (value_type, n_indices, rows) = (self.value_type, self.n_indices, rows.clone());
        let work = move || {
            let indices = Indices::U32(typed::<u32>(indices)?);
            let values = Values::from_bytes(value_type, data)?;
            let indptr = ScalarBuffer::from(indptr);
            CsrSegment::try_new_sorting(indptr, &indices, &values, n_indices)
                .map_err(|e| rows.name_row(e))
        };
        let segment = context.engine.compute(work).await.map_err(|e| self.indices.blame(e))?;
        Ok(CsrRows::new(vec![segment]))
    }
}
