//! Obs and var columns: an Arrow IPC file each, read whole when first asked for, and held against its
//! checksum before it is parsed, so that damage is found before the parser meets it.

use crate::header::{ColumnEntry, FileEntry, TableEntry};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use cellfeed_core::io::{Entry, Folder};
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result, Table, categorical_array, concat};
use std::fs::File;
use std::io::{BufWriter, Cursor, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A column that can be read.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) schema: ColumnSchema,
    folder: Arc<dyn Folder>,
    values: FileEntry,
    n_rows: u64,
    whole: OnceLock<ArrayRef>,
}

/// Checks a file's length, and that its path stays inside the store.
pub(crate) fn check_file(folder: &dyn Folder, entry: &FileEntry) -> Result<()> {
    let inside = !entry.path.is_empty()
        && entry.path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !entry.path.contains('\\');
    if !inside {
        return Err(Error::corrupt(format!("the header names a file {:?}", entry.path))
            .with("file", folder.place(crate::header::NAME)));
    }
    let blame = |e: Error| e.with_default("file", folder.place(&entry.path));
    match folder.look(&entry.path).map_err(blame)? {
        Some(Entry::File(found)) if found == entry.bytes => Ok(()),
        Some(Entry::File(found)) => Err(blame(Error::corrupt(format!(
            "the file has {found} bytes, but the header says {}; it is truncated or was not copied whole",
            entry.bytes
        )))),
        Some(Entry::Folder) => Err(blame(Error::corrupt("this is a folder, not a file"))),
        None => {
            Err(blame(Error::corrupt("a file of the store is missing; it was not copied whole")))
        }
    }
}

/// A whole file, held against its checksum.
fn read_checked(folder: &dyn Folder, entry: &FileEntry) -> Result<Vec<u8>> {
    let blame = |e: Error| e.with_default("file", folder.place(&entry.path));
    check_file(folder, entry)?;
    let bytes = folder.read(&entry.path, entry.bytes).map_err(blame)?.unwrap_or_default();
    let found = format!("{:016x}", xxh3_64(&bytes));
    if found != entry.xxh3 {
        return Err(blame(Error::corrupt(format!(
            "the file's checksum is {found}, but the header says {}: its bytes are damaged",
            entry.xxh3
        ))));
    }
    Ok(bytes)
}

/// Bytes of text that one array holds: Arrow counts them in 31 bits.
const MOST_TEXT: usize = (1 << 31) - 1;

/// Arrays end to end, if they have at most so many bytes of text.
fn join(parts: &[ArrayRef], most: usize) -> Result<ArrayRef> {
    let texts = parts.iter().filter_map(|part| part.as_string_opt::<i32>());
    let bytes = texts.map(|texts| {
        let ends = texts.value_offsets();
        let bytes = ends.last().zip(ends.first()).map_or(0, |(end, start)| end - start);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    });
    if bytes.fold(0, usize::saturating_add) > most {
        return Err(Error::unsupported(
            "the column has more than 2 GiB of text, which is not read: leave it out (cellfeed convert \
             --obs keeps the columns that are named), or keep the cells in several stores, which are \
             opened as one",
        ));
    }
    concat(parts)
}

/// The array of a file: one column, in any number of batches.
fn read_array(folder: &dyn Folder, entry: &FileEntry, n_rows: Option<u64>) -> Result<ArrayRef> {
    read_array_of(folder, entry, n_rows, MOST_TEXT)
}

fn read_array_of(
    folder: &dyn Folder,
    entry: &FileEntry,
    n_rows: Option<u64>,
    most: usize,
) -> Result<ArrayRef> {
    let bytes = read_checked(folder, entry)?;
    let parse = || -> Result<ArrayRef> {
        let damaged =
            |e: arrow_schema::ArrowError| Error::corrupt("the Arrow file is damaged").caused_by(e);
        let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(damaged)?;
        let schema = reader.schema();
        let mut parts = Vec::new();
        for batch in reader {
            let batch = batch.map_err(damaged)?;
            match batch.columns() {
                [column] => parts.push(Arc::clone(column)),
                _ => return Err(Error::corrupt("the Arrow file has more or less than one column")),
            }
        }
        if parts.is_empty() {
            let [field] = &schema.fields()[..] else {
                return Err(Error::corrupt("the Arrow file has more or less than one column"));
            };
            parts.push(arrow_array::new_empty_array(field.data_type()));
        }
        let array = join(&parts, most)?;
        let found = u64::try_from(array.len()).unwrap_or(u64::MAX);
        if n_rows.is_some_and(|n| n != found) {
            return Err(Error::corrupt(format!(
                "the column has {found} values for {} rows",
                n_rows.unwrap_or(0)
            )));
        }
        Ok(array)
    };
    parse().map_err(|e| e.with_default("file", folder.place(&entry.path)))
}

