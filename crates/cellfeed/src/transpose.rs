//! Matrices stored by columns, turned into rows.
//!
//! A first pass over the genes counts the non-zeros of each cell. If the rows fit the memory, a second
//! one makes them: genes come in order, so each row fills from the left, sorted. If not, it sets the
//! non-zeros aside on the disk (see `convert::spill`), and rows are made of those.

use crate::Store;
use bytes::Bytes;
use cellfeed_core::{
    Archive, CsrRows, CsrSegment, Encoding, Error, Indices, MatrixKey, MatrixSchema, Result,
    RowRanges, ValueType, Values, typed,
};
use futures::executor::block_on;

/// Whether a matrix is stored by columns, so that rows of it must be made.
pub(crate) fn by_columns(store: &Store, matrix: &MatrixSchema) -> bool {
    let refused = matrix.unreadable.is_some();
    refused && matrix.encoding == Encoding::Csc && store.backend().archive().is_some()
}

/// A matrix by columns.
#[derive(Debug)]
pub(crate) struct Transposed {
    key: MatrixKey,
    n_vars: u64,
    value_type: ValueType,
    /// Non-zeros of each cell.
    counts: Vec<u32>,
    /// Bytes of columns that are read at once.
    memory: u64,
}

fn archive(store: &Store) -> Result<&dyn Archive> {
    store.backend().archive().ok_or_else(|| Error::internal("the store has no columns to read"))
}

impl Transposed {
    /// Counts the non-zeros of each cell.
    pub(crate) fn open(store: &Store, key: &MatrixKey, memory: u64) -> Result<Self> {
        let schema = store.schema();
        let found = schema.find(key);
        let found = found.ok_or_else(|| Error::internal("the matrix is not there"))?;
        let n_obs = usize::try_from(schema.n_obs)
            .map_err(|_| Error::unsupported("more cells than memory has places for"))?;
        let mut this = Self {
            key: key.clone(),
            n_vars: found.n_vars(),
            value_type: found.value_type,
            counts: vec![0; n_obs],
            memory,
        };
        let mut counts = std::mem::take(&mut this.counts);
        block_on(this.each_part(store, &mut |_, part| {
            cells(part, &mut |cell, _| {
                if let Some(count) = counts.get_mut(cell) {
                    *count += 1;
                }
            });
            Ok(())
        }))?;
        this.counts = counts;
        Ok(this)
    }

    /// Non-zeros of rows.
    pub(crate) fn non_zeros(&self, rows: &RowRanges) -> u64 {
        rows.iter_rows().map(|row| u64::from(self.count(row))).sum()
    }

    fn count(&self, row: u64) -> u32 {
        usize::try_from(row).ok().and_then(|r| self.counts.get(r)).copied().unwrap_or(0)
    }

    /// Bytes that rows take, with the places where they grow.
    pub(crate) fn bytes(&self, rows: &RowRanges) -> u64 {
        let value = u64::try_from(self.value_type.size()).unwrap_or(8);
        self.non_zeros(rows).saturating_mul(4 + value).saturating_add(rows.n_rows() * 24)
    }

    /// Calls `f` with the first gene of a part and the part's columns, in order.
    pub(crate) async fn each_part(
        &self,
        store: &Store,
        f: &mut dyn FnMut(u64, &CsrRows) -> Result<()>,
    ) -> Result<()> {
        let archive = archive(store)?;
        let mut start = 0;
        let mut n = self.n_vars.min(1024);
        while start < self.n_vars {
            let mut end = self.n_vars.min(start + n.max(1));
            let mut genes = RowRanges::single(start..end);
            while archive.column_cost(&self.key, &genes)?.bytes_held > self.memory
                && end - start > 1
            {
                end = start + (end - start) / 2;
                genes = RowRanges::single(start..end);
            }
            n = (end - start).saturating_mul(2);
            let part = archive.read_columns(&self.key, &genes).await?;
            f(start, &part)?;
            start = end;
        }
        Ok(())
    }

