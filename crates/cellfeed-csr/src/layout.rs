//! Header and files to schema. Every length is held against the header and against the others before
//! anything is sized by it.

use crate::columns::{Column, check_file};
use crate::header::{FileEntry, Header, LayoutName, MatrixEntry, NAME, TableEntry};
use crate::packed::{PackedMatrix, longest_row};
use crate::read::{Array, Matrix, PlainMatrix};
use cellfeed_core::io::{Access, ByteSource, Engine, Folder, LocalFile, MappedFile};
use cellfeed_core::{
    ArrayStorage, ColumnSchema, Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, Result,
    RowCheck, RowOffsets, Schema, ValueType, VarSchema, typed,
};
use std::path::Path;
use std::sync::Arc;

/// Files of columns up to this length are got together from a folder that is far.
const SMALL: u64 = 1 << 20;

/// A store that was understood.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) schema: Schema,
    pub(crate) matrices: Vec<(MatrixKey, Matrix)>,
    pub(crate) columns: Vec<Column>,
    pub(crate) tables: Tables,
}

/// Where the genes' tables are, for conversion.
#[derive(Debug)]
pub(crate) enum Tables {
    /// Of X and the layers, and of `raw/X`.
    Files { folder: Arc<dyn Folder>, var: Box<TableEntry>, raw_var: Option<Box<TableEntry>> },
    /// Names alone, which are in the schema.
    Names,
}

/// Opens a store of our own format.
pub(crate) fn open(
    folder: &Arc<dyn Folder>,
    engine: &Arc<Engine>,
    access: Access,
) -> Result<Opened> {
    let header = Header::read(&**folder)?;
    let blame = |e: Error| e.with_default("file", folder.place(NAME));
    if header.obs.n_rows != header.n_obs {
        return Err(blame(Error::corrupt(format!(
            "obs has {} rows for {} cells",
            header.obs.n_rows, header.n_obs
        ))));
    }
    let small: Vec<&str> =
        header.small_files().filter(|f| f.bytes <= SMALL).map(|f| f.path.as_str()).collect();
    folder.read_soon(&|name| small.contains(&name));
    for entry in header.files() {
        check_file(&**folder, entry)?;
    }
    let columns = |table: &TableEntry| -> Result<Vec<Column>> {
        table.columns.iter().map(|c| Column::open(folder, c, table.n_rows)).collect()
    };
    let index = |table: &TableEntry| -> Result<Option<Column>> {
        table.index.as_ref().map(|c| Column::open(folder, c, table.n_rows)).transpose()
    };
    let var_schema = |table: &TableEntry| -> Result<Arc<VarSchema>> {
        let names = match index(table)? {
            None => Vec::new(),
            Some(column) => {
                use arrow_array::cast::AsArray;
                let array = column.whole()?;
                let texts = array
                    .as_string_opt::<i32>()
                    .ok_or_else(|| blame(Error::corrupt("the names of the genes are not text")))?;
                texts.iter().map(|t| t.unwrap_or_default().to_owned()).collect()
            }
        };
        let described = columns(table)?.into_iter().map(|c| c.schema).collect();
        Ok(Arc::new(VarSchema { n_vars: table.n_rows, names, columns: described }))
    };
    let var = var_schema(&header.var)?;
    let raw_var = header.raw_var.as_ref().map(&var_schema).transpose()?;

    let (mut described, mut matrices) = (Vec::new(), Vec::new());
    for entry in &header.matrices {
        let key: MatrixKey = entry
            .key
            .parse()
            .map_err(|_| blame(Error::corrupt(format!("a matrix is called {:?}", entry.key))))?;
        if described.iter().any(|m: &MatrixSchema| m.key == key) {
            return Err(blame(Error::corrupt(format!("there are two matrices {key}"))));
        }
        let var = match (&key, &raw_var) {
            (MatrixKey::Raw, Some(raw)) => raw,
            _ => &var,
        };
        let files = (folder, engine, access);
        let (schema, matrix) = open_matrix(files, entry, &key, header.n_obs, var)
            .map_err(|e| blame(e.with_default("element", &key)))?;
        described.push(schema);
        matrices.push((key, matrix));
    }
    let mut readable = columns(&header.obs)?;
    let obs: Vec<ColumnSchema> = readable.iter().map(|c| c.schema.clone()).collect();
    let index = index(&header.obs)?;
    let obs_index = index.as_ref().map(|c| c.schema.name.clone());
    readable.extend(index);
    let schema = Schema {
        format: "csr".to_owned(),
        location: folder.location().to_owned(),
        writer: header.writer.clone(),
        n_obs: header.n_obs,
        matrices: described,
        obs_index,
        obs,
        var,
    };
    let tables = Tables::Files {
        folder: Arc::clone(folder),
        var: Box::new(header.var),
        raw_var: header.raw_var.map(Box::new),
    };
    Ok(Opened { schema, matrices, columns: readable, tables })
}

