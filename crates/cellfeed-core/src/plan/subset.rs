//! Which cells of a store a plan chooses from, in file order.
//!
//! A subset is held as runs of rows where these are few, 16 bytes a run, else as a bitmap with a
//! directory, 9 bits a cell of the store. Whichever is smaller: never more than 1.13 bytes for 8 cells.

use crate::rows::RowRanges;
use crate::{Error, Result, as_u64};
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// Cells of a store that a plan chooses from: all of them, or those of a list, a mask or a
/// condition.
///
/// ```
/// use cellfeed_core::{Plan, PlanOptions, Strategy, Subset};
///
/// let subset = Subset::from_mask([true, false, true, true, true])?;
/// assert_eq!((subset.n_cells(), subset.n_obs()), (4, 5));
/// let plan = Plan::over(subset, Strategy::TrueRandom, &PlanOptions::default())?;
/// assert_eq!(plan.fetch(0, 0)?.rows().as_slice(), &[0..1, 2..5]);
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    n_obs: u64,
    n_cells: u64,
    digest: u64,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    All,
    /// The first row of each run, and how many cells come before it.
    Runs {
        starts: Vec<u64>,
        before: Vec<u64>,
    },
    /// A bit a cell, and how many are set before each eight words.
    Bits {
        words: Vec<u64>,
        before: Vec<u64>,
    },
}

/// Cells whose obs columns are read at once.
pub(super) const STEP: u64 = 1 << 20;

/// Words of the bitmap for each entry of its directory.
const STRIDE: usize = 8;

impl Subset {
    /// Every cell.
    #[must_use]
    pub fn all(n_obs: u64) -> Self {
        let mut state = Xxh3::new();
        if n_obs > 0 {
            hash_run(&mut state, &(0..n_obs));
        }
        Self { n_obs, n_cells: n_obs, digest: state.digest(), form: Form::All }
    }

    /// The cells at `rows`, in any order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there are none or one repeats,
    /// `OutOfBounds` for a row past `n_obs`.
    pub fn from_rows(n_obs: u64, rows: &[u64]) -> Result<Self> {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        let mut builder = SubsetBuilder::new(n_obs);
        for &row in &rows {
            // No row is the largest number, so that one is past the end.
            builder.push(row.min(u64::MAX - 1)..row.saturating_add(1))?;
        }
        builder.finish()
    }

    /// The cells in ranges of rows.
    ///
    /// # Errors
    /// As [`from_rows`](Self::from_rows).
    pub fn from_ranges(n_obs: u64, rows: &RowRanges) -> Result<Self> {
        let mut builder = SubsetBuilder::new(n_obs);
        for range in rows.as_slice() {
            builder.push(range.clone())?;
        }
        builder.finish()
    }

    /// The cells whose value in a mask over all cells is true.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there are none.
    pub fn from_mask<M>(mask: M) -> Result<Self>
    where
        M: IntoIterator<Item = bool, IntoIter: ExactSizeIterator>,
    {
        let mask = mask.into_iter();
        let mut builder = SubsetBuilder::new(as_u64(mask.len()));
        for (row, _) in (0u64..).zip(mask).filter(|(_, chosen)| *chosen) {
            builder.push(row..row + 1)?;
        }
        builder.finish()
    }

    /// Cells of the store.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.n_obs
    }

    /// Cells of the subset.
    #[must_use]
    pub fn n_cells(&self) -> u64 {
        self.n_cells
    }

    /// A hash of the rows: equal for equal subsets of stores of any size.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        match &self.form {
            Form::All => 0,
            Form::Runs { starts: a, before: b } | Form::Bits { words: a, before: b } => {
                (a.capacity() + b.capacity()) * 8
            }
        }
    }

    /// Appends the rows of the cells numbered `span` in the subset, which must not reach past it.
    pub(crate) fn rows(&self, span: Range<u64>, out: &mut RowRanges) {
        debug_assert!(span.end <= self.n_cells);
        let mut at = span.start;
        match &self.form {
            Form::All => out.push(span),
            Form::Runs { starts, before } => {
                let mut run = before.partition_point(|&b| b <= at).saturating_sub(1);
                while at < span.end && run < starts.len() {
                    let next = before.get(run + 1).copied().unwrap_or(self.n_cells);
                    let end = next.min(span.end);
                    let first = starts[run] + (at - before[run]);
                    out.push(first..first + (end - at));
                    (at, run) = (end, run + 1);
                }
            }
            Form::Bits { words, before } => {
                while at < span.end {
                    let first = select(words, before, at);
                    let run = ones_from(words, first, span.end - at);
                    out.push(first..first + run);
                    at += run;
                }
            }
        }
    }
}

