//! The `Backend` of HDF5 files: looks matrices and columns up, and leaves the reading to `read`.

use crate::container::{self, Container, Limits};
use crate::layout::{self, Genes, Matrix, Opened};
use crate::options::{Hdf5Options, Reader};
use crate::read::{Column, Context, SparseMatrix, extra_names, read_extras};
use arrow_array::{ArrayRef, StringArray};
use async_trait::async_trait;
use cellfeed_core::io::{Access, ByteSource, Engine, LocalFile, Roofline};
use cellfeed_core::{
    Archive, Backend, ColumnKind, CsrRows, Error, ErrorKind, Extras, Hints, MatrixKey, ReadCost,
    Result, RowRanges, Schema, StoredRows, Table,
};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// An AnnData `.h5ad`, a part of a `.h5mu`, or a 10x Genomics `.h5` file.
#[derive(Debug)]
pub struct Hdf5Backend {
    context: Context,
    schema: Arc<Schema>,
    matrices: Vec<(MatrixKey, Matrix)>,
    columns: Vec<Column>,
    var: Genes,
    raw_var: Option<Genes>,
    /// The group inside the file.
    root: String,
}

/// Fetches that are worth reading at once where each read waits long.
const FAR_AT_ONCE: usize = 4;

/// Metadata comes through the same file as data.
#[derive(Debug)]
struct Metadata(Arc<dyn ByteSource>);

impl container::ReadAt for Metadata {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn is_far(&self) -> bool {
        self.0.is_far()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buf).map_err(io::Error::other)
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<u8>> {
        self.0.read_ranges(ranges).map_err(io::Error::other)
    }
}

impl Hdf5Backend {
    /// Opens a file: parses its metadata, reads `indptr` and the gene names. Blocks meanwhile; obs
    /// columns are read when they are asked for.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io` if the file cannot be opened, `Unsupported` if it is not one of
    /// the formats or of an encoding that is not read, `Corrupt` if it contradicts itself.
    pub fn open(path: &Path, engine: Arc<Engine>, options: &Hdf5Options) -> Result<Self> {
        let source = Arc::new(LocalFile::open(path, Arc::clone(&engine))?);
        Self::open_at(source, Some(path), engine, options)
    }

