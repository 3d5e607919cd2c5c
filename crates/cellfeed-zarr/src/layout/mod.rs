//! Metadata to schema: matrices, obs and var of an AnnData group; refuses what contradicts itself.

mod frame;

use crate::meta::array::ArrayMeta;
use crate::meta::dtype::Kind;
use crate::meta::{Node, join, members, node};
use crate::read::Context;
use crate::read::array::{Array, integers};
use crate::read::dense::DenseMatrix;
use crate::read::sparse::SparseMatrix;
use arrow_array::cast::AsArray;
use cellfeed_core::io::{Entry, Folder};
use cellfeed_core::{
    Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, Result, RowCheck, RowOffsets, Schema,
    ValueType, VarSchema,
};
use frame::frame;
use futures::executor::block_on;
use std::sync::Arc;

pub(crate) use frame::Frame;

/// A matrix that can be read.
#[derive(Debug)]
pub(crate) enum Matrix {
    Sparse(SparseMatrix),
    ByColumns(SparseMatrix),
    Dense(DenseMatrix),
}

/// An AnnData group.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) schema: Schema,
    pub(crate) matrices: Vec<(MatrixKey, Matrix)>,
    pub(crate) obs: Frame,
    pub(crate) var: Frame,
    pub(crate) raw_var: Option<Frame>,
}

fn root(context: &Context) -> &dyn Folder {
    &*context.files
}

fn need(context: &Context, path: &str) -> Result<Node> {
    node(root(context), path)?
        .ok_or_else(|| Error::corrupt(format!("the store has no {path}")).with("element", path))
}

fn array(context: &Context, path: &str) -> Result<Array> {
    Ok(Array::new(ArrayMeta::new(&need(context, path)?)?))
}

/// Opens the AnnData group at `at` (`""` for the root).
pub(crate) fn open(context: &Context, at: &str) -> Result<Opened> {
    let location = root(context).place(at);
    let location = location.trim_end_matches('/').to_owned();
    let top = node(root(context), at)?.ok_or_else(|| {
        Error::unsupported("this is no Zarr store: it has neither zarr.json nor .zgroup")
    })?;
    if top.array.is_some() {
        return Err(Error::unsupported("the root is an array, not an AnnData group"));
    }
    if node(root(context), &join(at, "obs"))?.is_none()
        || node(root(context), &join(at, "mod"))?.is_some()
    {
        return Err(Error::unsupported(format!("this is no AnnData store{}", parts(context, at)?)));
    }
    let obs = frame(context, &join(at, "obs"))?;
    let var = frame(context, &join(at, "var"))?;
    let n_obs = obs.n_rows;
    let var_schema = Arc::new(var_schema(context, &var)?);
    let mut matrices = Vec::new();
    let mut schemas = Vec::new();
    let x_genes = Axis { schema: Arc::clone(&var_schema), vouched: var.vouched };
    let mut wanted = vec![(MatrixKey::X, join(at, "X"), x_genes.clone())];
    let layers = join(at, "layers");
    if node(root(context), &layers)?.is_some() {
        for name in members(root(context), &layers)? {
            let path = join(&layers, &name);
            wanted.push((MatrixKey::Layer(name), path, x_genes.clone()));
        }
    }
    let mut raw_var = None;
    if let Some(raw) = node(root(context), &join(at, "raw"))?
        && raw.text("encoding-type") != Some("null")
        && raw.array.is_none()
        && node(root(context), &join(&raw.path, "X"))?.is_some()
    {
        let genes = frame(context, &join(&raw.path, "var"))?;
        let schema = Arc::new(self::var_schema(context, &genes)?);
        let genes_of_raw = Axis { schema, vouched: genes.vouched };
        wanted.push((MatrixKey::Raw, join(&raw.path, "X"), genes_of_raw));
        raw_var = Some(genes);
    }
    for (key, path, genes) in wanted {
        let Some(found) = node(root(context), &path)? else {
            // A folder with something in it is a matrix whose own metadata was lost.
            if matches!(root(context).look(&path), Ok(Some(Entry::Folder)))
                && root(context).list(&path).is_ok_and(|members| !members.is_empty())
            {
                schemas.push(MatrixSchema::unreadable(key, genes.schema, LOST.to_owned()));
            }
            continue;
        };
        if found.text("encoding-type") == Some("null") {
            continue;
        }
        match matrix(context, &found, &key, &obs, &genes) {
            Ok((schema, matrix)) => {
                schemas.push(schema);
                matrices.push((key, matrix));
            }
            // What other matrices do not rest on is listed with the reason.
            Err(e) if e.kind() == ErrorKind::Unsupported && key != MatrixKey::X => {
                schemas.push(MatrixSchema::unreadable(key, genes.schema, e.message().to_owned()));
            }
            Err(e) => return Err(e.with_default("element", path)),
        }
    }
    let schema = Schema {
        format: "zarr".to_owned(),
        location,
        writer: None,
        n_obs,
        matrices: schemas,
        obs_index: Some(obs.index.schema.name.clone()),
        obs: obs.schema.clone(),
        var: var_schema,
    };
    Ok(Opened { schema, matrices, obs, var, raw_var })
}

