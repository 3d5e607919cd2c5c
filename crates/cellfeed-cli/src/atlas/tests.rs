//! The atlas is the same for the same seed, and like what it imitates.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

use super::{Atlas, AtlasOptions, Block, Order};
use std::sync::Arc;

fn atlas(cells: usize, order: Order, seed: u64) -> Arc<Atlas> {
    Atlas::new(&AtlasOptions { cells, order, seed, ..AtlasOptions::default() }).unwrap()
}

fn small(order: Order, seed: u64) -> Arc<Atlas> {
    let options = AtlasOptions {
        cells: 5000,
        genes: 500,
        lines: 7,
        drugs: 20,
        plates: 4,
        ..Default::default()
    };
    Atlas::new(&AtlasOptions { order, seed, ..options }).unwrap()
}

#[test]
fn equal_seeds_give_equal_atlases_on_any_number_of_threads() {
    let blocks = |threads: usize, seed| -> Vec<Block> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| small(Order::H5ad, seed).blocks().collect())
    };
    let one = blocks(1, 3);
    assert_eq!(one.len(), 5);
    assert_eq!(one.iter().map(|b| b.depths.len()).sum::<usize>(), 5000);
    assert!(one.iter().zip((0..).step_by(1024)).all(|(b, first)| b.first_cell == first));
    assert_eq!(one, blocks(3, 3));
    // Outside of any pool of ours.
    assert_eq!(one, small(Order::H5ad, 3).blocks().collect::<Vec<_>>());
    assert_ne!(one, blocks(1, 4));
}

#[test]
fn counts_are_like_the_screens() {
    let atlas = atlas(14 * 1024, Order::Random, 0);
    let (mut depths, mut genes, mut values) = (vec![], vec![], [0u64; 3]);
    for block in atlas.blocks() {
        for (row, pair) in block.indptr.windows(2).enumerate() {
            let range = pair[0] as usize..pair[1] as usize;
            let indices = &block.indices[range.clone()];
            assert!(indices.is_sorted_by(|a, b| a < b));
            assert!(indices.iter().all(|&gene| gene < 20_000));
            let total: f32 = block.data[range].iter().sum();
            assert_eq!(total, f32::from(block.depths[row]));
            genes.push(indices.len());
        }
        depths.extend(block.depths);
        for value in block.data {
            values[(value as usize - 1).min(2)] += 1;
        }
    }
    depths.sort_unstable();
    let quartiles = [1, 2, 3].map(|q| f64::from(depths[q * depths.len() / 4]));
    for (quartile, expected) in quartiles.iter().zip([1230.0, 1748.0, 2583.0]) {
        assert!((quartile / expected - 1.0).abs() < 0.12, "{quartiles:?}");
    }
    let mean = genes.iter().sum::<usize>() as f64 / genes.len() as f64;
    assert!((1200.0..1600.0).contains(&mean), "{mean} genes a cell");
    let total = values.iter().sum::<u64>() as f64;
    let share = values.map(|n| n as f64 / total);
    assert!((0.6..0.86).contains(&share[0]) && (0.1..0.22).contains(&share[1]), "{share:?}");
}

#[test]
fn plates_are_contiguous_and_wells_come_in_runs() {
    let atlas = atlas(100_000, Order::H5ad, 1);
    let obs = &atlas.obs;
    let plate = |cell: usize| obs.wells[usize::from(obs.well[cell])].plate;
    assert!((1..100_000).all(|cell| plate(cell - 1) <= plate(cell)));
    assert_eq!((plate(0), plate(99_999)), (0, 13));
    let changes = obs.well.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((600..2500).contains(&changes), "{changes} changes of well");
    let changes = obs.line.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 80_000, "{changes} changes of line");
}

