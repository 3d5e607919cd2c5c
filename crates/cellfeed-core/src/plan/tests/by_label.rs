//! Stratified by label: exactness, what a fetch has of each label, uniformity, refusals.

use super::epoch;
use crate::plan::{Plan, PlanOptions, Strata, StrataBuilder, Strategy, Subset};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

fn strategy(block_size: u64) -> Strategy {
    Strategy::StratifiedBlockShuffling { block_size }
}

fn strata(subset: &Subset, block_size: u64, codes: &[u32]) -> Strata {
    let mut builder = StrataBuilder::new(subset, block_size, "label").unwrap();
    for part in codes.chunks(7) {
        builder.push(&[part]).unwrap();
    }
    builder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_epoch_of_all_ranks_visits_every_cell_once(
        n in 60u64..700, b in 1u64..20, m in 1u64..12, f in 1u64..8, size in 1u64..5, labels in 1u32..9,
        skip in 2u64..6, seed: u64, e in 0u64..3,
    ) {
        let mask = (0..n).map(|r| r % skip != 1);
        let rows: Vec<u64> = (0..n).filter(|r| r % skip != 1).collect();
        let subset = Subset::from_mask(mask.collect::<Vec<bool>>()).unwrap();
        let mut state = seed;
        let codes: Vec<u32> = rows
            .iter()
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u32 % labels
            })
            .collect();
        let order = strata(&subset, b, &codes);
        let mut blocks = order.blocks().to_vec();
        blocks.sort_unstable();
        prop_assert!(blocks.into_iter().eq(0..(rows.len() as u64 / b) as u32));
        let mut seen: Vec<u64> = Vec::new();
        for rank in 0..size {
            let options = PlanOptions::default()
                .with_batch_size(m).with_fetch_factor(f).with_seed(seed).with_rank(rank, size);
            let Ok(plan) = Plan::stratified(subset.clone(), order.clone(), strategy(b), &options) else {
                // Fewer minibatches than ranks.
                prop_assert!((rows.len() as u64).div_ceil(m) < size);
                return Ok(());
            };
            let minibatches = epoch(&plan, e);
            prop_assert_eq!(minibatches.len() as u64, plan.n_minibatches());
            seen.extend(minibatches.concat());
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, rows);
    }
}

#[test]
fn a_fetch_has_of_each_label_what_the_store_has() {
    // Eight labels in runs of 40 cells, in a random order: blocks of 4, fetches of 32 blocks.
    let mut state = 1u64;
    let codes: Vec<u32> = (0..6400)
        .map(|cell| {
            if cell % 40 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            (state >> 40) as u32 % 8
        })
        .collect();
    let options = PlanOptions::default().with_batch_size(16).with_fetch_factor(8);
    let subset = Subset::all(6400);
    let order = strata(&subset, 4, &codes);
    let by_label = Plan::stratified(subset.clone(), order, strategy(4), &options).unwrap();
    let by_position = Plan::over(subset, strategy(4), &options).unwrap();
    let total = |label: u32| codes.iter().filter(|c| **c == label).count() as f64;
    // The largest difference of a label's cells in a fetch from its share of 128, in blocks.
    let worst = |plan: &Plan| {
        let mut worst = 0.0f64;
        for k in 0..plan.n_fetches() {
            let fetch = plan.fetch(3, k).unwrap();
            for label in 0..8 {
                let here = fetch.rows().iter_rows().filter(|&r| codes[r as usize] == label).count();
                worst = worst.max((here as f64 - total(label) / 50.0).abs() / 4.0);
            }
        }
        worst
    };
    // A label is in whole stretches but for the two at its ends.
    assert!(worst(&by_label) <= 2.0, "{}", worst(&by_label));
    assert!(worst(&by_position) > 2.0, "{}", worst(&by_position));
}

#[test]
fn a_block_has_the_label_of_most_of_its_cells() {
    let subset = Subset::all(14);
    // Blocks of four: 2 twice and 1 twice (2 comes first), 0 three times, 1 alone; two cells are left.
    let codes = [2, 1, 1, 2, 0, 5, 0, 0, 1, 1, 1, 1, 0, 0];
    assert_eq!(strata(&subset, 4, &codes).blocks(), [1, 2, 0]);
    // Two columns: the first decides, then the second; in blocks of two.
    let mut builder = StrataBuilder::new(&subset, 2, "plate and drug").unwrap();
    let plate = [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0];
    let drug = [9, 9, 8, 8, 3, 3, 8, 8, 2, 2, 9, 9, 1, 1];
    builder.push(&[&plate, &drug]).unwrap();
    let order = builder.finish().unwrap();
    assert_eq!(order.blocks(), [6, 4, 1, 3, 2, 0, 5]);
    assert_eq!((order.name(), order.block_size()), ("plate and drug", 2));
}

