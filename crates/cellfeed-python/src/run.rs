//! A run of minibatches.

use crate::arrays::{batch_column, lend};
use crate::errors::raise;
use crate::plan::Plan;
use crate::process::Owned;
use crate::store::Store;
use crate::wait::Signal;
use cellfeed::{Loader, LoaderOptions, Minibatch, MinibatchStream, Transform};
use futures::Stream;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// What an iterator has while it runs.
struct Running {
    stream: MinibatchStream,
    signal: Arc<Signal>,
    waker: Waker,
}

/// The minibatches of an epoch, or of a worker's share of it, in order.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Run {
    /// Locked for a moment at a time, and never while Python's lock is waited for or Python's code may
    /// run: other threads lock it with Python's lock in their hands.
    running: Owned<Mutex<Option<Running>>>,
    /// Held by the one thread that waits for a minibatch; others try it and are refused.
    turn: Mutex<()>,
    /// Nanoseconds that were waited.
    waited: AtomicU64,
    /// For each obs column, whether values may be missing.
    missing: Vec<bool>,
}

/// What a loader is to do, as Python says it.
struct Wanted<'a> {
    matrix: &'a str,
    obs: Vec<(String, bool)>,
    layout: &'a str,
    dtype: &'a str,
    memory: u64,
    read_ahead: Option<usize>,
    genes: Option<Vec<String>>,
    normalize_total: Option<f64>,
    log1p: bool,
    binarize: Option<f64>,
}

impl Wanted<'_> {
    fn loader(self, store: &Store, plan: &Plan) -> PyResult<Loader> {
        let mut transform = Transform::default();
        if let Some(genes) = self.genes {
            transform = transform.with_genes(genes);
        }
        if let Some(total) = self.normalize_total {
            transform = transform.with_normalize_total(total);
        }
        if self.log1p {
            transform = transform.with_log1p();
        }
        if let Some(threshold) = self.binarize {
            transform = transform.with_binarize(threshold);
        }
        let options = LoaderOptions::default()
            .with_matrix(self.matrix.parse().map_err(raise)?)
            .with_obs(self.obs.into_iter().map(|(column, _)| column))
            .with_layout(self.layout.parse().map_err(raise)?)
            .with_output(self.dtype.parse().map_err(raise)?)
            .with_transform(transform)
            .with_memory(self.memory)
            .with_read_ahead(self.read_ahead);
        store.get()?.loader(plan.0.clone(), options).map_err(raise)
    }
}

/// Refuses what a [`Run`] of these options would refuse; starts nothing.
#[pyfunction]
#[pyo3(signature = (store, plan, *, matrix, obs, layout, dtype, memory, read_ahead, genes,
                    normalize_total, log1p, binarize))]
pub(crate) fn check_run(
    store: &Store,
    plan: &Plan,
    matrix: &str,
    obs: Vec<(String, bool)>,
    layout: &str,
    dtype: &str,
    memory: u64,
    read_ahead: Option<usize>,
    genes: Option<Vec<String>>,
    normalize_total: Option<f64>,
    log1p: bool,
    binarize: Option<f64>,
) -> PyResult<()> {
    let wanted = Wanted {
        matrix,
        obs,
        layout,
        dtype,
        memory,
        read_ahead,
        genes,
        normalize_total,
        log1p,
        binarize,
    };
    wanted.loader(store, plan).map(drop)
}

/// `(x, rows, obs, number)`.
type Item<'py> = (Bound<'py, PyTuple>, Bound<'py, PyAny>, Bound<'py, PyList>, u64);