impl Column {
    /// Describes a column; reads the categories, if it has any.
    pub(crate) fn open(folder: &Arc<dyn Folder>, entry: &ColumnEntry, n_rows: u64) -> Result<Self> {
        let kind = match (entry.kind.as_str(), &entry.categories) {
            ("categorical", Some(categories)) => {
                let array = read_array(&**folder, categories, None)?;
                let Some(texts) = array.as_string_opt::<i32>() else {
                    return Err(Error::corrupt("categories are not text")
                        .with("file", folder.place(&categories.path)));
                };
                let categories = texts.iter().map(|t| t.unwrap_or_default().to_owned()).collect();
                ColumnKind::Categorical {
                    categories: Arc::new(categories),
                    ordered: entry.ordered.unwrap_or(false),
                }
            }
            ("string", None) => ColumnKind::String,
            ("integer", None) => ColumnKind::Integer,
            ("float", None) => ColumnKind::Float,
            ("boolean", None) => ColumnKind::Boolean,
            (other, _) => {
                return Err(Error::corrupt(format!(
                    "the column {:?} is of a kind {other:?}, with or without categories",
                    entry.name
                ))
                .with("file", folder.place(crate::header::NAME)));
            }
        };
        let encoding = "arrow".to_owned();
        let schema = ColumnSchema { name: entry.name.clone(), kind, encoding };
        Ok(Self {
            schema,
            folder: Arc::clone(folder),
            values: entry.values.clone(),
            n_rows,
            whole: OnceLock::new(),
        })
    }

    /// All values; blocks when they are first asked for.
    pub(crate) fn whole(&self) -> Result<ArrayRef> {
        if let Some(array) = self.whole.get() {
            return Ok(Arc::clone(array));
        }
        let array = read_array(&*self.folder, &self.values, Some(self.n_rows))?;
        let path = || self.folder.place(&self.values.path);
        let wrong = || {
            Error::corrupt(format!(
                "the column {:?} is {}, but its file has {}",
                self.schema.name,
                self.schema.kind.as_str(),
                array.data_type()
            ))
            .with("file", path())
        };
        let array = match (&self.schema.kind, array.data_type()) {
            (ColumnKind::Categorical { categories, .. }, DataType::Int32) => {
                categorical_array(array.as_primitive::<Int32Type>().iter(), categories)
                    .map_err(|e| e.with("file", path()))?
            }
            (ColumnKind::String, DataType::Utf8)
            | (ColumnKind::Integer, DataType::Int64 | DataType::UInt64)
            | (ColumnKind::Float, DataType::Float64)
            | (ColumnKind::Boolean, DataType::Boolean) => array,
            _ => return Err(wrong()),
        };
        Ok(Arc::clone(self.whole.get_or_init(|| array)))
    }
}

/// A table as it is read for conversion.
pub(crate) fn read_table(folder: &Arc<dyn Folder>, entry: &TableEntry) -> Result<Table> {
    let read = |column: &ColumnEntry| {
        let column = Column::open(folder, column, entry.n_rows)?;
        let whole = column.whole()?;
        Ok((column.schema, whole))
    };
    let index = entry.index.as_ref().map(|c| read(c).map(|(schema, array)| (schema.name, array)));
    let columns = entry.columns.iter().map(read).collect::<Result<Vec<_>>>()?;
    Table::try_new(entry.n_rows, index.transpose()?, columns).map_err(|e| {
        Error::corrupt(e.message().to_owned()).with("file", folder.place(crate::header::NAME))
    })
}

/// A file that is hashed as it is written.
#[derive(Debug)]
pub(crate) struct HashedFile {
    file: BufWriter<File>,
    hash: Box<HashState>,
    bytes: u64,
    path: String,
}

struct HashState(Xxh3);

impl std::fmt::Debug for HashState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashState")
    }
}

impl HashedFile {
    /// Creates `path` below `folder`.
    pub(crate) fn create(folder: &Path, path: &str) -> Result<Self> {
        let full = folder.join(path);
        let io = |e| Error::io("cannot create", e).with("file", full.display());
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let file = BufWriter::with_capacity(1 << 20, File::create(&full).map_err(io)?);
        let hash = Box::new(HashState(Xxh3::new()));
        Ok(Self { file, hash, bytes: 0, path: path.to_owned() })
    }

    /// Flushes and describes the file.
    pub(crate) fn finish(mut self) -> Result<FileEntry> {
        self.file
            .flush()
            .map_err(|e| Error::io("cannot write", e).with("file", self.path.as_str()))?;
        let xxh3 = format!("{:016x}", self.hash.0.digest());
        Ok(FileEntry { path: self.path, bytes: self.bytes, xxh3 })
    }

