//! Ranks and workers: every cell once over all, the same number of minibatches for each.

use super::{epoch, strategies};
use crate::plan::{Plan, PlanOptions, Strategy};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

fn options(m: u64, f: u64, drop_last: bool, seed: u64) -> PlanOptions {
    PlanOptions::default()
        .with_batch_size(m)
        .with_fetch_factor(f)
        .with_drop_last(drop_last)
        .with_seed(seed)
}

/// The plan of each rank, or none if there are more ranks than minibatches.
fn world(n: u64, strategy: Strategy, options: &PlanOptions, size: u64) -> Option<Vec<Plan>> {
    let plan = |rank| Plan::new(n, strategy, &options.clone().with_rank(rank, size));
    let plans: Result<Vec<Plan>, _> = (0..size).map(plan).collect();
    plans.ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn ranks_share_an_epoch_evenly(
        n in 1u64..900, strategy in strategies(), m in 1u64..14, f in 1u64..9, size in 1u64..9,
        drop_last: bool, seed: u64, e in 0u64..3,
    ) {
        let options = options(m, f, drop_last, seed);
        let minibatches = if drop_last { n / m } else { n.div_ceil(m) };
        let Some(plans) = world(n, strategy, &options, size) else {
            prop_assert!(size > 1 && minibatches < size);
            return Ok(());
        };
        let mut seen = Vec::new();
        let mut shapes = Vec::new();
        for plan in &plans {
            let minibatches = epoch(plan, e);
            prop_assert_eq!(minibatches.len() as u64, plans[0].n_minibatches());
            let sizes: Vec<u64> = minibatches.iter().map(|b| b.len() as u64).collect();
            prop_assert_eq!(sizes.iter().sum::<u64>(), plan.n_cells());
            if drop_last {
                prop_assert!(sizes.iter().all(|&s| s == m));
            } else {
                // One more only where a minibatch of one cell could not be cut in two.
                let most = if m == 1 && size > 1 { 2 } else { m };
                prop_assert!(sizes.iter().all(|&s| s >= 1 && s <= most), "{sizes:?}");
            }
            seen.extend(minibatches.concat());
            shapes.push(sizes);
        }
        for j in 0..shapes[0].len() {
            let at = shapes.iter().map(|sizes| sizes[j]);
            prop_assert!(at.clone().max().unwrap() - at.min().unwrap() <= 1, "{shapes:?}");
        }
        let total = seen.len() as u64;
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() as u64, total, "a cell came twice");
        if drop_last {
            prop_assert!(n - total < size * m);
        } else {
            prop_assert!(seen.into_iter().eq(0..n));
        }
    }

    #[test]
    fn rounds_consume_the_same_cells_for_any_world_size(
        n in 600u64..2000, seed: u64, size in 2u64..5,
    ) {
        let strategy = Strategy::BlockShuffling { block_size: 4 };
        let rows = |size: u64, fetches: u64| {
            let mut rows: Vec<u64> = world(n, strategy, &options(5, 4, false, seed), size)
                .unwrap()
                .iter()
                .flat_map(|p| (0..fetches / size).map(|k| p.fetch(1, k).unwrap()))
                .flat_map(|fetch| fetch.rows().iter_rows().collect::<Vec<_>>())
                .collect();
            rows.sort_unstable();
            rows
        };
        // The last full round is dealt anew where fewer cells than ranks are left.
        let fetches = (n - size) / 20 / size * size;
        prop_assert_eq!(rows(size, fetches), rows(1, fetches));
    }

    #[test]
    fn workers_share_the_fetches_of_a_rank(
        n in 1u64..900, workers in 1u64..7, done in 0u64..60, size in 1u64..4,
    ) {
        let plan = |rank, size| {
            let options = options(3, 4, false, 1).with_rank(rank, size);
            Plan::new(n, Strategy::TrueRandom, &options)
        };
        let whole = plan(0, 1).unwrap();
        // In the middle of a fetch on one rank, between fetches on several.
        let done = if size == 1 { done } else { done / 4 * 4 };
        let state = whole.state(0, done.min(whole.n_minibatches())).unwrap();
        let Some(Ok(resumed)) = plan(size - 1, size).ok().map(|plan| plan.resume(&state)) else {
            return Ok(());
        };
        for (plan, epoch) in [(&whole, 0), (&resumed, 0), (&resumed, 1)] {
            let mut all: Vec<u64> =
                (0..workers).flat_map(|w| plan.worker_fetches(epoch, w, workers).unwrap()).collect();
            all.sort_unstable();
            prop_assert!(all.iter().copied().eq(plan.first_fetch(epoch)..plan.n_fetches_of(epoch)));
            prop_assert!(all.into_iter().all(|k| plan.fetch(epoch, k).is_ok()));
            for w in 0..workers {
                prop_assert!(plan.worker_fetches(epoch, w, workers).unwrap().all(|k| k % workers == w));
            }
            prop_assert!(plan.worker_fetches(epoch, workers, workers).is_err());
        }
    }
}

