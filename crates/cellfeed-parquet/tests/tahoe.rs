//! Tahoe-100M's layout as pyarrow writes it: shards, small pages without an index, version 2 of
//! pages, page indexes; and files that must be refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::single_range_in_vec_init)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, Error, ErrorKind, MatrixKey, Result, RowRanges};
use cellfeed_parquet::{ParquetBackend, ParquetOptions, is_parquet};
use cellfeed_testkit::{Oracle, OracleValues, PeakAlloc, Subject, check_oracle, conformance};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet")
}

fn open_with(path: &Path, options: &ParquetOptions) -> Result<ParquetBackend> {
    ParquetBackend::open(path, Arc::new(Engine::default()), options)
}

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(open_with(path, &ParquetOptions::default())?))
}

/// As a copy of one file is opened, which has no genes beside it.
fn open_alone(path: &Path) -> Result<Arc<dyn Backend>> {
    let genes = data().join("gene_metadata.parquet");
    Ok(Arc::new(open_with(path, &ParquetOptions::default().with_gene_metadata(genes))?))
}

fn oracle() -> Oracle {
    Oracle::load(&data().join("tahoe.oracle.json")).unwrap()
}

fn shards() -> Vec<Subject> {
    vec![Subject::on_disk(&data().join("tahoe"), oracle(), open).unwrap()]
}

fn files() -> Vec<Subject> {
    let names = ["tahoe-small-pages", "tahoe-v2", "tahoe-plain"];
    let one = |name: &str| {
        let path = data().join(format!("{name}.parquet"));
        Subject::on_disk(&path, oracle(), open_alone).unwrap()
    };
    names.into_iter().map(one).collect()
}

conformance!(folder_of_shards, shards);
conformance!(single_files, files);

/// A copy of the folder, to be damaged.
fn copy() -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(std::result::Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                all(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    all(&data().join("tahoe"), folder.path());
    folder
}

#[test]
fn genes_are_found_beside_and_above() {
    for path in ["tahoe", "tahoe/data", "tahoe/data/train-00000-of-00003.parquet"] {
        let path = data().join(path);
        assert!(is_parquet(&path), "{}", path.display());
        let store = open(&path).unwrap();
        assert_eq!(store.schema().var.names[0], "ENSG00000000000");
        assert_eq!(store.schema().obs_index.as_deref(), Some("BARCODE_SUB_LIB_ID"));
    }
    let folder = copy();
    std::fs::remove_file(folder.path().join("metadata/gene_metadata.parquet")).unwrap();
    let error = open(folder.path()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("gene_metadata.parquet"), "{error}");
    let genes = data().join("gene_metadata.parquet");
    let options = ParquetOptions::default().with_gene_metadata(genes);
    check_oracle(&open_with(folder.path(), &options).unwrap(), &oracle()).unwrap();
}

#[test]
fn a_missing_shard_is_an_error_unless_it_is_allowed() {
    let folder = copy();
    std::fs::remove_file(folder.path().join("data/train-00001-of-00003.parquet")).unwrap();
    let error = open(folder.path()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains("train-00001-of-00003.parquet") && text.contains("allow"), "{text}");
    let options = ParquetOptions::default().with_missing_shards(true);
    let store = open_with(folder.path(), &options).unwrap();
    assert_eq!(store.schema().n_obs, 60);
}

#[test]
fn shards_of_other_columns_are_refused_by_name() {
    let folder = copy();
    let odd = folder.path().join("data/train-00001-of-00003.parquet");
    std::fs::copy(data().join("bad/null-gene.parquet"), &odd).unwrap();
    let error = open(folder.path()).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("train-00001-of-00003.parquet") && text.contains("drug"), "{text}");
    let genes = folder.path().join("metadata/gene_metadata.parquet");
    let error = open(&genes).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("token_id"), "{error}");
}

