//! Where the chunks of a dataset lie: 16 bytes a chunk, checked once when the table is made.
//!
//! The grid is the dataset's shape divided by the chunk shape, rounded up. Slots are numbered in
//! row-major order, so a one-dimensional array's slot is `element / chunk_shape[0]`.

use std::ops::Range;

use cellfeed_core::{Error, ErrorKind, Result};

/// The file offset that stands for a chunk which was never written.
const ABSENT: u64 = u64::MAX;

/// A file without a chunk for nearly every slot is sparse; up to this many slots that is always
/// accepted, beyond it at most [`SPARSITY`] slots a stored chunk.
const SMALL_GRID: u64 = 1 << 20;
const SPARSITY: u64 = 64;

/// One stored chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredChunk {
    /// Where its bytes start in the file, a userblock included.
    pub(crate) offset: u64,
    /// How many they are, after the filters.
    pub(crate) size: u32,
    /// Bit i set: filter i of the pipeline was left out of this chunk.
    pub(crate) filter_mask: u32,
}

impl StoredChunk {
    /// Its bytes in the file.
    pub(crate) fn range(self) -> Range<u64> {
        // Checked when the table was made.
        self.offset..self.offset.saturating_add(u64::from(self.size))
    }
}

/// Every chunk of a dataset. What it says was checked: offsets and sizes lie inside the file, each
/// slot has one chunk at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkTable {
    grid: Vec<u64>,
    offsets: Vec<u64>,
    sizes: Vec<u32>,
    masks: Vec<u32>,
    stored: usize,
}

impl ChunkTable {
    /// Chunks in each dimension.
    #[cfg(test)]
    pub(crate) fn grid(&self) -> &[u64] {
        &self.grid
    }

    /// Slots of the grid.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Slots that have a chunk in the file.
    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    /// Bytes of the largest stored chunk.
    pub(crate) fn largest(&self) -> u32 {
        self.sizes.iter().copied().max().unwrap_or(0)
    }

    /// The chunk of a slot; `None` if it was never written (its elements are the fill value), or
    /// past the grid.
    pub(crate) fn get(&self, slot: usize) -> Option<StoredChunk> {
        let (&offset, &size, &filter_mask) =
            (self.offsets.get(slot)?, self.sizes.get(slot)?, self.masks.get(slot)?);
        (offset != ABSENT).then_some(StoredChunk { offset, size, filter_mask })
    }
}

/// Makes a [`ChunkTable`] from chunks in any order.
#[derive(Debug)]
pub(crate) struct ChunkTableBuilder {
    chunk_shape: Vec<u64>,
    file_len: u64,
    table: ChunkTable,
}

/// The chunk grid of a shape and the number of its slots; an error if it cannot be.
pub(crate) fn grid_of(shape: &[u64], chunk_shape: &[u64]) -> Result<(Vec<u64>, u64)> {
    if shape.is_empty() || shape.len() != chunk_shape.len() || chunk_shape.contains(&0) {
        return Err(Error::corrupt(format!(
            "chunks of shape {chunk_shape:?} cannot hold a dataset of shape {shape:?}"
        )));
    }
    let grid: Vec<u64> = shape.iter().zip(chunk_shape).map(|(s, c)| s.div_ceil(*c)).collect();
    let slots = grid
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d))
        .ok_or_else(|| Error::corrupt(format!("the grid of chunks {grid:?} overflows")))?;
    Ok((grid, slots))
}

/// Refuses a grid that a file of this length cannot be describing, before anything of its size is
/// allocated. An index takes at least eight bytes a slot, so a full grid always passes.
pub(crate) fn check_grid(slots: u64, file_len: u64, limit: u64) -> Result<()> {
    if slots > limit {
        return Err(Error::unsupported(format!(
            "the dataset has {slots} chunks, more than the {limit} that are read"
        )));
    }
    if slots > (file_len / 8).max(SMALL_GRID) {
        return Err(Error::corrupt(format!(
            "the dataset claims {slots} chunks, more than a file of {file_len} bytes can index"
        )));
    }
    Ok(())
}

impl ChunkTableBuilder {
    /// An empty table. `listed` is how many chunks the index lists, which bounds the grid.
    pub(crate) fn new(
        shape: &[u64],
        chunk_shape: &[u64],
        listed: usize,
        file_len: u64,
    ) -> Result<Self> {
        let (grid, slots) = grid_of(shape, chunk_shape)?;
        let listed = u64::try_from(listed).unwrap_or(u64::MAX);
        if listed > slots {
            return Err(Error::corrupt(format!(
                "the index lists {listed} chunks for a grid of {slots}"
            )));
        }
        if slots > listed.saturating_mul(SPARSITY).max(SMALL_GRID) {
            return Err(Error::unsupported(format!(
                "only {listed} of {slots} chunks were ever written; rewrite the file densely"
            )));
        }
        let slots = usize::try_from(slots)
            .map_err(|_| Error::unsupported("the grid of chunks is beyond this machine"))?;
        let mut table = ChunkTable {
            grid,
            offsets: Vec::new(),
            sizes: Vec::new(),
            masks: Vec::new(),
            stored: 0,
        };
        reserve(&mut table.offsets, slots, ABSENT)?;
        reserve(&mut table.sizes, slots, 0)?;
        reserve(&mut table.masks, slots, 0)?;
        Ok(Self { chunk_shape: chunk_shape.to_vec(), file_len, table })
    }

