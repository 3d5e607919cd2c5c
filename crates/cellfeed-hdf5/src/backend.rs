//! The `Backend` of HDF5 files: looks matrices and columns up, and leaves the reading to `read`.

use crate::container::{self, Container, Limits};
use crate::layout::{self, Matrix, Opened};
use crate::options::{Hdf5Options, Reader};
use crate::read::{Column, Context};
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::{ByteSource, Engine, LocalFile};
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Hints, MatrixKey, ReadCost, Result, RowRanges, Schema, Table,
};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// An AnnData `.h5ad`, a part of a `.h5mu`, or a 10x Genomics `.h5` file.
#[derive(Debug)]
pub struct Hdf5Backend {
    context: Context,
    schema: Arc<Schema>,
    matrices: Vec<(MatrixKey, Matrix)>,
    columns: Vec<Column>,
}

/// Metadata comes through the same file as data.
#[derive(Debug)]
struct Metadata(Arc<LocalFile>);

impl container::ReadAt for Metadata {
    fn len(&self) -> u64 {
        ByteSource::len(&*self.0)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buf).map_err(io::Error::other)
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
        let name = source.location().to_owned();
        let pure = container::open_pure(Metadata(Arc::clone(&source)), &name, Limits::default());
        let container: Arc<dyn Container> = match options.reader {
            Reader::Pure => Arc::new(pure?),
            #[cfg(feature = "libhdf5")]
            Reader::Libhdf5 => {
                if let Err(e) = pure
                    && e.kind() != cellfeed_core::ErrorKind::Unsupported
                {
                    return Err(e);
                }
                Arc::new(container::open_libhdf5(path, Limits::default())?)
            }
        };
        let context = Context::new(engine, source, container);
        // One deep stack for all the metadata.
        let opened = container::guard::deep(|| {
            futures::executor::block_on(layout::open(&context, &options.root))
        })?;
        let Opened { schema, matrices, columns } =
            opened.map_err(|e| e.with_default("file", &name))?;
        Ok(Self { context, schema: Arc::new(schema), matrices, columns })
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
    ) -> Result<crate::read::roofline::Roofline> {
        for rows in fetches {
            rows.check_within(self.schema.n_obs)?;
        }
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => {
                crate::read::roofline::Roofline::measure(&self.context, m, fetches, threads, cold)
            }
            Matrix::Dense(_) => Err(Error::unsupported("limits are known for CSR matrices alone")),
        }
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&Matrix> {
        self.schema.matrix(key)?;
        let found = self.matrices.iter().find(|(k, _)| k == key);
        found.map(|(_, matrix)| matrix).ok_or_else(|| {
            Error::internal(format!("matrix {key} is in the schema, but was not opened"))
        })
    }
}

#[async_trait]
impl Backend for Hdf5Backend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        let rows = self.schema.matrices.iter().find(|m| m.key == MatrixKey::X).and_then(|m| {
            let data = m.arrays.last()?;
            let chunk = *data.chunk.as_ref()?.first()? as f64;
            // Elements of a sparse chunk, rows of a dense one.
            match m.nnz {
                Some(nnz) => Some(chunk * self.schema.n_obs as f64 / (nnz.max(1)) as f64),
                None => Some(chunk),
            }
        });
        // A fetch overlaps its own reading and decoding.
        Hints { chunk_rows: rows, concurrency: 1 }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        Ok(match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.cost(rows),
            Matrix::Dense(m) => m.cost(rows),
        })
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        rows.check_within(self.schema.n_obs)?;
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.read(&self.context, rows).await,
            Matrix::Dense(m) => m.read(&self.context, rows).await,
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
        let var = match matrix {
            MatrixKey::X => &self.schema.var,
            _ => &self.schema.matrix(matrix)?.var,
        };
        Table::of_names(var.n_vars, &var.names)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        None
    }
}
