//! Matrices stored by columns, turned into rows.
//!
//! A first pass over the genes counts the non-zeros of each cell. Rows are then made for as many cells
//! at a time as fit the memory, by a pass over all genes that keeps what belongs to those cells: genes
//! come in order, so each row fills from the left, sorted. The source is read once for the counts and
//! once for each such part.

use crate::Store;
use cellfeed_core::{
    Archive, CsrRows, CsrSegment, Error, Indices, MatrixKey, Result, RowRanges, ValueType, Values,
};
use futures::executor::block_on;

/// A matrix by columns.
#[derive(Debug)]
pub(super) struct Transposed {
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
    pub(super) fn open(store: &Store, key: &MatrixKey, memory: u64) -> Result<Self> {
        let schema = store.schema();
        let found = schema.matrices.iter().find(|m| m.key == *key);
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

    fn non_zeros(&self, rows: &RowRanges) -> u64 {
        rows.iter_rows().map(|row| u64::from(self.count(row))).sum()
    }

    fn count(&self, row: u64) -> u32 {
        usize::try_from(row).ok().and_then(|r| self.counts.get(r)).copied().unwrap_or(0)
    }

    /// Bytes that rows take, with the places where they grow.
    pub(super) fn bytes(&self, rows: &RowRanges) -> u64 {
        let value = u64::try_from(self.value_type.size()).unwrap_or(8);
        self.non_zeros(rows).saturating_mul(4 + value).saturating_add(rows.n_rows() * 24)
    }

    /// Calls `f` with the first gene of a part and the part's columns, in order.
    async fn each_part(
        &self,
        store: &Store,
        f: &mut (dyn FnMut(u64, &CsrRows) -> Result<()> + Send),
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

    /// Makes rows.
    pub(super) async fn read(&self, store: &Store, rows: &RowRanges) -> Result<CsrRows> {
        let size = self.value_type.size();
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut indptr = vec![0u64];
        // Where the next non-zero of each cell goes; past the end for cells that are not wanted.
        let mut next = vec![u64::MAX; self.counts.len()];
        for row in rows.iter_rows() {
            let end = indptr.last().copied().unwrap_or(0);
            if let Some(place) = next.get_mut(at(row)) {
                *place = end;
            }
            indptr.push(end + u64::from(self.count(row)));
        }
        let nnz = at(indptr.last().copied().unwrap_or(0));
        let mut indices = vec![0u32; nnz];
        let mut values = vec![0u8; nnz * size];
        self.each_part(store, &mut |first, part| {
            let mut lost = false;
            for (gene, segment, span) in columns(first, part) {
                let bytes = segment.values().as_bytes();
                let gene = u32::try_from(gene).unwrap_or(u32::MAX);
                for i in span {
                    let cell = index_at(segment.indices(), i);
                    let Some(place) = next.get_mut(cell).filter(|p| **p != u64::MAX) else {
                        continue;
                    };
                    let p = at(*place);
                    *place += 1;
                    let source = bytes.get(i * size..(i + 1) * size);
                    match (indices.get_mut(p), values.get_mut(p * size..(p + 1) * size), source) {
                        (Some(index), Some(value), Some(source)) => {
                            *index = gene;
                            value.copy_from_slice(source);
                        }
                        _ => lost = true,
                    }
                }
            }
            if lost {
                return Err(Error::new(
                    cellfeed_core::ErrorKind::Changed,
                    "the matrix is not as it was when its non-zeros were counted",
                ));
            }
            Ok(())
        })
        .await?;
        let values = Values::from_bytes(self.value_type, values.into())?;
        let segment = CsrSegment::try_new(indptr.into(), indices.into(), values, self.n_vars)?;
        Ok(CsrRows::new(vec![segment]))
    }
}

fn index_at(indices: &Indices, i: usize) -> usize {
    match indices {
        Indices::U16(b) => b.get(i).map_or(usize::MAX, |&c| c.into()),
        Indices::U32(b) => {
            b.get(i).map_or(usize::MAX, |&c| usize::try_from(c).unwrap_or(usize::MAX))
        }
        _ => usize::MAX,
    }
}

/// Each column of a part: its gene, and where its cells are.
fn columns(
    first: u64,
    part: &CsrRows,
) -> impl Iterator<Item = (u64, &CsrSegment, std::ops::Range<usize>)> {
    let all = part.segments().iter().flat_map(|segment| {
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        segment.indptr().windows(2).map(move |w| (segment, at(w[0])..at(w[1])))
    });
    (first..).zip(all).map(|(gene, (segment, span))| (gene, segment, span))
}

/// Calls `f` with each cell of a part.
fn cells(part: &CsrRows, f: &mut dyn FnMut(usize, u64)) {
    for (gene, segment, span) in columns(0, part) {
        for i in span {
            f(index_at(segment.indices(), i), gene);
        }
    }
}
