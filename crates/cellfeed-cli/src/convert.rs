//! `cellfeed convert`: a store of one format into one of another.

use crate::people::{self, bytes, count, rate, say, say_json, seconds, shown};
use crate::remote::{self, Remote};
use crate::stream::JoinName;
use crate::{interrupt, usage};
use cellfeed::{
    ConvertOptions, Converted, Error, Format, OpenOptions, Result, Stage, WriteOptions, convert,
    open_many,
};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Convert a store into another format.
///
/// The format follows from the destination's ending. Everything that the format can keep is carried
/// over: X, layers and raw, obs and var, and into .h5ad and .zarr also uns, obsm and the like; what is
/// left behind is said. The destination appears when it is complete: what is interrupted, or runs out of
/// disk, leaves nothing. Matrices stored by columns (CSC) are turned into rows.
///
/// The destination may be in a bucket, as s3://bucket/atlas.zarr (gs://, az://). Whether it may be written
/// there is tried first; the store is then put together on this machine, in --staging, and uploaded.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "cellfeed convert [OPTIONS] SOURCE... DESTINATION")]
#[command(after_help = "Examples:\n  \
    cellfeed convert atlas.h5ad atlas.csr                  fastest to read from memory\n  \
    cellfeed convert atlas.h5ad atlas.csr --codec packed   a seventh of the size, fast from disk\n  \
    cellfeed convert atlas.csr small.h5ad --genes genes.txt --obs cell_type\n  \
    cellfeed convert atlas.h5ad mixed.csr --shuffle        all cells in random order\n  \
    cellfeed convert a.h5ad b.h5ad both.csr --join outer   several stores into one\n  \
    cellfeed convert atlas.h5ad s3://bucket/atlas.zarr     into a bucket\n\n\
    Codecs: .h5ad none, gzip[:LEVEL], gzip-shuffle[:LEVEL], lzf; .csr plain, packed; .zarr\n\
    blosc-lz4, blosc-zstd, zstd, gzip, each also with a level as in zstd:5, and none; .parquet\n\
    blob-lz4, blob-zstd[:LEVEL], blob-none, and the same with list- for other tools.")]
pub(crate) struct ConvertArgs {
    /// The store to read, or several that become one, and last the store to write: NAME.h5ad,
    /// NAME.zarr, NAME.parquet or NAME.csr; each a path or a URL.
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "DESTINATION"])]
    paths: Vec<String>,
    /// Genes of several sources: those that all have (inner), or any (outer).
    #[arg(long, value_enum, default_value = "inner")]
    join: JoinName,
    /// The format to write, whatever the ending: h5ad, zarr, parquet, csr.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// How values are compressed, in the format's own words.
    #[arg(long, value_name = "CODEC")]
    codec: Option<String>,
    /// Approximate rows per chunk.
    #[arg(long, value_name = "ROWS")]
    chunk_rows: Option<u64>,
    /// Put all cells in random order.
    #[arg(long)]
    shuffle: bool,
    /// Seed of the random order.
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = people::parse_seed, requires = "shuffle")]
    seed: u64,
    /// Keep this layer, and not the others; may be given several times.
    #[arg(long = "layer", value_name = "LAYER", conflicts_with = "no_layers")]
    layers: Vec<String>,
    /// Keep no layer.
    #[arg(long)]
    no_layers: bool,
    /// Leave raw behind.
    #[arg(long)]
    no_raw: bool,
    /// Keep this obs column, and not the others; may be given several times.
    #[arg(long, value_name = "COLUMN")]
    obs: Vec<String>,
    /// Keep the genes whose names are in this file, one a line. What no source has is said, and is no
    /// error, other than in `stream`.
    #[arg(long, value_name = "FILE")]
    genes: Option<PathBuf>,
    /// Memory for rows that are read and written.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = people::parse_bytes)]
    memory: u64,
    /// The folder in which a store for a bucket is put together; it takes as much as the store
    /// [default: $TMPDIR, or the system's].
    #[arg(long, value_name = "FOLDER")]
    staging: Option<PathBuf>,
    /// Threads [default: one per core].
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Replace the destination if it exists, once the new one is complete. In a bucket, a store of many
    /// files is removed then, and the new one opens when it is uploaded.
    #[arg(long)]
    force: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
}

/// What was done; the keys of `--json`.
#[derive(Debug, Serialize)]
struct ConvertReport {
    path: PathBuf,
    format: &'static str,
    n_obs: u64,
    nnz: u64,
    bytes: u64,
    bytes_read: u64,
    seconds: f64,
    cells_per_second: f64,
    cpu_seconds: f64,
    peak_rss_bytes: u64,
    dropped: Vec<Dropped>,
    missing_genes: Vec<String>,
    /// Genes that were written.
    n_vars: u64,
    /// Genes that each of the sources has.
    n_vars_of_sources: Vec<u64>,
}

/// Something that is not in the destination.
#[derive(Debug, Serialize)]
struct Dropped {
    path: String,
    why: String,
}

pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    let Some((destination, sources)) = args.paths.split_last() else {
        return Err(Error::invalid_input("name a source and a destination"));
    };
    let destination = Path::new(destination);
    if !args.force && destination.symlink_metadata().is_ok() {
        return Err(Error::invalid_input("the destination exists already; --force replaces it")
            .with("file", destination.display()));
    }
    let mut open = OpenOptions::default().with_keep_bytes(args.memory / 8);
    if let Some(threads) = args.threads {
        open = open.with_threads(threads.into());
    }
    open = args.remote.apply(open)?;
    let start = Instant::now();
    let source = open_many(sources, &open, &args.join.options())?;
    let options = options(args)?;
    let bar = people::progress_bar(args.quiet || args.json, Some(source.n_obs()), "cells");
    let converted = convert(&source, destination, &options, &mut |progress| {
        bar.set_message(match progress.stage {
            Stage::Sorting => "cells sorted",
            Stage::Uploading => "cells uploaded",
            _ => "cells",
        });
        bar.set_position(progress.cells);
        !interrupt::pressed()
    });
    bar.finish_and_clear();
    remote::warn(&source);
    let converted = match converted {
        Err(e) if interrupt::pressed() => {
            interrupt::check()?;
            return Err(e);
        }
        other => other?,
    };
    let elapsed = start.elapsed().as_secs_f64();
    let report =
        report(destination, converted, elapsed, source.engine().stats().snapshot().bytes_read);
    if args.json {
        return say_json(&report);
    }
    print(&report, genes(source.schema().var.n_vars, &report.n_vars_of_sources, args.join))
}

fn options(args: &ConvertArgs) -> Result<ConvertOptions> {
    let mut write = WriteOptions::default().with_overwrite(args.force);
    if let Some(codec) = &args.codec {
        write = write.with_codec(codec);
    }
    if let Some(rows) = args.chunk_rows {
        write = write.with_chunk_rows(rows);
    }
    let options =
        ConvertOptions::default().with_write(write).with_raw(!args.no_raw).with_memory(args.memory);
    let mut options = args.remote.apply_to_destination(options);
    if let Some(format) = args.format {
        options = options.with_format(format);
    }
    if let Some(folder) = &args.staging {
        options = options.with_staging(folder);
    }
    if args.shuffle {
        options = options.with_shuffle(args.seed);
    }
    if args.no_layers || !args.layers.is_empty() {
        options = options.with_layers(args.layers.clone());
    }
    if !args.obs.is_empty() {
        options = options.with_obs(args.obs.clone());
    }
    if let Some(path) = &args.genes {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::io("cannot read the list of genes", e).with("file", path.display())
        })?;
        let names: Vec<&str> = text.lines().map(str::trim).filter(|n| !n.is_empty()).collect();
        options = options.with_genes(names);
    }
    Ok(options)
}

fn report(destination: &Path, converted: Converted, elapsed: f64, read: u64) -> ConvertReport {
    let written = converted.written;
    let dropped = converted.left_out.into_iter().chain(written.dropped);
    ConvertReport {
        path: destination.to_path_buf(),
        format: converted.format.as_str(),
        n_obs: written.n_obs,
        nnz: written.nnz,
        bytes: written.bytes,
        bytes_read: read,
        seconds: elapsed,
        cells_per_second: if elapsed > 0.0 { written.n_obs as f64 / elapsed } else { 0.0 },
        cpu_seconds: usage::cpu_seconds(),
        peak_rss_bytes: usage::peak_rss_bytes(),
        dropped: dropped.map(|(path, why)| Dropped { path, why }).collect(),
        missing_genes: converted.missing_genes,
        n_vars: converted.n_vars,
        n_vars_of_sources: converted.n_vars_of_each,
    }
}

/// How many genes of several stores are there, if they had not all the same number.
fn genes(joined: u64, of: &[u64], join: JoinName) -> Option<String> {
    if of.len() < 2 || of.iter().all(|&n| n == joined) {
        return None;
    }
    let each = if of.len() <= 4 {
        let each: Vec<String> = of.iter().map(|&n| count(n)).collect();
        let (last, first) = each.split_last()?;
        format!("{} and {last}", first.join(", "))
    } else {
        let (least, most) = (of.iter().min()?, of.iter().max()?);
        format!("from {} to {}", count(*least), count(*most))
    };
    let (n, stores) = (count(joined), of.len());
    Some(match join {
        JoinName::Inner => {
            format!("{n} that all {stores} stores have, of {each}; --join outer keeps all")
        }
        JoinName::Outer => format!("{n} that any of the {stores} stores has, of {each}"),
    })
}

fn print(r: &ConvertReport, genes: Option<String>) -> Result<()> {
    say(format_args!(
        "{}: {} cells, {} non-zeros, {} ({:.2} bytes a non-zero), {}: {} cells/s",
        r.path.display(),
        count(r.n_obs),
        count(r.nnz),
        bytes(r.bytes),
        r.bytes as f64 / r.nnz.max(1) as f64,
        seconds(r.seconds),
        rate(r.cells_per_second)
    ))?;
    if let Some(genes) = genes {
        say(format_args!("  genes: {genes}"))?;
    }
    for dropped in &r.dropped {
        say(format_args!("  left behind: {}: {}", shown(&dropped.path), shown(&dropped.why)))?;
    }
    if !r.missing_genes.is_empty() {
        let some = r.missing_genes.iter().take(5).map(|name| shown(name)).collect::<Vec<_>>();
        say(format_args!(
            "  genes that were asked for and are not there: {} ({}{})",
            count(u64::try_from(r.missing_genes.len()).unwrap_or(0)),
            some.join(", "),
            if r.missing_genes.len() > some.len() { ", ..." } else { "" }
        ))?;
    }
    Ok(())
}
