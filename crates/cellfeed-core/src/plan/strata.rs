//! The blocks of a subset sorted by a label: what stratified shuffling by label deals from, so that
//! each fetch has of every label what the whole subset has of it.

use super::subset::Subset;
use crate::{Error, Result, as_u64};
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The blocks of a subset, sorted by the label that most of their cells have and then by position: four
/// bytes a block. Made by [`StrataBuilder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strata {
    name: Arc<str>,
    block_size: u64,
    subset: u64,
    blocks: Arc<[u32]>,
    digest: u64,
}

impl Strata {
    /// What the blocks are sorted by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cells of a block.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.block_size
    }

    /// The numbers of the blocks in their order. Cells that fill no block are in none.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// A hash of the order.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Which block stands at a place of the order.
    pub(super) fn block(&self, place: u64) -> u64 {
        usize::try_from(place).ok().and_then(|p| self.blocks.get(p)).copied().map_or(0, u64::from)
    }

    /// Refuses a subset or a block size other than those that the order was made for.
    pub(super) fn check(&self, subset: &Subset, block_size: u64) -> Result<()> {
        if self.subset == subset.digest() && self.block_size == block_size {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "the strata by {} are of another subset or of blocks of {} cells; make them for the \
             plan's subset and blocks of {block_size}",
            self.name, self.block_size
        )))
    }
}

/// Takes the labels of a subset's cells, in file order and piece by piece, and sorts its blocks. Needs
/// eight bytes a block while it does.
///
/// ```
/// use cellfeed_core::{StrataBuilder, Subset};
///
/// // Nine cells, blocks of two: the last cell fills none.
/// let mut builder = StrataBuilder::new(&Subset::all(9), 2, "drug")?;
/// builder.push(&[&[0, 0, 1, 1, 1, 0, 0, 0, 2]])?;
/// assert_eq!(builder.finish()?.blocks(), [0, 3, 1, 2]);
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug)]
pub struct StrataBuilder {
    name: Arc<str>,
    block_size: u64,
    subset: u64,
    n_cells: u64,
    seen: u64,
    /// Labels that occurred, which are the codes of all columns together, and their numbers.
    known: HashMap<Vec<u32>, usize>,
    last: Option<(Vec<u32>, usize)>,
    /// Cells of the open block, by label, and which labels it has, in the order of their first cells.
    counts: Vec<u64>,
    present: Vec<usize>,
    /// The label of each block.
    labels: Vec<u32>,
}

impl StrataBuilder {
    /// No labels yet. `name` says what the labels are, for messages.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for blocks of no cells, and for
    /// 2^32 blocks or more.
    pub fn new(subset: &Subset, block_size: u64, name: &str) -> Result<Self> {
        if block_size == 0 {
            return Err(Error::invalid_input("block_size is 0; it must be at least 1"));
        }
        let blocks = subset.n_cells() / block_size;
        if u32::try_from(blocks).is_err() {
            return Err(Error::invalid_input(format!(
                "{blocks} blocks are too many to sort by label; raise block_size, or stratify by \
                 position, which needs no table"
            )));
        }
        Ok(Self {
            name: name.into(),
            block_size,
            subset: subset.digest(),
            n_cells: subset.n_cells(),
            seen: 0,
            known: HashMap::new(),
            last: None,
            counts: Vec::new(),
            present: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// Adds the labels of the cells that follow: one list of codes for each column, all equally long. A
    /// label is what a cell has in all of them; labels are sorted by the code in the first column, then
    /// by that in the second, and so on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for lists of different lengths, and
    /// for more cells than the subset has.
    pub fn push(&mut self, columns: &[&[u32]]) -> Result<()> {
        let n = columns.first().map_or(0, |c| c.len());
        if columns.iter().any(|c| c.len() != n) || as_u64(n) > self.n_cells - self.seen {
            return Err(self.wrong_length(self.seen.saturating_add(as_u64(n))));
        }
        let mut label = Vec::with_capacity(columns.len());
        for cell in 0..n {
            label.clear();
            label.extend(columns.iter().filter_map(|c| c.get(cell)));
            let number = self.number(&label);
            if self.counts[number] == 0 {
                self.present.push(number);
            }
            self.counts[number] += 1;
            self.seen += 1;
            if self.seen.is_multiple_of(self.block_size) {
                self.close();
            }
        }
        Ok(())
    }

    fn number(&mut self, label: &[u32]) -> usize {
        if let Some((last, number)) = &self.last
            && last == label
        {
            return *number;
        }
        let number = self.known.get(label).copied().unwrap_or_else(|| {
            let number = self.known.len();
            self.known.insert(label.to_vec(), number);
            self.counts.push(0);
            number
        });
        self.last = Some((label.to_vec(), number));
        number
    }

    /// Ends a block: it has the label of most of its cells, of equals that which comes first in it.
    fn close(&mut self) {
        let mut most = (0, 0);
        for number in self.present.drain(..) {
            let count = std::mem::take(&mut self.counts[number]);
            if count > most.0 {
                most = (count, number);
            }
        }
        // There are fewer labels than blocks' cells, but might be 2^32: then the last share a number.
        self.labels.push(u32::try_from(most.1).unwrap_or(u32::MAX));
    }

    /// Sorts the blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if cells of the subset got no
    /// label.
    pub fn finish(self) -> Result<Strata> {
        if self.seen != self.n_cells {
            return Err(self.wrong_length(self.seen));
        }
        let mut sorted: Vec<(&Vec<u32>, usize)> = self.known.iter().map(|(l, &n)| (l, n)).collect();
        sorted.sort_unstable();
        let mut rank = vec![0u32; sorted.len()];
        for ((_, number), at) in sorted.into_iter().zip(0..) {
            rank[number] = at;
        }
        let rank = |label: u32| usize::try_from(label).ok().and_then(|l| rank.get(l)).copied();
        let mut blocks: Vec<u32> = (0..).take(self.labels.len()).collect();
        let label = |block: u32| self.labels.get(usize::try_from(block).ok()?).copied();
        // Stable: blocks of one label stay in the order of the file.
        blocks.sort_by_key(|&block| label(block).and_then(rank));
        let mut hash = Xxh3::new();
        hash.update(&self.block_size.to_le_bytes());
        for block in &blocks {
            hash.update(&block.to_le_bytes());
        }
        Ok(Strata {
            name: self.name,
            block_size: self.block_size,
            subset: self.subset,
            blocks: blocks.into(),
            digest: hash.digest(),
        })
    }

    fn wrong_length(&self, labels: u64) -> Error {
        Error::invalid_input(format!(
            "there are {labels} labels of {} for {} cells; each column must have one for each cell \
             of the subset",
            self.name, self.n_cells
        ))
    }
}
