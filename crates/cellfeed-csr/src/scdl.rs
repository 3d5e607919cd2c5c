//! NVIDIA BioNeMo SCDL folders, read-only: three raw arrays, a binary header and Parquet files of
//! features, as `bionemo-scdl` 0.1 writes them.
//!
//! The header is known to be stale after casts and concatenations, so the sizes of the files decide:
//! the types that it names must make sense of them, else the folder is refused. The number of genes is
//! in no header; it is the number of rows of the first table of var features, whose Parquet footer is
//! read for that alone. The features' names and the cells' columns stay unread.

use crate::header::FileEntry;
use crate::layout::{Opened, Tables, open_array, open_offsets};
use crate::read::{Matrix, PlainMatrix};
use cellfeed_core::io::{Access, Engine, Folder};
use cellfeed_core::{
    ArrayStorage, Encoding, Error, MatrixKey, MatrixSchema, Result, RowCheck, RowOffsets, Schema,
    ValueType, VarSchema, typed,
};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

const HEADER: &str = "header.sch";
const FILES: [&str; 3] = ["data.npy", "col_ptr.npy", "row_ptr.npy"];
const FEATURES: &str = "var_features/dataframe_0.parquet";
/// Headers and footers are a few kilobytes; no longer ones are read.
const LONGEST: u64 = 16 << 20;

/// Whether a folder has the files of one.
pub(crate) fn looks_like(path: &Path) -> bool {
    FILES.iter().all(|name| path.join(name).is_file())
}

/// Takes numbers off the front of bytes, big-endian.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) =
            self.0.split_at_checked(n).ok_or_else(|| Error::corrupt("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn number(&mut self, n: usize) -> Result<u64> {
        Ok(self.bytes(n)?.iter().fold(0, |all, &b| (all << 8) | u64::from(b)))
    }

    fn text(&mut self) -> Result<String> {
        let n = usize::try_from(self.number(4)?).unwrap_or(usize::MAX);
        Ok(String::from_utf8_lossy(self.bytes(n)?).into_owned())
    }
}

/// The types of DATA, COLPTR and ROWPTR.
fn types(path: &Path) -> Result<[ValueType; 3]> {
    let io = |e| Error::io("cannot read", e);
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(LONGEST).read_to_end(&mut bytes).map_err(io)?;
    let mut cursor = Cursor(&bytes);
    if cursor.bytes(4)? != b"SCDL" {
        return Err(Error::corrupt("it does not begin with SCDL"));
    }
    let version = cursor.number(3)?;
    if version >> 16 != 0 {
        return Err(Error::unsupported(format!(
            "SCDL version {}.{} is not known; 0.x is read",
            version >> 16,
            (version >> 8) & 0xff
        )));
    }
    // Byte order of the header itself, then the backend.
    cursor.bytes(1 + 4)?;
    let mut found = [None; 3];
    for _ in 0..cursor.number(4)?.min(64) {
        let name = cursor.text()?;
        cursor.bytes(8)?;
        let value_type = match cursor.number(4)? {
            1 => Some(ValueType::U8),
            2 => Some(ValueType::U16),
            3 => Some(ValueType::U32),
            4 => Some(ValueType::U64),
            5 => Some(ValueType::F16),
            6 => Some(ValueType::F32),
            7 => Some(ValueType::F64),
            _ => None,
        };
        if cursor.number(1)? != 0 {
            let n = cursor.number(4)?.min(64);
            cursor.bytes(usize::try_from(4 * n).unwrap_or(0))?;
        }
        let slot = ["DATA", "COLPTR", "ROWPTR"].iter().position(|n| *n == name);
        if let Some(slot) = slot {
            found[slot] = value_type;
        }
    }
    match found {
        [Some(data), Some(columns), Some(rows)] => Ok([data, columns, rows]),
        _ => Err(Error::corrupt("it does not describe DATA, COLPTR and ROWPTR as numbers")),
    }
}

