//! Rows of a dense matrix, turned into CSR band by band: what is not zero is kept, the rest is never
//! held for more than a few bands.

use super::array::Context;
use super::chunks::knows_fill;
use super::filters::{Pipeline, Scratch, refuse_unknown};
use super::{as_u64, index};
use crate::container::{ChunkTable, Dataset, ElementType, Storage, StoredChunk};
use cellfeed_core::spans::{Doing, Origin};
use cellfeed_core::{
    CsrRows, CsrSegment, Error, ReadCost, Result, RowRanges, Value, ValueType, Values,
};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Dense bytes that one step of a read fetches and turns into CSR.
const STEP_BYTES: u64 = 32 << 20;
/// Rows that are looked at when the file is opened, to learn how many values are not zero.
const PROBED_ROWS: u64 = 16;

#[derive(Debug)]
enum Kind {
    Contiguous(Option<u64>),
    Chunked { table: Arc<ChunkTable>, chunk: [u64; 2], pipeline: Pipeline },
    Library,
}

/// A matrix that stores every value.
#[derive(Debug)]
pub(crate) struct DenseMatrix {
    path: String,
    n_obs: u64,
    n_vars: u64,
    pub(crate) value_type: ValueType,
    shared: Arc<Shared>,
    /// The share of non-zeros in the rows that were looked at when the file was opened, in
    /// thousandths. It stays as it is, so that costs do.
    density: AtomicU32,
}

#[derive(Debug)]
struct Shared {
    element: ElementType,
    fill: Vec<u8>,
    kind: Kind,
}

/// Rows of one band of chunks (or of a run of rows), and the stored chunks that hold them.
#[derive(Debug)]
struct Band {
    rows: Vec<Range<u64>>,
    /// First row of the chunks; 0 where rows are read by themselves.
    base: u64,
    chunks: Vec<(Option<StoredChunk>, Range<usize>)>,
}

impl Band {
    fn n_rows(&self) -> u64 {
        self.rows.iter().map(|r| r.end - r.start).sum()
    }
}

impl DenseMatrix {
    pub(crate) fn open(
        context: &Context,
        path: &str,
        dataset: &Dataset,
        value_type: ValueType,
    ) -> Result<Self> {
        Self::describe(context, path, dataset, value_type).map_err(|e| context.blame(e, path))
    }

    fn describe(
        context: &Context,
        path: &str,
        dataset: &Dataset,
        value_type: ValueType,
    ) -> Result<Self> {
        let [n_obs, n_vars] = dataset.shape[..] else {
            return Err(Error::corrupt(format!(
                "a dense matrix has two dimensions, but the shape is {:?}",
                dataset.shape
            )));
        };
        refuse_unknown(&dataset.filters)?;
        let size = dataset.element.size();
        let row_bytes = n_vars.checked_mul(size).filter(|&b| b <= 1 << 31);
        let total = row_bytes.and_then(|b| b.checked_mul(n_obs));
        let Some(total) = total else {
            return Err(Error::corrupt(format!("a matrix of {n_obs} x {n_vars} overflows")));
        };
        let kind = match &dataset.storage {
            Storage::Contiguous { offset, size: stored } => {
                if let Some(offset) = offset {
                    let end = offset.checked_add(total);
                    if *stored < total || end.is_none_or(|end| end > context.source.len()) {
                        return Err(Error::corrupt(format!(
                            "{n_obs} x {n_vars} values take {total} bytes, but {stored} are stored \
                             in a file of {}",
                            context.source.len()
                        ))
                        .with("offset", offset));
                    }
                }
                // What was never written is the fill value; the library finds out which, if we do not.
                match (offset, &dataset.fill) {
                    (None, None) => Kind::Library,
                    _ => Kind::Contiguous(*offset),
                }
            }
            Storage::Chunked { chunk_shape } => {
                let [r, c] = chunk_shape[..] else {
                    return Err(Error::corrupt(format!("chunks of shape {chunk_shape:?}")));
                };
                let bytes = r.checked_mul(c).and_then(|n| n.checked_mul(size));
                let bytes = bytes.and_then(|n| usize::try_from(n).ok());
                let pipeline = bytes.filter(|&n| n > 0 && n <= 1 << 30).and_then(|n| {
                    Pipeline::try_new(&dataset.filters, usize::try_from(size).unwrap_or(1), n)
                });
                match pipeline {
                    Some(pipeline) => {
                        let table = context.chunk_table(path)?;
                        if knows_fill(dataset, &table) {
                            Kind::Chunked { table, chunk: [r, c], pipeline }
                        } else {
                            Kind::Library
                        }
                    }
                    None => Kind::Library,
                }
            }
            Storage::Compact => Kind::Library,
            Storage::Unsupported(what) => {
                return Err(Error::unsupported(format!("{what} cannot be read")));
            }
        };
        let fill = dataset.fill.clone().unwrap_or_default();
        let shared = Shared { element: dataset.element.clone(), fill, kind };
        Ok(Self {
            path: path.to_owned(),
            n_obs,
            n_vars,
            value_type,
            shared: Arc::new(shared),
            density: AtomicU32::new(0),
        })
    }

