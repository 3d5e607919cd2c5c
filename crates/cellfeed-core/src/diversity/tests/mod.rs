//! The formulas against what others published, and against simulations with fixed seeds.

#[cfg(test)]
mod strata;

use super::*;

/// Cells of each of the fourteen plates of Tahoe-100M, the counts of its obs table as
/// `tahoe_meta/obs_cell_grid.parquet` has them; 100,648,790 in all.
const TAHOE_PLATES: [f64; 14] = [
    5_481_420.0,
    8_064_658.0,
    4_705_402.0,
    7_004_356.0,
    6_419_498.0,
    7_545_393.0,
    5_692_117.0,
    8_880_979.0,
    5_866_669.0,
    8_044_908.0,
    7_435_869.0,
    10_487_057.0,
    8_501_658.0,
    6_518_806.0,
];

const SIZES: [u64; 6] = [1, 4, 16, 64, 256, 1024];

/// The entropy of the plate in minibatches of 64, in bits, as measured by the authors of scDataset
/// on Tahoe-100M (arXiv 2506.01883): a row for each block size, a column for each fetch factor.
#[allow(clippy::approx_constant)] // one of them looks like pi
const PUBLISHED: [[f64; 6]; 6] = [
    [3.63, 3.63, 3.62, 3.62, 3.62, 3.62],
    [3.14, 3.50, 3.60, 3.61, 3.62, 3.62],
    [1.76, 3.05, 3.48, 3.58, 3.61, 3.62],
    [0.0, 1.75, 3.00, 3.45, 3.58, 3.61],
    [0.0, 0.0, 1.77, 2.98, 3.48, 3.58],
    [0.0, 0.0, 0.0, 1.72, 2.98, 3.47],
];

#[test]
fn the_published_measurements_come_out() {
    assert_eq!(TAHOE_PLATES.iter().sum::<f64>(), 100_648_790.0);
    let mut squares = 0.0;
    for (b, row) in SIZES.into_iter().zip(PUBLISHED) {
        for (f, published) in SIZES.into_iter().zip(row) {
            let exact = expected_entropy_pure_blocks(&TAHOE_PLATES, 64, b, f);
            let off = (exact - published).abs();
            assert!(off <= 0.05, "b {b}, f {f}: {exact:.4}, published {published}");
            squares += off * off;
        }
    }
    assert!((squares / 36.0).sqrt() < 0.02);
    let random = expected_entropy_random(&TAHOE_PLATES, 64);
    assert!((random - 3.62).abs() < 0.01, "{random}");
}

/// The same formula from another program, in Python.
#[test]
fn another_program_gives_the_same() {
    for (b, f, want) in [
        (4, 1, 3.0900238476750865),
        (16, 4, 3.013330156011496),
        (16, 16, 3.4752459724215243),
        (64, 16, 2.9946748790905366),
        (256, 64, 2.990049111732317),
    ] {
        let got = expected_entropy_pure_blocks(&TAHOE_PLATES, 64, b, f);
        assert!((got - want).abs() < 1e-9, "b {b}, f {f}: {got}");
    }
    let random = expected_entropy_random(&TAHOE_PLATES, 64);
    assert!((random - 3.621118708431259).abs() < 1e-11, "{random}");
}

#[test]
fn the_second_order_is_near_where_labels_are_many() {
    for (b, f) in [(1, 1), (4, 16), (16, 16), (16, 64), (16, 256), (64, 256), (256, 1024)] {
        let exact = expected_entropy_pure_blocks(&TAHOE_PLATES, 64, b, f);
        let second = expected_entropy_second_order(&TAHOE_PLATES, 64, b, f, 1.0);
        assert!((exact - second).abs() < 0.05, "b {b}, f {f}: {exact:.4} {second:.4}");
    }
}

use crate::{Plan, PlanOptions, Strategy};
use arrow_array::Int64Array;
use std::sync::Arc;

/// Words of splitmix64: for tests alone.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }
}

