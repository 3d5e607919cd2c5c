//! A label counted in the stretches that stratified block shuffling draws from: how alike cells of
//! different blocks are, and what a fetch has of each label.

use super::labels::index;
use super::numbers::{MeanPhi, Probabilities};
use super::structure::chance;
use crate::as_u64;
use std::collections::HashMap;

/// Random cuts of the ring into stretches that the mean is taken over, evenly spaced.
const CUTS: u64 = 8;

/// The same for distributions, which cost more.
const CUTS_OF_FETCHES: u64 = 4;

/// Steps in which the cells of a label in a fetch are told apart, over 24 standard deviations.
const STEPS: f64 = 2048.0;

/// A list of blocks of `b` cells, which a fetch takes `per_fetch` of: one of each of as many equal
/// stretches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strata<'a> {
    codes: &'a [u32],
    counts: &'a [u64],
    b: usize,
    /// The blocks in the order of the list; without it, in file order.
    order: Option<&'a [u32]>,
    n: u64,
    per_fetch: u64,
}

/// Correlations of two cells of different blocks: plain, and with each label weighed by `1 / p_k`, as
/// the entropy weighs it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Apart {
    /// In one fetch: of different stretches.
    pub(super) in_fetch: [f64; 2],
    /// The same in the last fetch, which has a block of the longer stretches alone.
    pub(super) in_last: [f64; 2],
    /// In different fetches.
    pub(super) across: [f64; 2],
}

/// One stretch, counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    /// `|mu - p|^2`, with `mu` the shares of labels in the stretch.
    mean: [f64; 2],
    /// The variance of the shares in a block drawn from the stretch.
    within: [f64; 2],
}

impl<'a> Strata<'a> {
    /// Strata of the full blocks of codes; an order must have each of these once.
    pub(super) fn new(
        codes: &'a [u32],
        counts: &'a [u64],
        b: u64,
        per_fetch: u64,
        order: Option<&'a [u32]>,
    ) -> Self {
        let b = usize::try_from(b.max(1)).unwrap_or(usize::MAX);
        Self { codes, counts, b, order, n: as_u64(codes.len() / b), per_fetch: per_fetch.max(1) }
    }

    /// Blocks of the last fetch, if the list does not fill it.
    pub(super) fn rest(self) -> u64 {
        self.n % self.per_fetch
    }

    /// Where stretch `i` begins on the ring.
    fn start(self, i: u64) -> u64 {
        let (groups, rest) = (self.n / self.per_fetch, self.rest());
        i * groups + i * rest / self.per_fetch
    }

    /// Places of the ring at which a stretch may begin, so that stretches begin everywhere evenly.
    fn firsts(self, most: u64) -> impl Iterator<Item = u64> {
        let groups = (self.n / self.per_fetch).max(1);
        let cuts = most.min(groups);
        let around = self.n / groups;
        (0..cuts).map(move |i| i * around / cuts * groups + i * groups / cuts)
    }

