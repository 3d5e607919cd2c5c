//! An open store: what it holds, its rows and its columns.

use crate::arrays::{column, csr};
use crate::errors::raise;
use crate::plan::Subset;
use crate::process::Owned;
use crate::remote::Remote;
use crate::wait::{block_on, blocking};
use arrow_array::Array;
use cellfeed::{
    ColumnKind, ColumnSchema, ConcatOptions, Error, Join, MatrixKey, OpenOptions, RowRanges,
    open_many,
};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// Rows of obs that are looked at at once.
const STEP: u64 = 1 << 20;

/// An open store, with the threads and buffers that read it.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Store(Owned<cellfeed::Store>);

/// Values, and a mask of those that are missing.
type Column<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

impl Store {
    /// The store, in the process that opened it.
    pub(crate) fn get(&self) -> PyResult<&cellfeed::Store> {
        self.0.get()
    }

    fn key(text: &str) -> PyResult<MatrixKey> {
        text.parse().map_err(raise)
    }
}

#[pymethods]
impl Store {
    /// Opens one store, or several as one.
    #[new]
    #[pyo3(signature = (paths, *, join, label, threads, remote, access=None))]
    fn new(
        py: Python<'_>,
        paths: Vec<String>,
        join: &str,
        label: Option<String>,
        threads: Option<usize>,
        remote: Remote,
        access: Option<&str>,
    ) -> PyResult<Self> {
        let mut options = remote.apply(OpenOptions::default());
        if let Some(threads) = threads {
            options = options.with_threads(threads);
        }
        if let Some(access) = access {
            options = options.with_access(access.parse().map_err(raise)?);
        }
        let join = match join {
            "inner" => Join::Inner,
            "outer" => Join::Outer,
            other => {
                let what = format!("join is {other:?}; there are \"inner\" and \"outer\"");
                return Err(raise(Error::invalid_input(what)));
            }
        };
        let mut concat = ConcatOptions::default().with_join(join);
        if let Some(label) = label {
            concat = concat.with_label(label);
        }
        let store = blocking(py, move || open_many(&paths, &options, &concat))?;
        Ok(Self(Owned::new(store)))
    }

    /// What is to be told and is no error, since this was asked last.
    fn take_warnings(&self) -> PyResult<Vec<String>> {
        Ok(self.get()?.engine().stats().take_warnings())
    }

    /// Whether it can be used in this process, which it cannot after a fork.
    #[getter]
    fn is_here(&self) -> bool {
        self.0.is_here()
    }

    #[getter]
    fn n_obs(&self) -> PyResult<u64> {
        Ok(self.get()?.n_obs())
    }

    #[getter]
    fn n_vars(&self) -> PyResult<u64> {
        Ok(self.get()?.schema().var.n_vars)
    }

    #[getter]
    fn format(&self) -> PyResult<String> {
        Ok(self.get()?.schema().format.clone())
    }

    #[getter]
    fn writer(&self) -> PyResult<Option<String>> {
        Ok(self.get()?.schema().writer.clone())
    }

    #[getter]
    fn threads(&self) -> PyResult<usize> {
        Ok(self.get()?.engine().threads())
    }

    /// The name under which cell names are read.
    #[getter]
    fn obs_index(&self) -> PyResult<Option<String>> {
        Ok(self.get()?.schema().obs_index.clone())
    }

    /// Each obs column: name, kind, how it is encoded, and why it cannot be read if it cannot.
    fn obs_columns(&self) -> PyResult<Vec<(String, &'static str, String, Option<String>)>> {
        let describe = |c: &ColumnSchema| {
            let why = match &c.kind {
                ColumnKind::Unreadable(why) => Some(why.clone()),
                _ => None,
            };
            (c.name.clone(), c.kind.as_str(), c.encoding.clone(), why)
        };
        Ok(self.get()?.schema().obs.iter().map(describe).collect())
    }

    /// The categories of a categorical obs column, and whether they are ordered; nothing for another.
    fn obs_categories(&self, name: &str) -> PyResult<Option<(Vec<String>, bool)>> {
        let column = self.get()?.schema().obs_column(name).map_err(raise)?;
        Ok(categories(&column.kind))
    }

    /// Refuses an obs column that is not there or cannot be read.
    fn check_obs(&self, name: &str) -> PyResult<()> {
        self.get()?.schema().check_obs(name).map_err(raise)
    }

