//! Exactness, alignment, and golden plans.

#[cfg(test)]
mod by_label;
#[cfg(test)]
mod inclusion;
#[cfg(test)]
mod ranks;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod stratified;
#[cfg(test)]
mod uniformity;
#[cfg(test)]
mod weighted;

use super::*;
use proptest::prelude::{
    Just, ProptestConfig, Strategy as Generator, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

fn plan(n: u64, strategy: Strategy, m: u64, f: u64, drop_last: bool, seed: u64) -> Plan {
    let options = PlanOptions::default()
        .with_batch_size(m)
        .with_fetch_factor(f)
        .with_drop_last(drop_last)
        .with_seed(seed);
    Plan::new(n, strategy, &options).unwrap()
}

/// An epoch as row numbers, minibatch by minibatch.
fn epoch(plan: &Plan, epoch: u64) -> Vec<Vec<u64>> {
    (0..plan.n_fetches())
        .flat_map(|k| {
            let fetch = plan.fetch(epoch, k).unwrap();
            let rows: Vec<u64> = fetch.rows().iter_rows().collect();
            assert_eq!(fetch.minibatches().len(), fetch.n_minibatches());
            assert_eq!(fetch.first_minibatch(), k * plan.fetch_size() / plan.batch_size());
            fetch
                .minibatches()
                .map(|positions| positions.iter().map(|&p| rows[p as usize]).collect())
                .collect::<Vec<Vec<u64>>>()
        })
        .collect()
}

fn strategies() -> impl Generator<Value = Strategy> {
    prop_oneof![
        Just(Strategy::Streaming { shuffle: false }),
        Just(Strategy::Streaming { shuffle: true }),
        (1u64..40).prop_map(|block_size| Strategy::BlockShuffling { block_size }),
        Just(Strategy::TrueRandom),
        (1u64..40).prop_map(|block_size| Strategy::StratifiedBlockShuffling { block_size }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_epoch_visits_every_cell_once(
        n in 0u64..700, strategy in strategies(), m in 1u64..20, f in 1u64..12,
        drop_last: bool, seed: u64, e in 0u64..3,
    ) {
        let plan = plan(n, strategy, m, f, drop_last, seed);
        let minibatches = epoch(&plan, e);
        prop_assert_eq!(minibatches.len() as u64, plan.n_minibatches());
        let full = minibatches.iter().take(minibatches.len().saturating_sub(1));
        prop_assert!(full.into_iter().all(|b| b.len() as u64 == m));
        let mut seen: Vec<u64> = minibatches.concat();
        prop_assert_eq!(seen.len() as u64, plan.n_cells());
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() as u64, plan.n_cells());
        prop_assert!(seen.iter().all(|&row| row < n));
        if drop_last {
            prop_assert!(n - plan.n_cells() < m);
        } else {
            prop_assert!(seen.into_iter().eq(0..n));
        }
    }

    #[test]
    fn blocks_stay_whole_where_they_divide_the_fetch(
        n in 1u64..3000, b in prop_oneof![Just(1u64), Just(2), Just(4), Just(8), Just(16)], seed: u64,
    ) {
        let plan = plan(n, Strategy::BlockShuffling { block_size: b }, 16, 4, false, seed);
        for k in 0..plan.n_fetches() {
            let fetch = plan.fetch(0, k).unwrap();
            let torn = fetch
                .rows()
                .as_slice()
                .iter()
                .filter(|r| r.start % b != 0 || (r.end % b != 0 && r.end != n))
                .count();
            // Only the block that changes places with the tail is torn, once in its own fetch and
            // once in the last.
            prop_assert!(torn <= 2, "{:?}", fetch.rows());
        }
    }
}

#[test]
fn orders_differ_between_seeds_epochs_and_fetches() {
    let base = plan(1000, Strategy::BlockShuffling { block_size: 8 }, 10, 10, false, 0);
    let other = plan(1000, Strategy::BlockShuffling { block_size: 8 }, 10, 10, false, 1000);
    let orders = [epoch(&base, 0), epoch(&base, 1), epoch(&other, 0), epoch(&other, 1)];
    for i in 0..orders.len() {
        for j in 0..i {
            assert_ne!(orders[i], orders[j]);
        }
    }
    assert_eq!(epoch(&base, 1), orders[1], "asking again gives the same");
    let order = |k| base.fetch(0, k).unwrap().minibatches().flatten().copied().collect::<Vec<_>>();
    assert_ne!(order(0), order(1));
}

#[test]
fn the_tail_has_no_fixed_place() {
    let strategy = Strategy::BlockShuffling { block_size: 10 };
    let mut fetches = [0u32; 11];
    for seed in 0..2200 {
        let plan = plan(107, strategy, 10, 1, false, seed);
        for k in 0..plan.n_fetches() {
            if plan.fetch(0, k).unwrap().rows().end() == 107 {
                fetches[k as usize] += 1;
            }
        }
    }
    assert!(fetches.iter().all(|&c| (140..260).contains(&c)), "{fetches:?}");
}

#[test]
fn a_plan_over_a_trillion_cells_is_as_quick_as_any() {
    let plan =
        plan(1_000_000_000_000, Strategy::BlockShuffling { block_size: 16 }, 64, 256, false, 1);
    assert_eq!(plan.n_fetches(), 61_035_157);
    let fetch = plan.fetch(3, 61_035_156).unwrap();
    assert_eq!(fetch.rows().n_rows(), 1_000_000_000_000 % 16_384);
    assert!(plan.fetch(3, 61_035_157).is_err());
}

#[test]
fn bad_options_are_named() {
    let options = PlanOptions::default();
    let strategy = Strategy::TrueRandom;
    for (result, what) in [
        (Plan::new(1, strategy, &options.clone().with_batch_size(0)), "batch_size"),
        (Plan::new(1, strategy, &options.clone().with_fetch_factor(0)), "fetch_factor"),
        (Plan::new(1, Strategy::BlockShuffling { block_size: 0 }, &options), "block_size"),
        (Plan::new(1, strategy, &options.clone().with_batch_size(1 << 40)), "2^32"),
        (Plan::new(u64::MAX, strategy, &options), "2^62"),
    ] {
        assert!(result.unwrap_err().to_string().contains(what));
    }
}

/// Plans of version 1, frozen: a change here is a new version of the algorithm. They come from
/// `testdata/plan_reference.py`, an implementation in Python that shares nothing with this one.
#[test]
fn golden_plans() {
    let got = epoch(&plan(23, Strategy::BlockShuffling { block_size: 4 }, 4, 2, false, 0), 0);
    assert_eq!(got, GOLDEN_BLOCKS.map(<[u64]>::to_vec));
    let got = epoch(&plan(10, Strategy::TrueRandom, 4, 1, true, 42), 7);
    assert_eq!(got, GOLDEN_RANDOM.map(<[u64]>::to_vec));
    let got = epoch(&plan(9, Strategy::Streaming { shuffle: true }, 2, 2, false, 5), 1);
    assert_eq!(got, GOLDEN_STREAM.map(<[u64]>::to_vec));
    let big = plan(100_000_000, Strategy::BlockShuffling { block_size: 16 }, 64, 256, false, 1);
    let fetch = big.fetch(9, 4321).unwrap();
    let first: Vec<u64> = fetch.rows().as_slice().iter().take(4).map(|r| r.start).collect();
    assert_eq!(first, GOLDEN_STARTS);
}

const GOLDEN_BLOCKS: [&[u64]; 6] = [
    &[10, 14, 9, 13],
    &[8, 12, 15, 11],
    &[22, 20, 6, 5],
    &[3, 21, 4, 7],
    &[19, 1, 17, 0],
    &[2, 16, 18],
];
const GOLDEN_RANDOM: [&[u64]; 2] = [&[3, 2, 6, 4], &[9, 5, 1, 0]];
const GOLDEN_STREAM: [&[u64]; 5] = [&[1, 3], &[2, 0], &[6, 4], &[7, 5], &[8]];
const GOLDEN_STARTS: [u64; 4] = [244032, 327360, 540016, 617344];
