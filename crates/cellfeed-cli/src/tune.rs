//! `cellfeed tune`: recommends sampling settings for a store, a label and this machine.

use crate::output::Output;
use crate::people::{self, say, say_json};
use crate::remote::Remote;
use crate::{interrupt, tune_print};
use cellfeed::io::Staging;
use cellfeed::tune::{
    Candidate, Diversity, PageCache, Speed, Target, TuneOptions, TuneProgress, TuneReport,
    TuneStage, plot, tune,
};
use cellfeed::{Error, ErrorKind, Layout, MatrixKey, OpenOptions, OutputType, Result};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which state of the page cache decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CacheName {
    /// Warm if the store fits in this machine's memory, else cold.
    Auto,
    /// The store is in memory, as from the second epoch on where it fits. Nothing is timed cold.
    Warm,
    /// The store is read from disk.
    Cold,
}

/// Recommend sampling settings: the fastest that are diverse enough, on this machine.
///
/// Larger blocks are read faster, and make minibatches less diverse; larger fetches make up for it, and
/// take memory. How much of each depends on the file, on the disk, and on how the label that matters
/// lies in it. This command finds out: it runs the real plans over the label (no matrix is read for
/// that), times the real loader at a few settings, predicts the others, takes the fastest that meets
/// the target within the memory, and runs it to see whether the prediction was right.
///
/// The label is what should be mixed: the plate, the donor, the drug; of several the one with the
/// longest runs. DEFF is by how many times the variance of a mean over cells is larger than with
/// independent cells, over as many minibatches as an optimizer remembers: 1 is as good as random, at
/// 1.5 half as many cells again are needed for the same certainty.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed tune atlas.h5ad --label plate\n  \
    cellfeed tune atlas.h5ad --label drug --target-deff 1.1 --memory 4GiB --plot drug.svg\n  \
    cellfeed tune atlas.zarr --label donor --target-entropy 0.99 --time-limit 20\n  \
    cellfeed tune atlas.h5ad --label plate --json | jq .recommended\n\n\
    Give the machine nothing else to do meanwhile: what else runs is measured too. To time reads from\n\
    disk, the store's own pages are thrown out of the page cache, which slows down other programs that\n\
    read it just then; --page-cache warm never does that. docs/tune.md explains how it predicts.")]
pub(crate) struct TuneArgs {
    /// The store, in any format that `stream` reads, on this machine.
    store: String,
    /// The obs column that minibatches should mix: categories, text, whole numbers or booleans.
    #[arg(long, value_name = "COLUMN")]
    label: String,
    /// Take settings with a design effect DEFF of at most this [default: 1.5].
    #[arg(
        long,
        value_name = "DEFF",
        conflicts_with = "target_entropy",
        allow_negative_numbers = true
    )]
    target_deff: Option<f64>,
    /// Take settings with at least this share of the entropy that true random sampling has.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    target_entropy: Option<f64>,
    /// Memory for fetches and waiting minibatches, as of `stream`.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = people::parse_bytes)]
    memory: u64,
    /// Cells in a minibatch.
    #[arg(long, value_name = "CELLS", default_value_t = 64)]
    batch_size: u64,
    /// Consecutive minibatches that DEFF is over.
    #[arg(long, value_name = "MINIBATCHES", default_value_t = 10)]
    window: u64,
    /// The matrix: a layer's name, raw, or X.
    #[arg(long, value_name = "LAYER", default_value = "X")]
    layer: MatrixKey,
    /// Layout of minibatches: csr or dense.
    #[arg(long, value_name = "LAYOUT", default_value = "csr")]
    layout: Layout,
    /// Value type of minibatches: f32, f64, f16, i32, i64, u16, u8.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: OutputType,
    /// Threads to use at most [default: one per core].
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Which state of the system's page cache decides.
    #[arg(long, value_enum, default_value = "auto")]
    page_cache: CacheName,
    /// Seconds to measure; less makes predictions rougher.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, allow_negative_numbers = true)]
    time_limit: f64,
    /// Seed of every random choice.
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = people::parse_seed)]
    seed: u64,
    /// Draw speed against diversity as an SVG file. An earlier drawing of that name is replaced, no other
    /// file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print every setting that was looked at, not the frontier alone.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(args: &TuneArgs) -> Result<()> {
    let options = options(args)?;
    if let Some(path) = &args.plot {
        PLOT.check(path, std::slice::from_ref(&args.store))?;
    }
    let report = measure(args, &options)?;
    if args.json {
        say_json(&to_json(&report))?;
    } else {
        tune_print::print(&report, &args.store, args.all)?;
    }
    // Last: the report must not be lost to a full disk.
    let Some(path) = &args.plot else { return Ok(()) };
    write_plot(path, &plot(&report))?;
    if args.json { Ok(()) } else { say(format_args!("plot       {}", path.display())) }
}

