//! A column in memory: one array, or several end to end where one cannot hold its text. Arrow counts the
//! bytes of an array of text in 31 bits, and the names of 10^8 cells are more than that.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use cellfeed_core::{Error, Result, RowRanges, concat, take_rows};

/// Bytes of text that one array holds.
pub(super) const MOST: usize = (1 << 31) - 1;

/// Arrays of one type end to end, at least one.
#[derive(Debug)]
pub(crate) struct Parts {
    arrays: Vec<ArrayRef>,
    /// Bytes of text of an answer.
    most: usize,
}

impl From<ArrayRef> for Parts {
    fn from(array: ArrayRef) -> Self {
        Self { arrays: vec![array], most: MOST }
    }
}

impl Parts {
    /// Texts, those that are `present`, in arrays of at most so many bytes.
    pub(super) fn of_texts(texts: &[String], present: &dyn Fn(usize) -> bool, most: usize) -> Self {
        let (mut ends, mut bytes) = (Vec::new(), 0usize);
        for (i, text) in texts.iter().enumerate() {
            if bytes.saturating_add(text.len()) > most {
                ends.push(i);
                bytes = 0;
            }
            bytes += text.len();
        }
        ends.push(texts.len());
        let mut start = 0;
        let part = |end: usize| {
            let part = (start..end).map(|i| present(i).then_some(texts[i].as_str()));
            start = end;
            std::sync::Arc::new(part.collect::<StringArray>()) as ArrayRef
        };
        Self { arrays: ends.into_iter().map(part).collect(), most }
    }

    /// The column at some rows.
    pub(super) fn rows(&self, rows: &RowRanges) -> Result<ArrayRef> {
        if let [array] = &self.arrays[..] {
            return take_rows(array, rows);
        }
        let (mut start, mut found) = (0u64, Vec::new());
        for array in &self.arrays {
            let end = start + super::as_u64(array.len());
            let within = rows.as_slice().iter().map(|r| {
                let cut = |row: u64| row.clamp(start, end) - start;
                cut(r.start)..cut(r.end)
            });
            let within = RowRanges::try_from_ranges(within.filter(|r| !r.is_empty()))?;
            if !within.is_empty() || found.is_empty() && end == self.len() {
                found.push(take_rows(array, &within)?);
            }
            start = end;
        }
        rows.check_within(start)?;
        self.join(&found)
    }

    /// All of it as one array.
    pub(crate) fn whole(&self) -> Result<ArrayRef> {
        self.join(&self.arrays)
    }

    fn len(&self) -> u64 {
        self.arrays.iter().map(|array| super::as_u64(array.len())).sum()
    }

    fn join(&self, arrays: &[ArrayRef]) -> Result<ArrayRef> {
        let texts = arrays.iter().filter_map(|array| array.as_string_opt::<i32>());
        let bytes = texts.map(|texts| {
            let ends = texts.value_offsets();
            let bytes = ends.last().zip(ends.first()).map_or(0, |(end, start)| end - start);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
        if bytes.fold(0, usize::saturating_add) > self.most {
            return Err(Error::unsupported("more than 2 GiB of text at once; ask for fewer rows"));
        }
        concat(arrays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellfeed_core::ErrorKind;

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // one range is meant
    fn rows_come_from_any_part() {
        let texts: Vec<String> = (0..100).map(|i| format!("cell-{i:02}")).collect();
        let present = |i: usize| i % 7 != 3;
        // Three texts a part.
        let parts = Parts::of_texts(&texts, &present, 21);
        assert_eq!((parts.arrays.len(), parts.len()), (34, 100));
        for list in [
            vec![],
            vec![0..3],
            vec![99..100],
            vec![2..4],
            vec![10..10 + 1, 50..51, 98..99],
            vec![3..4],
        ] {
            let rows = RowRanges::try_from_ranges(list.clone()).unwrap();
            let want: StringArray = list
                .into_iter()
                .flatten()
                .map(|i| usize::try_from(i).unwrap())
                .map(|i| present(i).then(|| texts[i].clone()))
                .collect();
            assert_eq!(parts.rows(&rows).unwrap().as_string::<i32>(), &want);
        }
        let whole = Parts::of_texts(&texts, &present, 700);
        assert_eq!(whole.arrays.len(), 1);
        assert_eq!(whole.whole().unwrap().len(), 100);
    }

    #[test]
    fn more_text_than_an_array_holds_is_refused_with_what_to_do() {
        let texts: Vec<String> = (0..100).map(|i| format!("cell-{i:02}")).collect();
        let parts = Parts::of_texts(&texts, &|_| true, 21);
        let all = RowRanges::single(0..100);
        for error in [parts.whole().unwrap_err(), parts.rows(&all).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("fewer rows"), "{error}");
        }
        let past = parts.rows(&RowRanges::single(99..101)).unwrap_err();
        assert_eq!(past.kind(), ErrorKind::OutOfBounds);
    }
}
