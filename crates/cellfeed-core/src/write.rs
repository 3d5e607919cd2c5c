//! Writing stores: what a new store is told, and the trait behind which its format stands.
//!
//! Every format is written in the same way: it is told what is coming ([`NewStore`]), receives the
//! cells batch by batch with all their matrices and obs values ([`CellBatch`]), and is finished.
//! Until then the store has a temporary name, and nothing opens under its own.

use crate::csr::CsrRows;
use crate::element::Extras;
use crate::schema::{ColumnKind, ColumnSchema, MatrixKey};
use crate::table::Table;
use crate::value::ValueType;
use crate::{Error, Result, as_u64};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A matrix of a store to be written.
#[derive(Debug, Clone)]
pub struct NewMatrix {
    /// Which.
    pub key: MatrixKey,
    /// Its genes: those of `X` and the layers are one table, `raw/X` may have its own.
    pub var: Arc<Table>,
    /// The type of its values. A format may store a smaller type that holds them all.
    pub value_type: ValueType,
    /// How many values are to come, if that is known: it sets sizes of chunks, no more.
    pub expected_nnz: Option<u64>,
}

/// What a store to be written will hold, known before the first cell.
#[derive(Debug, Clone)]
pub struct NewStore {
    /// How many cells are to come: exactly so many must.
    pub n_obs: u64,
    /// `X`, layers, `raw/X`; each key once.
    pub matrices: Vec<NewMatrix>,
    /// What the names of the cells are called, if they have any.
    pub obs_index: Option<String>,
    /// Obs columns. None is unreadable.
    pub obs: Vec<ColumnSchema>,
    /// Genes of `X`, also where there is no `X`.
    pub var: Arc<Table>,
    /// The rest. A format that cannot keep it says so in [`Written::dropped`].
    pub extras: Extras,
}

/// Some consecutive cells of a store to be written.
#[derive(Debug, Clone)]
pub struct CellBatch {
    /// How many cells.
    pub n_rows: u64,
    /// Their rows of each matrix, in the order of [`NewStore::matrices`].
    pub matrices: Vec<CsrRows>,
    /// Their names, as text, if [`NewStore::obs_index`] announced any.
    pub obs_index: Option<ArrayRef>,
    /// Their values of each column, in the order of [`NewStore::obs`].
    pub obs: Vec<ArrayRef>,
}

impl CellBatch {
    /// Some of the cells, without a copy.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) for cells past the end.
    pub fn slice(&self, cells: Range<u64>) -> Result<Self> {
        let past = || Error::out_of_bounds(format!("cells {cells:?} of {}", self.n_rows));
        let n_rows = cells.end.checked_sub(cells.start).filter(|_| cells.end <= self.n_rows);
        let n_rows = n_rows.ok_or_else(past)?;
        let at = |n: u64| usize::try_from(n).map_err(|_| past());
        let (start, end) = (at(cells.start)?, at(cells.end)?);
        let part = |array: &ArrayRef| array.slice(start, end - start);
        Ok(Self {
            n_rows,
            matrices: self.matrices.iter().map(|m| m.slice(start..end)).collect::<Result<_>>()?,
            obs_index: self.obs_index.as_ref().map(part),
            obs: self.obs.iter().map(part).collect(),
        })
    }
}

impl NewStore {
    /// Refuses two matrices of one name: for writers to which columns of one name are no error.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) naming the matrix.
    pub fn check_matrices(&self) -> Result<()> {
        for (i, matrix) in self.matrices.iter().enumerate() {
            if self.matrices[..i].iter().any(|m| m.key == matrix.key) {
                return Err(Error::invalid_input(format!("{} is to be written twice", matrix.key)));
            }
        }
        Ok(())
    }