/// The files of a store, who reads them, and how.
pub(crate) type Files<'a> = (&'a Arc<dyn Folder>, &'a Arc<Engine>, Access);

fn open_matrix(
    files: Files<'_>,
    entry: &MatrixEntry,
    key: &MatrixKey,
    n_obs: u64,
    var: &Arc<VarSchema>,
) -> Result<(MatrixSchema, Matrix)> {
    let folder = files.0;
    if entry.n_vars != var.n_vars {
        return Err(Error::corrupt(format!(
            "the matrix has {} genes, but its table has {}",
            entry.n_vars, var.n_vars
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
    let entries = n_obs.checked_add(1).ok_or_else(|| Error::corrupt("too many cells"))?;
    if entry.indptr.bytes != entries.saturating_mul(8) {
        return Err(Error::corrupt(format!(
            "indptr has {} bytes, but {n_obs} cells need {}",
            entry.indptr.bytes,
            entries.saturating_mul(8)
        ))
        .with("file", folder.place(&entry.indptr.path)));
    }
    // A row has a gene once at most.
    let offsets = open_offsets(files, &entry.indptr, entry.n_vars)?;
    if offsets.nnz() != entry.nnz {
        return Err(Error::corrupt(format!(
            "indptr ends at {}, but the header says {} values",
            offsets.nnz(),
            entry.nnz
        ))
        .with("file", folder.place(&entry.indptr.path)));
    }
    let storage = |name: &str, element: ValueType, file: &FileEntry| ArrayStorage {
        name: format!("{key}/{name}"),
        element: element.as_str().to_owned(),
        shape: vec![entry.nnz],
        chunk: None,
        n_chunks: 1,
        codecs: if entry.layout == LayoutName::Packed { vec!["packed".into()] } else { vec![] },
        bytes: file.bytes,
    };
    let missing = |what: &str| Error::corrupt(format!("the header names no file for {what}"));
    let (matrix, arrays) = match entry.layout {
        LayoutName::Plain => {
            let indices = entry.indices.as_ref().ok_or_else(|| missing("indices"))?;
            let data = entry.data.as_ref().ok_or_else(|| missing("data"))?;
            let matrix = Matrix::Plain(Arc::new(PlainMatrix {
                indices: open_array(files, indices, index_type, entry.nnz)?,
                data: open_array(files, data, value_type, entry.nnz)?,
                offsets,
                check: Arc::new(RowCheck::new(
                    entry.n_vars,
                    folder.place(&indices.path),
                    key.to_string(),
                )),
            }));
            let arrays =
                vec![storage("indices", index_type, indices), storage("data", value_type, data)];
            (matrix, arrays)
        }
        LayoutName::Packed => {
            let starts = entry.offsets.as_ref().ok_or_else(|| missing("offsets"))?;
            let rows = entry.rows.as_ref().ok_or_else(|| missing("rows"))?;
            let longest = longest_row(entry.n_vars);
            let starts = open_offsets(files, starts, longest)?;
            let (file, map) = open_rows(files, rows)?;
            let arrays = vec![storage("rows", value_type, rows)];
            let matrix = PackedMatrix {
                offsets,
                starts,
                file,
                map,
                value_type,
                index_type,
                n_vars: entry.n_vars,
                element: key.to_string(),
            }
            .checked()
            .map_err(|e| e.with_default("file", folder.place(&rows.path)))?;
            (Matrix::Packed(Arc::new(matrix)), arrays)
        }
    };
    let schema = MatrixSchema {
        key: key.clone(),
        encoding: Encoding::Csr,
        value_type,
        nnz: Some(entry.nnz),
        var: Arc::clone(var),
        arrays,
        unreadable: None,
    };
    Ok((schema, matrix))
}

/// Describes a plain array: its file must hold just its elements.
pub(crate) fn open_array(
    files: Files<'_>,
    entry: &FileEntry,
    element: ValueType,
    len: u64,
) -> Result<Array> {
    let size = u64::try_from(element.size()).unwrap_or(8);
    if len.checked_mul(size) != Some(entry.bytes) {
        return Err(Error::corrupt(format!(
            "{len} elements of {element} take {} bytes, but the file has {}",
            len.saturating_mul(size),
            entry.bytes
        ))
        .with("file", files.0.place(&entry.path)));
    }
    let (file, map) = open_rows(files, entry)?;
    Ok(Array { element, file, map })
}

/// A file of rows, and its map where it is on this machine.
fn open_rows(
    (folder, engine, access): Files<'_>,
    entry: &FileEntry,
) -> Result<(Arc<dyn ByteSource>, Option<MappedFile>)> {
    let Some(root) = folder.local() else { return Ok((folder.open(&entry.path)?, None)) };
    let file = open_local(root, engine, entry)?;
    let map = access.map_of(&*file)?;
    Ok((file, map))
}

/// A file that stays open: not through the folder, which closes files when too many are open.
fn open_local(root: &Path, engine: &Arc<Engine>, entry: &FileEntry) -> Result<Arc<dyn ByteSource>> {
    let file = LocalFile::open(&root.join(&entry.path), Arc::clone(engine))?;
    // The header was held against the folder before; now against what was opened.
    if file.len() != entry.bytes {
        return Err(Error::new(
            ErrorKind::Changed,
            "the file's length is not what it was a moment ago; open the store again once nobody \
             writes to it",
        )
        .with("file", file.location()));
    }
    Ok(Arc::new(file))
}

/// Row offsets of 64 bits, as they lie if they may be mapped, else read whole; `longest` is how much a
/// row can have. The caller has checked the file's length.
pub(crate) fn open_offsets(
    (folder, engine, access): Files<'_>,
    entry: &FileEntry,
    longest: u64,
) -> Result<RowOffsets> {
    if access != Access::Read
        && let Some(root) = folder.local()
        && let Some(viewed) = RowOffsets::viewed(&open_local(root, engine, entry)?, longest)?
    {
        return Ok(viewed);
    }
    read_offsets(&**folder, entry)
}

/// Bytes of row offsets that are read at a time.
const WINDOW: u64 = 8 << 20;
const FAR_WINDOW: u64 = 64 << 20;

/// Reads row offsets of 64 bits, in parts; the caller has checked the file's length.
fn read_offsets(folder: &dyn Folder, entry: &FileEntry) -> Result<RowOffsets> {
    let blame = |e: Error| e.with_default("file", folder.place(&entry.path));
    let file = folder.open(&entry.path)?;
    let mut builder = RowOffsets::builder();
    let window = if file.is_far() { FAR_WINDOW } else { WINDOW };
    let mut at = 0;
    while at < entry.bytes {
        let end = entry.bytes.min(at + window);
        let mut part = vec![0; usize::try_from(end - at).unwrap_or(usize::MAX)];
        file.read_exact_at(at, &mut part)?;
        at = end;
        let entries = typed::<u64>(part.into()).map_err(blame)?;
        builder.extend(entries.iter().map(|&e| u64::from_le(e))).map_err(blame)?;
    }
    Ok(builder.finish())
}
