//! Values that compress to nothing and chunks that were never written are read; what says that it has
//! them and cannot is refused before memory is taken for it.
#![allow(clippy::unwrap_used, clippy::panic)]

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, Error, ErrorKind, MatrixKey, Result, RowRanges};
use cellfeed_testkit::PeakAlloc;
use cellfeed_zarr::{ZarrBackend, ZarrOptions};
use futures::executor::block_on;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Tests that measure memory and such as take much of it go one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// A store under construction.
struct Store(TempDir);

impl Store {
    fn new(n_obs: u64, names: Option<&[u8]>) -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        store.group("", &json!({"encoding-type": "anndata"}));
        store.frame("obs", n_obs, names);
        store.frame("var", 3, Some(&texts(3)));
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn group(&self, path: &str, attributes: &Value) {
        std::fs::create_dir_all(self.path(path)).unwrap();
        let meta = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
        std::fs::write(self.path(path).join("zarr.json"), meta.to_string()).unwrap();
    }

    /// An array in one chunk, written if there are bytes for it.
    fn array(&self, path: &str, kind: &str, shape: &[u64], bytes: Option<&[u8]>) {
        std::fs::create_dir_all(self.path(path)).unwrap();
        let text = kind == "string";
        let serializer = if text { "vlen-utf8" } else { "bytes" };
        let chunk: Vec<u64> = shape.iter().map(|n| (*n).clamp(1, 1 << 26)).collect();
        let meta = json!({
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": kind,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default"},
            "fill_value": if text { json!("") } else if kind == "bool" { json!(false) } else { json!(0) },
            "codecs": [
                {"name": serializer, "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1}},
            ],
            "attributes": {"encoding-type": "array"},
        });
        std::fs::write(self.path(path).join("zarr.json"), meta.to_string()).unwrap();
        if let Some(bytes) = bytes {
            let name = vec!["0"; shape.len()].join("/");
            let file = self.path(path).join("c").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, zstd::bulk::compress(bytes, 1).unwrap()).unwrap();
        }
    }

    fn frame(&self, path: &str, n: u64, names: Option<&[u8]>) {
        self.group(
            path,
            &json!({"encoding-type": "dataframe", "_index": "_index", "column-order": []}),
        );
        self.array(&format!("{path}/_index"), "string", &[n], names);
    }

    /// Names the columns of obs.
    fn columns(&self, names: &[&str]) {
        let about =
            json!({"encoding-type": "dataframe", "_index": "_index", "column-order": names});
        self.group("obs", &about);
    }

    /// X by rows, of three genes, with the lengths of its arrays.
    fn sparse(&self, n_obs: u64, indptr: Option<&[u8]>, nnz: u64, members: [Option<&[u8]>; 2]) {
        self.group("X", &json!({"encoding-type": "csr_matrix", "shape": [n_obs, 3]}));
        self.array("X/indptr", "int64", &[n_obs + 1], indptr);
        self.array("X/indices", "int32", &[nnz], members[0]);
        self.array("X/data", "float32", &[nnz], members[1]);
    }

    fn open(&self) -> Result<ZarrBackend> {
        let engine = Arc::new(Engine::default());
        ZarrBackend::open(self.0.path(), engine, &ZarrOptions::default())
    }
}

/// So many names, as a chunk has them.
fn texts(n: u32) -> Vec<u8> {
    let mut out = n.to_le_bytes().to_vec();
    for i in 0..n {
        let name = format!("cell-{i:09}");
        out.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        out.extend(name.as_bytes());
    }
    out
}

fn bytes<T: bytemuck::Pod>(items: &[T]) -> &[u8] {
    bytemuck::cast_slice(items)
}

/// What came of work, and how much memory it took meanwhile.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = PeakAlloc::reset();
    let found = work();
    (found, PeakAlloc::peak() - before)
}

fn corrupt(found: Result<impl Sized>, what: &str) {
    let error: Error = found.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
}

#[test]
fn a_matrix_of_ones_is_read() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // As a binarised matrix has them: rows alike, so that zstd leaves little of the indices too.
    let (n_obs, nnz) = (2_000_000u32, 6_000_000);
    let store = Store::new(n_obs.into(), Some(&texts(n_obs)));
    let indptr: Vec<i64> = (0..=i64::from(n_obs)).map(|row| row * 3).collect();
    let indices: Vec<i32> = (0..n_obs).flat_map(|_| [0, 1, 2]).collect();
    let ones = vec![1f32; nnz];
    let members = [Some(bytes(&indices)), Some(bytes(&ones))];
    store.sparse(n_obs.into(), Some(bytes(&indptr)), nnz as u64, members);
    for name in ["data", "indices"] {
        let stored = store.path("X").join(name).join("c/0").metadata().unwrap().len();
        assert!(stored * 4096 < 4 * nnz as u64, "{name}: {stored}");
    }
    let rows = RowRanges::single(1_999_990..2_000_000);
    let read = block_on(store.open().unwrap().read_rows(&MatrixKey::X, &rows)).unwrap();
    let segment = &read.segments()[0];
    assert_eq!(segment.indices().to_u32_vec(), [0, 1, 2].repeat(10));
    assert_eq!(segment.values().to_f64_vec(), [1.0].repeat(30));
}