fn options(args: &TuneArgs) -> Result<TuneOptions> {
    let target = match (args.target_deff, args.target_entropy) {
        (_, Some(share)) => Target::Entropy(share),
        (deff, None) => Target::Deff(deff.unwrap_or(1.5)),
    };
    let limit = Duration::try_from_secs_f64(args.time_limit)
        .map_err(|_| Error::invalid_input("--time-limit must be a positive number of seconds"))?;
    let mut open = OpenOptions::default();
    if let Some(threads) = args.threads {
        open = open.with_threads(threads.into());
    }
    open = args.remote.apply(open)?;
    let options = TuneOptions::default()
        .with_matrix(args.layer.clone())
        .with_batch_size(args.batch_size)
        .with_layout(args.layout)
        .with_output(args.dtype)
        .with_memory(args.memory)
        .with_target(target)
        .with_window(args.window)
        .with_seed(args.seed)
        .with_time_limit(limit)
        .with_open(open);
    Ok(match args.page_cache {
        CacheName::Auto => options,
        CacheName::Warm => options.with_page_cache(PageCache::Warm),
        CacheName::Cold => options.with_page_cache(PageCache::Cold),
    })
}

const PLOT: Output = Output { option: "--plot", what: "drawing of tune", begins: "<svg" };

/// Writes the plot whole or not at all, if nothing else has come there meanwhile.
fn write_plot(path: &Path, text: &str) -> Result<()> {
    PLOT.check_replaceable(path)?;
    let staging = Staging::file(path, true)?;
    staging
        .handle()
        .write_all(text.as_bytes())
        .map_err(|e| Error::io("cannot write the plot", e).with("file", path.display()))?;
    staging.publish()
}

fn measure(args: &TuneArgs, options: &TuneOptions) -> Result<TuneReport> {
    let bar = people::progress_bar(args.quiet || args.json, Some(1), "");
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {msg}") {
        bar.set_style(style);
    }
    let mut stage = None;
    let report = tune(&args.store, &args.label, options, &mut |p: TuneProgress| {
        if stage != Some(p.stage) {
            stage = Some(p.stage);
            bar.set_message(doing(p.stage));
        }
        bar.set_length(p.total);
        bar.set_position(p.done);
        !interrupt::pressed()
    });
    bar.finish_and_clear();
    report.map_err(|e| match e.kind() {
        ErrorKind::Cancelled => Error::new(ErrorKind::Cancelled, "interrupted"),
        _ => e,
    })
}

/// What a stage of tuning does, in words.
#[must_use]
pub fn doing(stage: TuneStage) -> &'static str {
    match stage {
        TuneStage::Reading => "reading the label",
        TuneStage::Diversity => "running plans over the label",
        TuneStage::Cold => "timing reads from disk",
        TuneStage::Warming => "reading the store into the page cache",
        TuneStage::Warm => "timing reads from the page cache",
        TuneStage::Checking => "running the best setting against its prediction",
        TuneStage::Trying => "trying threads and read-ahead",
        _ => "measuring",
    }
}

fn speed_json(speed: Option<Speed>) -> Value {
    speed.map_or(Value::Null, |s| {
        json!({
            "predicted_cells_per_second": s.predicted,
            "measured_cells_per_second": s.measured,
            "runs": s.runs,
            "spread": s.spread,
        })
    })
}

