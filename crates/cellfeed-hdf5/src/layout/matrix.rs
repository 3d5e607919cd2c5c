//! Matrices: CSR, CSC and dense, in the encodings of anndata 0.5 to 0.13.

use super::{Matrix, dataset, encoding, join, reason, text};
use crate::container::{Dataset, ElementType, Filter, Group, Node, Storage, filter_name};
use crate::read::{Context, DenseMatrix, SparseMatrix, StoredArray, read_offsets};
use cellfeed_core::{
    ArrayStorage, Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, Result, RowCheck, ValueType,
    VarSchema,
};
use std::sync::Arc;

/// Opens a matrix; nothing if the element is a null. A matrix that can be described but not read
/// comes without a reader.
pub(super) async fn open(
    context: &Context,
    path: &str,
    key: &MatrixKey,
    n_obs: u64,
    var: &Arc<VarSchema>,
) -> Result<Option<(MatrixSchema, Option<Matrix>)>> {
    let opened = async {
        match context.container.node(path)? {
            Node::Group(group) => sparse(context, path, key, &group, n_obs, var).await.map(Some),
            Node::Dataset(found) => {
                if encoding(&found.attributes).0 == "null" || found.shape == [0] && n_obs > 0 {
                    return Ok(None);
                }
                dense(context, path, key, &found, n_obs, var).await.map(Some)
            }
        }
    };
    opened.await.map_err(|e| context.blame(e, path))
}

/// A matrix that is well described, but that nobody here can decode: listed with the reason.
fn undecodable(mut schema: MatrixSchema, error: Error) -> Result<(MatrixSchema, Option<Matrix>)> {
    if error.kind() != ErrorKind::Unsupported {
        return Err(error);
    }
    schema.unreadable = Some(reason(&error));
    Ok((schema, None))
}

/// The value type of stored elements.
pub(crate) fn value_type(element: &ElementType) -> Result<ValueType> {
    Ok(match element {
        ElementType::Bool => ValueType::U8,
        ElementType::Integer { bytes: 1, signed: false, .. } => ValueType::U8,
        ElementType::Integer { bytes: 2, signed: false, .. } => ValueType::U16,
        ElementType::Integer { bytes: 4, signed: false, .. } => ValueType::U32,
        ElementType::Integer { bytes: 8, signed: false, .. } => ValueType::U64,
        ElementType::Integer { bytes: 1, signed: true, .. } => ValueType::I8,
        ElementType::Integer { bytes: 2, signed: true, .. } => ValueType::I16,
        ElementType::Integer { bytes: 4, signed: true, .. } => ValueType::I32,
        ElementType::Integer { bytes: 8, signed: true, .. } => ValueType::I64,
        ElementType::Float { bytes: 2, .. } => ValueType::F16,
        ElementType::Float { bytes: 4, .. } => ValueType::F32,
        ElementType::Float { bytes: 8, .. } => ValueType::F64,
        other => return Err(Error::unsupported(format!("matrix values of type {other}"))),
    })
}

/// Describes how an array is stored.
pub(super) fn storage(context: &Context, path: &str, dataset: &Dataset) -> ArrayStorage {
    let raw: u64 = dataset.shape.iter().product::<u64>().saturating_mul(dataset.element.size());
    let (chunk, n_chunks, bytes) = match &dataset.storage {
        Storage::Chunked { chunk_shape } => {
            let table = context.chunk_table(path).ok();
            let stored = table.as_ref().map(|t| {
                let sizes = (0..t.len()).filter_map(|i| t.get(i)).map(|c| u64::from(c.size));
                (u64::try_from(t.stored()).unwrap_or(0), sizes.sum())
            });
            let (n, bytes) = stored.unwrap_or((0, 0));
            (Some(chunk_shape.clone()), n, bytes)
        }
        Storage::Contiguous { offset: None, .. } => (None, 0, 0),
        _ => (None, 0, raw),
    };
    ArrayStorage {
        name: path.to_owned(),
        element: dataset.element.to_string(),
        shape: dataset.shape.clone(),
        chunk,
        n_chunks,
        codecs: dataset.filters.iter().map(codec).collect(),
        bytes,
    }
}

fn codec(filter: &Filter) -> String {
    match (filter.id, filter.client_data.first()) {
        (1, Some(level)) => format!("gzip({level})"),
        (1, None) => "gzip".to_owned(),
        (id, _) if filter.name.is_empty() => filter_name(id),
        (2 | 3 | 32000, _) => filter_name(filter.id),
        _ => filter.name.clone(),
    }
}