/// The place of the set bit number `k`, which must exist.
fn select(words: &[u64], before: &[u64], k: u64) -> u64 {
    let group = before.partition_point(|&b| b <= k).saturating_sub(1);
    let mut left = k - before[group];
    let first = group * STRIDE;
    for (i, &word) in words.iter().enumerate().skip(first).take(STRIDE) {
        let ones = u64::from(word.count_ones());
        if left < ones {
            let mut word = word;
            for _ in 0..left {
                word &= word - 1;
            }
            return as_u64(i) * 64 + u64::from(word.trailing_zeros());
        }
        left -= ones;
    }
    0
}

/// How many set bits follow each other from `place` on, at most `most`.
fn ones_from(words: &[u64], place: u64, most: u64) -> u64 {
    let mut run = 0;
    while run < most {
        let at = place + run;
        let word = usize::try_from(at / 64).ok().and_then(|i| words.get(i)).copied();
        let ones = u64::from((word.unwrap_or(0) >> (at % 64)).trailing_ones());
        run += ones;
        if ones == 0 || !(place + run).is_multiple_of(64) {
            break;
        }
    }
    run.min(most)
}

fn hash_run(state: &mut Xxh3, run: &Range<u64>) {
    state.update(&run.start.to_le_bytes());
    state.update(&run.end.to_le_bytes());
}

/// Makes a [`Subset`] from ascending rows, piece by piece, in memory that it bounds as the subset's.
pub struct SubsetBuilder {
    n_obs: u64,
    n_cells: u64,
    /// The last run, which may still grow.
    open: Range<u64>,
    hash: Xxh3,
    starts: Vec<u64>,
    before: Vec<u64>,
    bits: Option<Vec<u64>>,
}

impl std::fmt::Debug for SubsetBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubsetBuilder").field("n_cells", &self.n_cells).finish_non_exhaustive()
    }
}

impl SubsetBuilder {
    /// No cells yet, of a store of `n_obs`.
    #[must_use]
    pub fn new(n_obs: u64) -> Self {
        Self {
            n_obs,
            n_cells: 0,
            open: 0..0,
            hash: Xxh3::new(),
            starts: Vec::new(),
            before: Vec::new(),
            bits: None,
        }
    }

    /// Adds rows after all those before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if they do not ascend,
    /// `OutOfBounds` past the store's last cell.
    pub fn push(&mut self, rows: Range<u64>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if rows.end > self.n_obs {
            return Err(Error::out_of_bounds(format!(
                "the subset has row {}, but the store has {} cells",
                rows.end - 1,
                self.n_obs
            )));
        }
        if rows.start < self.open.end {
            return Err(Error::invalid_input(format!(
                "row {} comes twice in the subset; each cell can be in it once",
                rows.start
            )));
        }
        if rows.start == self.open.end && !self.open.is_empty() {
            self.open.end = rows.end;
        } else {
            self.close();
            self.open = rows;
        }
        Ok(())
    }

    /// Stores the run that was open.
    fn close(&mut self) {
        let run = self.open.clone();
        if run.is_empty() {
            return;
        }
        hash_run(&mut self.hash, &run);
        if let Some(words) = &mut self.bits {
            set_bits(words, &run);
        } else {
            self.starts.push(run.start);
            self.before.push(self.n_cells);
            // A run takes 128 bits, a cell in the bitmap 9/8.
            if as_u64(self.starts.len()) > self.n_obs / 114 + 8 {
                self.bits = Some(self.to_bits(self.n_cells + (run.end - run.start)));
                (self.starts, self.before) = (Vec::new(), Vec::new());
            }
        }
        self.n_cells += run.end - run.start;
    }