    /// Each matrix: a dictionary that describes it.
    fn matrices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let describe = |m: &cellfeed::MatrixSchema| {
            let out = PyDict::new(py);
            out.set_item("key", m.key.to_string())?;
            out.set_item("encoding", m.encoding.as_str())?;
            out.set_item("dtype", m.value_type.as_str())?;
            out.set_item("n_vars", m.n_vars())?;
            out.set_item("nnz", m.nnz)?;
            out.set_item("bytes", m.arrays.iter().map(|a| a.bytes).sum::<u64>())?;
            out.set_item("unreadable", m.unreadable.clone())?;
            Ok(out)
        };
        self.get()?.schema().matrices.iter().map(describe).collect()
    }

    /// Refuses a matrix that is not there or cannot be read by rows.
    fn check_matrix(&self, matrix: &str) -> PyResult<()> {
        self.get()?.schema().matrix(&Self::key(matrix)?).map(|_| ()).map_err(raise)
    }

    /// Rows of a matrix, which must ascend: `(data, indices, indptr)`.
    fn read_rows<'py>(
        &self,
        py: Python<'py>,
        matrix: &str,
        rows: PyReadonlyArray1<'_, u64>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let (store, key) = (self.get()?, Self::key(matrix)?);
        let value_type = store.schema().matrix(&key).map_err(raise)?.value_type;
        let rows = rows.as_array().to_vec();
        let rows = RowRanges::try_from_rows(&rows).map_err(raise)?;
        let backend = Arc::clone(store.backend());
        let read = async { backend.read_rows(&key, &rows).await };
        csr(py, &block_on(py, read)?, value_type)
    }

    /// Obs columns for the rows from `start` to `stop`.
    fn read_obs<'py>(
        &self,
        py: Python<'py>,
        columns: Vec<String>,
        start: u64,
        stop: u64,
    ) -> PyResult<Vec<Column<'py>>> {
        let backend = Arc::clone(self.get()?.backend());
        for column in &columns {
            backend.schema().check_obs(column).map_err(raise)?;
        }
        let rows = RowRanges::single(start..stop);
        let read = async { backend.read_obs(&columns, &rows).await };
        block_on(py, read)?.iter().map(|array| column(py, array)).collect()
    }

    /// Whether a value of an obs column is missing. Reads the column, up to the first that is.
    fn has_missing(&self, py: Python<'_>, name: String) -> PyResult<bool> {
        let backend = Arc::clone(self.get()?.backend());
        let n_obs = backend.schema().n_obs;
        let names = [name];
        block_on(py, async {
            let mut at = 0;
            while at < n_obs {
                let end = n_obs.min(at + STEP);
                let arrays = backend.read_obs(&names, &RowRanges::single(at..end)).await?;
                if arrays.iter().any(|a| a.null_count() > 0) {
                    return Ok(true);
                }
                at = end;
            }
            Ok(false)
        })
    }

    /// The genes of a matrix: their names, if they have any, and each column as name, kind, categories
    /// and values.
    fn read_var<'py>(
        &self,
        py: Python<'py>,
        matrix: &str,
    ) -> PyResult<(
        Option<Bound<'py, PyAny>>,
        Vec<(String, &'static str, Option<(Vec<String>, bool)>, Column<'py>)>,
    )> {
        let (backend, key) = (Arc::clone(self.get()?.backend()), Self::key(matrix)?);
        let table = block_on(py, async { backend.read_var(&key).await })?;
        let names = match table.index() {
            Some((_, names)) => {
                Some(column(py, &(Arc::new(names.clone()) as arrow_array::ArrayRef))?.0)
            }
            None => None,
        };
        let columns = table.columns().iter().map(|(schema, array)| {
            let kind = schema.kind.as_str();
            Ok((schema.name.clone(), kind, categories(&schema.kind), column(py, array)?))
        });
        Ok((names, columns.collect::<PyResult<_>>()?))
    }

    /// The names of the genes of a matrix; none if the store has none.
    fn var_names(&self, matrix: &str) -> PyResult<Vec<String>> {
        let schema = self.get()?.schema();
        let key = Self::key(matrix)?;
        match schema.find(&key) {
            Some(matrix) => Ok(matrix.var.names.clone()),
            None if key == MatrixKey::X => Ok(schema.var.names.clone()),
            None => schema.matrix(&key).map(|_| Vec::new()).map_err(raise),
        }
    }

    /// The cells for which all conditions hold.
    fn subset(&self, py: Python<'_>, conditions: Vec<String>) -> PyResult<Subset> {
        let store = self.get()?.clone();
        let subset = blocking(py, move || store.subset(&conditions))?;
        Ok(Subset(Arc::new(subset)))
    }
}

fn categories(kind: &ColumnKind) -> Option<(Vec<String>, bool)> {
    match kind {
        ColumnKind::Categorical { categories, ordered } => Some((categories.to_vec(), *ordered)),
        _ => None,
    }
}
