//! Medians of the runs, as a table for people, and as CSV and JSON for records.

use crate::runs::{Run, Setting};
use crate::stores::Store;
use crate::{Args, plot};
use cellfeed::{Error, Result};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Medians of one format at one setting.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) store: usize,
    pub(crate) setting: String,
    pub(crate) cold: bool,
    pub(crate) cells_per_second: f64,
    pub(crate) slowest: f64,
    pub(crate) fastest: f64,
    cells_per_cpu_second: f64,
    bytes_read_per_cell: f64,
    /// Bytes read over the bytes that the wanted values take in this store.
    amplification: f64,
    peak_rss_bytes: f64,
    pub(crate) limit: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        _ if n.is_multiple_of(2) => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        _ => values[n / 2],
    }
}

/// One row for each format, setting and state of the cache that was run.
pub(crate) fn summarise(stores: &[Store], settings: &[Setting], runs: &[Run]) -> Vec<Row> {
    let mut rows = Vec::new();
    for cold in [false, true] {
        for (k, setting) in settings.iter().enumerate() {
            for (i, store) in stores.iter().enumerate() {
                let these: Vec<&Run> = runs
                    .iter()
                    .filter(|r| (r.turn.store, r.turn.setting, r.turn.cold) == (i, k, cold))
                    .collect();
                if these.is_empty() {
                    continue;
                }
                let of = |f: &dyn Fn(&Run) -> f64| median(these.iter().map(|r| f(r)).collect());
                let speeds = || these.iter().map(|r| r.cells_per_second);
                let limits: Vec<f64> = these.iter().filter_map(|r| r.limit).collect();
                let read = of(&|r| r.bytes_read_per_cell);
                let cells = of(&|r| r.stream["n_cells"].as_f64().unwrap_or(f64::NAN));
                rows.push(Row {
                    store: i,
                    setting: setting.name.clone(),
                    cold,
                    cells_per_second: of(&|r| r.cells_per_second),
                    slowest: speeds().fold(f64::INFINITY, f64::min),
                    fastest: speeds().fold(0.0, f64::max),
                    cells_per_cpu_second: of(&|r| r.cells_per_cpu_second),
                    bytes_read_per_cell: read,
                    amplification: read / (store.bytes as f64 / cells),
                    peak_rss_bytes: of(&|r| r.peak_rss_bytes),
                    limit: (!limits.is_empty()).then(|| median(limits)),
                });
            }
        }
    }
    rows
}

/// Prints the table.
pub(crate) fn print(stores: &[Store], rows: &[Row]) {
    println!(
        "{:14} {:>8} {:>10} {:>10} {:>7} {:>12} {:>9} {:>6} {:>8}",
        "format", "MB", "cells/s", "limit", "share", "per CPU s", "KB/cell", "ampl.", "peak MB"
    );
    let mut heading = String::new();
    for row in rows {
        let store = &stores[row.store];
        let state = if row.cold { "from disk" } else { "in the page cache" };
        let this = format!("{}, {state}", row.setting);
        if this != heading {
            println!("{this}");
            heading = this;
        }
        let limit = row.limit.map_or_else(|| "-".to_owned(), |l| format!("{l:.0}"));
        let share = row.limit.map_or_else(
            || "-".to_owned(),
            |l| format!("{:.0} %", 100.0 * row.cells_per_second / l),
        );
        println!(
            "  {:12} {:>8.0} {:>10.0} {limit:>10} {share:>7} {:>12.0} {:>9.2} {:>6.2} {:>8.0}",
            store.name,
            store.bytes as f64 / 1e6,
            row.cells_per_second,
            row.cells_per_cpu_second,
            row.bytes_read_per_cell / 1e3,
            row.amplification,
            row.peak_rss_bytes / 1e6
        );
    }
    println!();
    println!("cells/s      median over the rounds, all cores, one whole epoch from a new process");
    println!("limit        the slowest of bare reading, decoding and copying of the same bytes");
    println!("per CPU s    cells for each second of CPU time, of all threads");
    println!(
        "KB/cell      bytes read from the store for a cell; what is taken out of a map counts"
    );
    println!("ampl.        bytes read over a cell's share of the store: 1 is what must be read");
}

/// Keeps the record.
pub(crate) fn save(
    out: &Path,
    args: &Args,
    stores: &[Store],
    rows: &[Row],
    runs: &[Run],
) -> Result<()> {
    let write = |extension: &str, text: String| {
        let path = out.with_extension(extension);
        std::fs::write(&path, text)
            .map_err(|e| Error::io("cannot write", e).with("file", path.display()))
    };
    let mut csv = String::from(
        "format,setting,cold,bytes,cells_per_second,slowest,fastest,cells_per_cpu_second,\
         bytes_read_per_cell,amplification,peak_rss_bytes,limit_cells_per_second\n",
    );
    for r in rows {
        let store = &stores[r.store];
        let limit = r.limit.map_or_else(String::new, |l| format!("{l:.1}"));
        let _ = writeln!(
            csv,
            "{},{},{},{},{:.1},{:.1},{:.1},{:.1},{:.1},{:.4},{:.0},{limit}",
            store.name,
            r.setting,
            r.cold,
            store.bytes,
            r.cells_per_second,
            r.slowest,
            r.fastest,
            r.cells_per_cpu_second,
            r.bytes_read_per_cell,
            r.amplification,
            r.peak_rss_bytes
        );
    }
    write("csv", csv)?;
    let runs: Vec<_> = runs
        .iter()
        .map(|r| {
            json!({
                "format": stores[r.turn.store].name, "round": r.turn.round, "cold": r.turn.cold,
                "setting": rows_setting(rows, r), "load_before": r.load,
                "values_per_cell": r.values_per_cell,
                "stream": r.stream, "roofline": r.roofline,
            })
        })
        .collect();
    let stores_json: Vec<_> = stores
        .iter()
        .map(|s| {
            json!({"format": s.name, "bytes": s.bytes, "files": s.files.len(), "convert": s.convert})
        })
        .collect();
    let record = json!({
        "what": "one atlas in every format",
        "cells": args.cells, "genes": args.genes, "rounds": args.rounds, "seconds": args.seconds,
        // Of paths the last part: whose machine it was is nobody's business.
        "command": std::env::args()
            .skip(1)
            .filter(|a| a != "--bench")
            .map(|a| a.rsplit('/').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
            .join(" "),
        "commit": first_line(&["git", "rev-parse", "--short", "HEAD"]),
        "uncommitted_changes": first_line(&["git", "status", "--porcelain", "-uno"]) != Some(String::new()),
        "rustc": first_line(&["rustc", "--version"]),
        "cpu": cpu(), "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "stores": stores_json, "runs": runs,
    });
    let text = serde_json::to_string_pretty(&record)
        .map_err(|e| Error::internal("cannot write JSON").caused_by(e))?;
    write("json", text + "\n")?;
    write("svg", plot::draw(args.cells, args.genes, stores, rows))
}

/// The name of a run's setting: that of its row.
fn rows_setting(rows: &[Row], run: &Run) -> Option<String> {
    rows.iter()
        .filter(|row| (row.store, row.cold) == (run.turn.store, run.turn.cold))
        .nth(run.turn.setting)
        .map(|row| row.setting.clone())
}

fn first_line(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().to_owned())
}

fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
