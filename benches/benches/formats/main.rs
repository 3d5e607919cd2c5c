//! `cargo bench -p cellfeed-benches --bench formats`: one atlas in every format, the same plans, side
//! by side.
//!
//! ```text
//! stores.rs   the atlas, and its copy in each format, made once and kept
//! runs.rs     one run of `cellfeed stream` or of the bare limits, in a process of its own
//! report.rs   medians, the table, the CSV
//! plot.rs     the SVG
//! ```
//!
//! Before anything is timed every copy must give the same minibatches: their digests are compared for
//! every strategy. Then all runs take turns in shuffled order, so that a busy moment of the machine
//! does not fall on one format alone.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod plot;
mod report;
mod runs;
mod stores;

use cellfeed::{Error, Result};
use clap::Parser;
use runs::{Run, Setting, Turn};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use stores::Store;

/// Compares the storage formats on one generated atlas.
///
/// Without options: an atlas of 50,000 cells in every format, each setting three times from the page
/// cache, and a table. It takes some minutes and 2 GB.
#[derive(Debug, Parser)]
struct Args {
    /// Cells of the atlas.
    #[arg(long, default_value_t = 50_000)]
    cells: u64,
    /// Genes of the atlas.
    #[arg(long, default_value_t = 20_000)]
    genes: u64,
    /// Where stores are made and kept between runs [default: in the build folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How often each setting is run.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only these formats, by name; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Only these settings, by name, as b16-f256; may be given several times.
    #[arg(long)]
    setting: Vec<String>,
    /// Also run with the page cache emptied of the store.
    #[arg(long)]
    cold: bool,
    /// Only run cold: for stores that are larger than the memory.
    #[arg(long)]
    only_cold: bool,
    /// Stop a run after so many seconds [default: whole epochs].
    #[arg(long)]
    seconds: Option<f64>,
    /// Do not compare digests first.
    #[arg(long)]
    no_digests: bool,
    /// Seed of the order of the runs.
    #[arg(long, default_value_t = 0)]
    order_seed: u64,
    /// Write NAME.csv, NAME.json and NAME.svg here; a relative path is one from the top of the repository.
    #[arg(long, value_name = "NAME")]
    out: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the record goes: cargo runs benchmarks in their own folder, which is not where it was called. Said
/// before anything is measured.
fn place_of_record(args: &Args) -> Result<Option<PathBuf>> {
    let Some(out) = &args.out else { return Ok(None) };
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(out);
    match out.parent() {
        Some(folder) if !folder.is_dir() => {
            Err(Error::invalid_input("--out is in a folder that is not there; make it first")
                .with("folder", folder.display()))
        }
        _ => Ok(Some(out)),
    }
}

fn run(args: &Args) -> Result<()> {
    let out = place_of_record(args)?;
    let programs = stores::Programs::build()?;
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("formats"));
    let wanted = |name: &str, list: &[String]| list.is_empty() || list.iter().any(|w| w == name);
    let stores: Vec<Store> =
        stores::make(&programs, &folder, args.cells, args.genes, &|name| wanted(name, &args.only))?;
    let settings: Vec<Setting> =
        runs::settings().into_iter().filter(|s| wanted(&s.name, &args.setting)).collect();
    if stores.is_empty() || settings.is_empty() {
        return Err(Error::invalid_input(format!(
            "nothing to run; formats are {}, settings {}",
            stores::names().join(", "),
            runs::settings().iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
        )));
    }
    if !args.no_digests {
        runs::compare_digests(&programs, &stores, &settings)?;
    }
    let mut turns = Vec::new();
    for round in 0..args.rounds {
        let mut these = Vec::new();
        for store in 0..stores.len() {
            for setting in 0..settings.len() {
                for cold in [false, true] {
                    if (cold && (args.cold || args.only_cold)) || (!cold && !args.only_cold) {
                        these.push(Turn { round, store, setting, cold });
                    }
                }
            }
        }
        runs::shuffle(&mut these, args.order_seed + u64::from(round));
        turns.extend(these);
    }
    let mut done: Vec<Run> = Vec::with_capacity(turns.len());
    for (i, turn) in turns.iter().enumerate() {
        let (store, setting) = (&stores[turn.store], &settings[turn.setting]);
        let run = runs::measure(&programs, store, setting, *turn, args.seconds)?;
        eprintln!(
            "{:3}/{} {:14} {:16} {}: {:>9.0} cells/s (load {:.1})",
            i + 1,
            turns.len(),
            store.name,
            setting.name,
            if turn.cold { "cold" } else { "warm" },
            run.cells_per_second,
            run.load
        );
        done.push(run);
    }
    let summary = report::summarise(&stores, &settings, &done);
    report::print(&stores, &summary);
    if let Some(out) = &out {
        report::save(out, args, &stores, &summary, &done)?;
    }
    Ok(())
}
