//! The obs and var tables to be written: an index and columns, each a slice or a function of the
//! row, so that a table of 10^8 rows need not exist in memory.

use cellfeed_core::{Error, Result};
use std::fmt;

type At<'a, T> = Box<dyn Fn(usize) -> T + 'a>;
type Append<'a> = Box<dyn Fn(usize, &mut String) + 'a>;

/// The strings of a column or an index: those of a slice, or a function that writes the one of a
/// row into a buffer.
pub struct Strings<'a>(pub(super) StringsKind<'a>);

pub(super) enum StringsKind<'a> {
    Slice(&'a [String]),
    Function(Append<'a>),
}

impl<'a> Strings<'a> {
    /// The strings of a slice.
    #[must_use]
    pub fn new(strings: &'a [String]) -> Self {
        Self(StringsKind::Slice(strings))
    }

    /// Strings made when they are written: the function appends row `i`'s to an empty buffer.
    pub fn with(write: impl Fn(usize, &mut String) + 'a) -> Self {
        Self(StringsKind::Function(Box::new(write)))
    }

    /// How many, unless a function makes them.
    pub(super) fn len(&self) -> Option<usize> {
        match &self.0 {
            StringsKind::Slice(strings) => Some(strings.len()),
            StringsKind::Function(_) => None,
        }
    }
}

impl<'a> From<&'a [String]> for Strings<'a> {
    fn from(strings: &'a [String]) -> Self {
        Self::new(strings)
    }
}

impl<'a> From<&'a Vec<String>> for Strings<'a> {
    fn from(strings: &'a Vec<String>) -> Self {
        Self::new(strings)
    }
}

impl fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strings").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The numbers of a column: those of a slice, or a function of the row.
pub struct Items<'a, T> {
    len: Option<usize>,
    pub(super) at: At<'a, T>,
}

impl<'a, T: Copy> Items<'a, T> {
    /// The items of a slice.
    #[must_use]
    pub fn new(items: &'a [T]) -> Self {
        Self { len: Some(items.len()), at: Box::new(|row| items[row]) }
    }

    /// Items computed when they are written: `at(i)` is row `i`'s.
    pub fn with(at: impl Fn(usize) -> T + 'a) -> Self {
        Self { len: None, at: Box::new(at) }
    }
}

impl<'a, T: Copy> From<&'a [T]> for Items<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self::new(items)
    }
}

impl<'a, T: Copy> From<&'a Vec<T>> for Items<'a, T> {
    fn from(items: &'a Vec<T>) -> Self {
        Self::new(items)
    }
}

impl<T> fmt::Debug for Items<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The values of a column.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ColumnValues<'a> {
    I32(Items<'a, i32>),
    I64(Items<'a, i64>),
    U64(Items<'a, u64>),
    F32(Items<'a, f32>),
    F64(Items<'a, f64>),
    Bool(Items<'a, bool>),
    String(Strings<'a>),
    /// Codes into the categories, -1 for missing. They are stored in the narrowest of `i8`, `i16`
    /// and `i32` that pandas would choose for that many categories.
    Categorical {
        codes: Items<'a, i32>,
        categories: &'a [String],
        ordered: bool,
    },
    /// Integers or booleans of which some are missing, whatever their value is.
    Nullable {
        values: Box<ColumnValues<'a>>,
        missing: Items<'a, bool>,
    },
}

impl ColumnValues<'_> {
    fn len(&self) -> Option<usize> {
        match self {
            Self::I32(items) => items.len,
            Self::I64(items) => items.len,
            Self::U64(items) => items.len,
            Self::Nullable { values, missing } => values.len().or(missing.len),
            Self::F32(items) => items.len,
            Self::F64(items) => items.len,
            Self::Bool(items) => items.len,
            Self::String(strings) => strings.len(),
            Self::Categorical { codes, .. } => codes.len,
        }
    }
}

/// Whether HDF5 and AnnData can give a member this name.
pub(super) fn may_name(name: &str) -> bool {
    !(name.is_empty() || name == "." || name == "_index" || name.contains(['/', '\0']))
}

/// A table: its index and its columns, in order.
///
/// ```
/// use cellfeed_hdf5::{ColumnValues, Frame, Items, Strings};
///
/// let lines = ["A549".to_owned(), "HeLa".to_owned()];
/// let depth = vec![1200, 800, 990];
/// let obs = Frame::new(Strings::with(|row, name| name.push_str(&format!("c{row}"))))
///     .with_column("depth", ColumnValues::I32((&depth).into()))
///     .with_column(
///         "line",
///         ColumnValues::Categorical {
///             codes: Items::new(&[0, 1, -1]),
///             categories: &lines,
///             ordered: false,
///         },
///     );
/// ```
#[derive(Debug)]
pub struct Frame<'a> {
    pub(super) index: Strings<'a>,
    pub(super) index_name: String,
    pub(super) columns: Vec<(String, ColumnValues<'a>)>,
}

impl<'a> Frame<'a> {
    /// A table without columns; the index names its rows.
    #[must_use]
    pub fn new(index: Strings<'a>) -> Self {
        Self { index, index_name: "_index".to_owned(), columns: Vec::new() }
    }

    /// Sets what the index is called. Default: `_index`.
    #[must_use]
    pub fn with_index_name(mut self, name: impl Into<String>) -> Self {
        self.index_name = name.into();
        self
    }

    /// Appends a column.
    #[must_use]
    pub fn with_column(mut self, name: impl Into<String>, values: ColumnValues<'a>) -> Self {
        self.columns.push((name.into(), values));
        self
    }

    /// Whether the table has `rows` rows and columns that AnnData can hold.
    pub(super) fn check(&self, table: &'static str, rows: usize) -> Result<()> {
        let wrong_length = |len: Option<usize>| len.is_some_and(|len| len != rows);
        if wrong_length(self.index.len()) {
            return Err(Error::invalid_input(format!(
                "the index of {table} has {} entries for {rows} rows",
                self.index.len().unwrap_or(0)
            )));
        }
        for (i, (name, values)) in self.columns.iter().enumerate() {
            let element = || format!("{table}/{name}");
            if wrong_length(values.len()) {
                return Err(Error::invalid_input(format!(
                    "the column has {} entries for {rows} rows",
                    values.len().unwrap_or(0)
                ))
                .with("element", element()));
            }
            if !may_name(name) || *name == self.index_name {
                return Err(Error::invalid_input(
                    "a column's name may not be empty, \".\", that of the index or contain \"/\"",
                )
                .with("element", element()));
            }
            if self.columns[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(
                    Error::invalid_input("two columns have one name").with("element", element())
                );
            }
            if let ColumnValues::Categorical { categories, .. } = values
                && i32::try_from(categories.len()).is_err()
            {
                return Err(Error::invalid_input("a column has at most 2^31 - 1 categories")
                    .with("element", element()));
            }
        }
        Ok(())
    }
}