/// Labels in runs of about `run` cells, of `per_part` labels in each of `parts` parts of the file.
fn in_runs(n: usize, run: f64, parts: u64, per_part: u64, seed: u64) -> Labels {
    let mut random = Random(seed);
    let mut codes: Vec<i64> = Vec::with_capacity(n);
    while codes.len() < n {
        let length = (-random.unit().max(1e-12).ln() * run).max(1.0) as usize;
        let part = codes.len() as u64 * parts / n as u64;
        let label = (part * per_part + random.below(per_part)) as i64;
        codes.extend(std::iter::repeat_n(label, length.min(n - codes.len())));
    }
    let mut labels = Labels::new();
    let array: ArrayRef = Arc::new(Int64Array::from(codes));
    labels.extend(&array).unwrap();
    labels
}

/// Runs plans over epochs, and gives what was measured.
fn measure(
    labels: &Labels,
    strategy: Strategy,
    m: u64,
    f: u64,
    w: u64,
    epochs: u64,
) -> DiversityMeter {
    let options = PlanOptions::default().with_batch_size(m).with_fetch_factor(f).with_seed(11);
    let plan = Plan::new(labels.codes().len() as u64, strategy, &options).unwrap();
    measure_plan(labels, &plan, w, epochs)
}

fn measure_plan(labels: &Labels, plan: &Plan, w: u64, epochs: u64) -> DiversityMeter {
    let m = plan.batch_size();
    let mut meter = DiversityMeter::new(labels.counts(), m, w);
    for epoch in 0..epochs {
        for k in 0..plan.n_fetches() {
            let fetch = plan.fetch(epoch, k).unwrap();
            let codes: Vec<u32> =
                fetch.rows().iter_rows().map(|row| labels.codes()[row as usize]).collect();
            for minibatch in fetch.minibatches() {
                let codes: Vec<u32> = minibatch.iter().map(|&i| codes[i as usize]).collect();
                meter.push(&codes);
            }
        }
    }
    meter
}

/// The whole theory against plans that are run, on labels of several structures.
#[test]
fn plans_give_what_theory_expects() {
    // Long runs in parts, as drugs on plates; short runs; hardly any.
    for (name, run, parts, per_part) in [
        ("plates", 600.0, 14, 1),
        ("drugs", 90.0, 14, 6),
        ("short", 9.0, 1, 12),
        ("mixed", 1.0, 1, 8),
    ] {
        let labels = in_runs(120_000, run, parts, per_part, 3);
        for (sampling, f) in [
            (Sampling::Streaming, 4u64),
            (Sampling::StreamingShuffled, 16),
            (Sampling::Blocks { block_size: 1 }, 4),
            (Sampling::Blocks { block_size: 16 }, 1),
            (Sampling::Blocks { block_size: 16 }, 8),
            (Sampling::Blocks { block_size: 64 }, 32),
            (Sampling::Blocks { block_size: 256 }, 2),
        ] {
            let strategy = match sampling {
                Sampling::Streaming => Strategy::Streaming { shuffle: false },
                Sampling::StreamingShuffled => Strategy::Streaming { shuffle: true },
                Sampling::Blocks { block_size: 1 } => Strategy::TrueRandom,
                Sampling::Blocks { block_size } => Strategy::BlockShuffling { block_size },
                Sampling::StratifiedBlocks { .. } => unreachable!("see strata.rs"),
            };
            let meter = measure(&labels, strategy, 40, f, 10, 3);
            let theory = expected(&labels, sampling, 40, f, 10).unwrap();
            let entropy = meter.entropy_mean().unwrap() - theory.entropy;
            let ratio = |measured: Option<f64>, expected: Option<f64>| {
                measured.unwrap() / expected.unwrap() - 1.0
            };
            let one = ratio(meter.deff_1(), theory.deff_1);
            let many = ratio(meter.deff_w(), theory.deff_w);
            // With few runs in the file, its blocks are few kinds, and three epochs are noisy.
            assert!(entropy.abs() < 0.03, "{name} {sampling:?} f {f}: {entropy}");
            assert!(one.abs() < 0.04, "{name} {sampling:?} f {f}: {one}");
            assert!(many.abs() < 0.06, "{name} {sampling:?} f {f}: {many}");
        }
    }
}

