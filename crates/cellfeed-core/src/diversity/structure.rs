//! How a label lies on disk: its runs and its autocorrelation, in one pass over the codes.

use super::labels::index;
use crate::as_u64;

/// Reads the codes of a label in file order, in pieces of any length, and keeps no more of them than
/// the largest lag.
#[derive(Debug, Clone)]
pub struct LabelStructure {
    n: u64,
    counts: Vec<u64>,
    runs: u64,
    longest: u64,
    squares: u128,
    /// The code and the length of the run that is not at its end yet.
    open: Option<(u32, u64)>,
    lags: Vec<u64>,
    matches: Vec<u64>,
    /// The last codes, as many as the largest lag, and those that are being read.
    recent: Vec<u32>,
}

impl LabelStructure {
    /// Begins a pass that will tell the autocorrelation at these lags, in cells. Each lag costs a
    /// comparison a cell, and the largest one four bytes of memory a cell.
    #[must_use]
    pub fn new(lags: impl IntoIterator<Item = u64>) -> Self {
        let lags: Vec<u64> = lags.into_iter().collect();
        Self {
            n: 0,
            counts: Vec::new(),
            runs: 0,
            longest: 0,
            squares: 0,
            open: None,
            matches: vec![0; lags.len()],
            lags,
            recent: Vec::new(),
        }
    }

    /// Reads the codes of the next cells.
    pub fn extend(&mut self, codes: &[u32]) {
        // Pieces bound the memory that the codes take a second time.
        for piece in codes.chunks(1 << 16) {
            self.extend_piece(piece);
        }
    }

    fn extend_piece(&mut self, codes: &[u32]) {
        let before = self.recent.len();
        self.recent.extend_from_slice(codes);
        for (&lag, matches) in self.lags.iter().zip(&mut self.matches) {
            // Pairs whose later cell is among the new ones.
            let lag = usize::try_from(lag).unwrap_or(usize::MAX);
            let first = before.max(lag);
            if first < self.recent.len() {
                let later = &self.recent[first..];
                let earlier = &self.recent[first - lag..];
                let same = later.iter().zip(earlier).filter(|(a, b)| a == b);
                *matches += as_u64(same.count());
            }
        }
        for &code in codes {
            let at = index(code);
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            self.counts[at] += 1;
            match &mut self.open {
                Some((last, length)) if *last == code => *length += 1,
                _ => {
                    self.close();
                    self.open = Some((code, 1));
                }
            }
        }
        self.n += as_u64(codes.len());
        let keep = self.lags.iter().copied().max().unwrap_or(0);
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let drop = self.recent.len().saturating_sub(keep);
        self.recent.drain(..drop);
    }

    fn close(&mut self) {
        if let Some((_, length)) = self.open.take() {
            self.runs += 1;
            self.longest = self.longest.max(length);
            self.squares += u128::from(length) * u128::from(length);
        }
    }

    /// Cells that were read.
    #[must_use]
    pub fn n_cells(&self) -> u64 {
        self.n
    }

    /// How many cells have each code.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Runs: neighbouring cells of one label, as many as there are.
    #[must_use]
    pub fn n_runs(&self) -> u64 {
        self.runs + u64::from(self.open.is_some())
    }

    /// Cells of the longest run.
    #[must_use]
    pub fn longest_run(&self) -> u64 {
        self.longest.max(self.open.map_or(0, |(_, length)| length))
    }

    /// Cells of a run, on average over runs: `n / runs`. 0 without cells.
    #[must_use]
    pub fn mean_run(&self) -> f64 {
        self.n as f64 / self.n_runs().max(1) as f64
    }

    /// Cells of the run in which a cell is, on average over cells: `sum L^2 / n`. 0 without cells.
    #[must_use]
    pub fn mean_run_of_a_cell(&self) -> f64 {
        let open = self.open.map_or(0, |(_, length)| u128::from(length) * u128::from(length));
        (self.squares + open) as f64 / self.n.max(1) as f64
    }

    /// The autocorrelation at each of the lags: `r[d] = (a[d] - P) / (1 - P)`, where `a[d]` is the
    /// share of pairs of cells `d` apart that have one label, and `P = sum p_k^2` that of pairs drawn
    /// at random. 1 where all such pairs agree, 0 where they agree as strangers do, `None` for a lag
    /// that no pair has and for a label with one value.
    pub fn autocorrelation(&self) -> impl Iterator<Item = (u64, Option<f64>)> + '_ {
        let chance = chance(&self.counts);
        self.lags.iter().zip(&self.matches).map(move |(&lag, &matches)| {
            let pairs = self.n.saturating_sub(lag);
            let r = (pairs > 0 && chance < 1.0)
                .then(|| (matches as f64 / pairs as f64 - chance) / (1.0 - chance));
            (lag, r)
        })
    }
}

/// The probability that two cells drawn at random, with replacement, have one label.
pub(super) fn chance(counts: &[u64]) -> f64 {
    let n: u64 = counts.iter().sum();
    if counts.contains(&n) {
        return 1.0;
    }
    counts.iter().map(|&c| (c as f64 / n as f64).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn runs_are_counted_over_the_edges_of_pieces() {
        let mut structure = LabelStructure::new([1, 3, 100]);
        for piece in [&[0, 0, 0][..], &[0], &[], &[1, 1, 0]] {
            structure.extend(piece);
        }
        assert_eq!((structure.n_cells(), structure.n_runs(), structure.longest_run()), (7, 3, 4));
        assert!((structure.mean_run() - 7.0 / 3.0).abs() < 1e-15);
        assert!((structure.mean_run_of_a_cell() - 21.0 / 7.0).abs() < 1e-15);
        let r: Vec<_> = structure.autocorrelation().collect();
        let chance = (25.0 + 4.0) / 49.0;
        let want = |share: f64| (share - chance) / (1.0 - chance);
        assert!((r[0].1.unwrap() - want(4.0 / 6.0)).abs() < 1e-15);
        // Pairs three apart: 0-0, 0-1, 0-1, 0-0.
        assert!((r[1].1.unwrap() - want(2.0 / 4.0)).abs() < 1e-15);
        assert_eq!(r[2], (100, None));
        let mut one = LabelStructure::new([1]);
        one.extend(&[3; 50]);
        assert_eq!(one.autocorrelation().next(), Some((1, None)));
        assert_eq!(LabelStructure::new([]).mean_run(), 0.0);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            codes in proptest::collection::vec(0u32..4, 0..300), cut in any::<proptest::sample::Index>(),
        ) {
            let lags = [1u64, 2, 7, 64, 299];
            let mut whole = LabelStructure::new(lags);
            whole.extend(&codes);
            let mut parts = LabelStructure::new(lags);
            let at = cut.index(codes.len() + 1);
            parts.extend(&codes[..at]);
            parts.extend(&codes[at..]);
            prop_assert!(parts.recent.len() <= 299);
            prop_assert_eq!(parts.n_runs(), whole.n_runs());
            for (i, &lag) in lags.iter().enumerate() {
                let lag = lag as usize;
                let want = (lag..codes.len()).filter(|&j| codes[j] == codes[j - lag]).count();
                prop_assert_eq!(parts.matches[i], want as u64);
                prop_assert_eq!(whole.matches[i], want as u64);
            }
        }
    }
}