/// What is wrong with a matrix without metadata.
const LOST: &str =
    "its folder is there, but zarr.json or .zgroup in it is missing: copy the store again";

/// Where AnnData groups lie in stores that hold several: MuData, SpatialData.
fn parts(context: &Context, at: &str) -> Result<String> {
    for folder in ["mod", "tables"] {
        let folder = join(at, folder);
        if root(context).look(&folder)? == Some(Entry::Folder)
            && let Some(first) = members(root(context), &folder)?.first()
        {
            let path = root(context).place(&join(&folder, first));
            return Ok(format!(", but has some in {folder}: open {path} for example"));
        }
    }
    Ok(": it has no obs".to_owned())
}

fn var_schema(context: &Context, var: &Frame) -> Result<VarSchema> {
    let names = block_on(var.index.whole(context))?;
    let names = match names.as_string_opt::<i32>() {
        Some(names) => names.iter().map(|n| n.unwrap_or_default().to_owned()).collect(),
        None => Vec::new(),
    };
    Ok(VarSchema { n_vars: var.n_rows, names, columns: var.schema.clone() })
}

/// The genes of a matrix, and whether their names have the bytes for so many.
#[derive(Debug, Clone)]
struct Axis {
    schema: Arc<VarSchema>,
    vouched: bool,
}

