//! What has threads or locks behind it, and must not be touched in a process that was forked from
//! the one that made it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value of one process. A child neither uses it nor drops it: the threads that it would wait for
/// are not there, and a lock may be held by one of them for ever.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    value: Option<T>,
    process: u32,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: std::process::id() }
    }

    /// Whether this is the process that made it.
    pub(crate) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.is_here() => Ok(value),
            _ => Err(PyRuntimeError::new_err(
                "this was opened before the process was forked, and its threads are the parent's; \
                 open the store anew in this process",
            )),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}
