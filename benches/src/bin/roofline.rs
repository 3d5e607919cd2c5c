//! `roofline STORE`: the bare limits of this machine for one epoch of block shuffling.
//!
//! It plans as `cellfeed stream` does with the same options, and then reads, decodes and copies
//! just the bytes that the plan's fetches need, in their order. No loader can be faster than the
//! slowest of the three. Beside them stands what any loader must do at the end: to bring rows, in the
//! order of the minibatches, into buffers that are handed out. Once by `memcpy` from rows that have their
//! final form already (`deliver`), and once from rows in the types of the store, which may be narrower
//! and lie in its map (`widen`).
#![allow(clippy::print_stdout, clippy::print_stderr)]

use cellfeed::csr::{CsrBackend, CsrOptions};
use cellfeed::hdf5::{Hdf5Backend, Hdf5Options};
use cellfeed::io::{Engine, EngineOptions, Roofline};
use cellfeed::parquet::{ParquetBackend, ParquetOptions};
use cellfeed::vector::extend;
use cellfeed::zarr::{ZarrBackend, ZarrOptions};
use cellfeed::{
    Backend, CsrRows, CsrSegment, FetchPlan, Indices, MatrixKey, Plan, PlanOptions, Result,
    RowRanges, Strategy, Value, Values,
};
use clap::Parser;
use std::hint::black_box;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// The bare limits of this machine for one epoch of block shuffling from a store.
#[derive(Debug, Parser)]
struct Args {
    /// A .h5ad or 10x .h5 file or a .zarr store whose matrix is CSR, a .csr store, Parquet, or a
    /// BioNeMo SCDL folder.
    store: PathBuf,
    /// Cells in a minibatch.
    #[arg(long, default_value_t = 64)]
    batch_size: u64,
    /// Cells next to each other on disk that stay together.
    #[arg(long, default_value_t = 16)]
    block_size: u64,
    /// Minibatches that are read and shuffled together.
    #[arg(long, default_value_t = 256)]
    fetch_factor: u64,
    /// Seed of the plan.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The epoch of the plan.
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// The matrix: a layer's name, raw, or X.
    #[arg(long, default_value = "X")]
    layer: MatrixKey,
    /// Threads [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many fetches.
    #[arg(long)]
    fetches: Option<u64>,
    /// Read as is best when the page cache does not hold the file.
    #[arg(long)]
    cold: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A store of a format whose limits are known.
enum Store {
    Hdf5(Box<Hdf5Backend>),
    Csr(CsrBackend),
    Parquet(Box<ParquetBackend>),
    Zarr(ZarrBackend),
}

impl Store {
    fn backend(&self) -> &dyn Backend {
        match self {
            Self::Hdf5(backend) => &**backend,
            Self::Csr(backend) => backend,
            Self::Parquet(backend) => &**backend,
            Self::Zarr(backend) => backend,
        }
    }

