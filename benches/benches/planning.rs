//! `cargo bench --bench planning`: what planning costs, without a store: opening a plan over 10^12
//! cells and fetches of it, and the tables of weighted sampling and of strata over 10^8 cells. Peaks
//! of memory are counted by an allocator.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use cellfeed::{Plan, PlanOptions, StrataBuilder, Strategy, Subset, Weights};
use cellfeed_testkit::PeakAlloc;
use clap::Parser;
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[derive(Debug, Parser)]
struct Args {
    /// Cells of the plans without a table.
    #[arg(long, default_value_t = 1_000_000_000_000)]
    cells: u64,
    /// Random fetches of each.
    #[arg(long, default_value_t = 10_000)]
    fetches: u64,
    /// Cells of the plans with a table.
    #[arg(long, default_value_t = 100_000_000)]
    table_cells: u64,
    /// Random fetches of each.
    #[arg(long, default_value_t = 1_000)]
    table_fetches: u64,
    /// Write the results as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds, the most bytes that were in use beyond those before, and those that stay in use.
fn measure<T>(f: impl FnOnce() -> T) -> (T, f64, usize, usize) {
    let before = PeakAlloc::reset();
    let start = Instant::now();
    let value = f();
    let seconds = start.elapsed().as_secs_f64();
    let stays = PeakAlloc::current().saturating_sub(before);
    (value, seconds, PeakAlloc::peak().saturating_sub(before), stays)
}

fn main() {
    let args = Args::parse();
    let mut results = Vec::new();
    let b = 16;
    println!("minibatches of 64 cells, 256 of them a fetch, blocks of {b}");
    let options = PlanOptions::default();
    for (name, strategy) in [
        ("block shuffling", Strategy::BlockShuffling { block_size: b }),
        ("stratified by position", Strategy::StratifiedBlockShuffling { block_size: b }),
        ("true random", Strategy::TrueRandom),
        ("streaming, shuffled", Strategy::Streaming { shuffle: true }),
    ] {
        let opened = measure(|| Plan::new(args.cells, strategy, &options).unwrap());
        results.push(report(name, args.cells, b, args.fetches, opened));
    }
    // Drugs in runs of 600 cells; weights of 1 to 7.
    let n = args.table_cells;
    let subset = Subset::all(n);
    let label = |cell: u64| u32::try_from(cell / 600 * 7919 % 380).unwrap();
    let opened = measure(|| {
        let mut builder = StrataBuilder::new(&subset, b, "drug").unwrap();
        let mut codes: Vec<u32> = Vec::new();
        for start in (0..n).step_by(1 << 20) {
            codes.clear();
            codes.extend((start..(start + (1 << 20)).min(n)).map(label));
            builder.push(&[&codes]).unwrap();
        }
        let strata = builder.finish().unwrap();
        let strategy = Strategy::StratifiedBlockShuffling { block_size: b };
        Plan::stratified(subset.clone(), strata, strategy, &options).unwrap()
    });
    results.push(report("stratified by label", n, b, args.table_fetches, opened));
    let weights: Vec<f64> = (0..n).map(|cell| f64::from(label(cell) % 7 + 1)).collect();
    let weights = Weights::of_cells(weights).unwrap();
    for replacement in [true, false] {
        let strategy = Strategy::BlockWeighted { block_size: b, draws: None, replacement };
        // The weights are the caller's, and shared.
        let weights = weights.clone();
        let opened =
            measure(|| Plan::weighted(subset.clone(), weights, strategy, &options).unwrap());
        let name = if replacement { "weighted" } else { "weighted, without replacement" };
        results.push(report(name, n, b, args.table_fetches, opened));
    }
    if let Some(out) = &args.json {
        std::fs::write(out, serde_json::to_string_pretty(&json!(results)).unwrap() + "\n").unwrap();
    }
}

/// Fetches at random places, and what opening took.
fn report(
    name: &str,
    cells: u64,
    b: u64,
    fetches: u64,
    (plan, opening, peak, stays): (Plan, f64, usize, usize),
) -> Value {
    let all = plan.n_fetches();
    let (rows, seconds, fetch_peak, _) = measure(|| {
        let mut rows = 0;
        for i in 0..fetches {
            let k = u64::try_from(u128::from(i) * 0x9e37_79b9 * 7 % u128::from(all)).unwrap();
            rows += black_box(plan.fetch(i % 5, k).unwrap()).rows().n_rows();
        }
        rows
    });
    let per_block = stays as f64 / (cells / b) as f64;
    let each = seconds / fetches as f64;
    println!(
        "{name:<30} {cells:>13} cells: opens in {:9.3} ms, at most {:8.1} KiB, keeps {per_block:5.2} \
         bytes a block; {fetches} fetches in {seconds:6.2} s, {:7.1} us each, at most {:7.1} KiB",
        opening * 1e3,
        peak as f64 / 1024.0,
        each * 1e6,
        fetch_peak as f64 / 1024.0
    );
    json!({
        "strategy": name, "cells": cells, "open_seconds": opening, "open_peak_bytes": peak,
        "kept_bytes": stays, "kept_bytes_per_block": per_block, "fetches": fetches,
        "fetches_seconds": seconds, "seconds_per_fetch": each, "fetch_peak_bytes": fetch_peak,
        "rows": rows,
    })
}
