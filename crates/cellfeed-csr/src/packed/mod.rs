//! Rows packed into bits: about a seventh of what the values and 32-bit indices of a count matrix take
//! in AnnData, decoded faster than a disk delivers them.
//!
//! Every row is packed by itself, so that any row is read by itself, and decoded where it is copied.
//! `bits.rs` packs 128 numbers, `row.rs` a row, `write.rs` a matrix; here rows are read.

mod bits;
mod row;
mod write;

pub(crate) use write::PackedRows;

use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use cellfeed_core::io::{Access, Buffer, ByteSource, Engine, MappedFile};
use cellfeed_core::spans::Origin;
use cellfeed_core::{
    CsrSegment, EncodedRows, Error, ErrorKind, Indices, ReadCost, Result, RowBuffer, RowOffsets,
    RowRanges, StoredRows, StoredSegment, ValueType, Values, typed,
};
use half::f16;
use rayon::prelude::*;
use row::{Gene, Target, decode};
use std::ops::Range;
use std::sync::Arc;

/// Rows that one task decodes at the most.
const TASK_ROWS: usize = 64;
/// No row is longer in its packed form than this for each of its non-zeros, and so much besides: what
/// a header may make us believe.
const LONGEST_NONZERO: u64 = 24;
const LONGEST_HEAD: u64 = 1 << 12;

/// A packed matrix.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    pub(crate) offsets: RowOffsets,
    /// Where the bytes of each row start.
    pub(crate) starts: RowOffsets,
    pub(crate) file: Arc<dyn ByteSource>,
    /// None where the file cannot be mapped.
    pub(crate) map: Option<MappedFile>,
    pub(crate) value_type: ValueType,
    pub(crate) index_type: ValueType,
    pub(crate) n_vars: u64,
    /// What an error calls the matrix.
    pub(crate) element: String,
}

/// Rows that were read, still packed.
#[derive(Debug)]
struct Packed {
    matrix: Arc<PackedMatrix>,
    engine: Arc<Engine>,
    rows: RowRanges,
    indptr: Vec<u64>,
    /// Where each row lies in `raw`.
    spans: Vec<Range<usize>>,
    /// The whole map, or the bytes of these rows alone.
    raw: Bytes,
    mapped: bool,
}

/// Runs a function that is generic over the type of values.
macro_rules! with_type {
    ($value_type:expr, $ty:ident => $body:expr) => {
        with_type!($value_type, $ty => $body; U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16,
            I32 i32, I64 i64, F16 f16, F32 f32, F64 f64)
    };
    ($value_type:expr, $ty:ident => $body:expr; $($variant:ident $rust:ty),*) => {
        match $value_type {
            $(ValueType::$variant => {
                type $ty = $rust;
                $body
            })*
            other => Err(Error::unsupported(format!("values of type {other}"))),
        }
    };
}

impl PackedMatrix {
    /// Checks that offsets, rows and file belong together.
    pub(crate) fn checked(self) -> Result<Self> {
        let Self { offsets, starts, file, index_type, n_vars, .. } = &self;
        if starts.n_rows() != offsets.n_rows() || starts.nnz() != file.len() {
            return Err(Error::corrupt(format!(
                "offsets of {} rows end at {}, but {} rows and {} bytes are there",
                starts.n_rows(),
                starts.nnz(),
                offsets.n_rows(),
                file.len()
            )));
        }
        if *index_type == ValueType::U16 && *n_vars > 1 << 16 {
            return Err(Error::corrupt(format!("{n_vars} genes do not fit indices of 16 bits")));
        }
        Ok(self)
    }

    fn width(&self) -> u64 {
        u64::try_from(self.value_type.size() + self.index_type.size()).unwrap_or(12)
    }

    /// What reading costs.
    pub(crate) fn cost(&self, rows: &RowRanges) -> Result<ReadCost> {
        let sum = |o: &RowOffsets| -> Result<u64> {
            Ok(o.element_ranges(rows)?.iter().map(|r| r.end - r.start).sum())
        };
        let (nnz, raw) = (sum(&self.offsets)?, sum(&self.starts)?);
        let kept = nnz * self.width() + (rows.n_rows() + 1) * 8;
        Ok(ReadCost {
            bytes_read: raw,
            bytes_decoded: nnz * self.width(),
            bytes_held: kept + raw,
            bytes_kept: kept,
            exact: true,
        })
    }

    /// Checks every offset.
    pub(crate) fn check_offsets(&self) -> Result<()> {
        self.offsets.check_all()?;
        self.starts.check_all()
    }

    /// Tells the disk which bytes come next.
    pub(crate) async fn will_read(&self, engine: &Engine, rows: &RowRanges) {
        // What is wrong with the offsets the read will tell.
        let (starts, _) =
            futures::join!(self.starts.find(engine, rows), self.offsets.find(engine, rows),);
        if let Ok(ranges) = starts {
            self.file.will_need(ranges).await;
        }
    }

