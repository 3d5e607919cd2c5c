//! Resuming: exactly the remaining minibatches, on as many ranks or on others, or a clear refusal.

use super::strategies;
use crate::plan::{Plan, PlanOptions, PlanState, Strategy, Subset};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

/// What is still to come of an epoch, as row numbers, minibatch by minibatch.
fn rest(plan: &Plan, epoch: u64) -> Vec<Vec<u64>> {
    let first = plan.first_minibatch(epoch);
    let mut out = Vec::new();
    for k in plan.first_fetch(epoch)..plan.n_fetches_of(epoch) {
        let fetch = plan.fetch(epoch, k).unwrap();
        let rows: Vec<u64> = fetch.rows().iter_rows().collect();
        for (number, minibatch) in (fetch.first_minibatch()..).zip(fetch.minibatches()) {
            if number >= first {
                out.push(minibatch.iter().map(|&p| rows[p as usize]).collect());
            }
        }
    }
    out
}

fn written(state: &PlanState) -> PlanState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_resumed_run_yields_what_is_left(
        n in 30u64..500, strategy in strategies(), m in 1u64..8, f in 1u64..6, size in 1u64..4,
        drop_last: bool, seed: u64, at: u64, e in 0u64..3,
    ) {
        let options = PlanOptions::default()
            .with_batch_size(m).with_fetch_factor(f).with_drop_last(drop_last).with_seed(seed)
            .with_rank(size - 1, size);
        let plan = Plan::new(n, strategy, &options).unwrap();
        let whole = rest(&plan, e);
        let at = at % (plan.n_minibatches() + 1);
        let state = written(&plan.state(e, at).unwrap());
        let resumed = plan.resume(&state).unwrap();
        if at == plan.n_minibatches() {
            prop_assert_eq!((state.epoch(), state.minibatch()), (e + 1, 0));
            prop_assert_eq!(rest(&resumed, e + 1), rest(&plan, e + 1));
        } else {
            prop_assert_eq!(&rest(&resumed, e)[..], &whole[at as usize..]);
            prop_assert_eq!(rest(&resumed, e + 1), rest(&plan, e + 1));
            // And again from there.
            let again = resumed.resume(&resumed.state(e, at).unwrap()).unwrap();
            prop_assert_eq!(rest(&again, e), rest(&resumed, e));
        }
    }

    #[test]
    fn another_world_goes_on_between_rounds(
        n in 100u64..900, strategy in strategies(), m in 1u64..8, f in 1u64..5, sizes in
        proptest::array::uniform3(1u64..6), rounds in proptest::array::uniform2(0u64..5), seed: u64,
    ) {
        let plan = |rank, size| {
            let options = PlanOptions::default()
                .with_batch_size(m).with_fetch_factor(f).with_seed(seed).with_rank(rank, size);
            Plan::new(n, strategy, &options).unwrap()
        };
        let mut state = plan(0, sizes[0]).state(2, 0).unwrap();
        let mut seen: Vec<u64> = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let mut next = None;
            for rank in 0..size {
                let resumed = match plan(rank, size).resume(&written(&state)) {
                    Ok(resumed) => resumed,
                    Err(e) => {
                        prop_assert!(e.to_string().contains("too few for"), "{e}");
                        return Ok(());
                    }
                };
                let all = rest(&resumed, 2);
                // A few full rounds, and on the last world all that is left. The last round, which is
                // none, has up to f + 1 minibatches.
                let stop = rounds.get(i).map(|r| r * f);
                let stop = stop.filter(|&s| ((s + f) as usize) < all.len());
                seen.extend(all.iter().take(stop.map_or(all.len(), |s| s as usize)).flatten());
                let first = resumed.first_minibatch(2);
                next = Some(stop.map(|s| resumed.state(2, first + s).unwrap()));
            }
            match next.flatten() {
                Some(after) => state = after,
                None => break,
            }
        }
        seen.sort_unstable();
        prop_assert!(seen.into_iter().eq(0..n));
    }
}

#[test]
fn the_last_fetch_may_have_a_minibatch_more() {
    // Fourteen rounds of three fetches of ten cells, and one cell: the last round is dealt with it.
    let options = PlanOptions::default().with_batch_size(2).with_fetch_factor(5).with_rank(0, 3);
    let plan = Plan::new(421, Strategy::TrueRandom, &options).unwrap();
    assert_eq!((plan.n_fetches(), plan.n_minibatches()), (14, 71));
    let resumed = plan.resume(&plan.state(0, 70).unwrap()).unwrap();
    assert_eq!((resumed.first_fetch(0), rest(&resumed, 0).len()), (13, 1));
}

#[test]
fn what_differs_is_said() {
    let options = PlanOptions::default().with_batch_size(8).with_fetch_factor(4);
    let strategy = Strategy::BlockShuffling { block_size: 4 };
    let plan = Plan::new(1000, strategy, &options).unwrap();
    let state = plan.state(1, 10).unwrap();
    let refused = |plan: Plan| plan.resume(&state).unwrap_err().to_string();
    let with = |options: &PlanOptions| Plan::new(1000, strategy, options).unwrap();
    let message = refused(with(&options.clone().with_seed(5).with_batch_size(16)));
    assert!(message.contains("batch_size was 8 and is 16, the seed was 0 and is 5"), "{message}");
    let message = refused(Plan::new(1000, Strategy::TrueRandom, &options).unwrap());
    assert!(message.contains("blocks of 4 cells and is true random"), "{message}");
    assert!(refused(Plan::new(999, strategy, &options).unwrap()).contains("n_obs was 1000"));
    let subset = |skip| Subset::from_mask((0..1000).map(|r| r != skip)).unwrap();
    let over = |skip| Plan::over(subset(skip), strategy, &options).unwrap();
    let other = over(3).resume(&over(4).state(0, 0).unwrap()).unwrap_err().to_string();
    assert!(other.contains("the subset, labels or weights was"), "{other}");
    let message = refused(with(&options.clone().with_rank(0, 2)));
    assert!(message.contains("only after a multiple of 4 minibatches, up to 124"), "{message}");
    assert!(plan.state(0, 126).is_err());
    // Damaged, or of another form.
    let json = serde_json::to_string(&state).unwrap();
    for (from, to, what) in [
        ("\"minibatch\":10", "\"minibatch\":1000", "damaged"),
        ("\"start\":0", "\"start\":7", "damaged"),
        ("\"world_size\":1", "\"world_size\":0", "damaged"),
        ("\"version\":1", "\"version\":2", "form 2"),
    ] {
        let state: PlanState = serde_json::from_str(&json.replacen(from, to, 1)).unwrap();
        let message = plan.resume(&state).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
}
