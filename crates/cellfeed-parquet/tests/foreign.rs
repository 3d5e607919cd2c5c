//! Our layout as pyarrow writes it by the document, with and without a page index, in both versions of
//! pages; and stores that must be refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::single_range_in_vec_init)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, Error, ErrorKind, MatrixKey, Result, RowRanges};
use cellfeed_parquet::{ParquetBackend, ParquetOptions};
use cellfeed_testkit::{Oracle, PeakAlloc, Subject, conformance};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet")
}

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    let options = ParquetOptions::default();
    Ok(Arc::new(ParquetBackend::open(path, Arc::new(Engine::default()), &options)?))
}

fn stores() -> Vec<Subject> {
    let names = ["own-lists", "own-lists-v2", "own-blobs", "own-blobs-no-index"];
    let one = |name: &str| {
        let oracle = Oracle::load(&data().join("own.oracle.json")).unwrap();
        Subject::on_disk(&data().join(format!("{name}.parquet")), oracle, open).unwrap()
    };
    names.into_iter().map(one).collect()
}

conformance!(written_by_pyarrow, stores);

#[test]
fn bad_stores_are_refused_where_they_are_bad() {
    let folder = data().join("bad-own");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let path = folder.join(name);
        let kind = match expected["kind"].as_str().unwrap() {
            "corrupt" => ErrorKind::Corrupt,
            _ => ErrorKind::Unsupported,
        };
        let says = |error: &Error| {
            assert_eq!(error.kind(), kind, "{name}: {error}");
            let text = error.to_string();
            for word in expected["words"].as_array().unwrap() {
                let word = word.as_str().unwrap();
                assert!(text.to_lowercase().contains(word), "{name}: no {word:?} in {text}");
            }
            assert!(text.contains(name), "{name}: {text}");
        };
        let Some(row) = expected["row"].as_u64() else {
            says(&open(&path).map(|_| ()).unwrap_err());
            continue;
        };
        let store = open(&path).unwrap();
        let read = |rows: std::ops::Range<u64>| {
            block_on(store.read_rows(&MatrixKey::X, &RowRanges::single(rows)))
        };
        for rows in [0..6, row..row + 1] {
            let error = read(rows).unwrap_err();
            says(&error);
            if kind == ErrorKind::Corrupt {
                let named = error.context().any(|(k, v)| k == "row" && v == row.to_string());
                assert!(named, "{name}: {error}");
            }
        }
        // The other row group is sound.
        if kind == ErrorKind::Corrupt {
            assert_eq!(read(0..4).unwrap().n_rows(), 4, "{name}");
        }
    }
}