    /// Looks at a few rows from the start, the middle and the end, so that costs can be told.
    pub(crate) async fn probe(&self, context: &Context) -> Result<()> {
        let n = PROBED_ROWS.min(self.n_obs);
        let mut rows = Vec::new();
        for start in [0, self.n_obs / 2, self.n_obs - n] {
            let start = rows.last().map_or(start, |r: &Range<u64>| start.max(r.end));
            rows.push(start..(start + n).min(self.n_obs));
        }
        let rows = RowRanges::try_from_ranges(rows.into_iter().filter(|r| !r.is_empty()))?;
        let probed = self.read(context, &rows).await?;
        let cells = (as_u64(probed.n_rows()) * self.n_vars).max(1);
        let share = u32::try_from(as_u64(probed.nnz()) * 1000 / cells).unwrap_or(1000) + 1;
        self.density.store(share, Relaxed);
        Ok(())
    }

    /// About what reading rows costs: how many values are not zero is known only once they are read.
    pub(crate) fn cost(&self, rows: &RowRanges) -> ReadCost {
        let size = self.shared.element.size();
        let row = self.n_vars * size;
        let (mut read, mut decoded, mut widest) = (0u64, 0u64, 0u64);
        for band in self.bands(rows) {
            widest = widest.max(band.n_rows().saturating_mul(row));
            match &self.shared.kind {
                Kind::Chunked { pipeline, .. } => {
                    for (stored, _) in &band.chunks {
                        read += stored.map_or(0, |c| u64::from(c.size));
                        decoded += as_u64(pipeline.chunk_bytes());
                    }
                }
                Kind::Contiguous(_) | Kind::Library => {
                    read += band.n_rows() * row;
                    decoded += band.n_rows() * row;
                }
            }
        }
        let value = as_u64(self.value_type.size());
        let cells = rows.n_rows() * self.n_vars;
        // Half as much again as the rows that were looked at.
        let share = u128::from(self.density.load(Relaxed)) * 3 / 2;
        let nnz =
            u64::try_from(u128::from(cells) * share.clamp(1, 1000) / 1000).unwrap_or(u64::MAX);
        let kept = nnz.saturating_mul(4 + value).saturating_add((rows.n_rows() + 1) * 8);
        // Steps hold raw and dense bytes of as many bands as make STEP_BYTES, or of one.
        let step = decoded.saturating_mul(2).min(3 * STEP_BYTES.max(widest));
        ReadCost {
            bytes_read: read,
            bytes_decoded: decoded,
            bytes_held: kept.saturating_add(step),
            bytes_kept: kept,
            exact: false,
        }
    }