/// Refuses a shape that disagrees with obs or var.
fn check_shape(shape: [u64; 2], n_obs: u64, var: &VarSchema) -> Result<()> {
    let [rows, columns] = shape;
    if rows != n_obs {
        return Err(Error::corrupt(format!(
            "the matrix has {rows} rows, but obs has {n_obs} cells"
        )));
    }
    if columns != var.n_vars {
        return Err(Error::corrupt(format!(
            "the matrix has {columns} columns, but var has {} genes",
            var.n_vars
        )));
    }
    if i32::try_from(columns).is_err() {
        return Err(Error::unsupported(format!("{columns} genes are more than 2^31")));
    }
    Ok(())
}

async fn sparse(
    context: &Context,
    path: &str,
    key: &MatrixKey,
    group: &Group,
    n_obs: u64,
    var: &Arc<VarSchema>,
) -> Result<(MatrixSchema, Option<Matrix>)> {
    let (kind, _) = encoding(&group.attributes);
    let legacy = text(&group.attributes, "h5sparse_format");
    let encoding = match (kind, legacy) {
        ("csr_matrix", _) | ("", Some("csr")) => Encoding::Csr,
        ("csc_matrix", _) | ("", Some("csc")) => Encoding::Csc,
        ("", None) => {
            return Err(Error::unsupported(
                "the matrix is a group without an encoding-type; csr_matrix, csc_matrix and array \
                 are read",
            ));
        }
        (other, _) => {
            return Err(Error::unsupported(format!(
                "matrices of encoding {other:?} are not read; csr_matrix, csc_matrix and array are"
            )));
        }
    };
    let attribute = if legacy.is_some() { "h5sparse_shape" } else { "shape" };
    let shape = group.attributes.integers(attribute)?.unwrap_or_default();
    let shape: Option<Vec<u64>> = shape.iter().map(|&n| u64::try_from(n).ok()).collect();
    let Some([rows, columns]) = shape.as_deref() else {
        return Err(Error::corrupt(format!(
            "the attribute {attribute:?} should hold two sizes, rows and columns"
        )));
    };
    check_shape([*rows, *columns], n_obs, var)?;
    let parts = Parts::find(context, path)?;
    if encoding == Encoding::Csc {
        let opened = parts.open(context, (var.n_vars, "genes"), n_obs).await;
        let schema = parts.describe(context, key, encoding, var)?;
        return match opened {
            Ok(matrix) => {
                let why = "the matrix is stored by columns (CSC): reading rows would decode the \
                           whole file for each fetch; rewrite it by rows: cellfeed convert SRC \
                           DST.h5ad, or in Python: adata.X = adata.X.tocsr(); \
                           adata.write_h5ad(NEW)";
                let nnz = Some(matrix.offsets.nnz());
                let schema = MatrixSchema { unreadable: Some(why.to_owned()), nnz, ..schema };
                Ok((schema, Some(Matrix::ByColumns(Box::new(matrix)))))
            }
            Err(e) => undecodable(schema, e),
        };
    }
    // Opened first: what it holds of the chunks then serves to describe it.
    let opened = parts.open(context, (n_obs, "cells"), var.n_vars).await;
    let mut schema = parts.describe(context, key, encoding, var)?;
    match opened {
        Ok(matrix) => {
            schema.nnz = Some(matrix.offsets.nnz());
            Ok((schema, Some(Matrix::Sparse(Box::new(matrix)))))
        }
        Err(e) => undecodable(schema, e),
    }
}

/// The three arrays of a sparse matrix.
pub(super) struct Parts {
    indptr: (String, Dataset),
    indices: (String, Dataset),
    data: (String, Dataset),
}

impl Parts {
    pub(super) fn find(context: &Context, path: &str) -> Result<Self> {
        let part = |name: &str| {
            let at = join(path, name);
            let found = dataset(context, &at)?;
            if found.shape.len() != 1 {
                let error = Error::corrupt(format!(
                    "one dimension was expected, but the shape is {:?}",
                    found.shape
                ));
                return Err(context.blame(error, &at));
            }
            Ok((at, found))
        };
        Ok(Self { indptr: part("indptr")?, indices: part("indices")?, data: part("data")? })
    }

