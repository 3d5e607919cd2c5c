//! Weights of cells, and weighted sampling with replacement: a block by the sum of its weights, then
//! cells within it by weight, so that reading keeps its locality and every cell its exact share.

use super::random::Stream;
use super::subset::Subset;
use crate::rows::RowRanges;
use crate::{Error, Result, as_u64};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// A weight for every cell of a store: how much of an epoch's draws it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Cells(Arc<[f64]>),
    /// The class of each cell, and the weight of a cell of each class.
    Classes(Arc<[u32]>, Vec<f64>),
}

impl Weights {
    /// A weight for each cell of the store. Shared, not copied.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a weight that is negative, not a
    /// number or infinite, naming the cell.
    pub fn of_cells(weights: impl Into<Arc<[f64]>>) -> Result<Self> {
        let weights = weights.into();
        if let Some(row) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            return Err(Error::invalid_input(format!(
                "the weight of cell {row} is {}; weights must be finite and not negative",
                weights[row]
            )));
        }
        Ok(Self(Kind::Cells(weights)))
    }

    /// The weights that give every class of the subset the same share: for a cell, 1 over the cells of
    /// its class in the subset. `classes` has the class of each cell of the store; the codes of a
    /// categorical column serve.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a cell of the subset has none,
    /// or the length is not that of the store.
    pub fn balanced(classes: &[Option<u32>], subset: &Subset) -> Result<Self> {
        let known: BTreeSet<u32> = classes.iter().flatten().copied().collect();
        let known: HashMap<u32, u32> = known.into_iter().zip(0..).collect();
        let missing = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let code = |class: &Option<u32>| class.and_then(|c| known.get(&c)).copied();
        let codes = classes.iter().map(|class| code(class).unwrap_or(missing)).collect();
        Self::of_classes(codes, Some(missing), subset)
    }

    /// The same for classes that count from 0.
    pub(super) fn of_classes(
        codes: Vec<u32>,
        missing: Option<u32>,
        subset: &Subset,
    ) -> Result<Self> {
        check_len(codes.len(), subset, "classes")?;
        let mut counts: Vec<u64> = Vec::new();
        let mut without = 0u64;
        let mut first = None;
        for_rows(subset, |row| match codes.get(row) {
            Some(code) if Some(*code) != missing => {
                let at = usize::try_from(*code).unwrap_or(usize::MAX);
                if at >= counts.len() {
                    counts.resize(at + 1, 0);
                }
                counts[at] += 1;
            }
            _ => {
                without += 1;
                first.get_or_insert(row);
            }
        });
        if let Some(row) = first {
            return Err(Error::invalid_input(format!(
                "{without} cells have no class, the first is cell {row}; leave them out of the \
                 subset, as by the condition 'COLUMN is present', or give them a class of their own"
            )));
        }
        // Classes outside the subset are never asked for.
        let weights = counts.into_iter().map(|n| if n > 0 { 1.0 / n as f64 } else { 0.0 });
        Ok(Self(Kind::Classes(codes.into(), weights.collect())))
    }

    fn len(&self) -> usize {
        match &self.0 {
            Kind::Cells(weights) => weights.len(),
            Kind::Classes(codes, _) => codes.len(),
        }
    }

    pub(super) fn of(&self, row: usize) -> f64 {
        match &self.0 {
            Kind::Cells(weights) => weights.get(row).copied().unwrap_or(0.0),
            Kind::Classes(codes, weights) => {
                let code = codes.get(row).and_then(|&c| usize::try_from(c).ok());
                code.and_then(|c| weights.get(c)).copied().unwrap_or(0.0)
            }
        }
    }

    /// The positive weights of a subset's cells that are below a limit. Sums are taken over 65,536 cells
    /// and then over these sums, so that rounding does not grow with the cells.
    pub(super) fn sums(&self, subset: &Subset, limit: f64) -> Sums {
        let mut sums = Sums { total: 0.0, heaviest: 0.0, positive: 0 };
        let (mut part, mut cells) = (0.0, 0u32);
        for_rows(subset, |row| {
            let weight = self.of(row);
            if weight > 0.0 && weight < limit {
                part += weight;
                sums.positive += 1;
                sums.heaviest = weight.max(sums.heaviest);
            }
            cells += 1;
            if cells.is_multiple_of(1 << 16) {
                sums.total += part;
                part = 0.0;
            }
        });
        sums.total += part;
        sums
    }

    /// All of them, if there is one for each cell and they can be drawn from.
    pub(super) fn checked_sums(&self, subset: &Subset) -> Result<Sums> {
        check_len(self.len(), subset, "weights")?;
        let sums = self.sums(subset, f64::INFINITY);
        if !sums.total.is_finite() || sums.total <= 0.0 {
            return Err(Error::invalid_input(format!(
                "the weights of the subset's {} cells add up to {}; it must be more than 0 and \
                 finite",
                subset.n_cells(),
                sums.total
            )));
        }
        Ok(sums)
    }

    /// A hash of the weights of a subset's cells.
    pub(super) fn digest(&self, subset: &Subset) -> u64 {
        let mut hash = Xxh3::new();
        for_rows(subset, |row| hash.update(&self.of(row).to_le_bytes()));
        hash.digest()
    }
}

