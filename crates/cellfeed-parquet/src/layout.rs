//! Our own layout: a file whose metadata say which columns are matrices, obs and genes.

use crate::column::Stored;
use crate::decode::is_blob;
use crate::files::{Files, read_footer};
use crate::footer::{Footer, Leaf};
use crate::header::{Header, KEY, LayoutName, MatrixEntry};
use crate::place::Place;
use crate::read::{Context, Genes, Matrix};
use crate::table::{describe, names, read_table};
use cellfeed_core::io::{ByteSource, Engine};
use cellfeed_core::{
    ArrayStorage, ColumnSchema, Encoding, Error, MatrixKey, MatrixSchema, Result, Schema, Table,
    ValueType, VarSchema,
};
use std::sync::Arc;

/// An obs column that can be read.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) leaf: usize,
    pub(crate) stored: Stored,
}

/// A store that was understood.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) schema: Schema,
    pub(crate) context: Context,
    pub(crate) matrices: Vec<(MatrixKey, Arc<Matrix>)>,
    pub(crate) columns: Vec<Column>,
    /// Genes of `X` and the layers, and of `raw/X`.
    pub(crate) var: Table,
    pub(crate) raw_var: Option<Table>,
}

/// Opens a file of our own layout.
pub(crate) fn open(place: &Place, engine: &Arc<Engine>) -> Result<Opened> {
    let blame = |e: Error| e.with_default("file", &place.location);
    let (set, name) = (Arc::clone(&place.folder), place.name.clone());
    // From here on the file must stay as it is.
    let file = set.open(&name)?;
    let footer = read_footer(&*file)?;
    let header = Header::read(&footer).map_err(blame)?.ok_or_else(|| {
        let have: Vec<&str> = footer.leaves.iter().map(|l| l.name.as_str()).take(12).collect();
        blame(Error::unsupported(format!(
            "the file has neither metadata under {KEY:?} nor the columns genes and expressions of \
             Tahoe-100M; it has the columns {}",
            have.join(", ")
        )))
    })?;
    let understood = || {
        let files = Files::open(set, vec![name], std::slice::from_ref(&footer))?;
        understand(&*file, files, &footer, header, place.location.clone(), engine)
    };
    understood().map_err(blame)
}

pub(crate) fn var_schema(table: &Table) -> Arc<VarSchema> {
    let columns = table.columns().iter().map(|(column, _)| column.clone()).collect();
    Arc::new(VarSchema { n_vars: table.n_rows(), names: names(table), columns })
}

fn understand(
    file: &dyn ByteSource,
    files: Files,
    footer: &Footer,
    header: Header,
    location: String,
    engine: &Arc<Engine>,
) -> Result<Opened> {
    let table = |entry| read_table(file, entry);
    let var = table(&header.var)?;
    let raw_var = header.raw_var.as_ref().map(table).transpose()?;
    let shapes = (var_schema(&var), raw_var.as_ref().map(var_schema));
    let (mut described, mut matrices) = (Vec::<MatrixSchema>::new(), Vec::new());
    for entry in &header.matrices {
        let key: MatrixKey = entry
            .key
            .parse()
            .map_err(|_| Error::corrupt(format!("a matrix is called {:?}", entry.key)))?;
        if described.iter().any(|m| m.key == key) {
            return Err(Error::corrupt(format!("there are two matrices {key}")));
        }
        let shape = match (&key, &shapes.1) {
            (MatrixKey::Raw, Some(raw)) => raw,
            _ => &shapes.0,
        };
        let matrix =
            matrix(footer, &files, entry, shape).map_err(|e| e.with_default("element", &key))?;
        described.push(MatrixSchema {
            key: key.clone(),
            encoding: Encoding::Csr,
            value_type: matrix.value_type,
            nnz: Some(entry.nnz),
            var: Arc::clone(shape),
            arrays: storage(&files, &key, &matrix, entry.nnz),
            unreadable: None,
        });
        matrices.push((key, Arc::new(matrix)));
    }
    let mut columns = Vec::new();
    let mut obs: Vec<ColumnSchema> = Vec::new();
    let mut column = |entry, listed: Option<&mut Vec<ColumnSchema>>| -> Result<()> {
        let (schema, leaf, stored) = describe(file, entry, footer)?;
        columns.push(Column { name: schema.name.clone(), leaf, stored });
        if let Some(listed) = listed {
            listed.push(schema);
        }
        Ok(())
    };
    for entry in &header.obs.columns {
        column(entry, Some(&mut obs))?;
    }
    if let Some(entry) = &header.obs.index {
        column(entry, None)?;
    }
    let schema = Schema {
        format: "parquet".to_owned(),
        location,
        writer: header.writer.or_else(|| footer.writer.clone()),
        n_obs: header.n_obs,
        matrices: described,
        obs_index: header.obs.index.map(|entry| entry.name),
        obs,
        var: shapes.0,
    };
    let context = Context::new(files, Arc::clone(engine));
    Ok(Opened { schema, context, matrices, columns, var, raw_var })
}

