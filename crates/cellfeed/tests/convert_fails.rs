//! Conversions that fail in the middle: nothing of them is left.
#![cfg(feature = "csr")]
#![allow(clippy::unwrap_used)]

use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed::io::Engine;
use cellfeed::{ConvertOptions, Error, ErrorKind, Result, Store};
use cellfeed_core::{
    Archive, Backend, CsrRows, Hints, MatrixKey, ReadCost, RowRanges, Schema, Table,
};
use cellfeed_testkit::fixtures;
use std::sync::Arc;

/// A store whose reads fail from a row on.
#[derive(Debug)]
struct Failing(Arc<dyn Backend>, u64);

#[async_trait]
impl Backend for Failing {
    fn schema(&self) -> &Arc<Schema> {
        self.0.schema()
    }
    fn hints(&self) -> Hints {
        self.0.hints()
    }
    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.0.cost(matrix, rows)
    }
    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        if rows.end() > self.1 {
            return Err(Error::corrupt("the disk is on fire"));
        }
        self.0.read_rows(matrix, rows).await
    }
    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.0.read_obs(columns, rows).await
    }
    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.0.read_var(matrix).await
    }
    fn archive(&self) -> Option<&dyn Archive> {
        self.0.archive()
    }
}

#[test]
fn a_source_that_fails_while_the_last_rows_are_written_leaves_nothing() {
    let oracle = fixtures::oracle("large", 20_000, 90, 5);
    let folder = tempfile::tempdir().unwrap();
    for shuffle in [false, true] {
        for fails_from in [1, 9_000, 19_999] {
            let memory = Arc::new(fixtures::memory_backend(&oracle).unwrap());
            let engine = Arc::new(Engine::default());
            let source = Store::new(Arc::new(Failing(memory, fails_from)), engine);
            let mut options = ConvertOptions::default().with_memory(4 << 20);
            if shuffle {
                options = options.with_shuffle(1);
            }
            let path = folder.path().join("a.csr");
            let error = cellfeed::convert(&source, &path, &options, &mut |_| true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            // At once, and not when some thread has come to its end.
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 0, "shuffled {shuffle}, from row {fails_from}");
        }
    }
}
