//! Conversion between formats, and the command line.

use crate::errors::raise;
use crate::remote::Remote;
use crate::store::Store;
use crate::work::Work;
use cellfeed::{ConvertOptions, Stage, WriteOptions};
use pyo3::prelude::*;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

/// Begins to convert. What came of it has `format`, `n_obs`, `n_vars`, `n_vars_of_each`, `nnz`, `bytes`,
/// `left_out` and `missing_genes`.
#[pyfunction]
#[pyo3(signature = (source, destination, *, format, codec, chunk_rows, shuffle, layers, raw, obs,
                    genes, memory, overwrite, staging, remote))]
pub(crate) fn convert(
    source: &Store,
    destination: PathBuf,
    format: Option<String>,
    codec: Option<String>,
    chunk_rows: Option<u64>,
    shuffle: Option<u64>,
    layers: Option<Vec<String>>,
    raw: bool,
    obs: Option<Vec<String>>,
    genes: Option<Vec<String>>,
    memory: u64,
    overwrite: bool,
    staging: Option<PathBuf>,
    remote: Remote,
) -> PyResult<Work> {
    let source = source.get()?.clone();
    let mut write = WriteOptions::default().with_overwrite(overwrite);
    if let Some(codec) = &codec {
        write = write.with_codec(codec);
    }
    if let Some(rows) = chunk_rows {
        write = write.with_chunk_rows(rows);
    }
    let options = ConvertOptions::default().with_write(write).with_raw(raw).with_memory(memory);
    let mut options = remote.apply_to_destination(options);
    if let Some(format) = format {
        options = options.with_format(format.parse().map_err(raise)?);
    }
    if let Some(seed) = shuffle {
        options = options.with_shuffle(seed);
    }
    if let Some(folder) = staging {
        options = options.with_staging(folder);
    }
    if let Some(layers) = layers {
        options = options.with_layers(layers);
    }
    if let Some(obs) = obs {
        options = options.with_obs(obs);
    }
    if let Some(genes) = genes {
        options = options.with_genes(genes);
    }
    Work::begin(move |told| {
        let total = source.n_obs();
        let done = cellfeed::convert(&source, &destination, &options, &mut |progress| {
            let doing = match progress.stage {
                Stage::Sorting => "sorting",
                Stage::Uploading => "uploading",
                _ => "",
            };
            told.tell(doing, progress.cells, total)
        })?;
        let left_out: Vec<_> = done.left_out.into_iter().chain(done.written.dropped).collect();
        Ok(json!({
            "format": done.format.as_str(),
            "n_obs": done.written.n_obs,
            "n_vars": done.n_vars,
            "n_vars_of_each": done.n_vars_of_each,
            "nnz": done.written.nnz,
            "bytes": done.written.bytes,
            "left_out": left_out,
            "missing_genes": done.missing_genes,
        }))
    })
}

/// The command `cellfeed` with these arguments; gives its exit code. Takes over Ctrl-C.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| cellfeed_cli::main_with_args(args))
}