    /// Reads rows, and leaves them packed.
    pub(crate) async fn read(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        access: Access,
        rows: &RowRanges,
    ) -> Result<StoredRows> {
        if rows.is_empty() {
            return Ok(StoredRows::default());
        }
        let ranges = self.starts.find(engine, rows).await?;
        let (this, wanted) = (Arc::clone(self), ranges.clone());
        let resident = move || this.file.resident(&wanted);
        let by_map = self.map.is_some() && access.by_map(engine, resident).await?;
        let raw = match &self.map {
            Some(map) if by_map => {
                map.check()?;
                engine.stats().add_mapped(&ranges);
                None
            }
            _ => Some(self.file.get_ranges(ranges).await?),
        };
        let (this, rows, on) = (Arc::clone(self), rows.clone(), Arc::clone(engine));
        let find = move || {
            // As of files behind a map: where rows begin and end.
            let _doing = Origin::here().decode(this.file.location());
            this.packed(on, rows, raw)
        };
        let packed = engine.compute(find).await?;
        let map = self.map.clone().filter(|_| by_map);
        Ok(StoredRows::new(vec![StoredSegment::encoded(Arc::new(packed))]).within(map))
    }

    /// Finds each row; `raw` has their bytes end to end, else they are in the map.
    fn packed(
        self: &Arc<Self>,
        engine: Arc<Engine>,
        rows: RowRanges,
        raw: Option<Bytes>,
    ) -> Result<Packed> {
        self.starts.check()?;
        self.offsets.check()?;
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (indptr, ends) = (self.offsets.relative(&rows)?, self.starts.relative(&rows)?);
        let mapped = raw.is_none();
        let raw = match (raw, &self.map) {
            (Some(raw), _) => raw,
            (None, Some(map)) => map.bytes().clone(),
            (None, None) => return Err(Error::internal("neither bytes nor a map")),
        };
        let mut spans = Vec::with_capacity(indptr.len());
        for range in rows.as_slice() {
            let first = ends[spans.len()];
            let base = if mapped { self.starts.elements(range.clone())?.start } else { first };
            for row in range.clone() {
                let i = spans.len();
                let (nnz, len) = (indptr[i + 1] - indptr[i], ends[i + 1] - ends[i]);
                if nnz > len.saturating_mul(BLOCK_MOST) {
                    return Err(Error::corrupt(format!("{len} bytes cannot hold {nnz} non-zeros"))
                        .with("row", row));
                }
                if len > nnz.saturating_mul(LONGEST_NONZERO) + LONGEST_HEAD {
                    return Err(Error::corrupt(format!(
                        "{len} bytes are too many for {nnz} non-zeros"
                    ))
                    .with("row", row));
                }
                let start = base.saturating_add(ends[i] - first);
                let end = start.saturating_add(len);
                // Offsets in a map may be others than a moment ago, if the file is written to.
                if end > as_u64(raw.len()) {
                    return Err(changed(row));
                }
                spans.push(at(start)..at(end));
            }
        }
        Ok(Packed { matrix: Arc::clone(self), engine, rows, indptr, spans, raw, mapped })
    }

    /// For benchmarks: reads the bytes of rows, and no more; answers how many.
    pub(crate) fn read_raw(&self, rows: &RowRanges) -> Result<u64> {
        let ranges = self.starts.element_ranges(rows)?;
        let read = futures::executor::block_on(self.file.get_ranges(ranges))?;
        Ok(as_u64(read.len()))
    }

    /// For benchmarks: decodes rows out of the map, and no more; answers their bytes.
    pub(crate) fn decode_only(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        rows: &RowRanges,
    ) -> Result<u64> {
        let packed = self.packed(Arc::clone(engine), rows.clone(), None)?;
        let (genes, values) = packed.decode_together()?;
        Ok(as_u64(genes.len() + values.len()))
    }

    fn blame(&self, error: Error) -> Error {
        error.with_default("file", self.file.location()).with_default("element", &self.element)
    }
}

impl Packed {
    fn n_nonzeros(&self, rows: &Range<usize>) -> usize {
        usize::try_from(self.indptr[rows.end] - self.indptr[rows.start]).unwrap_or(usize::MAX)
    }

    fn decode_one<G: Gene, T: Target>(
        &self,
        row: usize,
        genes: &mut [G],
        values: &mut [T],
    ) -> Result<()> {
        decode(self.encoded(row), self.matrix.n_vars, genes, values)
            .map_err(|e| self.matrix.blame(self.rows.name_row(e.with("row", row))))
    }

    fn decode_alone<G: Gene, T: Target>(&self, row: usize, into: &mut RowBuffer) -> Result<()> {
        let nnz = self.n_nonzeros(&(row..row + 1));
        let (genes, values) = into.places::<G, T>(nnz);
        self.decode_one(row, genes, values)?;
        self.add_decoded(nnz);
        Ok(())
    }

