//! Waiting with Python's lock released, which Ctrl-C ends.

use crate::errors::raise;
use cellfeed::{Error, Result};
use futures::channel::oneshot;
use pyo3::prelude::*;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How often signals are looked at. Python's handlers run on its main thread, which is this one.
const TICK: Duration = Duration::from_millis(50);

/// Set when what is waited for is worth another look.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl Signal {
    /// Waits until the signal is set, a moment at most, and lets Python run its signal handlers.
    pub(crate) fn wait(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_timeout_while(set, TICK, |set| !*set);
            *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
        });
        py.check_signals()
    }
}

/// Waits for a future. A signal handler that raises, as that of Ctrl-C does, drops it.
pub(crate) fn block_on<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send,
) -> PyResult<T> {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = pin!(future);
    loop {
        let polled = py.detach(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
        match polled {
            Poll::Ready(answer) => return answer.map_err(raise),
            Poll::Pending => signal.wait(py)?,
        }
    }
}

/// Runs work that blocks on a thread of its own and waits for it. A signal handler that raises leaves
/// the thread to itself: its answer is dropped.
pub(crate) fn blocking<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("cellfeed-work".to_owned())
        .spawn(move || {
            let _ = sender.send(work());
        })
        .map_err(|e| raise(Error::io("cannot start a thread", e)))?;
    block_on(py, async {
        receiver.await.unwrap_or_else(|_| {
            Err(Error::internal("the work ended without an answer; please report this"))
        })
    })
}
