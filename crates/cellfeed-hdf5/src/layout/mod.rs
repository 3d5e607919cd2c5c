//! Metadata to schema: finds the matrices and columns of an AnnData or 10x Genomics file, in every
//! encoding that these tools have written, and refuses what it does not know.

mod frame;
mod matrix;
mod tenx;

use crate::container::{Attributes, Dataset, Group, Node};
use crate::read::{Column, Context, DenseMatrix, SparseMatrix};
use cellfeed_core::{
    ColumnSchema, Error, ErrorKind, MatrixKey, MatrixSchema, Result, Schema, VarSchema,
};
pub(crate) use frame::CATEGORIES_IN_UNS;
use frame::Frame;
pub(crate) use matrix::value_type;
use std::sync::Arc;

/// What reads the rows of a matrix.
#[derive(Debug)]
pub(crate) enum Matrix {
    Sparse(Box<SparseMatrix>),
    Dense(DenseMatrix),
    /// A matrix in CSC form: the transposed one, whose rows are genes.
    ByColumns(Box<SparseMatrix>),
}

/// The genes of `X` and the layers, or of `raw/X`, with the columns that describe them.
#[derive(Debug)]
pub(crate) struct Genes {
    pub(crate) schema: Arc<VarSchema>,
    /// What their names are called.
    pub(crate) index: String,
    pub(crate) columns: Vec<Column>,
}

/// An open file, understood.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) schema: Schema,
    /// The matrices that can be read.
    pub(crate) matrices: Vec<(MatrixKey, Matrix)>,
    /// Obs columns, the index among them.
    pub(crate) columns: Vec<Column>,
    pub(crate) var: Genes,
    pub(crate) raw_var: Option<Genes>,
}

/// Joins the parts of a path inside the file.
pub(crate) fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") }
}

/// A group, or an error that says what is there instead.
fn group(context: &Context, path: &str) -> Result<Group> {
    match context.container.node(path)? {
        Node::Group(group) => Ok(group),
        Node::Dataset(_) => {
            Err(context.blame(Error::corrupt("a group was expected, but this is a dataset"), path))
        }
    }
}

fn dataset(context: &Context, path: &str) -> Result<Dataset> {
    match context.container.node(path)? {
        Node::Dataset(dataset) => Ok(dataset),
        Node::Group(_) => {
            Err(context.blame(Error::corrupt("a dataset was expected, but this is a group"), path))
        }
    }
}

/// An attribute of text; one of another kind is as good as none.
fn text<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    attributes.string(name).ok().flatten()
}

/// How an element says it is encoded: type and version.
fn encoding(attributes: &Attributes) -> (&str, &str) {
    (
        text(attributes, "encoding-type").unwrap_or(""),
        text(attributes, "encoding-version").unwrap_or(""),
    )
}

/// Opens what lies at `root` inside the file, usually the root group itself.
pub(crate) async fn open(context: &Context, root: &str) -> Result<Opened> {
    let top = group(context, root)?;
    let has = |name: &str| top.members.iter().any(|m| m == name);
    if has("obs") && has("var") {
        return open_anndata(context, root, &top).await;
    }
    if let Some(matrix) = tenx::find(context, root, &top)? {
        return tenx::open(context, &matrix).await;
    }
    Err(context.blame(refuse(&top), root))
}

/// Where the store is, with the group inside the file if it is not the root.
fn location(context: &Context, root: &str) -> String {
    let file = context.source.location();
    if root.is_empty() { file.to_owned() } else { format!("{file}#{root}") }
}

/// Says what a file that is not AnnData seems to be, and what to do.
fn refuse(top: &Group) -> Error {
    let has = |name: &str| top.members.iter().any(|m| m == name);
    if has_mod(top) {
        return Error::unsupported(
            "this is MuData, several AnnData in one file; name one, as file.h5mu#mod/NAME",
        );
    }
    if has("row_attrs") && has("col_attrs") {
        return Error::unsupported(
            "this is Loom, which stores genes by cells; rewrite it by cells: in Python \
             anndata.read_loom(PATH).write_h5ad(NEW)",
        );
    }
    let mut members: Vec<&str> = top.members.iter().take(12).map(String::as_str).collect();
    if members.len() < top.members.len() {
        members.push("...");
    }
    Error::unsupported(format!(
        "this is HDF5, but not AnnData: a file of AnnData has the groups obs and var; this one has {}",
        if members.is_empty() { "nothing".to_owned() } else { members.join(", ") }
    ))
}

/// Whether this is MuData, which has an obs and a var of its own.
fn has_mod(top: &Group) -> bool {
    encoding(&top.attributes).0 == "MuData" || top.members.iter().any(|m| m == "mod")
}

