//! `cellfeed stream`: runs the loader over a store and reports how it went.

use crate::people::{self, bytes, count, rate, say, say_json, seconds};
use crate::remote::{self, Remote};
use crate::sampling::Sampling;
use crate::trace::{self, Totals, Trace};
use crate::transforming::Transforming;
use crate::waits::Waits;
use crate::{interrupt, usage};
use cellfeed::diversity::check_label;
use cellfeed::io::Access;
use cellfeed::spans::TARGET;
use cellfeed::{
    ConcatOptions, Digest, Error, Join, Layout, LoaderOptions, MatrixKey, Minibatch, OpenOptions,
    OutputType, Result, Store, label_entropy, open_many,
};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Which genes several stores have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum JoinName {
    /// Those that all stores have.
    Inner,
    /// Those that any store has.
    Outer,
}

impl JoinName {
    pub(crate) fn options(self) -> ConcatOptions {
        ConcatOptions::default().with_join(match self {
            Self::Inner => Join::Inner,
            Self::Outer => Join::Outer,
        })
    }
}

/// How files are read whose rows are stored as they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AccessName {
    /// By the map where the page cache holds the rows, else by reads; looked at for each fetch.
    Auto,
    /// By the map alone.
    Map,
    /// By reads alone.
    Read,
}

impl AccessName {
    fn access(self) -> Access {
        match self {
            Self::Auto => Access::Auto,
            Self::Map => Access::Map,
            Self::Read => Access::Read,
        }
    }
}

/// Stream minibatches from a store and report speed, cost and diversity.
///
/// Nothing is trained: the command shows what a training loop would get, and how long it would wait.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed stream atlas.h5ad\n  \
    cellfeed stream atlas.h5ad --label cell_type --block-size 64 --seconds 20\n  \
    cellfeed stream atlas.h5ad --subset 'plate != plate14' --rank 0 --world-size 4\n  \
    cellfeed stream atlas.h5ad --strategy stratified --by drug --fetch-factor 64 --label drug\n  \
    cellfeed stream atlas.h5ad --strategy class-balanced --by cell_type --draws 1000000\n  \
    cellfeed stream atlas.h5ad --layer counts --layout dense --json\n  \
    cellfeed stream atlas.h5ad --normalize-total 1e4 --log1p --genes variable_genes.txt\n  \
    cellfeed stream a.h5ad b.csr --join outer\n  \
    cellfeed stream atlas.h5ad --step-ms 4 --trace trace.json\n\n\
    Larger blocks and smaller fetches are cheaper; smaller blocks and larger fetches are more \n\
    diverse. --label shows the diversity: the entropy of that column within minibatches.")]
