//! Which rows to read: a checked list of row ranges, ascending, disjoint and coalesced.

use crate::{Error, Result};
use std::ops::Range;

/// Rows of the obs axis as half-open ranges that are non-empty, ascending, disjoint and coalesced
/// (no range starts where the one before it ends). The type is the proof: a backend need not check.
///
/// ```
/// use cellfeed_core::RowRanges;
///
/// let rows = RowRanges::try_from_ranges([0..4, 4..8, 16..20])?;
/// assert_eq!(rows.as_slice(), &[0..8, 16..20]);
/// assert_eq!(rows.n_rows(), 12);
/// assert!(RowRanges::try_from_ranges([4..8, 0..4]).is_err());
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RowRanges {
    ranges: Vec<Range<u64>>,
    n_rows: u64,
}

impl RowRanges {
    /// No rows at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// One range of rows.
    #[must_use]
    pub fn single(range: Range<u64>) -> Self {
        let mut rows = Self::default();
        rows.push(range);
        rows
    }

    /// Builds from ascending, disjoint ranges; empty ones are dropped and touching ones merged.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a range starts before the
    /// one before it ends, or ends before it starts.
    pub fn try_from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Result<Self> {
        let mut rows = Self::default();
        for range in ranges {
            let after = rows.end();
            if range.start > range.end || (range.start < after && !range.is_empty()) {
                return Err(Error::invalid_input(format!(
                    "row range {}..{} does not follow row {after}; ranges must ascend without overlap",
                    range.start, range.end
                )));
            }
            rows.push(range);
        }
        Ok(rows)
    }

    /// Builds from rows in strictly ascending order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a row repeats or falls.
    pub fn try_from_rows(rows: &[u64]) -> Result<Self> {
        let mut out = Self::default();
        for &row in rows {
            let end = row.checked_add(1).ok_or_else(|| {
                Error::invalid_input(format!("row {row} is past the largest row number"))
            })?;
            if row < out.end() {
                return Err(Error::invalid_input(format!(
                    "row {row} does not ascend; rows must be sorted without repeats"
                )));
            }
            out.push(row..end);
        }
        Ok(out)
    }

    /// Appends a range known to start at or after [`end`](Self::end).
    pub(crate) fn push(&mut self, range: Range<u64>) {
        debug_assert!(range.start >= self.end() || range.is_empty());
        if range.is_empty() {
            return;
        }
        self.n_rows += range.end - range.start;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How many rows there are.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// One past the last row, 0 if there are none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |r| r.end)
    }

    /// Every row in order.
    pub fn iter_rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().cloned().flatten()
    }

    /// Turns the row within an answer for these rows, which an error's context may have, into the row
    /// in the store.
    #[must_use]
    pub fn name_row(&self, error: Error) -> Error {
        self.name_row_after(0, 0, error)
    }

    /// As [`name_row`](Self::name_row), of an answer for what follows the first `skipped` of these rows,
    /// in the numbers of a store of which `before` rows of other stores come before.
    pub(crate) fn name_row_after(&self, skipped: usize, before: u64, error: Error) -> Error {
        let row = error.context().find(|(key, _)| *key == "row").and_then(|(_, v)| v.parse().ok());
        let row = row.and_then(|row: usize| self.iter_rows().nth(skipped.saturating_add(row)));
        let Some(row) = row else { return error };
        Error::new(error.kind(), error.message()).with("row", row.saturating_sub(before))
    }

    /// Refuses rows past `n_obs`: law 6 of the [`Backend`](crate::Backend) trait.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) naming the row and `n_obs`.
    pub fn check_within(&self, n_obs: u64) -> Result<()> {
        if self.end() > n_obs {
            return Err(Error::out_of_bounds(format!(
                "row {} was asked for, but the store has {n_obs} cells",
                self.end() - 1
            )));
        }
        Ok(())
    }

    /// Cuts into consecutive parts of at most `rows` rows each (the last may be shorter).
    pub fn parts(&self, rows: u64) -> impl Iterator<Item = Self> + '_ {
        let limit = rows.max(1);
        let mut rest = self.ranges.iter().cloned();
        let mut carry: Option<Range<u64>> = None;
        std::iter::from_fn(move || {
            let mut part = Self::default();
            while part.n_rows < limit {
                let Some(range) = carry.take().or_else(|| rest.next()) else { break };
                let room = limit - part.n_rows;
                if range.end - range.start > room {
                    carry = Some(range.start + room..range.end);
                    part.push(range.start..range.start + room);
                } else {
                    part.push(range);
                }
            }
            (!part.is_empty()).then_some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_coalesced_and_checked() {
        let rows = RowRanges::try_from_ranges([0..0, 2..4, 4..4, 4..5, 7..9]).unwrap();
        assert_eq!(rows.as_slice(), &[2..5, 7..9]);
        assert_eq!(rows.iter_rows().collect::<Vec<_>>(), [2, 3, 4, 7, 8]);
        assert!(RowRanges::try_from_ranges([0..4, 3..5]).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = RowRanges::try_from_ranges([5..4]);
        assert!(reversed.is_err());
        assert!(RowRanges::try_from_rows(&[1, 1]).is_err());
        assert!(RowRanges::try_from_rows(&[u64::MAX]).is_err());
        assert_eq!(RowRanges::try_from_rows(&[1, 2, 5]).unwrap().as_slice(), &[1..3, 5..6]);
    }

    #[test]
    fn parts_keep_every_row() {
        let rows = RowRanges::try_from_ranges([0..5, 10..11, 20..33]).unwrap();
        for limit in 1..30 {
            let parts: Vec<_> = rows.parts(limit).collect();
            assert!(parts.iter().all(|p| p.n_rows() <= limit && !p.is_empty()));
            let joined: Vec<u64> =
                parts.iter().flat_map(|p| p.iter_rows().collect::<Vec<_>>()).collect();
            assert_eq!(joined, rows.iter_rows().collect::<Vec<_>>());
        }
    }
}
