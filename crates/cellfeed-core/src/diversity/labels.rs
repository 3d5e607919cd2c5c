//! A label of every cell as a small integer: what is read of an obs column.

use crate::backend::Backend;
use crate::plan::Subset;
use crate::rows::RowRanges;
use crate::schema::{ColumnKind, Schema};
use crate::{Error, Result, as_u64};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use futures::executor::block_on;
use std::collections::HashMap;

/// Rows of a column that are read at once.
const PART: u64 = 1 << 20;

/// Values that one label may have at most. More are names of cells, and would fill the memory.
const MOST: usize = 1 << 20;

/// Gives the values of an obs column codes, which count from 0 in the order in which values first occur.
/// Missing values have a code of their own, as one more label.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coder {
    names: Vec<String>,
    known: HashMap<Option<String>, u32>,
}

/// The labels of all cells, as codes: four bytes a cell. Codes count from 0 in the order in which
/// labels first occur; missing labels have a code of their own, as one more label.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    codes: Vec<u32>,
    counts: Vec<u64>,
    coder: Coder,
}

impl Labels {
    /// No labels yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a whole obs column, part by part, and nothing else of the store. Blocks until it is read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing the columns if there is none of
    /// that name, [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a column of floats,
    /// which are no labels; else as [`Backend::read_obs`].
    pub fn read(backend: &dyn Backend, column: &str) -> Result<Self> {
        let schema = backend.schema();
        check_label(schema, column)?;
        let mut labels = Self::new();
        let names = [column.to_owned()];
        for part in RowRanges::single(0..schema.n_obs).parts(PART) {
            for array in &block_on(backend.read_obs(&names, &part))? {
                labels.extend(array).map_err(|e| e.with("element", column))?;
            }
        }
        Ok(labels)
    }

    /// Appends the values of an obs column.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for floats,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a type that no obs column has
    /// and for more than 2^20 labels.
    pub fn extend(&mut self, array: &ArrayRef) -> Result<()> {
        let before = self.codes.len();
        self.coder.encode(array, &mut self.codes)?;
        self.counts.resize(self.coder.names.len(), 0);
        for &code in &self.codes[before..] {
            self.counts[index(code)] += 1;
        }
        Ok(())
    }

    /// Those of a subset's cells, with the same codes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a subset of a store of another
    /// size.
    pub fn of_subset(&self, subset: &Subset) -> Result<Self> {
        if subset.n_obs() != as_u64(self.codes.len()) {
            return Err(Error::invalid_input(format!(
                "the subset is of {} cells, and there are labels of {}",
                subset.n_obs(),
                self.codes.len()
            )));
        }
        let mut codes = Vec::with_capacity(usize::try_from(subset.n_cells()).unwrap_or(0));
        let mut counts = vec![0; self.counts.len()];
        for start in (0..subset.n_cells()).step_by(1 << 16) {
            let mut rows = RowRanges::empty();
            subset.rows(start..(start + (1 << 16)).min(subset.n_cells()), &mut rows);
            for range in rows.as_slice() {
                let at = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
                let part = self.codes.get(at(range.start)..at(range.end));
                codes.extend_from_slice(part.unwrap_or_default());
            }
        }
        codes.iter().for_each(|&code| counts[index(code)] += 1);
        Ok(Self { codes, counts, coder: self.coder.clone() })
    }

    /// The code of each cell, in file order.
    #[must_use]
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    pub(crate) fn into_codes(self) -> Vec<u32> {
        self.codes
    }

    /// How many cells have each label, by code.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// What each code means; empty for missing labels.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.coder.names
    }

    /// The code of missing labels, if any is missing.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        self.coder.known.get(&None).copied()
    }

    /// How many cells have no label.
    #[must_use]
    pub fn n_missing(&self) -> u64 {
        self.missing().and_then(|code| self.counts.get(index(code))).copied().unwrap_or(0)
    }
}

/// Refuses an obs column that is not there, or whose values are no labels.
///
/// # Errors
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing the columns if there is none of that name,
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a column of floats.
pub fn check_label(schema: &Schema, column: &str) -> Result<()> {
    schema.check_obs(column)?;
    match schema.obs.iter().find(|c| c.name == column) {
        Some(found) if found.kind == ColumnKind::Float => {
            Err(floats(column).with("file", &schema.location))
        }
        _ => Ok(()),
    }
}

impl Coder {
    /// Appends the codes of an array's values.
    pub(crate) fn encode(&mut self, array: &ArrayRef, out: &mut Vec<u32>) -> Result<()> {
        match array.data_type() {
            DataType::Dictionary(keys, values)
                if **keys == DataType::Int32 && **values == DataType::Utf8 =>
            {
                let array = array.as_dictionary::<Int32Type>();
                let categories = array.values().as_string::<i32>();
                // Categories that no cell has are no labels.
                let mut codes: Vec<Option<u32>> = vec![None; categories.len()];
                for key in array.keys() {
                    let code = match key.and_then(|key| usize::try_from(key).ok()) {
                        None => self.code(None)?,
                        Some(key) => match codes.get(key).copied().flatten() {
                            Some(code) => code,
                            None => {
                                let value = categories.is_valid(key).then(|| categories.value(key));
                                let code = self.code(value)?;
                                codes[key] = Some(code);
                                code
                            }
                        },
                    };
                    out.push(code);
                }
            }
            DataType::Utf8 => {
                for value in array.as_string::<i32>() {
                    let code = self.code(value)?;
                    out.push(code);
                }
            }
            DataType::Int64 => self.numbers(array.as_primitive::<Int64Type>().iter(), out)?,
            DataType::UInt64 => self.numbers(array.as_primitive::<UInt64Type>().iter(), out)?,
            DataType::Boolean => self.numbers(array.as_boolean().iter(), out)?,
            DataType::Float64 => return Err(floats("")),
            other => {
                return Err(Error::unsupported(format!(
                    "labels of type {other} cannot be counted"
                )));
            }
        }
        Ok(())
    }