fn matrix(
    context: &Context,
    found: &Node,
    key: &MatrixKey,
    obs: &Frame,
    genes: &Axis,
) -> Result<(MatrixSchema, Matrix)> {
    let (n_obs, n_vars) = (obs.n_rows, genes.schema.n_vars);
    let check = |shape: &[u64]| {
        if shape == [n_obs, n_vars] {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{key} has the shape {shape:?}, but there are {n_obs} cells and {n_vars} genes"
        )))
    };
    let of = |encoding, value_type, nnz, arrays, unreadable| MatrixSchema {
        key: key.clone(),
        encoding,
        value_type,
        nnz,
        var: Arc::clone(&genes.schema),
        arrays,
        unreadable,
    };
    if found.array.is_some() {
        let mut array = Array::new(ArrayMeta::new(found)?);
        check(&array.meta.shape)?;
        array.vouched = obs.vouched && genes.vouched;
        array.measure(context)?;
        let value_type = value_type(&array)?;
        let arrays = vec![array.meta.storage(array.stored)];
        let schema = of(Encoding::Dense, value_type, None, arrays, None);
        return Ok((schema, Matrix::Dense(DenseMatrix { array: Arc::new(array), value_type })));
    }
    // The second is of anndata 0.6 and before.
    let by_columns = match found.text("encoding-type").or(found.text("h5sparse_format")) {
        Some("csr_matrix" | "csr") => false,
        Some("csc_matrix" | "csc") => true,
        other => {
            return Err(Error::unsupported(format!(
                "{key} has the encoding-type {other:?}; csr_matrix, csc_matrix and array are read"
            )));
        }
    };
    let shape: Option<Vec<u64>> = found
        .attributes
        .get("shape")
        .or_else(|| found.attributes.get("h5sparse_shape"))
        .and_then(|s| s.as_array())
        .and_then(|s| s.iter().map(serde_json::Value::as_u64).collect());
    let shape = shape.ok_or_else(|| Error::corrupt(format!("{key} has no shape of lengths")))?;
    check(&shape)?;
    let member = |name: &str| array(context, &join(&found.path, name));
    let (mut indptr, mut indices, mut data) =
        (member("indptr")?, member("indices")?, member("data")?);
    let (n_rows, n_indices) = if by_columns { (n_vars, n_obs) } else { (n_obs, n_vars) };
    if indptr.meta.shape != [n_rows + 1] {
        return Err(indptr.blame(Error::corrupt(format!(
            "indptr has the shape {:?}, not [{}]",
            indptr.meta.shape,
            n_rows + 1
        ))));
    }
    if data.meta.shape.len() != 1 || data.meta.shape != indices.meta.shape {
        return Err(data.blame(Error::corrupt(format!(
            "data has the shape {:?}, indices {:?}",
            data.meta.shape, indices.meta.shape
        ))));
    }
    integers(indices.meta.kind, &[]).map_err(|e| indices.blame(e))?;
    integers(indptr.meta.kind, &[]).map_err(|e| indptr.blame(e))?;
    let value_type = value_type(&data)?;
    // What is not there is so many zeros by Zarr's rules, and nearly always was lost: rows of gene 0 alone
    // are hardly written, and zeros that are stored explicitly by whole files neither.
    data.strict = true;
    indices.strict = n_indices > 1;
    indptr.strict = !data.meta.is_empty();
    indptr.vouched = if by_columns { genes.vouched } else { obs.vouched };
    for array in [&mut indptr, &mut indices, &mut data] {
        array.measure(context)?;
    }
    let indptr = Arc::new(indptr);
    let mut builder = RowOffsets::builder();
    let scan = indptr.scan_integers(context, |entries| {
        if let Some(negative) = entries.iter().find(|&&p| p < 0) {
            return Err(Error::corrupt(format!("indptr has a negative entry, {negative}")));
        }
        builder.extend(entries.into_iter().map(i64::unsigned_abs))
    });
    block_on(scan)?;
    let offsets = builder.finish();
    if offsets.nnz() != data.meta.len() {
        return Err(indptr.blame(Error::corrupt(format!(
            "indptr ends at {}, but data has {} values",
            offsets.nnz(),
            data.meta.len()
        ))));
    }
    let nnz = Some(offsets.nnz());
    let arrays = [&*indptr, &indices, &data].map(|a| a.meta.storage(a.stored)).into();
    let (indices, data) = (Arc::new(indices), Arc::new(data));
    let check = RowCheck::new(n_indices, context.files.location(), &*indices.meta.path).sorting();
    let sparse = SparseMatrix { offsets, indices, data, value_type, check: Arc::new(check) };
    Ok(if by_columns {
        let why = format!(
            "{key} is stored by columns (CSC), so reading a cell would read all of it: write it by \
             rows with cellfeed convert"
        );
        (of(Encoding::Csc, value_type, nnz, arrays, Some(why)), Matrix::ByColumns(sparse))
    } else {
        (of(Encoding::Csr, value_type, nnz, arrays, None), Matrix::Sparse(sparse))
    })
}

/// The type of a matrix's values; truth values are read as 0 and 1.
fn value_type(array: &Array) -> Result<ValueType> {
    match array.meta.kind {
        Kind::Number(value_type) => Ok(value_type),
        Kind::Bool => Ok(ValueType::U8),
        other => {
            Err(array
                .blame(Error::unsupported(format!("a matrix of {} is not read", other.name()))))
        }
    }
}
