//! `roofline STORE`: the bare limits of this machine for one epoch of block shuffling.
//!
//! It plans as `cellfeed stream` does with the same options, and then reads, decodes and copies
//! just the bytes that the plan's fetches need, in their order. No loader can be faster than the
//! slowest of the three.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use cellfeed::csr::{CsrBackend, CsrOptions};
use cellfeed::hdf5::{Hdf5Backend, Hdf5Options};
use cellfeed::io::{Engine, EngineOptions, Roofline};
use cellfeed::zarr::{ZarrBackend, ZarrOptions};
use cellfeed::{Backend, MatrixKey, Plan, PlanOptions, Result, RowRanges, Strategy};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// The bare limits of this machine for one epoch of block shuffling from a store.
#[derive(Debug, Parser)]
struct Args {
    /// A .h5ad or 10x .h5 file or a .zarr store whose matrix is CSR, a .csr store, or a BioNeMo SCDL folder.
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
    Zarr(ZarrBackend),
}

impl Store {
    fn n_obs(&self) -> u64 {
        match self {
            Self::Hdf5(backend) => backend.schema().n_obs,
            Self::Csr(backend) => backend.schema().n_obs,
            Self::Zarr(backend) => backend.schema().n_obs,
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
            // It reads through the byte source in either case.
            Self::Zarr(backend) => backend.roofline(key, fetches, threads),
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let threads =
        args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(threads)));
    let hdf5 = || Hdf5Backend::open(&args.store, Arc::clone(&engine), &Hdf5Options::default());
    let csr = || CsrBackend::open(&args.store, Arc::clone(&engine), &CsrOptions::default());
    let store = if cellfeed::csr::looks_like(&args.store) {
        Store::Csr(csr()?)
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
    let plan = Plan::new(store.n_obs(), strategy, &options)?;
    let n = plan.n_fetches().min(args.fetches.unwrap_or(u64::MAX));
    let fetches: Vec<RowRanges> = (0..n)
        .map(|k| plan.fetch(args.epoch, k).map(|fetch| fetch.rows().clone()))
        .collect::<Result<_>>()?;
    let cells: u64 = fetches.iter().map(RowRanges::n_rows).sum();
    let limits = store.limits(&args.layer, &fetches, threads, args.cold)?;

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
