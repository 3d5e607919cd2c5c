//! The eight laws, on stores of Python anndata; every store of testdata against its oracle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, Error, ErrorKind, MatrixKey, Result};
use cellfeed_testkit::{Limits, Oracle, PeakAlloc, Subject, check_oracle, conformance};
use cellfeed_zarr::{ZarrBackend, ZarrOptions, looks_like};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(ZarrBackend::open(path, Arc::new(Engine::default()), &ZarrOptions::default())?))
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/zarr")
}

fn store(stem: &str) -> (PathBuf, Oracle) {
    let oracle = Oracle::load(&data().join(format!("{stem}.oracle.json"))).unwrap();
    (data().join(format!("{stem}.zarr")), oracle)
}

/// A store that law 7 damages some hundreds of times, copying all of its files each time.
fn damaged(stem: &str) -> Subject {
    let (path, oracle) = store(stem);
    let limits = Limits { damages: 100, ..Limits::default() };
    Subject::on_disk(&path, oracle, open).unwrap().with_limits(limits)
}

fn whole(stem: &str) -> Subject {
    let (path, oracle) = store(stem);
    Subject::new(open(&path).unwrap(), oracle)
}

/// Stores of different ages, sharded and not, and a collection.
fn by_anndata() -> Vec<Subject> {
    let mut all = ["anndata-0.10.9-v2", "annbatch-collection"].map(damaged).to_vec();
    all.extend(["anndata-0.7.8-v2", "anndata-0.12.19-v3-sharded", "anndata-0.13.4-v3"].map(whole));
    all
}

/// What anndata may be told to write: each codec, dense, and shards of other forms.
fn by_hand() -> Vec<Subject> {
    let mut all =
        ["v3-codecs", "v3-csr-sharded-index-at-start", "v3-dense-chunks", "v2-obs-structured"]
            .map(damaged)
            .to_vec();
    all.extend(
        [
            "v3-codecs-sharded",
            "v3-csr-chunks",
            "v3-csr-sharded-index-without-crc",
            "v3-csr-unsorted-rows",
            "v3-csc-sharded",
            "v3-dense-sharded",
        ]
        .map(whole),
    );
    all
}

conformance!(stores_of_anndata, by_anndata);
conformance!(stores_by_hand, by_hand);

#[test]
fn every_store_of_testdata_agrees_with_its_oracle() {
    let mut problems = String::new();
    let mut agree = 0;
    for (stem, oracle) in Oracle::load_below(&data()).unwrap() {
        let path = PathBuf::from(format!("{}.zarr", stem.display()));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(looks_like(&path), "{name}");
        if name == "consolidated-stale" {
            // The column is listed as unreadable, and the rest is read.
            let backend = open(&path).unwrap();
            assert!(block_on(backend.read_all_rows(&MatrixKey::X)).is_ok());
            assert!(block_on(backend.read_obs_column("depth")).is_err());
            continue;
        }
        if ["shard-missing-data", "v3-csr-explicit-zeros-not-written"].contains(&name.as_str()) {
            // Zarr calls it zeros; it is more likely lost, and so refused with a remedy.
            let backend = open(&path).unwrap();
            let error = block_on(backend.read_all_rows(&MatrixKey::X)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            continue;
        }
        match open(&path).map(|b| check_oracle(b.as_ref(), &oracle)) {
            Ok(Ok(())) => agree += 1,
            Ok(Err(v)) => problems += &format!("\n{name}: {v}"),
            Err(e) => problems += &format!("\n{name}: {e}"),
        }
    }
    assert!(problems.is_empty(), "{agree} agree; {problems}");
    assert!(agree >= 40, "only {agree} agree");
}

#[test]
fn every_bad_store_is_refused() {
    let text = std::fs::read_to_string(data().join("bad/expected.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut accepted = Vec::new();
    for name in expected.keys() {
        match refusal(&data().join("bad").join(name)) {
            None => accepted.push(name.clone()),
            Some(error) => {
                let text = error.to_string();
                assert!(text.contains(name.as_str()), "{name}: the store is not named: {text}");
                assert_ne!(error.kind(), ErrorKind::Internal, "{name}: {text}");
            }
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}

/// The error of opening the store, finding or reading a matrix, or reading a column.
fn refusal(path: &Path) -> Option<Error> {
    let backend = match open(path) {
        Ok(backend) => backend,
        Err(e) => return Some(e),
    };
    let schema = backend.schema();
    let mut keys: Vec<MatrixKey> = schema.matrices.iter().map(|m| m.key.clone()).collect();
    keys.insert(0, MatrixKey::X);
    let rows = keys.iter().find_map(|key| block_on(backend.read_all_rows(key)).err());
    rows.or_else(|| {
        schema.obs.iter().find_map(|c| block_on(backend.read_obs_column(&c.name)).err())
    })
}
