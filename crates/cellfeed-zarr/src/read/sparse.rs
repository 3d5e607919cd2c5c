//! Rows of a sparse matrix: offsets in memory; of indices and values the inner chunks that hold wanted
//! rows, each decoded once into scratch and its wanted part copied once to the answer.

use super::array::{Array, integers};
use super::locate::Located;
use super::{Context, as_u64, to_usize};
use crate::meta::dtype::Kind;
use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use cellfeed_core::io::Engine;
use cellfeed_core::spans::Origin;
use cellfeed_core::{
    Error, Indices, ReadCost, Result, RowCheck, RowOffsets, RowRanges, StoredRows, StoredSegment,
    ValueType, Values, typed,
};
use futures::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Waves of stored chunks that are read ahead.
const AHEAD: usize = 2;

/// A matrix whose rows (or genes, if it is stored by columns) are contiguous.
#[derive(Debug)]
pub(crate) struct SparseMatrix {
    pub(crate) offsets: RowOffsets,
    pub(crate) indices: Arc<Array>,
    pub(crate) data: Arc<Array>,
    pub(crate) value_type: ValueType,
    /// What rows must be.
    pub(crate) check: Arc<RowCheck>,
}

/// The wanted elements of a chunk, and how many they are.
pub(super) struct Piece {
    pub(super) chunk: u64,
    pub(super) parts: Vec<Range<usize>>,
    pub(super) length: usize,
}

/// Cuts ascending ranges of elements at the borders of chunks.
pub(super) fn pieces(ranges: &[Range<u64>], chunk_len: u64) -> Vec<Piece> {
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

/// What elements are wanted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Values,
    Indices,
}

/// Elements of a one-dimensional array at ascending ranges. Gene indices come as `u16` or `u32`.
///
/// Chunks are read and decoded in waves, the next read while one is decoded: so few stored bytes are in
/// memory at a time, and those that are decoded are still in the cache.
async fn read(
    context: &Context,
    array: &Arc<Array>,
    ranges: &[Range<u64>],
    wanted: As,
) -> Result<Bytes> {
    let pieces = Arc::new(pieces(ranges, as_u64(array.meta.chunk_len())));
    let chunks = pieces.iter().map(|p| vec![p.chunk]).collect();
    let located = Arc::new(Located::find(array, context, chunks).await?);
    let stored_item = array.item()?;
    let item = match wanted {
        As::Values => stored_item,
        As::Indices => index_size(array.meta.kind),
    };
    let total: usize = pieces.iter().map(|p| p.length).sum();
    let mut buffer = context.engine.buffers().take(total * item);
    let waves = located.waves(wave_bytes(&context.engine), 0);
    let mut reads = stream::iter(waves.clone()).map(|wave| located.read(wave)).buffered(AHEAD);
    let mut from = 0;
    for wave in waves {
        let Some(stored) = reads.try_next().await? else { break };
        let (array, pieces, located) =
            (Arc::clone(array), Arc::clone(&pieces), Arc::clone(&located));
        let stats = Arc::clone(context.engine.stats());
        let work = move || {
            let pieces = pieces.get(wave.clone()).unwrap_or_default();
            let mut jobs = Vec::with_capacity(pieces.len());
            let mut rest = buffer.as_mut_slice().get_mut(from..).unwrap_or_default();
            for (i, (piece, stored)) in pieces.iter().zip(stored).enumerate() {
                let (to, tail) = rest.split_at_mut(piece.length * item);
                (rest, from) = (tail, from + to.len());
                jobs.push((wave.start + i, piece, stored, to));
            }
            let origin = Origin::here();
            // What one thread decodes in a row is one span.
            let begin = || origin.decode(&array.meta.path);
            jobs.into_par_iter().try_for_each_init(begin, |doing, (i, piece, stored, to)| {
                let decoded = match wanted {
                    As::Indices => decode_indices(&array, stored.as_deref(), piece, to),
                    As::Values => array.decode_parts(stored.as_deref(), &piece.parts, to),
                };
                let decoded = decoded.map_err(|e| located.blame(i, e))?;
                stats.add_decoded(as_u64(decoded));
                doing.add_bytes(decoded);
                Ok::<_, Error>(())
            })?;
            Ok((buffer, from))
        };
        (buffer, from) = context.engine.compute(work).await?;
    }
    Ok(buffer.freeze())
}