    fn limits(
        &self,
        key: &MatrixKey,
        fetches: &[RowRanges],
        threads: usize,
        cold: bool,
    ) -> Result<Roofline> {
        match self {
            Self::Hdf5(backend) => backend.roofline(key, fetches, threads, cold),
            Self::Csr(backend) => backend.roofline(key, fetches, threads, cold),
            // These two read through the byte source in either case.
            Self::Parquet(backend) => backend.roofline(key, fetches, threads),
            Self::Zarr(backend) => backend.roofline(key, fetches, threads),
        }
    }
}

/// Rows as a minibatch has them: indices `i32`, values `f32`.
struct Final {
    rows: Vec<Range<usize>>,
    indices: Vec<i32>,
    values: Vec<f32>,
}

impl Final {
    fn of(found: &CsrRows) -> Self {
        let mut this = Self { rows: Vec::new(), indices: Vec::new(), values: Vec::new() };
        for segment in found.segments() {
            let first = this.indices.len();
            let at = |p: u64| first + usize::try_from(p).unwrap_or(usize::MAX);
            this.rows.extend(segment.indptr().windows(2).map(|w| at(w[0])..at(w[1])));
            match segment.indices() {
                Indices::U16(b) => this.indices.extend(b.iter().map(|&g| i32::from(g))),
                Indices::U32(b) => this.indices.extend(b.iter().map(|&g| g.cast_signed())),
                _ => {}
            }
            #[allow(clippy::cast_possible_truncation, reason = "as a minibatch of f32 has it")]
            this.values.extend(segment.values().to_f64_vec().into_iter().map(|v| v as f32));
        }
        this
    }
}

/// Rows that can be appended to a minibatch.
trait Rows: Sync {
    fn append(&self, row: usize, indices: &mut Vec<i32>, values: &mut Vec<f32>);
}

impl Rows for Final {
    fn append(&self, row: usize, indices: &mut Vec<i32>, values: &mut Vec<f32>) {
        let row = &self.rows[row];
        indices.extend_from_slice(&self.indices[row.clone()]);
        values.extend_from_slice(&self.values[row.clone()]);
    }
}

/// Rows in the types of the store.
struct Stored<'a>(Vec<(&'a CsrSegment, Range<usize>)>);

impl Rows for Stored<'_> {
    fn append(&self, row: usize, indices: &mut Vec<i32>, values: &mut Vec<f32>) {
        let (segment, row) = &self.0[row];
        match segment.indices() {
            Indices::U16(b) => extend(indices, &b[row.clone()], i32::from),
            Indices::U32(b) => extend(indices, &b[row.clone()], u32::cast_signed),
            _ => {}
        }
        match segment.values() {
            Values::U8(b) => extend(values, &b[row.clone()], Value::to_f32),
            Values::U16(b) => extend(values, &b[row.clone()], Value::to_f32),
            Values::U32(b) => extend(values, &b[row.clone()], Value::to_f32),
            Values::I32(b) => extend(values, &b[row.clone()], Value::to_f32),
            Values::F32(b) => values.extend_from_slice(&b[row.clone()]),
            Values::F64(b) => extend(values, &b[row.clone()], Value::to_f32),
            other => {
                let row = other.slice(row.start, row.len()).to_f64_vec();
                values.extend(row.into_iter().map(Value::to_f32));
            }
        }
    }
}

