//! What a file says of itself in its key-value metadata, under `cellfeed`. The structs are the format's
//! specification in Rust; `docs/parquet-format.md` is the one in words.

use crate::footer::Footer;
use cellfeed_core::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The key.
pub(crate) const KEY: &str = "cellfeed";
/// The key of its checksum: XXH3 with 64 bits of its value, 16 hexadecimal digits.
pub(crate) const CHECKSUM: &str = "cellfeed.xxh3";
/// The version that is written and the highest that is read.
pub(crate) const VERSION: u32 = 1;

/// A Parquet file within the file, between its row groups and its footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// XXH3 with 64 bits of the bytes, 16 hexadecimal digits.
    pub(crate) xxh3: String,
}

/// A column of obs or var, or the index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ColumnEntry {
    pub(crate) name: String,
    /// The Parquet column.
    pub(crate) column: String,
    /// categorical, string, integer, float or boolean.
    pub(crate) kind: String,
    /// Whether integers are those of 64 bits without a sign.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unsigned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ordered: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) categories: Option<Extent>,
}

/// A table: obs, or the genes of matrices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) n_rows: u64,
    /// Where it is; obs is in the file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<Extent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<ColumnEntry>,
    #[serde(default)]
    pub(crate) columns: Vec<ColumnEntry>,
}

/// How the rows of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LayoutName {
    Blob,
    List,
}

/// A matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MatrixEntry {
    /// `X`, `layers/NAME` or `raw/X`.
    pub(crate) key: String,
    pub(crate) layout: LayoutName,
    /// Parquet columns.
    pub(crate) indices: String,
    pub(crate) data: String,
    pub(crate) n_vars: u64,
    pub(crate) nnz: u64,
    /// u16 or u32.
    pub(crate) index_type: String,
    /// u8 .. u64, i8 .. i64, f16, f32, f64.
    pub(crate) value_type: String,
}

/// The whole header.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer: Option<String>,
    pub(crate) n_obs: u64,
    pub(crate) matrices: Vec<MatrixEntry>,
    pub(crate) obs: TableEntry,
    pub(crate) var: TableEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw_var: Option<TableEntry>,
}

fn checksum(text: &str) -> String {
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

impl Header {
    /// The header of a footer, if it has one.
    pub(crate) fn read(footer: &Footer) -> Result<Option<Self>> {
        let Some(text) = footer.value(KEY) else { return Ok(None) };
        if let Some(says) = footer.value(CHECKSUM) {
            let found = checksum(text);
            if found != says {
                return Err(Error::corrupt(format!(
                    "the checksum of the metadata {KEY:?} is {found}, but the file says {says}: they \
                     are damaged"
                )));
            }
        }
        let damaged =
            |e: serde_json::Error| Error::corrupt(format!("the metadata {KEY:?} are damaged: {e}"));
        // The version first: what follows may be otherwise in another.
        let value: serde_json::Value = serde_json::from_str(text).map_err(damaged)?;
        match value["version"].as_u64() {
            Some(1) => {}
            Some(v) if v > u64::from(VERSION) => {
                return Err(Error::unsupported(format!(
                    "the store is of version {v}, and versions up to {VERSION} are read; a newer \
                     Cellfeed reads it"
                )));
            }
            _ => {
                return Err(Error::corrupt(format!("the store's version is {}", value["version"])));
            }
        }
        let header: Self = serde_json::from_value(value).map_err(damaged)?;
        if header.n_obs != footer.n_rows || header.obs.n_rows != footer.n_rows {
            return Err(Error::corrupt(format!(
                "the metadata speak of {} cells, but the file has {} rows: another tool has \
                 changed it",
                header.n_obs, footer.n_rows
            )));
        }
        Ok(Some(header))
    }

    /// The header and its checksum as key-value metadata.
    pub(crate) fn metadata(&self) -> Result<[(String, String); 2]> {
        let text = self.text()?;
        let sum = checksum(&text);
        Ok([(KEY.to_owned(), text), (CHECKSUM.to_owned(), sum)])
    }

    fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("cannot write the metadata").caused_by(e))
    }
}