/// Opens a folder.
pub(crate) fn open(
    folder: &Path,
    files: &Arc<dyn Folder>,
    engine: &Arc<Engine>,
    access: Access,
) -> Result<Opened> {
    let blame = |name: &str| {
        let path = folder.join(name).display().to_string();
        move |e: Error| e.with_default("file", path)
    };
    let [value_type, index_type, row_type] = types(&folder.join(HEADER)).map_err(blame(HEADER))?;
    let length = |name: &str| {
        let found = folder.join(name).metadata().map_err(|e| Error::io("cannot look at", e));
        found.map(|m| m.len()).map_err(blame(name))
    };
    if !matches!(index_type, ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64) {
        return Err(blame(HEADER)(Error::corrupt(format!("columns of type {index_type}"))));
    }
    let n_vars = parquet_rows(&folder.join(FEATURES)).map_err(blame(FEATURES))?;
    if u32::try_from(n_vars).is_err() {
        return Err(blame(FEATURES)(Error::corrupt(format!("{n_vars} genes"))));
    }
    let entry = |name: &str| -> Result<FileEntry> {
        Ok(FileEntry { path: name.to_owned(), bytes: length(name)?, xxh3: String::new() })
    };
    let rows = entry(FILES[2])?;
    let offsets = match row_type {
        ValueType::U64 if rows.bytes > 0 && rows.bytes.is_multiple_of(8) => {
            open_offsets((files, engine, access), &rows, n_vars)
        }
        _ => read_rows(&folder.join(FILES[2]), row_type),
    };
    let offsets = offsets.map_err(blame(FILES[2]))?;
    let nnz = offsets.nnz();
    for (name, element) in [(FILES[0], value_type), (FILES[1], index_type)] {
        let (bytes, size) = (length(name)?, u64::try_from(element.size()).unwrap_or(8));
        if nnz.checked_mul(size) != Some(bytes) {
            return Err(blame(name)(Error::corrupt(format!(
                "the rows end at value {nnz}, but the file has {bytes} bytes, which is not {nnz} \
                 values of {element}: the header is stale or the file damaged; make the folder anew \
                 from its source, in Python: SingleCellMemMapDataset(NEW, h5ad_path=FILE)"
            ))));
        }
    }
    let (data, columns) = (entry(FILES[0])?, entry(FILES[1])?);
    let storage = |name: &str, element: ValueType, file: &FileEntry| ArrayStorage {
        name: name.to_owned(),
        element: element.as_str().to_owned(),
        shape: vec![nnz],
        chunk: None,
        n_chunks: 1,
        codecs: Vec::new(),
        bytes: file.bytes,
    };
    let var = Arc::new(VarSchema { n_vars, ..VarSchema::default() });
    let matrix = MatrixSchema {
        key: MatrixKey::X,
        encoding: Encoding::Csr,
        value_type,
        nnz: Some(nnz),
        var: Arc::clone(&var),
        arrays: vec![storage(FILES[1], index_type, &columns), storage(FILES[0], value_type, &data)],
        unreadable: None,
    };
    let schema = Schema {
        format: "scdl".to_owned(),
        location: folder.display().to_string(),
        writer: Some("bionemo-scdl".to_owned()),
        n_obs: offsets.n_rows(),
        matrices: vec![matrix],
        obs_index: None,
        obs: Vec::new(),
        var,
    };
    let plain = PlainMatrix {
        indices: open_array((files, engine, access), &columns, index_type, nnz)?,
        data: open_array((files, engine, access), &data, value_type, nnz)?,
        offsets,
        check: Arc::new(
            RowCheck::new(n_vars, files.place(FILES[1]), MatrixKey::X.to_string()).sorting(),
        ),
    };
    Ok(Opened {
        schema,
        matrices: vec![(MatrixKey::X, Matrix::Plain(Arc::new(plain)))],
        columns: Vec::new(),
        tables: Tables::Names,
    })
}

/// Row offsets of any unsigned type but that of 64 bits, read whole.
fn read_rows(path: &Path, element: ValueType) -> Result<RowOffsets> {
    let io = |e| Error::io("cannot read", e);
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let size = u64::try_from(element.size()).unwrap_or(8);
    if length == 0 || !length.is_multiple_of(size) {
        return Err(Error::corrupt(format!("{length} bytes are no row offsets of {element}")));
    }
    let mut builder = RowOffsets::builder();
    loop {
        let mut part = Vec::new();
        (&mut file).take(8 << 20).read_to_end(&mut part).map_err(io)?;
        if part.is_empty() {
            return Ok(builder.finish());
        }
        let part: bytes::Bytes = part.into();
        match element {
            ValueType::U8 => builder.extend(part.iter().map(|&e| e.into()))?,
            ValueType::U16 => builder.extend(typed::<u16>(part)?.iter().map(|&e| e.into()))?,
            ValueType::U32 => builder.extend(typed::<u32>(part)?.iter().map(|&e| e.into()))?,
            other => return Err(Error::corrupt(format!("row offsets of type {other}"))),
        }
    }
}

/// The number of rows of a Parquet file: the third field of its footer, in Thrift's compact protocol.
fn parquet_rows(path: &Path) -> Result<u64> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::corrupt("the table of genes is missing, without which their number is not known")
        }
        _ => Error::io("cannot read", e),
    };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut tail = [0u8; 8];
    let damaged = || Error::corrupt("this is no Parquet file, or a damaged one");
    let at = length.checked_sub(8).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut tail)).map_err(io)?;
    let [a, b, c, d, magic @ ..] = tail;
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if magic != *b"PAR1" || footer > at || footer > LONGEST {
        return Err(damaged());
    }
    let mut bytes = vec![0u8; usize::try_from(footer).unwrap_or(0)];
    file.seek(SeekFrom::Start(at - footer))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(io)?;
    let mut thrift = Thrift(&bytes);
    let mut field = 0;
    while let Some((number, kind)) = thrift.field(field)? {
        if number == 3 && kind == 6 {
            return thrift.varint().map(|v| (v >> 1) ^ (v & 1).wrapping_neg());
        }
        thrift.skip(kind, 0)?;
        field = number;
    }
    Err(damaged())
}

/// As much of Thrift's compact protocol as it takes to skip fields.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8> {
        let (&first, rest) =
            self.0.split_first().ok_or_else(|| Error::corrupt("the footer ends too early"))?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a number in the footer is too long"))
    }

    /// The next field of a struct after field `last`; nothing at its end.
    fn field(&mut self, last: u64) -> Result<Option<(u64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let step = u64::from(byte >> 4);
        let number = if step == 0 { self.varint()? >> 1 } else { last.saturating_add(step) };
        Ok(Some((number, byte & 0x0f)))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<()> {
        if depth > 32 {
            return Err(Error::corrupt("the footer is nested too deeply"));
        }
        match kind {
            // A boolean is its own type.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => {
                for _ in 0..8 {
                    self.byte()?;
                }
            }
            8 => {
                let n = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                self.0 =
                    self.0.get(n..).ok_or_else(|| Error::corrupt("the footer ends too early"))?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let n = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..n {
                    // Booleans take a byte each in a list, and so does whatever takes none.
                    match head & 0x0f {
                        1 | 2 => drop(self.byte()?),
                        other => self.skip(other, depth + 1)?,
                    }
                }
            }
            12 => {
                let mut last = 0;
                while let Some((number, kind)) = self.field(last)? {
                    self.skip(kind, depth + 1)?;
                    last = number;
                }
            }
            other => return Err(Error::corrupt(format!("the footer has a field of type {other}"))),
        }
        Ok(())
    }
}
