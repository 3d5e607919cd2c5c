//! The entropy that a label has within minibatches, on average: closed forms.
//!
//! Terms: `m` cells a minibatch, `b` cells a block, `f` minibatches a fetch, `F = m f` cells a fetch,
//! `K` labels with shares `p_1 .. p_K`. All entropies are in bits. Shares may be given in any unit,
//! as counts for example: they are divided by their sum.

use super::deff::{deff, gcd};
use super::numbers::{MeanPhi, binomial, phi};
use std::f64::consts::LN_2;

/// Positive shares that add up to 1.
pub(super) fn normalised(shares: &[f64]) -> Vec<f64> {
    let total: f64 = shares.iter().filter(|p| **p > 0.0).sum();
    shares.iter().filter(|p| **p > 0.0).map(|p| p / total).collect()
}

/// The entropy of the label in the whole store, `H(p) = -sum p_k log2 p_k`: what no minibatch
/// exceeds on average.
///
/// ```
/// use cellfeed_core::diversity::shares_entropy;
///
/// assert_eq!(shares_entropy(&[2.0, 2.0, 0.0, 4.0]), 1.5);
/// ```
#[must_use]
pub fn shares_entropy(shares: &[f64]) -> f64 {
    normalised(shares).into_iter().map(phi).sum()
}

/// The expected entropy of `m` independent draws, exactly:
///
/// `E[H] = sum_k sum_j Binomial(j; m, p_k) phi(j / m)`, `phi(x) = -x log2 x`.
///
/// It is what true random sampling of a large store reaches, and the limit of block shuffling for
/// `f` to infinity: the upper one of the two bounds of scDataset (arXiv 2506.01883).
#[must_use]
pub fn expected_entropy_random(shares: &[f64], m: u64) -> f64 {
    let size = m.max(1) as f64;
    let term = |p: f64| -> f64 {
        binomial(m, p).map(|(j, probability)| probability * phi(j as f64 / size)).sum()
    };
    normalised(shares).into_iter().map(term).sum()
}

/// The expected entropy of `m` cells drawn without replacement from a store with these counts of
/// labels, exactly: `sum_k sum_j Hypergeometric(j; n, n_k, m) phi(j / m)`. True random sampling of a
/// store of any size, for every `f`.
#[must_use]
pub fn expected_entropy_without_replacement(counts: &[u64], m: u64) -> f64 {
    let mut mean = MeanPhi::new(counts.iter().sum(), m);
    counts.iter().map(|&n| mean.of(n)).sum()
}

/// The expected entropy of a minibatch of block shuffling over a large store in which each block has
/// one label, exactly. With `b` a divisor of `F`, and thus `nB = F / b` blocks a fetch:
///
/// `E[H] = sum_k sum_c Binomial(c; nB, p_k) sum_j Hypergeometric(j; F, b c, m) phi(j / m)`
///
/// where `c` blocks of a fetch have label `k`, and `j` cells of a minibatch. Where `b` does not divide
/// `F`, blocks at the borders of a fetch are cut in two as the plan cuts them; the parts are counted
/// as blocks of their size, and the mean is over the places of the border, at most 64 of them. 0 for a
/// size of 0.
///
/// The formula is exact for independent blocks: for a fetch that is a small part of the store.
#[must_use]
pub fn expected_entropy_pure_blocks(shares: &[f64], m: u64, b: u64, f: u64) -> f64 {
    let fetch = m.saturating_mul(f);
    if fetch == 0 || b == 0 {
        return 0.0;
    }
    let shares = normalised(shares);
    let mut mean = MeanPhi::new(fetch, m);
    let mut of_cut = |head: u64, tail: u64, whole: u64| -> f64 {
        let mut sum = 0.0;
        for &p in &shares {
            // Each of the two parts has the label with probability p.
            let parts = [(0, head), (head, 0)].map(|(cells, none)| {
                let probability = if cells > 0 { p } else { 1.0 - p };
                (cells, if cells + none == 0 { 0.5 } else { probability })
            });
            let ends = [(0, tail), (tail, 0)].map(|(cells, none)| {
                let probability = if cells > 0 { p } else { 1.0 - p };
                (cells, if cells + none == 0 { 0.5 } else { probability })
            });
            for (c, probability) in binomial(whole, p) {
                for (first, p_first) in parts {
                    for (last, p_last) in ends {
                        let weight = probability * p_first * p_last;
                        if weight > 0.0 {
                            sum += weight * mean.of(c * b + first + last);
                        }
                    }
                }
            }
        }
        sum
    };
    let cuts = Cuts::at_most(64, b, fetch);
    let (mut sum, mut n) = (0.0, 0.0);
    for cut in cuts.iter() {
        sum += of_cut(cut.head, cut.tail, cut.whole);
        n += 1.0;
    }
    sum / n
}

/// The expected entropy to second order:
///
/// `E[H] ~ H(p) - (K - 1) / (2 ln 2) * DEFF_1 / m`, `DEFF_1 = 1 + rho (b - 1)(m - 1)/(F - 1)`,
///
/// never below 0. `rho` is the correlation of labels within blocks, 1 where each block has one label;
/// then this is `H(p) - (K - 1)/(2 ln 2) * [a + (1 - a)(F - m)/(m (F - 1))]` with `a = b / F`. The
/// correction of Miller and Madow (1955) with `m / DEFF_1` in place of `m` independent draws. Good
/// where each label is expected several times in a minibatch.
#[must_use]
pub fn expected_entropy_second_order(shares: &[f64], m: u64, b: u64, f: u64, rho: f64) -> f64 {
    let deff = deff(m, b, f, rho, 1);
    second_order(&normalised(shares), m, deff)
}

