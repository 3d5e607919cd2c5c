//! Transforms that are made while rows are copied.

use crate::errors::raise;
use crate::store::Store;
use pyo3::prelude::*;

/// What is made of values and genes of a matrix of a store.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Transform(pub(crate) cellfeed::Transform);

#[pymethods]
impl Transform {
    /// Checks that it can be made of this matrix with values of type `dtype`.
    #[new]
    #[pyo3(signature = (store, matrix, dtype, *, genes, normalize_total, log1p, binarize))]
    fn new(
        store: &Store,
        matrix: &str,
        dtype: &str,
        genes: Option<Vec<String>>,
        normalize_total: Option<f64>,
        log1p: bool,
        binarize: Option<f64>,
    ) -> PyResult<Self> {
        let mut transform = cellfeed::Transform::default();
        if let Some(genes) = genes {
            transform = transform.with_genes(genes);
        }
        if let Some(target) = normalize_total {
            transform = transform.with_normalize_total(target);
        }
        if log1p {
            transform = transform.with_log1p();
        }
        if let Some(threshold) = binarize {
            transform = transform.with_binarize(threshold);
        }
        let key = matrix.parse().map_err(raise)?;
        let schema = store.get()?.schema();
        let var = &schema.matrix(&key).map_err(raise)?.var;
        let checked = transform.check(var, dtype.parse().map_err(raise)?);
        checked.map_err(|e| raise(e.with("file", &schema.location).with("element", &key)))?;
        Ok(Self(transform))
    }
}
