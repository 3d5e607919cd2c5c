//! A run of minibatches.

use crate::arrays::{batch_column, lend};
use crate::errors::raise;
use crate::plan::Plan;
use crate::process::Owned;
use crate::store::Store;
use crate::wait::Signal;
use cellfeed::{LoaderOptions, Minibatch, MinibatchStream};
use futures::Stream;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

/// What an iterator has while it runs.
struct Running {
    stream: MinibatchStream,
    signal: Arc<Signal>,
    waker: Waker,
}

/// The minibatches of an epoch, or of a worker's share of it, in order.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Run {
    running: Owned<Mutex<Option<Running>>>,
    /// For each obs column, whether values may be missing.
    missing: Vec<bool>,
}

/// `(x, rows, obs, number)`.
type Item<'py> = (Bound<'py, PyTuple>, Bound<'py, PyAny>, Bound<'py, PyList>, u64);

#[pymethods]
impl Run {
    /// Starts. `obs` has the columns, each with whether its values may be missing.
    #[new]
    #[pyo3(signature = (store, plan, *, epoch, worker, n_workers, skip, matrix, obs, layout, dtype,
                        memory, read_ahead))]
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
        read_ahead: usize,
    ) -> PyResult<Self> {
        let (columns, missing): (Vec<String>, Vec<bool>) = obs.into_iter().unzip();
        let options = LoaderOptions::default()
            .with_matrix(matrix.parse().map_err(raise)?)
            .with_obs(columns)
            .with_layout(layout.parse().map_err(raise)?)
            .with_output(dtype.parse().map_err(raise)?)
            .with_memory(memory)
            .with_read_ahead(read_ahead);
        let loader = store.get()?.loader(plan.0.clone(), options).map_err(raise)?;
        let run = loader.epoch_of_worker(epoch, worker, n_workers, skip).map_err(raise)?;
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(Arc::clone(&signal));
        let running = Running { stream: run.into_stream(), signal, waker };
        Ok(Self { running: Owned::new(Mutex::new(Some(running))), missing })
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

    /// Seconds that were waited so far.
    #[getter]
    fn waited(&self) -> PyResult<f64> {
        let running = self.running.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(running.as_ref().map_or(0.0, |r| r.stream.waited().as_secs_f64()))
    }

    /// Ends the run and its thread; nothing more comes.
    fn close(&self, py: Python<'_>) {
        // In a child of the process there is nothing to end.
        if let Ok(running) = self.running.get() {
            py.detach(|| drop(running.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }
}

impl Run {
    /// Waits for the next minibatch.
    fn advance(&self, py: Python<'_>) -> PyResult<Option<Minibatch>> {
        let mut running = match self.running.get()?.try_lock() {
            Ok(running) => running,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err(
                    "another thread waits for this iterator; give each thread its own",
                ));
            }
        };
        loop {
            let Some(Running { stream, signal, waker }) = running.as_mut() else {
                return Ok(None);
            };
            match Pin::new(stream).poll_next(&mut Context::from_waker(waker)) {
                Poll::Ready(Some(Ok(minibatch))) => return Ok(Some(minibatch)),
                Poll::Ready(Some(Err(error))) => {
                    *running = None;
                    return Err(raise(error));
                }
                Poll::Ready(None) => {
                    *running = None;
                    return Ok(None);
                }
                Poll::Pending => signal.wait(py)?,
            }
        }
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