pub(crate) struct StreamArgs {
    /// The store: a .h5ad or 10x .h5 file, a .zarr, .parquet or .csr store, a folder of Parquet shards
    /// as Tahoe-100M has, an SCDL folder; FILE.h5mu#mod/NAME for a part of MuData; any of them (but
    /// SCDL) behind s3://, gs://, az://, and files behind https://.
    /// Several, of any formats, are read as one, genes aligned by name.
    #[arg(required = true, value_name = "STORE")]
    pub(crate) stores: Vec<String>,
    /// Genes of several stores: those that all have (inner), or any (outer).
    #[arg(long, value_enum, default_value = "inner")]
    pub(crate) join: JoinName,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Only cells for which a condition on an obs column holds, such as 'plate != plate14', 'drug ==
    /// a,b' (any of them), 'n_genes >= 500' or 'cell_type is present' (or missing); may be given several
    /// times, all must hold.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) subset: Vec<String>,
    /// The matrix: a layer's name, raw, or X.
    #[arg(long, value_name = "LAYER", default_value = "X")]
    pub(crate) layer: MatrixKey,
    #[command(flatten)]
    pub(crate) transforming: Transforming,
    /// An obs column to load; may be given several times.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) obs: Vec<String>,
    /// An obs column whose entropy within minibatches is reported: categories, text, whole numbers or
    /// booleans.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// Layout of minibatches: csr or dense.
    #[arg(long, value_name = "LAYOUT", default_value = "csr")]
    pub(crate) layout: Layout,
    /// Value type of minibatches: f32, f64, f16, i32, i64, u16, u8.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub(crate) dtype: OutputType,
    /// Threads that decode and gather [default: one per core].
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Memory for fetches and waiting minibatches.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = people::parse_bytes)]
    pub(crate) memory: u64,
    /// Fetches that may be read ahead, memory permitting [default: 1; of a store behind a URL 4].
    #[arg(long, value_name = "FETCHES")]
    pub(crate) read_ahead: Option<usize>,
    /// How .csr stores and uncompressed .h5ad files are read [default: auto].
    #[arg(long, value_enum)]
    pub(crate) access: Option<AccessName>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS", conflicts_with = "epochs")]
    pub(crate) seconds: Option<f64>,
    /// How many epochs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) epochs: u64,
    /// Print one hash over all minibatches: the same for any thread count, memory or format.
    #[arg(long)]
    pub(crate) digest: bool,
    /// Parse the file's metadata with the reference HDF5 library.
    #[cfg(feature = "libhdf5")]
    #[arg(long)]
    pub(crate) libhdf5: bool,
    /// Let the consumer sleep so long after each minibatch, as a training step on a GPU would take.
    #[arg(long, value_name = "MILLISECONDS", value_parser = people::parse_step)]
    pub(crate) step_ms: Option<Duration>,
    /// Write what each thread does when, for ui.perfetto.dev or chrome://tracing, and report where the
    /// time went. An earlier trace of that name is replaced, no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress bar.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// How a run went. These are the keys of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StreamReport {
    /// How cells were chosen, in words.
    pub(crate) strategy: String,
    pub(crate) n_cells: u64,
    pub(crate) n_minibatches: u64,
    pub(crate) seconds: f64,
    pub(crate) cells_per_second: f64,
    /// Reads that were made, near ranges in one.
    pub(crate) reads: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_decoded: u64,
    /// Of the bytes that were wanted, those that the cache had, and those that it lacked; null without
    /// one.
    pub(crate) cache_hit_bytes: Option<u64>,
    pub(crate) cache_miss_bytes: Option<u64>,
    pub(crate) open_seconds: f64,
    pub(crate) first_minibatch_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
    /// Of that, what is not pages of mapped files, as seen every tenth of a second; null where the system
    /// does not tell.
    pub(crate) peak_own_bytes: Option<u64>,
    pub(crate) consumer_wait_seconds: f64,
    /// Waits for minibatches but the first: of half of them, of 99 in 100, the longest, all together.
    pub(crate) wait_p50_seconds: Option<f64>,
    pub(crate) wait_p99_seconds: Option<f64>,
    pub(crate) wait_max_seconds: Option<f64>,
    pub(crate) wait_after_first_seconds: f64,
    pub(crate) entropy_bits: Option<f64>,
    pub(crate) digest: Option<String>,
    pub(crate) sum: f64,
    pub(crate) nnz: u64,
    /// With `--trace`: by the names of spans, what they amount to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spans: Option<Totals>,
}

pub(crate) fn run(args: &StreamArgs) -> Result<()> {
    let traced = args.trace.as_deref().map(|path| Trace::start(path, &args.stores)).transpose()?;
    let report = stream(args);
    // Of a run that failed, too.
    let spans = traced.map(Trace::finish).transpose();
    let report = StreamReport { spans: spans?, ..report? };
    if args.json {
        say_json(&report)?;
    } else {
        print(args, &report)?;
    }
    interrupt::check()
}

fn open(args: &StreamArgs) -> Result<Store> {
    let mut options = OpenOptions::default().with_keep_bytes(args.memory / 4);
    if let Some(threads) = args.threads {
        options = options.with_threads(threads.into());
    }
    #[cfg(feature = "libhdf5")]
    if args.libhdf5 {
        use cellfeed::hdf5::{Hdf5Options, Reader};
        options = options.with_hdf5(Hdf5Options::default().with_reader(Reader::Libhdf5));
    }
    if let Some(access) = args.access {
        options = options.with_access(access.access());
    }
    open_many(&args.stores, &args.remote.apply(options)?, &args.join.options())
}

