//! Weighted sampling: marginals, equal ranks, refusals.

use super::epoch;
use crate::plan::{Plan, PlanOptions, Strategy, Subset, Weights};

fn strategy(block_size: u64, draws: Option<u64>) -> Strategy {
    Strategy::BlockWeighted { block_size, draws, replacement: true }
}

#[test]
fn each_cell_has_its_share() {
    // 23 cells of which every third is chosen from no more; blocks of four, the last is short.
    let weights: Vec<f64> = (0..23).map(|i| f64::from(i * i % 7)).collect();
    let subset = Subset::from_mask((0..23).map(|r| r % 3 != 1)).unwrap();
    let share = |r: usize| if r % 3 == 1 { 0.0 } else { weights[r] };
    let total: f64 = (0..23).map(share).sum();
    let mut counts = [0.0; 23];
    let mut cells = 0.0;
    for seed in 0..4000 {
        for rank in 0..2 {
            let options = PlanOptions::default()
                .with_batch_size(5)
                .with_fetch_factor(2)
                .with_seed(seed)
                .with_rank(rank, 2);
            let given = Weights::of_cells(weights.clone()).unwrap();
            let plan =
                Plan::weighted(subset.clone(), given, strategy(4, Some(49)), &options).unwrap();
            let minibatches = epoch(&plan, 1);
            assert_eq!((plan.n_minibatches(), minibatches.len()), (5, 5));
            for row in minibatches.into_iter().flatten() {
                counts[row as usize] += 1.0;
                cells += 1.0;
            }
        }
    }
    assert_eq!(cells, 4000.0 * 49.0);
    for (row, count) in counts.iter().enumerate() {
        let want = cells * share(row) / total;
        // Four cells of a block come together: the variance is at most four times a binomial's.
        let deviation = (4.0 * want).sqrt();
        assert!((count - want).abs() <= 5.0 * deviation, "{row}: {count} for {want}");
    }
}

#[test]
fn classes_are_balanced_and_blocks_kept() {
    // A class of 900 cells and one of 100, each in one run.
    let classes: Vec<Option<u32>> = (0..1000).map(|r| Some(u32::from(r >= 900) * 7)).collect();
    let subset = Subset::all(1000);
    let strategy =
        Strategy::ClassBalanced { block_size: 10, draws: Some(100_000), replacement: true };
    let options = PlanOptions::default().with_batch_size(50).with_fetch_factor(4);
    let weights = Weights::balanced(&classes, &subset).unwrap();
    let plan = Plan::weighted(subset.clone(), weights, strategy, &options).unwrap();
    let cells = epoch(&plan, 0).concat();
    assert_eq!(cells.len(), 100_000);
    let rare = cells.iter().filter(|r| **r >= 900).count();
    // Ten thousand draws of blocks: 50 of them are a deviation.
    assert!((47_500..52_500).contains(&rare), "{rare}");
    // A block of equal weights comes whole.
    let fetch = plan.fetch(0, 7).unwrap();
    assert!(fetch.rows().as_slice().iter().all(|r| r.start % 10 == 0 && r.end % 10 == 0));
    let state = plan.state(0, 9).unwrap();
    assert_eq!(plan.resume(&state).unwrap().first_minibatch(0), 9);
    let equal = Weights::of_cells(vec![1.0; 1000]).unwrap();
    let other = Plan::weighted(subset, equal, strategy, &options).unwrap();
    assert!(other.resume(&state).unwrap_err().to_string().contains("weights was"));
}

#[test]
fn bad_weights_are_named() {
    let message = |weights: Vec<f64>| match Weights::of_cells(weights) {
        Err(e) => e.to_string(),
        Ok(weights) => {
            let options = PlanOptions::default();
            let plan = Plan::weighted(Subset::all(3), weights, strategy(2, None), &options);
            plan.unwrap_err().to_string()
        }
    };
    assert!(message(vec![1.0, -1.0, 0.0]).contains("the weight of cell 1 is -1"));
    assert!(message(vec![1.0, f64::NAN, 0.0]).contains("cell 1 is NaN"));
    assert!(message(vec![1.0, 1.0, f64::INFINITY]).contains("cell 2 is inf"));
    assert!(message(vec![0.0; 3]).contains("add up to 0"));
    assert!(message(vec![f64::MAX; 3]).contains("add up to inf"));
    assert!(message(vec![1.0; 4]).contains("there are 4 weights for 3 cells"));
    let classes = Weights::balanced(&[Some(1), None, Some(2)], &Subset::all(3));
    assert!(
        classes.unwrap_err().to_string().contains("1 cells have no class, the first is cell 1")
    );
    let options = PlanOptions::default();
    let plan = Plan::new(3, strategy(2, None), &options).unwrap_err();
    assert!(plan.to_string().contains("needs weights"));
    let weights = Weights::of_cells(vec![1.0; 3]).unwrap();
    let plan = Plan::weighted(Subset::all(3), weights, Strategy::TrueRandom, &options);
    assert!(plan.unwrap_err().to_string().contains("takes no weights"));
}

/// From `testdata/plan_reference.py`.
#[test]
fn golden_weighted() {
    let weights = Weights::of_cells((0..21).map(|r| f64::from(r % 5)).collect::<Vec<_>>()).unwrap();
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2).with_seed(9);
    let plan = Plan::weighted(Subset::all(21), weights, strategy(3, Some(19)), &options).unwrap();
    assert_eq!(epoch(&plan, 4), GOLDEN_WEIGHTED.map(<[u64]>::to_vec));
}

const GOLDEN_WEIGHTED: [&[u64]; 5] =
    [&[9, 9, 3, 11], &[4, 4, 3, 4], &[14, 12, 7, 12], &[6, 8, 13, 13], &[18, 19, 18]];

#[test]
fn drawn_blocks_out_of_proportion_are_refused() {
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2);
    for block in [1 << 62, u64::MAX, (1 << 20) + 1] {
        let weights = Weights::of_cells(vec![1.0; 30]).unwrap();
        let plan = Plan::weighted(Subset::all(30), weights, strategy(block, None), &options);
        let error = plan.unwrap_err();
        assert!(error.to_string().contains("lower block_size"), "{error}");
    }
    let weights = Weights::of_cells(vec![1.0; 30]).unwrap();
    let plan = Plan::weighted(Subset::all(30), weights, strategy(100, None), &options).unwrap();
    assert_eq!(plan.fetch(0, 0).unwrap().minibatches().flatten().count(), 8);
}
