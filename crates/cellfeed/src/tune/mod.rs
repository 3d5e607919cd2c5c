//! Tuning: which sampling setting is the fastest on this store and this machine, of those that are
//! diverse enough and fit in memory.
//!
//! ```text
//! options.rs     what is tuned for, and within what
//! candidates.rs  the settings that are looked at, and their cost by the store's metadata
//! diversity.rs   their diversity: plans run over the codes of a label, no matrix read
//! session.rs     the real loader, timed at a few settings; timing.rs one run; files.rs the page cache
//! model.rs       the speed of the others, from those
//! choose.rs      the frontier, the best on it, what to time next
//! report.rs      what was found; plot.rs a picture of it
//! watch.rs       progress, cancelling, the time that is left
//! ```
//!
//! ```no_run
//! use cellfeed::tune::{Target, TuneOptions, tune};
//!
//! let options = TuneOptions::default().with_target(Target::Deff(1.5)).with_memory(2 << 30);
//! let report = tune("atlas.h5ad", "plate", &options, &mut |_progress| true)?;
//! let best = report.best();
//! println!("{}, blocks of {}, fetch factor {}", best.sampler, best.block_size, best.fetch_factor);
//! # Ok::<(), cellfeed::Error>(())
//! ```

mod candidates;
mod choose;
mod diversity;
mod files;
mod model;
mod options;
mod plot;
mod report;
mod session;
mod steps;
mod timing;
mod watch;

pub use options::{PageCache, Target, TuneOptions};
pub use plot::plot;
pub use report::{
    Candidate, Check, Diversity, Effort, LabelFacts, ModelFacts, Sampler, Speed, Theory, TuneReport,
};
pub use watch::{TuneProgress, TuneStage};

use crate::open;
use cellfeed_core::diversity::{
    LabelStructure, Labels, expected_entropy_without_replacement, shares_entropy,
};
use cellfeed_core::io::as_limit;
use cellfeed_core::{Error, ErrorKind, Result};
use files::Files;
use session::Session;
use watch::Watch;

/// Tunes sampling for a store and a label: measures, predicts, chooses, and runs what it chose.
/// `progress` is called often and ends the work by answering false. Blocks for about the time limit.
///
/// While it works the store's pages may be thrown out of the system's page cache and read into it
/// again: see [`TuneOptions::with_page_cache`].
///
/// # Errors
/// `NotFound` for a missing store, matrix or column, naming what there is; `InvalidInput` for options
/// that make no sense and a store with fewer cells than a minibatch; `OverBudget` if not even the
/// smallest setting fits in memory; what the store's reading gives; `Cancelled`.
pub fn tune(
    uri: &str,
    label: &str,
    options: &TuneOptions,
    progress: &mut dyn FnMut(TuneProgress) -> bool,
) -> Result<TuneReport> {
    options.check()?;
    if uri.contains("://") {
        return Err(Error::invalid_input(
            "tune times this machine's disk and page cache, and reads no URLs; tune a copy of the store, \
             or of a part of it, on this machine",
        )
        .with("file", uri));
    }
    let mut watch = Watch::new(progress, options.time_limit);
    watch.stage(TuneStage::Reading, 1)?;
    let store = open(uri, &options.open.clone().with_keep_bytes(options.memory / 4))?;
    let schema = store.schema();
    schema.matrix(&options.matrix)?;
    schema.check_obs(label)?;
    if schema.n_obs < options.batch_size {
        return Err(Error::invalid_input(format!(
            "{} cells fill no minibatch of {}; batch_size must be {} or less",
            schema.n_obs, options.batch_size, schema.n_obs
        ))
        .with("file", &schema.location));
    }
    let labels = Labels::read(store.backend().as_ref(), label)?;
    watch.tick()?;
    let facts = describe(label, &labels, options.batch_size);
    let settings = candidates::settings(&store, &labels, options, &mut || watch.tick())?;
    let least = settings.iter().map(|s| s.memory).min().unwrap_or(0);
    if least > options.memory {
        return Err(Error::new(
            ErrorKind::OverBudget,
            format!(
                "not even fetches of one minibatch fit in a memory limit of {}; raise it to {}, or lower \
                 batch_size",
                as_limit(options.memory),
                as_limit(least)
            ),
        )
        .with("file", &schema.location));
    }
    let files = Files::of(store.locations())?;
    let n = settings.len();
    let session = Session {
        uri,
        label,
        options,
        watch,
        files,
        settings,
        store: Some(store),
        warm: vec![Vec::new(); n],
        cold: vec![Vec::new(); n],
        effort: Effort::default(),
        epoch: 0,
    };
    session.tune(&labels, facts)
}

/// How a label lies on disk.
fn describe(column: &str, labels: &Labels, batch_size: u64) -> LabelFacts {
    let mut structure = LabelStructure::new([]);
    structure.extend(labels.codes());
    let counts = labels.counts();
    let shares: Vec<f64> = counts.iter().map(|&c| c as f64).collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    LabelFacts {
        column: column.to_owned(),
        n_labels: labels.names().len() - usize::from(labels.n_missing() > 0),
        n_missing: labels.n_missing(),
        largest_share: most as f64 / (structure.n_cells().max(1)) as f64,
        entropy: shares_entropy(&shares),
        entropy_random: expected_entropy_without_replacement(counts, batch_size),
        n_runs: structure.n_runs(),
        mean_run_of_a_cell: structure.mean_run_of_a_cell(),
        longest_run: structure.longest_run(),
    }
}
