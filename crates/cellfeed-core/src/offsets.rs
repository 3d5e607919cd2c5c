//! Row offsets of a CSR matrix, kept in two to four bytes a row.

use crate::rows::RowRanges;
use crate::{Error, Result};
use std::ops::Range;

/// Rows between two stored offsets.
const STRIDE: usize = 64;

/// The `indptr` of a whole matrix: for 10^8 rows 0.2 GB instead of 0.8. Looking an offset up adds at
/// most 63 row lengths to a stored one.
///
/// ```
/// use cellfeed_core::{RowOffsets, RowRanges};
///
/// let mut offsets = RowOffsets::builder();
/// offsets.extend([0, 2])?;
/// offsets.extend([2, 5])?;
/// let offsets = offsets.finish();
/// assert_eq!((offsets.n_rows(), offsets.nnz()), (3, 5));
/// assert_eq!(offsets.element_ranges(&RowRanges::single(0..3)), [0..5]);
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RowOffsets {
    stored: Vec<u64>,
    lengths: Lengths,
    nnz: u64,
}

#[derive(Debug, Clone)]
enum Lengths {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Lengths {
    fn len(&self) -> usize {
        match self {
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
        }
    }

    fn sum(&self, rows: Range<usize>) -> u64 {
        match self {
            Self::U16(v) => v[rows].iter().map(|&l| u64::from(l)).sum(),
            Self::U32(v) => v[rows].iter().map(|&l| u64::from(l)).sum(),
        }
    }

    fn push(&mut self, length: u32) {
        match (&mut *self, u16::try_from(length)) {
            (Self::U16(v), Ok(short)) => v.push(short),
            (Self::U16(v), Err(_)) => {
                let mut wide: Vec<u32> = v.iter().map(|&l| u32::from(l)).collect();
                wide.push(length);
                *self = Self::U32(wide);
            }
            (Self::U32(v), _) => v.push(length),
        }
    }
}

impl RowOffsets {
    /// Starts from nothing; feed it `indptr` in parts.
    #[must_use]
    pub fn builder() -> RowOffsetsBuilder {
        let lengths = Lengths::U16(Vec::new());
        RowOffsetsBuilder { offsets: Self { stored: Vec::new(), lengths, nnz: 0 }, last: None }
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        u64::try_from(self.lengths.len()).unwrap_or(u64::MAX)
    }

    /// How many stored values.
    #[must_use]
    pub fn nnz(&self) -> u64 {
        self.nnz
    }

    /// Where a row starts; `n_rows` gives the end of the last.
    ///
    /// # Panics
    /// If the row is past `n_rows`.
    #[must_use]
    pub fn start(&self, row: u64) -> u64 {
        let row = usize::try_from(row).unwrap_or(usize::MAX);
        if row == self.lengths.len() {
            return self.nnz;
        }
        let base = row / STRIDE;
        self.stored[base] + self.lengths.sum(base * STRIDE..row)
    }

    /// The elements of rows, as ascending ranges; rows that touch give one range.
    ///
    /// # Panics
    /// If a row is past `n_rows`.
    #[must_use]
    pub fn element_ranges(&self, rows: &RowRanges) -> Vec<Range<u64>> {
        rows.as_slice()
            .iter()
            .map(|r| self.start(r.start)..self.start(r.end))
            .filter(|r| !r.is_empty())
            .collect()
    }

    /// The `indptr` of an answer that holds just these rows: starts at 0, one entry more than rows.
    ///
    /// # Panics
    /// If a row is past `n_rows`.
    #[must_use]
    pub fn relative(&self, rows: &RowRanges) -> Vec<u64> {
        let mut out = Vec::with_capacity(usize::try_from(rows.n_rows()).unwrap_or(0) + 1);
        let mut at = 0;
        out.push(at);
        for range in rows.as_slice() {
            let span = usize::try_from(range.start).unwrap_or(usize::MAX)
                ..usize::try_from(range.end).unwrap_or(usize::MAX);
            let mut add = |length: u64| {
                at += length;
                out.push(at);
            };
            match &self.lengths {
                Lengths::U16(v) => v[span].iter().for_each(|&l| add(l.into())),
                Lengths::U32(v) => v[span].iter().for_each(|&l| add(l.into())),
            }
        }
        out
    }
}

/// Builds [`RowOffsets`] from `indptr`, part by part, and checks it.
#[derive(Debug)]
pub struct RowOffsetsBuilder {
    offsets: RowOffsets,
    last: Option<u64>,
}

impl RowOffsetsBuilder {
    /// Appends entries of `indptr`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the row, if the first entry is not
    /// 0, or entries fall, or a row has 2^32 values or more.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = u64>) -> Result<()> {
        for entry in entries {
            let Some(last) = self.last.replace(entry) else {
                if entry != 0 {
                    return Err(Error::corrupt(format!("indptr starts at {entry} instead of 0")));
                }
                continue;
            };
            let rows = &mut self.offsets;
            let row = rows.lengths.len();
            let Some(length) = entry.checked_sub(last) else {
                return Err(
                    Error::corrupt(format!("indptr falls from {last} to {entry}")).with("row", row)
                );
            };
            let length = u32::try_from(length).map_err(|_| {
                Error::corrupt(format!("indptr gives a row {length} values")).with("row", row)
            })?;
            if row.is_multiple_of(STRIDE) {
                rows.stored.push(last);
            }
            rows.lengths.push(length);
            rows.nnz = entry;
        }
        Ok(())
    }

    /// Ends.
    #[must_use]
    pub fn finish(self) -> RowOffsets {
        self.offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_equal_indptr() {
        // Row 300 is longer than 16 bits hold.
        let mut indptr = vec![0u64];
        for r in 0..1000u64 {
            let length = if r == 300 { 70_000 } else { r * 7 % 13 };
            indptr.push(indptr.last().unwrap() + length);
        }
        let mut builder = RowOffsets::builder();
        for part in indptr.chunks(17) {
            builder.extend(part.iter().copied()).unwrap();
        }
        let offsets = builder.finish();
        assert_eq!(offsets.n_rows(), 1000);
        for (row, &start) in indptr.iter().enumerate() {
            assert_eq!(offsets.start(row as u64), start);
        }
        let rows = RowRanges::try_from_ranges([0..1, 63..66, 290..310, 999..1000]).unwrap();
        let want: u64 = offsets.element_ranges(&rows).iter().map(|r| r.end - r.start).sum();
        let relative = offsets.relative(&rows);
        assert_eq!((relative.len() as u64, *relative.last().unwrap()), (rows.n_rows() + 1, want));
        assert_eq!(relative[5] - relative[4], indptr[291] - indptr[290]);
    }

    #[test]
    fn bad_offsets_are_refused() {
        let build = |entries: &[u64]| RowOffsets::builder().extend(entries.iter().copied());
        assert!(build(&[1]).unwrap_err().to_string().contains("starts at 1"));
        let error = build(&[0, 5, 3]).unwrap_err().to_string();
        assert!(error.contains("falls from 5 to 3") && error.contains("row 1"), "{error}");
        assert!(build(&[0, 1 << 40]).is_err());
    }
}
