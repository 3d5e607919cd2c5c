//! Rows as CSR segments that share the backend's memory.
//!
//! ```text
//! mod.rs     canonical rows: what a read answers
//! stored.rs  rows as a store has them: what the loader reads, and how they become canonical
//! check.rs   whether rows are canonical
//! row.rs     a single row on its way to where it is copied
//! ```

mod check;
mod row;
mod stored;

pub use check::{RowCheck, first_bad_row};
pub use row::{GeneIndex, RowBuffer};
pub(crate) use row::{Genes, Row, with_row_values};
pub use stored::{EncodedRows, StoredRows, StoredSegment};

use crate::value::{Indices, Values};
use crate::{Error, Result};
use arrow_buffer::ScalarBuffer;
use check::check_rows;
use std::ops::Range;

/// Consecutive rows of an answer in canonical CSR form: `indptr` starts at 0 and never falls,
/// indices strictly ascend within a row and stay below `n_vars`, explicit zeros are kept.
///
/// The three buffers may be views of memory that the backend shares (a map, a decoded chunk).
#[derive(Debug, Clone)]
pub struct CsrSegment {
    indptr: ScalarBuffer<u64>,
    indices: Indices,
    values: Values,
}

impl CsrSegment {
    /// Checks and wraps the three arrays.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the row within the segment, if
    /// the arrays disagree in length or break the canonical form.
    pub fn try_new(
        indptr: ScalarBuffer<u64>,
        indices: Indices,
        values: Values,
        n_vars: u64,
    ) -> Result<Self> {
        let segment = Self::shaped(indptr, indices, values)?;
        segment.check_indices(n_vars)?;
        Ok(segment)
    }

    /// Arrays that agree in length; of the indices nothing is known.
    fn shaped(indptr: ScalarBuffer<u64>, indices: Indices, values: Values) -> Result<Self> {
        if indices.len() != values.len() {
            return Err(Error::corrupt(format!(
                "{} gene indices for {} values",
                indices.len(),
                values.len()
            )));
        }
        if indptr.first() != Some(&0) {
            return Err(Error::corrupt("indptr does not start at 0"));
        }
        if indptr.last().copied() != u64::try_from(indices.len()).ok() {
            return Err(Error::corrupt(format!(
                "indptr ends at {}, but there are {} non-zeros",
                indptr.last().copied().unwrap_or(0),
                indices.len()
            )));
        }
        if let Some(row) = indptr.windows(2).position(|w| w[1] < w[0]) {
            return Err(Error::corrupt(format!("indptr falls after row {row}")).with("row", row));
        }
        Ok(Self { indptr, indices, values })
    }

    fn check_indices(&self, n_vars: u64) -> Result<()> {
        match &self.indices {
            Indices::U16(b) => check_rows(&self.indptr, b, n_vars),
            Indices::U32(b) => check_rows(&self.indptr, b, n_vars),
        }
    }

    /// As [`try_new`](Self::try_new), but rows that are not sorted are sorted first: for stores that
    /// promise no order. Repeated indices stay, and are refused.
    ///
    /// # Errors
    /// As [`try_new`](Self::try_new).
    pub fn try_new_sorting(
        indptr: ScalarBuffer<u64>,
        indices: &Indices,
        values: &Values,
        n_vars: u64,
    ) -> Result<Self> {
        // Nearly every store is sorted: only what fails the check is looked at more closely.
        Self::try_new(indptr.clone(), indices.clone(), values.clone(), n_vars).or_else(|_| {
            let order = match indices {
                Indices::U16(b) => sorting_order(&indptr, b),
                Indices::U32(b) => sorting_order(&indptr, b),
            };
            Self::try_new(indptr, indices.take(&order), values.take(&order), n_vars)
        })
    }

