//! Real stores of other tools and years, where they are present: everything in them is read, and what
//! holds the same matrix in other forms agrees.
//!
//! The stores are not part of the project. Without them these tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use arrow_array::Array;
use cellfeed_core::io::Engine;
use cellfeed_core::{
    Backend, BackendExt, ColumnKind, CsrRows, Encoding, ErrorKind, MatrixKey, Result, RowRanges,
};
use cellfeed_zarr::{ZarrBackend, ZarrOptions};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

fn open(path: &Path) -> Result<ZarrBackend> {
    ZarrBackend::open(path, Arc::new(Engine::default()), &ZarrOptions::default())
}

/// The archives unpacked, by the commands that unpack them.
fn unpacked() -> Option<TempDir> {
    let folder = std::env::var_os("CELLFEED_REAL_FILES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let tar = folder.join("vitessce_zarr_fixtures.tar");
    if !tar.exists() {
        eprintln!("SKIPPED: no real stores at {}", folder.display());
        return None;
    }
    let to = tempfile::tempdir().unwrap();
    let mut commands = vec![("tar", vec!["-xf".into(), tar, "-C".into(), to.path().to_path_buf()])];
    for name in ["anndata_v0.7.8_adata.zarr", "anndata_v0.11.4_adata.zarr"] {
        let zip = folder.join(format!("{name}.zip"));
        commands.push(("unzip", vec!["-qo".into(), zip, "-d".into(), to.path().join(name)]));
    }
    for (command, arguments) in commands {
        match Command::new(command).args(arguments).status() {
            Ok(status) => assert!(status.success(), "{command}: {status}"),
            Err(e) => {
                eprintln!("SKIPPED: {command}: {e}");
                return None;
            }
        }
    }
    Some(to)
}

/// Folders that are named as stores.
fn stores(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "zarr") {
            out.push(path);
        } else if path.is_dir() {
            stores(&path, out);
        }
    }
    out.sort();
}

/// The dense form of CSR rows.
fn dense(rows: &CsrRows, width: usize) -> Vec<Vec<f64>> {
    let mut out = Vec::new();
    for segment in rows.segments() {
        let (indices, values) = (segment.indices().to_u32_vec(), segment.values().to_f64_vec());
        for w in segment.indptr().windows(2) {
            let mut line = vec![0.0; width];
            for i in usize::try_from(w[0]).unwrap()..usize::try_from(w[1]).unwrap() {
                line[indices[i] as usize] = values[i];
            }
            out.push(line);
        }
    }
    out
}

/// A matrix by cells, however it is stored.
fn by_cells(backend: &ZarrBackend, key: &MatrixKey) -> Vec<Vec<f64>> {
    let schema = backend.schema();
    let matrix = schema.matrices.iter().find(|m| m.key == *key).unwrap();
    let (n_obs, n_vars) = (usize::try_from(schema.n_obs).unwrap(), matrix.n_vars());
    if matrix.encoding != Encoding::Csc {
        let rows = block_on(backend.read_all_rows(key)).unwrap();
        return dense(&rows, usize::try_from(n_vars).unwrap());
    }
    let genes = RowRanges::single(0..n_vars);
    let columns = block_on(backend.archive().unwrap().read_columns(key, &genes)).unwrap();
    let columns = dense(&columns, n_obs);
    (0..n_obs).map(|i| columns.iter().map(|c| c[i]).collect()).collect()
}

#[test]
fn everything_is_read_and_agrees() {
    let Some(folder) = unpacked() else { return };
    let mut all = Vec::new();
    stores(folder.path(), &mut all);
    let mut read = 0;
    let mut same: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for path in &all {
        let name = path.strip_prefix(folder.path()).unwrap().display().to_string();
        if ["mudata", "spatialdata", "partials"].iter().any(|other| name.contains(other)) {
            let error = open(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
            // What it holds is named, and can be opened.
            let text = error.to_string();
            if let Some((_, rest)) = text.split_once("open ") {
                let part = rest.split_once(" for example").unwrap().0;
                assert!(open(Path::new(part)).unwrap().schema().n_obs > 0, "{name}");
                read += 1;
            } else {
                assert!(name.contains("partials"), "{name}: {text}");
            }
            continue;
        }
        let backend = open(path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let schema = backend.schema();
        for column in &schema.obs {
            assert!(!matches!(column.kind, ColumnKind::Unreadable(_)), "{name}: {column:?}");
            let values = block_on(backend.read_obs_column(&column.name)).unwrap();
            assert_eq!(values.len() as u64, schema.n_obs, "{name}: {}", column.name);
        }
        for matrix in &schema.matrices {
            let values = by_cells(&backend, &matrix.key);
            assert_eq!(values.len() as u64, schema.n_obs, "{name}: {}", matrix.key);
            assert!(values.iter().flatten().any(|v| *v != 0.0), "{name}: {}", matrix.key);
            let table = block_on(backend.read_var(&matrix.key)).unwrap();
            assert_eq!(table.n_rows(), matrix.n_vars(), "{name}: {}", matrix.key);
            // The fixtures hold one matrix in the forms and versions there are.
            if name.contains("fixtures/anndata") {
                let first = same.entry(matrix.key.to_string()).or_insert_with(|| values.clone());
                assert_eq!(*first, values, "{name}: {}", matrix.key);
            }
        }
        let extras = block_on(backend.archive().unwrap().read_extras(u64::MAX)).unwrap();
        eprintln!("{name}: {} extras; left out: {:?}", extras.elements.len(), extras.left_out);
        let none = block_on(backend.archive().unwrap().read_extras(0)).unwrap();
        assert!(none.left_out.len() >= extras.left_out.len(), "{name}");
        read += 1;
    }
    assert!(read >= 20, "{read} of {}", all.len());
    assert!(same.len() >= 4, "{:?}", same.keys());
}
