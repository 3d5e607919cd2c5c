//! Row offsets that stay in their file, 8 bytes a row, and are looked up in its map: opening them and
//! keeping them takes the same time and memory for any number of rows.
//!
//! What is read whole can be checked whole. Here only what a read needs is looked at, so that every
//! entry that is used is held against its neighbours, against how long a row can be, and against a few
//! entries from all over the file that were taken when it was opened. The last see what neighbours
//! cannot: a stretch of zeros where a page was lost, which alone would be rows without values.

use super::outside;
use crate::io::{Access, ByteSource, MappedFile};
use crate::rows::RowRanges;
use crate::{Error, Result, as_u64, typed};
use arrow_buffer::ScalarBuffer;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

const ENTRY: u64 = 8;
/// Entries that are kept of each doubling of the row's number, as a power of two.
const SUB: u32 = 3;
/// Bytes that are read at a time where all are.
const WINDOW: u64 = 8 << 20;

/// `indptr` as it lies in a file.
pub(super) struct Viewed {
    entries: ScalarBuffer<u64>,
    file: Arc<dyn ByteSource>,
    map: MappedFile,
    /// No row has more values.
    longest: u64,
    /// Entries of some rows, see [`kept_row`]; they do not fall.
    kept: Vec<u64>,
    nnz: u64,
}

impl fmt::Debug for Viewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Viewed");
        shown.field("file", &self.file.location()).field("n_rows", &self.n_rows());
        shown.field("nnz", &self.nnz).finish_non_exhaustive()
    }
}

/// The row whose entry is the `n`-th that is kept: eight in each doubling, so that a store of any size
/// has some hundreds of them.
fn kept_row(n: usize) -> usize {
    let per = 1 << SUB;
    if n < per { n } else { (per + n % per) << (n / per - 1) }
}

/// The last kept entry at or before a row: the inverse of [`kept_row`].
fn kept_before(row: usize) -> usize {
    let octave = row.checked_ilog2().unwrap_or(0);
    if octave < SUB {
        return row;
    }
    // The leading bit and those after it: 8 to 15.
    let shift = octave - SUB;
    usize::try_from(shift << SUB).unwrap_or(0) + (row >> shift)
}

impl Viewed {
    /// None where the file is not mapped, or its bytes are not this machine's numbers.
    pub(super) fn open(file: &Arc<dyn ByteSource>, longest: u64) -> Result<Option<Self>> {
        let map = Access::Auto.map_of(&**file)?.filter(|_| cfg!(target_endian = "little"));
        let Some(map) = map else { return Ok(None) };
        let bytes = map.bytes();
        if !bytes.is_empty() && bytes.as_ptr().align_offset(align_of::<u64>()) != 0 {
            return Ok(None);
        }
        let opened = Self::new(Arc::clone(file), map, longest);
        opened.map(Some).map_err(|e| e.with_default("file", file.location()))
    }

    fn new(file: Arc<dyn ByteSource>, map: MappedFile, longest: u64) -> Result<Self> {
        let maps = [map.clone()];
        MappedFile::reading(&maps, || Self::looked_at(file, map, longest))
    }

    fn looked_at(file: Arc<dyn ByteSource>, map: MappedFile, longest: u64) -> Result<Self> {
        let entries = typed::<u64>(map.bytes().clone())?;
        let (Some(&first), Some(&nnz)) = (entries.first(), entries.last()) else {
            return Err(Error::corrupt("indptr is empty, but has an entry even without rows"));
        };
        if first != 0 {
            return Err(Error::corrupt(format!("indptr starts at {first} instead of 0")));
        }
        let n_rows = entries.len() - 1;
        let rows = || (0..).map(kept_row).take_while(|&row| row <= n_rows).chain([n_rows]);
        let longest = longest.min(u32::MAX.into());
        let kept = rows().map(|row| entries[row]).collect();
        let viewed = Self { entries, file, map, longest, kept, nnz };
        for (start, end) in rows().zip(rows().skip(1)) {
            viewed.plausible(start, end)?;
        }
        Ok(viewed)
    }

    pub(super) fn n_rows(&self) -> u64 {
        as_u64(self.entries.len() - 1)
    }

    pub(super) fn nnz(&self) -> u64 {
        self.nnz
    }

    pub(super) fn file(&self) -> &Arc<dyn ByteSource> {
        &self.file
    }

    pub(super) fn check(&self) -> Result<()> {
        self.map.check()
    }

    /// Where in the file the entries of rows are.
    pub(super) fn bytes_of(rows: &RowRanges) -> Vec<Range<u64>> {
        let bytes = |r: &Range<u64>| {
            r.start.saturating_mul(ENTRY)..r.end.saturating_add(1).saturating_mul(ENTRY)
        };
        rows.as_slice().iter().map(bytes).collect()
    }

    /// As [`RowOffsets::element_ranges`](super::RowOffsets::element_ranges), but for the file's change.
    pub(super) fn element_ranges(&self, rows: &RowRanges) -> Result<Vec<Range<u64>>> {
        let spans: Vec<_> = rows.as_slice().iter().map(|r| self.span(r)).collect::<Result<_>>()?;
        self.reading(|| self.found(&spans))
    }

    fn found(&self, spans: &[Range<usize>]) -> Result<Vec<Range<u64>>> {
        // Entries of rows far from each other come from memory: all of them are asked for before one
        // is waited for, which checks between them would prevent.
        let mut found: Vec<_> =
            spans.iter().map(|s| self.entries[s.start]..self.entries[s.end]).collect();
        for (span, found) in spans.iter().zip(&mut found) {
            *found = self.elements_of(span)?;
        }
        found.retain(|r| !r.is_empty());
        Ok(found)
    }

