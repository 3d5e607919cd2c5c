//! The loader: reads fetches ahead under a byte budget, gathers them into minibatches, and hands
//! these out in the plan's order.
//!
//! Each run has one thread that only coordinates; reading, decoding and gathering happen on the
//! [`Engine`]'s threads. The consumer takes minibatches by blocking (an `Iterator`) or by polling (a
//! `Stream`), inside an async runtime or without one. Dropping the run stops it.

mod fetch;
mod gather;
mod minibatch;
mod options;
mod queue;
mod share;
mod transform;

pub use minibatch::{Data, Layout, Minibatch, MinibatchParts, OutputType, X};
pub use options::LoaderOptions;
pub use transform::Transform;

use crate::backend::{Backend, ReadCost};
use crate::io::{Budget, Engine, EngineOptions, as_limit};
use crate::plan::{FetchPlan, Plan};
use crate::spans;
use crate::{Error, ErrorKind, Result, as_u64};
use fetch::{Fetch, Permits};
use futures::channel::mpsc;
use futures::future::{AbortHandle, Abortable, poll_fn};
use futures::{SinkExt, Stream, StreamExt};
use gather::Form;
use minibatch::Recycler;
use queue::Queue;
use share::Share;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use transform::Recipe;

/// Turns a store and a plan into minibatches.
///
/// ```
/// # use cellfeed_core::*;
/// # use std::sync::Arc;
/// # let var = VarSchema { n_vars: 3, ..VarSchema::default() };
/// # let x = MemoryMatrix::try_new(vec![0, 1, 2, 2], vec![0, 2], vec![1f32, 2.0], var)?;
/// # let backend: Arc<dyn Backend> =
/// #     Arc::new(MemoryBackend::try_new(3, vec![(MatrixKey::X, x)], vec![])?);
/// let options = PlanOptions::default().with_batch_size(2);
/// let plan = Plan::new(backend.schema().n_obs, Strategy::BlockShuffling { block_size: 16 }, &options)?;
/// let loader = Loader::new(backend, plan, LoaderOptions::default())?;
/// for minibatch in loader.epoch(0)? {
///     let minibatch = minibatch?;
///     assert!(minibatch.n_cells() <= 2);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Loader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    plan: Plan,
    options: LoaderOptions,
    engine: Arc<Engine>,
    recipe: Option<Arc<Recipe>>,
    /// Genes of minibatches.
    n_vars: u64,
}

