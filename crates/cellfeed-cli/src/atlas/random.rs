//! Random numbers from the words of ChaCha8, so that they are the same whatever thread draws them
//! and whatever a distributions crate changes.
//!
//! A stream's 32-byte key is (seed, purpose, number) and a constant, hence every block, gene
//! programme and table has a stream of its own. Equal seeds give equal numbers on one platform;
//! between platforms `ln`, `exp` and `cos` may differ in their last bit.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream is drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Base = 1,
    Line,
    Drug,
    Moa,
    Plate,
    Cycle,
    Scales,
    Layout,
    Obs,
    Cells,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64, purpose: Purpose, number: usize) -> Self {
        let mut key = *b"........................cellfeed";
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
        key[16..24].copy_from_slice(&(number as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 32 random bits.
    #[inline]
    pub(super) fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A whole number below `n`: the upper half of word x n (Lemire 2019, without his rejection
    /// step: a share is off by at most n / 2^32 of itself). Zero if `n` is zero.
    #[inline]
    pub(super) fn below(&mut self, n: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * n as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A number in [0, 1): 53 bits over 2^53.
    #[inline]
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number between two others.
    #[inline]
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A standard normal number (Box and Muller 1958, the cosine alone).
    #[inline]
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A position, by cumulative weights: the first whose sum is above a random part of the total.
    #[inline]
    pub(super) fn pick(&mut self, cumulative: &[f64]) -> usize {
        let total = cumulative.last().copied().unwrap_or(0.0);
        let at = self.unit() * total;
        cumulative.partition_point(|&sum| sum <= at).min(cumulative.len().saturating_sub(1))
    }
}

/// The running sums of weights.
pub(super) fn cumulative(weights: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sum = 0.0;
    weights
        .into_iter()
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

/// The whole part of a number of things; 0 for what is no such number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and every caller's number is small"
)]
pub(super) fn whole(number: f64) -> usize {
    number as usize
}

/// Divides `n` things by cumulative weights: where each share ends, the last at `n`.
pub(super) fn shares(n: usize, cumulative: &[f64]) -> Vec<usize> {
    let total = cumulative.last().copied().unwrap_or(1.0);
    let last = cumulative.len().saturating_sub(1);
    let end =
        |i, sum: f64| if i == last { n } else { whole((n as f64 * sum / total).round()).min(n) };
    cumulative.iter().enumerate().map(|(i, &sum)| end(i, sum)).collect()
}
