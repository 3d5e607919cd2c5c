//! Binomial and hypergeometric probabilities, stable for sizes up to 2^32 and beyond.

use crate::as_u64;
use std::f64::consts::PI;

/// Terms further than this many standard deviations from the mean are left out: together they are
/// below 10^-30.
const DEVIATIONS: f64 = 12.0;

/// `ln(n!)`: the series of Stirling, with a relative error below 10^-15.
pub(super) fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let x = n as f64;
    let series = (1.0 - (1.0 / 30.0 - (1.0 / 105.0 - 1.0 / (140.0 * x * x)) / (x * x)) / (x * x))
        / (12.0 * x);
    x * x.ln() - x + 0.5 * (2.0 * PI * x).ln() + series
}

/// `ln` of the number of ways to choose `k` of `n`; minus infinity if there is none.
pub(super) fn ln_choose(n: u64, k: u64) -> f64 {
    if k > n {
        return f64::NEG_INFINITY;
    }
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// `-x log2 x`, 0 at 0: what a share adds to the entropy, in bits.
pub(super) fn phi(x: f64) -> f64 {
    if x > 0.0 { -x * x.log2() } else { 0.0 }
}

/// The integers of `low..=high` that are within [`DEVIATIONS`] of the mean; at least one.
fn near(mean: f64, variance: f64, low: u64, high: u64) -> std::ops::RangeInclusive<u64> {
    let reach = DEVIATIONS * variance.max(0.0).sqrt() + DEVIATIONS;
    // Saturates, and is clamped to the bounds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (from, to) = ((mean - reach).floor() as u64, (mean + reach).ceil() as u64);
    from.clamp(low, high)..=to.clamp(low, high)
}

/// The values and probabilities of a binomial count: `n` trials with probability `p` each.
pub(super) fn binomial(n: u64, p: f64) -> impl Iterator<Item = (u64, f64)> {
    let mean = n as f64 * p;
    let (log_p, log_q) = (p.ln(), (-p).ln_1p());
    let all = ln_factorial(n);
    near(mean, mean * (1.0 - p), 0, n).map(move |c| {
        // 0 times minus infinity is 0 here: p to the power of 0 is 1.
        let power = |count: u64, log: f64| if count == 0 { 0.0 } else { count as f64 * log };
        let log =
            all - ln_factorial(c) - ln_factorial(n - c) + power(c, log_p) + power(n - c, log_q);
        (c, log.exp())
    })
}

/// The mean of `phi(j / m)` where `j` of `m` cells, drawn without replacement from `total`, are among
/// `marked` ones: `sum_j Hypergeometric(j; total, marked, m) phi(j / m)`, in bits.
pub(super) fn mean_phi(total: u64, marked: u64, m: u64) -> f64 {
    let m = m.min(total);
    if marked == 0 || m == 0 || marked >= total {
        return 0.0;
    }
    let (t, h, k) = (total as f64, marked as f64, m as f64);
    let mean = k * h / t;
    let variance = mean * (1.0 - h / t) * (t - k) / (t - 1.0).max(1.0);
    let low = (m + marked).saturating_sub(total).max(1);
    let high = m.min(marked);
    let all = ln_choose(total, m);
    near(mean, variance, low, high)
        .map(|j| {
            (ln_choose(marked, j) + ln_choose(total - marked, m - j) - all).exp()
                * phi(j as f64 / k)
        })
        .sum()
}

/// [`mean_phi`] for many values of `marked`, each computed once.
pub(super) struct MeanPhi {
    total: u64,
    m: u64,
    known: std::collections::HashMap<u64, f64>,
}

impl MeanPhi {
    pub(super) fn new(total: u64, m: u64) -> Self {
        Self { total, m, known: std::collections::HashMap::new() }
    }

    pub(super) fn of(&mut self, marked: u64) -> f64 {
        let (total, m) = (self.total, self.m);
        *self.known.entry(marked).or_insert_with(|| mean_phi(total, marked, m))
    }
}

/// Probabilities of consecutive integers, the first of which is `first`.
#[derive(Debug, Clone)]
pub(super) struct Probabilities {
    pub(super) first: u64,
    pub(super) values: Vec<f64>,
}

impl Probabilities {
    /// From values and how often they occur.
    pub(super) fn from_counts(counts: &[(u64, u64)]) -> Self {
        let (mut low, mut high, mut total) = (u64::MAX, 0, 0.0);
        for &(value, n) in counts {
            (low, high) = (low.min(value), high.max(value));
            total += n as f64;
        }
        if counts.is_empty() {
            return Self { first: 0, values: vec![1.0] };
        }
        let width = usize::try_from(high - low).unwrap_or(0) + 1;
        let mut values = vec![0.0; width];
        for &(value, n) in counts {
            values[usize::try_from(value - low).unwrap_or(0)] += n as f64 / total;
        }
        Self { first: low, values }
    }

    /// Of the sum of two independent integers; ends that add up to less than 10^-18 are cut off.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut values = vec![0.0; self.values.len() + other.values.len() - 1];
        for (i, &p) in self.values.iter().enumerate() {
            if p > 0.0 {
                for (out, &q) in values[i..].iter_mut().zip(&other.values) {
                    *out += p * q;
                }
            }
        }
        let small = |values: &mut dyn Iterator<Item = &f64>| {
            let mut sum = 0.0;
            values
                .take_while(|&&p| {
                    sum += p;
                    sum < 1e-18
                })
                .count()
        };
        let end = values.len() - small(&mut values.iter().rev());
        let start = small(&mut values.iter()).min(end.saturating_sub(1));
        values.truncate(end.max(1));
        values.drain(..start);
        Self { first: self.first + other.first + as_u64(start), values }
    }

    /// Of the sum of `n` independent such integers, by repeated squaring.
    pub(super) fn times(&self, mut n: u64) -> Self {
        let mut sum = Self { first: 0, values: vec![1.0] };
        let mut power = self.clone();
        while n > 0 {
            if n & 1 == 1 {
                sum = sum.plus(&power);
            }
            n >>= 1;
            if n > 0 {
                power = power.plus(&power);
            }
        }
        sum
    }

    pub(super) fn variance(&self) -> f64 {
        let mean: f64 = self.iter().map(|(value, p)| p * value as f64).sum();
        self.iter().map(|(value, p)| p * (value as f64 - mean).powi(2)).sum()
    }

    /// In steps: the value `i` stands for `i * step`. A value between two steps is split between these,
    /// so that the mean stays, and the variance grows by less than `step^2 / 4`.
    pub(super) fn in_steps(&self, step: u64) -> Self {
        if step <= 1 {
            return self.clone();
        }
        let first = self.first / step;
        let mut values = vec![0.0; self.values.len() / usize::try_from(step).unwrap_or(1) + 3];
        for (value, p) in self.iter() {
            let at = usize::try_from(value / step - first).unwrap_or(usize::MAX);
            let part = (value % step) as f64 / step as f64;
            values[at] += p * (1.0 - part);
            values[at + 1] += p * part;
        }
        Self { first, values }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        (self.first..).zip(self.values.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_agree_with_sums_of_logarithms() {
        let mut sum = 0.0;
        for n in 1..2000u64 {
            sum += (n as f64).ln();
            assert!((ln_factorial(n) - sum).abs() <= 2e-13 * sum.max(1.0), "{n}");
        }
        assert_eq!(ln_choose(5, 6), f64::NEG_INFINITY);
        assert!((ln_choose(10, 3).exp() - 120.0).abs() < 1e-10);
    }

    #[test]
    fn probabilities_add_up_and_have_the_right_mean() {
        for (n, p) in [(0, 0.3), (1, 0.5), (7, 0.0), (7, 1.0), (1024, 0.07), (1 << 32, 0.4)] {
            let (mut sum, mut mean) = (0.0, 0.0);
            for (c, probability) in binomial(n, p) {
                sum += probability;
                mean += probability * c as f64;
            }
            // Differences of numbers near 10^11 leave 10^-5 of the logarithm in the last case.
            let slack = if n > 1 << 30 { 1e-4 } else { 1e-11 };
            assert!((sum - 1.0).abs() < slack, "{n} {p}: {sum}");
            assert!((mean - n as f64 * p).abs() <= slack * (1.0 + n as f64), "{n} {p}: {mean}");
        }
    }

    #[test]
    fn small_draws_agree_with_counting_them_all() {
        // 3 of 5 cells, 2 of them marked: one marked in 6 of 10 draws, both in 3, none in 1.
        let want = 0.6 * phi(1.0 / 3.0) + 0.3 * phi(2.0 / 3.0);
        assert!((mean_phi(5, 2, 3) - want).abs() < 1e-14);
        // All are marked, or none: no surprise.
        assert_eq!((mean_phi(5, 5, 3), mean_phi(5, 0, 3)), (0.0, 0.0));
        // All are drawn.
        assert!((mean_phi(8, 3, 8) - phi(3.0 / 8.0)).abs() < 1e-14);
        assert!((MeanPhi::new(5, 3).of(2) - want).abs() < 1e-14);
    }

    #[test]
    fn steps_keep_the_mean() {
        let exact = Probabilities::from_counts(&[(0, 5), (7, 2), (8, 1), (31, 4)]);
        let steps = exact.in_steps(4);
        let mean = |p: &Probabilities| p.iter().map(|(v, p)| v as f64 * p).sum::<f64>();
        assert!((4.0 * mean(&steps) - mean(&exact)).abs() < 1e-12);
        let grown = 16.0 * steps.variance() - exact.variance();
        assert!((0.0..4.0).contains(&grown), "{grown}");
        assert_eq!(exact.in_steps(1).values, exact.values);
    }

    #[test]
    fn sums_of_equal_coins_are_binomial() {
        let coin = Probabilities::from_counts(&[(0, 3), (16, 1)]);
        let sum = coin.times(100);
        for (c, want) in binomial(100, 0.25) {
            let at = sum.iter().find(|&(value, _)| value == 16 * c).map_or(0.0, |(_, p)| p);
            assert!((at - want).abs() < 1e-13, "{c}: {at} {want}");
        }
    }
}
