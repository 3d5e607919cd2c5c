//! What a store holds: shapes, matrices, columns and value types, fixed when it is opened.

use crate::value::ValueType;
use crate::{Error, Result};
use arrow_schema::DataType;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names one matrix of a store: `X`, a layer, or `raw/X`.
///
/// ```
/// use cellfeed_core::MatrixKey;
///
/// assert_eq!("layers/counts".parse::<MatrixKey>()?, MatrixKey::Layer("counts".into()));
/// assert_eq!("raw".parse::<MatrixKey>()?.to_string(), "raw/X");
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatrixKey {
    /// The main matrix.
    #[default]
    X,
    /// A named matrix of the same shape.
    Layer(String),
    /// The unfiltered matrix that AnnData keeps beside `X`; its genes may differ.
    Raw,
}

impl fmt::Display for MatrixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X => f.write_str("X"),
            Self::Layer(name) => write!(f, "layers/{name}"),
            Self::Raw => f.write_str("raw/X"),
        }
    }
}

impl FromStr for MatrixKey {
    type Err = Error;

    /// `X`, `raw` or `raw/X`, `layers/NAME`; any other word is a layer's name.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "X" => Ok(Self::X),
            "raw" | "raw/X" => Ok(Self::Raw),
            "" => Err(Error::invalid_input("a layer needs a name")),
            _ => Ok(Self::Layer(s.strip_prefix("layers/").unwrap_or(s).to_owned())),
        }
    }
}

/// How a matrix is laid out on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Rows are contiguous: what Cellfeed reads.
    Csr,
    /// Columns are contiguous.
    Csc,
    /// Every value is stored.
    Dense,
}

impl Encoding {
    /// `csr`, `csc` or `dense`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csr => "csr",
            Self::Csc => "csc",
            Self::Dense => "dense",
        }
    }
}

/// How one array of a matrix is stored, for people and for cost estimates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayStorage {
    /// The array's path inside the store, as `X/data`.
    pub name: String,
    /// The stored element type, as `f32` or `i64`.
    pub element: String,
    /// Shape in elements.
    pub shape: Vec<u64>,
    /// Chunk shape in elements; `None` where the array is one contiguous run.
    pub chunk: Option<Vec<u64>>,
    /// How many chunks are stored.
    pub n_chunks: u64,
    /// Codecs in the order in which they were applied on writing, as `shuffle`, `gzip(4)`.
    pub codecs: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One matrix of a store.
#[derive(Debug, Clone)]
pub struct MatrixSchema {
    /// Which matrix.
    pub key: MatrixKey,
    /// How it is laid out.
    pub encoding: Encoding,
    /// Type of the stored values.
    pub value_type: ValueType,
    /// Stored values; `None` where that is not known without reading (dense matrices).
    pub nnz: Option<u64>,
    /// The genes.
    pub var: Arc<VarSchema>,
    /// The arrays that it consists of.
    pub arrays: Vec<ArrayStorage>,
    /// Why rows of it cannot be read, and what to do, if they cannot.
    pub unreadable: Option<String>,
}

impl MatrixSchema {
    /// A matrix of which nothing is known but that it is there, and why it cannot be read.
    #[must_use]
    pub fn unreadable(key: MatrixKey, var: Arc<VarSchema>, why: String) -> Self {
        Self {
            key,
            encoding: Encoding::Dense,
            value_type: ValueType::F32,
            nnz: None,
            var,
            arrays: Vec::new(),
            unreadable: Some(why),
        }
    }

    /// How many genes.
    #[must_use]
    pub fn n_vars(&self) -> u64 {
        self.var.n_vars
    }
}

/// The genes of a matrix.
#[derive(Debug, Clone, Default)]
pub struct VarSchema {
    /// How many.
    pub n_vars: u64,
    /// Their names, in order; empty where the store has none.
    pub names: Vec<String>,
    /// Columns that describe them.
    pub columns: Vec<ColumnSchema>,
}

/// What kind of values a column has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnKind {
    /// Integer codes into a list of categories: an Arrow dictionary with `Int32` keys.
    Categorical {
        /// The categories as text, in code order.
        categories: Arc<Vec<String>>,
        /// Whether their order means something.
        ordered: bool,
    },
    /// Text: Arrow `Utf8`.
    String,
    /// Signed or unsigned integers: Arrow `Int64` (or `UInt64` for stored u64).
    Integer,
    /// Floats: Arrow `Float64`.
    Float,
    /// Arrow `Boolean`.
    Boolean,
    /// Present in the file, but of an encoding that cannot be read, and why.
    Unreadable(String),
}