/// What simulations of an atlas gave for uniform block shuffling (plate entropy, plate `DEFF_10`):
/// plates of Tahoe's sizes, 14 runs, in blocks of 16.
#[test]
fn simulated_atlases_come_out() {
    for (f, entropy, deff_10) in [(16, 3.474, 8.42), (64, 3.586, 3.28), (256, 3.613, 1.57)] {
        let got = expected_entropy_pure_blocks(&TAHOE_PLATES, 64, 16, f);
        assert!((got - entropy).abs() < 0.012, "f {f}: {got}");
        let got = deff(64, 16, f, 1.0, 10);
        assert!((got / deff_10 - 1.0).abs() < 0.02, "f {f}: {got}");
    }
    // Drugs in runs of 600 cells: DEFF_50 at f = 16, 64, 256.
    for (f, deff_50) in [(16, 14.2), (64, 9.62), (256, 3.68)] {
        let got = deff(64, 16, f, rho_of_runs(16, 600.0), 50);
        assert!((got / deff_50 - 1.0).abs() < 0.02, "f {f}: {got}");
    }
}

/// Draws of blocks and of minibatches from them, as the formula imagines them.
#[test]
fn entropies_agree_with_draws() {
    let shares = [0.4, 0.3, 0.2, 0.07, 0.03];
    let mut random = Random(5);
    let draw = |random: &mut Random| {
        let mut u = random.unit();
        let label = shares.iter().position(|p| {
            u -= p;
            u < 0.0
        });
        label.unwrap_or(0) as u32
    };
    let entropy = |codes: &[u32]| {
        entropy_bits((0..5u32).map(|k| codes.iter().filter(|&&c| c == k).count() as u64))
    };
    for (m, b, f) in
        [(16u64, 1u64, 1u64), (16, 4, 1), (16, 4, 3), (16, 8, 8), (16, 6, 2), (16, 64, 2)]
    {
        let (mut sum, rounds) = (0.0, 8000);
        for _ in 0..rounds {
            // A fetch that begins anywhere in a block, at a multiple of what fetches begin at.
            let step = deff::gcd(b, m * f);
            let offset = random.below(b / step) * step;
            let blocks: Vec<u32> =
                (0..(offset + m * f).div_ceil(b)).map(|_| draw(&mut random)).collect();
            let mut cells: Vec<u32> =
                (offset..offset + m * f).map(|i| blocks[(i / b) as usize]).collect();
            for i in 0..m as usize {
                let j = i + random.below((cells.len() - i) as u64) as usize;
                cells.swap(i, j);
            }
            sum += entropy(&cells[..m as usize]);
        }
        let (got, want) = (expected_entropy_pure_blocks(&shares, m, b, f), sum / f64::from(rounds));
        assert!((got - want).abs() < 0.02, "{m} {b} {f}: {got} {want}");
    }
    // Without replacement, from a store that is hardly larger than the minibatch.
    let cells: Vec<u32> = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4].to_vec();
    let mut sum = 0.0;
    for _ in 0..20_000 {
        let mut cells = cells.clone();
        for i in 0..8 {
            let j = i + random.below((cells.len() - i) as u64) as usize;
            cells.swap(i, j);
        }
        sum += entropy(&cells[..8]);
    }
    let got = expected_entropy_without_replacement(&[5, 3, 2, 1, 1], 8);
    assert!((got - sum / 20_000.0).abs() < 0.006, "{got} {}", sum / 20_000.0);
}

