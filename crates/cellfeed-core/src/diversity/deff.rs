//! The design effect: by how much cells that are kept together inflate the variance of a mean.
//!
//! `DEFF_w` is the variance of a mean over the cells of `w` consecutive minibatches, over the variance
//! that as many independent cells would give (Kish, Survey Sampling, 1965). The mean may be a
//! gradient; here it is the vector of label shares, whose variance is the sum of its entries'. An
//! optimizer averages over about ten minibatches, so `DEFF_10` says what entropy does not: minibatches
//! that follow each other share a fetch, and with it the labels of its blocks.
//!
//! With `N = w m` cells and `rho(i, j)` the correlation of two of them,
//! `DEFF_w = 1 + (N - 1) * mean of rho(i, j) over ordered pairs`. All that a strategy changes is how
//! often a pair comes from one block.

use super::entropy::Cuts;

/// The correlation of labels within blocks of `b` cells from the autocorrelation `r` of the label on
/// disk, `r[d]` at lag `d` (`r[0]` is not used; lags that `r` lacks count as 0):
///
/// `rho_b = sum_{d=1}^{b-1} 2 (b - d) / (b (b - 1)) r[d]`,
///
/// the mean over the pairs of cells of a block that may begin anywhere. 0 for blocks of one cell.
#[must_use]
pub fn rho_from_autocorrelation(b: u64, r: &[f64]) -> f64 {
    if b <= 1 {
        return 0.0;
    }
    let size = b as f64;
    let lags = (1..b).zip(r.iter().skip(1));
    lags.map(|(d, r)| 2.0 * (size - d as f64) / (size * (size - 1.0)) * r).sum()
}

/// The correlation of labels within blocks of `b` cells where labels lie on disk in runs of `run`
/// cells and neighbouring runs are independent: [`rho_from_autocorrelation`] of
/// `r[d] = max(0, 1 - d / run)`, in closed form.
#[must_use]
pub fn rho_of_runs(b: u64, run: f64) -> f64 {
    if b <= 1 || run.is_nan() || run <= 0.0 {
        return 0.0;
    }
    // Lags up to `last` count: sums of d and d^2 in closed form.
    let size = b as f64;
    let last = (size - 1.0).min(run.floor());
    let (sum, squares) =
        (last * (last + 1.0) / 2.0, last * (last + 1.0) * (2.0 * last + 1.0) / 6.0);
    let total = size * last - sum - (size * sum - squares) / run;
    2.0 * total / (size * (size - 1.0))
}

/// The design effect of the mean over `w` consecutive minibatches of `m` cells, for block shuffling
/// of a large store with blocks of `b` cells and `f` minibatches a fetch, where labels have the
/// correlation `rho` within blocks.
///
/// With `F = m f`, and `b` a divisor of `F`, two cells of a fetch are of one block with probability
/// `(b - 1)/(F - 1)`. Windows of `w` minibatches begin anywhere in a fetch, so that two minibatches
/// at distance `j` share a fetch with probability `max(0, 1 - j / f)`:
///
/// `DEFF_w = 1 + rho (b - 1)/(F - 1) * (m S / w - 1)`,
/// `S = w + 2 sum_{j=1}^{w-1} (w - j) max(0, 1 - j / f)`;
///
/// for `w = 1` it is `1 + rho (b - 1)(m - 1)/(F - 1)`. Where `b` does not divide `F`, the probability
/// that two cells share a block is averaged over all places at which fetches cut blocks, and parts
/// of blocks in the next fetches count too. 1 for a size of 0.
#[must_use]
pub fn deff(m: u64, b: u64, f: u64, rho: f64, w: u64) -> f64 {
    let window = Window::new(m, f, w);
    let blocks = SharedBlocks::new(b, m.saturating_mul(f));
    window.deff(|e| rho * blocks.at(e))
}

/// The correlation of two minibatch means of one fetch, for block shuffling of a large store:
/// `rho (b - 1)/(F - 1) * m / DEFF_1`.
#[must_use]
pub fn correlation_in_fetch(m: u64, b: u64, f: u64, rho: f64) -> f64 {
    let blocks = SharedBlocks::new(b, m.saturating_mul(f));
    rho * blocks.at(0) * m as f64 / deff(m, b, f, rho, 1)
}

/// How often two cells of a window of consecutive minibatches are how many fetches apart, on average
/// over all places of the window.
#[derive(Debug, Clone)]
pub(super) struct Window {
    cells: f64,
    /// The share of ordered pairs of two different cells whose fetches are `e` apart.
    shares: Vec<f64>,
}

impl Window {
    pub(super) fn new(m: u64, f: u64, w: u64) -> Self {
        let (m, f, w) = (m.max(1), f.max(1), w.max(1));
        let cells = m as f64 * w as f64;
        let mut shares = vec![0.0; usize::try_from(w.div_ceil(f)).unwrap_or(0) + 1];
        for j in 0..w {
            let pairs = if j == 0 { w } else { 2 * (w - j) } as f64;
            let e = usize::try_from(j / f).unwrap_or(usize::MAX);
            let part = (j % f) as f64 / f as f64;
            let pairs = pairs * m as f64 * m as f64;
            shares[e] += pairs * (1.0 - part);
            if part > 0.0 {
                shares[e + 1] += pairs * part;
            }
        }
        // A cell is no pair with itself.
        shares[0] -= cells;
        let all = (cells * (cells - 1.0)).max(1.0);
        shares.iter_mut().for_each(|share| *share /= all);
        Self { cells, shares }
    }

    /// The largest distance in fetches.
    pub(super) fn reach(&self) -> usize {
        self.shares.len() - 1
    }

