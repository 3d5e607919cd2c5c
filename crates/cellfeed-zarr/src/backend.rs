//! The `Backend` of Zarr stores: an AnnData group, or a collection of them.

use crate::collection;
use crate::group::Group;
use crate::options::ZarrOptions;
use crate::read::Context;
use crate::read::roofline::Bench;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::{Engine, FileSet, Folder, Roofline};
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Hints, MatrixKey, ReadCost, Result, RowRanges, Schema,
    StoredRows, Table,
};
use std::path::Path;
use std::sync::Arc;

/// An AnnData store in Zarr v2 or v3, or a collection of annbatch's.
#[derive(Debug)]
pub struct ZarrBackend {
    inner: Arc<dyn Backend>,
    /// The one group, or those of a collection.
    groups: Vec<Arc<Group>>,
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
    pub fn open(path: &Path, engine: Arc<Engine>, options: &ZarrOptions) -> Result<Self> {
        let blame = |e: Error| e.with_default("file", path.display());
        let found = path.metadata().map_err(|e| blame(Error::io("cannot open", e)))?;
        if !found.is_dir() {
            return Err(blame(Error::unsupported(
                "this is a file, a Zarr store is a folder: if it is zipped, unpack it first, with \
                 unzip NAME -d DIR",
            )));
        }
        Self::open_in(Arc::new(FileSet::new(path, Arc::clone(&engine))), engine, options)
    }

    /// As [`open`](Self::open), a store whose root is the folder's, wherever that is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(
        files: Arc<dyn Folder>,
        engine: Arc<Engine>,
        _options: &ZarrOptions,
    ) -> Result<Self> {
        let location = files.location().to_owned();
        let blame = |e: Error| e.with_default("file", &location);
        let files = crate::consolidated::listed(files).map_err(blame)?;
        // Many small files: a folder that is far gets them at once.
        files.read_soon(&|name| {
            let name = name.rsplit('/').next().unwrap_or_default();
            ["zarr.json", ".zarray", ".zgroup", ".zattrs"].contains(&name)
        });
        let context = Context { files, engine };
        if let Some(datasets) = collection::datasets(&*context.files).map_err(blame)? {
            let groups = collection::open(&context, &datasets).map_err(blame)?;
            let inner = collection::join(&context, &groups).map_err(blame)?;
            return Ok(Self { inner, groups });
        }
        let group = Arc::new(Group::open(&context, "").map_err(blame)?);
        Ok(Self { inner: Arc::clone(&group) as Arc<dyn Backend>, groups: vec![group] })
    }

    /// How long disk, decoder and memory take for just the bytes that these fetches need: for
    /// benchmarks. Blocks, and works on `threads` threads of its own.
    ///
    /// # Errors
    /// As [`read_rows`](Backend::read_rows), and `Unsupported` for what is not CSR.
    #[doc(hidden)]
    pub fn roofline(
        &self,
        matrix: &MatrixKey,
        fetches: &[RowRanges],
        threads: usize,
    ) -> Result<Roofline> {
        let (mut bench, mut first) = (Bench::new(threads)?, true);
        // Once before anything is timed: buffers are kept ones, whose pages are there.
        for rows in fetches.iter().take(1).chain(fetches) {
            rows.check_within(self.schema().n_obs)?;
            let mut start = 0;
            for group in &self.groups {
                let end = start + group.schema().n_obs;
                let within = rows.as_slice().iter().map(|r| {
                    let cut = |row: u64| row.clamp(start, end) - start;
                    cut(r.start)..cut(r.end)
                });
                let part = RowRanges::try_from_ranges(within.filter(|r| !r.is_empty()))?;
                group.measure(matrix, &part, &mut bench)?;
                start = end;
            }
            if std::mem::take(&mut first) {
                bench.limits = Roofline::default();
            }
        }
        Ok(bench.limits)
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

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        self.inner.read_stored(matrix, rows).await
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
