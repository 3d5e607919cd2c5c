//! Rows packed into bits: about a seventh of what the values and 32-bit indices of a count matrix take
//! in AnnData, decoded faster than a disk delivers them.
//!
//! Every row is packed by itself, so that any row is read by itself. `bits.rs` packs 128 numbers,
//! `row.rs` a row, `write.rs` a matrix; here rows are read.

mod bits;
mod row;
mod write;

pub(crate) use write::PackedRows;

use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use cellfeed_core::io::{Access, Buffer, ByteSource, Engine, MappedFile};
use cellfeed_core::spans::Origin;
use cellfeed_core::{
    CsrRows, CsrSegment, Error, ErrorKind, Indices, ReadCost, Result, RowOffsets, RowRanges,
    ValueType, Values, typed,
};
use half::f16;
use rayon::prelude::*;
use row::{Gene, Target, decode};
use std::ops::Range;
use std::sync::Arc;

/// Rows that one task decodes at the most.
const TASK_ROWS: u64 = 64;
/// No row is longer in its packed form than this for each of its non-zeros, and so much besides: what
/// a header may make us believe.
const LONGEST_NONZERO: u64 = 24;
const LONGEST_HEAD: u64 = 1 << 12;

/// A packed matrix.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    offsets: RowOffsets,
    /// Where the bytes of each row start.
    starts: RowOffsets,
    file: Arc<dyn ByteSource>,
    /// None where the file cannot be mapped.
    map: Option<MappedFile>,
    value_type: ValueType,
    index_type: ValueType,
    n_vars: u64,
}

/// Rows to decode, and where their packed bytes are.
struct Task {
    rows: Range<u64>,
    raw: Bytes,
    nnz: usize,
}

impl PackedMatrix {
    /// Checks that offsets, rows and file belong together.
    pub(crate) fn try_new(
        offsets: RowOffsets,
        starts: RowOffsets,
        file: Arc<dyn ByteSource>,
        map: Option<MappedFile>,
        value_type: ValueType,
        index_type: ValueType,
        n_vars: u64,
    ) -> Result<Self> {
        if starts.n_rows() != offsets.n_rows() || starts.nnz() != file.len() {
            return Err(Error::corrupt(format!(
                "offsets of {} rows end at {}, but {} rows and {} bytes are there",
                starts.n_rows(),
                starts.nnz(),
                offsets.n_rows(),
                file.len()
            )));
        }
        if index_type == ValueType::U16 && n_vars > 1 << 16 {
            return Err(Error::corrupt(format!("{n_vars} genes do not fit indices of 16 bits")));
        }
        Ok(Self { offsets, starts, file, map, value_type, index_type, n_vars })
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

    /// Reads rows.
    pub(crate) async fn read(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        access: Access,
        rows: &RowRanges,
    ) -> Result<CsrRows> {
        if rows.is_empty() {
            return Ok(CsrRows::default());
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
        engine.compute(move || this.decode(&on, &rows, raw)).await
    }

    /// Cuts the rows into tasks; `raw` has their bytes end to end, else they are in the map.
    fn tasks(&self, rows: &RowRanges, raw: Option<&Bytes>) -> Result<Vec<Task>> {
        self.starts.check()?;
        self.offsets.check()?;
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut tasks = Vec::new();
        let mut taken = 0u64;
        for range in rows.as_slice() {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + TASK_ROWS);
                let bytes = self.starts.elements(start..end)?;
                let nnz = self.offsets.elements(start..end)?;
                let nnz = nnz.end - nnz.start;
                let len = bytes.end - bytes.start;
                if nnz > len.saturating_mul(BLOCK_MOST) {
                    return Err(Error::corrupt(format!("{len} bytes cannot hold {nnz} non-zeros"))
                        .with("row", start));
                }
                if len > nnz.saturating_mul(LONGEST_NONZERO) + LONGEST_HEAD * (end - start) {
                    return Err(Error::corrupt(format!(
                        "{len} bytes are too many for {nnz} non-zeros"
                    ))
                    .with("row", start));
                }
                let raw = match (raw, &self.map) {
                    (Some(raw), _) if taken + len <= as_u64(raw.len()) => {
                        raw.slice(at(taken)..at(taken + len))
                    }
                    (Some(_), _) => return Err(changed(start)),
                    (None, Some(map)) => map.bytes().slice(at(bytes.start)..at(bytes.end)),
                    (None, None) => return Err(Error::internal("neither bytes nor a map")),
                };
                taken += len;
                tasks.push(Task { rows: start..end, raw, nnz: at(nnz) });
                start = end;
            }
        }
        Ok(tasks)
    }

    /// For benchmarks: reads the bytes of rows, and no more; answers how many.
    pub(crate) fn read_raw(&self, rows: &RowRanges) -> Result<u64> {
        let ranges = self.starts.element_ranges(rows)?;
        let read = futures::executor::block_on(self.file.get_ranges(ranges))?;
        Ok(as_u64(read.len()))
    }

