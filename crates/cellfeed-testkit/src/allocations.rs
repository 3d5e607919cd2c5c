//! How often a loader asks for memory, for each minibatch.

use crate::peak::PeakAlloc;
use cellfeed_core::io::{Engine, EngineOptions};
use cellfeed_core::{Backend, Error, Loader, LoaderOptions, Plan, PlanOptions, Result, Strategy};
use std::sync::Arc;

/// Cells of a fetch.
const FETCH: u64 = 2048;
/// Epochs after which vectors and buffers are what they will be, and those that are counted.
const WARM: u64 = 4;
const COUNTED: u64 = 4;

/// What a minibatch more costs, where the fetches stay as they are.
#[derive(Debug, Clone, Copy)]
pub struct Allocations {
    /// How often memory is asked for, growth included.
    pub calls: f64,
    /// How many bytes.
    pub bytes: f64,
    /// Values of a minibatch.
    pub values: f64,
}

impl Allocations {
    /// Streams a store with minibatches of 8 and of 32 cells out of the same fetches: the difference is
    /// that of three quarters of the minibatches. [`PeakAlloc`] must be installed, and nothing else may
    /// run in the process.
    ///
    /// # Errors
    /// Those of the loader; `InvalidInput` if the allocator is not installed, or the store is smaller
    /// than two fetches of 2048 cells.
    pub fn per_minibatch(backend: &Arc<dyn Backend>, options: &LoaderOptions) -> Result<Self> {
        if !PeakAlloc::is_installed() || backend.schema().n_obs < 2 * FETCH {
            return Err(Error::invalid_input(
                "no counting allocator, or fewer cells than two fetches",
            ));
        }
        let [small, large] = [8, 32].map(|batch_size| count(backend, options, batch_size));
        let (small, large) = (small?, large?);
        let more = small.minibatches - large.minibatches;
        Ok(Self {
            calls: (small.calls - large.calls) / more,
            bytes: (small.bytes - large.bytes) / more,
            values: small.values / small.minibatches,
        })
    }
}

struct Counted {
    calls: f64,
    bytes: f64,
    minibatches: f64,
    values: f64,
}

fn count(backend: &Arc<dyn Backend>, options: &LoaderOptions, batch_size: u64) -> Result<Counted> {
    let plan = PlanOptions::default()
        .with_batch_size(batch_size)
        .with_fetch_factor(FETCH / batch_size)
        .with_drop_last(true);
    let strategy = Strategy::BlockShuffling { block_size: 16 };
    let plan = Plan::new(backend.schema().n_obs, strategy, &plan)?;
    let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(1)));
    let loader = Loader::new(Arc::clone(backend), plan, options.clone().with_engine(engine))?;
    let mut begun = None;
    let (mut minibatches, mut values) = (0usize, 0usize);
    for minibatch in loader.epochs(0..WARM + COUNTED)? {
        let minibatch = minibatch?;
        if minibatch.epoch() >= WARM {
            begun.get_or_insert_with(PeakAlloc::asked);
            minibatches += 1;
            values += minibatch.x().data().len();
        }
    }
    let ((calls, bytes), (calls_before, bytes_before)) =
        (PeakAlloc::asked(), begun.unwrap_or_default());
    Ok(Counted {
        calls: (calls - calls_before) as f64,
        bytes: (bytes - bytes_before) as f64,
        minibatches: minibatches as f64,
        values: values as f64,
    })
}