fn matrix(
    footer: &Footer,
    files: &Files,
    entry: &MatrixEntry,
    shape: &VarSchema,
) -> Result<Matrix> {
    if entry.n_vars != shape.n_vars {
        return Err(Error::corrupt(format!(
            "the matrix has {} genes, but its table has {}",
            entry.n_vars, shape.n_vars
        )));
    }
    if u32::try_from(entry.n_vars).is_err() {
        return Err(Error::unsupported("2^32 genes and more"));
    }
    let value_type: ValueType =
        entry.value_type.parse().map_err(|e: Error| Error::corrupt(e.message().to_owned()))?;
    let index_type = match entry.index_type.as_str() {
        "u16" => ValueType::U16,
        "u32" => ValueType::U32,
        other => return Err(Error::corrupt(format!("gene indices of type {other:?}"))),
    };
    if index_type == ValueType::U16 && entry.n_vars > 1 << 16 {
        return Err(Error::corrupt(format!("gene indices of 16 bits for {} genes", entry.n_vars)));
    }
    let blob = entry.layout == LayoutName::Blob;
    let leaf = |name: &str| -> Result<usize> {
        let found = footer.leaf(name).filter(|&i| is_blob(&footer.leaves[i]) == Some(blob));
        found.ok_or_else(|| {
            Error::corrupt(format!(
                "there is no column {name:?} of {}: another tool has changed the file",
                if blob { "byte strings" } else { "lists of numbers" }
            ))
        })
    };
    let (indices, data) = (leaf(&entry.indices)?, leaf(&entry.data)?);
    if !blob && footer.leaves[data].value_type() != Some(value_type) {
        return Err(Error::corrupt(format!(
            "the column {:?} does not hold values of type {value_type}",
            entry.data
        )));
    }
    check_nnz(files, [indices, data], entry, blob)?;
    let index_type = match blob {
        true => index_type,
        false if entry.n_vars < 1 << 16 => ValueType::U16,
        false => ValueType::U32,
    };
    Ok(Matrix {
        indices,
        data,
        n_vars: entry.n_vars,
        value_type,
        index_type,
        blob,
        genes: Genes::Columns,
    })
}

/// Whether so many values fit the chunks.
fn check_nnz(files: &Files, leaves: [usize; 2], entry: &MatrixEntry, blob: bool) -> Result<()> {
    let sum = |leaf: usize, of: fn(&crate::files::Chunk) -> u64| -> u64 {
        files.column(leaf).map(of).fold(0, u64::saturating_add)
    };
    let most = if blob { sum(leaves[1], |c| c.plain) } else { sum(leaves[1], |c| c.n_values) };
    if entry.nnz > most {
        return Err(Error::corrupt(format!(
            "the metadata speak of {} values, but the columns have {most} at most",
            entry.nnz
        )));
    }
    Ok(())
}

/// What is shown of a matrix's columns.
pub(crate) fn storage(
    files: &Files,
    key: &MatrixKey,
    matrix: &Matrix,
    nnz: u64,
) -> Vec<ArrayStorage> {
    let one = |leaf: usize, element: ValueType, name: &str| {
        let found: &Leaf = &files.leaves[leaf];
        let (mut bytes, mut pages, mut codecs) = (0u64, 0, Vec::new());
        for chunk in files.column(leaf) {
            bytes = bytes.saturating_add(chunk.len);
            pages += chunk.pages.get().map_or(1, |p| p.len());
            let codec = chunk.codec.name();
            if codec != "none" && !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        ArrayStorage {
            name: format!("{key}/{name} ({})", found.name),
            element: element.as_str().to_owned(),
            shape: vec![nnz],
            chunk: None,
            n_chunks: u64::try_from(pages).unwrap_or(0),
            codecs,
            bytes,
        }
    };
    vec![
        one(matrix.indices, matrix.index_type, "indices"),
        one(matrix.data, matrix.value_type, "data"),
    ]
}
