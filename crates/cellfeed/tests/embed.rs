//! The facade inside someone else's program: in a tokio runtime, in several threads, and with plain
//! iteration.
#![cfg(feature = "hdf5")]
#![allow(clippy::unwrap_used)]

use cellfeed::{Digest, LoaderOptions, OpenOptions, Plan, PlanOptions, Store, Strategy};
use futures::StreamExt;
use std::path::Path;

fn store() -> Store {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/h5ad/anndata-0.12.19.h5ad");
    cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap()
}

fn loader(store: &Store) -> cellfeed::Loader {
    let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(3).with_seed(1);
    let strategy = Strategy::BlockShuffling { block_size: 2 };
    let plan = Plan::new(store.n_obs(), strategy, &options).unwrap();
    store.loader(plan, LoaderOptions::default()).unwrap()
}

fn blocking_digest() -> String {
    let mut digest = Digest::new();
    for minibatch in loader(&store()).epoch(0).unwrap() {
        digest.update(&minibatch.unwrap(), 0).unwrap();
    }
    digest.hex()
}

async fn stream_digest(loader: cellfeed::Loader) -> String {
    let mut digest = Digest::new();
    let mut stream = loader.epoch(0).unwrap().into_stream();
    while let Some(minibatch) = stream.next().await {
        digest.update(&minibatch.unwrap(), 0).unwrap();
    }
    digest.hex()
}

#[test]
fn a_tokio_runtime_of_one_thread_polls_the_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(stream_digest(loader(&store()))), blocking_digest());
}

#[test]
fn tasks_of_a_tokio_runtime_of_several_threads_share_a_store() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    let store = store();
    let tasks: Vec<_> = (0..8).map(|_| runtime.spawn(stream_digest(loader(&store)))).collect();
    let want = blocking_digest();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), want);
    }
}

#[test]
fn the_iterator_works_inside_a_runtime_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let inside = runtime.block_on(async { blocking_digest() });
    assert_eq!(inside, blocking_digest());
}