#[test]
fn the_published_example_is_even() {
    // 100 minibatches in 10 fetches over 4 ranks: other loaders give 30, 30, 20 and 20.
    let strategy = Strategy::BlockShuffling { block_size: 8 };
    let plans = world(1000, strategy, &options(10, 10, false, 0), 4).unwrap();
    assert!(plans.iter().all(|plan| plan.n_minibatches() == 25 && plan.n_cells() == 250));
}

#[test]
fn workers_of_an_epoch_that_goes_on_elsewhere_have_its_fetches() {
    let plan = |rank, size| {
        let options = options(4, 4, false, 0).with_rank(rank, size);
        Plan::new(80, Strategy::TrueRandom, &options).unwrap()
    };
    let resumed = plan(0, 2).resume(&plan(0, 1).state(3, 8).unwrap()).unwrap();
    // Three fetches of sixteen cells are left for two ranks: a round of two, and one that is shared.
    let of = |epoch| -> Vec<u64> { resumed.worker_fetches(epoch, 0, 1).unwrap().collect() };
    assert_eq!((of(3), of(4)), (vec![0, 1], vec![0, 1, 2]));
    let mine: Vec<u64> = resumed.worker_fetches(3, 1, 2).unwrap().collect();
    assert_eq!(mine, [1]);
    assert!(resumed.fetch(3, 2).is_err());
}

#[test]
fn workers_begin_in_the_middle_of_a_fetch() {
    let plan = Plan::new(250, Strategy::TrueRandom, &options(4, 4, false, 0)).unwrap();
    // 63 minibatches in 16 fetches, of which five minibatches are done.
    let resumed = plan.resume(&plan.state(1, 5).unwrap()).unwrap();
    let first = |epoch, worker, skip| resumed.worker_first(epoch, worker, 2, skip).unwrap();
    assert_eq!((first(1, 0, 0), first(1, 1, 0)), ((2, 8), (1, 5)));
    assert_eq!((first(1, 1, 2), first(1, 1, 3), first(1, 1, 4)), ((1, 7), (3, 12), (3, 13)));
    assert_eq!((first(2, 0, 5), first(2, 1, 0)), ((2, 9), (1, 4)));
    assert_eq!((first(1, 1, 29), first(1, 1, 30)), ((15, 62), (16, 63)));
    assert!(resumed.worker_first(1, 2, 2, 0).is_err());
}

#[test]
fn orders_differ_between_ranks() {
    let plans = world(1000, Strategy::TrueRandom, &options(5, 5, false, 0), 4).unwrap();
    let orders: Vec<Vec<u32>> = plans
        .iter()
        .flat_map(|p| (0..p.n_fetches()).map(|k| p.fetch(0, k).unwrap()))
        .map(|fetch| fetch.minibatches().flatten().copied().collect())
        .collect();
    for i in 0..orders.len() {
        assert!(orders[..i].iter().all(|other| *other != orders[i]));
    }
}

#[test]
fn bad_ranks_are_named() {
    let plan = |n, options: PlanOptions| {
        Plan::new(n, Strategy::TrueRandom, &options).unwrap_err().to_string()
    };
    let options = options(10, 10, false, 0);
    assert!(plan(1000, options.clone().with_rank(0, 0)).contains("world_size is 0"));
    assert!(plan(1000, options.clone().with_rank(4, 4)).contains("rank 4 does not exist"));
    let message = plan(25, options.clone().with_rank(0, 4));
    assert!(
        message.contains("25 cells make 3 minibatches of 10, too few for 4 ranks"),
        "{message}"
    );
    assert!(plan(39, options.with_drop_last(true).with_rank(0, 4)).contains("too few"));
}

/// From `testdata/plan_reference.py`.
#[test]
fn golden_ranks() {
    let strategy = Strategy::BlockShuffling { block_size: 4 };
    for (rank, want) in GOLDEN_RANKS.iter().enumerate() {
        let options = options(4, 2, false, 3).with_rank(rank as u64, 3);
        let got = epoch(&Plan::new(50, strategy, &options).unwrap(), 1);
        assert_eq!(got, want.iter().map(|b| b.to_vec()).collect::<Vec<_>>());
    }
}

const GOLDEN_RANKS: [&[&[u64]]; 3] = [
    &[&[36, 39, 38, 32], &[37, 35, 34, 33], &[49, 26, 9, 11], &[48, 16, 10, 27], &[8]],
    &[&[1, 6, 2, 3], &[4, 0, 5, 7], &[29, 18, 42, 41], &[19, 17, 28, 40], &[43]],
    &[&[47, 12, 14, 13], &[46, 44, 15, 45], &[23, 31, 20, 21], &[24, 25, 30], &[22]],
];