    /// As [`open`](Self::open), a file that is anywhere. Only the pure-Rust reader can.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_source(
        source: Arc<dyn ByteSource>,
        engine: Arc<Engine>,
        options: &Hdf5Options,
    ) -> Result<Self> {
        Self::open_at(source, None, engine, options)
    }

    fn open_at(
        source: Arc<dyn ByteSource>,
        path: Option<&Path>,
        engine: Arc<Engine>,
        options: &Hdf5Options,
    ) -> Result<Self> {
        #[cfg(not(feature = "libhdf5"))]
        let _ = path;
        let name = source.location().to_owned();
        let pure = container::open_pure(Metadata(Arc::clone(&source)), &name, Limits::default());
        let container: Arc<dyn Container> = match options.reader {
            Reader::Pure => Arc::new(pure?),
            #[cfg(feature = "libhdf5")]
            Reader::Libhdf5 => {
                if let Err(e) = pure
                    && e.kind() != ErrorKind::Unsupported
                {
                    return Err(e);
                }
                let path = path.ok_or_else(|| {
                    Error::unsupported(
                        "libhdf5 reads files of this machine alone: use the pure-Rust reader",
                    )
                    .with("file", &name)
                })?;
                Arc::new(container::open_libhdf5(path, Limits::default())?)
            }
        };
        let context = Context::new(engine, source, container, options.access)?;
        // One deep stack for all the metadata.
        let opened = container::guard::deep(|| {
            futures::executor::block_on(layout::open(&context, &options.root))
        })?;
        let Opened { schema, matrices, columns, var, raw_var } =
            opened.map_err(|e| e.with_default("file", &name))?;
        let (schema, root) = (Arc::new(schema), options.root.clone());
        Ok(Self { context, schema, matrices, columns, var, raw_var, root })
    }

    /// The bare limits of the machine for the bytes that `read_rows` of these fetches needs: for
    /// benchmarks. Blocks, and works on `threads` threads of its own; of a file that is not in the
    /// page cache (`cold`) it reads through the byte source.
    ///
    /// # Errors
    /// As [`read_rows`](Backend::read_rows); of kind `Unsupported` for a dense matrix, and for
    /// chunks that only the HDF5 library decodes.
    #[doc(hidden)]
    pub fn roofline(
        &self,
        matrix: &MatrixKey,
        fetches: &[RowRanges],
        threads: usize,
        cold: bool,
    ) -> Result<Roofline> {
        for rows in fetches {
            rows.check_within(self.schema.n_obs)?;
        }
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => {
                crate::read::roofline::measure(&self.context, m, fetches, threads, cold)
            }
            _ => Err(Error::unsupported("limits are known for CSR matrices alone")),
        }
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&Matrix> {
        self.schema.pick(key, &self.matrices)
    }

    async fn stored(
        &self,
        matrix: &MatrixKey,
        rows: &RowRanges,
        access: Access,
    ) -> Result<StoredRows> {
        rows.check_within(self.schema.n_obs)?;
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.read(&self.context, rows, access).await,
            Matrix::Dense(m) => m.read(&self.context, rows).await.map(StoredRows::from),
            Matrix::ByColumns(_) => Err(not_by_rows(matrix)),
        }
    }

    /// A matrix that is stored by columns, if it has these genes.
    /// Members of uns that are no extras: old files keep the categories of obs and var there, and here they
    /// are with their columns.
    fn categories_in_uns(&self) -> Vec<String> {
        let raw = self.raw_var.iter().flat_map(|genes| &genes.schema.columns);
        let columns = self.schema.obs.iter().chain(&self.schema.var.columns).chain(raw);
        let taken = columns.filter(|c| c.encoding == layout::CATEGORIES_IN_UNS);
        taken.map(|c| format!("{}_categories", c.name)).collect()
    }

    fn by_columns(&self, key: &MatrixKey, genes: &RowRanges) -> Result<&SparseMatrix> {
        match self.matrices.iter().find(|(k, _)| k == key) {
            Some((_, Matrix::ByColumns(matrix))) => {
                let n_vars = matrix.offsets.n_rows();
                if genes.end() > n_vars {
                    return Err(Error::out_of_bounds(format!(
                        "gene {} was asked for, but {key} has {n_vars}",
                        genes.end() - 1
                    ))
                    .with("file", &self.schema.location));
                }
                Ok(matrix)
            }
            _ => {
                self.schema.matrix(key)?;
                Err(Error::unsupported(format!("{key} is stored by rows; read it by rows"))
                    .with("file", &self.schema.location))
            }
        }
    }

    /// Refuses a matrix that is not there; one that cannot be read by rows has genes all the same.
    fn check_exists(&self, key: &MatrixKey) -> Result<()> {
        if self.schema.matrices.iter().any(|m| m.key == *key) {
            return Ok(());
        }
        self.schema.matrix(key).map(|_| ())
    }
}

/// The schema says so, with the remedy, before anybody gets here.
fn not_by_rows(matrix: &MatrixKey) -> Error {
    Error::unsupported(format!("{matrix} is stored by columns"))
}

