//! A label counted stretch by stretch: how alike cells are within stretches of a file, and between
//! stretches that follow each other. It is the autocorrelation at the scale at which a plan reads.

use super::entropy::Cuts;
use super::labels::index;
use super::numbers::{MeanPhi, Probabilities};
use super::structure::chance;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Counts labels in stretches of `length` cells, one after the other from the first cell on, as blocks
/// and fetches of streaming lie. A last stretch that is not full is left out.
#[derive(Debug, Clone)]
pub(super) struct Stretches {
    length: u64,
    reach: usize,
    n: u64,
    /// How many stretches have how many cells of a label, by label and count above 0.
    found: HashMap<(u32, u64), u64>,
    /// Ordered pairs of cells of one label that are `e` stretches apart, `e` from 1 on.
    across: Vec<u128>,
    pairs_across: Vec<u128>,
}

impl Stretches {
    /// Counts stretches and their likeness at up to `reach` stretches' distance, for codes below
    /// `labels`.
    pub(super) fn count(codes: &[u32], labels: usize, length: u64, reach: usize) -> Self {
        let length = length.max(1);
        Self::count_parts(codes, labels, length, 0..length, reach)
    }

    /// Counts the same part of each block of `block` cells.
    pub(super) fn count_parts(
        codes: &[u32],
        labels: usize,
        block: u64,
        part: Range<u64>,
        reach: usize,
    ) -> Self {
        let length = part.end - part.start;
        let mut this = Self {
            length,
            reach,
            n: 0,
            found: HashMap::new(),
            across: vec![0; reach],
            pairs_across: vec![0; reach],
        };
        let mut counts = vec![0u64; labels];
        let mut recent: VecDeque<Vec<(u32, u64)>> = VecDeque::new();
        let at = |cells: u64| usize::try_from(cells).unwrap_or(usize::MAX);
        for stretch in codes.chunks_exact(at(block)) {
            let stretch = &stretch[at(part.start)..at(part.end)];
            let mut here: Vec<(u32, u64)> = Vec::new();
            for &code in stretch {
                let count = &mut counts[index(code)];
                if *count == 0 {
                    here.push((code, 0));
                }
                *count += 1;
            }
            for (code, count) in &mut here {
                *count = counts[index(*code)];
                *this.found.entry((*code, *count)).or_default() += 1;
            }
            for (e, earlier) in recent.iter().rev().enumerate() {
                let shared = earlier
                    .iter()
                    .map(|&(code, c)| u128::from(c) * u128::from(counts[index(code)]));
                this.across[e] += shared.sum::<u128>();
                this.pairs_across[e] += u128::from(length) * u128::from(length);
            }
            for &(code, _) in &here {
                counts[index(code)] = 0;
            }
            this.n += 1;
            if reach > 0 {
                if recent.len() == reach {
                    recent.pop_front();
                }
                recent.push_back(here);
            }
        }
        this
    }

    /// The correlation of two cells of a stretch, `(a - P)/(1 - P)` with `a` the share of pairs that
    /// have one label; 0 where there is no pair.
    pub(super) fn within(&self, counts: &[u64]) -> f64 {
        let same = self.found.iter().map(|(&(_, c), &n)| c as f64 * (c as f64 - 1.0) * n as f64);
        self.correlation(same.sum(), self.pairs(), chance(counts))
    }

    /// The same with each label weighed by `1 / p_k`, as the entropy weighs it:
    /// `(sum_k a_k / p_k - 1)/(K - 1)`, with `a_k` the share of pairs that both have label `k`.
    pub(super) fn within_for_entropy(&self, counts: &[u64]) -> f64 {
        let all: u64 = counts.iter().sum();
        let present = counts.iter().filter(|&&c| c > 0).count();
        if self.pairs() == 0.0 || present < 2 {
            return 0.0;
        }
        let same = self.found.iter().map(|(&(code, c), &n)| {
            let share = counts[index(code)] as f64 / all as f64;
            c as f64 * (c as f64 - 1.0) * n as f64 / share
        });
        (same.sum::<f64>() / self.pairs() - 1.0) / (present as f64 - 1.0)
    }

    /// The correlation of two cells in stretches that are `e` apart; that of the largest distance
    /// counted for larger ones, and 0 where there is no pair.
    pub(super) fn across(&self, e: usize, counts: &[u64]) -> f64 {
        let at = e.min(self.reach);
        if at == 0 {
            return 0.0;
        }
        let (same, pairs) = (self.across[at - 1] as f64, self.pairs_across[at - 1] as f64);
        self.correlation(same, pairs, chance(counts))
    }

    fn pairs(&self) -> f64 {
        self.n as f64 * self.length as f64 * (self.length as f64 - 1.0)
    }

    fn correlation(&self, same: f64, pairs: f64, chance: f64) -> f64 {
        if pairs == 0.0 || chance >= 1.0 { 0.0 } else { (same / pairs - chance) / (1.0 - chance) }
    }

    /// The expected entropy of `m` cells drawn without replacement from a stretch drawn at random.
    pub(super) fn entropy_of_draws(&self, m: u64) -> f64 {
        let mut mean = MeanPhi::new(self.length, m);
        // In a fixed order, so that the same codes give the same bits.
        let mut by_count: HashMap<u64, u64> = HashMap::new();
        for (&(_, count), &n) in &self.found {
            *by_count.entry(count).or_default() += n;
        }
        let mut by_count: Vec<(u64, u64)> = by_count.into_iter().collect();
        by_count.sort_unstable();
        let sum: f64 = by_count.iter().map(|&(count, n)| n as f64 * mean.of(count)).sum();
        sum / self.n.max(1) as f64
    }

