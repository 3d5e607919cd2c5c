//! Gene programmes: the distributions over genes that a cell's transcripts are drawn from, one for
//! every cell line, drug, plate and phase of the cell cycle, as alias tables.

use super::random::{Purpose, Random, whole};
use rayon::prelude::*;

/// Phases of the cell cycle.
pub(super) const PHASES: usize = 6;
/// Mechanisms of action that drugs share.
pub(super) const MECHANISMS: usize = 27;

/// A distribution over genes, ready to be drawn from: Vose's alias method (1991), an entry a gene,
/// the threshold (of 65536) in the upper half and the alias in the lower one.
#[derive(Debug)]
pub(super) struct Alias(Vec<u32>);

impl Alias {
    /// A table for weights, at most 65536 of them, that need not sum to 1.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let scale = weights.len() as f64 / total;
        let mut left: Vec<f64> = weights.iter().map(|w| w * scale).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..left.len()).partition(|&i| left[i] < 1.0);
        // Whoever is not filled up below is full: its alias is itself.
        let mut table: Vec<u32> = (0..left.len()).map(|i| entry(0.0, i)).collect();
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            table[poor] = entry(left[poor], rich);
            left[rich] -= 1.0 - left[poor];
            if left[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self(table)
    }

    /// The gene that a random word stands for: word x genes has the column in its upper half and,
    /// after it, the bits to compare with the threshold.
    #[inline]
    pub(super) fn draw(&self, word: u32) -> u16 {
        let product = u64::from(word) * self.0.len() as u64;
        let column = product >> 32;
        let entry = usize::try_from(column).ok().and_then(|column| self.0.get(column));
        let entry = entry.copied().unwrap_or(0);
        if (product >> 16) & 0xffff < u64::from(entry >> 16) {
            u16::try_from(column).unwrap_or(u16::MAX)
        } else {
            u16::try_from(entry & 0xffff).unwrap_or(u16::MAX)
        }
    }
}

fn entry(kept: f64, alias: usize) -> u32 {
    let threshold = u32::try_from(whole(kept * 65536.0).min(65535)).unwrap_or(65535);
    threshold << 16 | u32::try_from(alias & 0xffff).unwrap_or(0)
}

/// All programmes of an atlas.
#[derive(Debug)]
pub(super) struct Programmes {
    pub(super) lines: Vec<Alias>,
    pub(super) drugs: Vec<Alias>,
    pub(super) plates: Vec<Alias>,
    pub(super) phases: Vec<Alias>,
}

impl Programmes {
    /// `mechanisms[d]` is the mechanism of drug `d`, whose programme has a part in common with
    /// all drugs of that mechanism.
    pub(super) fn new(
        seed: u64,
        genes: usize,
        lines: usize,
        mechanisms: &[usize],
        plates: usize,
    ) -> Self {
        let base = base(seed, genes);
        let many = |purpose, count: usize, share, scale| -> Vec<Alias> {
            let one = |k| tilt(&base, &effects(seed, purpose, k, genes, share, scale));
            (0..count).into_par_iter().map(one).collect()
        };
        let common: Vec<Vec<f64>> = (0..MECHANISMS)
            .into_par_iter()
            .map(|k| effects(seed, Purpose::Moa, k, genes, 0.03, 1.6))
            .collect();
        let drug = |(d, &mechanism): (usize, &usize)| {
            let mut own = effects(seed, Purpose::Drug, d, genes, 0.03, 1.2);
            own.iter_mut().zip(&common[mechanism]).for_each(|(own, common)| *own += common);
            tilt(&base, &own)
        };
        Self {
            lines: many(Purpose::Line, lines, 0.10, 1.2),
            drugs: mechanisms.par_iter().enumerate().map(drug).collect(),
            plates: many(Purpose::Plate, plates, 0.25, 0.9),
            phases: many(Purpose::Cycle, PHASES, 0.03, 1.5),
        }
    }
}

/// Expression common to all cells: lognormal, no gene above 2 %. The spread widens with the number
/// of genes, for the genes that a larger annotation adds are rarely seen.
fn base(seed: u64, genes: usize) -> Vec<f64> {
    const SPREADS: [(f64, f64); 4] =
        [(2000.0, 1.3), (20_000.0, 1.8), (44_563.0, 2.1), (62_710.0, 2.25)];
    let mut spread = if genes < 2000 { SPREADS[0].1 } else { SPREADS[3].1 };
    for pair in SPREADS.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        if (from.0..to.0).contains(&(genes as f64)) {
            let part = (genes as f64 / from.0).ln() / (to.0 / from.0).ln();
            spread = from.1 + part * (to.1 - from.1);
        }
    }
    let mut random = Random::new(seed, Purpose::Base, 0);
    let mut base: Vec<f64> = (0..genes).map(|_| (spread * random.normal()).exp()).collect();
    // A small panel could not sum to 1 below 2 % each.
    let most = base.iter().sum::<f64>() * (10.0 / genes as f64).max(0.02);
    base.iter_mut().for_each(|w| *w = w.min(most));
    base
}

/// Log fold changes: normal ones for a random share of the genes, 0 for the others.
fn effects(
    seed: u64,
    purpose: Purpose,
    number: usize,
    genes: usize,
    share: f64,
    scale: f64,
) -> Vec<f64> {
    let mut random = Random::new(seed, purpose, number);
    let mut effects = vec![0.0; genes];
    // The first of a shuffled list of genes (Fisher and Yates, stopped early).
    let mut order: Vec<usize> = (0..genes).collect();
    for i in 0..whole(share * genes as f64).max(1).min(genes) {
        let j = i + random.below(genes - i);
        order.swap(i, j);
        effects[order[i]] = scale * random.normal();
    }
    effects
}

fn tilt(base: &[f64], effects: &[f64]) -> Alias {
    let weights: Vec<f64> =
        base.iter().zip(effects).map(|(w, e)| w * e.clamp(-4.0, 4.0).exp()).collect();
    Alias::new(&weights)
}

#[cfg(test)]
mod tests {
    use super::Alias;

    #[test]
    fn alias_tables_give_each_weight_its_share() {
        let weights = [0.0, 1.0, 2.5, 0.25, 9.0, 1.0];
        let table = Alias::new(&weights);
        let mut counts = [0.0; 6];
        let draws = 1 << 20;
        for i in 0..draws {
            counts[usize::from(table.draw(i << 12))] += 1.0;
        }
        for (count, weight) in counts.iter().zip(weights) {
            let share = weight / weights.iter().sum::<f64>();
            assert!((count / f64::from(draws) - share).abs() < 1e-3, "{counts:?}");
        }
    }
}
