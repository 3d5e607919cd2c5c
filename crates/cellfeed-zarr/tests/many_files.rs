//! A store of more chunk files than a process may open at a time.
#![allow(clippy::unwrap_used)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, MatrixKey, RowRanges};
use cellfeed_zarr::{ZarrBackend, ZarrOptions};
use futures::executor::block_on;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const ROWS: u32 = 2000;

fn group(path: &Path, attributes: &Value) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    std::fs::write(path.join(".zattrs"), attributes.to_string()).unwrap();
}

/// An array of 32-bit items in chunks of so many.
fn array(path: &Path, dtype: &str, values: &[u32], chunk: usize) {
    std::fs::create_dir_all(path).unwrap();
    let meta = json!({"zarr_format": 2, "shape": [values.len()], "chunks": [chunk], "dtype": dtype,
        "compressor": null, "fill_value": 0, "filters": null, "order": "C"});
    std::fs::write(path.join(".zarray"), meta.to_string()).unwrap();
    for (i, part) in values.chunks(chunk).enumerate() {
        let mut bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.resize(chunk * 4, 0);
        std::fs::write(path.join(i.to_string()), bytes).unwrap();
    }
}

#[test]
fn many_chunk_files_are_not_all_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("x.zarr");
    group(&root, &json!({}));
    let cells: Vec<u32> = (0..ROWS).collect();
    for (name, values) in [("obs", &cells[..]), ("var", &cells[..7])] {
        let columns = json!({"_index": "_index", "column-order": [],
            "encoding-type": "dataframe", "encoding-version": "0.2.0"});
        group(&root.join(name), &columns);
        array(&root.join(name).join("_index"), "<i4", values, 1000);
    }
    // Row i has the genes i % 5 and 6, with the values i + 1 and i + 2; a file for each.
    let x = root.join("X");
    group(&x, &json!({"encoding-type": "csr_matrix", "shape": [ROWS, 7]}));
    let genes: Vec<u32> = cells.iter().flat_map(|i| [i % 5, 6]).collect();
    let values: Vec<u32> = cells.iter().flat_map(|i| [i + 1, i + 2]).collect();
    array(&x.join("indptr"), "<i4", &(0..=ROWS).map(|i| i * 2).collect::<Vec<_>>(), 50);
    array(&x.join("indices"), "<i4", &genes, 2);
    array(&x.join("data"), "<i4", &values, 2);

    let engine = Arc::new(Engine::default());
    let store = ZarrBackend::open(&root, engine, &ZarrOptions::default()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let watch = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut most = 0;
            while !done.load(Relaxed) {
                most = most.max(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
            }
            most
        }
    });
    let all = block_on(store.read_all_rows(&MatrixKey::X)).unwrap();
    let few = RowRanges::try_from_ranges([3..5, 1500..1501]).unwrap();
    let few = block_on(store.read_rows(&MatrixKey::X, &few)).unwrap();
    done.store(true, Relaxed);
    let most = watch.join().unwrap();
    assert!(most < 700, "{most} files were open");
    let segment = &all.segments()[0];
    assert_eq!(segment.indices().to_u32_vec(), genes);
    let floats: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    assert_eq!(segment.values().to_f64_vec(), floats);
    assert_eq!(few.segments()[0].values().to_f64_vec(), [4.0, 5.0, 5.0, 6.0, 1501.0, 1502.0]);
}
