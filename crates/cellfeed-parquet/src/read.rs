//! Rows of a matrix: which bytes hold them, reading these in waves, decoding each wave in parallel
//! while the next is read.

use crate::convert::Convert;
use crate::decode::{Form, Piece, Rows, column};
use crate::files::{ChunkPlan, Files, Want};
use crate::footer::Leaf;
use crate::page::Scratch;
use crate::sort::sorted;
use arrow_buffer::ScalarBuffer;
use bytemuck::Pod;
use bytes::Bytes;
use cellfeed_core::io::Engine;
use cellfeed_core::spans::{Doing, Origin};
use cellfeed_core::{
    CsrRows, CsrSegment, Error, Indices, ReadCost, Result, RowRanges, Value, ValueType, Values,
    typed,
};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are read at a time: as the next wave is read while one is decoded, two are held.
const WAVE: u64 = 24 << 20;
/// Decompressed bytes that one task decodes, about: small enough to stay in a core's cache, large
/// enough to be worth a task.
const PART: u64 = 2 << 20;

/// The files of a store, the threads that read them, and scratch that is kept between reads.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) files: Arc<Files>,
    pub(crate) engine: Arc<Engine>,
    scratch: Mutex<Vec<Scratch>>,
}

impl Context {
    pub(crate) fn new(files: Files, engine: Arc<Engine>) -> Self {
        Self { files: Arc::new(files), engine, scratch: Mutex::default() }
    }

    /// Runs work with scratch that was used before, so that its pages are there.
    pub(crate) fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().pop();
        let mut scratch = kept.unwrap_or_default();
        let answer = work(&mut scratch);
        let mut kept = lock();
        // Some for each thread, since tasks wait for others within; none that an odd page made huge.
        if kept.len() < 4 * self.engine.threads() && scratch.capacity() <= 16 << 20 {
            kept.push(scratch);
        }
        answer
    }
}

/// Gene numbers of a matrix as stored.
#[derive(Debug, Clone)]
pub(crate) enum Genes {
    /// Columns of the matrix.
    Columns,
    /// Tokens, of which the table says the column; the marker comes first in each cell.
    Tokens(Arc<Vec<u32>>),
}

/// The token that stands at the head of every cell of Tahoe-100M, and its value.
pub(crate) const MARKER: usize = 1;
const MARKER_VALUE: f64 = -2.0;
/// What tokens become that are no genes: numbers of no column.
pub(crate) const NO_GENE: u32 = u32::MAX;
const MARKED: u32 = u32::MAX - 1;

/// A matrix that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    /// Leaves.
    pub(crate) indices: usize,
    pub(crate) data: usize,
    pub(crate) n_vars: u64,
    pub(crate) value_type: ValueType,
    /// The type of indices in blobs, and in answers. Its highest number must be of no gene, where they
    /// come from lists.
    pub(crate) index_type: ValueType,
    pub(crate) blob: bool,
    pub(crate) genes: Genes,
}

/// Rows of a group with the bytes that hold them.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) want: Want,
    /// Of indices and of data.
    pub(crate) chunks: [ChunkPlan; 2],
    /// Bytes that its pages become.
    plain: u64,
}

impl Planned {
    fn n_bytes(&self) -> u64 {
        self.chunks.iter().map(ChunkPlan::n_bytes).sum()
    }
}

