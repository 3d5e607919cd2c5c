//! Chi-square: a block's place in the epoch, a cell's minibatch, the shares of weighted draws. Seeds
//! are fixed, so a test passes or fails for good. Each is shown to catch an order that is biased.

use super::super::random::{Purpose, Stream};
use super::epoch;
use crate::plan::{Plan, PlanOptions, Strategy, Subset, Weights};
use std::ops::Range;

/// The statistic of counts where each is expected in proportion to its weight.
fn chi2(counts: &[f64], weights: &[f64]) -> f64 {
    let scale = counts.iter().sum::<f64>() / weights.iter().sum::<f64>();
    let term = |(count, weight): (&f64, &f64)| {
        let want = scale * weight;
        // What cannot happen must not.
        if want > 0.0 { (count - want).powi(2) / want } else { count * f64::INFINITY.min(1e9) }
    };
    counts.iter().zip(weights).map(term).sum()
}

/// How many standard deviations a statistic is above what chance gives, about.
fn deviations(chi2: f64, degrees: f64) -> f64 {
    (chi2 - degrees) / (2.0 * degrees).sqrt()
}

/// An epoch: the fetches of all ranks as spans of positions, and the rows that each reads.
struct Epoch {
    spans: Vec<Range<u64>>,
    rows: Vec<Vec<u64>>,
}

fn read(strategy: Strategy, n: u64, options: &PlanOptions, world_size: u64, seed: u64) -> Epoch {
    let (mut spans, mut rows) = (Vec::new(), Vec::new());
    for rank in 0..world_size {
        let options = options.clone().with_rank(rank, world_size).with_seed(seed);
        let plan = Plan::new(n, strategy, &options).unwrap();
        for k in 0..plan.n_fetches() {
            spans.push(plan.rounds.part(k).positions);
            rows.push(plan.fetch(1, k).unwrap().rows().iter_rows().collect());
        }
    }
    Epoch { spans, rows }
}

/// How far from uniform the fetches are that cells at an offset of their block come in, in deviations.
/// A cell stands at each position of its offset with the same probability, the tail's too: a fetch has
/// it in proportion to its positions of that offset.
fn bias_of_places(n: u64, b: u64, offset: u64, epochs: impl Iterator<Item = Epoch>) -> f64 {
    let cells: Vec<u64> = (offset..n).step_by(b as usize).collect();
    let mut counts: Vec<Vec<f64>> = Vec::new();
    let mut weights = Vec::new();
    for epoch in epochs {
        if counts.is_empty() {
            counts = vec![vec![0.0; epoch.spans.len()]; cells.len()];
            let of = |span: Range<u64>| span.filter(|p| p % b == offset).count() as f64;
            weights = epoch.spans.iter().cloned().map(of).collect();
        }
        for (fetch, rows) in epoch.rows.iter().enumerate() {
            for row in rows.iter().filter(|&row| row % b == offset) {
                counts[(row / b) as usize][fetch] += 1.0;
            }
        }
    }
    let fetches = weights.iter().filter(|&&w| w > 0.0).count() as f64;
    let sum: f64 = counts.iter().map(|counts| chi2(counts, &weights)).sum();
    deviations(sum, cells.len() as f64 * (fetches - 1.0))
}

const SEEDS: u64 = 4000;

#[test]
fn a_cells_fetch_is_uniform() {
    for (n, b, m, f, world_size) in [
        (64, 4, 8, 2, 1),
        // A tail; a last fetch that is short; three ranks; blocks that fetches cut.
        (67, 4, 8, 2, 1),
        (75, 4, 8, 3, 1),
        (109, 4, 8, 2, 3),
        (83, 5, 4, 3, 2),
        (41, 3, 7, 1, 2),
        (30, 1, 4, 2, 1),
    ] {
        for strategy in [
            Strategy::BlockShuffling { block_size: b },
            Strategy::StratifiedBlockShuffling { block_size: b },
        ] {
            let options = PlanOptions::default().with_batch_size(m).with_fetch_factor(f);
            for offset in [0, b - 1] {
                let epochs = (0..SEEDS).map(|seed| read(strategy, n, &options, world_size, seed));
                let bias = bias_of_places(n, b, offset, epochs);
                let what = format!("{strategy}, {n} cells, offset {offset}, {world_size} ranks");
                assert!(bias < 5.0, "{what}: {bias}");
            }
        }
    }
}