#[async_trait]
impl Backend for Hdf5Backend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        let rows = self.schema.find(&MatrixKey::X).and_then(|m| {
            let data = m.arrays.last()?;
            let chunk = *data.chunk.as_ref()?.first()? as f64;
            // Elements of a sparse chunk, rows of a dense one.
            match m.nnz {
                Some(nnz) => Some(chunk * self.schema.n_obs as f64 / (nnz.max(1)) as f64),
                None => Some(chunk),
            }
        });
        // A fetch overlaps its own reading and decoding, which is enough where reads begin at once.
        let concurrency = if self.context.source.is_far() { FAR_AT_ONCE } else { 1 };
        Hints { chunk_rows: rows, concurrency }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.cost(rows),
            Matrix::Dense(m) => Ok(m.cost(rows)),
            Matrix::ByColumns(_) => Err(not_by_rows(matrix)),
        }
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        let access = self.context.access.of_kept();
        let found = self.stored(matrix, rows, access).await?;
        found.canonical_on(&self.context.engine, rows).await
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        self.stored(matrix, rows, self.context.access).await
    }

    async fn will_read(&self, matrix: &MatrixKey, rows: &RowRanges) {
        // What is wrong with the rows the read will tell.
        if let (Ok(()), Ok(Matrix::Sparse(m))) =
            (rows.check_within(self.schema.n_obs), self.matrix(matrix))
        {
            m.will_read(&self.context, rows).await;
        }
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        rows.check_within(self.schema.n_obs)?;
        let mut arrays = Vec::with_capacity(columns.len());
        for name in columns {
            self.schema.check_obs(name)?;
            let column = self.columns.iter().find(|c| c.schema.name == *name).ok_or_else(|| {
                Error::internal(format!("column {name} is in the schema, but was not opened"))
            })?;
            arrays.push(column.read(&self.context, rows).await?);
        }
        Ok(arrays)
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let genes = match matrix {
            MatrixKey::X => &self.var,
            MatrixKey::Layer(_) => {
                self.check_exists(matrix)?;
                &self.var
            }
            MatrixKey::Raw => {
                self.check_exists(matrix)?;
                self.raw_var
                    .as_ref()
                    .ok_or_else(|| Error::internal("raw/X is there, but its genes are not"))?
            }
        };
        genes.table(&self.context).await.map_err(|e| e.with_default("file", &self.schema.location))
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

#[async_trait]
impl Archive for Hdf5Backend {
    async fn read_extras(&self, limit: u64) -> Result<Extras> {
        if self.schema.format != "h5ad" {
            return Ok(Extras::default());
        }
        let taken = self.categories_in_uns();
        let extras = read_extras(&self.context, &self.root, taken, limit).await;
        extras.map_err(|e| e.with_default("file", &self.schema.location))
    }

    async fn extra_names(&self) -> Result<Vec<String>> {
        if self.schema.format != "h5ad" {
            return Ok(Vec::new());
        }
        let names = extra_names(&self.context, &self.root, self.categories_in_uns()).await;
        names.map_err(|e| e.with_default("file", &self.schema.location))
    }

    fn column_cost(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<ReadCost> {
        self.by_columns(matrix, genes)?.cost(genes)
    }

    async fn read_columns(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<CsrRows> {
        let found = self.by_columns(matrix, genes)?;
        let read = async {
            let found = found.read(&self.context, genes, Access::Read).await?;
            found.canonical_on(&self.context.engine, genes).await
        };
        read.await.map_err(by_genes)
    }
}

/// Says which gene an error is about that the transposed matrix calls a row.
fn by_genes(error: Error) -> Error {
    let message = format!("of the transposed matrix (its rows are genes): {}", error.message());
    let context = error
        .context()
        .map(|(key, value)| (if key == "row" { "gene" } else { key }, value.to_owned()));
    let context: Vec<(&'static str, String)> = context.collect();
    let renamed = Error::new(error.kind(), message).caused_by(error);
    context.into_iter().fold(renamed, |e, (key, value)| e.with(key, value))
}

impl Genes {
    /// Names, and every column that can be read.
    async fn table(&self, context: &Context) -> Result<Table> {
        let n_vars = self.schema.n_vars;
        let all = RowRanges::single(0..n_vars);
        let mut columns: Vec<(cellfeed_core::ColumnSchema, ArrayRef)> = Vec::new();
        for column in &self.columns {
            let listed = columns.iter().any(|(c, _)| c.name == column.schema.name);
            if listed || matches!(column.schema.kind, ColumnKind::Unreadable(_)) {
                continue;
            }
            match column.read(context, &all).await {
                Ok(values) => columns.push((column.schema.clone(), values)),
                // Of an encoding that only turns out when it is decoded.
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) => return Err(e),
            }
        }
        let names = &self.schema.names;
        let index = (!names.is_empty()).then(|| {
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            (self.index.clone(), names)
        });
        Table::try_new(n_vars, index, columns)
    }
}
