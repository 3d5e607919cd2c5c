//! That minibatches come in memory which was used before: alone in its process, since it counts.
#![allow(clippy::unwrap_used)]

use cellfeed_core::io::{Engine, EngineOptions};
use cellfeed_core::{
    Backend, Layout, Loader, LoaderOptions, MatrixKey, MemoryBackend, MemoryMatrix, Plan,
    PlanOptions, Strategy, VarSchema,
};
use cellfeed_testkit::PeakAlloc;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CELLS: u64 = 4096;
const NONZEROS: u32 = 256;
const BATCH: u64 = 64;
const MEMORY: u64 = 32 << 20;
const THREADS: usize = 2;

/// Every row as long as the others, so that every minibatch fits the memory of another.
fn store() -> Arc<dyn Backend> {
    let var = VarSchema { n_vars: 1024, ..VarSchema::default() };
    let indptr = (0..=CELLS).map(|i| i * u64::from(NONZEROS)).collect();
    let genes: Vec<u32> = (0..CELLS).flat_map(|_| (0..NONZEROS).map(|g| 4 * g)).collect();
    let values = vec![1f32; genes.len()];
    let x = MemoryMatrix::try_new(indptr, genes, values, var).unwrap();
    Arc::new(MemoryBackend::try_new(CELLS, vec![(MatrixKey::X, x)], vec![]).unwrap())
}

#[test]
fn a_warm_loader_allocates_nothing_for_a_minibatch() {
    let store = store();
    for (layout, per_minibatch) in [(Layout::Csr, 2), (Layout::Dense, 1)] {
        for wait in [Duration::ZERO, Duration::from_micros(200)] {
            let options = PlanOptions::default().with_batch_size(BATCH).with_fetch_factor(16);
            let strategy = Strategy::BlockShuffling { block_size: 16 };
            let plan = Plan::new(CELLS, strategy, &options).unwrap();
            let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(THREADS)));
            let options = LoaderOptions::default()
                .with_memory(MEMORY)
                .with_layout(layout)
                .with_engine(engine);
            let loader = Loader::new(Arc::clone(&store), plan, options).unwrap();
            let before = PeakAlloc::large();
            let mut n = 0;
            for minibatch in loader.epochs(0..20).unwrap() {
                minibatch.unwrap();
                n += 1;
                // Of a consumer that takes its time the loader runs ahead.
                std::thread::sleep(wait);
            }
            assert_eq!(n, 20 * CELLS / BATCH);
            // The queue takes a sixteenth of the memory, of at least 64 * 256 * 8 bytes each; four
            // tasks and one that waits have two minibatches each; the consumer has one.
            let on_their_way = (MEMORY / 16) as usize / (64 * 256 * 8) + 1 + 5 * 2 + 1;
            let allocated = PeakAlloc::large() - before;
            assert!(
                allocated <= per_minibatch * on_their_way,
                "{allocated} for {n} minibatches, {layout:?}, a consumer of {wait:?}"
            );
        }
    }
}