    fn to_bits(&self, n_cells: u64) -> Vec<u64> {
        let n = usize::try_from(self.n_obs.div_ceil(64)).unwrap_or(usize::MAX);
        let mut words = vec![0; n];
        let ends = self.before.iter().skip(1).copied().chain([n_cells]);
        for ((&start, &before), end) in self.starts.iter().zip(&self.before).zip(ends) {
            set_bits(&mut words, &(start..start + (end - before)));
        }
        words
    }

    /// The subset.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it has no cell.
    pub fn finish(mut self) -> Result<Subset> {
        self.close();
        if self.n_cells == 0 {
            return Err(Error::invalid_input(format!(
                "the subset is empty: none of {} cells is in it",
                self.n_obs
            )));
        }
        let form = match self.bits {
            _ if self.n_cells == self.n_obs => Form::All,
            Some(words) => {
                let mut sum = 0;
                let before = words.chunks(STRIDE).map(|group| {
                    let here = sum;
                    sum += group.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
                    here
                });
                let before = before.collect();
                Form::Bits { words, before }
            }
            None => {
                self.starts.shrink_to_fit();
                self.before.shrink_to_fit();
                Form::Runs { starts: self.starts, before: self.before }
            }
        };
        Ok(Subset { n_obs: self.n_obs, n_cells: self.n_cells, digest: self.hash.digest(), form })
    }
}

fn set_bits(words: &mut [u64], run: &Range<u64>) {
    let mut at = run.start;
    while at < run.end {
        let end = ((at / 64 + 1) * 64).min(run.end);
        let ones = u64::MAX >> (64 - (end - at));
        if let Some(word) = usize::try_from(at / 64).ok().and_then(|i| words.get_mut(i)) {
            *word |= ones << (at % 64);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn spans_of_cells_are_rows(
            parts in prop::collection::vec((0usize..200, any::<bool>(), 1usize..4), 1..60),
            from: u16, len: u16,
        ) {
            // Long runs, and stretches where every second or third cell is in.
            let mut mask = vec![false];
            for (n, dense, step) in parts {
                mask.extend((0..n).map(|i| dense || i % (step + 1) == 0));
                mask.extend(vec![false; n * step * usize::from(dense)]);
            }
            let rows: Vec<u64> = (0u64..).zip(&mask).filter(|(_, m)| **m).map(|(r, _)| r).collect();
            let n = mask.len() as u64;
            let Ok(subset) = Subset::from_mask(mask.iter().copied()) else {
                prop_assert!(rows.is_empty());
                return Ok(());
            };
            prop_assert_eq!(subset.n_cells(), rows.len() as u64);
            // What vectors may have spare is not much either.
            prop_assert!(subset.n_bytes() as u64 <= n / 7 + 400, "{} of {n}", subset.n_bytes());
            let start = usize::from(from) % rows.len();
            let end = (start + usize::from(len) % 500).min(rows.len());
            let mut got = RowRanges::empty();
            subset.rows(start as u64..end as u64, &mut got);
            prop_assert_eq!(got.iter_rows().collect::<Vec<_>>(), rows[start..end].to_vec());
            let mut mixed = rows.clone();
            mixed.reverse();
            prop_assert_eq!(&Subset::from_rows(n, &mixed).unwrap(), &subset);
            let ranges = RowRanges::try_from_rows(&rows).unwrap();
            prop_assert_eq!(&Subset::from_ranges(n, &ranges).unwrap(), &subset);
        }
    }

    #[test]
    fn bad_subsets_are_named() {
        let message = |rows: &[u64]| Subset::from_rows(10, rows).unwrap_err().to_string();
        assert!(message(&[]).contains("empty"));
        assert!(message(&[3, 10]).contains("row 10, but the store has 10 cells"));
        assert!(message(&[u64::MAX]).contains("the store has 10 cells"));
        assert!(message(&[3, 5, 3]).contains("row 3 comes twice"));
        assert!(Subset::from_mask(vec![false; 5]).is_err());
        let all: Vec<u64> = (0..10).collect();
        assert_eq!(Subset::from_rows(10, &all).unwrap(), Subset::all(10));
    }
}