/// What the positive weights of some cells are together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub(super) total: f64,
    pub(super) heaviest: f64,
    /// How many there are.
    pub(super) positive: u64,
}

fn check_len(len: usize, subset: &Subset, what: &str) -> Result<()> {
    if as_u64(len) == subset.n_obs() {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "there are {len} {what} for {} cells; there must be one for each cell of the store",
        subset.n_obs()
    )))
}

/// Calls `f` with every row of the subset, in order.
fn for_rows(subset: &Subset, mut f: impl FnMut(usize)) {
    let mut at = 0;
    while at < subset.n_cells() {
        let end = (at + (1 << 16)).min(subset.n_cells());
        let mut rows = RowRanges::empty();
        subset.rows(at..end, &mut rows);
        rows.iter_rows().filter_map(|row| usize::try_from(row).ok()).for_each(&mut f);
        at = end;
    }
}

/// The table of a weighted plan: for each block the sum of the weights up to its end, 8 bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    weights: Weights,
    sums: Arc<[f64]>,
    block_size: u64,
    digest: u64,
}

impl Eq for Table {}

impl Table {
    pub(super) fn new(weights: Weights, subset: &Subset, block_size: u64) -> Result<Self> {
        weights.checked_sums(subset)?;
        let n = usize::try_from(subset.n_cells().div_ceil(block_size)).unwrap_or(usize::MAX);
        let mut sums = Vec::with_capacity(n);
        let (mut sum, mut block, mut cells) = (0.0, 0.0, 0);
        for_rows(subset, |row| {
            block += weights.of(row);
            cells += 1;
            if cells == block_size {
                sum += block;
                sums.push(sum);
                (block, cells) = (0.0, 0);
            }
        });
        if cells > 0 {
            sum += block;
            sums.push(sum);
        }
        let digest = weights.digest(subset);
        Ok(Self { weights, sums: sums.into(), block_size, digest })
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// `count` cells as numbers in the subset, with repeats, sorted.
    pub(super) fn draw(&self, subset: &Subset, count: u64, mut stream: Stream) -> Vec<u64> {
        let mut out = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        let total = self.sums.last().copied().unwrap_or(0.0);
        let mut weights = Vec::new();
        let mut left = count;
        while left > 0 {
            let u = stream.unit() * total;
            let last = self.sums.partition_point(|&s| s < total);
            let block = self.sums.partition_point(|&s| s <= u).min(last);
            let cells = self.cells(as_u64(block), subset.n_cells());
            weights.clear();
            let mut rows = RowRanges::empty();
            subset.rows(cells.clone(), &mut rows);
            weights.extend(
                rows.iter_rows().map(|r| self.weights.of(usize::try_from(r).unwrap_or(usize::MAX))),
            );
            // A block gives as many cells as blocks have, by one random start and equal steps: a
            // cell comes as often as its weight says, rounded down or up.
            let step = weights.iter().fold(0.0, |a, w| a + w) / self.block_size as f64;
            let mut next = stream.unit() * step;
            let mut sum = 0.0;
            let mut drawn = 0;
            let mut heaviest = (0.0, cells.start);
            let mut of_block = Vec::with_capacity(usize::try_from(self.block_size).unwrap_or(0));
            for (cell, weight) in cells.zip(&weights) {
                sum += weight;
                if *weight > heaviest.0 {
                    heaviest = (*weight, cell);
                }
                while next < sum && drawn < self.block_size {
                    of_block.push(cell);
                    drawn += 1;
                    next += step;
                }
            }
            // Rounding may leave the last point past the sum.
            while drawn < self.block_size {
                of_block.push(heaviest.1);
                drawn += 1;
            }
            // The last block of a fetch may give fewer, any of them.
            if left < self.block_size {
                let mut order: Vec<u32> = (0..u32::try_from(drawn).unwrap_or(u32::MAX)).collect();
                stream.shuffle(&mut order);
                let chosen = order.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
                out.extend(chosen.filter_map(|&i| of_block.get(usize::try_from(i).ok()?)));
                break;
            }
            out.extend_from_slice(&of_block);
            left -= self.block_size;
        }
        out.sort_unstable();
        out
    }

    fn cells(&self, block: u64, n: u64) -> Range<u64> {
        block * self.block_size..((block + 1) * self.block_size).min(n)
    }
}