/// Copies the rows of each minibatch, in its order, into kept buffers, a pair for each thread, each thread
/// its minibatches, and answers the seconds.
fn copy(plan: &FetchPlan, rows: &dyn Rows, buffers: &mut [(Vec<i32>, Vec<f32>)]) -> f64 {
    let next = &AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (indices, values) in buffers {
            scope.spawn(move || {
                loop {
                    let j = next.fetch_add(1, Relaxed);
                    if j >= plan.n_minibatches() {
                        return;
                    }
                    indices.clear();
                    values.clear();
                    for &p in plan.minibatch(j) {
                        let row = usize::try_from(p).unwrap_or(usize::MAX);
                        rows.append(row, indices, values);
                    }
                    black_box((&indices, &values));
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Minibatches out of rows in their final form, and out of rows in the types of the store.
#[derive(Default)]
struct Delivered {
    deliver_seconds: f64,
    widen_seconds: f64,
    bytes: u64,
}

/// What it takes to make the minibatches of each fetch, once its rows are there.
fn deliver(
    backend: &dyn Backend,
    key: &MatrixKey,
    plans: &[FetchPlan],
    threads: usize,
) -> Result<Delivered> {
    let mut all = Delivered::default();
    let mut buffers: Vec<(Vec<i32>, Vec<f32>)> = vec![Default::default(); threads];
    for (i, plan) in plans.iter().enumerate() {
        let found = futures::executor::block_on(backend.read_rows(key, plan.rows()))?;
        let rows = Final::of(&found);
        if i == 0 {
            // Once more, untimed: the buffers are to be kept ones.
            copy(plan, &rows, &mut buffers);
        }
        all.deliver_seconds += copy(plan, &rows, &mut buffers);
        drop(rows);
        all.widen_seconds += copy(plan, &Stored(found.spans().collect()), &mut buffers);
        all.bytes += u64::try_from(found.nnz()).unwrap_or(0) * 8;
    }
    Ok(all)
}

fn run(args: &Args) -> Result<()> {
    let threads =
        args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(threads)));
    let hdf5 = || Hdf5Backend::open(&args.store, Arc::clone(&engine), &Hdf5Options::default());
    let csr = || CsrBackend::open(&args.store, Arc::clone(&engine), &CsrOptions::default());
    let parquet =
        || ParquetBackend::open(&args.store, Arc::clone(&engine), &ParquetOptions::default());
    let store = if cellfeed::csr::looks_like(&args.store) {
        Store::Csr(csr()?)
    } else if cellfeed::parquet::is_parquet(&args.store) {
        Store::Parquet(Box::new(parquet()?))
    } else if cellfeed::zarr::looks_like(&args.store) {
        let options = ZarrOptions::default();
        Store::Zarr(ZarrBackend::open(&args.store, Arc::clone(&engine), &options)?)
    } else {
        Store::Hdf5(Box::new(hdf5()?))
    };
    let options = PlanOptions::default()
        .with_batch_size(args.batch_size)
        .with_fetch_factor(args.fetch_factor)
        .with_seed(args.seed);
    let strategy = Strategy::BlockShuffling { block_size: args.block_size };
    let plan = Plan::new(store.backend().schema().n_obs, strategy, &options)?;
    let n = plan.n_fetches().min(args.fetches.unwrap_or(u64::MAX));
    let plans: Vec<FetchPlan> = (0..n).map(|k| plan.fetch(args.epoch, k)).collect::<Result<_>>()?;
    let fetches: Vec<RowRanges> = plans.iter().map(|plan| plan.rows().clone()).collect();
    let cells: u64 = fetches.iter().map(RowRanges::n_rows).sum();
    let limits = store.limits(&args.layer, &fetches, threads, args.cold)?;

    let Delivered { deliver_seconds, widen_seconds, bytes } =
        deliver(store.backend(), &args.layer, &plans, threads)?;

    let slowest = limits.read_seconds.max(limits.decode_seconds).max(limits.gather_seconds);
    let rate = |amount: f64, seconds: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    if args.json {
        let report = serde_json::json!({
            "n_cells": cells,
            "n_fetches": n,
            "threads": threads,
            "read_seconds": limits.read_seconds,
            "bytes_read": limits.bytes_read,
            "decode_seconds": limits.decode_seconds,
            "bytes_decoded": limits.bytes_decoded,
            "gather_seconds": limits.gather_seconds,
            "bytes_gathered": limits.bytes_gathered,
            "deliver_seconds": deliver_seconds,
            "bytes_delivered": bytes,
            "widen_seconds": widen_seconds,
            "bytes_widened": bytes,
            "cells_per_second": rate(cells as f64, slowest),
        });
        println!("{report}");
        return Ok(());
    }
    println!("{cells} cells in {n} fetches on {threads} threads, each limit by itself:");
    for (what, seconds, bytes) in [
        ("read", limits.read_seconds, limits.bytes_read),
        ("decode", limits.decode_seconds, limits.bytes_decoded),
        ("gather", limits.gather_seconds, limits.bytes_gathered),
        ("deliver", deliver_seconds, bytes),
        ("widen", widen_seconds, bytes),
    ] {
        if bytes == 0 {
            println!("  {what:7} nothing to do");
            continue;
        }
        println!(
            "  {what:7} {seconds:8.3} s  {:9.1} MB  {:8.0} MB/s  {:9.0} cells/s",
            bytes as f64 / 1e6,
            rate(bytes as f64 / 1e6, seconds),
            rate(cells as f64, seconds)
        );
    }
    Ok(())
}
