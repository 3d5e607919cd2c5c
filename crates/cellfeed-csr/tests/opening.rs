//! What memory opening takes: the same for any number of cells. One test, as the allocator counts for
//! the whole process.
#![allow(clippy::unwrap_used)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, MatrixKey, RowRanges};
use cellfeed_csr::{CsrBackend, CsrOptions};
use cellfeed_testkit::PeakAlloc;
use futures::executor::block_on;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn opening_takes_the_same_memory_for_any_number_of_cells() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::default());
    let taken = [1000u64, 4_000_000].map(|cells| {
        let path = folder.path().join(format!("{cells}.csr"));
        std::fs::create_dir_all(&path).unwrap();
        let indptr: Vec<u8> = (0..=cells).flat_map(u64::to_le_bytes).collect();
        std::fs::write(path.join("indptr"), indptr).unwrap();
        for (name, bytes) in [("indices", cells * 2), ("data", cells)] {
            std::fs::File::create(path.join(name)).unwrap().set_len(bytes).unwrap();
        }
        let file = |name: &str, bytes: u64| {
            serde_json::json!({"path": name, "bytes": bytes, "xxh3": "0000000000000000"})
        };
        let header = serde_json::json!({
            "format": "cellfeed-csr", "version": 1, "n_obs": cells,
            "obs": {"n_rows": cells, "columns": []}, "var": {"n_rows": 100, "columns": []},
            "matrices": [{
                "key": "X", "layout": "plain", "n_vars": 100, "nnz": cells, "value_type": "u8",
                "index_type": "u16", "indptr": file("indptr", (cells + 1) * 8),
                "indices": file("indices", cells * 2), "data": file("data", cells),
            }],
        });
        std::fs::write(path.join("header.json"), header.to_string()).unwrap();
        let before = PeakAlloc::reset();
        let store = CsrBackend::open(&path, Arc::clone(&engine), &CsrOptions::default()).unwrap();
        let rows = RowRanges::single(cells - 1..cells);
        assert_eq!(store.cost(&MatrixKey::X, &rows).unwrap().bytes_read, 3);
        assert_eq!(block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap().n_rows(), 1);
        PeakAlloc::peak().saturating_sub(before)
    });
    assert!(taken[1] < taken[0] + 64_000, "{taken:?}");
}
