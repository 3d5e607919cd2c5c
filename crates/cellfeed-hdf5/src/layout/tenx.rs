//! 10x Genomics `.h5`: genes by cells in CSC form, which is cells by genes in CSR form.

use super::matrix::Parts;
use super::{Genes, Matrix, Opened, dataset, join};
use crate::container::{Group, Node};
use crate::read::{Column, ColumnData, Context, Convert, StoredArray, column_to_text, integers};
use cellfeed_core::{
    ColumnKind, ColumnSchema, Encoding, Error, MatrixKey, Result, RowRanges, Schema, VarSchema,
};
use std::sync::{Arc, OnceLock};

/// Where the matrix is: `matrix` in version 3, a group named after the genome in version 2.
pub(super) struct Found {
    path: String,
    version: u8,
}

/// Looks for a 10x matrix.
pub(super) fn find(context: &Context, root: &str, top: &Group) -> Result<Option<Found>> {
    let is_matrix =
        |g: &Group, names: &[&str]| names.iter().all(|n| g.members.iter().any(|m| m == n));
    let arrays = ["barcodes", "data", "indices", "indptr", "shape"];
    if is_matrix(top, &arrays) {
        let version = if top.members.iter().any(|m| m == "features") { 3 } else { 2 };
        return Ok(Some(Found { path: root.to_owned(), version }));
    }
    let mut found = Vec::new();
    for name in top.members.iter().take(64) {
        let path = join(root, name);
        if let Ok(Node::Group(g)) = context.container.node(&path)
            && is_matrix(&g, &arrays)
        {
            let version = if g.members.iter().any(|m| m == "features") { 3 } else { 2 };
            found.push((name.clone(), Found { path, version }));
        }
    }
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|(n, _)| n.as_str()).collect();
        return Err(Error::unsupported(format!(
            "the file holds {} genomes: {}; name one, as file.h5#{}",
            names.len(),
            names.join(", "),
            names[0]
        )));
    }
    Ok(found.pop().map(|(_, found)| found))
}

fn text_column(context: &Context, path: &str, name: &str) -> Result<(Column, u64)> {
    let stored = dataset(context, path)?;
    if !stored.element.is_string() || stored.shape.len() != 1 {
        let error = Error::corrupt(format!("text was expected, not {}", stored.element));
        return Err(context.blame(error, path));
    }
    let n_rows = stored.rows();
    let schema = ColumnSchema {
        name: name.to_owned(),
        kind: ColumnKind::String,
        encoding: "string".to_owned(),
    };
    let data = ColumnData::Strings { path: path.to_owned(), field: None, n_rows, mask: None };
    Ok((Column { schema, data, as_text: false, whole: OnceLock::new() }, n_rows))
}

pub(super) async fn open(context: &Context, found: &Found) -> Result<Opened> {
    let at = |name: &str| join(&found.path, name);
    let stored = StoredArray::open(context, &at("shape"), &dataset(context, &at("shape"))?)?;
    let both = 0..stored.len().min(2);
    let bytes = stored.read(context, std::slice::from_ref(&both), Convert::Keep).await?;
    let shape = integers(stored.element(), &bytes)?;
    let shape: Vec<u64> = shape.iter().filter_map(|&n| u64::try_from(n).ok()).collect();
    let [n_vars, n_obs] = shape[..] else {
        let error = Error::corrupt("the shape should be two sizes, genes and cells");
        return Err(context.blame(error, &at("shape")));
    };
    let (barcodes, n_barcodes) = text_column(context, &at("barcodes"), "barcodes")?;
    let (names_at, columns_at) = if found.version == 3 {
        // The ids: names repeat.
        (
            at("features/id"),
            ["features/name", "features/feature_type", "features/genome"].as_slice(),
        )
    } else {
        (at("genes"), ["gene_names"].as_slice())
    };
    let (names, n_names) = text_column(context, &names_at, "id")?;
    for (what, n, wanted) in [("barcodes", n_barcodes, n_obs), ("genes", n_names, n_vars)] {
        if n != wanted {
            let error =
                Error::corrupt(format!("there are {n} {what}, but the shape says {wanted}"));
            return Err(context.blame(error, &found.path));
        }
    }
    if i32::try_from(n_vars).is_err() {
        return Err(Error::unsupported(format!("{n_vars} genes are more than 2^31")));
    }
    let names = names.read(context, &RowRanges::single(0..n_vars)).await?;
    let columns = columns_at.iter().filter_map(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let (column, n) = text_column(context, &at(path), name).ok()?;
        (n == n_vars).then_some(column)
    });
    let columns: Vec<Column> = columns.collect();
    let described = columns.iter().map(|c| c.schema.clone()).collect();
    let var = Arc::new(VarSchema { n_vars, names: column_to_text(&names), columns: described });
    let parts = Parts::find(context, &found.path)?;
    let described = parts.describe(context, &MatrixKey::X, Encoding::Csr, &var)?;
    let matrix = parts.open(context, (n_obs, "cells"), n_vars).await?;
    let schema = Schema {
        format: "10x-h5".to_owned(),
        location: context.source.location().to_owned(),
        writer: Some(format!("10x Genomics, version {} of the layout", found.version)),
        n_obs,
        matrices: vec![described],
        obs_index: Some("barcodes".to_owned()),
        obs: Vec::new(),
        var: Arc::clone(&var),
    };
    Ok(Opened {
        schema,
        matrices: vec![(MatrixKey::X, Matrix::Sparse(Box::new(matrix)))],
        columns: vec![barcodes],
        var: Genes { schema: var, index: "id".to_owned(), columns },
        raw_var: None,
    })
}
