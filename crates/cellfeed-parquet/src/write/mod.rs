//! The writer: streams cells into one file under a temporary name.

mod columns;
mod file;
mod matrix;

use crate::codec::Codec;
use crate::header::{Extent, Header, LayoutName, TableEntry, VERSION};
use arrow_array::{ArrayRef, StringArray};
use cellfeed_core::io::Staging;
use cellfeed_core::{
    CellBatch, ColumnKind, ColumnSchema, Error, MatrixKey, NewStore, Result, StoreWriter, Table,
    WriteOptions, Written,
};
use columns::ColumnWriter;
use file::{Compression, FileWriter};
use matrix::MatrixWriter;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The words that [`WriteOptions::with_codec`] takes; zstd also with a level, as `blob-zstd:3`.
pub const CODECS: [&str; 6] =
    ["blob-lz4", "blob-zstd", "blob-none", "list-lz4", "list-zstd", "list-none"];

/// Rows in a page, if no other number is asked for: as many as a block has. Smaller pages cost more
/// index and compress less, larger ones are decoded for rows that nobody wants.
const PAGE_ROWS: u64 = 16;
/// A row group has at most so many rows, and about so many compressed bytes, which are held in memory
/// until it is complete.
const GROUP_ROWS: u64 = 1 << 16;
const GROUP_BYTES: usize = 128 << 20;

/// Layout and compression of a codec by name.
fn parse(name: &str) -> Result<(LayoutName, Compression)> {
    let unknown = || {
        Error::invalid_input(format!(
            "a Parquet store has no codec {name:?}; there are {} (zstd also with a level, as \
             blob-zstd:3)",
            CODECS.join(", ")
        ))
    };
    let (layout, codec) = match name.split_once('-') {
        Some(("blob", codec)) => (LayoutName::Blob, codec),
        Some(("list", codec)) => (LayoutName::List, codec),
        Some(_) => return Err(unknown()),
        None => match name {
            "blob" => (LayoutName::Blob, "lz4"),
            "list" => (LayoutName::List, "lz4"),
            codec => (LayoutName::Blob, codec),
        },
    };
    let plain = |codec| Compression { codec, level: 0 };
    let compression = match codec.split_once(':') {
        None if codec == "none" => plain(Codec::Plain),
        None if codec == "lz4" => plain(Codec::Lz4),
        None if codec == "zstd" => Compression { codec: Codec::Zstd, level: 1 },
        Some(("zstd", level)) => match level.parse() {
            Ok(level @ 1..=22) => Compression { codec: Codec::Zstd, level },
            _ => {
                return Err(Error::invalid_input(format!(
                    "the codec {name:?} has no such level; zstd has levels from 1 to 22"
                )));
            }
        },
        _ => return Err(unknown()),
    };
    Ok((layout, compression))
}

/// Begins a store. Cells are byte strings under LZ4 in pages of 16 rows, unless the options say
/// otherwise.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) for a codec that the format
/// does not have, or if the destination exists and is not to be replaced; `Io` if it cannot be made.
pub fn create(path: &Path, new: NewStore, options: &WriteOptions) -> Result<Box<dyn StoreWriter>> {
    let (layout, compression) = parse(options.codec().unwrap_or(CODECS[0]))?;
    let page_rows = options.chunk_rows().unwrap_or(PAGE_ROWS).clamp(1, GROUP_ROWS);
    let rows = u32::try_from(page_rows).unwrap_or(u32::MAX);
    let mut names = Names::default();
    let matrices = new
        .matrices
        .iter()
        .map(|matrix| {
            let prefix = match &matrix.key {
                MatrixKey::X => String::new(),
                key => format!("{key}/"),
            };
            let columns = ["indices", "data"].map(|name| names.free(format!("{prefix}{name}")));
            MatrixWriter::new(matrix, columns, layout, rows)
        })
        .collect::<Result<Vec<_>>>()?;
    let obs = new.obs.iter().map(|c| ColumnWriter::new(c.clone(), names.free(c.name.clone())));
    let obs = obs.collect::<Result<Vec<_>>>()?;
    let index = new.obs_index.as_ref();
    let index = index.map(|name| ColumnWriter::new(text(name), names.free(name.clone())));
    let index = index.transpose()?;
    let staging = Staging::file(path, options.overwrite())?;
    let handle = staging.handle().try_clone();
    let handle = handle.map_err(|e| Error::io("cannot open", e).with("file", path.display()))?;
    let file = FileWriter::new(BufWriter::with_capacity(1 << 20, handle), compression.codec)?;
    Ok(Box::new(ParquetWriter {
        staging,
        file,
        new,
        compression,
        matrices,
        obs,
        index,
        n_obs: 0,
        group_rows: 0,
        page_rows,
    }))
}

