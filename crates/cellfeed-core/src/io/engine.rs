//! Threads, buffers and counters, shared by the stores and loaders that belong together.

use super::{BufferPool, ReadStats};
use crate::spans::Origin;
use crate::{Error, Result};
use futures::channel::oneshot;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// How many threads, and how much memory is kept between uses.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    threads: usize,
    keep_bytes: u64,
}

impl Default for EngineOptions {
    /// One thread per core; 256 MiB of buffers kept: a quarter of a loader's default memory.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, keep_bytes: 256 << 20 }
    }
}

impl EngineOptions {
    /// Threads that decode and gather. As many again, at most eight, wait for the disk.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Bytes of unused buffers that may be kept.
    #[must_use]
    pub fn with_keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = bytes;
        self
    }
}

/// Threads, pooled buffers and read statistics. Stores and loaders that work together share one;
/// nothing in Cellfeed is global.
///
/// Threads start when they are first needed and end when the engine is dropped.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    compute: OnceLock<ThreadPool>,
    io: OnceLock<ThreadPool>,
    buffers: BufferPool,
    stats: Arc<ReadStats>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(EngineOptions::default())
    }
}

impl Engine {
    /// An engine with no threads yet.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let buffers = BufferPool::new(options.keep_bytes);
        Self {
            options,
            compute: OnceLock::new(),
            io: OnceLock::new(),
            buffers,
            stats: Arc::default(),
        }
    }

    /// Threads that decode and gather.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    /// The buffer pool.
    #[must_use]
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// What was read and decoded so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<ReadStats> {
        &self.stats
    }

    /// Runs work on the compute threads. Inside it, rayon's parallel iterators use those threads.
    /// If the future is dropped before the work has started, the work is not done.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the work panicked or the threads
    /// cannot be started; else what the work returns.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        run(pool(&self.compute, "cellfeed", self.options.threads)?, work).await
    }

    /// Runs blocking reads on the I/O threads.
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        run(pool(&self.io, "cellfeed-io", self.options.threads.min(8))?, work).await
    }
}

fn pool<'a>(
    slot: &'a OnceLock<ThreadPool>,
    name: &'static str,
    threads: usize,
) -> Result<&'a ThreadPool> {
    if let Some(pool) = slot.get() {
        return Ok(pool);
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        .build()
        .map_err(|e| Error::internal("cannot start threads").caused_by(e))?;
    Ok(slot.get_or_init(|| pool))
}

async fn run<T: Send + 'static>(
    pool: &ThreadPool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let origin = Origin::here();
    pool.spawn(move || {
        if sender.is_canceled() {
            return;
        }
        // A panic must reach whoever waits, not end the process as rayon would have it.
        let answer =
            catch_unwind(AssertUnwindSafe(|| origin.carry(work))).unwrap_or_else(|panic| {
                let what = panic
                    .downcast_ref::<&str>()
                    .map(|s| (*s).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned());
                Err(Error::internal(format!("a worker panicked: {what}; please report this")))
            });
        // Whoever waits may end a trace at once, and spans end when nobody has them.
        drop(origin);
        let _ = sender.send(answer);
    });
    receiver.await.unwrap_or_else(|_| Err(Error::internal("a worker ended without an answer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use futures::executor::block_on;
    use rayon::prelude::*;

    #[test]
    fn work_runs_elsewhere_and_panics_come_back_as_errors() {
        let engine = Engine::new(EngineOptions::default().with_threads(2));
        let here = std::thread::current().id();
        let there = block_on(engine.compute(|| Ok(std::thread::current().id()))).unwrap();
        assert_ne!(here, there);
        let width =
            block_on(engine.compute(|| {
                Ok((0..64).into_par_iter().map(|_| rayon::current_num_threads()).max())
            }));
        assert_eq!(width.unwrap(), Some(2));
        let error = block_on(engine.blocking::<()>(|| panic!("boom"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("boom"));
        assert_eq!(block_on(engine.blocking(|| Ok(5))).unwrap(), 5);
    }
}
