//! Weighted sampling without replacement: at most once, exact numbers, marginals, refusals.

use super::epoch;
use crate::plan::{Plan, PlanOptions, Strategy, Subset, Weights};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

fn strategy(block_size: u64, draws: Option<u64>) -> Strategy {
    Strategy::BlockWeighted { block_size, draws, replacement: false }
}

fn plan(subset: &Subset, weights: &[f64], b: u64, draws: Option<u64>, o: &PlanOptions) -> Plan {
    let weights = Weights::of_cells(weights.to_vec()).unwrap();
    Plan::weighted(subset.clone(), weights, strategy(b, draws), o).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_cell_comes_at_most_once_and_ranks_are_equal(
        n in 20u64..500, b in 1u64..20, m in 1u64..8, f in 1u64..6, size in 1u64..4, seed: u64,
        part in 0.05f64..1.0, power in 0i32..40, e in 0u64..3,
    ) {
        let subset = Subset::from_mask((0..n).map(|r| r % 7 != 2).collect::<Vec<bool>>()).unwrap();
        // From equal weights to such that differ by eighty orders of magnitude; a fifth is 0.
        let weights: Vec<f64> = (0..n)
            .map(|r| if r % 5 == 3 { 0.0 } else { (1.0 + (r * r % 91) as f64).powi(power) })
            .collect();
        let positive = (0..n).filter(|r| r % 7 != 2 && r % 5 != 3).count() as f64;
        let draws = (positive * part).ceil() as u64;
        let mut seen: Vec<u64> = Vec::new();
        for rank in 0..size {
            let options = PlanOptions::default()
                .with_batch_size(m).with_fetch_factor(f).with_seed(seed).with_rank(rank, size);
            if draws.div_ceil(m) < size {
                return Ok(());
            }
            let plan = plan(&subset, &weights, b, Some(draws), &options);
            let minibatches = epoch(&plan, e);
            prop_assert_eq!(minibatches.len() as u64, plan.n_minibatches());
            seen.extend(minibatches.concat());
        }
        prop_assert_eq!(seen.len() as u64, draws);
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() as u64, draws);
        prop_assert!(seen.iter().all(|r| r % 7 != 2 && r % 5 != 3));
    }
}

#[test]
fn each_cell_is_chosen_as_often_as_its_weight_says() {
    // Ten of thirty cells; the heaviest two are always among them.
    let weights: Vec<f64> = (0..30).map(|i| [1.0, 2.0, 0.5, 40.0, 0.0, 1.5][i % 6]).collect();
    let mut weights = weights;
    weights[9] = 1.0;
    weights[15] = 1.0;
    weights[27] = 1.0;
    let subset = Subset::all(30);
    let sure = [3, 21];
    let rest: f64 = (0..30).filter(|i| !sure.contains(i)).map(|i| weights[i]).sum();
    let mut counts = [0.0; 30];
    let mut pairs = [0.0; 30];
    let epochs = 30_000;
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(11);
    let plan = plan(&subset, &weights, 8, Some(10), &options);
    for e in 0..epochs {
        let cells = epoch(&plan, e).concat();
        assert_eq!(cells.len(), 10);
        let with_first = cells.contains(&0);
        for cell in cells {
            counts[cell as usize] += 1.0;
            pairs[cell as usize] += f64::from(u8::from(with_first));
        }
    }
    for (cell, count) in counts.iter().enumerate() {
        let share = if sure.contains(&cell) { 1.0 } else { 8.0 * weights[cell] / rest };
        let want = epochs as f64 * share;
        let deviation = (want * (1.0 - share)).sqrt();
        assert!((count - want).abs() <= 4.5 * deviation + 1e-6, "{cell}: {count} for {want}");
    }
    // Cells of one block come together, too, though the line is cut at equal distances.
    assert!(pairs[1] > 0.0 && pairs[2] > 0.0 && pairs[5] > 0.0, "{pairs:?}");
}