/// Names of columns, each once.
#[derive(Default)]
struct Names(std::collections::HashSet<String>);

impl Names {
    fn free(&mut self, mut name: String) -> String {
        while !self.0.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

fn text(name: &str) -> ColumnSchema {
    let (kind, encoding) = (ColumnKind::String, "parquet".to_owned());
    ColumnSchema { name: name.to_owned(), kind, encoding }
}

/// A store under construction.
#[derive(Debug)]
struct ParquetWriter {
    staging: Staging,
    file: FileWriter<BufWriter<File>>,
    new: NewStore,
    compression: Compression,
    matrices: Vec<MatrixWriter>,
    obs: Vec<ColumnWriter>,
    index: Option<ColumnWriter>,
    n_obs: u64,
    /// Rows of the row group that is being filled.
    group_rows: u64,
    page_rows: u64,
}

impl ParquetWriter {
    /// Appends rows in parts, such that row groups end where pages do: blocks of as many rows as a page
    /// has are then whole pages throughout the file.
    fn append_parts(&mut self, batch: &CellBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.n_rows {
            let rest = batch.n_rows - start;
            let open = self.group_rows % self.page_rows;
            let n = if open > 0 {
                rest.min(self.page_rows - open)
            } else if rest < self.page_rows {
                rest
            } else {
                let room = (GROUP_ROWS - self.group_rows).max(self.page_rows);
                rest.min(room) / self.page_rows * self.page_rows
            };
            self.append_part(&batch.slice(start..start + n)?)?;
            start += n;
        }
        Ok(())
    }

    fn append_part(&mut self, batch: &CellBatch) -> Result<()> {
        for (writer, rows) in self.matrices.iter_mut().zip(&batch.matrices) {
            for segment in rows.segments() {
                writer.append(segment).map_err(|e| e.with_default("element", &writer.key))?;
            }
        }
        for (column, array) in self.obs.iter_mut().zip(&batch.obs) {
            column.append(array)?;
        }
        if let (Some(column), Some(array)) = (&mut self.index, &batch.obs_index) {
            column.append(array)?;
        }
        self.n_obs += batch.n_rows;
        self.group_rows += batch.n_rows;
        let mut bytes = 0;
        for matrix in &mut self.matrices {
            bytes += matrix.compress(self.compression)?;
        }
        let full = self.group_rows + self.page_rows > GROUP_ROWS || bytes >= GROUP_BYTES;
        if full && self.group_rows.is_multiple_of(self.page_rows) {
            self.close_group()?;
        }
        Ok(())
    }

    fn close_group(&mut self) -> Result<()> {
        if self.group_rows == 0 {
            return Ok(());
        }
        let mut columns = Vec::new();
        for matrix in &mut self.matrices {
            columns.extend(matrix.pages(self.compression)?);
        }
        for column in self.obs.iter_mut().chain(&mut self.index) {
            columns.push(column.pages(self.compression)?);
        }
        self.file.group(self.group_rows, columns)?;
        self.group_rows = 0;
        Ok(())
    }

    /// Puts a file within the file.
    fn embed(&mut self, bytes: &[u8]) -> Result<Extent> {
        let offset = self.file.raw(bytes)?;
        let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Extent { offset, bytes: n, xxh3: format!("{:016x}", xxh3_64(bytes)) })
    }

    /// The entry of a column, with its categories put into the file.
    fn entry(&mut self, column: &ColumnWriter) -> Result<crate::header::ColumnEntry> {
        let mut entry = column.entry();
        if let Some(categories) = column.categories() {
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(categories.iter()));
            let mut column = ColumnWriter::new(text("categories"), "categories".to_owned())?;
            column.append(&names)?;
            let n = u64::try_from(categories.len()).unwrap_or(0);
            let file = small_file(n, &mut [column], self.compression)?;
            entry.categories = Some(self.embed(&file)?);
        }
        Ok(entry)
    }

