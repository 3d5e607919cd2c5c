//! The `Backend` of Zarr stores: an AnnData group, or a collection of them.

use crate::collection;
use crate::group::Group;
use crate::options::ZarrOptions;
use crate::read::Context;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::{Engine, FileSet};
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Hints, MatrixKey, ReadCost, Result, RowRanges, Schema, Table,
};
use std::path::Path;
use std::sync::Arc;

/// An AnnData store in Zarr v2 or v3 on a local disk, or a collection of annbatch's.
#[derive(Debug)]
pub struct ZarrBackend {
    inner: Arc<dyn Backend>,
}

/// Whether a path is a Zarr store, by its files.
#[must_use]
pub fn looks_like(path: &Path) -> bool {
    [".zgroup", ".zmetadata", ".zarray", "zarr.json"].iter().any(|n| path.join(n).is_file())
}

impl ZarrBackend {
    /// Opens a store: reads its metadata, row offsets and the genes' names. Blocks meanwhile.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io` if the store cannot be opened, `Unsupported` if it is no AnnData or
    /// of an encoding that is not read, `Corrupt` if it contradicts itself.
    pub fn open(path: &Path, engine: Arc<Engine>, _options: &ZarrOptions) -> Result<Self> {
        let blame = |e: Error| e.with_default("file", path.display());
        let found = path.metadata().map_err(|e| blame(Error::io("cannot open", e)))?;
        if !found.is_dir() {
            return Err(blame(Error::unsupported(
                "this is a file, a Zarr store is a folder: if it is zipped, unpack it first, with \
                 unzip NAME -d DIR",
            )));
        }
        let files = Arc::new(FileSet::new(path, Arc::clone(&engine)));
        let context = Context { files, engine };
        let inner: Arc<dyn Backend> = match collection::datasets(path).map_err(blame)? {
            Some(datasets) => collection::open(&context, &datasets).map_err(blame)?,
            None => Arc::new(Group::open(&context, "").map_err(blame)?),
        };
        Ok(Self { inner })
    }
}

#[async_trait]
impl Backend for ZarrBackend {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.inner.cost(matrix, rows)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.inner.read_rows(matrix, rows).await
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }

    fn archive(&self) -> Option<&dyn Archive> {
        self.inner.archive()
    }
}