#[test]
fn bad_cells_are_refused_where_they_lie() {
    let text = std::fs::read_to_string(data().join("bad/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let path = data().join("bad").join(name);
        let words = expected["words"].as_array().unwrap();
        let says = |error: &Error| {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word.as_str().unwrap()), "{name}: {text}");
            }
            assert!(text.contains(name), "{name}: {text}");
            // The name has the word too.
            assert!(!name.contains("token") || error.message().contains("token"), "{text}");
        };
        let Some(row) = expected["row"].as_u64() else {
            says(&open(&path).map(|_| ()).unwrap_err());
            continue;
        };
        let store = open(&path).unwrap();
        let read = |rows: &[std::ops::Range<u64>]| {
            let rows = RowRanges::try_from_ranges(rows.to_vec()).unwrap();
            block_on(store.read_rows(&MatrixKey::X, &rows))
        };
        for rows in [vec![0..30], vec![row..row + 1], vec![0..2, row - 1..row + 1]] {
            let error = read(&rows).unwrap_err();
            says(&error);
            let named = error.context().any(|(k, v)| k == "row" && v == row.to_string());
            assert!(named, "{name}: {error}");
        }
        // What is not asked for does no harm; nor does it to obs.
        if name != "other-lengths.parquet" {
            assert_eq!(read(&[0..row, row + 1..30]).unwrap().n_rows(), 29, "{name}");
        }
        let all = RowRanges::single(0..30);
        block_on(store.read_obs(&["plate".to_owned()], &all)).unwrap();
    }
}

#[test]
fn what_is_not_asked_for_is_not_read() {
    let path = data().join("tahoe");
    let engine = Arc::new(Engine::default());
    let store = ParquetBackend::open(&path, Arc::clone(&engine), &ParquetOptions::default());
    let store = store.unwrap();
    assert_eq!(engine.stats().snapshot().bytes_read, 0, "opening reads no data");
    let all = RowRanges::single(0..61);
    let bytes = |columns: &[&str]| {
        let before = engine.stats().snapshot();
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        block_on(store.read_obs(&columns, &all)).unwrap();
        engine.stats().snapshot().since(&before).bytes_wanted
    };
    let (drug, plate) = (bytes(&["drug"]), bytes(&["plate"]));
    assert_eq!(bytes(&["plate", "drug"]), drug + plate);
    assert_eq!(bytes(&["plate", "plate"]), plate);
    // One row group of seven, and of that one column.
    let before = engine.stats().snapshot();
    let rows = RowRanges::single(30..31);
    let cost = store.cost(&MatrixKey::X, &rows).unwrap();
    block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap();
    let read = engine.stats().snapshot().since(&before);
    assert_eq!(read.bytes_wanted, cost.bytes_read);
    let whole = store.cost(&MatrixKey::X, &all).unwrap().bytes_read;
    assert!(read.bytes_wanted * 3 < whole, "{read:?} of {whole}");
}

/// The real table of genes, where it is present: it is no part of the project.
#[test]
fn the_real_table_of_genes_is_read() {
    let folder = std::env::var_os("CELLFEED_REAL_FILES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let genes = folder.join("tahoe_meta/gene_metadata.parquet");
    if !genes.is_file() {
        eprintln!("SKIPPED: no real table of genes at {}", genes.display());
        return;
    }
    let options = ParquetOptions::default().with_gene_metadata(genes);
    let store = open_with(&data().join("tahoe"), &options).unwrap();
    let schema = store.schema();
    assert_eq!((schema.var.n_vars, schema.var.names[0].as_str()), (62_710, "ENSG00000000003"));
    let var = block_on(store.read_var(&MatrixKey::X)).unwrap();
    let symbols = var.column("gene_symbol").unwrap();
    assert!(format!("{:?}", symbols.slice(0, 1)).contains("TSPAN6"));
    // Tokens begin at 3 and go up one by one, so that the genes' order is that of the tokens.
    let want = oracle();
    let rows = block_on(store.read_rows(&MatrixKey::X, &RowRanges::single(0..61))).unwrap();
    let n: usize = rows.segments().iter().map(cellfeed_core::CsrSegment::nnz).sum();
    assert_eq!(n, want.matrices[0].indices.len());
    let OracleValues::Integer(tokens) = &want.var[1].values else { panic!("tokens") };
    let mut first: Vec<i128> = want.matrices[0].indices
        [..usize::try_from(want.matrices[0].indptr[2]).unwrap()]
        .iter()
        .map(|&g| tokens[g as usize].unwrap() - 3)
        .collect();
    first.sort_unstable();
    let got: Vec<i128> = rows
        .segments()
        .iter()
        .flat_map(|s| s.indices().to_u32_vec())
        .take(first.len())
        .map(i128::from)
        .collect();
    assert_eq!(got, first);
}