/// Orders of blocks as they might have been written, and are not.
#[test]
fn biased_places_are_caught() {
    let (n, b, per_fetch) = (23 * 4, 4, 4);
    let of = |slots: Vec<u64>| {
        let rows = slots.chunks(per_fetch).map(|blocks| blocks.iter().map(|j| j * b).collect());
        let spans = (0..n).step_by(per_fetch * 4).map(|p| p..(p + 16).min(n));
        Epoch { spans: spans.collect(), rows: rows.collect() }
    };
    let shuffled = |seed: u64, naive: bool| {
        let mut stream = Stream::new(seed, 0, Purpose::FetchOrder, 0);
        let mut slots: Vec<u64> = (0..23).collect();
        for i in (0..23).rev() {
            // The well-known mistake: any item may come to any place.
            let j = if naive { stream.below(23) } else { stream.below(i + 1) };
            slots.swap(i as usize, j as usize);
        }
        slots
    };
    let fair = bias_of_places(n, b, 0, (0..SEEDS).map(|seed| of(shuffled(seed, false))));
    assert!(fair < 5.0, "{fair}");
    let naive = bias_of_places(n, b, 0, (0..SEEDS).map(|seed| of(shuffled(seed, true))));
    assert!(naive > 20.0, "{naive}");
    // Stretches that always begin at the first block: only those of the longer ones come last.
    let from_the_first = |seed: u64| {
        let mut slots = vec![0; 23];
        for stretch in 0..4usize {
            let start = |i: usize| u32::try_from(i * 23 / 4).unwrap();
            let mut order: Vec<u32> = (start(stretch)..start(stretch + 1)).collect();
            Stream::new(seed, 0, Purpose::StretchOrder, stretch as u64).shuffle(&mut order);
            let mut groups = order.into_iter();
            for group in 0..5 {
                slots[group * 4 + stretch] = groups.next().unwrap().into();
            }
            if let Some(block) = groups.next() {
                slots[20 + stretch - 1] = block.into();
            }
        }
        slots
    };
    let fixed = bias_of_places(n, b, 0, (0..SEEDS).map(|seed| of(from_the_first(seed))));
    assert!(fixed > 20.0, "{fixed}");
}

/// Where a block is in one epoch says nothing of the next.
#[test]
fn epochs_are_independent() {
    for strategy in [
        Strategy::BlockShuffling { block_size: 2 },
        Strategy::StratifiedBlockShuffling { block_size: 2 },
    ] {
        let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2);
        let mut counts = vec![0.0; 25];
        for seed in 0..SEEDS * 4 {
            let options = options.clone().with_seed(seed);
            let plan = Plan::new(40, strategy, &options).unwrap();
            let fetch_of = |epoch: u64| {
                let has =
                    |k: &u64| plan.fetch(epoch, *k).unwrap().rows().iter_rows().any(|r| r == 22);
                (0..5).find(has).unwrap()
            };
            counts[(fetch_of(6) * 5 + fetch_of(7)) as usize] += 1.0;
        }
        let off = deviations(chi2(&counts, &[1.0; 25]), 24.0);
        assert!(off < 5.0, "{strategy}: {off}");
    }
}

/// Of each fetch: the minibatch of each cell, by its place in the file.
fn minibatches(seeds: u64) -> impl Iterator<Item = Vec<usize>> {
    // Twelve cells a fetch, three minibatches of four.
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(3);
    (0..seeds).flat_map(move |seed| {
        let options = options.clone().with_seed(seed);
        let plan = Plan::new(24, Strategy::BlockShuffling { block_size: 2 }, &options).unwrap();
        (0..2u64).map(move |k| {
            let mut of_cell = vec![0; 12];
            for (j, positions) in plan.fetch(0, k).unwrap().minibatches().enumerate() {
                positions.iter().for_each(|&p| of_cell[p as usize] = j);
            }
            of_cell
        })
    })
}

/// How far the minibatches of cells and of pairs of cells are from random ones, in deviations.
fn bias_of_minibatches(fetches: impl Iterator<Item = Vec<usize>>) -> (f64, f64) {
    let mut cells = vec![vec![0.0; 3]; 12];
    let mut pairs = vec![vec![0.0; 9]; 66];
    for fetch in fetches {
        let mut pair = 0;
        for i in 0..12 {
            cells[i][fetch[i]] += 1.0;
            for j in 0..i {
                pairs[pair][fetch[i] * 3 + fetch[j]] += 1.0;
                pair += 1;
            }
        }
    }
    // Two cells share a minibatch with probability 3/11.
    let weights: Vec<f64> = (0..9).map(|i| if i % 4 == 0 { 3.0 } else { 4.0 }).collect();
    let of_cells: f64 = cells.iter().map(|counts| chi2(counts, &[1.0; 3])).sum();
    let of_pairs: f64 = pairs.iter().map(|counts| chi2(counts, &weights)).sum();
    (deviations(of_cells, 12.0 * 2.0), deviations(of_pairs, 66.0 * 8.0))
}