impl Loader {
    /// Checks that the store has what the options ask for.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Unsupported` for the matrix or a column, naming what there is;
    /// `InvalidInput` if the plan is for another number of cells, and for a transform that makes no
    /// sense.
    pub fn new(backend: Arc<dyn Backend>, plan: Plan, options: LoaderOptions) -> Result<Self> {
        let schema = backend.schema();
        let matrix = schema.matrix(&options.matrix)?;
        if i32::try_from(matrix.n_vars()).is_err() {
            return Err(Error::unsupported(format!(
                "{} genes are more than 32-bit indices can name",
                matrix.n_vars()
            )));
        }
        for column in &options.obs {
            schema.check_obs(column)?;
        }
        if plan.n_obs() != schema.n_obs {
            return Err(Error::invalid_input(format!(
                "the plan is for {} cells, but the store has {}",
                plan.n_obs(),
                schema.n_obs
            )));
        }
        let at = |e: Error| e.with("file", &schema.location).with("element", &options.matrix);
        let recipe = options.transform.recipe(&matrix.var, options.output).map_err(at)?;
        let n_vars = recipe.as_ref().and_then(Recipe::n_vars).unwrap_or(matrix.n_vars());
        let recipe = recipe.map(Arc::new);
        let engine = options.engine.clone().unwrap_or_else(|| {
            let kept = EngineOptions::default().with_keep_bytes(options.memory / 4);
            Arc::new(Engine::new(kept))
        });
        Ok(Self(Arc::new(Inner { backend, plan, options, engine, recipe, n_vars })))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// Genes of minibatches: those of the matrix, or those that the transform chooses.
    #[must_use]
    pub fn n_vars(&self) -> u64 {
        self.0.n_vars
    }

    /// Starts an epoch. Where the plan was [resumed](Plan::resume) in it, only what is left comes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no thread can be started.
    pub fn epoch(&self, epoch: u64) -> Result<Minibatches> {
        self.epochs(epoch..epoch.saturating_add(1))
    }

    /// Starts several epochs, one after the other, reading ahead across their borders.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch).
    pub fn epochs(&self, epochs: Range<u64>) -> Result<Minibatches> {
        self.run(epochs, Share::WHOLE)
    }

    /// Starts what worker `worker` of `n_workers` has of an epoch, after the first `skip` minibatches of
    /// that: the fetches of [`Plan::worker_fetches`]. All workers together yield what
    /// [`epoch`](Self::epoch) does.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch); [`ErrorKind::InvalidInput`] for a worker that there is not.
    pub fn epoch_of_worker(
        &self,
        epoch: u64,
        worker: u64,
        n_workers: u64,
        skip: u64,
    ) -> Result<Minibatches> {
        self.plan().worker_fetches(epoch, worker, n_workers).map(drop)?;
        self.run(epoch..epoch.saturating_add(1), Share { worker, n_workers, skip })
    }

    fn run(&self, epochs: Range<u64>, share: Share) -> Result<Minibatches> {
        let inner = Arc::clone(&self.0);
        // A sixteenth of the memory for minibatches that wait; a quarter is for the buffers that
        // the engine keeps between uses; most of the rest is for fetches.
        let queue = Arc::new(Queue::new(inner.queue_bytes()));
        let (abort, registration) = AbortHandle::new_pair();
        let thread = std::thread::Builder::new().name("cellfeed-loader".to_owned()).spawn({
            let queue = Arc::clone(&queue);
            move || {
                let run = Abortable::new(inner.drive(epochs, share, &queue), registration);
                let run = AssertUnwindSafe(|| futures::executor::block_on(run));
                if catch_unwind(run).is_err() {
                    let error = Error::internal("the loader panicked; please report this");
                    futures::executor::block_on(queue.push(Err(error)));
                }
                queue.finish();
            }
        });
        let thread = thread.map_err(|e| Error::io("cannot start the loader's thread", e))?;
        Ok(Minibatches { queue, abort, thread: Some(thread), failed: false })
    }
}

/// More fetches are never read ahead, whatever the options say: memory ends before.
const MOST_AHEAD: usize = 1024;

impl Inner {
    /// Runs epochs to their end or to the first error, which ends the queue.
    async fn drive(&self, epochs: Range<u64>, share: Share, queue: &Queue) {
        let budget = Budget::new(self.options.memory / 8 * 5);
        // The fetch that is gathered, and those read ahead.
        let places = Budget::new(as_u64(self.read_ahead()) + 1);
        // One plan waits beside the one that is read.
        let (planned, plans) = mpsc::channel(0);
        let (fetched, gathered) = mpsc::channel(self.read_ahead());
        futures::join!(
            self.plan(epochs, share, planned),
            self.read(plans, &budget, &places, fetched),
            self.gather(gathered, share, queue)
        );
    }

    /// Plans fetches, one ahead of the reading, and tells the disk what comes next: it reads while the
    /// fetch before is decoded.
    async fn plan(
        &self,
        epochs: Range<u64>,
        share: Share,
        mut planned: mpsc::Sender<Result<FetchPlan>>,
    ) {
        let plan = &self.plan;
        let is_whole = |epoch| {
            plan.first_minibatch(epoch) == 0 && plan.n_fetches_of(epoch) == plan.n_fetches()
        };
        let numbers = epochs
            .map(|epoch| {
                let mut fetches = share.fetches(plan, epoch).peekable();
                let goes_on = fetches.peek().is_some() || !is_whole(epoch);
                (goes_on, fetches.map(move |fetch| (epoch, fetch)))
            })
            // Whole epochs are alike: after one of nothing, of endless epochs, comes nothing ever.
            .take_while(|(goes_on, _)| *goes_on)
            .flat_map(|(_, fetches)| fetches);
        for (i, (epoch, k)) in numbers.enumerate() {
            let plan = self.plan.clone();
            let work = move || {
                let _doing = spans::plan(epoch, k);
                plan.fetch(epoch, k)
            };
            let plan = self.engine.compute(work).await;
            if poll_fn(|cx| planned.poll_ready(cx)).await.is_err() {
                return;
            }
            let failed = plan.is_err();
            // The first is read at once.
            if let (1.., Ok(plan)) = (i, &plan) {
                self.backend.will_read(&self.options.matrix, plan.rows()).await;
            }
            if planned.send(plan).await.is_err() || failed {
                return;
            }
        }
    }

