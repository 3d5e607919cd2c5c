//! `remote STORE...`: how near a store behind a slow network comes to the network's bandwidth.
//!
//! The store is on this machine, opened as if it were in a bucket. Between lies a simulated network: so
//! long to the first byte of each answer, so many bytes a second on each connection and on all together.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use cellfeed::object::RemoteOptions;
use cellfeed::{
    Digest, Error, LoaderOptions, OpenOptions, Plan, PlanOptions, Result, Store, Strategy, open,
};
use cellfeed_object::simulate::{Behaviour, Counts, Simulated};
use clap::Parser;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How near a store behind a slow network comes to the network's bandwidth.
#[derive(Debug, Parser)]
struct Args {
    /// Stores on this machine.
    #[arg(required = true)]
    stores: Vec<PathBuf>,
    /// Milliseconds until the first byte of an answer.
    #[arg(long, default_value_t = 30)]
    latency: u64,
    /// Megabytes a second of one connection.
    #[arg(long, default_value_t = 200)]
    connection_rate: u64,
    /// Megabytes a second of all connections together; 0 for no limit.
    #[arg(long, default_value_t = 200)]
    link_rate: u64,
    /// Requests that are under way at once.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Ranges at most so many kilobytes apart are one request.
    #[arg(long, default_value_t = 64)]
    gap: u64,
    /// Cells in a minibatch.
    #[arg(long, default_value_t = 64)]
    batch_size: u64,
    /// Cells next to each other on disk that stay together.
    #[arg(long, default_value_t = 16)]
    block_size: u64,
    /// Minibatches that are read and shuffled together.
    #[arg(long, default_value_t = 256)]
    fetch_factor: u64,
    /// Fetches that are run.
    #[arg(long, default_value_t = 8)]
    fetches: u64,
    /// Megabytes of memory for the loader.
    #[arg(long, default_value_t = 2048)]
    memory: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    for store in &args.stores {
        if let Err(error) = run(store, &args) {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What a run of minibatches was.
struct Ran {
    digest: String,
    cells: u64,
    seconds: f64,
}

/// Streams the first fetches of an epoch.
fn stream(store: &Store, args: &Args) -> Result<Ran> {
    let options = PlanOptions::default()
        .with_batch_size(args.batch_size)
        .with_fetch_factor(args.fetch_factor);
    let strategy = Strategy::BlockShuffling { block_size: args.block_size };
    let plan = Plan::new(store.n_obs(), strategy, &options)?;
    let loader = store.loader(plan, LoaderOptions::default().with_memory(args.memory << 20))?;
    let most =
        usize::try_from(args.fetches.saturating_mul(args.fetch_factor)).unwrap_or(usize::MAX);
    let (mut digest, mut cells, start) = (Digest::new(), 0, Instant::now());
    for minibatch in loader.epoch(0)?.take(most) {
        let minibatch = minibatch?;
        cells += u64::try_from(minibatch.n_cells()).unwrap_or(0);
        digest.update(&minibatch, 0)?;
    }
    Ok(Ran { digest: digest.hex(), cells, seconds: start.elapsed().as_secs_f64() })
}

fn options(args: &Args) -> OpenOptions {
    OpenOptions::default().with_keep_bytes(args.memory << 18)
}

fn run(path: &Path, args: &Args) -> Result<()> {
    let path = path.canonicalize().map_err(|e| Error::io("cannot look at", e))?;
    let (Some(folder), Some(name), Some(whole)) =
        (path.parent(), path.file_name().and_then(|n| n.to_str()), path.to_str())
    else {
        return Err(Error::invalid_input("this is no path of a store"));
    };
    let files = LocalFileSystem::new_with_prefix(folder)
        .map_err(|e| Error::invalid_input("this folder cannot be served").caused_by(e))?;
    let files = Arc::new(files);
    let mega = |n: u64| (n > 0).then(|| n * 1_000_000);
    let behaviour = Behaviour {
        latency: Duration::from_millis(args.latency),
        connection_rate: mega(args.connection_rate),
        link_rate: mega(args.link_rate),
        ..Behaviour::default()
    };
    let counts = Arc::new(Counts::default());
    let counted = Arc::clone(&counts);
    let remote = RemoteOptions::default()
        .with_connections(args.connections)
        .with_gap(args.gap << 10)
        // The store that it stands for is never asked.
        .with_setting("skip_signature", "true")
        .with_wrapper(move |_| {
            let files: Arc<dyn ObjectStore> = Arc::<LocalFileSystem>::clone(&files);
            Arc::new(Simulated::new(files, behaviour, Arc::clone(&counted)))
        });
    let start = Instant::now();
    let far = open(&format!("s3://bench/{name}"), &options(args).with_remote(remote))?;
    let opened = start.elapsed().as_secs_f64();
    let open_requests = counts.gets() + counts.lists();
    let open_bytes = counts.bytes();
    counts.reset();
    let ran = stream(&far, args)?;
    // A little more was read ahead than was used; it went over the link all the same.
    let (requests, bytes) = (counts.gets(), counts.bytes());
    let near = stream(&open(whole, &options(args))?, args)?;
    if near.digest != ran.digest {
        return Err(Error::internal("the digest is not that of the same run from the disk"));
    }
    #[allow(clippy::cast_precision_loss)] // figures for people
    let rate = bytes as f64 / 1e6 / ran.seconds;
    #[allow(clippy::cast_precision_loss)] // figures for people
    let share = (args.link_rate > 0).then(|| rate / args.link_rate as f64);
    #[allow(clippy::cast_precision_loss)] // figures for people
    let per_second = ran.cells as f64 / ran.seconds;
    println!(
        "{}",
        json!({
            "store": name,
            "open": {"requests": open_requests, "bytes": open_bytes, "seconds": opened},
            "requests": requests,
            "bytes": bytes,
            "cells": ran.cells,
            "seconds": ran.seconds,
            "cells_per_second": per_second,
            "megabytes_per_second": rate,
            "share_of_link": share,
            "seconds_from_disk": near.seconds,
            "latency_ms": args.latency,
            "connection_rate": args.connection_rate,
            "link_rate": args.link_rate,
            "connections": args.connections,
            "gap_kb": args.gap,
        })
    );
    Ok(())
}