    /// Reads rows.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<CsrRows> {
        let answer = async {
            let mut segments = Vec::new();
            let mut steps = self.steps(self.bands(rows)).into_iter();
            let mut ready = match steps.next() {
                Some(bands) => Some(self.fetch(context, bands).await?),
                None => None,
            };
            while let Some((bands, raw)) = ready {
                let decode = self.decode(context, bands, raw);
                let next = async {
                    match steps.next() {
                        Some(bands) => self.fetch(context, bands).await.map(Some),
                        None => Ok(None),
                    }
                };
                let (decoded, next) = futures::try_join!(decode, next)?;
                segments.extend(decoded);
                ready = next;
            }
            Ok(CsrRows::new(segments))
        };
        answer.await.map_err(|e| context.blame(e, &self.path))
    }

    /// Rows grouped by the chunks that hold them.
    fn bands(&self, rows: &RowRanges) -> Vec<Band> {
        let mut bands: Vec<Band> = Vec::new();
        let (height, columns, table) = match &self.shared.kind {
            Kind::Chunked { table, chunk: [r, c], .. } => {
                (*r, self.n_vars.div_ceil(*c), Some(table))
            }
            // As many rows as make about a megabyte.
            _ => ((1 << 20) / (self.n_vars * self.shared.element.size()).max(1) + 1, 0, None),
        };
        for range in rows.as_slice() {
            let mut at = range.start;
            while at < range.end {
                let base = at / height * height;
                let end = (base + height).min(range.end);
                match bands.last_mut() {
                    Some(band) if band.base == base => band.rows.push(at..end),
                    _ => {
                        let first = base / height * columns;
                        let chunk = |j| table.and_then(|t| t.get(index(first + j)));
                        let chunks = (0..columns).map(|j| (chunk(j), 0..0)).collect();
                        let rows = std::iter::once(at..end).collect();
                        bands.push(Band { rows, base, chunks });
                    }
                }
                at = end;
            }
        }
        bands
    }

    fn steps(&self, bands: Vec<Band>) -> Vec<Vec<Band>> {
        let row = (self.n_vars * self.shared.element.size()).max(1);
        let mut steps = Vec::new();
        let (mut step, mut bytes) = (Vec::new(), 0);
        for band in bands {
            let dense = match &self.shared.kind {
                Kind::Chunked { pipeline, .. } => {
                    as_u64(pipeline.chunk_bytes() * band.chunks.len())
                }
                _ => band.n_rows() * row,
            };
            if !step.is_empty() && bytes + dense > STEP_BYTES {
                steps.push(std::mem::take(&mut step));
                bytes = 0;
            }
            bytes += dense;
            step.push(band);
        }
        if !step.is_empty() {
            steps.push(step);
        }
        steps
    }

    /// Reads the stored bytes of bands, band after band.
    async fn fetch(
        &self,
        context: &Context,
        mut bands: Vec<Band>,
    ) -> Result<(Vec<Band>, bytes::Bytes)> {
        let row = self.n_vars * self.shared.element.size();
        let mut ranges = Vec::new();
        let mut at = 0usize;
        match &self.shared.kind {
            Kind::Chunked { .. } => {
                for (stored, place) in bands.iter_mut().flat_map(|b| &mut b.chunks) {
                    let Some(stored) = stored else { continue };
                    *place = at..at + index(stored.size.into());
                    at = place.end;
                    ranges.push(stored.range());
                }
            }
            Kind::Contiguous(Some(offset)) => {
                for band in &mut bands {
                    let start = at;
                    for r in &band.rows {
                        ranges.push(offset + r.start * row..offset + r.end * row);
                        at += index((r.end - r.start) * row);
                    }
                    band.chunks = vec![(None, start..at)];
                }
            }
            Kind::Contiguous(None) => {}
            Kind::Library => return self.fetch_library(context, bands).await,
        }
        let raw = context.source.get_ranges(ranges).await?;
        Ok((bands, raw))
    }

    async fn fetch_library(
        &self,
        context: &Context,
        mut bands: Vec<Band>,
    ) -> Result<(Vec<Band>, bytes::Bytes)> {
        let (container, engine) = (Arc::clone(&context.container), Arc::clone(&context.engine));
        let path = self.path.clone();
        let work = move || {
            let mut raw = Vec::new();
            for band in &mut bands {
                let start = raw.len();
                for rows in &band.rows {
                    raw.extend(container.read_raw(&path, rows.clone())?);
                }
                band.chunks = vec![(None, start..raw.len())];
            }
            engine.stats().add_read(as_u64(bands.len()), 1, as_u64(raw.len()), as_u64(raw.len()));
            Ok((bands, raw.into()))
        };
        context.engine.blocking(work).await
    }

    async fn decode(
        &self,
        context: &Context,
        bands: Vec<Band>,
        raw: bytes::Bytes,
    ) -> Result<Vec<CsrSegment>> {
        let (shared, n_vars, value_type) = (Arc::clone(&self.shared), self.n_vars, self.value_type);
        let (engine, path) = (Arc::clone(&context.engine), self.path.clone());
        let work = move || {
            let origin = Origin::here();
            let segment = |doing: &mut Doing, band: &Band| {
                let dense = shared.dense(band, &raw, n_vars)?;
                engine.stats().add_decoded(as_u64(dense.len()));
                doing.add_bytes(dense.len());
                match value_type {
                    ValueType::U8 => to_csr::<u8>(&dense, n_vars),
                    ValueType::U16 => to_csr::<u16>(&dense, n_vars),
                    ValueType::U32 => to_csr::<u32>(&dense, n_vars),
                    ValueType::U64 => to_csr::<u64>(&dense, n_vars),
                    ValueType::I8 => to_csr::<i8>(&dense, n_vars),
                    ValueType::I16 => to_csr::<i16>(&dense, n_vars),
                    ValueType::I32 => to_csr::<i32>(&dense, n_vars),
                    ValueType::I64 => to_csr::<i64>(&dense, n_vars),
                    ValueType::F16 => to_csr::<f16>(&dense, n_vars),
                    ValueType::F32 => to_csr::<f32>(&dense, n_vars),
                    ValueType::F64 => to_csr::<f64>(&dense, n_vars),
                    other => Err(Error::unsupported(format!("values of type {other}"))),
                }
                .map(|(indptr, indices, values)| (band.n_rows(), indptr, indices, values))
            };
            let parts = bands.par_iter().map_init(|| origin.decode(&path), segment);
            let parts = parts.collect::<Result<Vec<_>>>()?;
            parts
                .into_iter()
                .map(|(n_rows, indptr, indices, values)| {
                    // A matrix without genes has rows all the same.
                    let indptr = if n_vars == 0 { vec![0; index(n_rows) + 1] } else { indptr };
                    CsrSegment::try_new(indptr.into(), indices.into(), values, n_vars)
                })
                .collect()
        };
        context.engine.compute(work).await
    }
}