/// [`expected_entropy_second_order`] with a design effect that is known.
pub(super) fn second_order(shares: &[f64], m: u64, deff: f64) -> f64 {
    let entropy: f64 = shares.iter().copied().map(phi).sum();
    (entropy - miller_madow(shares.len(), m) * deff).max(0.0)
}

/// What the entropy of `m` independent draws lacks to second order: `(K - 1) / (2 m ln 2)`.
fn miller_madow(labels: usize, m: u64) -> f64 {
    labels.saturating_sub(1) as f64 / (2.0 * LN_2 * m.max(1) as f64)
}

/// The least and the largest expected entropy that block shuffling can have, over all `f` from 1 on:
/// with `f = 1` a minibatch is `m / b` independent draws (blocks of one label), and for `f` to infinity
/// it is `m`. Both are exact where `b` divides `m`, or is a multiple of it (then the least is 0).
#[must_use]
pub fn entropy_bounds(shares: &[f64], m: u64, b: u64) -> (f64, f64) {
    (expected_entropy_pure_blocks(shares, m, b, 1), expected_entropy_random(shares, m))
}

/// How a fetch cuts blocks: parts of blocks at its ends, whole ones between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) head: u64,
    pub(super) whole: u64,
    pub(super) tail: u64,
}

/// Every way in which fetches of `fetch` cells cut blocks of `b`, equally often each.
pub(super) struct Cuts {
    b: u64,
    fetch: u64,
    step: u64,
}

impl Cuts {
    /// At most this many are looked at, evenly spaced, where there are more.
    const MOST: u64 = 1024;

    pub(super) fn new(b: u64, fetch: u64) -> Self {
        Self::at_most(Self::MOST, b, fetch)
    }

    pub(super) fn at_most(most: u64, b: u64, fetch: u64) -> Self {
        let (b, fetch) = (b.max(1), fetch.max(1));
        let step = gcd(b, fetch);
        Self { b, fetch, step: step * (b / step).div_ceil(most) }
    }
}

impl Cuts {
    /// Each cut with how far into a block its fetch begins.
    pub(super) fn offsets(self) -> impl Iterator<Item = (u64, Cut)> {
        let Self { b, fetch, step } = self;
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        (0..b).step_by(step).map(move |offset| {
            let head = if offset == 0 { 0 } else { (b - offset).min(fetch) };
            let rest = fetch - head;
            (offset, Cut { head, whole: rest / b, tail: rest % b })
        })
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Cut> {
        self.offsets().map(|(_, cut)| cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_at_the_ends() {
        let p = [0.5, 0.25, 0.25];
        assert_eq!(shares_entropy(&p), 1.5);
        assert_eq!(shares_entropy(&[]), 0.0);
        // One draw has no entropy; two have one bit if they differ.
        assert_eq!(expected_entropy_random(&p, 1), 0.0);
        assert!((expected_entropy_random(&p, 2) - (1.0 - 0.25 - 0.125)).abs() < 1e-14);
        // A label with one value has none at all.
        assert_eq!(expected_entropy_random(&[7.0], 64), 0.0);
        assert_eq!(expected_entropy_pure_blocks(&[7.0], 64, 16, 4), 0.0);
        // A fetch within a block has one label; blocks of one cell are independent draws.
        assert_eq!(expected_entropy_pure_blocks(&p, 64, 1024, 4), 0.0);
        let random = expected_entropy_random(&p, 64);
        assert!((expected_entropy_pure_blocks(&p, 64, 1, 4) - random).abs() < 1e-10);
        assert!((expected_entropy_pure_blocks(&p, 64, 16, 4096) - random).abs() < 1e-3);
        // f = 1: the labels of four blocks.
        let four = expected_entropy_random(&p, 4);
        assert!((expected_entropy_pure_blocks(&p, 64, 16, 1) - four).abs() < 1e-12);
        assert_eq!(entropy_bounds(&p, 64, 16).0, expected_entropy_pure_blocks(&p, 64, 16, 1));
        // Without replacement, all cells: the entropy of the store itself.
        assert!((expected_entropy_without_replacement(&[4, 2, 2], 8) - 1.5).abs() < 1e-14);
        for zero in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert_eq!(expected_entropy_pure_blocks(&p, zero.0, zero.1, zero.2), 0.0);
        }
    }

    #[test]
    fn the_second_order_has_the_form_of_the_design() {
        let p = [0.4, 0.3, 0.2, 0.1];
        for (m, b, f) in [(64u64, 16u64, 4u64), (64, 1, 8), (32, 64, 2), (16, 4, 1)] {
            let size = (m * f) as f64;
            let (a, m_) = (b as f64 / size, m as f64);
            let bracket = a + (1.0 - a) * (size - m_) / (m_ * (size - 1.0));
            let want = (shares_entropy(&p) - 3.0 / (2.0 * LN_2) * bracket).max(0.0);
            let got = expected_entropy_second_order(&p, m, b, f, 1.0);
            assert!((got - want).abs() < 1e-12, "{m} {b} {f}: {got} {want}");
        }
    }

    #[test]
    fn fetches_cut_blocks_in_every_way() {
        assert_eq!(
            Cuts::new(16, 64).iter().collect::<Vec<_>>(),
            [Cut { head: 0, whole: 4, tail: 0 }]
        );
        let cuts: Vec<Cut> = Cuts::new(6, 8).iter().collect();
        let want = [(0, 1, 2), (4, 0, 4), (2, 1, 0)];
        assert_eq!(cuts, want.map(|(head, whole, tail)| Cut { head, whole, tail }));
        // Within one block, always.
        assert!(Cuts::new(64, 8).iter().all(|cut| cut.head.max(cut.tail) == 8 && cut.whole == 0));
        assert!(Cuts::new(1 << 40, 3).iter().count() <= 1024);
    }
}