    /// Refuses two matrices or two obs columns of one name, of which a store that finds them by name would
    /// keep one, or neither: for writers, before anything is made. Tables of genes cannot have two.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) naming what is there twice.
    pub fn check_names(&self) -> Result<()> {
        self.check_matrices()?;
        let mut names: Vec<&str> = self.obs.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|w| w[0] == w[1]) {
            Some(twice) => Err(Error::invalid_input(format!(
                "two obs columns are called {:?}; leave one out, or rename it",
                twice[0]
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a batch that is not what was announced: the check that every writer makes first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if something is missing, or of
    /// another length than the batch says.
    pub fn check(&self, batch: &CellBatch) -> Result<()> {
        let n = batch.n_rows;
        let wrong = |what: String| Err(Error::invalid_input(what));
        if batch.matrices.len() != self.matrices.len() || batch.obs.len() != self.obs.len() {
            return wrong(format!(
                "a batch has {} matrices and {} columns, but {} and {} were announced",
                batch.matrices.len(),
                batch.obs.len(),
                self.matrices.len(),
                self.obs.len()
            ));
        }
        if batch.obs_index.is_some() != self.obs_index.is_some() {
            return wrong("a batch has names of cells, or lacks them, unlike announced".to_owned());
        }
        for (matrix, rows) in self.matrices.iter().zip(&batch.matrices) {
            if as_u64(rows.n_rows()) != n {
                return wrong(format!("{} has {} rows for {n} cells", matrix.key, rows.n_rows()));
            }
        }
        let columns = self.obs.iter().zip(&batch.obs).map(|(c, array)| (c.name.as_str(), array));
        for (name, array) in columns.chain(batch.obs_index.iter().map(|a| ("the index", a))) {
            if as_u64(array.len()) != n {
                return wrong(format!("{name} has {} values for {n} cells", array.len()));
            }
        }
        for (column, array) in self.obs.iter().zip(&batch.obs) {
            if !column.kind.is_held_by(array.data_type()) {
                return wrong(format!(
                    "the column {:?} is {}, but came as {}",
                    column.name,
                    column.kind.as_str(),
                    array.data_type()
                ));
            }
        }
        for (column, array) in self.obs.iter().zip(&batch.obs) {
            if let ColumnKind::Categorical { categories, .. } = &column.kind
                && let Some(codes) = array.as_dictionary_opt::<Int32Type>()
                && let Some(found) = codes.values().as_string_opt::<i32>()
                && !found.iter().eq(categories.iter().map(|c| Some(c.as_str())))
            {
                return wrong(format!(
                    "the column {:?} came with other categories than were announced",
                    column.name
                ));
            }
        }
        if let Some(names) = &batch.obs_index
            && !ColumnKind::String.is_held_by(names.data_type())
        {
            return wrong(format!("names of cells came as {}, not as text", names.data_type()));
        }
        Ok(())
    }
}

/// How to write a store. What is not set is chosen by the format, by measurement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    codec: Option<String>,
    chunk_rows: Option<u64>,
    overwrite: bool,
}

impl WriteOptions {
    /// The codec, in the format's own words, as `gzip`, `zstd:3` or `packed`. A format refuses what
    /// it does not know and says what it does.
    #[must_use]
    pub fn with_codec(mut self, codec: impl Into<String>) -> Self {
        self.codec = Some(codec.into());
        self
    }

    /// Rows in one unit of storage (chunk, page, group), about.
    #[must_use]
    pub fn with_chunk_rows(mut self, rows: u64) -> Self {
        self.chunk_rows = Some(rows);
        self
    }

    /// Whether a store that is there already is replaced, once the new one is complete.
    #[must_use]
    pub fn with_overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The codec, if one was chosen.
    #[must_use]
    pub fn codec(&self) -> Option<&str> {
        self.codec.as_deref()
    }

    /// Rows in one unit of storage, if chosen.
    #[must_use]
    pub fn chunk_rows(&self) -> Option<u64> {
        self.chunk_rows
    }

    /// Whether to replace what is there.
    #[must_use]
    pub fn overwrite(&self) -> bool {
        self.overwrite
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Cells.
    pub n_obs: u64,
    /// Stored values of all matrices.
    pub nnz: u64,
    /// Bytes of the store.
    pub bytes: u64,
    /// What the format could not keep, and why: a path (`uns/neighbors`, `obs/batch`) and a reason.
    pub dropped: Vec<(String, String)>,
}

/// A store being written. All methods block, and use the rayon threads that they are called on.
///
/// Dropped before [`finish`](Self::finish), it removes what it wrote.
pub trait StoreWriter: Send + fmt::Debug {
    /// Appends cells.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the batch is not what was
    /// announced, or has a value that the announced type cannot hold;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the disk fails. The writer is of no further use
    /// then.
    fn append(&mut self, batch: &CellBatch) -> Result<()>;

    /// Completes the store, brings it to the disk, and gives it its name.
    ///
    /// # Errors
    /// As `append`, and `InvalidInput` if fewer or more cells came than were announced. Nothing is
    /// left then.
    fn finish(self: Box<Self>) -> Result<Written>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_held_against_what_was_announced() {
        let new = NewStore {
            n_obs: 3,
            matrices: vec![NewMatrix {
                key: MatrixKey::X,
                var: Arc::default(),
                value_type: ValueType::F32,
                expected_nnz: None,
            }],
            obs_index: None,
            obs: Vec::new(),
            var: Arc::default(),
            extras: Extras::default(),
        };
        let batch = CellBatch {
            n_rows: 0,
            matrices: vec![CsrRows::default()],
            obs_index: None,
            obs: Vec::new(),
        };
        assert!(new.check(&batch).is_ok());
        assert!(new.check(&CellBatch { n_rows: 1, ..batch.clone() }).is_err());
        assert!(new.check(&CellBatch { matrices: Vec::new(), ..batch.clone() }).is_err());
        let names: ArrayRef = Arc::new(arrow_array::StringArray::from(Vec::<String>::new()));
        assert!(new.check(&CellBatch { obs_index: Some(names), ..batch }).is_err());
    }

    #[test]
    fn names_are_there_once() {
        let column = |name: &str| ColumnSchema {
            name: name.to_owned(),
            kind: ColumnKind::Integer,
            encoding: String::new(),
        };
        let new = |keys: &[MatrixKey], obs: &[&str]| NewStore {
            n_obs: 0,
            matrices: keys
                .iter()
                .map(|key| NewMatrix {
                    key: key.clone(),
                    var: Arc::default(),
                    value_type: ValueType::F32,
                    expected_nnz: None,
                })
                .collect(),
            obs_index: Some("a".to_owned()),
            obs: obs.iter().map(|name| column(name)).collect(),
            var: Arc::default(),
            extras: Extras::default(),
        };
        assert!(new(&[MatrixKey::X, MatrixKey::Raw], &["a", "b"]).check_names().is_ok());
        let twice = new(&[MatrixKey::X, MatrixKey::X], &[]).check_names().unwrap_err();
        assert!(twice.to_string().contains("X is to be written twice"), "{twice}");
        let twice = new(&[MatrixKey::X], &["a", "b", "a"]).check_names().unwrap_err();
        assert!(twice.to_string().contains("two obs columns are called \"a\""), "{twice}");
    }
}
