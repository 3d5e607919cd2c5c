//! Stratified block shuffling: the theory against plans that are run.

use super::*;
use crate::{StrataBuilder, Subset};

/// Structures of a label on disk: name and labels.
fn structures() -> [(&'static str, Labels); 5] {
    // Nine of ten runs are of one class, the others of one that their part of the file has.
    let runs = in_runs(60_000, 30.0, 1, 10, 8);
    let giant = runs.codes().iter().zip(0i64..);
    let giant = giant.map(|(&run, i)| if run < 9 { 0 } else { 1 + i / 6000 }).collect();
    let of = |codes: Vec<i64>| {
        let mut labels = Labels::new();
        let array: ArrayRef = Arc::new(Int64Array::from(codes));
        labels.extend(&array).unwrap();
        labels
    };
    [
        ("plates", in_runs(60_000, 4000.0, 14, 1, 3)),
        ("drugs in plates", in_runs(60_000, 90.0, 14, 6, 4)),
        ("shuffled", in_runs(60_000, 1.0, 1, 8, 5)),
        ("a giant class", of(giant)),
        ("one value", of(vec![7; 60_000])),
    ]
}

#[test]
fn stratified_plans_give_what_theory_expects() {
    for (name, labels) in structures() {
        for (b, f) in
            [(1u64, 4u64), (16, 1), (16, 8), (64, 32), (40, 32), (20, 7), (256, 2), (8, 64)]
        {
            let strategy = Strategy::StratifiedBlockShuffling { block_size: b };
            let meter = measure(&labels, strategy, 40, f, 10, 12);
            let sampling = Sampling::StratifiedBlocks { block_size: b };
            let theory = expected(&labels, sampling, 40, f, 10).unwrap();
            let what = format!("{name}, b {b}, f {f}");
            agree(&meter, &theory, &what, 40 * f % b > 0);
        }
    }
}

/// Where fetches cut blocks the theory takes parts of a group of blocks for samples of the list.
fn agree(meter: &DiversityMeter, theory: &Expected, what: &str, cut: bool) {
    let entropy = meter.entropy_mean().unwrap() - theory.entropy;
    assert!(entropy.abs() < if cut { 0.03 } else { 0.01 }, "{what}: {entropy}");
    for (measured, expected, most) in
        [(meter.deff_1(), theory.deff_1, 0.025), (meter.deff_w(), theory.deff_w, 0.05)]
    {
        assert_eq!(measured.is_some(), expected.is_some(), "{what}");
        if let (Some(measured), Some(expected)) = (measured, expected) {
            let off = measured / expected - 1.0;
            assert!(off.abs() < most, "{what}: {measured} for {expected}");
        }
    }
}

/// Stratified by the label itself, and by another one.
#[test]
fn plans_stratified_by_label_give_what_theory_expects() {
    let structures = structures();
    let plates = &structures[0].1;
    for (name, labels) in &structures {
        for by in [labels, plates] {
            for (b, f) in [(16u64, 1u64), (16, 8), (64, 32), (8, 64), (40, 7)] {
                let subset = Subset::all(60_000);
                let mut builder = StrataBuilder::new(&subset, b, "label").unwrap();
                builder.push(&[by.codes()]).unwrap();
                let strata = builder.finish().unwrap();
                let theory = expected_in_order(labels, b, strata.blocks(), 40, f, 10).unwrap();
                let options =
                    PlanOptions::default().with_batch_size(40).with_fetch_factor(f).with_seed(11);
                let strategy = Strategy::StratifiedBlockShuffling { block_size: b };
                let plan = Plan::stratified(subset, strata, strategy, &options).unwrap();
                let meter = measure_plan(labels, &plan, 10, 12);
                let of = if std::ptr::eq(by, plates) { "plates" } else { "itself" };
                let what = format!("{name} by {of}, b {b}, f {f}");
                agree(&meter, &theory, &what, 40 * f % b > 0);
            }
        }
    }
}

/// A list in another order is a file in that order.
#[test]
fn an_order_of_blocks_is_as_a_file_in_that_order() {
    let b = 16;
    let labels = in_runs(50_007, 90.0, 14, 6, 6);
    let blocks = 50_007 / b;
    let mut order: Vec<u32> = (0..blocks as u32).collect();
    order.sort_by_key(|&block| (labels.codes()[block as usize * b + b / 2], block));
    let sorted: Vec<i64> = order
        .iter()
        .flat_map(|&block| &labels.codes()[block as usize * b..(block as usize + 1) * b])
        .chain(&labels.codes()[blocks * b..])
        .map(|&code| i64::from(code))
        .collect();
    let mut as_file = Labels::new();
    let array: ArrayRef = Arc::new(Int64Array::from(sorted));
    as_file.extend(&array).unwrap();
    for f in [8, 64] {
        let got = expected_in_order(&labels, b as u64, &order, 64, f, 10).unwrap();
        let sampling = Sampling::StratifiedBlocks { block_size: b as u64 };
        let want = expected(&as_file, sampling, 64, f, 10).unwrap();
        // Codes have other numbers there, and sums another order.
        for (got, want) in [
            (got.entropy, want.entropy),
            (got.rho, want.rho),
            (got.deff_1.unwrap(), want.deff_1.unwrap()),
            (got.deff_w.unwrap(), want.deff_w.unwrap()),
        ] {
            assert!((got - want).abs() < 1e-9, "f {f}: {got} {want}");
        }
        let position = expected(&labels, sampling, 64, f, 10).unwrap();
        assert!(got.deff_w < position.deff_w, "sorting by the label helps");
    }
    for wrong in [&order[1..], &[vec![blocks as u32], order[1..].to_vec()].concat()] {
        let refused = expected_in_order(&labels, b as u64, wrong, 64, 8, 10).unwrap_err();
        assert!(refused.to_string().contains("3125 full blocks of 16 cells"), "{refused}");
    }
}
