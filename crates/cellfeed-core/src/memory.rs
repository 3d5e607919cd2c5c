//! A store held in memory: the oracle against which every other backend is tested, and a way to feed
//! data that is already in memory through the same sampler and loader.

use crate::backend::{Archive, Backend, Hints, ReadCost};
use crate::csr::{CsrRows, CsrSegment};
use crate::obs::take_rows;
use crate::rows::RowRanges;
use crate::schema::{
    ColumnKind, ColumnSchema, Encoding, MatrixKey, MatrixSchema, Schema, VarSchema,
};
use crate::table::Table;
use crate::value::{Indices, Value, Values};
use crate::{Error, Result};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::ScalarBuffer;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// A matrix in memory, in CSR form.
#[derive(Debug, Clone)]
pub struct MemoryMatrix {
    indptr: ScalarBuffer<u64>,
    indices: Indices,
    values: Values,
    var: Arc<VarSchema>,
}

impl MemoryMatrix {
    /// Checks and takes the arrays of a CSR matrix.
    ///
    /// # Errors
    /// As [`CsrSegment::try_new`].
    pub fn try_new<T: Value>(
        indptr: Vec<u64>,
        indices: Vec<u32>,
        values: Vec<T>,
        var: VarSchema,
    ) -> Result<Self> {
        let (indptr, indices, values) =
            (ScalarBuffer::from(indptr), Indices::from(indices), T::wrap(values.into()));
        CsrSegment::try_new(indptr.clone(), indices.clone(), values.clone(), var.n_vars)?;
        Ok(Self { indptr, indices, values, var: Arc::new(var) })
    }

    fn rows(&self, range: &Range<u64>) -> Result<CsrSegment> {
        let at = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let indptr = &self.indptr[at(range.start)..=at(range.end)];
        let base = indptr[0];
        let (start, end) = (at(base), at(indptr[indptr.len() - 1]));
        CsrSegment::try_new(
            indptr.iter().map(|&p| p - base).collect::<Vec<u64>>().into(),
            self.indices.slice(start, end - start),
            self.values.slice(start, end - start),
            self.var.n_vars,
        )
    }
}

/// A store in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    schema: Arc<Schema>,
    matrices: Vec<(MatrixKey, MemoryMatrix)>,
    obs: Vec<(String, ArrayRef)>,
}

impl MemoryBackend {
    /// Puts matrices and obs columns of `n_obs` rows together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a matrix or column has
    /// another number of rows.
    pub fn try_new(
        n_obs: u64,
        matrices: Vec<(MatrixKey, MemoryMatrix)>,
        obs: Vec<(ColumnSchema, ArrayRef)>,
    ) -> Result<Self> {
        let length = |name: &str, len: usize| {
            if u64::try_from(len).ok() == Some(n_obs) {
                return Ok(());
            }
            Err(Error::invalid_input(format!("{name} has {len} rows, but there are {n_obs} cells")))
        };
        let mut described = Vec::new();
        for (key, matrix) in &matrices {
            length(&key.to_string(), matrix.indptr.len() - 1)?;
            described.push(MatrixSchema {
                key: key.clone(),
                encoding: Encoding::Csr,
                value_type: matrix.values.value_type(),
                nnz: u64::try_from(matrix.values.len()).ok(),
                var: Arc::clone(&matrix.var),
                arrays: Vec::new(),
                unreadable: None,
            });
        }
        for (column, array) in &obs {
            length(&column.name, array.len())?;
        }
        let var = described
            .iter()
            .find(|m| m.key == MatrixKey::X)
            .map_or_else(Arc::default, |m| Arc::clone(&m.var));
        let schema = Schema {
            format: "memory".to_owned(),
            location: "memory".to_owned(),
            writer: None,
            n_obs,
            matrices: described,
            obs_index: None,
            obs: obs.iter().map(|(column, _)| column.clone()).collect(),
            var,
        };
        let obs = obs.into_iter().map(|(column, array)| (column.name, array)).collect();
        Ok(Self { schema: Arc::new(schema), matrices, obs })
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&MemoryMatrix> {
        self.schema.matrix(key)?;
        self.matrices
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, matrix)| matrix)
            .ok_or_else(|| Error::internal(format!("matrix {key} is in the schema alone")))
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        Hints { chunk_rows: Some(1.0), concurrency: 1 }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        self.matrix(matrix)?;
        // The answer shares the store's memory; only row offsets are new.
        let held = (rows.n_rows() + u64::try_from(rows.as_slice().len()).unwrap_or(0)) * 8;
        Ok(ReadCost { bytes_held: held, bytes_kept: held, exact: true, ..ReadCost::default() })
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        rows.check_within(self.schema.n_obs)?;
        let matrix = self.matrix(matrix)?;
        let segments = rows.as_slice().iter().map(|range| matrix.rows(range));
        Ok(CsrRows::new(segments.collect::<Result<_>>()?))
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        rows.check_within(self.schema.n_obs)?;
        columns
            .iter()
            .map(|name| {
                self.schema.obs_column(name)?;
                let found = self.obs.iter().find(|(n, _)| n == name);
                let (_, array) =
                    found.ok_or_else(|| Error::internal(format!("column {name} has no values")))?;
                take_rows(array, rows)
            })
            .collect()
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let var = match matrix {
            MatrixKey::X => &self.schema.var,
            _ => &self.matrix(matrix)?.var,
        };
        Table::of_names(var.n_vars, &var.names)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        None
    }
}

impl ColumnSchema {
    /// A categorical column.
    #[must_use]
    pub fn categorical(name: &str, categories: Vec<String>, ordered: bool) -> Self {
        let kind = ColumnKind::Categorical { categories: Arc::new(categories), ordered };
        Self { name: name.to_owned(), kind, encoding: "memory".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obs::categorical_array;
    use crate::{BackendExt, ErrorKind};
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int32Type;
    use futures::executor::block_on;

    #[test]
    fn rows_and_columns_come_back() {
        let var = VarSchema { n_vars: 4, ..VarSchema::default() };
        let matrix = MemoryMatrix::try_new(
            vec![0, 2, 2, 3, 5],
            vec![0, 3, 1, 0, 2],
            vec![1f32, 2.0, 3.0, 4.0, 5.0],
            var,
        )
        .unwrap();
        let categories = Arc::new(vec!["a".to_owned(), "b".to_owned()]);
        let codes = categorical_array([Some(0), None, Some(1), Some(0)], &categories).unwrap();
        let column = ColumnSchema::categorical("type", categories.to_vec(), false);
        let store =
            MemoryBackend::try_new(4, vec![(MatrixKey::X, matrix)], vec![(column, codes)]).unwrap();
        let rows = RowRanges::try_from_rows(&[0, 2, 3]).unwrap();
        let x = block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap();
        assert_eq!((x.n_rows(), x.nnz(), x.segments().len()), (3, 5, 2));
        assert_eq!(x.segments()[1].indptr(), [0, 1, 3]);
        let obs = block_on(store.read_obs(&["type".to_owned()], &rows)).unwrap();
        let keys = obs[0].as_dictionary::<Int32Type>().keys().clone();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Some(0), Some(1), Some(0)]);
        assert_eq!(block_on(store.read_obs_column("type")).unwrap().len(), 4);
        let error = block_on(store.read_obs_column("kind")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("type"), "{error}");
        assert!(categorical_array([Some(2)], &categories).is_err());
    }
}