    /// As [`RowOffsets::elements`](super::RowOffsets::elements).
    pub(super) fn elements(&self, rows: &Range<u64>) -> Result<Range<u64>> {
        let span = self.span(rows)?;
        self.reading(|| self.elements_of(&span))
    }

    /// Appends where the rows of a range end, from `at` on, which becomes the last of these.
    pub(super) fn relative(
        &self,
        rows: &Range<u64>,
        at: &mut u64,
        out: &mut Vec<u64>,
    ) -> Result<()> {
        let span = self.span(rows)?;
        self.reading(|| {
            self.elements_of(&span)?;
            let entries = &self.entries[span.start..=span.end];
            for (i, pair) in entries.windows(2).enumerate() {
                // Of a row that falls, this is longer than any row.
                let length = pair[1].wrapping_sub(pair[0]);
                if length > self.longest {
                    return Err(self.bad_row(as_u64(span.start + i), pair[0], pair[1]));
                }
                *at += length;
                out.push(*at);
            }
            Ok(())
        })
    }

    /// Reads and checks every entry.
    pub(super) fn check_all(&self) -> Result<()> {
        let length = as_u64(self.entries.len()) * ENTRY;
        let mut buffer = vec![0; usize::try_from(length.min(WINDOW)).unwrap_or(usize::MAX)];
        let (mut at, mut last) = (0, 0);
        while at < length {
            let n = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
            self.file.read_exact_at(at, &mut buffer[..n])?;
            let (words, _) = buffer[..n].as_chunks::<8>();
            for (i, word) in words.iter().enumerate() {
                let entry = u64::from_le_bytes(*word);
                if entry.wrapping_sub(last) > self.longest {
                    let row = (at / ENTRY + as_u64(i)).saturating_sub(1);
                    return Err(self.blame(self.bad_row(row, last, entry)));
                }
                last = entry;
            }
            at += as_u64(n);
        }
        if last != self.nnz {
            let error = Error::corrupt(format!("indptr ends at {last} instead of {}", self.nnz));
            return Err(self.blame(error));
        }
        self.check()
    }

    /// Runs work that looks entries up; an error names the file.
    fn reading<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        MappedFile::reading(std::slice::from_ref(&self.map), work).map_err(|e| self.blame(e))
    }

    fn blame(&self, error: Error) -> Error {
        error.with_default("file", self.file.location())
    }

    fn span(&self, rows: &Range<u64>) -> Result<Range<usize>> {
        let bounds = usize::try_from(rows.start).ok().zip(usize::try_from(rows.end).ok());
        match bounds {
            Some((start, end)) if start <= end && end < self.entries.len() => Ok(start..end),
            _ => Err(outside(rows, self.n_rows())),
        }
    }

    fn elements_of(&self, span: &Range<usize>) -> Result<Range<u64>> {
        let &Range { start, end } = span;
        self.within_kept(start)?;
        self.within_kept(end)?;
        // If a neighbour contradicts an entry, nobody can tell which of them is right.
        if start > 0 {
            self.plausible(start - 1, start)?;
        }
        self.plausible(start, end)?;
        if end + 1 < self.entries.len() {
            self.plausible(end, end + 1)?;
        }
        Ok(self.entries[start]..self.entries[end])
    }

    /// Holds an entry against the kept ones before and behind it.
    #[inline]
    fn within_kept(&self, at: usize) -> Result<()> {
        let (entry, before) = (self.entries[at], kept_before(at));
        let low = self.kept.get(before).copied().unwrap_or(self.nnz);
        let high = self.kept.get(before + 1).copied().unwrap_or(self.nnz);
        if (low..=high).contains(&entry) {
            return Ok(());
        }
        let row = at.min(self.entries.len().saturating_sub(2));
        Err(Error::corrupt(format!(
            "indptr has {entry} where rows around it say {low} to {high}; the file is damaged"
        ))
        .with("row", row))
    }

    /// Refuses rows that have fewer values than none, or more than they can have.
    fn plausible(&self, start: usize, end: usize) -> Result<()> {
        if self.is_plausible(start, end) {
            return Ok(());
        }
        // One half is not plausible if the whole is not, down to a row.
        let (mut start, mut end) = (start, end);
        while end - start > 1 {
            let middle = start + (end - start) / 2;
            if self.is_plausible(start, middle) {
                start = middle;
            } else {
                end = middle;
            }
        }
        Err(self.bad_row(as_u64(start), self.entries[start], self.entries[end]))
    }

    fn is_plausible(&self, start: usize, end: usize) -> bool {
        let most = self.longest.saturating_mul(as_u64(end - start));
        let values = self.entries[end].checked_sub(self.entries[start]);
        values.is_some_and(|values| values <= most)
    }

    fn bad_row(&self, row: u64, start: u64, end: u64) -> Error {
        let error = match end.checked_sub(start) {
            None => Error::corrupt(format!("indptr falls from {start} to {end}")),
            Some(length) => Error::corrupt(format!(
                "indptr gives a row {length} values, but it has {} at most",
                self.longest
            )),
        };
        error.with("row", row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_rows_are_found_again() {
        let rows: Vec<usize> = (0..400).map(kept_row).collect();
        assert_eq!(
            rows[..20],
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22]
        );
        for (n, pair) in rows.windows(2).enumerate() {
            assert!(pair[0] < pair[1]);
            for row in [pair[0], pair[0].midpoint(pair[1]), pair[1] - 1] {
                assert_eq!(kept_before(row), n, "row {row}");
            }
        }
    }
}
