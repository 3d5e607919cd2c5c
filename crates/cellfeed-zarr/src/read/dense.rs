//! Rows of a dense matrix, turned into CSR one band of chunks at a time.

use super::array::Array;
use super::locate::{Located, Stored};
use super::{Context, as_u64, to_usize};
use bytes::Bytes;
use cellfeed_core::spans::{Doing, Origin};
use cellfeed_core::{CsrRows, CsrSegment, Error, ReadCost, Result, RowRanges, ValueType, Values};
use futures::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Waves in memory at a time.
const AT_ONCE: usize = 3;
/// Decoded bytes of a wave, if it has more than one band.
const WAVE_BYTES: u64 = 8 << 20;

/// A matrix of which every value is stored.
#[derive(Debug)]
pub(crate) struct DenseMatrix {
    pub(crate) array: Arc<Array>,
    pub(crate) value_type: ValueType,
}

/// Wanted rows of a band of chunks, numbered within it.
type Band = (u64, Vec<u64>);

impl DenseMatrix {
    fn bands(&self, rows: &RowRanges) -> Vec<Band> {
        let mut out: Vec<Band> = Vec::new();
        let height = self.array.meta.inner[0];
        for row in rows.iter_rows() {
            match out.last_mut() {
                Some((band, list)) if *band == row / height => list.push(row % height),
                _ => out.push((row / height, vec![row % height])),
            }
        }
        out
    }

    /// Decoded bytes of a band.
    fn band_bytes(&self) -> u64 {
        let meta = &self.array.meta;
        meta.grid()[1].saturating_mul(as_u64(meta.chunk_bytes().unwrap_or(0)))
    }

    /// What reading rows costs, as if no value were zero.
    pub(crate) fn cost(&self, rows: &RowRanges) -> ReadCost {
        let (meta, band) = (&self.array.meta, self.band_bytes());
        let n = as_u64(self.bands(rows).len());
        let values = rows.n_rows().saturating_mul(meta.shape[1]);
        let kept = values.saturating_mul(4 + as_u64(self.value_type.size()));
        let kept = kept.saturating_add((rows.n_rows() + 1) * 8);
        // Waves of stored and of decoded bytes, the latter decoded whole by some codecs.
        let waves = band.max(WAVE_BYTES).saturating_mul(as_u64(AT_ONCE) * 3);
        let all = band.saturating_mul(n).saturating_mul(3);
        ReadCost {
            bytes_read: self.array.stored_estimate(meta.grid()[1].saturating_mul(n)),
            bytes_decoded: band.saturating_mul(n),
            bytes_held: kept.saturating_mul(2).saturating_add(waves.min(all)),
            bytes_kept: kept,
            exact: false,
        }
    }

    /// Reads rows, a segment a band, in waves of bands of which the next are read while one is decoded.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<CsrRows> {
        let each = to_usize(WAVE_BYTES / self.band_bytes().max(1)).max(1);
        let bands = self.bands(rows);
        let waves: Vec<Vec<Band>> = bands.chunks(each).map(<[Band]>::to_vec).collect();
        let read = stream::iter(waves).map(|wave| self.read_wave(context, wave)).buffered(AT_ONCE);
        let segments: Vec<Vec<CsrSegment>> = read.try_collect().await?;
        Ok(CsrRows::new(segments.into_iter().flatten().collect()))
    }

    async fn read_wave(&self, context: &Context, wave: Vec<Band>) -> Result<Vec<CsrSegment>> {
        let columns = self.array.meta.grid()[1];
        let chunks = wave.iter().flat_map(|(band, _)| (0..columns).map(|c| vec![*band, c]));
        let located = Located::find(&self.array, context, chunks.collect()).await?;
        let across = to_usize(columns);
        let stored = located.read_all().await?;
        let (array, value_type) = (Arc::clone(&self.array), self.value_type);
        let stats = Arc::clone(context.engine.stats());
        let work = move || {
            let wide = to_usize(array.meta.inner[1]);
            let origin = Origin::here();
            let decode = |doing: &mut Doing, (i, stored): (usize, &Stored)| {
                let rows = wave.get(i / across).map_or(&[][..], |(_, rows)| rows);
                let lines = rows.iter().map(|&row| to_usize(row) * wide);
                let lines: Vec<Range<usize>> = lines.map(|start| start..start + wide).collect();
                let mut bytes = vec![0; lines.len() * wide * value_type.size()];
                let decoded = array.decode_parts(stored.as_deref(), &lines, &mut bytes);
                let decoded = decoded.map_err(|e| located.blame(i, e))?;
                stats.add_decoded(as_u64(decoded));
                doing.add_bytes(decoded);
                Ok(bytes)
            };
            let begin = || origin.decode(&array.meta.path);
            let decoded = stored.par_iter().enumerate().map_init(begin, decode);
            let decoded = decoded.collect::<Result<Vec<Vec<u8>>>>()?;
            let bands = wave.par_iter().enumerate();
            bands
                .map_init(begin, |_, (i, (_, rows))| {
                    let parts = decoded.get(i * across..(i + 1) * across).unwrap_or_default();
                    segment(&array, value_type, rows.len(), parts)
                })
                .collect()
        };
        context.engine.compute(work).await.map_err(|e| self.array.blame(e))
    }
}

/// Lines of a band, in parts of which each has some columns, as CSR.
fn segment(
    array: &Array,
    value_type: ValueType,
    n_rows: usize,
    parts: &[Vec<u8>],
) -> Result<CsrSegment> {
    let (width, n_vars) = (array.meta.inner[1], array.meta.shape[1]);
    let (wide, size) = (to_usize(width), value_type.size());
    let (mut indptr, mut indices, mut data) = (vec![0u64], Vec::new(), Vec::new());
    for row in 0..n_rows {
        for (first, bytes) in (0..n_vars).step_by(wide).zip(parts) {
            let n = to_usize(width.min(n_vars - first));
            let line = bytes.get(row * wide * size..(row * wide + n) * size).unwrap_or_default();
            keep(line, value_type, first, &mut indices, &mut data)?;
        }
        indptr.push(as_u64(indices.len()));
    }
    let values = Values::from_bytes(value_type, Bytes::from(data))?;
    CsrSegment::try_new(indptr.into(), indices.into(), values, n_vars)
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
