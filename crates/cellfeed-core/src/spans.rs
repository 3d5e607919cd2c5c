//! What a run does, as spans of the crate `tracing`: for whoever subscribes, else nearly free.
//!
//! All names and fields are made here, and told in `docs/tracing.md`. Every span has the target
//! [`TARGET`] and the level `DEBUG`. There are two kinds. Most are work, or a wait, of one thread, which
//! enters them once. Those of [`is_interval`] are stretches of time on no thread: from creation to close,
//! however often they are entered between.

use std::future::Future;
use tracing::span::EnteredSpan;
use tracing::{Instrument, Span, debug_span};

/// The target of all spans.
pub const TARGET: &str = "cellfeed";

/// Whether spans of this name are stretches of time rather than the work of one thread.
#[must_use]
pub fn is_interval(name: &str) -> bool {
    matches!(name, "fetch" | "admit" | "full" | "request")
}

/// Where work was ordered, so that what other threads do for it is found below it.
#[derive(Debug, Clone)]
pub struct Origin(Span);

/// The work of one thread, until dropped.
#[derive(Debug)]
pub struct Doing {
    span: EnteredSpan,
    bytes: u64,
}

/// A stretch of time, until dropped.
#[derive(Debug)]
pub struct Interval(#[allow(dead_code)] Span); // lives, and that is all

impl Origin {
    /// The work that this thread, or task, is part of.
    #[must_use]
    pub fn here() -> Self {
        Self(Span::current())
    }

    /// Does work on another thread as part of what ordered it.
    pub fn carry<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.in_scope(work)
    }

    /// Reading from a file of this machine.
    #[must_use]
    pub fn read(&self, file: &str) -> Doing {
        Doing::new(
            debug_span!(target: TARGET, parent: &self.0, "read", file, bytes = tracing::field::Empty),
        )
    }

    /// Turning stored bytes of an array, or a file, into values.
    #[must_use]
    pub fn decode(&self, what: &str) -> Doing {
        Doing::new(
            debug_span!(target: TARGET, parent: &self.0, "decode", what, bytes = tracing::field::Empty),
        )
    }

    /// Looking whether the gene indices of decoded rows are in order.
    #[must_use]
    pub(crate) fn check(&self) -> Doing {
        Doing::new(debug_span!(target: TARGET, parent: &self.0, "check"))
    }

    /// A request for bytes of an object, from the first attempt to the last answer.
    #[must_use]
    pub fn request(&self, file: &str, bytes: u64) -> Interval {
        Interval(debug_span!(target: TARGET, parent: &self.0, "request", file, bytes))
    }
}

impl Doing {
    fn new(span: Span) -> Self {
        Self { span: span.entered(), bytes: 0 }
    }

    /// Adds bytes that were read, or that decoding produced.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes += crate::as_u64(bytes);
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.span.record("bytes", self.bytes);
        }
    }
}

/// Planning a fetch.
pub(crate) fn plan(epoch: u64, fetch: u64) -> Doing {
    Doing::new(debug_span!(target: TARGET, "plan", epoch, fetch))
}

/// A fetch on its way: all its reading and decoding, and the waits between.
pub(crate) fn fetch<F: Future>(
    epoch: u64,
    fetch: u64,
    rows: u64,
    work: F,
) -> impl Future<Output = F::Output> {
    work.instrument(debug_span!(target: TARGET, "fetch", epoch, fetch, rows))
}

/// A fetch that waits for a place and for memory.
pub(crate) fn admit(epoch: u64, fetch: u64) -> Interval {
    Interval(debug_span!(target: TARGET, "admit", epoch, fetch))
}

/// Gathering minibatches of a fetch.
pub(crate) fn gather(epoch: u64, fetch: u64, minibatches: usize) -> Doing {
    Doing::new(
        debug_span!(target: TARGET, "gather", epoch, fetch, minibatches, bytes = tracing::field::Empty),
    )
}

/// A finished minibatch that waits until the consumer has taken others.
pub(crate) fn full() -> Interval {
    Interval(debug_span!(target: TARGET, "full"))
}

/// A consumer that waits, by blocking, for the next minibatch.
pub(crate) fn wait() -> Doing {
    Doing::new(debug_span!(target: TARGET, "wait"))
}

/// A consumer that waits, by polling, for the next minibatch.
pub(crate) fn wait_polling() -> Interval {
    Interval(debug_span!(target: TARGET, "wait"))
}
