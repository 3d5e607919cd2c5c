//! Stores are written, and read by others: by `zarrs` here, by Python anndata where it is installed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use cellfeed_core::io::Engine;
use cellfeed_core::{
    Backend, ColumnKind, ErrorKind, Extras, MatrixKey, NewStore, Result, WriteOptions, Written,
};
use cellfeed_testkit::writing::{Writing, batches, extras, new_store};
use cellfeed_testkit::{Category, Oracle, OracleValues};
use cellfeed_zarr::{ZarrBackend, ZarrOptions, create};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use zarrs::array::{Array, ArraySubset, ElementOwned};
use zarrs::storage::store::MemoryStore;
use zarrs::storage::{StoreKey, WritableStorageTraits};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn write(oracle: &Oracle, extras: Extras, path: &Path, options: &WriteOptions) -> Written {
    let new = new_store(oracle, extras).unwrap();
    let mut writer = create(path, new.clone(), options).unwrap();
    for batch in batches(oracle, &new).unwrap() {
        writer.append(&batch).unwrap_or_else(|e| panic!("{}: {e}", oracle.name));
    }
    writer.finish().unwrap_or_else(|e| panic!("{}: {e}", oracle.name))
}

/// A store in memory, as zarrs likes it.
fn load(path: &Path) -> Arc<MemoryStore> {
    fn walk(folder: &Path, key: &str, store: &MemoryStore) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let key = format!("{key}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{key}/"), store);
            } else {
                let bytes = std::fs::read(entry.path()).unwrap();
                store.set(&StoreKey::new(&key).unwrap(), bytes.into()).unwrap();
            }
        }
    }
    let store = Arc::new(MemoryStore::new());
    walk(path, "", &store);
    store
}

fn array<T: ElementOwned>(store: &Arc<MemoryStore>, path: &str) -> Vec<T> {
    let array = Array::open(Arc::clone(store), path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let all = ArraySubset::new_with_shape(array.shape().to_vec());
    array.retrieve_array_subset(&all).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn matrix_agrees(oracle: &Oracle, path: &Path, what: &str) {
    let store = load(path);
    let want = oracle.matrix(&MatrixKey::X).unwrap();
    let indptr: Vec<u64> =
        array::<i64>(&store, "/X/indptr").iter().map(|&p| p.cast_unsigned()).collect();
    let indices: Vec<u32> =
        array::<i32>(&store, "/X/indices").iter().map(|&p| p.cast_unsigned()).collect();
    assert_eq!(indptr, want.indptr, "{what}");
    assert_eq!(indices, want.indices, "{what}");
    // Bit for bit: there are NaNs among them.
    let data: Vec<u64> =
        array::<f32>(&store, "/X/data").iter().map(|&v| f64::from(v).to_bits()).collect();
    let values: Vec<u64> = want.values.to_f64_vec().iter().map(|v| v.to_bits()).collect();
    assert!(data == values, "{what}: data differ");
}

#[test]
fn every_codec_and_chunk_is_read_back_by_zarrs() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = cellfeed_testkit::fixtures::oracle("codecs", 150, 90, 3);
    let codecs = ["none", "blosc-lz4", "blosc-lz4:9", "blosc-zstd", "zstd", "zstd:9", "gzip"];
    for (i, codec) in codecs.into_iter().enumerate() {
        for rows in [7, 100_000] {
            let path = folder.path().join(format!("{i}-{rows}.zarr"));
            let options = WriteOptions::default().with_codec(codec).with_chunk_rows(rows);
            write(&oracle, Extras::default(), &path, &options);
            matrix_agrees(&oracle, &path, &format!("{codec}, {rows} rows"));
        }
    }
    let names: Vec<String> = {
        let store = load(&folder.path().join("4-7.zarr"));
        array(&store, "/obs/cell")
    };
    assert_eq!(names, oracle.obs_names);
}

/// The first Python that has anndata 0.12 or later with Zarr, if any.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("CELLFEED_PYTHON").map(PathBuf::from);
    let candidates = named.into_iter().chain(["python3".into(), "python".into()]);
    let has = |python: &PathBuf| {
        let check = "import anndata, zarr, h5py, hdf5plugin; anndata.io.read_zarr; \
                     assert int(zarr.__version__.split('.')[0]) >= 3";
        let done = Command::new(python).args(["-W", "ignore", "-c", check]).output();
        done.is_ok_and(|done| done.status.success())
    };
    let found = candidates.into_iter().find(has);
    if found.is_none() {
        eprintln!(
            "SKIPPED: no Python with anndata, zarr 3 and hdf5plugin; name one by CELLFEED_PYTHON"
        );
    }
    found
}

