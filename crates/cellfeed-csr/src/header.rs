//! `header.json`: what a store says of itself. The structs are the format's specification in Rust;
//! `docs/csr-format.md` is the one in words.

use cellfeed_core::io::Folder;
use cellfeed_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The value of `format`.
pub(crate) const FORMAT: &str = "cellfeed-csr";
/// The version that is written and the highest that is read.
pub(crate) const VERSION: u32 = 1;
/// The file's name.
pub(crate) const NAME: &str = "header.json";
/// No header is longer.
const LONGEST: u64 = 64 << 20;

/// A file of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Below the store's folder, with `/` between parts.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// XXH3 with 64 bits of the file's bytes, 16 hexadecimal digits.
    pub(crate) xxh3: String,
}

/// A column of obs or var, or the index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ColumnEntry {
    pub(crate) name: String,
    /// categorical, string, integer, float or boolean.
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ordered: Option<bool>,
    pub(crate) values: FileEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) categories: Option<FileEntry>,
}

/// A table: obs, or the genes of matrices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) n_rows: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<ColumnEntry>,
    #[serde(default)]
    pub(crate) columns: Vec<ColumnEntry>,
}

/// How the rows of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LayoutName {
    Plain,
    Packed,
}

/// A matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MatrixEntry {
    /// `X`, `layers/NAME` or `raw/X`.
    pub(crate) key: String,
    pub(crate) layout: LayoutName,
    pub(crate) n_vars: u64,
    pub(crate) nnz: u64,
    /// u8 .. u64, i8 .. i64, f32, f64.
    pub(crate) value_type: String,
    /// u16 or u32.
    pub(crate) index_type: String,
    pub(crate) indptr: FileEntry,
    /// Plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) indices: Option<FileEntry>,
    /// Plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<FileEntry>,
    /// Packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offsets: Option<FileEntry>,
    /// Packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<FileEntry>,
}

/// The whole header.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: String,
    pub(crate) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer: Option<String>,
    pub(crate) n_obs: u64,
    pub(crate) obs: TableEntry,
    pub(crate) var: TableEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw_var: Option<TableEntry>,
    pub(crate) matrices: Vec<MatrixEntry>,
}

impl Header {
    /// Reads and checks what can be checked without the other files.
    pub(crate) fn read(folder: &dyn Folder) -> Result<Self> {
        let blame = |e: Error| e.with_default("file", folder.place(NAME));
        let bytes = folder.read(NAME, LONGEST)?;
        let bytes = bytes.ok_or_else(|| blame(Error::not_found("there is no header")))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| blame(Error::corrupt("the header is not text")))?;
        // The version first: what follows may be otherwise in another.
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| blame(Error::corrupt(format!("the header is damaged: {e}"))))?;
        if value["format"] != FORMAT {
            return Err(blame(Error::unsupported(format!(
                "the header's format is {}, but {FORMAT:?} was expected",
                value["format"]
            ))));
        }
        match value["version"].as_u64() {
            Some(1) => {}
            Some(v) if v > u64::from(VERSION) => {
                return Err(blame(Error::unsupported(format!(
                    "the store is of version {v}, and versions up to {VERSION} are read; a newer \
                     Cellfeed reads it"
                ))));
            }
            _ => {
                return Err(blame(Error::corrupt(format!(
                    "the header's version is {}",
                    value["version"]
                ))));
            }
        }
        let header: Self = serde_json::from_value(value)
            .map_err(|e| blame(Error::corrupt(format!("the header is damaged: {e}"))))?;
        let is_sum =
            |s: &str| s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(odd) = header.files().find(|file| !is_sum(&file.xxh3)) {
            return Err(blame(Error::corrupt(format!(
                "the header has {:?} for the checksum of {}, not 16 digits of 0 to 9 and a to f",
                odd.xxh3, odd.path
            ))));
        }
        Ok(header)
    }

    /// As text, for the writer.
    pub(crate) fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::internal("cannot write the header").caused_by(e))?;
        Ok(text + "\n")
    }

    /// The files that are read when a store is opened, but for row offsets: the names of the genes, and
    /// categories.
    pub(crate) fn small_files(&self) -> impl Iterator<Item = &FileEntry> {
        let tables = [Some(&self.obs), Some(&self.var), self.raw_var.as_ref()];
        let columns = tables.into_iter().flatten().flat_map(|t| t.index.iter().chain(&t.columns));
        let names = [Some(&self.var), self.raw_var.as_ref()].into_iter().flatten();
        let names = names.flat_map(|t| t.index.iter().map(|c| &c.values));
        columns.flat_map(|c| &c.categories).chain(names)
    }

    /// Every file that the header names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let tables = [Some(&self.obs), Some(&self.var), self.raw_var.as_ref()];
        let columns = tables.into_iter().flatten().flat_map(|t| t.index.iter().chain(&t.columns));
        let columns = columns.flat_map(|c| std::iter::once(&c.values).chain(&c.categories));
        let matrices = self.matrices.iter().flat_map(|m| {
            std::iter::once(&m.indptr)
                .chain(&m.indices)
                .chain(&m.data)
                .chain(&m.offsets)
                .chain(&m.rows)
        });
        columns.chain(matrices)
    }
}