#[test]
fn a_place_in_the_epoch_does_not_depend_on_the_weight() {
    // Of the chosen cells each is in the first minibatch with the same probability.
    let weights: Vec<f64> = (0..24).map(|i| if i % 3 == 0 { 4.0 } else { 1.0 }).collect();
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(1).with_seed(5);
    let plan = plan(&Subset::all(24), &weights, 2, Some(12), &options);
    let (mut first, mut all) = ([0.0f64; 24], [0.0f64; 24]);
    for e in 0..20_000 {
        for (k, minibatch) in epoch(&plan, e).into_iter().enumerate() {
            for cell in minibatch {
                all[cell as usize] += 1.0;
                first[cell as usize] += f64::from(u8::from(k == 0));
            }
        }
    }
    for cell in 0..24 {
        let want = all[cell] / 3.0;
        let deviation = (want * 2.0 / 3.0).sqrt();
        assert!((first[cell] - want).abs() < 4.5 * deviation, "{cell}: {} {want}", first[cell]);
    }
}

#[test]
fn classes_are_evened_to_the_smallest() {
    // 900, 60 and 40 cells.
    let classes: Vec<Option<u32>> =
        (0..1000).map(|r| Some(u32::from(r >= 900) + u32::from(r >= 960))).collect();
    let subset = Subset::all(1000);
    let weights = Weights::balanced(&classes, &subset).unwrap();
    let strategy = Strategy::ClassBalanced { block_size: 10, draws: None, replacement: false };
    let options = PlanOptions::default().with_batch_size(10).with_fetch_factor(3);
    let plan = Plan::weighted(subset, weights, strategy, &options).unwrap();
    assert_eq!(plan.describe(), "class-balanced without replacement, blocks of 10 cells");
    assert_eq!(plan.n_cells(), 120);
    for e in 0..5 {
        let cells = epoch(&plan, e).concat();
        let of = |class| cells.iter().filter(|r| classes[**r as usize] == Some(class)).count();
        // Exactly, but where a class ends between two points.
        assert_eq!(of(2), 40);
        assert!((39..=41).contains(&of(0)) && (39..=41).contains(&of(1)), "{} {}", of(0), of(1));
    }
    // It goes on in mid-epoch.
    let resumed = plan.resume(&plan.state(2, 5).unwrap()).unwrap();
    assert_eq!(resumed.first_minibatch(2), 5);
    assert_eq!(resumed.fetch(2, 1).unwrap(), plan.fetch(2, 1).unwrap());
}

#[test]
fn all_cells_are_an_epoch_of_block_shuffling() {
    let options = PlanOptions::default().with_batch_size(5).with_fetch_factor(4);
    let weights: Vec<f64> = (0..103).map(|i| 1.0 + f64::from(i)).collect();
    let weighted = plan(&Subset::all(103), &weights, 5, Some(103), &options);
    let blocks = Plan::new(103, Strategy::BlockShuffling { block_size: 5 }, &options).unwrap();
    assert_eq!(epoch(&weighted, 4), epoch(&blocks, 4));
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let options = PlanOptions::default();
    let refused = |weights: Vec<f64>, draws| {
        let weights = Weights::of_cells(weights).unwrap();
        let plan = Plan::weighted(Subset::all(4), weights, strategy(2, draws), &options);
        plan.unwrap_err().to_string()
    };
    let message = refused(vec![1.0, 0.0, 2.0, 0.0], Some(3));
    assert!(message.contains("3 cells cannot be drawn") && message.contains("has 2"), "{message}");
    assert!(refused(vec![1.0; 4], Some(0)).contains("draw at least one"));
    assert!(refused(vec![0.0; 4], None).contains("add up to 0"));
    assert!(refused(vec![1.0; 3], None).contains("3 weights for 4 cells"));
}

/// From `testdata/plan_reference.py`.
#[test]
fn golden_without_replacement() {
    let weights: Vec<f64> = (0..41).map(|r| f64::from(r % 5)).collect();
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(9);
    let plan = plan(&Subset::all(41), &weights, 3, Some(19), &options);
    assert_eq!(epoch(&plan, 4), GOLDEN.map(<[u64]>::to_vec));
}

const GOLDEN: [&[u64]; 5] =
    [&[12, 14, 3, 18], &[9, 7, 4, 11], &[39, 33, 23, 29], &[19, 28, 37, 36], &[26, 34, 24]];