fn diversity_json(d: &Diversity) -> Value {
    json!({
        "entropy_bits": d.entropy,
        "deff_1": d.deff_1,
        "deff_w": d.deff_w,
        "deff_w_standard_error": d.deff_w_error,
        "n_minibatches": d.n_minibatches,
    })
}

fn candidate_json(c: &Candidate) -> Value {
    json!({
        "strategy": c.sampler.as_str(),
        "block_size": c.block_size,
        "fetch_factor": c.fetch_factor,
        "memory_bytes": c.memory,
        "fits": c.fits,
        "meets_target": c.meets,
        "frontier": c.frontier,
        "diversity": diversity_json(&c.diversity),
        "theory": c.theory.map(|t| json!({"entropy_bits": t.entropy, "deff_w": t.deff_w})),
        "warm": speed_json(c.warm),
        "cold": speed_json(c.cold),
    })
}

/// What was found, as `--json` prints it.
#[must_use]
pub fn to_json(r: &TuneReport) -> Value {
    let best = r.best();
    let target = match r.target {
        Target::Deff(most) => json!({"deff_w_at_most": most}),
        Target::Entropy(share) => json!({"entropy_share_at_least": share}),
        _ => Value::Null,
    };
    let trials = |name: &str, trials: &[(usize, f64)]| -> Value {
        trials.iter().map(|(n, rate)| json!({name: n, "cells_per_second": rate})).collect()
    };
    json!({
        "store": r.location,
        "format": r.format,
        "n_cells": r.n_cells,
        "store_bytes": r.store_bytes,
        "batch_size": r.batch_size,
        "window": r.window,
        "memory_bytes": r.memory,
        "target": target,
        "label": {
            "column": r.label.column,
            "n_labels": r.label.n_labels,
            "n_missing": r.label.n_missing,
            "largest_share": r.label.largest_share,
            "entropy_bits": r.label.entropy,
            "entropy_random_bits": r.label.entropy_random,
            "n_runs": r.label.n_runs,
            "mean_run_of_a_cell": r.label.mean_run_of_a_cell,
            "longest_run": r.label.longest_run,
        },
        "page_cache": {
            "decides": r.page_cache.as_str(),
            "why": r.page_cache_reason,
            "cold_note": r.cold_note,
            "share_in_cache_when_warm": r.effort.warm_share,
            "share_in_cache_when_cold": r.effort.cold_share,
        },
        "recommended": {
            "meets_target": r.meets,
            "strategy": best.sampler.as_str(),
            "block_size": best.block_size,
            "fetch_factor": best.fetch_factor,
            "read_ahead": r.read_ahead,
            "threads": r.threads,
            "memory_bytes": r.memory,
            "command": tune_print::command(r, &r.location),
            "setting": candidate_json(best),
        },
        "would_meet_target": r.would_meet.and_then(|i| r.candidates.get(i)).map(candidate_json),
        "check": {
            "predicted_cells_per_second": r.check.predicted,
            "measured_cells_per_second": r.check.measured,
            "slowest_cells_per_second": r.check.range.0,
            "fastest_cells_per_second": r.check.range.1,
            "runs": r.check.runs,
            "cells": r.check.cells,
            "predicted_diversity": diversity_json(&r.check.expected),
            "measured_diversity": diversity_json(&r.check.seen),
        },
        "read_ahead": trials("read_ahead", &r.read_ahead_trials),
        "threads": trials("threads", &r.thread_trials),
        "model": {
            "n_points": r.model.n_points,
            "error": r.model.error,
            "worst_error": r.model.worst,
            "seconds": r.model.terms.iter().map(|(name, s)| ((*name).to_owned(), json!(s)))
                .collect::<serde_json::Map<_, _>>(),
        },
        "effort": {
            "seconds": r.effort.seconds,
            "runs": r.effort.runs,
            "cells": r.effort.cells,
            "spread": r.effort.spread,
            "worst_spread": r.effort.worst_spread,
        },
        "candidates": r.candidates.iter().map(candidate_json).collect::<Vec<_>>(),
    })
}