/// Runs the loader as the options say.
pub(crate) fn stream(args: &StreamArgs) -> Result<StreamReport> {
    let limit = args.seconds.map(Duration::try_from_secs_f64).transpose();
    let limit = limit.map_err(|_| Error::invalid_input("--seconds must be a positive number"))?;
    let start = Instant::now();
    let store = open(args)?;
    let open_seconds = start.elapsed().as_secs_f64();
    if let Some(label) = &args.label {
        check_label(store.schema(), label)?;
    }
    let plan = args.sampling.plan(&store, store.subset(&args.subset)?)?;
    // The label is loaded whether or not it is among the columns asked for.
    let mut columns = args.obs.clone();
    columns.extend(args.label.clone().filter(|label| !args.obs.contains(label)));
    let options = LoaderOptions::default()
        .with_matrix(args.layer.clone())
        .with_obs(columns)
        .with_layout(args.layout)
        .with_output(args.dtype)
        .with_transform(args.transforming.transform()?)
        .with_memory(args.memory)
        .with_read_ahead(args.read_ahead);
    let epochs = if limit.is_some() { u64::MAX } else { args.epochs };
    let loader = store.loader(plan.clone(), options)?;
    let cells = args.seconds.is_none().then(|| plan.n_cells().saturating_mul(args.epochs));
    let bar = people::progress_bar(args.quiet || args.json, cells, "cells");

    let before = store.engine().stats().snapshot();
    let cpu = usage::cpu_seconds();
    let start = Instant::now();
    let mut tally = Tally::new(args);
    let mut run = loader.epochs(args.sampling.epoch..args.sampling.epoch.saturating_add(epochs))?;
    let mut first = None;
    let mut waits = Waits::new()?;
    let mut own = usage::OwnMemory::new();
    loop {
        let asked = Instant::now();
        own.look(asked);
        let Some(minibatch) = run.next() else { break };
        let minibatch = minibatch?;
        match first {
            None => first = Some(start.elapsed()),
            Some(_) => waits.add(asked.elapsed()),
        }
        let _step = tracing::debug_span!(target: TARGET, "step", minibatch = minibatch.number());
        let _step = _step.enter();
        tally.add(&minibatch)?;
        bar.inc(u64::try_from(minibatch.n_cells()).unwrap_or(0));
        if let Some(step) = args.step_ms {
            std::thread::sleep(step);
        }
        // What was measured until Ctrl-C is worth telling.
        if interrupt::pressed() || limit.is_some_and(|limit| start.elapsed() >= limit) {
            break;
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let waited = run.waited();
    let peak_own_bytes = own.most();
    drop(run);
    bar.finish_and_clear();
    let read = store.engine().stats().snapshot().since(&before);
    remote::warn(&store);
    let cached = |bytes: u64| args.remote.caches().then_some(bytes);
    Ok(StreamReport {
        strategy: plan.describe(),
        n_cells: tally.cells,
        n_minibatches: tally.minibatches,
        seconds: elapsed,
        cells_per_second: if elapsed > 0.0 { tally.cells as f64 / elapsed } else { 0.0 },
        reads: read.reads,
        bytes_read: read.bytes_read,
        bytes_decoded: read.bytes_decoded,
        cache_hit_bytes: cached(read.bytes_cached),
        cache_miss_bytes: cached(read.bytes_wanted.saturating_sub(read.bytes_cached)),
        open_seconds,
        first_minibatch_seconds: first.unwrap_or_default().as_secs_f64(),
        cpu_seconds: usage::cpu_seconds() - cpu,
        peak_rss_bytes: usage::peak_rss_bytes(),
        peak_own_bytes,
        consumer_wait_seconds: waited.as_secs_f64(),
        wait_p50_seconds: waits.quantile(0.5),
        wait_p99_seconds: waits.quantile(0.99),
        wait_max_seconds: waits.longest(),
        wait_after_first_seconds: waits.sum(),
        entropy_bits: tally.entropy(),
        digest: tally.digest.map(|d| d.hex()),
        sum: tally.sum,
        nnz: tally.nnz,
        spans: None,
    })
}

/// What is counted over minibatches.
struct Tally {
    cells: u64,
    minibatches: u64,
    nnz: u64,
    sum: f64,
    label: Option<String>,
    obs: usize,
    entropy: f64,
    full: u64,
    batch_size: u64,
    digest: Option<Digest>,
}

impl Tally {
    fn new(args: &StreamArgs) -> Self {
        Self {
            cells: 0,
            minibatches: 0,
            nnz: 0,
            sum: 0.0,
            label: args.label.clone(),
            obs: args.obs.len(),
            entropy: 0.0,
            full: 0,
            batch_size: args.sampling.batch_size,
            digest: args.digest.then(Digest::new),
        }
    }

    fn add(&mut self, minibatch: &Minibatch) -> Result<()> {
        let n = u64::try_from(minibatch.n_cells()).unwrap_or(0);
        self.cells += n;
        self.minibatches += 1;
        let data = minibatch.x().data();
        self.nnz += u64::try_from(data.len()).unwrap_or(0);
        // Every value is touched, as a training step would.
        self.sum += data.sum_f64();
        // A partial minibatch holds fewer labels than the rest: it would bias the mean.
        if let Some(label) = &self.label
            && n == self.batch_size
            && let Some(labels) = minibatch.obs_column(label)
        {
            self.entropy += label_entropy(labels)?;
            self.full += 1;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(minibatch, self.obs)?;
        }
        Ok(())
    }

    fn entropy(&self) -> Option<f64> {
        (self.full > 0).then(|| self.entropy / self.full as f64)
    }
}

fn print(args: &StreamArgs, r: &StreamReport) -> Result<()> {
    let per = |n: u64| n as f64 / r.n_cells.max(1) as f64;
    say(format_args!(
        "{} cells in {} minibatches, {}: {} cells/s",
        count(r.n_cells),
        count(r.n_minibatches),
        seconds(r.seconds),
        rate(r.cells_per_second)
    ))?;
    say(format_args!("  plan      {}", r.strategy))?;
    say(format_args!(
        "  read      {} ({:.1} KiB a cell), decoded {}",
        bytes(r.bytes_read),
        per(r.bytes_read) / 1024.0,
        bytes(r.bytes_decoded)
    ))?;
    if let (Some(hit), Some(miss)) = (r.cache_hit_bytes, r.cache_miss_bytes) {
        say(format_args!(
            "  cache     {} from the cache, {} that it lacked",
            bytes(hit),
            bytes(miss)
        ))?;
    }
    say(format_args!(
        "  latency   open {}, first minibatch {}, consumer waited {} ({:.0} %)",
        seconds(r.open_seconds),
        seconds(r.first_minibatch_seconds),
        seconds(r.consumer_wait_seconds),
        100.0 * r.consumer_wait_seconds / r.seconds.max(1e-9)
    ))?;
    if let (Some(half), Some(most), Some(longest)) =
        (r.wait_p50_seconds, r.wait_p99_seconds, r.wait_max_seconds)
    {
        say(format_args!(
            "  waits     after the first: half of them up to {}, 99 % up to {}, the longest {}",
            seconds(half),
            seconds(most),
            seconds(longest)
        ))?;
    }
    say(format_args!(
        "  cost      {} of CPU, {:.2} s per 100,000 cells; peak memory {}{}",
        seconds(r.cpu_seconds),
        per(1) * r.cpu_seconds * 1e5,
        bytes(r.peak_rss_bytes),
        pages_of_files(r)
    ))?;
    say(format_args!("  values    {} stored, sum {}", count(r.nnz), r.sum))?;
    if let (Some(bits), Some(label)) = (r.entropy_bits, &args.label) {
        say(format_args!("  diversity {bits:.3} bits of {label} in a minibatch"))?;
    }
    if let Some(digest) = &r.digest {
        say(format_args!("  digest    {digest}"))?;
    }
    if let Some(spans) = &r.spans {
        trace::print(spans, r.open_seconds + r.seconds)?;
    }
    Ok(())
}

/// What of the peak is pages of mapped files, where that is much of it.
fn pages_of_files(r: &StreamReport) -> String {
    match r.peak_own_bytes {
        Some(own) if own < r.peak_rss_bytes / 4 * 3 => {
            format!(", {} of it without pages of mapped files", bytes(own))
        }
        _ => String::new(),
    }
}