    /// Rows of it, which must be there.
    fn slice(&self, rows: Range<usize>) -> Self {
        if rows == (0..self.n_rows()) {
            return self.clone();
        }
        let base = self.indptr[rows.start];
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let (start, len) = (at(base), at(self.indptr[rows.end] - base));
        let indptr = self.indptr[rows.start..=rows.end].iter().map(|p| p - base);
        Self {
            indptr: indptr.collect::<Vec<_>>().into(),
            indices: self.indices.slice(start, len),
            values: self.values.slice(start, len),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// How many stored values.
    #[must_use]
    pub fn nnz(&self) -> usize {
        self.values.len()
    }

    fn n_bytes(&self) -> usize {
        let index = match self.indices {
            Indices::U16(_) => 2,
            Indices::U32(_) => 4,
        };
        self.nnz() * (self.values.value_type().size() + index) + (self.n_rows() + 1) * 8
    }

    /// Row offsets, one more than there are rows.
    #[must_use]
    pub fn indptr(&self) -> &[u64] {
        &self.indptr
    }

    /// Gene indices.
    #[must_use]
    pub fn indices(&self) -> &Indices {
        &self.indices
    }

    /// Values.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }
}

/// The positions that put the indices of each row in order.
fn sorting_order<I: Copy + Ord>(indptr: &[u64], indices: &[I]) -> Vec<usize> {
    let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
    let mut order: Vec<usize> = (0..indices.len()).collect();
    for w in indptr.windows(2) {
        let row = order.get_mut(at(w[0])..at(w[1])).unwrap_or_default();
        if row.windows(2).any(|p| indices[p[0]] >= indices[p[1]]) {
            row.sort_by_key(|&i| indices[i]);
        }
    }
    order
}

/// The answer to a read: segments whose rows, joined, are the rows asked for, in order.
#[derive(Debug, Clone, Default)]
pub struct CsrRows {
    segments: Vec<CsrSegment>,
    n_rows: usize,
    nnz: usize,
}

impl CsrRows {
    /// Joins segments in the order of the rows asked for.
    #[must_use]
    pub fn new(segments: Vec<CsrSegment>) -> Self {
        let n_rows = segments.iter().map(CsrSegment::n_rows).sum();
        let nnz = segments.iter().map(CsrSegment::nnz).sum();
        Self { segments, n_rows, nnz }
    }

    /// The rows at `order`, positions among these rows that may repeat, copied into one segment.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) for a position past the end,
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the segments' values differ in type.
    pub fn gather(&self, order: &[u32]) -> Result<Self> {
        StoredRows::from(self.clone()).gather(order)
    }

    /// Each row: its segment, and where in the segment's indices and values it lies.
    pub fn spans(&self) -> impl Iterator<Item = (&CsrSegment, Range<usize>)> {
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let of = move |s| CsrSegment::indptr(s).windows(2).map(move |w| (s, at(w[0])..at(w[1])));
        self.segments.iter().flat_map(of)
    }

    /// Some of the rows, without a copy.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) for rows past the end.
    pub fn slice(&self, rows: Range<usize>) -> Result<Self> {
        if rows.start > rows.end || rows.end > self.n_rows {
            return Err(Error::out_of_bounds(format!("rows {rows:?} of {}", self.n_rows)));
        }
        let mut segments = Vec::new();
        let mut first = 0;
        for segment in &self.segments {
            let n = segment.n_rows();
            let (start, end) = (rows.start.max(first), rows.end.min(first + n));
            if start < end {
                segments.push(segment.slice(start - first..end - first));
            }
            first += n;
        }
        Ok(Self::new(segments))
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[CsrSegment] {
        &self.segments
    }

    /// How many rows in all.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// How many stored values in all.
    #[must_use]
    pub fn nnz(&self) -> usize {
        self.nnz
    }

    /// Bytes of indices and values that the segments refer to.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.segments.iter().map(CsrSegment::n_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(indptr: Vec<u64>, indices: Vec<u32>) -> Result<CsrSegment> {
        let values = vec![1f32; indices.len()];
        CsrSegment::try_new(indptr.into(), indices.into(), values.into(), 10)
    }

    #[test]
    fn rows_that_are_not_sorted_are_sorted_where_that_is_asked_for() {
        let sorting = |indices: Indices| {
            let values = vec![1f32, 2.0, 3.0, 4.0].into();
            CsrSegment::try_new_sorting(vec![0, 3, 4].into(), &indices, &values, 10)
        };
        for indices in [Indices::from(vec![5u32, 1, 9, 0]), vec![5u16, 1, 9, 0].into()] {
            let segment = sorting(indices).unwrap();
            assert_eq!(segment.values().to_f64_vec(), [2.0, 1.0, 3.0, 4.0]);
        }
        assert!(sorting(vec![5u32, 5, 9, 0].into()).unwrap_err().to_string().contains("twice"));
        assert!(sorting(vec![5u32, 1, 10, 0].into()).is_err());
    }

    #[test]
    fn rows_are_gathered_in_any_order() {
        let rows = CsrRows::new(vec![
            segment(vec![0, 2, 2], vec![0, 9]).unwrap(),
            segment(vec![0, 1], vec![4]).unwrap(),
        ]);
        let got = rows.gather(&[2, 0, 0, 1]).unwrap();
        assert_eq!(got.segments()[0].indptr(), [0, 1, 3, 5, 5]);
        assert!(matches!(got.segments()[0].indices(), Indices::U32(b) if b[..] == [4, 0, 9, 0, 9]));
        assert!(rows.gather(&[3]).is_err());
        assert_eq!(CsrRows::default().gather(&[]).unwrap().n_rows(), 0);
    }

    #[test]
    fn some_rows_are_had_across_segments() {
        let rows = CsrRows::new(vec![
            segment(vec![0, 2, 2], vec![0, 9]).unwrap(),
            segment(vec![0, 1, 4], vec![4, 1, 2, 3]).unwrap(),
        ]);
        let got = rows.slice(1..4).unwrap();
        assert_eq!((got.n_rows(), got.nnz()), (3, 4));
        assert_eq!(got.segments()[1].indptr(), [0, 1, 4]);
        let last = rows.slice(3..4).unwrap();
        assert_eq!(last.segments()[0].indptr(), [0, 3]);
        assert_eq!(last.segments()[0].indices().to_u32_vec(), [1, 2, 3]);
        assert_eq!(rows.slice(2..2).unwrap().n_rows(), 0);
        assert!(rows.slice(2..5).is_err());
    }

    #[test]
    fn only_canonical_rows_pass() {
        assert!(segment(vec![0, 2, 2, 3], vec![0, 9, 4]).is_ok());
        assert!(segment(vec![0], vec![]).is_ok());
        for (indptr, indices, what) in [
            (vec![], vec![], "start"),
            (vec![1, 2], vec![0, 1], "start"),
            (vec![0, 1], vec![0, 1], "ends"),
            (vec![0, 2, 1, 3], vec![0, 1, 2], "falls"),
            (vec![0, 2], vec![1, 1], "twice"),
            (vec![0, 2], vec![3, 1], "comes after"),
            (vec![0, 1], vec![10], "n_vars"),
        ] {
            let message = segment(indptr, indices).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }
}