    /// The codes of the blocks of a stretch.
    fn blocks(self, first: u64, i: u64) -> impl Iterator<Item = &'a [u32]> {
        let places = self.start(i)..self.start(i + 1);
        places.filter_map(move |place| {
            let place = usize::try_from((first + place) % self.n).ok()?;
            let block = match self.order {
                Some(order) => index(*order.get(place)?),
                None => place,
            };
            self.codes.get(block * self.b..(block + 1) * self.b)
        })
    }

    /// The correlations of cells of different blocks.
    pub(super) fn apart(self) -> Apart {
        let mut sum = Apart::default();
        if self.n < self.per_fetch || self.n == 0 {
            return sum;
        }
        let mut n = 0.0;
        for first in self.firsts(CUTS) {
            let one = self.apart_from(first);
            for (sum, one) in [
                (&mut sum.in_fetch, one.in_fetch),
                (&mut sum.in_last, one.in_last),
                (&mut sum.across, one.across),
            ] {
                sum.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
            }
            n += 1.0;
        }
        for means in [&mut sum.in_fetch, &mut sum.in_last, &mut sum.across] {
            means.iter_mut().for_each(|x| *x /= n);
        }
        sum
    }

    fn apart_from(self, first: u64) -> Apart {
        let total = self.counts.iter().sum::<u64>() as f64;
        let p = |code: u32| self.counts[index(code)] as f64 / total;
        let mut here = vec![0u64; self.counts.len()];
        let (mut seen, mut in_block): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut of_block = vec![0u64; self.counts.len()];
        // Of all stretches, and of the longer ones.
        let mut all = Sum::new(self.counts.len());
        let mut longer = Sum::new(self.counts.len());
        let groups = self.n / self.per_fetch;
        let squares = chance(self.counts);
        for i in 0..self.per_fetch {
            let blocks = self.start(i + 1) - self.start(i);
            let (cells, size) = ((blocks * as_u64(self.b)) as f64, self.b as f64);
            // Sums over blocks of c^2 and c^2 / p.
            let mut of_blocks = [0.0; 2];
            for block in self.blocks(first, i) {
                for &code in block {
                    let count = &mut of_block[index(code)];
                    if *count == 0 {
                        in_block.push(code);
                    }
                    *count += 1;
                }
                for code in in_block.drain(..) {
                    let count = std::mem::take(&mut of_block[index(code)]);
                    let square = count as f64 * count as f64;
                    of_blocks[0] += square;
                    of_blocks[1] += square / p(code);
                    if here[index(code)] == 0 {
                        seen.push(code);
                    }
                    here[index(code)] += count;
                }
            }
            let (mut mu, mut both) = ([0.0; 2], 0.0);
            for &code in &seen {
                let share = here[index(code)] as f64 / cells;
                mu[0] += share * share;
                mu[1] += share * share / p(code);
                both += share * p(code);
            }
            let per = size * size * blocks as f64;
            let counted = Counted {
                mean: [mu[0] - 2.0 * both + squares, mu[1] - 1.0],
                within: [of_blocks[0] / per - mu[0], of_blocks[1] / per - mu[1]],
            };
            let shares = |code: u32| here[index(code)] as f64 / cells;
            all.add(counted, blocks, &seen, shares);
            if blocks > groups {
                longer.add(counted, blocks, &seen, shares);
            }
            for code in seen.drain(..) {
                here[index(code)] = 0;
            }
        }
        let present = self.counts.iter().filter(|&&c| c > 0).count() as f64;
        let variance = [1.0 - squares, present - 1.0];
        let shares: Vec<f64> = self.counts.iter().map(|&c| c as f64 / total).collect();
        let [full, last] = [&all, &longer].map(|sum| sum.bias(sum, &shares));
        let between = all.bias(&longer, &shares);
        let mut out = Apart::default();
        for x in 0..2 {
            let over = |sum: f64, pairs: f64| {
                if pairs > 0.0 && variance[x] > 0.0 { sum / pairs / variance[x] } else { 0.0 }
            };
            out.in_fetch[x] = over(full[x] - all.means[x], all.n * (all.n - 1.0));
            out.in_last[x] = over(last[x] - longer.means[x], longer.n * (longer.n - 1.0));
            out.across[x] = if groups > 1 {
                over(full[x] - all.drawn[x], all.n * all.n)
            } else {
                // There is one full fetch, and perhaps the last.
                over(between[x] - longer.drawn[x], all.n * longer.n)
            };
        }
        out
    }

    /// The expected entropy of `m` cells drawn without replacement from a fetch: the counts of each
    /// label, one block of each stretch, are added up as distributions. `None` where that would take
    /// long. With `last`, for the fetch that has a block of the longer stretches alone.
    pub(super) fn entropy_of_fetches(self, fetch: u64, m: u64, last: bool) -> Option<f64> {
        if self.per_fetch > 256 || self.n < self.per_fetch {
            return None;
        }
        let mut mean = MeanPhi::new(fetch, m);
        let (mut sum, mut n) = (0.0, 0.0);
        for first in self.firsts(CUTS_OF_FETCHES) {
            let mut fetches: Vec<Option<Probabilities>> = vec![None; self.counts.len()];
            let total = self.counts.iter().sum::<u64>() as f64;
            let step = |code: u32| {
                let p = self.counts[index(code)] as f64 / total;
                let deviation = self.b as f64 * (self.per_fetch as f64 * p * (1.0 - p)).sqrt();
                // At least 1, and saturating.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let step = (24.0 * deviation / STEPS).ceil().max(1.0) as u64;
                step
            };
            for i in 0..self.per_fetch {
                let blocks = self.start(i + 1) - self.start(i);
                if last && blocks == self.n / self.per_fetch {
                    continue;
                }
                for (code, counts) in self.distributions(first, i) {
                    let cells = Probabilities::from_counts(&counts).in_steps(step(code));
                    let so_far = &mut fetches[index(code)];
                    *so_far = Some(match so_far.take() {
                        Some(so_far) => cells.plus(&so_far),
                        None => cells,
                    });
                }
            }
            for (code, cells) in (0u32..).zip(&fetches) {
                let likely = cells.iter().flat_map(Probabilities::iter).filter(|&(_, p)| p > 1e-14);
                let of = |(h, p): (u64, f64)| p * mean.of((h * step(code)).min(fetch));
                sum += likely.map(of).sum::<f64>();
            }
            n += 1.0;
        }
        Some(sum / n)
    }

    /// How many blocks of a stretch have how many cells of a label, for each label that is there.
    fn distributions(self, first: u64, i: u64) -> Vec<(u32, Vec<(u64, u64)>)> {
        let mut found: HashMap<u32, HashMap<u64, u64>> = HashMap::new();
        let mut in_block: HashMap<u32, u64> = HashMap::new();
        for block in self.blocks(first, i) {
            for &code in block {
                *in_block.entry(code).or_default() += 1;
            }
            for (code, count) in in_block.drain() {
                *found.entry(code).or_default().entry(count).or_default() += 1;
            }
        }
        let blocks = self.start(i + 1) - self.start(i);
        let sorted = |(code, counts): (u32, HashMap<u64, u64>)| {
            let mut counts: Vec<(u64, u64)> = counts.into_iter().collect();
            let without = blocks - counts.iter().map(|&(_, n)| n).sum::<u64>();
            if without > 0 {
                counts.push((0, without));
            }
            counts.sort_unstable();
            (code, counts)
        };
        // In a fixed order, so that the same codes give the same bits.
        let mut out: Vec<_> = found.into_iter().map(sorted).collect();
        out.sort_unstable_by_key(|(code, _)| *code);
        out
    }
}