    /// Writes, with the file named in the error.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes)
            .map_err(|e| Error::io("cannot write", e).with("file", self.path.as_str()))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.0.update(&bytes[..n]);
        self.bytes += u64::try_from(n).unwrap_or(0);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A column under construction.
pub(crate) struct ColumnWriter {
    schema: ColumnSchema,
    path: String,
    writer: Option<FileWriter<HashedFile>>,
}

impl std::fmt::Debug for ColumnWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(e: arrow_schema::ArrowError) -> Error {
    match e {
        arrow_schema::ArrowError::IoError(_, e) => Error::io("cannot write", e),
        e => Error::internal("cannot write a column").caused_by(e),
    }
}

impl ColumnWriter {
    /// A column to be written to `path` below the store.
    pub(crate) fn new(schema: ColumnSchema, path: String) -> Self {
        Self { schema, path, writer: None }
    }

    /// Appends values. Categorical ones are written as their codes.
    pub(crate) fn append(&mut self, folder: &Path, array: &ArrayRef) -> Result<()> {
        let array = match array.data_type() {
            DataType::Dictionary(_, _) => {
                Arc::new(array.as_dictionary::<Int32Type>().keys().clone()) as ArrayRef
            }
            _ => Arc::clone(array),
        };
        let field = Field::new("values", array.data_type().clone(), true);
        let schema = Arc::new(ArrowSchema::new(vec![field]));
        if self.writer.is_none() {
            let file = HashedFile::create(folder, &self.path)?;
            self.writer = Some(FileWriter::try_new(file, &schema).map_err(failed)?);
        }
        let batch = RecordBatch::try_new(schema, vec![array]).map_err(failed)?;
        match &mut self.writer {
            Some(writer) => writer.write(&batch).map_err(failed),
            None => Err(Error::internal("a column has no file")),
        }
    }

    /// Ends the column.
    pub(crate) fn finish(mut self, folder: &Path) -> Result<ColumnEntry> {
        if self.writer.is_none() {
            let empty = match &self.schema.kind {
                ColumnKind::Categorical { .. } => DataType::Int32,
                ColumnKind::Integer => DataType::Int64,
                ColumnKind::Float => DataType::Float64,
                ColumnKind::Boolean => DataType::Boolean,
                _ => DataType::Utf8,
            };
            self.append(folder, &arrow_array::new_empty_array(&empty))?;
        }
        let values = match self.writer {
            Some(mut writer) => {
                writer.finish().map_err(failed)?;
                writer.into_inner().map_err(failed)?.finish()?
            }
            None => return Err(Error::internal("a column has no file")),
        };
        let (kind, ordered, categories) = match &self.schema.kind {
            ColumnKind::Categorical { categories, ordered } => {
                let path = self.path.replace(".arrow", ".categories.arrow");
                let texts: ArrayRef = Arc::new(StringArray::from_iter_values(categories.iter()));
                let plain = ColumnSchema { kind: ColumnKind::String, ..self.schema.clone() };
                let mut file = Self::new(plain, path);
                file.append(folder, &texts)?;
                ("categorical", Some(*ordered), Some(file.finish(folder)?.values))
            }
            kind => (kind.as_str(), None, None),
        };
        Ok(ColumnEntry {
            name: self.schema.name,
            kind: kind.to_owned(),
            ordered,
            values,
            categories,
        })
    }
}

/// Writes a whole table below `folder/name/`.
pub(crate) fn write_table(folder: &Path, name: &str, table: &Table) -> Result<TableEntry> {
    let write = |schema: ColumnSchema, file: String, array: &ArrayRef| {
        let mut column = ColumnWriter::new(schema, format!("{name}/{file}.arrow"));
        column.append(folder, array)?;
        column.finish(folder)
    };
    let index = table.index().map(|(index, names)| {
        let array: ArrayRef = Arc::new(names.clone());
        write(text_column(index), "index".to_owned(), &array)
    });
    let columns = table.columns().iter().enumerate();
    let columns = columns.map(|(i, (schema, array))| write(schema.clone(), i.to_string(), array));
    let columns = columns.collect::<Result<_>>()?;
    Ok(TableEntry { n_rows: table.n_rows(), index: index.transpose()?, columns })
}

/// A column of text, as the index is.
pub(crate) fn text_column(name: &str) -> ColumnSchema {
    ColumnSchema { name: name.to_owned(), kind: ColumnKind::String, encoding: "arrow".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellfeed_core::ErrorKind;
    use cellfeed_core::io::{Engine, FileSet};

    #[test]
    fn more_text_than_an_array_holds_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ColumnWriter::new(text_column("name"), "name.arrow".to_owned());
        for batch in 0..3 {
            let names = (0..4).map(|i| format!("cell-{batch}-{i}"));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            writer.append(dir.path(), &names).unwrap();
        }
        let entry = writer.finish(dir.path()).unwrap().values;
        let folder = FileSet::new(dir.path(), Arc::new(Engine::default()));
        let read = |most| read_array_of(&folder, &entry, Some(12), most);
        assert_eq!(read(96).unwrap().as_string::<i32>().value(11), "cell-2-3");
        let error = read(95).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("several stores") && text.contains("name.arrow"), "{text}");
    }
}