/// Stored bytes that are decoded together: enough for every thread to have some chunks.
fn wave_bytes(engine: &Engine) -> u64 {
    as_u64(engine.threads()).saturating_mul(2 << 20).clamp(4 << 20, 16 << 20)
}

/// Bytes of a gene index in memory: two where the stored type has no more.
fn index_size(kind: Kind) -> usize {
    if kind.size().is_some_and(|s| s <= 2) { 2 } else { 4 }
}

/// Gene indices of any integer type as `u16` or `u32`.
fn decode_indices(
    array: &Array,
    stored: Option<&[u8]>,
    piece: &Piece,
    to: &mut [u8],
) -> Result<usize> {
    let outside = |i: i64| Error::corrupt(format!("the gene index {i} is outside of 0 to 2^32"));
    let kind = array.meta.kind;
    let (stored_item, item) = (array.item()?, index_size(kind));
    if stored_item != item {
        let mut wide = vec![0; piece.length * stored_item];
        let decoded = array.decode_parts(stored, &piece.parts, &mut wide)?;
        for (i, to) in integers(kind, &wide)?.into_iter().zip(to.chunks_exact_mut(item)) {
            let index = u32::try_from(i).map_err(|_| outside(i))?;
            match item {
                2 => to.copy_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_ne_bytes()),
                _ => to.copy_from_slice(&index.to_ne_bytes()),
            }
        }
        return Ok(decoded);
    }
    let decoded = array.decode_parts(stored, &piece.parts, to)?;
    // A sign bit in any of them: one test for all, which the compiler vectorises.
    let negative = match kind {
        Kind::Number(ValueType::I32) => {
            let (words, _) = to.as_chunks::<4>();
            let any = words.iter().fold(0, |a, w| a | i32::from_ne_bytes(*w)) < 0;
            let mut words = words.iter().map(|w| i32::from_ne_bytes(*w));
            any.then(|| words.find(|i| *i < 0).map_or(-1, i64::from))
        }
        Kind::Number(ValueType::I16) => {
            let (words, _) = to.as_chunks::<2>();
            words.iter().map(|w| i16::from_ne_bytes(*w)).find(|i| *i < 0).map(i64::from)
        }
        _ => None,
    };
    negative.map_or(Ok(decoded), |i| Err(outside(i)))
}

impl SparseMatrix {
    /// What reading rows costs: of decoded bytes at most so many, of stored ones about so many.
    pub(crate) fn cost(&self, engine: &Engine, rows: &RowRanges) -> Result<ReadCost> {
        let ranges = self.offsets.element_ranges(rows)?;
        let nnz: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let index = as_u64(index_size(self.indices.meta.kind));
        let kept = nnz * (index + as_u64(self.value_type.size())) + (rows.n_rows() + 1) * 8;
        let mut cost = ReadCost { bytes_held: kept, bytes_kept: kept, ..ReadCost::default() };
        for array in [&self.indices, &self.data] {
            let n = as_u64(pieces(&ranges, as_u64(array.meta.chunk_len())).len());
            let chunk = as_u64(array.meta.chunk_bytes().unwrap_or(0));
            cost.bytes_decoded += n * chunk;
            cost.bytes_read += array.stored_estimate(n);
            // Waves in flight, and what threads decode to before the wanted part is copied.
            let wave = wave_bytes(engine).max(array.most_stored());
            let waves = (n * array.most_stored()).min(wave * (as_u64(AHEAD) + 1));
            cost.bytes_held += waves + chunk * n.min(as_u64(engine.threads()));
        }
        Ok(cost)
    }

    /// Reads rows as one segment, whose indices are not looked at yet.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<StoredRows> {
        if rows.is_empty() {
            return Ok(StoredRows::default());
        }
        let ranges = self.offsets.element_ranges(rows)?;
        let (indices, data) = futures::try_join!(
            read(context, &self.indices, &ranges, As::Indices),
            read(context, &self.data, &ranges, As::Values)
        )?;
        let narrow = index_size(self.indices.meta.kind) == 2;
        let segment = || {
            let indices = match narrow {
                true => Indices::U16(typed::<u16>(indices)?),
                false => Indices::U32(typed::<u32>(indices)?),
            };
            let values = Values::from_bytes(self.value_type, data)?;
            let indptr = ScalarBuffer::from(self.offsets.relative(rows)?);
            StoredSegment::unchecked(indptr, indices, values, &self.check)
        };
        let segment = segment().map_err(|e| self.indices.blame(e))?;
        Ok(StoredRows::new(vec![segment]))
    }
}
