//! The queue between the loader's thread and its consumer, who may wait by blocking or by polling.
//!
//! It is bounded in bytes, so that minibatches wait ready while memory allows, and it counts how
//! long its consumer had to wait.

use super::minibatch::{Data, Minibatch, X};
use crate::Result;
use crate::spans::{self, Interval};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<(Result<Minibatch>, usize)>,
    bytes: usize,
    closed: bool,
    finished: bool,
    producer: Option<Waker>,
    consumer: Option<Waker>,
    /// When the polling consumer began to wait.
    since: Option<(Instant, Interval)>,
    waited: Duration,
}

impl Queue {
    /// A queue that takes minibatches while fewer than `limit` bytes wait in it.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), filled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then appends; false if the consumer has gone.
    pub(super) async fn push(&self, item: Result<Minibatch>) -> bool {
        let bytes = item.as_ref().map_or(0, n_bytes);
        let mut item = Some(item);
        let mut waiting = None;
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(false);
            }
            // One is always let in, however large.
            if state.bytes > 0 && state.bytes + bytes > self.limit {
                state.producer = Some(cx.waker().clone());
                waiting.get_or_insert_with(spans::full);
                return Poll::Pending;
            }
            if let Some(item) = item.take() {
                state.items.push_back((item, bytes));
                state.bytes += bytes;
            }
            self.wake_consumer(state);
            Poll::Ready(true)
        })
        .await
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        self.wake_consumer(state);
    }

    fn wake_consumer(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.consumer.take();
        drop(state);
        self.filled.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The consumer goes: nothing more is taken, what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        let waker = state.producer.take();
        drop(state);
        drop(items);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for the next item on the calling thread.
    pub(super) fn pop_blocking(&self) -> Option<Result<Minibatch>> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.finished {
            let _waiting = spans::wait();
            let start = Instant::now();
            while state.items.is_empty() && !state.finished {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waited += start.elapsed();
        }
        self.take(state)
    }

    /// Polls for the next item.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Minibatch>>> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.finished {
            state.consumer = Some(cx.waker().clone());
            state.since.get_or_insert_with(|| (Instant::now(), spans::wait_polling()));
            return Poll::Pending;
        }
        if let Some((since, _)) = state.since.take() {
            state.waited += since.elapsed();
        }
        Poll::Ready(self.take(state))
    }

    fn take(&self, mut state: MutexGuard<'_, State>) -> Option<Result<Minibatch>> {
        let (item, bytes) = state.items.pop_front()?;
        state.bytes -= bytes;
        // Not for each one that is taken: the kernel may let the thread that is woken go first, on the
        // consumer's core.
        let waker = if state.bytes <= self.limit / 2 { state.producer.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(item)
    }

    /// How long the consumer has waited.
    pub(super) fn waited(&self) -> Duration {
        self.lock().waited
    }
}

/// Bytes of a minibatch, without its obs values.
pub(super) fn n_bytes(minibatch: &Minibatch) -> usize {
    let values = |data: &Data| data.len() * data.output_type().size();
    let x = match minibatch.x() {
        X::Csr { indptr, indices, data } => (indptr.len() + indices.len()) * 4 + values(data),
        X::Dense { data } => values(data),
    };
    x + minibatch.rows().len() * 8
}
