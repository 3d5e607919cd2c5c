//! How long a consumer waited for each minibatch, as percentiles.

use cellfeed::{Error, Result};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Waits of up to an hour are told apart, to one in a hundred.
const LONGEST: u64 = 3_600_000_000_000;

/// The waits for all minibatches but the first, for which a run has to start.
#[derive(Debug)]
pub(crate) struct Waits {
    nanoseconds: Histogram<u64>,
    sum: Duration,
    longest: Duration,
}

impl Waits {
    pub(crate) fn new() -> Result<Self> {
        let nanoseconds = Histogram::new_with_bounds(1, LONGEST, 2)
            .map_err(|e| Error::internal("cannot make a histogram").caused_by(e))?;
        Ok(Self { nanoseconds, sum: Duration::ZERO, longest: Duration::ZERO })
    }

    pub(crate) fn add(&mut self, wait: Duration) {
        self.nanoseconds.saturating_record(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        self.sum += wait;
        self.longest = self.longest.max(wait);
    }

    /// The wait that a share of all does not exceed, in seconds; None if there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wait = || Duration::from_nanos(self.nanoseconds.value_at_quantile(share));
        (!self.nanoseconds.is_empty()).then(|| wait().min(self.longest).as_secs_f64())
    }

    /// The longest, in seconds; None if there were none.
    pub(crate) fn longest(&self) -> Option<f64> {
        (!self.nanoseconds.is_empty()).then_some(self.longest.as_secs_f64())
    }

    /// All together, in seconds.
    pub(crate) fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_waits() {
        let mut waits = Waits::new().unwrap();
        assert_eq!((waits.quantile(0.5), waits.longest(), waits.sum()), (None, None, 0.0));
        for ms in (1..=1000).rev() {
            waits.add(Duration::from_millis(ms));
        }
        for (share, want) in [(0.5, 0.5), (0.99, 0.99)] {
            let found = waits.quantile(share).unwrap();
            assert!((found / want - 1.0).abs() < 0.01, "{found} at {share}");
        }
        assert_eq!(waits.longest(), Some(1.0));
        assert!((waits.sum() - 500.5).abs() < 1e-9);
        // Longer than the histogram has room for.
        waits.add(Duration::from_secs(1 << 40));
        assert_eq!(waits.longest(), Some((1u64 << 40) as f64));
        assert!(waits.quantile(1.0).unwrap() >= 3600.0);
    }
}