/// What comes of bytes when the whole chunk's are so many more.
fn scaled(bytes: u64, plain: u64, len: u64) -> u64 {
    let exact = u128::from(bytes) * u128::from(plain.max(len)) / u128::from(len.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

impl Matrix {
    fn leaves(&self) -> [usize; 2] {
        [self.indices, self.data]
    }

    pub(crate) fn plan(&self, files: &Files, rows: &RowRanges) -> Vec<Planned> {
        let one = |want: Want| {
            let chunks = self.leaves().map(|leaf| files.chunk(want.group, leaf).plan(&want.rows));
            let plain = self.leaves().into_iter().zip(&chunks).map(|(leaf, plan)| {
                let chunk = files.chunk(want.group, leaf);
                scaled(plan.n_bytes(), chunk.plain, chunk.len)
            });
            let plain = plain.fold(0, u64::saturating_add);
            Planned { want, chunks, plain }
        };
        let wants = files.split(rows).into_iter().flat_map(|want| self.cut(files, want));
        wants.map(one).collect()
    }

    /// Cuts rows of a group between pages, so that each part makes one task.
    fn cut(&self, files: &Files, want: Want) -> Vec<Want> {
        let chunks = self.leaves().map(|leaf| files.chunk(want.group, leaf));
        let tables = chunks.map(|chunk| chunk.pages.get().filter(|t| t.start() == chunk.start));
        // A dictionary would be read for each part, and so would a whole chunk.
        let [Some(_), Some(table)] = tables else { return vec![want] };
        let n_rows = u64::from(files.groups[want.group].n_rows).max(1);
        let plain = chunks.iter().map(|c| c.plain).fold(0, u64::saturating_add);
        let most = u32::try_from(PART.saturating_mul(n_rows) / plain.max(1)).unwrap_or(u32::MAX);
        let mut parts: Vec<Want> = Vec::new();
        let (mut n, mut last) = (0, usize::MAX);
        for range in &want.rows {
            let mut rest = range.clone();
            while !rest.is_empty() {
                let page = table.page_of(rest.start);
                let end = table.rows(page).end.clamp(rest.start + 1, rest.end);
                let rows = rest.start..end;
                let len = end - rest.start;
                match parts.last_mut() {
                    // Rows of one page stay together.
                    Some(part) if page == last || n + len <= most => {
                        n += len;
                        match part.rows.last_mut() {
                            Some(before) if before.end == rows.start => before.end = rows.end,
                            _ => part.rows.push(rows),
                        }
                    }
                    _ => {
                        n = len;
                        parts.push(Want { group: want.group, rows: vec![rows] });
                    }
                }
                last = page;
                rest.start = end;
            }
        }
        parts
    }

    /// What reading costs. How many values each row has is not known before it is read; a row counts
    /// as the mean of its row group's and a quarter.
    pub(crate) fn cost(&self, context: &Context, rows: &RowRanges) -> ReadCost {
        let files = &context.files;
        let planned = self.plan(files, rows);
        let width = u64::try_from(self.value_type.size() + self.index_type.size()).unwrap_or(16);
        let (mut read, mut decoded, mut kept) = (0u64, 0u64, 0u64);
        let mut largest = 0;
        for part in &planned {
            read = read.saturating_add(part.n_bytes());
            decoded = decoded.saturating_add(part.plain);
            largest = largest.max(part.plain);
            let n_rows = u64::from(files.groups[part.want.group].n_rows).max(1);
            let n: u64 = part.want.rows.iter().map(|r| u64::from(r.end - r.start)).sum();
            let whole = if self.blob {
                let plain = |leaf| files.chunk(part.want.group, leaf).plain;
                plain(self.indices).saturating_add(plain(self.data))
            } else {
                files.chunk(part.want.group, self.data).n_values.saturating_mul(width)
            };
            let share = u128::from(whole) * u128::from(n) / u128::from(n_rows);
            let share = u64::try_from(share + share / 4).unwrap_or(u64::MAX).min(whole);
            kept = kept.saturating_add(share);
        }
        let parts = u64::try_from(planned.len()).unwrap_or(0);
        let kept = kept.saturating_add((rows.n_rows() + parts + 1) * 8);
        let threads = u64::try_from(context.engine.threads()).unwrap_or(1);
        let scratch = decoded.min(threads.saturating_mul(largest.max(PART)));
        let held = kept.saturating_add(read.min(2 * WAVE.max(largest))).saturating_add(scratch);
        ReadCost {
            bytes_read: read,
            bytes_decoded: decoded,
            bytes_held: held,
            bytes_kept: kept,
            exact: false,
        }
    }

    /// Reads rows.
    pub(crate) async fn read(
        self: &Arc<Self>,
        context: &Arc<Context>,
        rows: &RowRanges,
    ) -> Result<CsrRows> {
        let mut waves = grouped(self.plan(&context.files, rows), WAVE, Planned::n_bytes);
        waves.reverse();
        let fetch = |wave: Option<Vec<Planned>>| async move {
            let Some(wave) = wave else { return Ok(None) };
            let wanted = wave.iter().flat_map(|p| {
                p.chunks.iter().flat_map(|plan| plan.ranges().map(|r| (p.want.group, r)))
            });
            let wanted = wanted.collect();
            let bytes = context.files.fetch(&context.engine, wanted).await?;
            Ok::<_, Error>(Some((wave, bytes)))
        };
        let mut segments = Vec::new();
        let mut ready = fetch(waves.pop()).await?;
        while let Some((wave, bytes)) = ready {
            let (this, shared) = (Arc::clone(self), Arc::clone(context));
            let decode = context.engine.compute(move || this.decode(&shared, wave, &bytes));
            let (decoded, next) = futures::try_join!(decode, fetch(waves.pop()))?;
            segments.extend(decoded);
            ready = next;
        }
        Ok(CsrRows::new(segments))
    }

    /// A wave's segments, decoded in parallel.
    fn decode(
        &self,
        context: &Context,
        wave: Vec<Planned>,
        bytes: &[Bytes],
    ) -> Result<Vec<CsrSegment>> {
        let mut at = 0;
        let mut take = |plan: &ChunkPlan| {
            let start = at;
            at += plan.ranges().count();
            &bytes[start..at]
        };
        let work: Vec<(Planned, [&[Bytes]; 2])> = wave
            .into_iter()
            .map(|p| {
                let bytes = [take(&p.chunks[0]), take(&p.chunks[1])];
                (p, bytes)
            })
            .collect();
        let parts = grouped(work, PART, |(p, _)| p.plain);
        let n_bytes = |s: &CsrSegment| s.nnz() * (self.value_type.size() + self.index_type.size());
        let one = |doing: &mut Doing, part: &Vec<(Planned, [&[Bytes]; 2])>| {
            let segment = context.with_scratch(|scratch| self.segment(context, part, scratch))?;
            doing.add_bytes(n_bytes(&segment));
            Ok(segment)
        };
        let origin = Origin::here();
        let segments = parts.par_iter().map_init(|| origin.decode("row groups"), one);
        let segments = segments.collect::<Result<Vec<_>>>()?;
        let decoded: usize = segments.iter().map(n_bytes).sum();
        context.engine.stats().add_decoded(u64::try_from(decoded).unwrap_or(0));
        Ok(segments)
    }

    fn segment(
        &self,
        context: &Context,
        part: &[(Planned, [&[Bytes]; 2])],
        scratch: &mut Scratch,
    ) -> Result<CsrSegment> {
        let files = &context.files;
        let pieces = |k: usize| -> Vec<Piece<'_>> {
            part.iter().map(|(p, bytes)| make_piece(p, bytes, k)).collect()
        };
        let pool = context.engine.buffers();
        let genes = match self.index_type {
            ValueType::U16 => self.genes::<u16>(files, &pieces(0), scratch, pool)?,
            _ => self.genes::<u32>(files, &pieces(0), scratch, pool)?,
        };
        let values = self.values(files, &pieces(1), scratch, pool)?;
        let ranges = part.iter().flat_map(|(p, _)| files.global(&p.want));
        let rows = RowRanges::try_from_ranges(ranges)?;
        let place = |e: Error| {
            let group = part.first().map_or(0, |(p, _)| p.want.group);
            files.blame(rows.name_row(e), group)
        };
        let differs = genes.lengths.iter().zip(&values.lengths).position(|(a, b)| a != b);
        if let Some(row) = differs {
            return Err(place(
                Error::corrupt(format!(
                    "{} gene indices for {} values",
                    genes.lengths[row], values.lengths[row]
                ))
                .with("row", row),
            ));
        }
        let mut indptr = Vec::with_capacity(genes.lengths.len() + 1);
        let mut end = 0u64;
        indptr.push(end);
        indptr.extend(genes.lengths.iter().map(|&n| {
            end += u64::from(n);
            end
        }));
        let indptr = ScalarBuffer::from(indptr);
        let build = || {
            let (mut indices, mut data) = (genes.bytes.clone(), values.bytes.clone());
            if matches!(self.genes, Genes::Tokens(_)) {
                let width = self.value_type.size();
                (indices, data) =
                    sorted(&indptr, indices, data, self.index_type, width, self.n_vars, pool)?;
            }
            let indices = match self.index_type {
                ValueType::U16 => Indices::U16(typed::<u16>(indices)?),
                _ => Indices::U32(typed::<u32>(indices)?),
            };
            let data = Values::from_bytes(self.value_type, data)?;
            CsrSegment::try_new_sorting(indptr.clone(), &indices, &data, self.n_vars)
        };
        // What lists have for no gene was made here, and is not to be spoken of.
        let made = !self.blob && matches!(self.genes, Genes::Columns);
        let has_no_gene = |row: &String| {
            let ends = |row: usize| Some(*indptr.get(row)?..*indptr.get(row + 1)?);
            let Some(range) = row.parse().ok().and_then(ends) else { return false };
            let width = self.index_type.size();
            let at = |end: u64| usize::try_from(end).unwrap_or(usize::MAX).saturating_mul(width);
            let genes = genes.bytes.get(at(range.start)..at(range.end)).unwrap_or_default();
            genes.chunks_exact(width).any(|gene| gene.iter().all(|byte| *byte == u8::MAX))
        };
        build().map_err(|e| {
            let what = format!("a gene index is not below n_vars, {}", self.n_vars);
            let row = e.context().find(|(key, _)| *key == "row").map(|(_, row)| row.to_owned());
            place(match row.filter(|row| made && has_no_gene(row)) {
                Some(row) => Error::corrupt(what).with("row", row),
                None => e,
            })
        })
    }

    fn genes<T: Pod + TryFrom<u32> + PartialEq + Send + Sync>(
        &self,
        files: &Files,
        pieces: &[Piece<'_>],
        scratch: &mut Scratch,
        pool: &cellfeed_core::io::BufferPool,
    ) -> Result<Rows> {
        let leaf = &files.leaves[self.indices];
        let form: Form<'_, T> = match &self.genes {
            _ if self.blob => Form::Blob,
            Genes::Columns => {
                // A dictionary may have what no wanted row has: it is refused where it is wanted.
                let n_vars = self.n_vars;
                let narrow = size_of::<T>() == 2;
                let number = move |gene: u64| {
                    let gene = u32::try_from(gene).ok().filter(|&g| u64::from(g) < n_vars);
                    let gene = gene.unwrap_or(NO_GENE);
                    let gene = if narrow { gene & 0xffff } else { gene };
                    T::try_from(gene).map_err(|_| Error::internal("a gene's number"))
                };
                Form::List(Convert::genes(leaf, number)?)
            }
            Genes::Tokens(table) => {
                // What is no gene gets a number of its own, and is refused where it is wanted.
                let narrow = size_of::<T>() == 2;
                let number = move |token: u64| {
                    let place = usize::try_from(token).unwrap_or(usize::MAX);
                    let column = match table.get(place) {
                        Some(&column) => column,
                        None => NO_GENE,
                    };
                    let column = if place == MARKER { MARKED } else { column };
                    let column = if narrow { column & 0xffff } else { column };
                    T::try_from(column).map_err(|_| Error::internal("a gene's number"))
                };
                let is_marker = |gene: &T| {
                    let marked = if size_of::<T>() == 2 { MARKED & 0xffff } else { MARKED };
                    T::try_from(marked).is_ok_and(|marked: T| *gene == marked)
                };
                Form::Marked(Convert::genes(leaf, number)?, is_marker)
            }
        };
        column(files, self.indices, &form, pieces, scratch, pool)
    }

    fn values(
        &self,
        files: &Files,
        pieces: &[Piece<'_>],
        scratch: &mut Scratch,
        pool: &cellfeed_core::io::BufferPool,
    ) -> Result<Rows> {
        let leaf = &files.leaves[self.data];
        macro_rules! by_type {
            ($($variant:ident $ty:ty;)*) => {
                match self.value_type {
                    $(ValueType::$variant => {
                        let form = self.form::<$ty>(leaf)?;
                        column(files, self.data, &form, pieces, scratch, pool)
                    })*
                    other => Err(Error::unsupported(format!("values of type {other}"))),
                }
            };
        }
        by_type! {
            U8 u8; U16 u16; U32 u32; U64 u64; I8 i8; I16 i16; I32 i32; I64 i64;
            F16 half::f16; F32 f32; F64 f64;
        }
    }

    fn form<T: Value>(&self, leaf: &Leaf) -> Result<Form<'static, T>> {
        Ok(match self.genes {
            _ if self.blob => Form::Blob,
            Genes::Columns => Form::List(Convert::values(leaf)?),
            Genes::Tokens(_) => {
                Form::Marked(Convert::values(leaf)?, |v: &T| v.to_f64() == MARKER_VALUE)
            }
        })
    }
}

fn make_piece<'a>(planned: &'a Planned, bytes: &[&'a [Bytes]; 2], k: usize) -> Piece<'a> {
    Piece { want: &planned.want, plan: &planned.chunks[k], bytes: bytes[k] }
}

/// Consecutive items whose sizes are together about so large, one at least.
fn grouped<T>(items: Vec<T>, size: u64, of: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut sum = 0u64;
    for item in items {
        let n = of(&item);
        match groups.last_mut() {
            Some(group) if sum.saturating_add(n) <= size => {
                group.push(item);
                sum += n;
            }
            _ => {
                groups.push(vec![item]);
                sum = n;
            }
        }
    }
    groups
}
