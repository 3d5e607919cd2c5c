//! How many requests an open and a fetch take: docs/object-stores.md has these numbers.

use crate::server::{Server, write};
use cellfeed::object::simulate::{Behaviour, Counts, Simulated};
use cellfeed::{
    Digest, Format, LoaderOptions, MatrixKey, OpenOptions, Plan, PlanOptions, RowRanges, Store,
    Strategy,
};
use cellfeed_testkit::fixtures;
use futures::executor::block_on;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Stores of every format with the same 3,000 cells.
pub(crate) fn written(folder: &TempDir) -> Vec<(&'static str, PathBuf)> {
    of_seed(folder, 11)
}

/// As [`written`], with other values.
pub(crate) fn others(folder: &TempDir) -> Vec<(&'static str, PathBuf)> {
    of_seed(folder, 12)
}

fn of_seed(folder: &TempDir, seed: u64) -> Vec<(&'static str, PathBuf)> {
    let mut oracle = fixtures::oracle("cells", 3000, 200, seed);
    oracle.matrices.truncate(1);
    let formats = [
        ("h5ad", Format::H5ad, None),
        ("zarr", Format::Zarr, None),
        ("csr, plain", Format::Csr, Some("plain")),
        ("csr, packed", Format::Csr, Some("packed")),
        ("parquet", Format::Parquet, None),
    ];
    formats
        .into_iter()
        .map(|(name, format, codec)| {
            let path = folder.path().join(format!("{}.{format}", name.replace(", ", "-")));
            write(&path, &oracle, format, codec).unwrap();
            (name, path)
        })
        .collect()
}

/// The digest of an epoch, with an obs column.
pub(crate) fn digest(store: &Store) -> String {
    let options = PlanOptions::default().with_batch_size(64).with_fetch_factor(8).with_seed(3);
    let plan =
        Plan::new(store.n_obs(), Strategy::BlockShuffling { block_size: 8 }, &options).unwrap();
    let obs = store.schema().obs.iter().find(|c| c.kind.as_str() == "categorical");
    let columns: Vec<String> = obs.iter().map(|c| c.name.clone()).collect();
    let n = columns.len();
    let loader = store.loader(plan, LoaderOptions::default().with_obs(columns)).unwrap();
    let mut digest = Digest::new();
    for minibatch in loader.epoch(0).unwrap() {
        digest.update(&minibatch.unwrap(), n).unwrap();
    }
    digest.hex()
}

#[test]
fn an_epoch_is_the_same_as_from_the_disk() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    for (name, path) in written(&folder) {
        let local = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let remote = cellfeed::open(&server.put(&path), &server.options()).unwrap();
        assert_eq!(local.schema().matrices.len(), remote.schema().matrices.len());
        assert_eq!(digest(&local), digest(&remote), "{name}");
    }
}

#[test]
fn requests_of_an_open_and_of_a_fetch() {
    // Lists and requests for objects: of the opening, of a first fetch, of the same again.
    let expected = [
        ("h5ad", (0, 8), (0, 1), (0, 1)),
        ("zarr", (1, 65), (0, 4), (0, 2)),
        ("csr, plain", (1, 7), (0, 2), (0, 2)),
        ("csr, packed", (1, 8), (0, 1), (0, 1)),
        ("parquet", (0, 9), (0, 1), (0, 1)),
    ];
    let mut found = Vec::new();
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    for (name, path) in written(&folder) {
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let remote = server.remote().with_wrapper(move |store| {
            Arc::new(Simulated::new(store, Behaviour::default(), Arc::clone(&counted)))
        });
        let options = OpenOptions::default().with_remote(remote);
        let store = cellfeed::open(&server.put(&path), &options).unwrap();
        let open = (counts.lists(), counts.gets());
        counts.reset();
        let rows = RowRanges::single(100..140);
        block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap();
        let fetch = (counts.lists(), counts.gets());
        counts.reset();
        block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap();
        let again = (counts.lists(), counts.gets());
        found.push((name, open, fetch, again));
    }
    assert_eq!(found, expected);
}