/// Whether the oracle has only what this format keeps as it is.
fn as_text(oracle: &Oracle) -> bool {
    let text = |values: &OracleValues| match values {
        OracleValues::Categorical { categories, .. } => {
            categories.iter().all(|c| matches!(c, Category::Text(_)))
        }
        _ => true,
    };
    // Names of columns are names of files.
    let short = |name: &str| name.len() < 256;
    oracle.obs.iter().chain(&oracle.var).all(|c| text(&c.values) && short(&c.name))
}

#[test]
fn anndata_reads_what_is_written() {
    let Some(python) = python() else { return };
    for format in ["zarr", "h5ad"] {
        let (folder, mut written) = (tempfile::tempdir().unwrap(), 0);
        for (file, mut oracle) in Oracle::load_below(&testdata().join(format)).unwrap() {
            // Only what lies directly in the folder, and has names as AnnData has them.
            if file.parent() != Some(testdata().join(format).as_path()) || !as_text(&oracle) {
                continue;
            }
            oracle.obs.retain(|c| c.values != OracleValues::Unreadable);
            let name = file.file_name().unwrap().to_str().unwrap();
            let name = name.strip_suffix(".oracle.json").unwrap_or(name);
            let path = folder.path().join(format!("{name}.zarr"));
            let all = extras(&oracle);
            let done = write(&oracle, all, &path, &WriteOptions::default());
            assert_eq!(done.dropped, [], "{name}");
            written += 1;
        }
        assert!(written > 20, "{written}");
        let done = Command::new(&python)
            .args(["-W", "ignore"])
            .arg(testdata().join("check_zarr.py"))
            .arg("--written")
            .args([folder.path(), &testdata().join(format)])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let cried = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}{cried}");
        eprintln!("{said}");
    }
}

/// By the reader of this crate, extras and all.
#[test]
fn cellfeed_reads_what_is_written() {
    let open = |path: &Path| -> Result<Arc<dyn Backend>> {
        let engine = Arc::new(Engine::default());
        Ok(Arc::new(ZarrBackend::open(path, engine, &ZarrOptions::default())?))
    };
    for codec in [None, Some("none"), Some("blosc-zstd"), Some("zstd:1"), Some("gzip")] {
        let create = |path: &Path, new: NewStore, options: &WriteOptions| {
            let options = match codec {
                Some(codec) => &options.clone().with_codec(codec).with_chunk_rows(5),
                None => options,
            };
            create(path, new, options)
        };
        Writing::new("new.zarr", create, open).check().unwrap_or_else(|e| panic!("{codec:?}: {e}"));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn names_that_are_no_files_are_dropped_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut oracle = cellfeed_testkit::fixtures::oracle("odd names", 9, 5, 4);
    for (column, name) in oracle.obs.iter_mut().zip(["a/b", "..", "zarr.json", "", "cell"]) {
        name.clone_into(&mut column.name);
    }
    let path = folder.path().join("odd.zarr");
    let written = write(&oracle, Extras::default(), &path, &WriteOptions::default());
    let dropped: Vec<&str> = written.dropped.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(dropped, ["obs/a/b", "obs/..", "obs/zarr.json", "obs/"]);
    // The index made room for the column that has its name.
    let store = load(&path);
    assert_eq!(array::<String>(&store, "/obs/_index"), oracle.obs_names);
    let mut new = new_store(&oracle, Extras::default()).unwrap();
    new.matrices[1].key = MatrixKey::Layer("../x".to_owned());
    let refused = create(&folder.path().join("b.zarr"), new, &WriteOptions::default());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(names(folder.path()), ["odd.zarr"]);
}

#[test]
fn unreadable_columns_and_chunks_of_no_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = cellfeed_testkit::fixtures::oracle("refused", 9, 5, 4);
    let mut new = new_store(&oracle, Extras::default()).unwrap();
    let path = folder.path().join("a.zarr");
    let none = WriteOptions::default().with_chunk_rows(0);
    assert_eq!(create(&path, new.clone(), &none).unwrap_err().kind(), ErrorKind::InvalidInput);
    new.obs[0].kind = ColumnKind::Unreadable("why".to_owned());
    let refused = create(&path, new, &WriteOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(names(folder.path()).is_empty());
}

const CHILD: &str = "CELLFEED_FULL_DISK";

/// What [`a_full_disk_leaves_nothing`] runs where no file may be longer than a few KiB.
#[test]
#[ignore = "only as the child of another test"]
fn child_with_a_full_disk() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let oracle = cellfeed_testkit::fixtures::oracle("full", 3000, 400, 5);
    let new = new_store(&oracle, Extras::default()).unwrap();
    let options = WriteOptions::default().with_codec("none");
    let mut writer = create(&Path::new(&folder).join("a.zarr"), new.clone(), &options).unwrap();
    for batch in batches(&oracle, &new).unwrap() {
        if let Err(e) = writer.append(&batch) {
            assert_eq!(e.kind(), ErrorKind::Io, "{e}");
            return;
        }
    }
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on the length of files: writing past it fails, once its signal is ignored.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact child_with_a_full_disk --ignored";
    let done = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}