impl Shared {
    /// The wanted rows of a band, dense, in little-endian order.
    fn dense(&self, band: &Band, raw: &[u8], n_vars: u64) -> Result<Vec<u8>> {
        let size = index(self.element.size());
        let width = index(n_vars) * size;
        let mut dense = match &self.kind {
            Kind::Chunked { chunk, pipeline, .. } => {
                self.join_chunks(band, raw, *chunk, pipeline, width)?
            }
            Kind::Contiguous(None) => {
                let mut dense = vec![0; index(band.n_rows()) * width];
                self.never_written(&mut dense);
                dense
            }
            Kind::Contiguous(_) | Kind::Library => {
                let place = band.chunks.first().map_or(0..0, |(_, place)| place.clone());
                let bytes = raw.get(place).unwrap_or_default();
                if bytes.len() != index(band.n_rows()) * width {
                    return Err(Error::corrupt("fewer values were read than were asked for"));
                }
                bytes.to_vec()
            }
        };
        if !matches!(self.kind, Kind::Library) {
            self.element.to_little_endian(&mut dense);
        }
        Ok(dense)
    }

    /// Elements that were never written, in the order of those that were.
    fn never_written(&self, out: &mut [u8]) {
        let size = index(self.element.size());
        if self.fill.len() != size {
            return out.fill(0);
        }
        out.chunks_exact_mut(size.max(1)).for_each(|element| element.copy_from_slice(&self.fill));
        // Fill values are little-endian; what follows swaps stored ones.
        self.element.to_little_endian(out);
    }

    fn join_chunks(
        &self,
        band: &Band,
        raw: &[u8],
        [_, across]: [u64; 2],
        pipeline: &Pipeline,
        width: usize,
    ) -> Result<Vec<u8>> {
        let size = index(self.element.size());
        let across = index(across) * size;
        let mut dense = vec![0u8; index(band.n_rows()) * width];
        let mut chunk = vec![0u8; pipeline.chunk_bytes()];
        let mut scratch = Scratch::default();
        for (j, (stored, place)) in band.chunks.iter().enumerate() {
            match stored {
                Some(stored) => {
                    let bytes = raw.get(place.clone()).unwrap_or_default();
                    pipeline
                        .decode(bytes, stored.filter_mask, &mut scratch, &mut chunk)
                        .map_err(|e| e.with("offset", stored.offset))?;
                }
                None => self.never_written(&mut chunk),
            }
            let left = j * across;
            let n = across.min(width - left);
            let wanted = band.rows.iter().cloned().flatten();
            for (row, to) in wanted.zip(dense.chunks_exact_mut(width)) {
                let from = index(row - band.base) * across;
                to[left..left + n].copy_from_slice(&chunk[from..from + n]);
            }
        }
        Ok(dense)
    }
}

type Csr = (Vec<u64>, Vec<u32>, Values);

fn to_csr<T: Value>(dense: &[u8], n_vars: u64) -> Result<Csr> {
    let width = index(n_vars) * size_of::<T>();
    let mut indptr = vec![0u64];
    let (mut indices, mut values) = (Vec::<u32>::new(), Vec::<T>::new());
    if width == 0 {
        return Ok((indptr, indices, T::wrap(values.into())));
    }
    for row in dense.chunks_exact(width) {
        for (gene, bytes) in (0u32..).zip(row.chunks_exact(size_of::<T>())) {
            let value: T = bytemuck::pod_read_unaligned(bytes);
            if value != T::default() {
                indices.push(gene);
                values.push(value);
            }
        }
        indptr.push(as_u64(values.len()));
    }
    Ok((indptr, indices, T::wrap(values.into())))
}

#[cfg(test)]
mod tests;