#[test]
fn every_order_has_the_cells_of_every_plate() {
    for order in [Order::H5ad, Order::Hf, Order::Sorted, Order::Random] {
        let atlas = small(order, 1);
        let mut cells = vec![0usize; 4];
        let plates: Vec<usize> =
            atlas.obs.well.iter().map(|&w| atlas.obs.wells[usize::from(w)].plate).collect();
        plates.iter().for_each(|&p| cells[p] += 1);
        assert!(cells.iter().all(|n| (800..1800).contains(n)), "{order:?} {cells:?}");
        assert_eq!(plates.is_sorted(), order != Order::Random);
        let lines = atlas.obs.line.iter().max().unwrap();
        assert_eq!(*lines, 6);
    }
}

/// Lines and drugs are told apart by the nearest class mean of the log counts. That is the weakest
/// of linear rules, so the bounds are loose: they need only be far above the largest class's share.
#[test]
fn labels_can_be_learnt() {
    let options = AtlasOptions {
        cells: 8192,
        genes: 2000,
        lines: 8,
        drugs: 4,
        plates: 3,
        ..Default::default()
    };
    let atlas = Atlas::new(&AtlasOptions { order: Order::Random, ..options }).unwrap();
    let rows: Vec<Vec<f32>> = atlas
        .blocks()
        .flat_map(|block| {
            let rows: Vec<Vec<f32>> = (0..block.depths.len())
                .map(|row| {
                    let mut dense = vec![0.0; 2000];
                    let scale = 10_000.0 / f32::from(block.depths[row]);
                    for at in block.indptr[row] as usize..block.indptr[row + 1] as usize {
                        dense[block.indices[at] as usize] = (block.data[at] * scale).ln_1p();
                    }
                    dense
                })
                .collect();
            rows
        })
        .collect();
    let accuracy = |label: &dyn Fn(usize) -> usize, classes: usize| {
        let mut means = vec![vec![0.0f32; 2000]; classes];
        let mut sizes = vec![0.0f32; classes];
        for cell in 0..4096 {
            sizes[label(cell)] += 1.0;
            means[label(cell)].iter_mut().zip(&rows[cell]).for_each(|(sum, v)| *sum += v);
        }
        means.iter_mut().zip(&sizes).for_each(|(m, n)| m.iter_mut().for_each(|v| *v /= n));
        let distance = |mean: &[f32], row: &[f32]| -> f32 {
            mean.iter().zip(row).map(|(m, v)| (m - v) * (m - v)).sum()
        };
        let right = (4096..8192).filter(|&cell| {
            let nearest = (0..classes).min_by(|&a, &b| {
                distance(&means[a], &rows[cell]).total_cmp(&distance(&means[b], &rows[cell]))
            });
            nearest == Some(label(cell))
        });
        let largest = sizes.iter().fold(0.0, |most: f32, &size| most.max(size));
        (right.count() as f64 / 4096.0, f64::from(largest) / 4096.0)
    };
    let (lines, largest) = accuracy(&|cell| usize::from(atlas.obs.line[cell]), 8);
    assert!(lines > 0.85 && largest < 0.5, "lines: {lines}, largest class {largest}");
    let (drugs, largest) =
        accuracy(&|cell| atlas.obs.wells[usize::from(atlas.obs.well[cell])].drug, 4);
    assert!(drugs > largest + 0.1, "drugs: {drugs}, largest class {largest}");
}

#[test]
fn senseless_options_are_refused() {
    let good = AtlasOptions { cells: 10, ..Default::default() };
    for bad in [
        AtlasOptions { genes: 0, ..good.clone() },
        AtlasOptions { genes: 70_000, ..good.clone() },
        AtlasOptions { plates: 0, ..good.clone() },
        AtlasOptions { lines: 0, ..good.clone() },
        AtlasOptions { lines: 257, ..good.clone() },
        AtlasOptions { drugs: 0, ..good.clone() },
        AtlasOptions { drugs: 30_000, ..good.clone() },
        AtlasOptions { run: 0, ..good.clone() },
    ] {
        assert!(Atlas::new(&bad).is_err(), "{bad:?}");
    }
    let none = AtlasOptions { cells: 0, genes: 5, ..good };
    assert_eq!(Atlas::new(&none).unwrap().blocks().count(), 0);
}
