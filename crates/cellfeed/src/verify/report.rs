//! What is to be compared, and what comes of it.

use std::fmt;

/// The first thing in which two stores differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs: `X`, `layers/counts`, `obs/plate`, `n_obs`.
    pub element: String,
    /// The row, where the difference has one.
    pub row: Option<u64>,
    /// The name of the cell or gene at that row, if it has one.
    pub name: Option<String>,
    /// The gene, by name or by number, where the difference is of a matrix.
    pub gene: Option<String>,
    /// What the first store has.
    pub first: String,
    /// What the second store has.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.element)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if let Some(gene) = &self.gene {
            write!(f, ", gene {gene}")?;
        }
        write!(f, ": {} and {}", self.first, self.second)
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// Matrices and columns that were compared.
    pub compared: Vec<String>,
    /// What only the first store has, or can be read of it alone.
    pub only_first: Vec<String>,
    /// The same for the second.
    pub only_second: Vec<String>,
    /// Bytes of each store that were held against the store's own checksums; nothing where it has none.
    pub checksum_bytes: [Option<u64>; 2],
    /// What could not be compared, since a store has it and it cannot be read.
    pub unreadable: Vec<Unreadable>,
}

/// A matrix or column that a store has, and that cannot be read. Whether the stores are equal in it is not
/// known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// What it is: `X`, `layers/counts`, `obs/plate`.
    pub element: String,
    /// Why the first store does not give it, if it does not.
    pub first: Option<String>,
    /// The same for the second.
    pub second: Option<String>,
    /// Whether both have it, so that it was to be compared.
    pub in_both: bool,
}

impl Verified {
    /// Whether nothing differs, nothing is in one store alone, and all could be read.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.difference.is_none()
            && self.only_first.is_empty()
            && self.only_second.is_empty()
            && self.unreadable.is_empty()
    }

    /// Whether all that both stores have could be read, and is equal.
    #[must_use]
    pub fn common_equal(&self) -> bool {
        self.difference.is_none() && self.unreadable.iter().all(|u| !u.in_both)
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyStage {
    /// Holds the bytes of a store's files against their checksums, of one store after the other.
    Checksums,
    /// Reads rows.
    Rows,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// What is being done.
    pub stage: VerifyStage,
    /// Bytes or rows that this was done with.
    pub done: u64,
    /// Those there are.
    pub total: u64,
}

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    pub(super) without: Vec<String>,
    pub(super) memory: u64,
}

impl Default for VerifyOptions {
    /// Everything, in 1 GiB.
    fn default() -> Self {
        Self { without: Vec::new(), memory: 1 << 30 }
    }
}

impl VerifyOptions {
    /// Bytes of memory for the rows of both stores, as they are read. Default: 1 GiB.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Matrices and columns that are not compared, as `X`, `layers/counts`, `raw/X`, `obs/plate`. Default:
    /// none.
    #[must_use]
    pub fn with_without(mut self, elements: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.without = elements.into_iter().map(Into::into).collect();
        self
    }
}
