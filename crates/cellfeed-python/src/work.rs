//! Work on a thread of its own, whose progress is told, and which Ctrl-C ends.

use crate::errors::raise;
use crate::wait::Signal;
use cellfeed::{Error, Result};
use pyo3::prelude::*;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::Wake;
use std::thread::JoinHandle;

/// What the thread that works and the one that waits have in common.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// What is being done, and how much of it.
    now: Mutex<(&'static str, u64, u64)>,
    given_up: AtomicBool,
    signal: Arc<Signal>,
}

impl Told {
    /// Says how far the work is; false if it is to end.
    pub(crate) fn tell(&self, doing: &'static str, done: u64, total: u64) -> bool {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = (doing, done, total);
        Arc::clone(&self.signal).wake();
        !self.given_up.load(Relaxed)
    }
}

/// Work that goes on.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Work {
    told: Arc<Told>,
    /// Locked until the thread has ended by who waits for its end: with Python's lock it may only be
    /// tried.
    thread: Mutex<Option<JoinHandle<Result<Value>>>>,
}

impl Work {
    /// Begins it.
    pub(crate) fn begin(
        work: impl FnOnce(&Told) -> Result<Value> + Send + 'static,
    ) -> PyResult<Self> {
        let told = Arc::new(Told::default());
        let thread = std::thread::Builder::new().name("cellfeed-work".to_owned()).spawn({
            let told = Arc::clone(&told);
            move || {
                let answer = work(&told);
                Arc::clone(&told.signal).wake();
                answer
            }
        });
        let thread = thread.map_err(|e| raise(Error::io("cannot start a thread", e)))?;
        Ok(Self { told, thread: Mutex::new(Some(thread)) })
    }

    fn join(&self, py: Python<'_>) -> Result<Value> {
        py.detach(|| {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            let thread = thread.take().ok_or_else(Error::cancelled)?;
            let panicked = |_| Error::internal("the work panicked; please report this");
            thread.join().map_err(panicked)?
        })
    }
}

#[pymethods]
impl Work {
    /// What is being done, how much of it is done, and how much there is.
    #[getter]
    fn progress(&self) -> (&'static str, u64, u64) {
        *self.told.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a moment; true once it has ended. A signal handler that raises does so here.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        let ended = || match self.thread.try_lock() {
            Ok(thread) => thread.as_ref().is_none_or(JoinHandle::is_finished),
            Err(TryLockError::Poisoned(poisoned)) => {
                poisoned.into_inner().as_ref().is_none_or(JoinHandle::is_finished)
            }
            // Another thread waits for its end.
            Err(TryLockError::WouldBlock) => false,
        };
        if !ended() {
            self.told.signal.wait(py)?;
        }
        Ok(ended())
    }

    /// Ends it before its end. When this returns its thread has ended, and what it wrote is removed.
    fn give_up(&self, py: Python<'_>) {
        self.told.given_up.store(true, Relaxed);
        let _ = self.join(py);
    }

    /// What came of it, as JSON.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        self.join(py).map(|answer| answer.to_string()).map_err(raise)
    }
}
