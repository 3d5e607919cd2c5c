//! What is missing of a store: an error wherever zeros would be a wrong answer.
#![allow(clippy::unwrap_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, ErrorKind, MatrixKey, Result};
use cellfeed_testkit::{Oracle, check_oracle};
use cellfeed_zarr::{ZarrBackend, ZarrOptions};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/zarr")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

fn open(path: &Path) -> Result<ZarrBackend> {
    ZarrBackend::open(path, Arc::new(Engine::default()), &ZarrOptions::default())
}

/// Files below a folder that hold chunks.
fn chunks(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            chunks(&path, out);
        } else if !name.starts_with('.') && name != "zarr.json" {
            out.push(path);
        }
    }
}

/// Each file of X removed in turn, in stores with and without shards, of both versions.
#[test]
fn a_lost_file_of_a_sparse_matrix_is_an_error_that_names_it() {
    for name in ["v3-csr-chunks", "v3-csr-sharded", "anndata-0.10.9-v2", "v3-csc-sharded"] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("x.zarr");
        copy(&data().join(format!("{name}.zarr")), &store);
        let mut files = Vec::new();
        chunks(&store.join("X"), &mut files);
        assert!(files.len() >= 3, "{name}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            let read = open(&store).and_then(|store| {
                let genes = cellfeed_core::RowRanges::single(0..store.schema().var.n_vars);
                match name.starts_with("v3-csc") {
                    true => block_on(store.archive().unwrap().read_columns(&MatrixKey::X, &genes)),
                    false => block_on(store.read_all_rows(&MatrixKey::X)),
                }
            });
            let Err(error) = read else { panic!("{name}: {} is not missed", file.display()) };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
            std::fs::write(&file, bytes).unwrap();
        }
        assert!(open(&store).is_ok());
    }
}

/// One gene has the index 0: the only indices that are known without being read.
#[test]
fn indices_of_a_single_gene_need_not_be_there() {
    let name = "v3-csr-one-cell-one-gene";
    let oracle = Oracle::load(&data().join(format!("{name}.oracle.json"))).unwrap();
    check_oracle(&open(&data().join(format!("{name}.zarr"))).unwrap(), &oracle).unwrap();
}

#[test]
fn a_collection_lacks_no_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("x.zarr");
    copy(&data().join("annbatch-collection.zarr"), &store);
    let whole = open(&store).unwrap();
    assert_eq!(whole.schema().location, store.to_str().unwrap());
    assert_eq!((whole.schema().format.as_str(), whole.schema().n_obs), ("zarr", 65));
    std::fs::remove_dir_all(store.join("dataset_0")).unwrap();
    let error = open(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("dataset_0"), "{error}");
    std::fs::remove_dir_all(store.join("dataset_1")).unwrap();
    assert_eq!(open(&store).unwrap_err().kind(), ErrorKind::Corrupt);
    // One alone is a store like any other; its last file is named if it goes.
    let alone = data().join("annbatch-collection.zarr/dataset_1");
    assert_eq!(open(&alone).unwrap().schema().n_obs, 25);
}

/// Cells without genes are cells all the same.
#[test]
fn a_dense_matrix_of_no_genes_has_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("x.zarr");
    copy(&data().join("v3-dense-chunks.zarr"), &store);
    for (array, shape) in [("X", "[37, 0]"), ("var/_index", "[0]")] {
        let path = store.join(array).join("zarr.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        if array == "X" {
            assert_eq!(value["shape"][0], 37);
        }
        value["shape"] = serde_json::from_str(shape).unwrap();
        std::fs::write(&path, value.to_string()).unwrap();
    }
    let store = open(&store).unwrap();
    let rows = block_on(store.read_all_rows(&MatrixKey::X)).unwrap();
    assert_eq!((rows.n_rows(), rows.nnz()), (37, 0));
}

/// A matrix without its own metadata is not one that was never there.
#[test]
fn lost_metadata_of_a_matrix_is_said_in_the_schema() {
    for (name, lost) in [("v3-csr-chunks", "zarr.json"), ("anndata-0.10.9-v2", ".zgroup")] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("x.zarr");
        copy(&data().join(format!("{name}.zarr")), &store);
        std::fs::remove_file(store.join("X").join(lost)).unwrap();
        let opened = open(&store).unwrap();
        let x = opened.schema().find(&MatrixKey::X).unwrap();
        assert!(x.unreadable.as_ref().unwrap().contains("is missing"), "{x:?}");
        let error = block_on(opened.read_all_rows(&MatrixKey::X)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        // A folder with nothing in it is what some tools leave of a matrix that is removed.
        std::fs::remove_dir_all(store.join("X")).unwrap();
        std::fs::create_dir(store.join("X")).unwrap();
        assert!(open(&store).unwrap().schema().find(&MatrixKey::X).is_none());
    }
}
