//! What is measured over minibatches: entropy and design effects, in constant time a cell.

use super::entropy_bits;
use super::labels::index;
use crate::as_u64;
use std::collections::VecDeque;

/// Takes the labels of one minibatch after the other, as codes, and measures entropy within each and
/// the design effect of one and of every window of `w` consecutive ones. Keeps the codes of `w`
/// minibatches.
///
/// A minibatch with fewer cells than the rest is not counted: with fewer labels it would bias the
/// mean. It also ends the window.
#[derive(Debug, Clone)]
pub struct DiversityMeter {
    counts: Vec<u64>,
    n: u64,
    batch_size: u64,
    entropy: Moments,
    one: WindowMeter,
    window: WindowMeter,
    partial: u64,
}

impl DiversityMeter {
    /// Begins to measure minibatches of `batch_size` cells of a store with these counts of labels, and
    /// windows of `w` of them; sizes of 0 count as 1. Shares of labels in minibatches are compared
    /// with those in the store.
    #[must_use]
    pub fn new(counts: &[u64], batch_size: u64, w: u64) -> Self {
        let batch_size = batch_size.max(1);
        Self {
            n: counts.iter().sum(),
            counts: counts.to_vec(),
            batch_size,
            entropy: Moments::default(),
            one: WindowMeter::new(counts.len(), 1),
            window: WindowMeter::new(counts.len(), usize::try_from(w.max(1)).unwrap_or(usize::MAX)),
            partial: 0,
        }
    }

    /// Measures a minibatch. Codes that the store's counts lack are an error of the caller, and count
    /// as a label that the store has not.
    pub fn push(&mut self, codes: &[u32]) {
        if as_u64(codes.len()) != self.batch_size {
            self.partial += 1;
            self.window.clear();
            return;
        }
        self.one.push(codes, &self.counts, self.n);
        self.window.push(codes, &self.counts, self.n);
        self.entropy.push(entropy_bits(self.one.of_labels.iter().copied()));
    }

    /// Minibatches that were counted.
    #[must_use]
    pub fn n_minibatches(&self) -> u64 {
        self.entropy.n
    }

    /// Minibatches that were not, since they had another number of cells.
    #[must_use]
    pub fn n_partial(&self) -> u64 {
        self.partial
    }

    /// The mean entropy of a minibatch, in bits.
    #[must_use]
    pub fn entropy_mean(&self) -> Option<f64> {
        (self.entropy.n > 0).then_some(self.entropy.mean)
    }

    /// The standard deviation of the entropy between minibatches, in bits.
    #[must_use]
    pub fn entropy_spread(&self) -> Option<f64> {
        let n = self.entropy.n;
        (n > 1).then(|| (self.entropy.squares / (n - 1) as f64).sqrt())
    }

    /// The design effect of one minibatch: the mean of `sum_k (q_k - p_k)^2`, with `q` the shares of
    /// labels in a minibatch and `p` those in the store, over `sum_k p_k (1 - p_k) / m`. `None` before
    /// the first minibatch, and for a label with one value.
    #[must_use]
    pub fn deff_1(&self) -> Option<f64> {
        self.design_effect(&self.one)
    }

    /// The same of windows of `w` consecutive minibatches, taken at every minibatch where `w` are
    /// there.
    #[must_use]
    pub fn deff_w(&self) -> Option<f64> {
        self.design_effect(&self.window)
    }

    fn design_effect(&self, meter: &WindowMeter) -> Option<f64> {
        let chance = super::structure::chance(&self.counts);
        let cells = self.batch_size as f64 * meter.w as f64;
        (meter.distances.n > 0 && chance < 1.0)
            .then(|| meter.distances.mean * cells / (1.0 - chance))
    }
}

/// Mean and sum of squared deviations, as Welford (1962) has it.
#[derive(Debug, Clone, Default)]
struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn push(&mut self, x: f64) {
        self.n += 1;
        let off = x - self.mean;
        self.mean += off / self.n as f64;
        self.squares += off * (x - self.mean);
    }
}

/// The labels of the last `w` minibatches.
#[derive(Debug, Clone)]
struct WindowMeter {
    w: usize,
    minibatches: VecDeque<Vec<u32>>,
    of_labels: Vec<u64>,
    cells: u64,
    /// `sum_k c_k^2` and `sum_k c_k n_k` of counts in the window and in the store: exact integers.
    squares: i128,
    products: i128,
    distances: Moments,
}