    /// Bytes of minibatches that may wait.
    fn queue_bytes(&self) -> usize {
        usize::try_from(self.options.memory / 16).unwrap_or(usize::MAX)
    }

    /// How many fetches may be read or wait: what the options say, or one, or as many as a store wants
    /// that is far away.
    fn read_ahead(&self) -> usize {
        let liked = self.backend.hints().concurrency;
        let ahead = self.options.read_ahead.unwrap_or(if liked > 2 { liked } else { 1 });
        ahead.min(MOST_AHEAD)
    }

    /// How many fetches are read at the same time. More would share the same cores and disk, and
    /// the first of them would be complete the later for it.
    fn reading(&self) -> usize {
        self.backend.hints().concurrency.clamp(1, self.read_ahead())
    }

    /// Reads fetches ahead, in order.
    async fn read(
        &self,
        plans: mpsc::Receiver<Result<FetchPlan>>,
        budget: &Budget,
        places: &Budget,
        mut fetched: mpsc::Sender<Result<Fetch>>,
    ) {
        let fetches = plans
            .then(|plan| self.admit(plan, budget, places))
            .map(|admitted| async {
                let (plan, permits) = admitted?;
                let options = &self.options;
                let (matrix, obs) = (&options.matrix, &options.obs);
                let (epoch, number, n_rows) = (plan.epoch(), plan.number(), plan.rows().n_rows());
                let read = Fetch::read(&*self.backend, matrix, obs, plan, permits, self.n_vars);
                spans::fetch(epoch, number, n_rows, read).await
            })
            .buffered(self.reading());
        let mut fetches = std::pin::pin!(fetches);
        while let Some(fetch) = fetches.next().await {
            let failed = fetch.is_err();
            if fetched.send(fetch).await.is_err() || failed {
                return;
            }
        }
    }

    /// Waits until there is a place and memory for a fetch.
    async fn admit(
        &self,
        plan: Result<FetchPlan>,
        budget: &Budget,
        places: &Budget,
    ) -> Result<(FetchPlan, Permits)> {
        let plan = plan?;
        let _waiting = spans::admit(plan.epoch(), plan.number());
        let place = places.acquire(1).await;
        let cost = self.backend.cost(&self.options.matrix, plan.rows())?;
        self.check_budget(&cost, budget.total(), plan.rows().n_rows())?;
        let memory = budget.acquire(cost.bytes_held).await;
        Ok((plan, Permits { memory, _place: place }))
    }

    fn check_budget(&self, cost: &ReadCost, budget: u64, n_rows: u64) -> Result<()> {
        if cost.bytes_held <= budget {
            return Ok(());
        }
        let needed = cost.bytes_held.saturating_add(cost.bytes_held / 5 * 3 + 8);
        let factor = self.plan.fetch_factor();
        let fits = u128::from(factor) * u128::from(budget) / u128::from(cost.bytes_held);
        let message = if fits > 0 {
            format!(
                "a fetch of {n_rows} cells needs {}, more than the memory limit of {} allows; raise the \
                 limit to {}, or lower fetch_factor from {factor} to {fits}",
                as_limit(cost.bytes_held),
                as_limit(self.options.memory),
                as_limit(needed)
            )
        } else {
            let less = match factor {
                1 => "lower batch_size".to_owned(),
                _ => format!(
                    "lower fetch_factor from {factor} to 1 and raise it to about {}",
                    as_limit(needed.div_ceil(factor))
                ),
            };
            format!(
                "even one minibatch needs more than the memory limit of {} allows; raise the limit to \
                 {}, or {less}",
                as_limit(self.options.memory),
                as_limit(needed)
            )
        };
        Err(Error::new(ErrorKind::OverBudget, message)
            .with("file", &self.backend.schema().location))
    }