async fn open_anndata(context: &Context, root: &str, top: &Group) -> Result<Opened> {
    let (kind, version) = encoding(&top.attributes);
    if has_mod(top) {
        return Err(context.blame(refuse(top), root));
    }
    if !matches!(kind, "" | "anndata") {
        return Err(context
            .blame(Error::unsupported(format!("the encoding {kind:?} is not AnnData")), root));
    }
    let uns = join(root, "uns");
    let obs = frame::open(context, &join(root, "obs"), &uns).await?;
    let var = frame::open(context, &join(root, "var"), &uns).await?;
    let n_obs = obs.n_rows;
    let var = genes(context, var).await?;
    let var_schema = Arc::clone(&var.schema);
    let mut raw_var = None;
    let has = |name: &str| top.members.iter().any(|m| m == name);

    let mut found = Vec::new();
    if has("X") {
        found.push((MatrixKey::X, join(root, "X"), Arc::clone(&var_schema)));
    }
    if has("layers") {
        let layers = join(root, "layers");
        for name in group(context, &layers)?.members {
            let path = join(&layers, &name);
            found.push((MatrixKey::Layer(name), path, Arc::clone(&var_schema)));
        }
    }
    // In files of anndata 0.6 and before these are members of the root.
    for (matrix, genes) in [("raw/X", "raw/var"), ("raw.X", "raw.var")] {
        let path = join(root, matrix);
        let present = match matrix.split_once('/') {
            Some((raw, x)) => has(raw) && has_member(context, &join(root, raw), x),
            None => has(matrix),
        };
        if present {
            let var = frame::open(context, &join(root, genes), &uns).await?;
            let var = self::genes(context, var).await?;
            found.push((MatrixKey::Raw, path, Arc::clone(&var.schema)));
            raw_var = Some(var);
        }
    }
    let (matrices, described) = open_matrices(context, found, n_obs).await?;
    let writer = writer(kind, version, &obs, has("X") && is_h5sparse(context, &join(root, "X")));
    let schema = Schema {
        format: "h5ad".to_owned(),
        location: location(context, root),
        writer: Some(writer),
        n_obs,
        matrices: described,
        obs_index: obs.index.as_ref().map(|c| c.schema.name.clone()),
        obs: obs.columns.iter().map(|c| c.schema.clone()).collect(),
        var: var_schema,
    };
    Ok(Opened { schema, matrices, columns: obs.into_columns(), var, raw_var })
}

/// Opens matrices. One that cannot be read is described with the reason, unless it contradicts
/// itself: then the file is refused.
async fn open_matrices(
    context: &Context,
    found: Vec<(MatrixKey, String, Arc<VarSchema>)>,
    n_obs: u64,
) -> Result<(Vec<(MatrixKey, Matrix)>, Vec<MatrixSchema>)> {
    let (mut matrices, mut described) = (Vec::new(), Vec::new());
    for (key, path, var) in found {
        match matrix::open(context, &path, &key, n_obs, &var).await {
            Ok(None) => {}
            Ok(Some((schema, matrix))) => {
                described.push(schema);
                matrices.extend(matrix.map(|m| (key, m)));
            }
            // A damaged layer does not stand in the way of X.
            Err(e) if key == MatrixKey::X && e.kind() != ErrorKind::Unsupported => return Err(e),
            Err(e) => described.push(MatrixSchema::unreadable(key, var, reason(&e))),
        }
    }
    Ok((matrices, described))
}

/// Why something cannot be read, for a schema that names the file and the element itself.
pub(crate) fn reason(error: &Error) -> String {
    let place = error.context().filter(|(key, _)| *key != "file");
    let place: Vec<String> = place.map(|(key, value)| format!("{key} {value}")).collect();
    if place.is_empty() {
        return error.message().to_owned();
    }
    format!("{} ({})", error.message(), place.join(", "))
}

fn has_member(context: &Context, path: &str, name: &str) -> bool {
    group(context, path).is_ok_and(|g| g.members.iter().any(|m| m == name))
}

fn is_h5sparse(context: &Context, path: &str) -> bool {
    group(context, path).is_ok_and(|g| text(&g.attributes, "h5sparse_format").is_some())
}

fn writer(kind: &str, version: &str, obs: &Frame, h5sparse: bool) -> String {
    if kind == "anndata" {
        return format!("anndata 0.8 or later (encoding {version})");
    }
    if obs.compound || h5sparse {
        return "anndata 0.6 or earlier (no encoding stated)".to_owned();
    }
    "anndata 0.7 (no encoding stated at the root)".to_owned()
}

async fn genes(context: &Context, var: Frame) -> Result<Genes> {
    let names = match &var.index {
        // Names that cannot be read leave the rest of the file readable.
        Some(index) => index.all_text(context, var.n_rows).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let columns: Vec<ColumnSchema> = var.columns.iter().map(|c| c.schema.clone()).collect();
    let schema = Arc::new(VarSchema { n_vars: var.n_rows, names, columns });
    let index = var.index.map_or_else(|| "_index".to_owned(), |c| c.schema.name);
    Ok(Genes { schema, index, columns: var.columns })
}
