//! Real files of many tools and years, where they are present: all rows and columns read, known
//! facts hold, and both metadata readers give the same bits.
//!
//! The files are not part of the project. Without them these tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use arrow_array::{Array, ArrayRef};
use cellfeed_core::io::Engine;
use cellfeed_core::{
    Backend, BackendExt, ColumnKind, ColumnSchema, CsrRows, Element, Encoding, MatrixKey, Node,
    RowRanges,
};
use cellfeed_hdf5::{Hdf5Backend, Hdf5Options};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CELLFEED_REAL_FILES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no real files at {}", folder.display());
    None
}

fn open(path: &Path, options: &Hdf5Options) -> Hdf5Backend {
    Hdf5Backend::open(path, Arc::new(Engine::default()), options)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn sum(rows: &CsrRows) -> f64 {
    rows.segments().iter().flat_map(|s| s.values().to_f64_vec()).sum()
}

/// Everything that can be read: matrices by name, columns by name.
type Contents = (Vec<(MatrixKey, CsrRows)>, Vec<(String, ArrayRef)>);

fn contents(backend: &Hdf5Backend, name: &str) -> Contents {
    let schema = backend.schema();
    let matrices = schema.matrices.iter().filter(|m| m.unreadable.is_none()).map(|m| {
        let rows = block_on(backend.read_all_rows(&m.key));
        (m.key.clone(), rows.unwrap_or_else(|e| panic!("{name}: {}: {e}", m.key)))
    });
    let names = schema.obs.iter().map(|c| &c.name).chain(&schema.obs_index);
    let columns = names.filter(|n| schema.check_obs(n).is_ok()).map(|n| {
        let column = block_on(backend.read_obs_column(n));
        (n.clone(), column.unwrap_or_else(|e| panic!("{name}: {n}: {e}")))
    });
    (matrices.collect(), columns.collect())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let is_hdf5 = |p: &PathBuf| p.extension().is_some_and(|e| e == "h5ad" || e == "h5");
    let mut files: Vec<PathBuf> = entries.filter(is_hdf5).collect();
    files.sort();
    files
}

#[test]
fn every_file_reads_whole() {
    let Some(folder) = folder() else { return };
    for path in files(&folder) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let backend = open(&path, &Hdf5Options::default());
        let (matrices, columns) = contents(&backend, &name);
        let schema = backend.schema();
        assert!(columns.iter().all(|(_, a)| a.len() as u64 == schema.n_obs), "{name}");
        for (key, rows) in &matrices {
            assert_eq!(rows.n_rows() as u64, schema.n_obs, "{name}: {key}");
            let described = schema.matrix(key).unwrap();
            assert!(described.nnz.is_none_or(|nnz| nnz == rows.nnz() as u64), "{name}: {key}");
        }
    }
}

/// Every element, by its path, as shape or number of members.
fn paths(element: &Element, path: &str, out: &mut Vec<String>) {
    match &element.node {
        Node::Array { shape, values } => {
            let count: u64 = shape.iter().product();
            assert_eq!(values.len() as u64, count, "{path}");
            out.push(format!("{path} {shape:?}"));
        }
        Node::Group(members) => {
            out.push(path.to_owned());
            members.iter().for_each(|(name, e)| paths(e, &format!("{path}/{name}"), out));
        }
        _ => panic!("{path}: neither"),
    }
}

#[test]
fn genes_and_the_rest_are_read() {
    let Some(folder) = folder() else { return };
    for path in files(&folder) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let backend = open(&path, &Hdf5Options::default());
        let schema = backend.schema();
        let keys = schema.matrices.iter().map(|m| m.key.clone()).chain([MatrixKey::X]);
        for key in keys {
            let table = block_on(backend.read_var(&key)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let var = schema.matrices.iter().find(|m| m.key == key).map_or(&schema.var, |m| &m.var);
            assert_eq!(table.n_rows(), var.n_vars, "{name}: {key}");
            let unreadable = |c: &&ColumnSchema| matches!(c.kind, ColumnKind::Unreadable(_));
            let readable = var.columns.iter().filter(|c| !unreadable(c)).count();
            assert_eq!(table.columns().len(), readable, "{name}: {key}");
            assert_eq!(table.index().is_some(), !var.names.is_empty(), "{name}: {key}");
        }
        let archive = backend.archive().unwrap();
        let extras = block_on(archive.read_extras(u64::MAX));
        let extras = extras.unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut found = Vec::new();
        extras.elements.iter().for_each(|(top, e)| paths(e, top, &mut found));
        eprintln!("{name}: {found:?}; left out: {:?}", extras.left_out);
        for (key, matrix) in schema.matrices.iter().map(|m| (&m.key, m)) {
            if matrix.encoding == Encoding::Csc {
                let genes = RowRanges::single(0..matrix.n_vars());
                let columns = block_on(archive.read_columns(key, &genes)).unwrap();
                assert_eq!(Some(columns.nnz() as u64), matrix.nnz, "{name}: {key}");
            }
        }
        // What is left out under a limit is named.
        let none = block_on(archive.read_extras(0)).unwrap();
        let mut rest = Vec::new();
        none.elements.iter().for_each(|(top, e)| paths(e, top, &mut rest));
        assert!(rest.iter().all(|p| !p.ends_with(']') || p.ends_with("[0]")), "{name}: {rest:?}");
        assert!(none.left_out.len() >= extras.left_out.len(), "{name}");
    }
}