    /// For benchmarks: decodes rows out of the map, and no more; answers their bytes.
    pub(crate) fn decode_only(&self, engine: &Engine, rows: &RowRanges) -> Result<u64> {
        let tasks = self.tasks(rows, None)?;
        let (genes, values) = self.decode_tasks(engine, &tasks)?;
        Ok(as_u64(genes.len() + values.len()))
    }

    fn decode_tasks(&self, engine: &Engine, tasks: &[Task]) -> Result<(Buffer, Buffer)> {
        let nnz: usize = tasks.iter().map(|t| t.nnz).sum();
        let pool = engine.buffers();
        let mut genes = pool.take(nnz * self.index_type.size());
        let mut values = pool.take(nnz * self.value_type.size());
        match self.index_type {
            ValueType::U16 => self.decode_genes::<u16>(tasks, &mut genes, &mut values),
            _ => self.decode_genes::<u32>(tasks, &mut genes, &mut values),
        }?;
        Ok((genes, values))
    }

    fn decode(&self, engine: &Engine, rows: &RowRanges, raw: Option<Bytes>) -> Result<CsrRows> {
        let tasks = self.tasks(rows, raw.as_ref())?;
        drop(raw);
        let (genes, values) = self.decode_tasks(engine, &tasks)?;
        engine.stats().add_decoded(as_u64(genes.len() + values.len()));
        let indices = match self.index_type {
            ValueType::U16 => Indices::U16(typed::<u16>(genes.freeze())?),
            _ => Indices::U32(typed::<u32>(genes.freeze())?),
        };
        let values = Values::from_bytes(self.value_type, values.freeze())?;
        let indptr = ScalarBuffer::from(self.offsets.relative(rows)?);
        let segment = CsrSegment::try_new(indptr, indices, values, self.n_vars)
            .map_err(|e| rows.name_row(e))?;
        Ok(CsrRows::new(vec![segment]))
    }

    fn decode_genes<G: Gene>(
        &self,
        tasks: &[Task],
        genes: &mut Buffer,
        values: &mut Buffer,
    ) -> Result<()> {
        match self.value_type {
            ValueType::U8 => self.decode_all::<G, u8>(tasks, genes, values),
            ValueType::U16 => self.decode_all::<G, u16>(tasks, genes, values),
            ValueType::U32 => self.decode_all::<G, u32>(tasks, genes, values),
            ValueType::U64 => self.decode_all::<G, u64>(tasks, genes, values),
            ValueType::I8 => self.decode_all::<G, i8>(tasks, genes, values),
            ValueType::I16 => self.decode_all::<G, i16>(tasks, genes, values),
            ValueType::I32 => self.decode_all::<G, i32>(tasks, genes, values),
            ValueType::I64 => self.decode_all::<G, i64>(tasks, genes, values),
            ValueType::F16 => self.decode_all::<G, f16>(tasks, genes, values),
            ValueType::F32 => self.decode_all::<G, f32>(tasks, genes, values),
            ValueType::F64 => self.decode_all::<G, f64>(tasks, genes, values),
            other => Err(Error::unsupported(format!("values of type {other}"))),
        }
    }

    fn decode_all<G: Gene, T: Target>(
        &self,
        tasks: &[Task],
        genes: &mut Buffer,
        values: &mut Buffer,
    ) -> Result<()> {
        let misaligned = |_| Error::internal("a pooled buffer is not aligned");
        let mut genes: &mut [G] =
            bytemuck::try_cast_slice_mut(genes.as_mut_slice()).map_err(misaligned)?;
        let mut values: &mut [T] =
            bytemuck::try_cast_slice_mut(values.as_mut_slice()).map_err(misaligned)?;
        let mut work = Vec::with_capacity(tasks.len());
        for task in tasks {
            let (g, more_genes) = genes.split_at_mut(task.nnz);
            let (v, more_values) = values.split_at_mut(task.nnz);
            work.push((task, g, v));
            (genes, values) = (more_genes, more_values);
        }
        let origin = Origin::here();
        // What one thread decodes in a row is one span.
        let begin = || origin.decode(self.file.location());
        work.into_par_iter().try_for_each_init(begin, |doing, (task, genes, values)| {
            doing.add_bytes(size_of_val(genes) + size_of_val(values));
            self.decode_task(task, genes, values)
        })
    }

    fn decode_task<G: Gene, T: Target>(
        &self,
        task: &Task,
        mut genes: &mut [G],
        mut values: &mut [T],
    ) -> Result<()> {
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let rows = RowRanges::single(task.rows.clone());
        let (ends, bytes) = (self.offsets.relative(&rows)?, self.starts.relative(&rows)?);
        for ((row, end), span) in task.rows.clone().zip(ends.windows(2)).zip(bytes.windows(2)) {
            let n = at(end[1] - end[0]);
            // Offsets in a map may be others than a moment ago, if the file is written to.
            let split = genes.split_at_mut_checked(n).zip(values.split_at_mut_checked(n));
            let raw = task.raw.get(at(span[0])..at(span[1]));
            let Some((((g, more_genes), (v, more_values)), raw)) = split.zip(raw) else {
                return Err(changed(row));
            };
            decode(raw, self.n_vars, g, v).map_err(|e| e.with("row", row))?;
            (genes, values) = (more_genes, more_values);
        }
        Ok(())
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
