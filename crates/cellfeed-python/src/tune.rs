//! Which sampling is the fastest that is diverse enough, on this machine.

use crate::errors::raise;
use crate::remote::Remote;
use crate::work::Work;
use cellfeed::tune::{PageCache, Target, TuneOptions, plot};
use cellfeed::{Error, OpenOptions};
use pyo3::prelude::*;
use serde_json::json;
use std::time::Duration;

/// Begins to tune. What came of it has what `cellfeed tune --json` prints as `report`, and a drawing as
/// `svg`.
#[pyfunction]
#[pyo3(signature = (path, label, *, target_deff, target_entropy, matrix, batch_size, layout, dtype,
                    memory, window, seed, time_limit, page_cache, threads, remote))]
pub(crate) fn tune(
    path: String,
    label: String,
    target_deff: f64,
    target_entropy: Option<f64>,
    matrix: &str,
    batch_size: u64,
    layout: &str,
    dtype: &str,
    memory: u64,
    window: u64,
    seed: u64,
    time_limit: f64,
    page_cache: &str,
    threads: Option<usize>,
    remote: Remote,
) -> PyResult<Work> {
    let limit = Duration::try_from_secs_f64(time_limit).map_err(|_| {
        raise(Error::invalid_input("time_limit must be a positive number of seconds"))
    })?;
    let mut open = remote.apply(OpenOptions::default());
    if let Some(threads) = threads {
        open = open.with_threads(threads);
    }
    let mut options = TuneOptions::default()
        .with_target(target_entropy.map_or(Target::Deff(target_deff), Target::Entropy))
        .with_matrix(matrix.parse().map_err(raise)?)
        .with_batch_size(batch_size)
        .with_layout(layout.parse().map_err(raise)?)
        .with_output(dtype.parse().map_err(raise)?)
        .with_memory(memory)
        .with_window(window)
        .with_seed(seed)
        .with_time_limit(limit)
        .with_open(open);
    match page_cache {
        "warm" => options = options.with_page_cache(PageCache::Warm),
        "cold" => options = options.with_page_cache(PageCache::Cold),
        _ => {}
    }
    Work::begin(move |told| {
        let report = cellfeed::tune::tune(&path, &label, &options, &mut |progress| {
            told.tell(cellfeed_cli::tune_stage(progress.stage), progress.done, progress.total)
        })?;
        Ok(json!({ "report": cellfeed_cli::tune_json(&report), "svg": plot(&report) }))
    })
}