impl WindowMeter {
    fn new(labels: usize, w: usize) -> Self {
        Self {
            w,
            minibatches: VecDeque::new(),
            of_labels: vec![0; labels],
            cells: 0,
            squares: 0,
            products: 0,
            distances: Moments::default(),
        }
    }

    fn clear(&mut self) {
        self.minibatches.clear();
        self.of_labels.fill(0);
        (self.cells, self.squares, self.products) = (0, 0, 0);
    }

    fn push(&mut self, codes: &[u32], counts: &[u64], n: u64) {
        let mut room = Vec::new();
        if self.minibatches.len() == self.w
            && let Some(oldest) = self.minibatches.pop_front()
        {
            for &code in &oldest {
                let count = &mut self.of_labels[index(code)];
                *count -= 1;
                self.squares -= 2 * i128::from(*count) + 1;
                self.products -= i128::from(counts.get(index(code)).copied().unwrap_or(0));
            }
            self.cells -= as_u64(oldest.len());
            room = oldest;
        }
        for &code in codes {
            let at = index(code);
            if at >= self.of_labels.len() {
                self.of_labels.resize(at + 1, 0);
            }
            let count = &mut self.of_labels[at];
            self.squares += 2 * i128::from(*count) + 1;
            *count += 1;
            self.products += i128::from(counts.get(at).copied().unwrap_or(0));
        }
        self.cells += as_u64(codes.len());
        room.clear();
        room.extend_from_slice(codes);
        self.minibatches.push_back(room);
        if self.minibatches.len() == self.w {
            let (cells, all) = (self.cells as f64, n.max(1) as f64);
            let store: f64 = counts.iter().map(|&c| (c as f64 / all).powi(2)).sum();
            let window = self.squares as f64 / (cells * cells);
            let both = self.products as f64 / (cells * all);
            self.distances.push((window - 2.0 * both + store).max(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_agree_with_counting_anew() {
        let counts = [50u64, 30, 20];
        let minibatches: Vec<Vec<u32>> =
            (0..23u32).map(|i| (0..5).map(|j| (i * i + j * j * i) % 3).collect()).collect();
        let mut meter = DiversityMeter::new(&counts, 5, 4);
        minibatches.iter().for_each(|codes| meter.push(codes));
        let p = [0.5, 0.3, 0.2];
        let distance = |codes: &[u32]| -> f64 {
            let share = |k| codes.iter().filter(|&&c| c == k).count() as f64 / codes.len() as f64;
            (0..3u32).map(|k| (share(k) - p[k as usize]).powi(2)).sum()
        };
        let variance = 1.0 - 0.38;
        for (w, got) in [(1, meter.deff_1()), (4, meter.deff_w())] {
            let windows: Vec<f64> = minibatches.windows(w).map(|m| distance(&m.concat())).collect();
            let mean = windows.iter().sum::<f64>() / windows.len() as f64;
            let want = mean * (w * 5) as f64 / variance;
            assert!((got.unwrap() - want).abs() < 1e-12, "{w}");
        }
        let entropies: Vec<f64> = minibatches
            .iter()
            .map(|m| entropy_bits((0..3u32).map(|k| m.iter().filter(|&&c| c == k).count() as u64)))
            .collect();
        let mean = entropies.iter().sum::<f64>() / 23.0;
        let spread = (entropies.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / 22.0).sqrt();
        assert!((meter.entropy_mean().unwrap() - mean).abs() < 1e-14);
        assert!((meter.entropy_spread().unwrap() - spread).abs() < 1e-14);
    }

    #[test]
    fn partial_minibatches_do_not_count() {
        let mut meter = DiversityMeter::new(&[4, 4], 2, 2);
        assert_eq!((meter.entropy_mean(), meter.deff_1()), (None, None));
        meter.push(&[0, 1]);
        meter.push(&[1]);
        meter.push(&[0, 0]);
        assert_eq!((meter.n_minibatches(), meter.n_partial()), (2, 1));
        assert_eq!(meter.entropy_mean(), Some(0.5));
        // No two full ones followed each other.
        assert_eq!(meter.deff_w(), None);
        meter.push(&[0, 0]);
        assert!(meter.deff_w().is_some());
        let mut one = DiversityMeter::new(&[8], 2, 1);
        one.push(&[0, 0]);
        assert_eq!((one.entropy_mean(), one.deff_1()), (Some(0.0), None));
    }
}