/// A number of every cell in place of a label, as the gradient has one: independent runs with a mean
/// each, and noise.
#[test]
fn design_effects_and_correlations_agree_with_draws() {
    let mut random = Random(9);
    let mut normal = || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    let (n, run, m) = (1usize << 17, 100usize, 32u64);
    let mut x = Vec::with_capacity(n);
    while x.len() < n {
        let mean = normal();
        x.extend((0..run.min(n - x.len())).map(|_| mean + normal()));
    }
    let mean = x.iter().sum::<f64>() / n as f64;
    x.iter_mut().for_each(|x| *x -= mean);
    let variance = x.iter().map(|x| x * x).sum::<f64>() / n as f64;
    for (b, f) in [(16u64, 1u64), (16, 8), (64, 16), (256, 8)] {
        // Half of the variance is that of runs.
        let rho = 0.5 * rho_of_runs(b, run as f64);
        let options = PlanOptions::default().with_batch_size(m).with_fetch_factor(f);
        let plan =
            Plan::new(n as u64, Strategy::BlockShuffling { block_size: b }, &options).unwrap();
        let mut means = Vec::new();
        for k in (0..4).flat_map(|epoch| (0..plan.n_fetches()).map(move |k| (epoch, k))) {
            let fetch = plan.fetch(k.0, k.1).unwrap();
            let rows: Vec<u64> = fetch.rows().iter_rows().collect();
            let mean =
                |p: &[u32]| p.iter().map(|&i| x[rows[i as usize] as usize]).sum::<f64>() / m as f64;
            means.extend(fetch.minibatches().map(mean));
        }
        for w in [1usize, 10] {
            let windows: Vec<f64> =
                means.windows(w).map(|m| (m.iter().sum::<f64>() / w as f64).powi(2)).collect();
            let measured = windows.iter().sum::<f64>() / windows.len() as f64;
            let got = deff(m, b, f, rho, w as u64);
            let want = measured * (m as usize * w) as f64 / variance;
            assert!((want / got - 1.0).abs() < 0.1, "b {b} f {f} w {w}: {got} {want}");
        }
        if f > 1 {
            let products = means.chunks_exact(f as usize).map(|m| m[0] * m[1]);
            let squares: f64 = means.iter().map(|m| m * m).sum::<f64>() / means.len() as f64;
            let want = products.sum::<f64>() / (means.len() as u64 / f) as f64 / squares;
            let got = correlation_in_fetch(m, b, f, rho);
            assert!((got - want).abs() < 0.08, "b {b} f {f}: {got} {want}");
        }
    }
}

/// The autocorrelation, summed over lags, is the correlation within blocks that begin anywhere.
#[test]
fn autocorrelation_gives_the_correlation_within_blocks() {
    let labels = in_runs(120_000, 40.0, 1, 7, 1);
    let mut structure = LabelStructure::new(0..64);
    structure.extend(labels.codes());
    let r: Vec<f64> = structure.autocorrelation().map(|(_, r)| r.unwrap()).collect();
    assert!((r[0] - 1.0).abs() < 1e-12);
    for b in [2u64, 16, 64] {
        let blocks = expected(&labels, Sampling::Blocks { block_size: b }, 64, 64, 1).unwrap();
        let from_lags = rho_from_autocorrelation(b, &r);
        assert!((blocks.rho - from_lags).abs() < 0.005, "{b}: {} {from_lags}", blocks.rho);
    }
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_asked_breaks_theory(
        codes in proptest::collection::vec(0i64..5, 0..200), m in 0u64..40, b in 0u64..300,
        f in 0u64..1 << 40, w in 0u64..50, kind in 0..4,
    ) {
        let mut labels = Labels::new();
        let array: ArrayRef = Arc::new(Int64Array::from(codes.clone()));
        labels.extend(&array).unwrap();
        let sampling = match kind {
            0 => Sampling::Streaming,
            1 => Sampling::StreamingShuffled,
            2 => Sampling::Blocks { block_size: b },
            _ => Sampling::StratifiedBlocks { block_size: b },
        };
        let got = expected(&labels, sampling, m, f, w);
        let zero = m == 0 || f == 0 || w == 0 || (kind >= 2 && b == 0);
        proptest::prop_assert_eq!(got.is_err(), zero || codes.is_empty() || (codes.len() as u64) < m);
        if let Ok(got) = got {
            let most = (m as f64).log2().min(got.entropy_store.max(0.0) + 1e-9);
            proptest::prop_assert!((-1e-9..=most + 0.2).contains(&got.entropy), "{:?}", got);
            proptest::prop_assert!(got.entropy_second_order >= 0.0 && got.rho.is_finite());
            proptest::prop_assert!(got.deff_1.is_none_or(f64::is_finite), "{:?}", got);
            proptest::prop_assert!(got.deff_w.is_none_or(f64::is_finite), "{:?}", got);
        }
    }
}