    /// Adds the chunk whose first element is at `first`.
    pub(crate) fn push(
        &mut self,
        first: &[u64],
        offset: u64,
        size: u64,
        filter_mask: u32,
    ) -> Result<()> {
        let slot = self.slot_of(first)?;
        let size = u32::try_from(size).map_err(|_| {
            Error::corrupt(format!("the chunk at {first:?} claims {size} bytes, beyond 4 GiB"))
        })?;
        let end = offset.checked_add(u64::from(size));
        if end.is_none_or(|end| end > self.file_len) {
            return Err(Error::corrupt(format!(
                "the chunk at {first:?} lies past the end of the file: {size} bytes at {offset} \
                 in a file of {} bytes",
                self.file_len
            ))
            .with("offset", offset));
        }
        let table = &mut self.table;
        match (table.offsets.get_mut(slot), table.sizes.get_mut(slot), table.masks.get_mut(slot)) {
            (Some(o), Some(s), Some(m)) if *o == ABSENT => {
                *o = offset;
                *s = size;
                *m = filter_mask;
                table.stored += 1;
                Ok(())
            }
            (Some(_), ..) => {
                Err(Error::corrupt(format!("the index lists the chunk at {first:?} twice")))
            }
            _ => Err(Error::internal("a chunk slot lies past the table")),
        }
    }

    /// The finished table.
    pub(crate) fn finish(self) -> ChunkTable {
        self.table
    }

    fn slot_of(&self, first: &[u64]) -> Result<usize> {
        let wrong = || {
            Error::corrupt(format!(
                "the index lists a chunk at {first:?}, which is not on the grid of {:?} chunks of \
                 shape {:?}",
                self.table.grid, self.chunk_shape
            ))
        };
        if first.len() != self.chunk_shape.len() {
            return Err(wrong());
        }
        let mut slot = 0u64;
        for ((&at, &edge), &count) in first.iter().zip(&self.chunk_shape).zip(&self.table.grid) {
            let position = at / edge;
            if at % edge != 0 || position >= count {
                return Err(wrong());
            }
            // Below the number of slots, which was computed without overflow.
            slot = slot.saturating_mul(count).saturating_add(position);
        }
        usize::try_from(slot).map_err(|_| wrong())
    }
}

fn reserve<T: Clone>(to: &mut Vec<T>, len: usize, value: T) -> Result<()> {
    to.try_reserve_exact(len).map_err(|_| {
        Error::new(ErrorKind::OverBudget, format!("no memory for a table of {len} chunks"))
    })?;
    to.resize(len, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_in_row_major_order_and_knows_what_was_never_written() {
        let mut b = ChunkTableBuilder::new(&[5, 7], &[2, 4], 2, 1000).unwrap();
        b.push(&[2, 4], 100, 50, 0).unwrap();
        b.push(&[4, 0], 900, 100, 1).unwrap();
        let t = b.finish();
        assert_eq!((t.grid(), t.len(), t.stored()), (&[3, 2][..], 6, 2));
        assert_eq!(t.get(3), Some(StoredChunk { offset: 100, size: 50, filter_mask: 0 }));
        assert_eq!(t.get(4).unwrap().range(), 900..1000);
        assert_eq!((t.get(0), t.get(6)), (None, None));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut b = ChunkTableBuilder::new(&[10], &[4], 3, 1000).unwrap();
        b.push(&[4], 10, 10, 0).unwrap();
        for (first, offset, size, why) in [
            (vec![4], 30, 10, "twice"),
            (vec![5], 30, 10, "not on the grid"),
            (vec![12], 30, 10, "not on the grid"),
            (vec![0, 0], 30, 10, "not on the grid"),
            (vec![0], 995, 10, "past the end"),
            (vec![0], u64::MAX, 10, "past the end"),
            (vec![0], 0, 1 << 32, "4 GiB"),
        ] {
            let error = b.push(&first, offset, size, 0).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        assert!(ChunkTableBuilder::new(&[10], &[4], 4, 1000).is_err(), "more chunks than slots");
        assert!(ChunkTableBuilder::new(&[1 << 40], &[4], 3, 1000).is_err(), "sparse beyond reason");
        assert!(ChunkTableBuilder::new(&[10], &[0], 1, 1000).is_err());
        assert!(ChunkTableBuilder::new(&[u64::MAX, u64::MAX], &[1, 1], 1, 1000).is_err());
        assert!(check_grid(1 << 30, 1 << 20, 1 << 40).is_err());
        assert!(check_grid(1 << 17, 1 << 20, 1 << 40).is_ok());
    }
}
