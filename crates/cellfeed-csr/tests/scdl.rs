//! BioNeMo SCDL folders that the real tool wrote: read whole, and refused where they lie.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, Error, ErrorKind, Indices, MatrixKey, ValueType};
use cellfeed_csr::{CsrBackend, CsrOptions};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/scdl")
}

fn open(path: &Path) -> Result<CsrBackend, Error> {
    CsrBackend::open(path, Arc::new(Engine::default()), &CsrOptions::default())
}

/// A copy, to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                all(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    all(&data().join(name), folder.path());
    folder
}

#[test]
fn folders_of_the_real_tool_are_read_as_they_were_written() {
    for (name, value_type) in [("counts-u16", ValueType::U16), ("floats-f32", ValueType::F32)] {
        let text = std::fs::read_to_string(data().join(format!("{name}.rows.json"))).unwrap();
        let oracle: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(cellfeed_csr::looks_like(&data().join(name)));
        let store = open(&data().join(name)).unwrap();
        let schema = store.schema();
        assert_eq!((schema.n_obs, schema.var.n_vars), (31, 23));
        assert_eq!(schema.matrix(&MatrixKey::X).unwrap().value_type, value_type);
        let rows = block_on(store.read_all_rows(&MatrixKey::X)).unwrap();
        let mut got = vec![vec![0f64; 23]; 31];
        let mut row = 0;
        for segment in rows.segments() {
            let values = segment.values().to_f64_vec();
            for w in segment.indptr().windows(2) {
                for i in w[0] as usize..w[1] as usize {
                    let gene = match segment.indices() {
                        Indices::U16(b) => usize::from(b[i]),
                        Indices::U32(b) => b[i] as usize,
                        _ => panic!("indices of another type"),
                    };
                    got[row][gene] = values[i];
                }
                row += 1;
            }
        }
        let want: Vec<Vec<f64>> = serde_json::from_value(oracle["rows"].clone()).unwrap();
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn folders_that_contradict_themselves_are_refused() {
    let refused = |folder: &tempfile::TempDir, file: &str, word: &str| {
        let error = open(folder.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(word), "{text}");
    };
    // A header that is stale after a cast: the data are of 32 bits, the header says 16.
    let folder = copy("counts-u16");
    let data = folder.path().join("data.npy");
    let bytes = std::fs::read(&data).unwrap();
    std::fs::write(&data, [&bytes[..], &bytes[..]].concat()).unwrap();
    refused(&folder, "data.npy", "stale");
    for file in ["data.npy", "col_ptr.npy"] {
        let folder = copy("floats-f32");
        let path = folder.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        refused(&folder, file, "bytes");
    }
    let folder = copy("floats-f32");
    let path = folder.path().join("row_ptr.npy");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] = 1;
    std::fs::write(&path, &bytes).unwrap();
    refused(&folder, "row_ptr.npy", "starts at");
    let folder = copy("floats-f32");
    std::fs::remove_file(folder.path().join("var_features/dataframe_0.parquet")).unwrap();
    refused(&folder, "dataframe_0.parquet", "missing");
    // A header, or a footer, that is cut short anywhere is an error, whatever is left of it.
    for file in ["header.sch", "var_features/dataframe_0.parquet"] {
        let folder = copy("counts-u16");
        let path = folder.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len().min(400)).step_by(7) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            if let Err(error) = open(folder.path()) {
                assert!(error.to_string().contains(file), "{error}");
            }
        }
        std::fs::write(&path, &bytes[..20]).unwrap();
        refused(&folder, file, "");
    }
}

#[test]
fn genes_past_the_last_are_refused_when_they_are_read() {
    let folder = copy("counts-u16");
    let path = folder.path().join("col_ptr.npy");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] = 0xff;
    std::fs::write(&path, &bytes).unwrap();
    let store = open(folder.path()).unwrap();
    let error = block_on(store.read_all_rows(&MatrixKey::X)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("col_ptr.npy"), "{error}");
}