/// Sums over stretches.
struct Sum {
    n: f64,
    means: [f64; 2],
    /// Of the variance within, over the blocks of the stretch but one: what two draws without
    /// replacement have in common, negated.
    drawn: [f64; 2],
    shares: Vec<f64>,
}

impl Sum {
    fn new(labels: usize) -> Self {
        Self { n: 0.0, means: [0.0; 2], drawn: [0.0; 2], shares: vec![0.0; labels] }
    }

    fn add(&mut self, one: Counted, blocks: u64, seen: &[u32], share: impl Fn(u32) -> f64) {
        self.n += 1.0;
        for x in 0..2 {
            self.means[x] += one.mean[x];
            if blocks > 1 {
                self.drawn[x] += one.within[x] / (blocks as f64 - 1.0);
            }
        }
        for &code in seen {
            self.shares[index(code)] += share(code);
        }
    }

    /// The inner product of what both sums of shares have beyond their number times those of the
    /// store. 0 but for rounding where stretches are equally long.
    fn bias(&self, other: &Self, shares: &[f64]) -> [f64; 2] {
        let mut out = [0.0; 2];
        for ((a, b), &p) in self.shares.iter().zip(&other.shares).zip(shares) {
            if p > 0.0 {
                let product = (a - self.n * p) * (b - other.n * p);
                out[0] += product;
                out[1] += product / p;
            }
        }
        out
    }
}