#[test]
fn known_facts_hold() {
    let Some(folder) = folder() else { return };
    // File, cells, genes, and the sum of X where it is known.
    let facts = [
        ("derived_habib17_counts.h5ad", 13_067, 25_587, Some(11_605_705.0)),
        ("morarach20.h5ad", 3_217, 16_934, None),
        ("lca_subset.h5ad", 1_000, 23_681, None),
        ("pbmc3k_raw_h5sparse.h5ad", 2_700, 32_738, None),
        ("GSM4475052_C149_10x.h5", 2_879, 33_539, None),
        ("10x_v3_tiny.h5", 1_107, 507, None),
        ("totalvi_dense_int64.h5ad", 400, 100, None),
        ("pbmc_5k_protein_v3_lzf.h5ad", 200, 16_581, None),
    ];
    for (name, n_obs, n_vars, total) in facts {
        let path = folder.join(name);
        if !path.exists() {
            eprintln!("SKIPPED: no {name}");
            continue;
        }
        let backend = open(&path, &Hdf5Options::default());
        let schema = backend.schema();
        assert_eq!((schema.n_obs, schema.var.n_vars), (n_obs, n_vars), "{name}");
        if let Some(total) = total {
            let rows = block_on(backend.read_all_rows(&MatrixKey::X)).unwrap();
            assert!((sum(&rows) - total).abs() < 0.5, "{name}: {}", sum(&rows));
        }
    }
}

#[cfg(feature = "libhdf5")]
mod both_readers {
    use super::*;
    use cellfeed_hdf5::Reader;

    /// What both can read is equal bit for bit. The reference library's binding knows no f16.
    fn same(a: &Contents, b: &Contents, name: &str) {
        let bits = |s: &cellfeed_core::CsrSegment| {
            s.values().to_f64_vec().into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        for (key, a) in &a.0 {
            let Some((_, b)) = b.0.iter().find(|(k, _)| k == key) else {
                eprintln!("{name}: {key} is read by one reader only");
                continue;
            };
            assert_eq!(
                (a.nnz(), a.segments().len()),
                (b.nnz(), b.segments().len()),
                "{name}: {key}"
            );
            for (a, b) in a.segments().iter().zip(b.segments()) {
                assert_eq!(a.indptr(), b.indptr(), "{name}: {key}");
                assert_eq!(a.indices().to_u32_vec(), b.indices().to_u32_vec(), "{name}: {key}");
                assert_eq!(bits(a), bits(b), "{name}: {key}");
            }
        }
        for (column, a) in &a.1 {
            match b.1.iter().find(|(c, _)| c == column) {
                Some((_, b)) => assert_eq!(a.to_data(), b.to_data(), "{name}: {column}"),
                None => eprintln!("{name}: {column} is read by one reader only"),
            }
        }
    }

    fn compare(path: &Path) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let pure = Hdf5Options::default();
        let native = Hdf5Options::default().with_reader(Reader::Libhdf5);
        let open = |options| Hdf5Backend::open(path, Arc::new(Engine::default()), options);
        match (open(&pure), open(&native)) {
            (Ok(pure), Ok(native)) => {
                same(&contents(&pure, &name), &contents(&native, &name), &name);
            }
            (Err(_), Err(_)) => {}
            (Err(e), Ok(_)) => {
                assert_eq!(e.kind(), cellfeed_core::ErrorKind::Unsupported, "{name}: {e}");
            }
            (Ok(_), Err(e)) => panic!("{name}: only the reference library fails: {e}"),
        }
    }

    #[test]
    fn agree_on_real_files() {
        let Some(folder) = folder() else { return };
        files(&folder).iter().for_each(|path| compare(path));
    }

    #[test]
    fn agree_on_testdata() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/h5ad");
        files(&folder).iter().for_each(|path| compare(path));
    }
}
