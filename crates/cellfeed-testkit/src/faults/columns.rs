//! A store in memory whose layers are stored by columns, whole or with a defect.

use super::Fault;
use crate::fixtures::memory_backend;
use crate::oracle::{Oracle, OracleMatrix};
use crate::subject::Subject;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::{
    Archive, Backend, CsrRows, Encoding, Error, Extras, Hints, MatrixKey, MemoryBackend, ReadCost,
    Result, RowRanges, Schema, Table,
};
use std::sync::Arc;

#[derive(Debug)]
struct ByColumns {
    inner: MemoryBackend,
    schema: Arc<Schema>,
    /// Each layer with genes for rows, and as a store whose `X` it is.
    layers: Vec<(OracleMatrix, MemoryBackend)>,
    fault: Option<Fault>,
}

pub(super) fn subject(mut oracle: Oracle, fault: Option<Fault>) -> Result<Subject> {
    let inner = memory_backend(&oracle)?;
    let mut schema = Schema::clone(inner.schema());
    for matrix in &mut schema.matrices {
        if matches!(matrix.key, MatrixKey::Layer(_)) {
            matrix.encoding = Encoding::Csc;
            matrix.unreadable = Some("it is stored by columns; convert it to CSR".to_owned());
        }
    }
    let mut layers = Vec::new();
    for matrix in &mut oracle.matrices {
        if matches!(matrix.key, MatrixKey::Layer(_)) {
            matrix.encoding = Encoding::Csc;
            let transposed = matrix.transposed();
            let alone = OracleMatrix { key: MatrixKey::X, ..transposed.clone() };
            let alone = Oracle {
                n_obs: matrix.n_vars,
                n_vars: oracle.n_obs,
                matrices: vec![alone],
                ..Oracle::default()
            };
            layers.push((transposed, memory_backend(&alone)?));
        }
    }
    let backend = ByColumns { inner, schema: Arc::new(schema), layers, fault };
    Ok(Subject::new(Arc::new(backend), oracle).with_shared_memory())
}

impl ByColumns {
    fn layer(&self, key: &MatrixKey) -> Result<&(OracleMatrix, MemoryBackend)> {
        let found = self.layers.iter().find(|(layer, _)| layer.key == *key);
        found.ok_or_else(|| Error::unsupported(format!("{key} is stored by rows")))
    }

    fn readable(&self, matrix: &MatrixKey) -> Result<()> {
        self.schema.matrix(matrix).map(|_| ())
    }
}

#[async_trait]
impl Backend for ByColumns {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.readable(matrix)?;
        self.inner.cost(matrix, rows)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.readable(matrix)?;
        self.inner.read_rows(matrix, rows).await
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

#[async_trait]
impl Archive for ByColumns {
    async fn read_extras(&self, _limit: u64) -> Result<Extras> {
        Ok(Extras::default())
    }

    fn column_cost(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<ReadCost> {
        let (layer, store) = self.layer(matrix)?;
        if self.fault != Some(Fault::ColumnsShorter) {
            genes.check_within(store.schema().n_obs)?;
        }
        let nnz: u64 = match self.fault {
            Some(Fault::ColumnCostTooLow) => 0,
            _ => u64::try_from(layer.values.len()).unwrap_or(u64::MAX),
        };
        let value = u64::try_from(layer.values.value_type().size()).unwrap_or(8);
        // As if every gene were asked for, each in a segment of its own.
        let kept = nnz * (4 + value) + 2 * genes.n_rows() * 8 + 8;
        Ok(ReadCost { bytes_held: kept, bytes_kept: kept, exact: true, ..ReadCost::default() })
    }

    async fn read_columns(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<CsrRows> {
        let (_, store) = self.layer(matrix)?;
        match self.fault {
            Some(Fault::ColumnsAreRows) => {
                genes.check_within(store.schema().n_obs)?;
                self.inner.read_rows(matrix, genes).await
            }
            Some(Fault::ColumnsReversed) => {
                let answer = store.read_rows(&MatrixKey::X, genes).await?;
                Ok(CsrRows::new(answer.segments().iter().rev().cloned().collect()))
            }
            Some(Fault::ColumnsShorter) => {
                let n_vars = store.schema().n_obs;
                let there = genes.as_slice().iter().filter(|r| r.start < n_vars);
                let there = there.map(|r| r.start..r.end.min(n_vars));
                let genes = RowRanges::try_from_ranges(there)?;
                store.read_rows(&MatrixKey::X, &genes).await
            }
            _ => store.read_rows(&MatrixKey::X, genes).await,
        }
    }
}
