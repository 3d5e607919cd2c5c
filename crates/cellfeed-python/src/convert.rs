//! Conversion between formats, and the command line.

use crate::errors::raise;
use crate::store::Store;
use crate::wait::Signal;
use cellfeed::{ConvertOptions, Converted, Error, Result, Stage, WriteOptions};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread::JoinHandle;

/// What the thread that converts and the one that waits have in common.
#[derive(Debug, Default)]
struct Shared {
    cells: AtomicU64,
    sorting: AtomicBool,
    given_up: AtomicBool,
    signal: Arc<Signal>,
}

/// A conversion on a thread of its own.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Conversion {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<Converted>>>>,
}

#[pymethods]
impl Conversion {
    /// Begins.
    #[new]
    #[pyo3(signature = (source, destination, *, format, codec, chunk_rows, shuffle, layers, raw, obs,
                        genes, memory, overwrite))]
    fn new(
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
    ) -> PyResult<Self> {
        let source = source.get()?.clone();
        let mut write = WriteOptions::default().with_overwrite(overwrite);
        if let Some(codec) = &codec {
            write = write.with_codec(codec);
        }
        if let Some(rows) = chunk_rows {
            write = write.with_chunk_rows(rows);
        }
        let mut options =
            ConvertOptions::default().with_write(write).with_raw(raw).with_memory(memory);
        if let Some(format) = format {
            options = options.with_format(format.parse().map_err(raise)?);
        }
        if let Some(seed) = shuffle {
            options = options.with_shuffle(seed);
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
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("cellfeed-convert".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&source, &destination, &options, &shared)
        });
        let thread = thread.map_err(|e| raise(Error::io("cannot start a thread", e)))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Cells that are done, and whether they are being sorted.
    #[getter]
    fn progress(&self) -> (u64, bool) {
        (self.shared.cells.load(Relaxed), self.shared.sorting.load(Relaxed))
    }

    /// Waits a moment; true once it has ended. A signal handler that raises does so here.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        let ended = || {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().is_none_or(JoinHandle::is_finished)
        };
        if !ended() {
            self.shared.signal.wait(py)?;
        }
        Ok(ended())
    }

    /// Ends it before its end: what was written is removed when this returns.
    fn give_up(&self, py: Python<'_>) {
        self.shared.given_up.store(true, Relaxed);
        let _ = self.join(py);
    }

    /// What was done.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let converted = self.join(py).map_err(raise)?;
        let out = PyDict::new(py);
        out.set_item("format", converted.format.as_str())?;
        out.set_item("n_obs", converted.written.n_obs)?;
        out.set_item("nnz", converted.written.nnz)?;
        out.set_item("bytes", converted.written.bytes)?;
        let left: Vec<_> =
            converted.left_out.into_iter().chain(converted.written.dropped).collect();
        out.set_item("left_out", left)?;
        out.set_item("missing_genes", converted.missing_genes)?;
        Ok(out)
    }
}

impl Conversion {
    fn join(&self, py: Python<'_>) -> Result<Converted> {
        py.detach(|| {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            let thread = thread.take().ok_or_else(Error::cancelled)?;
            let panicked = |_| Error::internal("the conversion panicked; please report this");
            thread.join().map_err(panicked)?
        })
    }
}

fn run(
    source: &cellfeed::Store,
    destination: &Path,
    options: &ConvertOptions,
    shared: &Shared,
) -> Result<Converted> {
    let converted = cellfeed::convert(source, destination, options, &mut |progress| {
        shared.cells.store(progress.cells, Relaxed);
        shared.sorting.store(progress.stage == Stage::Sorting, Relaxed);
        Arc::clone(&shared.signal).wake();
        !shared.given_up.load(Relaxed)
    });
    Arc::clone(&shared.signal).wake();
    converted
}

/// The command `cellfeed` with these arguments; gives its exit code. Takes over Ctrl-C.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| cellfeed_cli::main_with_args(args))
}