#[test]
fn cells_and_pairs_are_spread_over_minibatches() {
    let (cells, pairs) = bias_of_minibatches(minibatches(SEEDS * 2));
    // Pairs overlap, so that their statistic scatters more.
    assert!(cells < 5.0 && pairs < 15.0, "{cells} {pairs}");
    // Cells that are dealt in turn from a random one on: each is anywhere, pairs are not.
    let mut stream = Stream::new(0, 0, Purpose::FetchOrder, 0);
    let dealt = (0..SEEDS * 4).map(|_| {
        let first = stream.below(3) as usize;
        (0..12).map(|i| (i + first) % 3).collect()
    });
    let (cells, pairs) = bias_of_minibatches(dealt);
    assert!(cells < 5.0 && pairs > 100.0, "{cells} {pairs}");
    // One cell is put into the first minibatch in one fetch of twenty.
    let mut n = 0;
    let tilted = minibatches(SEEDS * 2).map(|mut fetch| {
        n += 1;
        if n % 20 == 0
            && let Some(other) = fetch.iter().position(|&j| j == 0)
        {
            fetch.swap(11, other);
        }
        fetch
    });
    let (cells, _) = bias_of_minibatches(tilted);
    assert!(cells > 10.0, "{cells}");
}

/// The first cell of each fetch is drawn independently: its shares are multinomial.
fn first_cells(plan: impl Fn(&PlanOptions) -> Plan, n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n];
    for seed in 0..SEEDS {
        let options = PlanOptions::default().with_batch_size(6).with_fetch_factor(2);
        let plan = plan(&options.with_seed(seed).with_rank(seed % 2, 2));
        for minibatch in epoch(&plan, 3).iter().step_by(2) {
            counts[minibatch[0] as usize] += 1.0;
        }
    }
    counts
}

#[test]
fn weighted_draws_have_their_shares() {
    // Blocks of four, the last has three cells; cells of weight 0 and of very large weight.
    let weights: Vec<f64> =
        (0..31).map(|i| f64::from(i * i % 11) + 40.0 * f64::from(i / 30)).collect();
    let strategy = Strategy::BlockWeighted { block_size: 4, draws: Some(48), replacement: true };
    let plan = |options: &PlanOptions| {
        let weights = Weights::of_cells(weights.clone()).unwrap();
        Plan::weighted(Subset::all(31), weights, strategy, options).unwrap()
    };
    let counts = first_cells(plan, 31);
    assert_eq!(counts.iter().sum::<f64>(), SEEDS as f64 * 2.0);
    let drawn = weights.iter().filter(|&&w| w > 0.0).count() as f64;
    let off = deviations(chi2(&counts, &weights), drawn - 1.0);
    assert!(off < 5.0, "{off}");
    // Blocks drawn by their mean weight: the last, which is short, would come more often.
    let by_mean: Vec<f64> =
        (0..31).map(|i| weights[i] * if i >= 28 { 4.0 / 3.0 } else { 1.0 }).collect();
    let off = deviations(chi2(&counts, &by_mean), drawn - 1.0);
    assert!(off > 10.0, "{off}");
}

#[test]
fn balanced_draws_have_equal_classes() {
    // Classes of 40, 9, 1 cells; some have none.
    let class = |r: u32| match r {
        0..40 => Some(0),
        40..49 => Some(1),
        60 => Some(9),
        _ => None,
    };
    let classes: Vec<Option<u32>> = (0..61).map(class).collect();
    let subset = Subset::from_mask(classes.iter().map(Option::is_some)).unwrap();
    let strategy = Strategy::ClassBalanced { block_size: 4, draws: Some(48), replacement: true };
    let plan = |options: &PlanOptions| {
        let weights = Weights::balanced(&classes, &subset).unwrap();
        Plan::weighted(subset.clone(), weights, strategy, options).unwrap()
    };
    let counts = first_cells(plan, 61);
    let of = |range: Range<usize>| counts[range].iter().sum::<f64>();
    let off = deviations(chi2(&[of(0..40), of(40..49), of(60..61)], &[1.0; 3]), 2.0);
    assert!(off < 5.0, "{off}");
    let weights: Vec<f64> = (0..61)
        .map(|r| match r {
            0..40 => 1.0 / 40.0,
            40..49 => 1.0 / 9.0,
            60 => 1.0,
            _ => 0.0,
        })
        .collect();
    let off = deviations(chi2(&counts, &weights), 49.0);
    assert!(off < 5.0, "{off}");
}