    /// Values that are named as they print; each name is made once for each run of equal values.
    fn numbers<T: ToString + PartialEq>(
        &mut self,
        values: impl Iterator<Item = Option<T>>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let mut last: Option<(Option<T>, u32)> = None;
        for value in values {
            let code = match &last {
                Some((before, code)) if *before == value => *code,
                _ => self.code(value.as_ref().map(ToString::to_string).as_deref())?,
            };
            last = Some((value, code));
            out.push(code);
        }
        Ok(())
    }

    /// The values that are not missing, in the order in which they first occurred.
    pub(crate) fn values(&self) -> Vec<&str> {
        let missing = self.known.get(&None).copied().map(index);
        let names = self.names.iter().enumerate().filter(|(i, _)| Some(*i) != missing);
        names.map(|(_, name)| name.as_str()).collect()
    }

    fn code(&mut self, value: Option<&str>) -> Result<u32> {
        let value = value.map(str::to_owned);
        if let Some(&code) = self.known.get(&value) {
            return Ok(code);
        }
        let code = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < MOST);
        let code = code.ok_or_else(|| {
            Error::unsupported(format!(
                "more than {MOST} different values, which are names rather than labels; choose a \
                 column that cells share"
            ))
        })?;
        self.names.push(value.clone().unwrap_or_default());
        self.known.insert(value, code);
        Ok(code)
    }
}

/// A code as a place in a list.
pub(super) fn index(code: u32) -> usize {
    usize::try_from(code).unwrap_or(usize::MAX)
}

fn floats(column: &str) -> Error {
    let named = if column.is_empty() { String::new() } else { format!(" {column:?}") };
    Error::invalid_input(format!(
        "the obs column{named} has floating-point numbers, which are measures rather than labels; \
         cut them into bins (in Python with pandas.cut) and store these as a categorical column, or \
         choose another column"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obs::categorical_array;
    use crate::{ErrorKind, MemoryBackend, schema::ColumnSchema};
    use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array};
    use std::sync::Arc;

    #[test]
    fn every_kind_of_column_becomes_codes() {
        let categories = Arc::new(["x", "y", "z"].map(str::to_owned).to_vec());
        let arrays: [ArrayRef; 5] = [
            categorical_array([Some(2), Some(0), None, Some(2)], &categories).unwrap(),
            Arc::new(StringArray::from(vec![Some("b"), Some(""), None, Some("b")])),
            Arc::new(Int64Array::from(vec![Some(-1), Some(7), None, Some(-1)])),
            Arc::new(UInt64Array::from(vec![Some(9), Some(1), None, Some(9)])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
        ];
        for array in arrays {
            let mut labels = Labels::new();
            labels.extend(&array).unwrap();
            labels.extend(&array.slice(1, 1)).unwrap();
            assert_eq!(labels.codes(), [0, 1, 2, 0, 1], "{array:?}");
            assert_eq!((labels.counts(), labels.n_missing()), ([2, 2, 1].as_slice(), 1));
        }
        // An empty text is a label; that it is missing is another.
        let mut labels = Labels::new();
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None, Some("")]));
        labels.extend(&text).unwrap();
        assert_eq!((labels.counts(), labels.n_missing()), ([2, 1].as_slice(), 1));
        let wrong: ArrayRef = Arc::new(arrow_array::Int8Array::from(vec![1]));
        assert_eq!(Labels::new().extend(&wrong).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_column_is_read_from_a_store_and_a_wrong_one_is_explained() {
        let column = |name: &str, kind| ColumnSchema {
            name: name.to_owned(),
            kind,
            encoding: String::new(),
        };
        let plates: ArrayRef = Arc::new(Int64Array::from_iter_values([4, 4, 5]));
        let depth: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.0, 2.0]));
        let obs = vec![
            (column("plate", ColumnKind::Integer), plates),
            (column("depth", ColumnKind::Float), depth),
        ];
        let store = MemoryBackend::try_new(3, vec![], obs).unwrap();
        let labels = Labels::read(&store, "plate").unwrap();
        assert_eq!(
            (labels.codes(), labels.names()),
            ([0, 0, 1].as_slice(), &["4", "5"].map(str::to_owned)[..])
        );
        let error = Labels::read(&store, "depth").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("pandas.cut"), "{error}");
        let error = Labels::read(&store, "drug").unwrap_err();
        assert!(error.to_string().contains("the store has plate, depth"), "{error}");
    }
}
