//! The obs and var tables, written as their rows come, in the encodings of anndata 0.12.

use super::codec::Codec;
use super::column::Column;
use super::stream::{Items, Stream};
use super::tree::{Tree, encoding, refused_name};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use cellfeed_core::{ColumnSchema, Error, Result, Table};
use serde_json::json;

/// Rows of an inner chunk of a column: columns are read whole, or nearly so.
const CHUNK_ROWS: u64 = 65_536;

/// Bytes of a column that wait before they are written. There may be many columns.
const BATCH: usize = 1 << 18;

/// A table in the making.
#[derive(Debug)]
pub(super) struct Frame {
    path: String,
    index_name: String,
    index: Stream,
    columns: Vec<Option<Column>>,
    order: Vec<String>,
    rows: u64,
}

/// A stream for a column.
pub(super) fn column_stream(path: String, items: Items, codec: Codec) -> Result<Stream> {
    Stream::new(path, items, &[], CHUNK_ROWS, BATCH, codec)
}

impl Frame {
    /// A table with these columns. Those whose names Zarr cannot have are dropped.
    pub(super) fn new<'a>(
        path: &str,
        index: Option<&str>,
        columns: impl Iterator<Item = &'a ColumnSchema> + Clone,
        codec: Codec,
        tree: &mut Tree,
    ) -> Result<Self> {
        let taken = |name: &str| columns.clone().any(|c| c.name == name);
        let usable = |name: &&str| refused_name(name).is_none() && !taken(name);
        // Any name will do: the attribute `_index` says which it is.
        let index_name = index.filter(usable).map_or_else(
            || {
                let mut name = "_index".to_owned();
                while taken(&name) {
                    name.insert(0, '_');
                }
                name
            },
            str::to_owned,
        );
        let index = column_stream(format!("{path}/{index_name}"), Items::TEXT, codec)?;
        let mut order = Vec::new();
        let mut kept = Vec::new();
        for column in columns {
            let at = format!("{path}/{}", column.name);
            if let Some(why) = refused_name(&column.name) {
                tree.dropped.push((at, why.to_owned()));
                kept.push(None);
                continue;
            }
            kept.push(Some(Column::new(at, column, codec)?));
            order.push(column.name.clone());
        }
        Ok(Self { path: path.to_owned(), index_name, index, columns: kept, order, rows: 0 })
    }

    /// Writes a table that is in memory.
    pub(super) fn write(path: &str, table: &Table, codec: Codec, tree: &mut Tree) -> Result<()> {
        let index = table.index();
        let schemas = table.columns().iter().map(|(schema, _)| schema);
        let mut frame = Self::new(path, index.map(|(name, _)| name), schemas, codec, tree)?;
        let columns = table.columns().iter().map(|(_, array)| array);
        let names = index.map(|(_, names)| names as &dyn Array);
        frame.append(table.n_rows(), names, columns, tree)?;
        frame.finish(tree)
    }

    /// Appends rows. Without names they are numbered.
    pub(super) fn append<'a>(
        &mut self,
        n_rows: u64,
        names: Option<&dyn Array>,
        columns: impl Iterator<Item = &'a ArrayRef>,
        tree: &mut Tree,
    ) -> Result<()> {
        match names {
            Some(names) => {
                let texts = names.as_string_opt::<i32>().ok_or_else(|| {
                    Error::invalid_input(format!("the index {:?} is not text", self.index_name))
                })?;
                for i in 0..texts.len() {
                    self.index.text(if texts.is_null(i) { "" } else { texts.value(i) })?;
                }
            }
            None => {
                for row in self.rows..self.rows + n_rows {
                    self.index.text(&row.to_string())?;
                }
            }
        }
        self.rows += n_rows;
        if self.index.is_ripe() {
            self.index.write(tree)?;
        }
        for (column, array) in self.columns.iter_mut().zip(columns) {
            if let Some(column) = column {
                column.append(array, tree)?;
            }
        }
        Ok(())
    }

    /// Writes the rest and the table's metadata.
    pub(super) fn finish(self, tree: &mut Tree) -> Result<()> {
        let mut attributes = encoding("dataframe", "0.2.0");
        attributes.insert("_index".to_owned(), json!(self.index_name));
        attributes.insert("column-order".to_owned(), json!(self.order));
        tree.group(&self.path, &attributes)?;
        self.index.finish(tree, &encoding("string-array", "0.2.0"))?;
        self.columns.into_iter().flatten().try_for_each(|column| column.finish(tree))
    }
}