    pub(super) fn describe(
        &self,
        context: &Context,
        key: &MatrixKey,
        encoding: Encoding,
        var: &Arc<VarSchema>,
    ) -> Result<MatrixSchema> {
        let arrays = [&self.indptr, &self.indices, &self.data];
        Ok(MatrixSchema {
            key: key.clone(),
            encoding,
            value_type: value_type(&self.data.1.element)?,
            nnz: Some(self.data.1.rows()),
            var: Arc::clone(var),
            arrays: arrays.map(|(path, found)| storage(context, path, found)).to_vec(),
            unreadable: None,
        })
    }

    /// Opens the arrays as those of a CSR matrix of so many rows, which are cells or, in a CSC
    /// matrix, genes.
    pub(super) async fn open(
        &self,
        context: &Context,
        (n_rows, rows): (u64, &str),
        n_vars: u64,
    ) -> Result<SparseMatrix> {
        let open = |(path, found): &(String, Dataset)| StoredArray::open(context, path, found);
        let (indptr, indices, data) =
            (open(&self.indptr)?, open(&self.indices)?, open(&self.data)?);
        if indptr.len() != n_rows.saturating_add(1) {
            let error = Error::corrupt(format!(
                "indptr has {} entries, but {n_rows} {rows} need {}",
                indptr.len(),
                n_rows.saturating_add(1)
            ));
            return Err(context.blame(error, indptr.path()));
        }
        if indices.len() != data.len() {
            let error = Error::corrupt(format!(
                "there are {} indices for {} values",
                indices.len(),
                data.len()
            ));
            return Err(context.blame(error, indices.path()));
        }
        if !matches!(indices.element(), ElementType::Integer { .. }) {
            let error = Error::corrupt(format!("indices of type {}", indices.element()));
            return Err(context.blame(error, indices.path()));
        }
        let offsets = read_offsets(context, &indptr).await?;
        if offsets.nnz() > data.len() {
            let error = Error::corrupt(format!(
                "indptr ends at {}, but there are {} values",
                offsets.nnz(),
                data.len()
            ));
            return Err(context.blame(error, indptr.path()));
        }
        if offsets.nnz() == 0 && data.len() > 0 {
            let error = Error::corrupt(format!(
                "indptr says that none of the {n_rows} {rows} has a value, but there are {} values",
                data.len()
            ));
            return Err(context.blame(error, indptr.path()));
        }
        // HDF5 answers zeros for what was never written. Writers write all of a matrix, also zeros: one
        // that was ended in the middle leaves chunks out.
        let nnz = offsets.nnz();
        let entries = if nnz > 0 { indptr.len() } else { 0 };
        for (array, used) in [(&indptr, entries), (&indices, nnz), (&data, nnz)] {
            let lost = array.never_written(used);
            if lost > 0 {
                let error = Error::corrupt(format!(
                    "{lost} of {used} elements were never written: whoever wrote the file was \
                     interrupted; have it written anew"
                ));
                return Err(context.blame(error, array.path()));
            }
        }
        let value_type = value_type(data.element())?;
        let check = RowCheck::new(n_vars, context.source.location(), indices.path()).sorting();
        Ok(SparseMatrix { offsets, indices, data, value_type, check: Arc::new(check) })
    }
}

async fn dense(
    context: &Context,
    path: &str,
    key: &MatrixKey,
    found: &Dataset,
    n_obs: u64,
    var: &Arc<VarSchema>,
) -> Result<(MatrixSchema, Option<Matrix>)> {
    let value_type = value_type(&found.element)?;
    let [rows, columns] = found.shape[..] else {
        return Err(Error::corrupt(format!(
            "a matrix has two dimensions, but the shape is {:?}",
            found.shape
        )));
    };
    check_shape([rows, columns], n_obs, var)?;
    let opened = async {
        let matrix = DenseMatrix::open(context, path, found, value_type)?;
        matrix.probe(context).await?;
        Ok(matrix)
    };
    let opened = opened.await;
    let schema = MatrixSchema {
        key: key.clone(),
        encoding: Encoding::Dense,
        value_type,
        nnz: None,
        var: Arc::clone(var),
        arrays: vec![storage(context, path, found)],
        unreadable: None,
    };
    match opened {
        Ok(matrix) => Ok((schema, Some(Matrix::Dense(matrix)))),
        Err(e) => undecodable(schema, e),
    }
}