    /// How many cells of a stretch have each label, as a distribution; `None` for labels that no
    /// stretch has.
    fn distributions(&self, labels: usize) -> Vec<Option<Probabilities>> {
        let mut by_label: Vec<Vec<(u64, u64)>> = vec![Vec::new(); labels];
        for (&(code, count), &n) in &self.found {
            by_label[index(code)].push((count, n));
        }
        let distribution = |mut counts: Vec<(u64, u64)>| {
            counts.sort_unstable();
            let without = self.n - counts.iter().map(|&(_, n)| n).sum::<u64>();
            if without > 0 {
                counts.insert(0, (0, without));
            }
            Probabilities::from_counts(&counts)
        };
        let some = |counts: Vec<(u64, u64)>| (!counts.is_empty()).then(|| distribution(counts));
        by_label.into_iter().map(some).collect()
    }
}

/// Ways of cutting blocks that are looked at in [`entropy_of_fetches`].
const MOST_CUTS: u64 = 16;

/// Steps in which the cells of a label in a fetch are told apart, over the 24 standard deviations that
/// matter. In steps larger than a cell, what the design effect has above 1 is overstated, by less than
/// `3.5e-5 B q` of itself for `B` blocks of which the share `q` has the label. Where `B` is large,
/// hardly anything is above 1.
const MOST_STEPS: f64 = 2048.0;

/// The expected entropy of `m` cells drawn without replacement from a fetch of independent blocks of
/// `b` cells: `sum_k sum_h P(h) sum_j Hypergeometric(j; F, h, m) phi(j / m)`, with `P` the
/// distribution of the cells of label `k` in a fetch, which is that of a block added up as often as
/// the fetch has blocks; parts of blocks at its ends are added as such.
pub(super) fn entropy_of_fetches(codes: &[u32], labels: usize, b: u64, fetch: u64, m: u64) -> f64 {
    let none = || vec![None; labels];
    let whole = Stretches::count(codes, labels, b, 0).distributions(labels);
    let mut mean = MeanPhi::new(fetch, m);
    let (mut sum, mut n) = (0.0, 0.0);
    for (offset, cut) in Cuts::at_most(MOST_CUTS, b, fetch).offsets() {
        n += 1.0;
        let part = |part: Range<u64>| {
            if part.is_empty() {
                return none();
            }
            Stretches::count_parts(codes, labels, b, part, 0).distributions(labels)
        };
        let (head, tail) = (part(offset..offset + cut.head), part(0..cut.tail));
        for ((whole, head), tail) in whole.iter().zip(head).zip(tail) {
            let whole = whole.as_ref().filter(|_| cut.whole > 0);
            let variance = whole.map_or(0.0, |p| p.variance() * cut.whole as f64);
            // At least 1, and saturating.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let step = (24.0 * variance.sqrt() / MOST_STEPS).ceil().max(1.0) as u64;
            let whole = whole.map(|p| p.in_steps(step).times(cut.whole));
            let ends = [head, tail].map(|end| end.map(|p| p.in_steps(step)));
            let parts = whole.into_iter().chain(ends.into_iter().flatten());
            let Some(cells) = parts.reduce(|sum, part| sum.plus(&part)) else { continue };
            // What is as rare as this adds nothing that shows.
            let likely = cells.iter().filter(|&(_, p)| p > 1e-14);
            sum += likely.map(|(h, p)| p * mean.of((h * step).min(fetch))).sum::<f64>();
        }
    }
    sum / n
}

/// How probably two cells are of one block, times the correlation that they then have, where fetches
/// cut blocks in two: parts of blocks are more alike in themselves than with each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct CutBlocks {
    /// Of two cells of a fetch: plain, and as [`Stretches::within_for_entropy`] has it.
    pub(super) within: [f64; 2],
    /// Of a cell of a fetch and one of the next, for blocks that are not longer than a fetch.
    pub(super) next: f64,
}

impl CutBlocks {
    pub(super) fn count(codes: &[u32], counts: &[u64], b: u64, fetch: u64) -> Self {
        let pairs = |cells: u64| cells as f64 * (cells as f64 - 1.0);
        let of = |part: Range<u64>| {
            let pairs = pairs(part.end - part.start);
            if pairs <= 0.0 {
                return [0.0; 2];
            }
            let stretches = Stretches::count_parts(codes, counts.len(), b, part, 0);
            [pairs * stretches.within(counts), pairs * stretches.within_for_entropy(counts)]
        };
        let whole = if b <= fetch { of(0..b) } else { [0.0; 2] };
        let (mut sums, mut parts, mut cut_in_two, mut n) = ([0.0; 2], 0.0, 0.0, 0.0);
        for (offset, cut) in Cuts::at_most(MOST_CUTS, b, fetch).offsets() {
            let (head, tail) = (of(offset..offset + cut.head), of(0..cut.tail));
            for x in 0..2 {
                sums[x] += head[x] + tail[x] + cut.whole as f64 * whole[x];
            }
            parts += head[0] + of(0..offset)[0];
            cut_in_two += f64::from(offset > 0);
            n += 1.0;
        }
        let all = n * pairs(fetch).max(1.0);
        // Pairs of a block that are not in one part; each was counted twice.
        let next = (cut_in_two * whole[0] - parts) / 2.0;
        let all_next = n * fetch as f64 * fetch as f64;
        Self { within: sums.map(|sum| sum / all), next: next / all_next }
    }
}
