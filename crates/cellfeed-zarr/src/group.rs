//! One AnnData group as a backend: looks matrices and columns up, and leaves the reading to `read`.

use crate::layout::{self, Frame, Matrix, Opened};
use crate::read::sparse::SparseMatrix;
use crate::read::{self, Context};
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Extras, Hints, MatrixKey, ReadCost, Result, RowRanges,
    Schema, StoredRows, Table,
};
use std::sync::Arc;

/// Fetches that are worth reading at once where each read waits long.
const FAR_AT_ONCE: usize = 4;

/// An AnnData group.
#[derive(Debug)]
pub(crate) struct Group {
    context: Context,
    at: String,
    schema: Arc<Schema>,
    matrices: Vec<(MatrixKey, Matrix)>,
    obs: Frame,
    var: Frame,
    raw_var: Option<Frame>,
}

impl Group {
    /// Opens the group at `at` (`""` for the root).
    pub(crate) fn open(context: &Context, at: &str) -> Result<Self> {
        let Opened { schema, matrices, obs, var, raw_var } = layout::open(context, at)?;
        let (context, at) = (context.clone(), at.to_owned());
        Ok(Self { context, at, schema: Arc::new(schema), matrices, obs, var, raw_var })
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&Matrix> {
        self.schema.pick(key, &self.matrices)
    }

    /// What a benchmark measures of a matrix's rows.
    pub(crate) fn measure(
        &self,
        key: &MatrixKey,
        rows: &RowRanges,
        bench: &mut read::roofline::Bench,
    ) -> Result<()> {
        match self.matrix(key)? {
            Matrix::Sparse(m) => bench.measure(&self.context, m, rows).map_err(|e| self.blame(e)),
            _ => Err(Error::unsupported("limits are known for CSR matrices alone")),
        }
    }

    fn by_columns(&self, key: &MatrixKey, genes: &RowRanges) -> Result<&SparseMatrix> {
        match self.matrices.iter().find(|(k, _)| k == key) {
            Some((_, Matrix::ByColumns(matrix))) => {
                let n_vars = matrix.offsets.n_rows();
                if genes.end() > n_vars {
                    return Err(self.blame(Error::out_of_bounds(format!(
                        "gene {} was asked for, but {key} has {n_vars}",
                        genes.end() - 1
                    ))));
                }
                Ok(matrix)
            }
            _ => {
                self.schema.matrix(key)?;
                Err(self
                    .blame(Error::unsupported(format!("{key} is stored by rows; read it by rows"))))
            }
        }
    }

    fn blame(&self, error: Error) -> Error {
        error.with_default("file", &self.schema.location)
    }
}

/// The schema says so, with the remedy, before anybody gets here.
fn not_by_rows(matrix: &MatrixKey) -> Error {
    Error::unsupported(format!("{matrix} is stored by columns"))
}

#[async_trait]
impl Backend for Group {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        let x = self.schema.find(&MatrixKey::X);
        let rows = x.and_then(|m| {
            let chunk = *m.arrays.last()?.chunk.as_ref()?.first()? as f64;
            Some(match m.nnz {
                Some(nnz) => chunk * self.schema.n_obs as f64 / nnz.max(1) as f64,
                None => chunk,
            })
        });
        let concurrency = if self.context.files.is_far() { FAR_AT_ONCE } else { 2 };
        Hints { chunk_rows: rows, concurrency }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.cost(&self.context.engine, rows),
            Matrix::Dense(m) => Ok(m.cost(rows)),
            Matrix::ByColumns(_) => Err(not_by_rows(matrix)),
        }
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        let found = self.read_stored(matrix, rows).await?;
        found.canonical_on(&self.context.engine, rows).await
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        rows.check_within(self.schema.n_obs)?;
        let read = match self.matrix(matrix)? {
            Matrix::Sparse(m) => m.read(&self.context, rows).await,
            Matrix::Dense(m) => m.read(&self.context, rows).await.map(StoredRows::from),
            Matrix::ByColumns(_) => Err(not_by_rows(matrix)),
        };
        read.map_err(|e| self.blame(e))
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        rows.check_within(self.schema.n_obs)?;
        let mut arrays = Vec::with_capacity(columns.len());
        for name in columns {
            self.schema.check_obs(name)?;
            let all = self.obs.columns.iter().chain([&self.obs.index]);
            let column = all.into_iter().find(|c| c.schema.name == *name).ok_or_else(|| {
                Error::internal(format!("column {name} is in the schema, but was not opened"))
            })?;
            arrays.push(column.read(&self.context, rows).await.map_err(|e| self.blame(e))?);
        }
        Ok(arrays)
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        if *matrix != MatrixKey::X && !self.schema.matrices.iter().any(|m| m.key == *matrix) {
            self.schema.matrix(matrix)?;
        }
        let frame = match (matrix, &self.raw_var) {
            (MatrixKey::Raw, Some(raw)) => raw,
            _ => &self.var,
        };
        let mut columns = Vec::new();
        for column in &frame.columns {
            let values = column.whole(&self.context).await.map_err(|e| self.blame(e))?;
            columns.push((column.schema.clone(), values));
        }
        let index = frame.index.whole(&self.context).await.map_err(|e| self.blame(e))?;
        let text = arrow_array::cast::AsArray::as_string_opt::<i32>(&index).is_some();
        let index = text.then(|| (frame.index.schema.name.clone(), index));
        Table::try_new(frame.n_rows, index, columns)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

#[async_trait]
impl Archive for Group {
    async fn read_extras(&self, limit: u64) -> Result<Extras> {
        let read = read::extras::read_extras(&self.context, &self.at, limit).await;
        read.map_err(|e| self.blame(e))
    }

    async fn extra_names(&self) -> Result<Vec<String>> {
        read::extras::extra_names(&self.context, &self.at).await.map_err(|e| self.blame(e))
    }

    fn column_cost(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<ReadCost> {
        self.by_columns(matrix, genes)?.cost(&self.context.engine, genes)
    }

    async fn read_columns(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<CsrRows> {
        let found = self.by_columns(matrix, genes)?;
        let found = found.read(&self.context, genes).await.map_err(|e| self.blame(e))?;
        found.canonical_on(&self.context.engine, genes).await
    }
}
