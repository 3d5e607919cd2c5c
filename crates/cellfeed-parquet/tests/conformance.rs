//! The eight laws on stores of our own writer, in both layouts and every codec, and the writer itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, Extras, NewStore, Result, WriteOptions};
use cellfeed_parquet::{ParquetBackend, ParquetOptions, create};
use cellfeed_testkit::writing::{Writing, batches, new_store};
use cellfeed_testkit::{Oracle, PeakAlloc, Subject, check_oracle, conformance, fixtures};
use std::path::Path;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    let options = ParquetOptions::default();
    Ok(Arc::new(ParquetBackend::open(path, Arc::new(Engine::default()), &options)?))
}

fn write(path: &Path, oracle: &Oracle, options: &WriteOptions) -> Result<()> {
    let new = new_store(oracle, Extras::default())?;
    let mut writer = create(path, new.clone(), options)?;
    for batch in batches(oracle, &new)? {
        writer.append(&batch)?;
    }
    writer.finish().map(|_| ())
}

fn subjects(codec: &str, page_rows: u64) -> Vec<Subject> {
    // Law 7 damages each some hundreds of times.
    let few = ["small", "every value type"];
    let options = WriteOptions::default().with_codec(codec).with_chunk_rows(page_rows);
    fixtures::oracles()
        .into_iter()
        .filter(|oracle| few.contains(&oracle.name.as_str()))
        .map(|oracle| {
            let write = |path: &Path, oracle: &Oracle| write(path, oracle, &options);
            Subject::written("store.parquet", oracle, write, open).unwrap()
        })
        .collect()
}

fn blobs_plain() -> Vec<Subject> {
    subjects("blob-none", 16)
}

fn blobs_lz4() -> Vec<Subject> {
    subjects("blob-lz4", 3)
}

fn lists_plain() -> Vec<Subject> {
    subjects("list-none", 16)
}

fn lists_zstd() -> Vec<Subject> {
    subjects("list-zstd:3", 7)
}

conformance!(blob_none, blobs_plain);
conformance!(blob_lz4, blobs_lz4);
conformance!(list_none, lists_plain);
conformance!(list_zstd, lists_zstd);

#[test]
fn the_writer_keeps_everything_but_extras() {
    for (codec, page_rows) in [
        ("blob", 16),
        ("none", 1),
        ("blob-zstd", 1 << 40),
        ("list-lz4", 5),
        ("list-none", 1 << 20),
        ("zstd:19", 64),
    ] {
        let create = |path: &Path, new: NewStore, options: &WriteOptions| {
            create(path, new, &options.clone().with_codec(codec).with_chunk_rows(page_rows))
        };
        Writing::new("store.parquet", create, open)
            .may_drop("uns")
            .may_drop("obsm")
            .may_drop("varm")
            .may_drop("obsp")
            .may_drop("varp")
            .check()
            .unwrap_or_else(|e| panic!("{codec}: {e}"));
    }
}

#[test]
fn every_fixture_is_read_in_every_codec() {
    let folder = tempfile::tempdir().unwrap();
    for codec in cellfeed_parquet::CODECS {
        for oracle in fixtures::oracles() {
            let path = folder.path().join(format!("{codec}-{}.parquet", oracle.name));
            write(&path, &oracle, &WriteOptions::default().with_codec(codec)).unwrap();
            assert!(cellfeed_parquet::is_parquet(&path));
            let store = open(&path).unwrap();
            check_oracle(store.as_ref(), &oracle).unwrap_or_else(|e| panic!("{codec}: {e}"));
        }
    }
}

#[test]
fn codecs_that_are_not_known_are_named() {
    let oracle = fixtures::oracle("a", 3, 5, 4);
    let folder = tempfile::tempdir().unwrap();
    for (codec, word) in [
        ("gzip", "blob-lz4"),
        ("list-gzip", "list-zstd"),
        ("tree-lz4", "list-zstd"),
        ("blob-zstd:23", "levels from 1 to 22"),
        ("lz4:1", "blob-lz4"),
    ] {
        let options = WriteOptions::default().with_codec(codec);
        let error = write(&folder.path().join("a.parquet"), &oracle, &options).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