    fn table(&mut self, table: &Table) -> Result<TableEntry> {
        let mut names = Names::default();
        let mut columns = Vec::new();
        if let Some((name, index)) = table.index() {
            let mut column = ColumnWriter::new(text(name), names.free(name.to_owned()))?;
            let array: ArrayRef = Arc::new(index.clone());
            column.append(&array)?;
            columns.push(column);
        }
        for (schema, array) in table.columns() {
            let mut column = ColumnWriter::new(schema.clone(), names.free(schema.name.clone()))?;
            column.append(array)?;
            columns.push(column);
        }
        let entries = columns.iter().map(|c| self.entry(c)).collect::<Result<Vec<_>>>()?;
        let file = small_file(table.n_rows(), &mut columns, self.compression)?;
        let file = Some(self.embed(&file)?);
        let mut entries = entries.into_iter();
        let index = table.index().and_then(|_| entries.next());
        Ok(TableEntry { n_rows: table.n_rows(), file, index, columns: entries.collect() })
    }
}

/// A whole small file of columns.
fn small_file(
    n_rows: u64,
    columns: &mut [ColumnWriter],
    compression: Compression,
) -> Result<Vec<u8>> {
    let mut file = FileWriter::new(Vec::new(), compression.codec)?;
    if n_rows > 0 {
        let pages = columns.iter_mut().map(|c| c.pages(compression)).collect::<Result<_>>()?;
        file.group(n_rows, pages)?;
    }
    let fields: Vec<_> = columns.iter().map(ColumnWriter::field).collect();
    Ok(file.finish(&fields, &[])?.0)
}

impl StoreWriter for ParquetWriter {
    fn append(&mut self, batch: &CellBatch) -> Result<()> {
        self.new.check(batch)?;
        self.append_parts(batch).map_err(|e| e.with_default("file", self.staging.path().display()))
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        if self.n_obs != self.new.n_obs {
            return Err(Error::invalid_input(format!(
                "{} cells were written, but {} were announced",
                self.n_obs, self.new.n_obs
            )));
        }
        self.close_group()?;
        let obs = std::mem::take(&mut self.obs);
        let index = self.index.take();
        let columns = obs.iter().map(|c| self.entry(c)).collect::<Result<_>>()?;
        let entry = index.as_ref().map(|c| self.entry(c)).transpose()?;
        let var = Arc::clone(&self.new.var);
        let raw = self.new.matrices.iter().find(|m| m.key == MatrixKey::Raw);
        let raw = raw.map(|m| Arc::clone(&m.var));
        let header = Header {
            version: VERSION,
            writer: Some(concat!("cellfeed ", env!("CARGO_PKG_VERSION")).to_owned()),
            n_obs: self.n_obs,
            matrices: self.matrices.iter().map(MatrixWriter::entry).collect(),
            obs: TableEntry { n_rows: self.n_obs, file: None, index: entry, columns },
            var: self.table(&var)?,
            raw_var: raw.map(|raw| self.table(&raw)).transpose()?,
        };
        let mut fields: Vec<_> = self.matrices.iter().flat_map(MatrixWriter::fields).collect();
        fields.extend(obs.iter().chain(&index).map(ColumnWriter::field));
        let metadata = header.metadata()?;
        let Self { staging, file, new, matrices, n_obs, .. } = *self;
        let (out, bytes) = file.finish(&fields, &metadata)?;
        drop(out);
        staging.publish()?;
        let why = "a Parquet store keeps matrices, obs and var alone";
        let dropped = new.extras.elements.iter().map(|(n, _)| (n.clone(), why.to_owned()));
        let nnz = matrices.iter().map(|m| m.nnz).sum();
        Ok(Written { n_obs, nnz, bytes, dropped: dropped.collect() })
    }
}