#[test]
fn a_blocks_fetch_is_uniform() {
    // 27 blocks of two in fetches of four, as by position.
    let codes: Vec<u32> = (0..54).map(|cell| cell / 5 % 3).collect();
    let subset = Subset::all(54);
    let order = strata(&subset, 2, &codes);
    let seeds = 20_000;
    let mut counts = vec![[0.0f64; 7]; 27];
    for seed in 0..seeds {
        let options =
            PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(seed);
        let plan = Plan::stratified(subset.clone(), order.clone(), strategy(2), &options).unwrap();
        for k in 0..7 {
            for range in plan.fetch(0, k).unwrap().rows().as_slice() {
                for block in range.start / 2..range.end / 2 {
                    counts[block as usize][k as usize] += 1.0;
                }
            }
        }
    }
    let chi2: f64 = counts
        .iter()
        .flat_map(|row| row.iter().zip([4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0]))
        .map(|(count, share)| {
            let want = seeds as f64 * share / 27.0;
            (count - want).powi(2) / want
        })
        .sum();
    let degrees = 27.0 * 6.0;
    assert!(chi2 < degrees + 5.0 * (2.0f64 * degrees).sqrt(), "{chi2} at {degrees}");
    assert!(chi2 > degrees / 4.0, "{chi2} at {degrees}");
}

#[test]
fn other_labels_are_another_plan() {
    let subset = Subset::all(400);
    let options = PlanOptions::default().with_batch_size(8).with_fetch_factor(4);
    let plan = |codes: &[u32]| {
        Plan::stratified(subset.clone(), strata(&subset, 4, codes), strategy(4), &options).unwrap()
    };
    let runs: Vec<u32> = (0..400).map(|cell| cell / 100).collect();
    let mixed: Vec<u32> = (0..400).map(|cell| cell / 4 % 3).collect();
    let (a, b) = (plan(&runs), plan(&mixed));
    assert_eq!(a.describe(), "stratified block shuffling, blocks of 4 cells, by label");
    let state = a.state(0, 5).unwrap();
    assert_eq!(a.resume(&state).unwrap().first_minibatch(0), 5);
    assert!(b.resume(&state).unwrap_err().to_string().contains("labels or weights was"));
    let plain = Plan::over(subset.clone(), strategy(4), &options).unwrap();
    let message = plain.resume(&state).unwrap_err().to_string();
    assert!(message.contains("by label and is stratified"), "{message}");
}

#[test]
fn strata_that_do_not_fit_are_refused() {
    let subset = Subset::all(40);
    let codes = [0; 40];
    let options = PlanOptions::default();
    let order = strata(&subset, 4, &codes);
    let refused = |subset: Subset, strategy: Strategy| {
        Plan::stratified(subset, order.clone(), strategy, &options).unwrap_err().to_string()
    };
    let other = Subset::from_mask((0..41).map(|r| r > 0).collect::<Vec<bool>>()).unwrap();
    assert!(refused(other, strategy(4)).contains("of another subset"));
    assert!(refused(subset.clone(), strategy(5)).contains("blocks of 4 cells"));
    assert!(refused(subset.clone(), Strategy::TrueRandom).contains("true random, has no strata"));
    let message = |codes: &[u32]| {
        let mut builder = StrataBuilder::new(&subset, 4, "drug").unwrap();
        builder.push(&[codes]).and_then(|()| builder.finish()).unwrap_err().to_string()
    };
    assert!(message(&[0; 39]).contains("39 labels of drug for 40 cells"));
    assert!(message(&[0; 41]).contains("41 labels of drug for 40 cells"));
    let mut builder = StrataBuilder::new(&subset, 4, "drug").unwrap();
    assert!(builder.push(&[&[1, 2], &[1]]).is_err());
    assert!(StrataBuilder::new(&subset, 0, "drug").is_err());
    let large = StrataBuilder::new(&Subset::all(1 << 40), 16, "drug").unwrap_err().to_string();
    assert!(large.contains("raise block_size"), "{large}");
}

/// From `testdata/plan_reference.py`.
#[test]
fn golden_by_label() {
    let codes: Vec<u32> = (0..43).map(|cell| cell / 5 % 3).collect();
    let subset = Subset::all(43);
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(3);
    let order = strata(&subset, 2, &codes);
    let plan = Plan::stratified(subset, order, strategy(2), &options).unwrap();
    assert_eq!(epoch(&plan, 1), GOLDEN.map(<[u64]>::to_vec));
}

const GOLDEN: [&[u64]; 11] = [
    &[24, 27, 26, 2],
    &[25, 7, 6, 3],
    &[5, 30, 14, 15],
    &[20, 4, 21, 31],
    &[42, 16, 22, 17],
    &[33, 28, 23, 29],
    &[1, 37, 12, 36],
    &[9, 8, 13, 0],
    &[11, 38, 40, 18],
    &[10, 19, 39, 41],
    &[35, 34, 32],
];