    /// Makes rows, by a pass over the whole matrix.
    pub(crate) async fn read(&self, store: &Store, rows: &RowRanges) -> Result<CsrRows> {
        let mut places = vec![u32::MAX; self.counts.len()];
        for (place, row) in rows.iter_rows().enumerate() {
            if let Some(slot) = places.get_mut(at(row)) {
                *slot = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
        let size = self.value_type.size();
        let mut made = Growing::new(self, rows);
        self.each_part(store, &mut |first, part| {
            for (gene, segment, span) in columns(first, part) {
                let bytes = segment.values().as_bytes();
                let gene = u32::try_from(gene).unwrap_or(u32::MAX);
                for i in span {
                    let place = places.get(index_at(segment.indices(), i)).copied();
                    if let Some(place) = place.filter(|p| *p != u32::MAX) {
                        made.put(place, gene, &bytes[i * size..(i + 1) * size])?;
                    }
                }
            }
            Ok(())
        })
        .await?;
        made.finish()
    }

    /// Makes rows of their non-zeros: how many, and their places among the rows, genes and values, by
    /// gene.
    pub(crate) fn rows_of<'a>(
        &self,
        rows: &RowRanges,
        pieces: impl Iterator<Item = (u64, &'a [Bytes; 3])>,
    ) -> Result<CsrRows> {
        let size = self.value_type.size();
        let mut made = Growing::new(self, rows);
        for (nnz, [places, genes, values]) in pieces {
            let (places, genes) = (typed::<u32>(places.clone())?, typed::<u32>(genes.clone())?);
            let all = places.iter().zip(genes.iter()).zip(values.chunks_exact(size));
            for ((&place, &gene), value) in all.take(at(nnz)) {
                made.put(place, gene, value)?;
            }
        }
        made.finish()
    }
}

/// Rows that fill from the left, gene by gene.
struct Growing<'a> {
    of: &'a Transposed,
    indptr: Vec<u64>,
    /// Where the next non-zero of each row goes.
    next: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<u8>,
}

impl<'a> Growing<'a> {
    fn new(of: &'a Transposed, rows: &RowRanges) -> Self {
        let mut indptr = vec![0u64];
        let mut end = 0;
        for row in rows.iter_rows() {
            end += u64::from(of.count(row));
            indptr.push(end);
        }
        let next = indptr[..indptr.len() - 1].to_vec();
        let (indices, values) = (vec![0; at(end)], vec![0; at(end) * of.value_type.size()]);
        Self { of, indptr, next, indices, values }
    }

    fn put(&mut self, place: u32, gene: u32, value: &[u8]) -> Result<()> {
        let row = usize::try_from(place).unwrap_or(usize::MAX);
        let (Some(next), Some(end)) = (self.next.get_mut(row), self.indptr.get(row + 1)) else {
            return Err(changed());
        };
        if *next == *end {
            return Err(changed());
        }
        let p = at(*next);
        *next += 1;
        self.indices[p] = gene;
        self.values[p * value.len()..(p + 1) * value.len()].copy_from_slice(value);
        Ok(())
    }

    fn finish(self) -> Result<CsrRows> {
        if self.next[..] != self.indptr[1..] {
            return Err(changed());
        }
        let values = Values::from_bytes(self.of.value_type, self.values.into())?;
        let (indptr, indices) = (self.indptr.into(), self.indices.into());
        Ok(CsrRows::new(vec![CsrSegment::try_new(indptr, indices, values, self.of.n_vars)?]))
    }
}

fn changed() -> Error {
    Error::new(
        cellfeed_core::ErrorKind::Changed,
        "the matrix is not as it was when its non-zeros were counted",
    )
}

pub(crate) fn at(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(crate) fn index_at(indices: &Indices, i: usize) -> usize {
    match indices {
        Indices::U16(b) => b.get(i).map_or(usize::MAX, |&c| c.into()),
        Indices::U32(b) => {
            b.get(i).map_or(usize::MAX, |&c| usize::try_from(c).unwrap_or(usize::MAX))
        }
        _ => usize::MAX,
    }
}

/// Each column of a part: its gene, and where its cells are.
pub(crate) fn columns(
    first: u64,
    part: &CsrRows,
) -> impl Iterator<Item = (u64, &CsrSegment, std::ops::Range<usize>)> {
    (first..).zip(part.spans()).map(|(gene, (segment, span))| (gene, segment, span))
}

/// Calls `f` with each cell of a part.
fn cells(part: &CsrRows, f: &mut dyn FnMut(usize, u64)) {
    for (gene, segment, span) in columns(0, part) {
        for i in span {
            f(index_at(segment.indices(), i), gene);
        }
    }
}
