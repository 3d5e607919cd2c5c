//! A store held in memory: the oracle against which every other backend is tested, and a way to feed
//! data that is already in memory through the same sampler and loader.

use crate::backend::{Archive, Backend, Hints, ReadCost};
use crate::csr::{CsrRows, CsrSegment};
use crate::element::Extras;
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
    /// Genes of `X` and the layers, and of `raw/X`, where they were given.
    var: Option<Table>,
    raw_var: Option<Table>,
    extras: Extras,
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
        let schema = Arc::new(schema);
        Ok(Self { schema, matrices, obs, var: None, raw_var: None, extras: Extras::default() })
    }

    /// Gives a matrix's genes their names and columns: those of `X` and all layers, which share
    /// them, or those of `raw/X`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there are more or fewer than
    /// the matrices have.
    pub fn with_var(mut self, matrix: &MatrixKey, table: Table) -> Result<Self> {
        let raw = *matrix == MatrixKey::Raw;
        let names = table.index().map(|(_, names)| names.iter().flatten().map(str::to_owned));
        let var = Arc::new(VarSchema {
            n_vars: table.n_rows(),
            names: names.map(Iterator::collect).unwrap_or_default(),
            columns: table.columns().iter().map(|(column, _)| column.clone()).collect(),
        });
        let schema = Arc::make_mut(&mut self.schema);
        let matrices = self.matrices.iter_mut().zip(&mut schema.matrices);
        for ((key, matrix), described) in
            matrices.filter(|((k, _), _)| (*k == MatrixKey::Raw) == raw)
        {
            if matrix.var.n_vars != var.n_vars {
                return Err(Error::invalid_input(format!(
                    "{key} has {} genes, but the table has {}",
                    matrix.var.n_vars, var.n_vars
                )));
            }
            matrix.var = Arc::clone(&var);
            described.var = Arc::clone(&var);
        }
        if raw {
            self.raw_var = Some(table);
        } else {
            schema.var = var;
            self.var = Some(table);
        }
        Ok(self)
    }

    /// Gives the cells names, which are text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there are more or fewer than
    /// cells.
    pub fn with_obs_names(mut self, name: &str, names: ArrayRef) -> Result<Self> {
        let index = Some((name.to_owned(), Arc::clone(&names)));
        Table::try_new(self.schema.n_obs, index, Vec::new())?;
        Arc::make_mut(&mut self.schema).obs_index = Some(name.to_owned());
        self.obs.push((name.to_owned(), names));
        Ok(self)
    }

    /// Adds what a store holds beside matrices, obs and var.
    #[must_use]
    pub fn with_extras(mut self, extras: Extras) -> Self {
        self.extras = extras;
        self
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&MemoryMatrix> {
        self.schema.pick(key, &self.matrices)
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
                self.schema.check_obs(name)?;
                let found = self.obs.iter().find(|(n, _)| n == name);
                let (_, array) =
                    found.ok_or_else(|| Error::internal(format!("column {name} has no values")))?;
                take_rows(array, rows)
            })
            .collect()
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let (var, table) = match matrix {
            MatrixKey::X => (&self.schema.var, &self.var),
            MatrixKey::Layer(_) => (&self.matrix(matrix)?.var, &self.var),
            MatrixKey::Raw => (&self.matrix(matrix)?.var, &self.raw_var),
        };
        table.clone().map_or_else(|| Table::of_names(var.n_vars, &var.names), Ok)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

#[async_trait]
impl Archive for MemoryBackend {
    /// All of them: they are in memory already, so that no limit would save any.
    async fn read_extras(&self, _limit: u64) -> Result<Extras> {
        Ok(self.extras.clone())
    }

    async fn extra_names(&self) -> Result<Vec<String>> {
        Ok(self.extras.elements.iter().map(|(name, _)| name.clone()).collect())
    }

    fn column_cost(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<ReadCost> {
        self.matrix(matrix)?;
        Err(by_rows(matrix))
    }

    async fn read_columns(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<CsrRows> {
        self.matrix(matrix)?;
        Err(by_rows(matrix))
    }
}

fn by_rows(matrix: &MatrixKey) -> Error {
    Error::unsupported(format!("{matrix} is stored by rows; read it by rows"))
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

    #[test]
    fn genes_and_cells_can_have_names() {
        let var = VarSchema { n_vars: 2, ..VarSchema::default() };
        let matrix = || MemoryMatrix::try_new(vec![0, 1], vec![1], vec![1u8], var.clone()).unwrap();
        let layer = MatrixKey::Layer("a".to_owned());
        let matrices = [MatrixKey::X, layer.clone(), MatrixKey::Raw].map(|key| (key, matrix()));
        let store = || MemoryBackend::try_new(1, matrices.to_vec(), vec![]).unwrap();
        let names = |names: [&str; 2]| Table::of_names(2, &names.map(str::to_owned)).unwrap();
        let named = store().with_var(&MatrixKey::X, names(["x", "y"])).unwrap();
        let named = named.with_var(&MatrixKey::Raw, names(["r", "s"])).unwrap();
        for (key, first) in [(MatrixKey::X, "x"), (layer, "x"), (MatrixKey::Raw, "r")] {
            let table = block_on(named.read_var(&key)).unwrap();
            assert_eq!(table.index().unwrap().1.value(0), first);
            assert_eq!(named.schema().matrix(&key).unwrap().var.names[0], first);
        }
        let three = Table::of_names(3, &["a", "b", "c"].map(str::to_owned)).unwrap();
        assert!(store().with_var(&MatrixKey::Raw, three).is_err());
        let cell: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["c"]));
        let named = store().with_obs_names("barcode", Arc::clone(&cell)).unwrap();
        assert_eq!(&block_on(named.read_obs_column("barcode")).unwrap(), &cell);
        assert!(store().with_obs_names("barcode", cell.slice(0, 0)).is_err());
    }
}