#[test]
fn columns_masks_and_matrices_of_fill_values_are_read() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let n = 4_300_000u32;
    let store = Store::new(n.into(), Some(&texts(n)));
    store.columns(&["zeros", "some", "batch"]);
    store.array("obs/zeros", "int64", &[n.into()], None);
    store.group("obs/some", &json!({"encoding-type": "nullable-integer"}));
    store.array("obs/some/values", "int64", &[n.into()], None);
    store.array("obs/some/mask", "bool", &[n.into()], None);
    store.group("obs/batch", &json!({"encoding-type": "categorical", "ordered": false}));
    store.array("obs/batch/codes", "int64", &[n.into()], None);
    store.array("obs/batch/categories", "string", &[3], Some(&texts(3)));
    store.sparse(n.into(), None, 0, [None, None]);
    store.group("layers", &json!({"encoding-type": "dict"}));
    store.array("layers/dense", "float32", &[n.into(), 3], None);
    store.group("obsm", &json!({"encoding-type": "dict"}));
    store.array("obsm/zeros", "float32", &[n.into(), 2], None);
    let backend = store.open().unwrap();
    let rows = RowRanges::single(4_299_998..4_300_000);
    for name in ["zeros", "some"] {
        let found = block_on(backend.read_obs(&[name.to_owned()], &rows)).unwrap();
        let found = found[0].as_primitive::<Int64Type>();
        assert_eq!((found.values().as_ref(), found.null_count()), (&[0, 0][..], 0), "{name}");
    }
    let batch = block_on(backend.read_obs(&["batch".to_owned()], &rows)).unwrap();
    assert_eq!(batch[0].as_any_dictionary().normalized_keys(), [0, 0]);
    let layer = MatrixKey::Layer("dense".to_owned());
    for key in [MatrixKey::X, layer] {
        let read = block_on(backend.read_rows(&key, &rows)).unwrap();
        assert_eq!((read.n_rows(), read.nnz()), (2, 0), "{key}");
    }
    let extras = block_on(backend.archive().unwrap().read_extras(1 << 30)).unwrap();
    assert_eq!((extras.elements.len(), extras.left_out), (1, Vec::new()));
}

#[test]
fn an_index_without_bytes_vouches_for_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for n in [4_300_000, 1 << 40] {
        let store = Store::new(n, None);
        store.columns(&["zeros", "some", "text"]);
        store.array("obs/zeros", "int64", &[n], None);
        store.group("obs/some", &json!({"encoding-type": "nullable-integer"}));
        store.array("obs/some/values", "int64", &[n], None);
        store.array("obs/some/mask", "bool", &[n], None);
        store.array("obs/text", "string", &[n], None);
        let backend = store.open().unwrap();
        for name in ["zeros", "some", "text", "_index"] {
            let read = || block_on(backend.read_obs(&[name.to_owned()], &RowRanges::single(0..1)));
            let (found, peak) = measured(read);
            corrupt(found, name);
            assert!(peak < 32 << 20, "{name}: {peak}");
        }
        store.sparse(n, None, 0, [None, None]);
        let (opened, peak) = measured(|| store.open());
        corrupt(opened, "indptr");
        assert!(peak < 32 << 20, "{peak}");
    }
}

#[test]
fn a_matrix_that_its_files_cannot_become_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A chunk of 256 MiB in a few bytes.
    let nnz = 1i64 << 26;
    let store = Store::new(1, Some(&texts(1)));
    let few = vec![0u8; 1000];
    store.sparse(1, Some(bytes(&[0, nnz])), 1 << 26, [Some(&few), Some(&few)]);
    let (opened, peak) = measured(|| store.open());
    corrupt(opened, "indices");
    assert!(peak < 32 << 20, "{peak}");
    // Spaces are no values.
    for name in ["indices", "data"] {
        let path = store.path("X").join(name).join("zarr.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + &" ".repeat(100_000)).unwrap();
    }
    corrupt(store.open(), "indices with long metadata");
    // Nor is what lies beside the chunk: the matrix is opened, and no row is given memory.
    for name in ["indices", "data"] {
        std::fs::write(store.path("X").join(name).join("junk"), vec![0u8; 100_000]).unwrap();
    }
    let backend = store.open().unwrap();
    let (read, peak) = measured(|| block_on(backend.read_all_rows(&MatrixKey::X)));
    corrupt(read, "a chunk");
    assert!(peak < 32 << 20, "{peak}");
}

#[test]
fn what_lies_beside_and_says_too_much_is_left_out() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let store = Store::new(2, Some(&texts(2)));
    store.group("uns", &json!({"encoding-type": "dict"}));
    store.array("uns/huge", "float64", &[1 << 40], None);
    store.array("uns/large", "float64", &[1 << 24], None);
    store.array("uns/small", "float64", &[2], None);
    let backend = store.open().unwrap();
    let (extras, peak) =
        measured(|| block_on(backend.archive().unwrap().read_extras(1 << 20)).unwrap());
    let left_out: Vec<&str> = extras.left_out.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!((extras.elements.len(), left_out), (1, vec!["uns/huge", "uns/large"]));
    assert!(peak < 32 << 20, "{peak}");
}