impl ColumnKind {
    /// Whether values of this kind are had as Arrow arrays of this type.
    #[must_use]
    pub fn is_held_by(&self, data_type: &DataType) -> bool {
        match self {
            Self::Categorical { .. } => matches!(
                data_type,
                DataType::Dictionary(keys, values)
                    if **keys == DataType::Int32 && **values == DataType::Utf8
            ),
            Self::String => *data_type == DataType::Utf8,
            Self::Integer => matches!(data_type, DataType::Int64 | DataType::UInt64),
            Self::Float => *data_type == DataType::Float64,
            Self::Boolean => *data_type == DataType::Boolean,
            Self::Unreadable(_) => false,
        }
    }

    /// The kind in one word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Categorical { .. } => "categorical",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// One column of obs or var.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSchema {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// How it is encoded in the file, as `categorical 0.2.0` or `nullable-integer 0.1.0`.
    pub encoding: String,
}

/// A store's contents. Fixed at open; reading it does no I/O.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The format, as `h5ad` or `10x-h5`.
    pub format: String,
    /// Where the store is, for messages.
    pub location: String,
    /// What wrote the store, where it says so.
    pub writer: Option<String>,
    /// How many cells.
    pub n_obs: u64,
    /// `X`, layers and `raw/X`, as far as present.
    pub matrices: Vec<MatrixSchema>,
    /// The name under which cell names can be read with [`Backend::read_obs`](crate::Backend).
    pub obs_index: Option<String>,
    /// The obs columns, in file order.
    pub obs: Vec<ColumnSchema>,
    /// The genes of `X`.
    pub var: Arc<VarSchema>,
}

impl Schema {
    /// A matrix, whether or not it can be read by rows; nothing if it is not there.
    #[must_use]
    pub fn find(&self, key: &MatrixKey) -> Option<&MatrixSchema> {
        self.matrices.iter().find(|m| m.key == *key)
    }

    /// Looks up a matrix that can be read by rows.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing what there is, or
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with the remedy if it is there but
    /// cannot be read by rows.
    pub fn matrix(&self, key: &MatrixKey) -> Result<&MatrixSchema> {
        let Some(matrix) = self.find(key) else {
            let have: Vec<String> = self.matrices.iter().map(|m| m.key.to_string()).collect();
            return Err(Error::not_found(if have.is_empty() {
                format!("there is no matrix {key}; the store holds no matrix at all")
            } else {
                format!("there is no matrix {key}; the store has {}", have.join(", "))
            })
            .with("file", &self.location));
        };
        match &matrix.unreadable {
            None => Ok(matrix),
            Some(why) => Err(Error::unsupported(why.clone())
                .with("file", &self.location)
                .with("element", key)),
        }
    }

    /// Finds what a backend keeps for a matrix, by its key.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix); of kind `Internal` for one that is in the schema alone.
    pub fn pick<'a, T>(&self, key: &MatrixKey, kept: &'a [(MatrixKey, T)]) -> Result<&'a T> {
        self.matrix(key)?;
        let found = kept.iter().find(|(k, _)| k == key);
        found.map(|(_, kept)| kept).ok_or_else(|| {
            Error::internal(format!("matrix {key} is in the schema, but was not opened"))
        })
    }

    /// Refuses the name of an obs column that cannot be read; the index, the cells' names, is
    /// accepted under its name.
    ///
    /// # Errors
    /// As [`obs_column`](Self::obs_column).
    pub fn check_obs(&self, name: &str) -> Result<()> {
        if self.obs_index.as_deref() == Some(name) {
            return Ok(());
        }
        self.obs_column(name).map(|_| ())
    }

    /// Looks up an obs column.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing the columns, or
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with the reason if the column is
    /// there but unreadable.
    pub fn obs_column(&self, name: &str) -> Result<&ColumnSchema> {
        let Some(column) = self.obs.iter().find(|c| c.name == name) else {
            let have: Vec<&str> = self.obs.iter().map(|c| c.name.as_str()).collect();
            return Err(Error::not_found(if have.is_empty() {
                format!("there is no obs column {name:?}; the store has no obs columns")
            } else {
                format!("there is no obs column {name:?}; the store has {}", have.join(", "))
            })
            .with("file", &self.location));
        };
        match &column.kind {
            ColumnKind::Unreadable(why) => {
                Err(Error::unsupported(format!("the obs column {name:?} cannot be read: {why}"))
                    .with("file", &self.location))
            }
            _ => Ok(column),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for key in [MatrixKey::X, MatrixKey::Raw, MatrixKey::Layer("spliced".into())] {
            assert_eq!(key.to_string().parse::<MatrixKey>().unwrap(), key);
        }
        assert_eq!("counts".parse::<MatrixKey>().unwrap(), MatrixKey::Layer("counts".into()));
        assert!("".parse::<MatrixKey>().is_err());
    }
}
