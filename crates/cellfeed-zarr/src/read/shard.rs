//! The index of a shard, in memory: two to four bytes a chunk where chunks follow one another, as writers
//! of one-dimensional arrays put them. A store of 10^8 cells in chunks of 8 has 2.5 * 10^7 of them.

use super::{as_u64, to_usize};
use cellfeed_core::{Error, Result, RowOffsets};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of indexes that are kept for an array.
const KEPT_BYTES: usize = 256 << 20;

/// Where the chunks of a file are.
#[derive(Debug)]
pub(super) enum ShardIndex {
    /// The file is one chunk.
    Whole(u64),
    /// Chunks one behind the other from an offset on; of none of them is nothing stored but fill values.
    InOrder(u64, RowOffsets),
    Any(Vec<Option<Range<u64>>>),
}

impl ShardIndex {
    /// Reads the entries of an index that lies at `own` in a file of `length` bytes. Where bytes were lost
    /// from the midst of a shard whose index is at its end, chunks come to lie over the index.
    pub(super) fn new(entries: &[u8], length: u64, own: &Range<u64>) -> Result<Self> {
        let (words, _) = entries.as_chunks::<8>();
        let mut index = Vec::with_capacity(words.len() / 2);
        for (i, pair) in words.chunks_exact(2).enumerate() {
            let (offset, size) = (u64::from_le_bytes(pair[0]), u64::from_le_bytes(pair[1]));
            if offset == u64::MAX && size == u64::MAX {
                index.push(None);
                continue;
            }
            let what = match offset.checked_add(size) {
                Some(end) if end <= length && size > 0 => {
                    if offset >= own.end || end <= own.start {
                        index.push(Some(offset..end));
                        continue;
                    }
                    format!("the index itself is at {} to {}", own.start, own.end)
                }
                _ => format!("the file has {length} bytes"),
            };
            return Err(Error::corrupt(format!(
                "the shard's index puts inner chunk {i} at {offset} with {size} bytes, but {what}; copy \
                 the store again"
            ))
            .with("offset", own.start + as_u64(i) * 16));
        }
        Ok(Self::in_order(&index).unwrap_or(Self::Any(index)))
    }

    fn in_order(index: &[Option<Range<u64>>]) -> Option<Self> {
        let base = index.iter().flatten().next()?.start;
        let mut offsets = RowOffsets::builder();
        let mut end = base;
        offsets.extend([0]).ok()?;
        for range in index {
            if let Some(range) = range {
                (range.start == end).then_some(())?;
                end = range.end;
            }
            offsets.extend([end - base]).ok()?;
        }
        Some(Self::InOrder(base, offsets.finish()))
    }

    /// Where a chunk is; none if it is not stored.
    pub(super) fn get(&self, number: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole(length) => (number == 0).then_some(0..*length),
            Self::InOrder(base, offsets) if number < offsets.n_rows() => {
                // Offsets that are kept have every chunk below `n_rows`.
                let found = offsets.elements(number..number + 1).ok()?;
                (!found.is_empty()).then_some(base + found.start..base + found.end)
            }
            Self::InOrder(..) => None,
            Self::Any(index) => index.get(to_usize(number)).cloned().flatten(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::InOrder(_, offsets) => to_usize(offsets.n_rows()).saturating_mul(4),
            Self::Any(index) => index.len().saturating_mul(24),
        }
    }
}

/// The indexes of an array's shards that were read so far.
#[derive(Debug, Default)]
pub(crate) struct Indexes(Mutex<HashMap<String, Arc<ShardIndex>>>);

impl Indexes {
    pub(super) fn get(&self, name: &str) -> Option<Arc<ShardIndex>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    pub(super) fn keep(&self, name: &str, index: &Arc<ShardIndex>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = kept.values().map(|i| i.bytes()).sum::<usize>() + index.bytes();
        // Which one goes does not matter: rows are drawn at random.
        while bytes > KEPT_BYTES
            && let Some(any) = kept.keys().next().cloned()
        {
            bytes -= kept.remove(&any).map_or(0, |i| i.bytes());
        }
        kept.insert(name.to_owned(), Arc::clone(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(u64, u64)]) -> Vec<u8> {
        list.iter().flat_map(|(o, n)| [o.to_le_bytes(), n.to_le_bytes()].concat()).collect()
    }

    const NONE: (u64, u64) = (u64::MAX, u64::MAX);

    #[test]
    fn chunks_are_found_in_any_order() {
        let index = ShardIndex::new(&entries(&[NONE, (20, 5), NONE, (25, 75), NONE]), 100, &(0..0));
        let index = index.unwrap();
        assert!(matches!(index, ShardIndex::InOrder(20, _)));
        let found: Vec<_> = (0..7).map(|i| index.get(i)).collect();
        assert_eq!(found, [None, Some(20..25), None, Some(25..100), None, None, None]);
        let index = ShardIndex::new(&entries(&[(30, 5), (0, 30), NONE]), 35, &(35..35)).unwrap();
        assert!(matches!(index, ShardIndex::Any(_)));
        assert_eq!((index.get(0), index.get(1), index.get(2)), (Some(30..35), Some(0..30), None));
        let empty = ShardIndex::new(&entries(&[NONE, NONE]), 0, &(0..0)).unwrap();
        assert_eq!((empty.get(0), empty.get(1)), (None, None));
    }

    #[test]
    fn what_leads_outside_is_refused() {
        for bad in [(0, 101), (100, 1), (u64::MAX, 1), (1, u64::MAX), (5, 0), (u64::MAX, 0)] {
            let error = ShardIndex::new(&entries(&[(0, 5), bad]), 100, &(40..40)).unwrap_err();
            assert!(error.to_string().contains("offset 56"), "{error}");
        }
    }

    #[test]
    fn chunks_over_the_index_are_refused() {
        // An index of two at the end of 100 bytes, and at the start.
        for (own, sound, bad) in [(68..100, (60, 8), (61, 8)), (0..32, (32, 8), (31, 8))] {
            assert!(ShardIndex::new(&entries(&[NONE, sound]), 100, &own).is_ok());
            let error = ShardIndex::new(&entries(&[NONE, bad]), 100, &own).unwrap_err();
            assert!(error.to_string().contains("the index itself is at"), "{error}");
            assert_eq!(error.kind(), cellfeed_core::ErrorKind::Corrupt);
        }
    }
}
