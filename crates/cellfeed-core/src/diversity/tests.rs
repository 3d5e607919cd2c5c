//! The formulas against what others published, and against simulations with fixed seeds.

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