    /// Genes and values of all rows, each in one buffer.
    fn decode_together(&self) -> Result<(Buffer, Buffer)> {
        let PackedMatrix { value_type, index_type, .. } = *self.matrix;
        let nnz = self.n_nonzeros(&(0..self.spans.len()));
        let pool = self.engine.buffers();
        let mut genes = pool.take(nnz * index_type.size());
        let mut values = pool.take(nnz * value_type.size());
        with_type!(value_type, T => match index_type {
            ValueType::U16 => self.decode_into::<u16, T>(&mut genes, &mut values),
            _ => self.decode_into::<u32, T>(&mut genes, &mut values),
        })?;
        Ok((genes, values))
    }

    fn decode_into<G: Gene, T: Target>(
        &self,
        genes: &mut Buffer,
        values: &mut Buffer,
    ) -> Result<()> {
        let misaligned = |_| Error::internal("a pooled buffer is not aligned");
        let mut genes: &mut [G] =
            bytemuck::try_cast_slice_mut(genes.as_mut_slice()).map_err(misaligned)?;
        let mut values: &mut [T] =
            bytemuck::try_cast_slice_mut(values.as_mut_slice()).map_err(misaligned)?;
        let n = self.spans.len();
        let mut tasks = Vec::with_capacity(n.div_ceil(TASK_ROWS));
        for first in (0..n).step_by(TASK_ROWS) {
            let rows = first..n.min(first + TASK_ROWS);
            let nnz = self.n_nonzeros(&rows);
            let (g, more_genes) = genes.split_at_mut(nnz);
            let (v, more_values) = values.split_at_mut(nnz);
            tasks.push((rows, g, v));
            (genes, values) = (more_genes, more_values);
        }
        let origin = Origin::here();
        // What one thread decodes in a row is one span.
        let begin = || origin.decode(self.matrix.file.location());
        let maps = self.matrix.map.as_ref().filter(|_| self.mapped);
        tasks.into_par_iter().try_for_each_init(begin, |doing, (rows, mut genes, mut values)| {
            doing.add_bytes(size_of_val(genes) + size_of_val(values));
            MappedFile::reading(maps.map_or(&[], std::slice::from_ref), || {
                for row in rows {
                    let nnz = self.n_nonzeros(&(row..row + 1));
                    let (g, more_genes) = genes.split_at_mut(nnz);
                    let (v, more_values) = values.split_at_mut(nnz);
                    self.decode_one(row, g, v)?;
                    (genes, values) = (more_genes, more_values);
                }
                Ok(())
            })
        })
    }

    fn add_decoded(&self, nnz: usize) {
        self.engine.stats().add_decoded(as_u64(nnz) * self.matrix.width());
    }
}

impl EncodedRows for Packed {
    fn indptr(&self) -> &[u64] {
        &self.indptr
    }

    fn encoded(&self, row: usize) -> &[u8] {
        &self.raw[self.spans[row].clone()]
    }

    fn decode(&self, row: usize, into: &mut RowBuffer) -> Result<()> {
        with_type!(self.matrix.value_type, T => match self.matrix.index_type {
            ValueType::U16 => self.decode_alone::<u16, T>(row, into),
            _ => self.decode_alone::<u32, T>(row, into),
        })
    }

    fn decode_all(&self) -> Result<CsrSegment> {
        let (genes, values) = self.decode_together()?;
        let matrix = &self.matrix;
        let indices = match matrix.index_type {
            ValueType::U16 => Indices::U16(typed::<u16>(genes.freeze())?),
            _ => Indices::U32(typed::<u32>(genes.freeze())?),
        };
        let values = Values::from_bytes(matrix.value_type, values.freeze())?;
        self.add_decoded(values.len());
        let indptr = ScalarBuffer::from(self.indptr.clone());
        CsrSegment::try_new(indptr, indices, values, matrix.n_vars)
            .map_err(|e| matrix.blame(self.rows.name_row(e)))
    }

    fn n_bytes(&self) -> usize {
        let raw = if self.mapped { 0 } else { self.raw.len() };
        raw + self.indptr.len() * size_of::<u64>() + self.spans.len() * size_of::<Range<usize>>()
    }
}

/// The longest that a row of so many genes can be, in bytes.
pub(crate) fn longest_row(n_vars: u64) -> u64 {
    n_vars.saturating_mul(LONGEST_NONZERO).saturating_add(LONGEST_HEAD)
}

/// Offsets that were looked up twice, and were not the same.
fn changed(row: u64) -> Error {
    let what = "the row's offsets changed while it was read; open the store again once nobody writes \
                to it";
    Error::new(ErrorKind::Changed, what).with("row", row)
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The most non-zeros that a byte can stand for: a full block of no bits takes two bytes for its gaps,
/// and as many for its values.
const BLOCK_MOST: u64 = 64;
