//! Tables that are read whole: genes, categories. They are small Parquet files, within the store's file
//! or beside it.

use crate::column::{Collector, Stored};
use crate::files::{Chunk, footer_of};
use crate::footer::Footer;
use crate::header::{ColumnEntry, Extent, TableEntry};
use crate::page::Scratch;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use bytes::Bytes;
use cellfeed_core::io::ByteSource;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result, Table};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Larger tables are not believed.
pub(crate) const LARGEST: u64 = 1 << 30;

/// A Parquet file in memory.
#[derive(Debug)]
pub(crate) struct SmallFile {
    bytes: Bytes,
    pub(crate) footer: Footer,
}

impl SmallFile {
    pub(crate) fn new(bytes: Bytes) -> Result<Self> {
        let footer = footer_of(&bytes)?;
        Ok(Self { bytes, footer })
    }

    /// Reads a file within a file, and holds it against its checksum before it is parsed: blocks.
    fn embedded(file: &dyn ByteSource, extent: &Extent) -> Result<Self> {
        let end = extent.offset.checked_add(extent.bytes);
        if end.is_none_or(|end| end > file.len()) || extent.bytes > LARGEST {
            return Err(Error::corrupt(format!(
                "a table of {} bytes at {} lies outside the file, which is truncated or damaged",
                extent.bytes, extent.offset
            )));
        }
        let mut bytes = vec![0; usize::try_from(extent.bytes).unwrap_or(0)];
        file.read_exact_at(extent.offset, &mut bytes)?;
        let found = format!("{:016x}", xxh3_64(&bytes));
        if found != extent.xxh3 {
            return Err(Error::corrupt(format!(
                "the checksum of a table is {found}, but the metadata say {}: its bytes are damaged",
                extent.xxh3
            ))
            .with("offset", extent.offset));
        }
        Self::new(bytes.into())
    }

    /// A whole column.
    pub(crate) fn column(&self, leaf: usize, stored: &Stored) -> Result<ArrayRef> {
        let mut collector = Collector::new(&self.footer.leaves[leaf], stored);
        let (mut first_row, mut scratch) = (0, Scratch::default());
        for group in &self.footer.groups {
            let chunk = Chunk::new(&group.chunks[leaf]);
            let n_rows = u32::try_from(group.n_rows).unwrap_or(u32::MAX);
            let all = 0..n_rows;
            let rows = std::slice::from_ref(&all);
            let plan = chunk.plan(rows);
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let piece = self.bytes.slice(at(chunk.start)..at(chunk.start + chunk.len));
            let read = (&plan, &[piece][..]);
            collector.add(&chunk, read, rows, (first_row, n_rows), &mut scratch)?;
            first_row += group.n_rows;
        }
        collector.finish()
    }
}

/// What a column's entry says it is. Reads its categories: blocks.
pub(crate) fn describe(
    file: &dyn ByteSource,
    entry: &ColumnEntry,
    footer: &Footer,
) -> Result<(ColumnSchema, usize, Stored)> {
    let blame = |e: Error| e.with_default("column", &entry.name);
    let leaf = footer.leaf(&entry.column).ok_or_else(|| {
        blame(Error::corrupt(format!(
            "there is no column {:?}: another tool has changed the file",
            entry.column
        )))
    })?;
    let (guess, found) = Stored::guess(&footer.leaves[leaf])
        .map_err(|why| blame(Error::corrupt(format!("the column cannot be read: {why}"))))?;
    if entry.unsigned != matches!(guess, Stored::Unsigned) {
        return Err(blame(Error::corrupt(
            "the column's numbers have a sign, or none, unlike announced",
        )));
    }
    let (stored, kind) = match (&entry.categories, guess, found) {
        (None, stored, kind) if kind.as_str() == entry.kind => (stored, kind),
        (Some(extent), stored @ (Stored::Text | Stored::Signed), _)
            if entry.kind == "categorical" =>
        {
            let names = SmallFile::embedded(file, extent).and_then(|f| f.column(0, &Stored::Text));
            let names = names.map_err(blame)?;
            let texts = names
                .as_string_opt::<i32>()
                .ok_or_else(|| blame(Error::corrupt("categories are not text")))?;
            let categories: Vec<String> =
                texts.iter().map(|t| t.unwrap_or_default().to_owned()).collect();
            let categories = Arc::new(categories);
            let stored = match stored {
                Stored::Text => Stored::labels(&categories),
                _ => Stored::Codes(Arc::clone(&categories)),
            };
            let ordered = entry.ordered.unwrap_or(false);
            (stored, ColumnKind::Categorical { categories, ordered })
        }
        (_, _, kind) => {
            return Err(blame(Error::corrupt(format!(
                "the metadata call the column {:?}, but it holds {} values",
                entry.kind,
                kind.as_str()
            ))));
        }
    };
    let encoding = "parquet".to_owned();
    Ok((ColumnSchema { name: entry.name.clone(), kind, encoding }, leaf, stored))
}

/// Reads a table of genes: blocks.
pub(crate) fn read_table(file: &dyn ByteSource, entry: &TableEntry) -> Result<Table> {
    let extent =
        entry.file.as_ref().ok_or_else(|| Error::corrupt("a table of genes has no place"))?;
    let small = SmallFile::embedded(file, extent)?;
    if small.footer.n_rows != entry.n_rows {
        return Err(Error::corrupt(format!(
            "a table of {} genes has {} rows",
            entry.n_rows, small.footer.n_rows
        )));
    }
    let read = |entry: &ColumnEntry| -> Result<(ColumnSchema, ArrayRef)> {
        let (schema, leaf, stored) = describe(file, entry, &small.footer)?;
        Ok((schema, small.column(leaf, &stored)?))
    };
    let index = entry.index.as_ref().map(&read).transpose()?;
    let columns = entry.columns.iter().map(&read).collect::<Result<Vec<_>>>()?;
    Table::try_new(entry.n_rows, index.map(|(schema, array)| (schema.name, array)), columns)
        .map_err(|e| Error::corrupt(e.message().to_owned()))
}

/// The names of a table's rows.
pub(crate) fn names(table: &Table) -> Vec<String> {
    let names = table.index().map(|(_, names)| names);
    let text = |names: &arrow_array::StringArray, i: usize| {
        if names.is_valid(i) { names.value(i).to_owned() } else { String::new() }
    };
    names.map(|names| (0..names.len()).map(|i| text(names, i)).collect()).unwrap_or_default()
}