    /// Gathers the minibatches of each fetch, several at once, and hands them out in order.
    async fn gather(
        &self,
        mut fetched: mpsc::Receiver<Result<Fetch>>,
        share: Share,
        queue: &Queue,
    ) {
        let (layout, output) = (self.options.layout, self.options.output);
        // What can be on its way at once: in the queue, in the tasks, and with the consumer.
        let tasks = 2 * self.engine.threads();
        let keep = self.queue_bytes().saturating_add((tasks + 1) * fetch::TASK_BYTES);
        let recycler = Arc::new(Recycler::new(output, keep));
        // The epoch, and the first of its minibatches that this run yields.
        let mut begun = None;
        while let Some(fetch) = fetched.next().await {
            let fetch = match fetch {
                Ok(fetch) => fetch,
                Err(error) => {
                    queue.push(Err(error)).await;
                    return;
                }
            };
            let recycler = &recycler;
            let n = fetch.plan.n_minibatches();
            // Those that were yielded before the run was resumed.
            let epoch = fetch.plan.epoch();
            let first = match begun {
                Some((e, first)) if e == epoch => first,
                _ => share.first(&self.plan, epoch).1,
            };
            begun = Some((epoch, first));
            let done = first.saturating_sub(fetch.plan.first_minibatch());
            let done = usize::try_from(done).unwrap_or(usize::MAX).min(n);
            let together = fetch.gathered_together(layout, output, self.engine.threads());
            // The last task has the fetch alone, so that its memory is free once that is done, and not when
            // somebody has taken its minibatches.
            let mut owner = Some(Arc::new(fetch));
            let groups = futures::stream::iter((done..n).step_by(together))
                .map(move |first| {
                    let is_last = first.saturating_add(together) >= n;
                    let fetch = if is_last { owner.take() } else { owner.clone() };
                    let (recycler, recipe) = (Arc::clone(recycler), self.recipe.clone());
                    self.engine.compute(move || {
                        let gone = || Error::internal("a fetch that was gathered before");
                        let fetch = fetch.ok_or_else(gone)?;
                        let these = first..n.min(first + together);
                        let plan = &fetch.plan;
                        let mut doing = spans::gather(plan.epoch(), plan.number(), these.len());
                        let form = Form { layout, output, recipe: recipe.as_deref() };
                        let mut buffer = recycler.take_row();
                        let gather = |j| {
                            let minibatch =
                                gather::gather(&fetch, j, form, &recycler, &mut buffer)?;
                            doing.add_bytes(queue::n_bytes(&minibatch));
                            Ok(minibatch)
                        };
                        let gather = || Ok(these.map(gather).collect::<Vec<_>>());
                        let minibatches = fetch.x.copying(gather);
                        recycler.put_row(buffer);
                        minibatches
                    })
                })
                .buffered(tasks);
            let mut groups = std::pin::pin!(groups);
            while let Some(group) = groups.next().await {
                for minibatch in group.unwrap_or_else(|e| vec![Err(e)]) {
                    let minibatch = minibatch.map_err(|e| {
                        e.with_default("file", &self.backend.schema().location)
                            .with_default("element", &self.options.matrix)
                    });
                    let failed = minibatch.is_err();
                    if !queue.push(minibatch).await || failed {
                        return;
                    }
                }
            }
        }
    }
}

/// A run of one or more epochs: a blocking iterator over minibatches, or by
/// [`into_stream`](Self::into_stream) a `Stream`. After an error it ends. Dropping it stops the
/// reading.
#[derive(Debug)]
pub struct Minibatches {
    queue: Arc<Queue>,
    abort: AbortHandle,
    thread: Option<JoinHandle<()>>,
    failed: bool,
}

impl Minibatches {
    /// How long the consumer has waited for minibatches so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.queue.waited()
    }

    /// The run as a `Stream`, for async code on any runtime.
    #[must_use]
    pub fn into_stream(self) -> MinibatchStream {
        MinibatchStream(self)
    }

    fn note(&mut self, item: Option<Result<Minibatch>>) -> Option<Result<Minibatch>> {
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl Iterator for Minibatches {
    type Item = Result<Minibatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.queue.pop_blocking();
        self.note(item)
    }
}

/// A run of one or more epochs as a `Stream`; see [`Minibatches`].
#[derive(Debug)]
pub struct MinibatchStream(Minibatches);

impl MinibatchStream {
    /// How long the consumer has waited for minibatches so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.waited()
    }
}

impl Stream for MinibatchStream {
    type Item = Result<Minibatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0.failed {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.0.queue.poll_pop(cx));
        Poll::Ready(self.0.note(item))
    }
}

impl Drop for Minibatches {
    fn drop(&mut self) {
        self.queue.close();
        self.abort.abort();
        if let Some(thread) = self.thread.take() {
            // The thread only coordinates: it ends as soon as it is woken, whatever the disk does.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
