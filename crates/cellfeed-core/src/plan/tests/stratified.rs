//! Stratified block shuffling: one block of each stretch in each fetch, places uniform.

use super::{epoch, plan};
use crate::plan::{Plan, PlanOptions, Strategy, Subset};
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_full_fetch_has_a_block_of_each_stretch(
        fetches in 1u64..30, rest in 0u64..8, tail in 0u64..4, seed: u64, e in 0u64..3,
    ) {
        // Eight blocks of four cells in a fetch.
        let blocks = fetches * 8 + rest;
        let n = blocks * 4 + tail;
        let strategy = Strategy::StratifiedBlockShuffling { block_size: 4 };
        let plan = plan(n, strategy, 8, 4, false, seed);
        for k in 0..fetches {
            let fetch = plan.fetch(e, k).unwrap();
            let mut chosen: Vec<u64> =
                fetch.rows().iter_rows().filter(|r| r / 4 < blocks).map(|r| r / 4).collect();
            chosen.dedup();
            // Around the ring, no gap between neighbours is longer than two stretches.
            let gaps = (0..chosen.len()).map(|i| {
                let next = chosen[(i + 1) % chosen.len()];
                (next + blocks - chosen[i]) % blocks
            });
            // The tail may stand in for all of a block.
            let longest = 2 * blocks.div_ceil(8) * if tail > 0 { 2 } else { 1 };
            prop_assert!(gaps.max().unwrap() <= longest, "{chosen:?} of {blocks}");
            prop_assert!(chosen.len() >= 7);
        }
    }
}

/// Chi-square of a table whose rows and columns have equal sums but for `weights` of the columns.
fn chi2(counts: &[Vec<f64>], weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    counts
        .iter()
        .map(|row| {
            let sum: f64 = row.iter().sum();
            let cell = |(c, w): (&f64, &f64)| {
                let want = sum * w / total;
                (c - want).powi(2) / want
            };
            row.iter().zip(weights).map(cell).sum::<f64>()
        })
        .sum()
}

#[test]
fn a_blocks_fetch_is_uniform() {
    // Six fetches of four blocks, and three blocks in the last.
    let strategy = Strategy::StratifiedBlockShuffling { block_size: 2 };
    let seeds = 20_000;
    let mut counts = vec![vec![0.0; 7]; 27];
    for seed in 0..seeds {
        let plan = plan(54, strategy, 4, 2, false, seed);
        for k in 0..7 {
            for range in plan.fetch(0, k).unwrap().rows().as_slice() {
                for block in range.start / 2..range.end / 2 {
                    counts[block as usize][k as usize] += 1.0;
                }
            }
        }
    }
    assert!(counts.iter().all(|row| row.iter().sum::<f64>() == seeds as f64));
    let chi2 = chi2(&counts, &[4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0]);
    // Blocks of a table are not independent, which only lowers the sum; five deviations.
    let degrees = 27.0 * 6.0;
    assert!(chi2 < degrees + 5.0 * (2.0f64 * degrees).sqrt(), "{chi2} at {degrees}");
    assert!(chi2 > degrees / 4.0, "{chi2} at {degrees}");
}

#[test]
fn a_trillion_cells_start_at_once() {
    let strategy = Strategy::StratifiedBlockShuffling { block_size: 16 };
    let plan = Plan::new(1_000_000_000_000, strategy, &PlanOptions::default()).unwrap();
    let fetch = plan.fetch(7, 61_000_000).unwrap();
    assert_eq!(fetch.rows().n_rows(), 16_384);
    // One block from each of 1,024 stretches.
    let starts = fetch.rows().as_slice().iter().map(|r| r.start);
    let gaps = starts.clone().skip(1).zip(starts).map(|(a, b)| a - b);
    assert!(gaps.max().unwrap() < 2 * 1_000_000_000_000 / 1024 + 16);
    assert_eq!(plan.fetch(7, 61_035_156).unwrap().rows().n_rows(), 1_000_000_000_000 % 16_384);
}

#[test]
fn a_subset_keeps_its_blocks() {
    // Every other hundred cells; blocks of ten.
    let subset = Subset::from_mask((0..2000).map(|r| r / 100 % 2 == 0)).unwrap();
    for strategy in [
        Strategy::StratifiedBlockShuffling { block_size: 10 },
        Strategy::BlockShuffling { block_size: 10 },
    ] {
        let options = PlanOptions::default().with_batch_size(20).with_fetch_factor(5);
        let plan = Plan::over(subset.clone(), strategy, &options).unwrap();
        assert_eq!((plan.n_obs(), plan.n_cells(), plan.n_fetches()), (2000, 1000, 10));
        for k in 0..10 {
            let rows = plan.fetch(0, k).unwrap();
            assert!(rows.rows().as_slice().iter().all(|r| r.start % 10 == 0 && r.end % 10 == 0));
        }
        let mut seen = epoch(&plan, 3).concat();
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..2000).filter(|r| r / 100 % 2 == 0)));
    }
}

/// From `testdata/plan_reference.py`.
#[test]
fn golden_stratified() {
    let strategy = Strategy::StratifiedBlockShuffling { block_size: 2 };
    let got = epoch(&plan(31, strategy, 4, 2, false, 5), 2);
    assert_eq!(got, GOLDEN_STRATIFIED.map(<[u64]>::to_vec));
    let rows: Vec<u64> = (0..60).filter(|r| r % 7 < 3).collect();
    let subset = Subset::from_rows(60, &rows).unwrap();
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(1);
    let got = epoch(&Plan::over(subset, strategy, &options.with_rank(1, 2)).unwrap(), 0);
    assert_eq!(got, GOLDEN_SUBSET.map(<[u64]>::to_vec));
}

const GOLDEN_STRATIFIED: [&[u64]; 8] = [
    &[24, 7, 2, 6],
    &[11, 10, 25, 3],
    &[30, 12, 13, 18],
    &[19, 1, 0, 5],
    &[14, 15, 9, 8],
    &[22, 28, 23, 29],
    &[26, 21, 17, 27],
    &[4, 20, 16],
];
const GOLDEN_SUBSET: [&[u64]; 4] = [&[43, 42, 16, 21], &[7, 2, 29, 28], &[49, 50, 51, 44], &[22]];
