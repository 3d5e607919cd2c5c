//! The page index of a column chunk: where its pages are and which rows they hold, in four to eight
//! bytes a page.

use crate::thrift::Reader;
use cellfeed_core::{Error, Result};
use std::ops::Range;

/// Pages of a chunk.
#[derive(Debug, Clone)]
pub(crate) struct PageTable {
    /// Where the chunk's first data page is.
    start: u64,
    /// Where pages begin, from `start` on, and where the last ends.
    offsets: Vec<u32>,
    rows: Rows,
    n_rows: u32,
}

#[derive(Debug, Clone)]
enum Rows {
    /// Every page but the last has so many.
    Every(u32),
    /// The first row of each.
    First(Vec<u32>),
}

impl PageTable {
    /// Parses an offset index. `chunk` are the chunk's bytes in the file; one of 4 GiB and more, of which
    /// no table is made, is read as if it had no index.
    pub(crate) fn parse(bytes: &[u8], chunk: &Range<u64>, n_rows: u32) -> Result<Option<Self>> {
        if u32::try_from(chunk.end.saturating_sub(chunk.start)).is_err() {
            return Ok(None);
        }
        let (mut offsets, mut first_rows) = (Vec::new(), Vec::new());
        let (mut start, mut end) = (0, 0);
        Reader::new(bytes).fields(|r, id, kind| {
            if id != 1 {
                return Ok(false);
            }
            r.structs(kind, |r| {
                let (mut at, mut len, mut row) = (0, 0, None);
                r.fields(|r, id, kind| {
                    match id {
                        1 => at = r.unsigned(kind)?,
                        2 => len = r.unsigned(kind)?,
                        3 => row = Some(r.unsigned(kind)?),
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                if offsets.is_empty() {
                    (start, end) = (at, at);
                }
                // Some writers have pages without rows.
                let row = row.and_then(|row| u32::try_from(row).ok()).filter(|&r| r <= n_rows);
                let follows = row.is_some_and(|row| match first_rows.last() {
                    None => row == 0,
                    Some(&last) => row >= last,
                });
                let page_end = at.saturating_add(len);
                let offset = u32::try_from(at.wrapping_sub(start));
                match (row, offset) {
                    (Some(row), Ok(offset))
                        if follows && at >= end && at >= chunk.start && page_end <= chunk.end =>
                    {
                        offsets.push(offset);
                        first_rows.push(row);
                        end = page_end;
                        Ok(())
                    }
                    _ => Err(Error::corrupt(format!(
                        "the page index has a page of {len} bytes at {at} where none can be"
                    ))),
                }
            })?;
            Ok(true)
        })?;
        if offsets.is_empty() != (n_rows == 0) {
            return Err(Error::corrupt(format!("a page index without pages for {n_rows} rows")));
        }
        let total = u32::try_from(end - start);
        offsets.push(total.map_err(|_| Error::corrupt("pages that are longer than their chunk"))?);
        Ok(Some(Self::new(start, offsets, first_rows, n_rows)))
    }

    /// A table of pages as they were met: where each begins in a chunk of `len` bytes at `start`, and
    /// with which row. None where that is not known of all.
    pub(crate) fn learned(
        start: u64,
        len: u64,
        places: &[(u32, u32)],
        n_rows: u32,
    ) -> Option<Self> {
        let &(first, _) = places.first()?;
        let mut offsets: Vec<u32> = places.iter().map(|(at, _)| at - first).collect();
        offsets.push(u32::try_from(len).ok()?.checked_sub(first)?);
        let ascend = offsets.windows(2).all(|w| w[0] < w[1]);
        let first_rows = places.iter().map(|(_, row)| *row).collect();
        ascend.then(|| Self::new(start + u64::from(first), offsets, first_rows, n_rows))
    }

    fn new(start: u64, mut offsets: Vec<u32>, first_rows: Vec<u32>, n_rows: u32) -> Self {
        offsets.shrink_to_fit();
        let step = first_rows.get(1).copied().unwrap_or(n_rows).max(1);
        let even = (0..).zip(&first_rows).all(|(i, &row)| Some(row) == step.checked_mul(i))
            && first_rows.last().is_none_or(|&last| n_rows > last && n_rows - last <= step);
        let rows = if even { Rows::Every(step) } else { Rows::First(first_rows) };
        Self { start, offsets, rows, n_rows }
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes before the first data page, where a dictionary may be.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The page that holds a row.
    pub(crate) fn page_of(&self, row: u32) -> usize {
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        match &self.rows {
            Rows::Every(step) => at(row / step),
            Rows::First(first) => first.partition_point(|&f| f <= row).saturating_sub(1),
        }
    }

    /// The rows of a page.
    pub(crate) fn rows(&self, page: usize) -> Range<u32> {
        let first = |page: usize| {
            if page >= self.len() {
                return self.n_rows;
            }
            match &self.rows {
                Rows::Every(step) => u32::try_from(page).unwrap_or(u32::MAX).saturating_mul(*step),
                Rows::First(first) => first[page],
            }
        };
        first(page)..first(page + 1)
    }

    /// The bytes of pages in the file.
    pub(crate) fn bytes(&self, pages: &Range<usize>) -> Range<u64> {
        self.start + u64::from(self.offsets[pages.start])
            ..self.start + u64::from(self.offsets[pages.end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thrift::Writer;

    /// An offset index of pages of so many bytes, with ten rows each.
    fn index(pages: &[(u64, u64)]) -> Vec<u8> {
        let mut w = Writer::default();
        let rows: Vec<(u64, u64, u64)> =
            pages.iter().zip(0..).map(|((at, len), i)| (*at, *len, i * 10)).collect();
        w.structs(1, &rows, |w, (at, len, row)| {
            w.i64(1, *at);
            w.i64(2, *len);
            w.i64(3, *row);
        });
        w.finish()
    }

    #[test]
    fn the_index_of_a_chunk_too_long_for_it_is_none() {
        let most = u64::from(u32::MAX);
        let pages = |len: u64| index(&[(100, 50), (150, len - 50)]);
        let found = PageTable::parse(&pages(most), &(100..100 + most), 20).unwrap().unwrap();
        assert_eq!((found.len(), found.bytes(&(1..2))), (2, 150..100 + most));
        for len in [most + 1, 5 << 30] {
            let found = PageTable::parse(&pages(len), &(100..100 + len), 20).unwrap();
            assert!(found.is_none(), "{len}");
        }
        let late = index(&[(100, 50), (5 << 30, 50)]);
        assert!(PageTable::parse(&late, &(100..(5 << 30) + 50), 20).unwrap().is_none());
        let past = PageTable::parse(&pages(200), &(100..299), 20).unwrap_err();
        assert_eq!(past.kind(), cellfeed_core::ErrorKind::Corrupt);
    }
}