    /// The design effect, from the correlation of two cells whose fetches are `e` apart.
    pub(super) fn deff(&self, correlation: impl Fn(usize) -> f64) -> f64 {
        let pairs = self.shares.iter().enumerate().filter(|(_, share)| **share > 0.0);
        let mean: f64 = pairs.map(|(e, share)| share * correlation(e)).sum();
        1.0 + (self.cells - 1.0) * mean
    }
}

/// How probably two cells are of one block: of the same fetch, or of two that are `e` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedBlocks {
    b: u64,
    fetch: u64,
}

impl SharedBlocks {
    pub(super) fn new(b: u64, fetch: u64) -> Self {
        Self { b: b.max(1), fetch: fetch.max(1) }
    }

    pub(super) fn at(self, e: usize) -> f64 {
        if e == 0 { self.within() } else { self.across(e) }
    }

    fn within(self) -> f64 {
        if self.fetch == 1 {
            return 0.0;
        }
        let pairs = |cells: u64| cells as f64 * (cells as f64 - 1.0);
        let (mut sum, mut n) = (0.0, 0.0);
        for cut in Cuts::new(self.b, self.fetch).iter() {
            sum += pairs(cut.head) + pairs(cut.tail) + cut.whole as f64 * pairs(self.b);
            n += 1.0;
        }
        sum / n / pairs(self.fetch)
    }

    /// Only the last block of the first fetch can be the first of a later one.
    fn across(self, e: usize) -> f64 {
        let e = u128::try_from(e).unwrap_or(u128::MAX);
        let (b, fetch) = (u128::from(self.b), u128::from(self.fetch));
        let (mut sum, mut n) = (0.0, 0.0);
        for (offset, _) in Cuts::new(self.b, self.fetch).offsets() {
            n += 1.0;
            let offset = u128::from(offset);
            let end = offset + fetch;
            let block = (end - 1) / b * b..((end - 1) / b + 1) * b;
            let later = offset.saturating_add(fetch.saturating_mul(e));
            if later < block.end {
                let first = end - block.start.max(offset);
                let last = block.end.min(later + fetch) - later;
                sum += first as f64 * last as f64;
            }
        }
        sum / n / (fetch as f64 * fetch as f64)
    }
}

/// The greatest common divisor of two positive integers.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minibatch_has_the_known_form() {
        for (m, b, f, rho) in [(64u64, 16u64, 4u64, 1.0), (64, 16, 1, 0.5), (32, 8, 100, 0.9)] {
            let want = 1.0 + rho * (b as f64 - 1.0) * (m as f64 - 1.0) / ((m * f) as f64 - 1.0);
            assert!((deff(m, b, f, rho, 1) - want).abs() < 1e-12);
        }
        // Cells that are drawn one by one, or do not depend on each other.
        assert_eq!(deff(64, 1, 16, 1.0, 10), 1.0);
        assert_eq!(deff(64, 16, 16, 0.0, 10), 1.0);
        assert_eq!(deff(1, 1, 1, 1.0, 1), 1.0);
        // One block to a fetch: a minibatch is as good as one cell.
        assert!((deff(64, 1024, 16, 1.0, 1) - 64.0).abs() < 1e-12);
        assert_eq!(deff(0, 0, 0, 1.0, 0), 1.0);
    }

    #[test]
    fn windows_have_the_closed_form() {
        for (m, b, f, w) in [(64u64, 16u64, 16u64, 10u64), (64, 16, 4, 10), (64, 64, 256, 50)] {
            let s: f64 = (1..w)
                .map(|j| 2.0 * (w - j) as f64 * (1.0 - j as f64 / f as f64).max(0.0))
                .sum::<f64>()
                + w as f64;
            let (m_, size) = (m as f64, (m * f) as f64);
            let want = 1.0 + (b as f64 - 1.0) / (size - 1.0) * (m_ * s / w as f64 - 1.0);
            let got = deff(m, b, f, 1.0, w);
            assert!((got - want).abs() < 1e-9, "{m} {b} {f} {w}: {got} {want}");
        }
    }

    /// Every pair of cells of an order of blocks, counted.
    #[test]
    fn shared_blocks_agree_with_counting() {
        for (b, fetch) in [(4u64, 8u64), (6, 8), (5, 3), (12, 4), (7, 7), (3, 10)] {
            let same = |i: u64, j: u64| i / b == j / b;
            for e in 0..4usize {
                let (mut sum, mut n) = (0u64, 0u64);
                for k in 0..b {
                    let first = k * fetch..(k + 1) * fetch;
                    let shift = e as u64 * fetch;
                    for i in first.clone() {
                        for j in first.clone().map(|j| j + shift).filter(|&j| j != i) {
                            sum += u64::from(same(i, j));
                            n += 1;
                        }
                    }
                }
                let want = sum as f64 / n as f64;
                let got = SharedBlocks::new(b, fetch).at(e);
                assert!((got - want).abs() < 1e-12, "{b} {fetch} {e}: {got} {want}");
            }
        }
    }

    #[test]
    fn runs_have_the_closed_form() {
        for (b, run) in [(16u64, 100.0f64), (16, 16.0), (16, 7.5), (64, 10.0), (2, 0.5), (1, 9.0)] {
            let r: Vec<f64> = (0..b).map(|d| (1.0 - d as f64 / run).max(0.0)).collect();
            let want = rho_from_autocorrelation(b, &r);
            let got = rho_of_runs(b, run);
            assert!((got - want).abs() < 1e-12, "{b} {run}: {got} {want}");
        }
        assert_eq!(rho_of_runs(16, f64::NAN), 0.0);
        assert!((rho_of_runs(16, 1e12) - 1.0).abs() < 1e-9);
    }
}