#[pymethods]
impl Run {
    /// Starts. `obs` has the columns, each with whether its values may be missing.
    #[new]
    #[pyo3(signature = (store, plan, *, epoch, worker, n_workers, skip, matrix, obs, layout, dtype,
                        memory, read_ahead, genes, normalize_total, log1p, binarize))]
    fn new(
        store: &Store,
        plan: &Plan,
        epoch: u64,
        worker: u64,
        n_workers: u64,
        skip: u64,
        matrix: &str,
        obs: Vec<(String, bool)>,
        layout: &str,
        dtype: &str,
        memory: u64,
        read_ahead: Option<usize>,
        genes: Option<Vec<String>>,
        normalize_total: Option<f64>,
        log1p: bool,
        binarize: Option<f64>,
    ) -> PyResult<Self> {
        let missing = obs.iter().map(|(_, missing)| *missing).collect();
        let wanted = Wanted {
            matrix,
            obs,
            layout,
            dtype,
            memory,
            read_ahead,
            genes,
            normalize_total,
            log1p,
            binarize,
        };
        let loader = wanted.loader(store, plan)?;
        let run = loader.epoch_of_worker(epoch, worker, n_workers, skip).map_err(raise)?;
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(Arc::clone(&signal));
        let running = Running { stream: run.into_stream(), signal, waker };
        let running = Owned::new(Mutex::new(Some(running)));
        Ok(Self { running, turn: Mutex::default(), waited: AtomicU64::new(0), missing })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Item<'py>>> {
        match self.advance(py)? {
            Some(minibatch) => self.item(py, minibatch).map(Some),
            None => Ok(None),
        }
    }

    /// Seconds that were waited so far, of waits that are over.
    #[getter]
    fn waited(&self) -> PyResult<f64> {
        self.running.get()?;
        Ok(Duration::from_nanos(self.waited.load(Relaxed)).as_secs_f64())
    }

    /// Ends the run and its thread; nothing more comes, also to a thread that waits.
    fn close(&self, py: Python<'_>) {
        // In a child of the process there is nothing to end.
        if let Ok(running) = self.running.get() {
            let ended = lock(running).take();
            end(py, ended);
        }
    }
}

/// The lock, which is held for a moment only.
fn lock(running: &Mutex<Option<Running>>) -> MutexGuard<'_, Option<Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops the stream, which ends its thread, and tells who waits for it.
fn end(py: Python<'_>, ended: Option<Running>) {
    if let Some(Running { stream, signal, .. }) = ended {
        py.detach(|| {
            drop(stream);
            signal.wake();
        });
    }
}

impl Run {
    /// Waits for the next minibatch.
    fn advance(&self, py: Python<'_>) -> PyResult<Option<Minibatch>> {
        let running = self.running.get()?;
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err(
                    "another thread waits for this iterator; give each thread its own",
                ));
            }
        };
        let (error, ended) = loop {
            let mut running = lock(running);
            let Some(Running { stream, signal, waker }) = running.as_mut() else {
                return Ok(None);
            };
            let polled = Pin::new(&mut *stream).poll_next(&mut Context::from_waker(waker));
            let waited = u64::try_from(stream.waited().as_nanos()).unwrap_or(u64::MAX);
            self.waited.store(waited, Relaxed);
            match polled {
                Poll::Ready(Some(Ok(minibatch))) => return Ok(Some(minibatch)),
                Poll::Ready(Some(Err(error))) => break (Some(error), running.take()),
                Poll::Ready(None) => break (None, running.take()),
                Poll::Pending => {
                    let signal = Arc::clone(signal);
                    drop(running);
                    signal.wait(py)?;
                }
            }
        };
        end(py, ended);
        error.map_or(Ok(None), |error| Err(raise(error)))
    }

    fn item<'py>(&self, py: Python<'py>, minibatch: Minibatch) -> PyResult<Item<'py>> {
        let number = minibatch.number();
        let columns = minibatch.obs().iter().zip(&self.missing);
        let columns = columns.map(|((_, array), missing)| batch_column(py, array, *missing));
        let obs = PyList::new(py, columns.collect::<PyResult<Vec<_>>>()?)?;
        let (x, rows) = lend(py, minibatch)?;
        Ok((x, rows, obs, number))
    }
}
